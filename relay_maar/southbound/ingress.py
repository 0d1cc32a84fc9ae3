"""What hosts and peers may not send: one nftables table of our own, which `nft list table ip6 relay-maar` shows.

From an access link come packets of the nodes that are served there, and nothing else (BCP 38, RFC 2827). Which these
are is not written down a second time: the reverse path says it, because the main table has a route to each prefix that
is served, by the link where its node is. So the filter changes in the same instant as the route, and cannot lag behind.
A bit of the mark takes the lookup past the routes by source, which would lead it away from the access links.

What comes out of a tunnel goes to a node here, or is from one of our prefixes, or is on to another MAAR. It is told by
the same bit, which stays on it through the decapsulation and is taken off again when it is forwarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from dmm_wire.address import format_address
from relay_maar.southbound import identity, nft
from relay_maar.southbound.api import AccessDevice, SouthboundSettings
from relay_maar.southbound.layout import MARK
from relay_maar.southbound.nft import NftError

_NAME: Final = "relay-maar"
TABLE: Final = f"ip6 {_NAME}"
REASONS: Final = (
    "tunnel",
    "mobility",
    "header-chain",
    "routing-header",
    "endpoint",
    "source",
    "decapsulated",
)
"""Why packets are dropped; each has a counter."""
_REMOVAL: Final = f"add table {TABLE}\ndelete table {TABLE}\n"
_UNQUOTABLE: Final = frozenset('"\\*')

# `rt type 4` is the segment routing header (RFC 8754). ICMPv6 errors to T are the core's business, never a host's.
# A first fragment in which nft finds no upper layer hides it in the next one, which nobody has to send (RFC 7112): of
# that, no rule about `l4proto` is true, `!=` as little as the others.
# Of what is in a tunnelled packet, behind whatever options (RFC 2473 section 5.1), octets 8 and up are the source,
# octet 7 is the hop limit: nft has no name for them. The hop limit is one less after a tunnel (RFC 2473 section 3.1),
# which the kernel's segment routing leaves out: what it encapsulates again and again, between two MAARs that point at
# each other, would go round for ever.
_RULESET = """\
table {table} {{
{counters}
	chain prerouting {{
		type filter hook prerouting priority raw; policy accept;
		iifname {access} jump from-host
{dlifs}		iifname {core} ip6 daddr {endpoint} meta l4proto 41 jump from-maar
	}}

	chain from-host {{
		meta l4proto 41 counter name tunnel drop
		meta l4proto 135 counter name mobility drop
		frag frag-off 0 jump first-fragment
		rt type 4 counter name routing-header drop
		ip6 daddr {endpoint} meta l4proto != icmpv6 counter name endpoint drop
		ip6 daddr {endpoint} icmpv6 type != echo-request counter name endpoint drop
		ip6 saddr fe80::/10 accept
		ip6 saddr :: ip6 daddr ff02::/16 meta l4proto icmpv6 accept
		ip6 daddr {{ fe80::/10, ff02::/16 }} icmpv6 type {{ 133, 135, 136 }} accept
		meta mark set meta mark | {mark:#x}
{dlif_sources}		fib saddr . mark . iif oif missing counter name source drop
		meta mark set meta mark & {unmark:#x}
	}}

	chain first-fragment {{
		meta l4proto != 41 return
		counter name header-chain drop
	}}

	chain unmarked {{
		meta mark set meta mark & {unmark:#x}
	}}

	chain from-maar {{
		@th,64,128 {endpoint_number} counter name decapsulated drop
		@th,56,8 set @th,56,8 map {one_less}
		meta mark set meta mark | {mark:#x}
	}}

	chain forward {{
		type filter hook forward priority raw; policy accept;
		meta mark & {mark:#x} == 0 accept
		meta mark set meta mark & {unmark:#x}
		oifname {devices} accept
		ip6 saddr {ours} accept
		counter name decapsulated drop
	}}
}}
"""


def ruleset(settings: SouthboundSettings, devices: Iterable[AccessDevice]) -> str:
    """The table in nft's language, "" where no access link is filtered. Raises NftError."""
    found = [(device.interface, device.device) for device in devices]
    filtered = [name for name in settings.access_interfaces if name not in settings.unfiltered]
    if not filtered:
        return ""
    # Frames to the interface's own link-layer address do not come by our device.
    inputs = [*filtered, *(device for interface, device in found if interface in filtered)]
    outputs = [*settings.access_interfaces, *(device for _, device in found)]
    # Other anchors' devices come and go: a pattern names them. The way back is by our own device, also for who sends to
    # another router: hosts choose their router without regard to the source.
    devices_of = {
        f'"{identity.dlif_name(device, "*")}"': device
        for interface, device in found
        if settings.dlif and interface in filtered
    }
    return _RULESET.format(
        dlifs="".join(f"\t\tiifname {names} jump from-host\n" for names in devices_of),
        dlif_sources="".join(
            f'\t\tiifname {names} fib saddr . mark oifname "{device}" goto unmarked\n'
            for names, device in devices_of.items()
        ),
        table=TABLE,
        counters="".join(f"\tcounter {reason} {{ }}\n" for reason in REASONS),
        access=_names(inputs),
        core=_names([settings.core_interface]),
        devices=_names(outputs),
        endpoint=format_address(settings.endpoint),
        endpoint_number=f"0x{settings.endpoint.hex()}",
        one_less=_set(f"{count} : {max(0, count - 1)}" for count in range(256)),
        ours=_set([format_address(settings.endpoint), *map(str, settings.pools)]),
        mark=MARK,
        unmark=0xFFFFFFFF ^ MARK,
    )


def _names(interfaces: Iterable[str]) -> str:
    quoted = []
    for name in interfaces:
        if _UNQUOTABLE & set(name):
            raise NftError(f"no filter can name the interface {name!r}")
        quoted.append(f'"{name}"')
    return _set(quoted)


def _set(members: Iterable[str]) -> str:
    return f"{{ {', '.join(members)} }}"


class IngressFilter:
    """The table in the network namespace that it is made and used in. Every method raises NftError."""

    def __init__(self, settings: SouthboundSettings) -> None:
        self._settings = settings
        self._reader = nft.Reader()
        self._wanted = ""
        self._listed = ""
        """How nft shows what we put there."""
        self._generation = 0
        """Of nftables when it was seen to be right."""

    def close(self) -> None:
        """Leave it as it is. Idempotent."""
        self._reader.close()

    def put(self, devices: Iterable[AccessDevice]) -> None:
        """Put it, or replace in one step what an earlier process left. The counters begin at zero."""
        wanted = ruleset(self._settings, devices)
        if not wanted:
            self.remove()
            return
        nft.run("-f", "-", text=_REMOVAL + wanted)
        self._generation = self._reader.generation()
        self._wanted, self._listed = wanted, _listing()

    def restore(self, devices: Iterable[AccessDevice]) -> bool:
        """Put it again where it is not, any more, what it should be. Returns whether somebody else had changed it."""
        devices = tuple(devices)
        disturbed = bool(self._wanted) and self._is_changed()
        if disturbed or ruleset(self._settings, devices) != self._wanted:
            self.put(devices)
        return disturbed

    def remove(self) -> None:
        """Idempotent. Without nft there is no table of ours."""
        if nft.program() is not None:
            nft.run("-f", "-", text=_REMOVAL)
        self._wanted = self._listed = ""

    def drops(self) -> Mapping[str, int]:
        """Packets dropped since it was put, by reason."""
        if not self._wanted:
            return {}
        counted = self._reader.counters(nft.INET6, _NAME)
        return {reason: count for reason, count in counted.items() if count}

    def _is_changed(self) -> bool:
        generation = self._reader.generation()
        if generation == self._generation:
            return False
        changed = _listing() != self._listed
        self._generation = generation
        return changed


def _listing() -> str:
    """The table without what its counters say; "" where there is none."""
    try:
        return nft.run("-s", "list", "table", *TABLE.split())
    except NftError:
        return ""
