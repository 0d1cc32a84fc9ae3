"""Signalling read from captured packets: DHCPv6 with its relay levels, PBU and PBA, router discovery, MLD."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import ClientMessage, Options, every, first, unwrap
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix, StatusOption
from dmm_wire.errors import WireError
from lab import wording
from lab.names import CMD_NAME, MN, Names
from lab.packets import MOBILITY, UDP, Packet
from lab.topology import CMD, PLANS

_ICMPV6_NAMES = {
    130: "MLD query",
    131: "MLD report",
    133: "RS",
    134: "RA",
    143: "MLDv2 report",
}
_ROUTER_ADVERTISEMENT = 134
_PREFIX_INFORMATION = 3
_PREFIX_FLAGS = {0x80: "L", 0x40: "A"}
_RA_FLAGS = {0x80: "M", 0x40: "O"}


@dataclass(frozen=True, slots=True)
class Message:
    """A message between two of the parties, at the link where it arrived.

    `name` is "Rebind", "Relay-forward", "PBU"...; `inner` the client's message inside a relay message. `details` are
    short texts for a person; `suboptions` (also those in Vendor Specific mobility options), `mobility` and `dhcpv6` are
    the decoded parts for assertions.
    """

    at: int
    link: str
    sender: str
    receiver: str
    name: str
    inner: str = ""
    details: tuple[str, ...] = ()
    suboptions: tuple[dmm.SubOption, ...] = ()
    mobility: mh.BindingUpdate | mh.BindingAcknowledgement | None = None
    dhcpv6: ClientMessage | None = None

    @property
    def title(self) -> str:
        """`name`, with what it carries: "Relay-forward(Rebind)"."""
        return f"{self.name}({self.inner})" if self.inner else self.name


def read(packets: Iterable[Packet], names: Names) -> list[Message]:
    """The signalling among `packets`, each message once. What cannot be decoded is a message that says so."""
    found = []
    for packet in packets:
        try:
            message = _read(packet, names)
        except WireError as problem:
            sender, receiver = _parties(packet)
            message = Message(
                packet.at, packet.link, sender, receiver, f"undecodable: {problem.reason}"
            )
        if message is not None:
            found.append(message)
    return found


def _read(packet: Packet, names: Names) -> Message | None:
    on_access_link = packet.link.startswith("access")
    if packet.protocol == UDP and {CLIENT_PORT, SERVER_PORT} & set(packet.ports):
        # What a MAAR and the CMD say to each other crosses two links; it counts where the CMD is.
        if on_access_link or packet.link == CMD.node:
            return _dhcpv6(packet, names)
    elif packet.protocol == MOBILITY:
        # Counted where it arrives: at the MAAR, or the CMD, that it is addressed to.
        ends = {CMD.node: CMD.packed, **{plan.node: plan.endpoint for plan in PLANS}}
        if packet.destination == ends.get(packet.link):
            return _mobility(packet, names)
    elif packet.icmp_type in _ICMPV6_NAMES and on_access_link:
        # A MAAR is a listener of its own; the node's reports are what shows that it is there.
        from_node = packet.sender == "mn"
        return (
            _icmpv6(packet, names)
            if from_node or packet.icmp_type == _ROUTER_ADVERTISEMENT
            else None
        )
    return None


def _parties(packet: Packet) -> tuple[str, str]:
    if packet.link.startswith("access"):
        maar = next(plan for plan in PLANS if plan.access_link == packet.link).name.upper()
        return (MN, maar) if packet.sender == "mn" else (maar, MN)
    return _party(packet.source), _party(packet.destination)


def _party(address: bytes) -> str:
    if address == CMD.packed:
        return CMD_NAME
    return next((p.name.upper() for p in PLANS if p.endpoint == address), "?")


# --- DHCPv6 ---


def _dhcpv6(packet: Packet, names: Names) -> Message:
    data = packet.payload[8:]
    unwrapped = unwrap(data)
    client = unwrapped.client
    sender, receiver = _parties(packet)
    title = _type_name(client.type)
    if not unwrapped.relays:
        return Message(
            *(packet.at, packet.link, sender, receiver, title),
            details=tuple(_lease_texts(client.options, names)),
            dhcpv6=client,
        )
    level = unwrapped.relays[-1]
    suboptions = dmm.from_options(dmm.DEFAULT_ENTERPRISE, level.options) or ()
    return Message(
        *(packet.at, packet.link, sender, receiver, _type_name(level.type)),
        inner=title,
        details=tuple(wording.suboption(suboption, names) for suboption in suboptions),
        suboptions=suboptions,
        dhcpv6=client,
    )


_TYPE_NAMES = {
    MessageType.RELAY_FORW: "Relay-forward",
    MessageType.RELAY_REPL: "Relay-reply",
    MessageType.INFORMATION_REQUEST: "Information-request",
}


def _type_name(number: int) -> str:
    if number in _TYPE_NAMES:
        return _TYPE_NAMES[MessageType(number)]
    try:
        return MessageType(number).name.capitalize()
    except ValueError:
        return f"message type {number}"


def _lease_texts(options: Options, names: Names) -> list[str]:
    texts = []
    for code, body in options:
        if code == OptionCode.IA_NA:
            inside = IaNa.decode(body).options
            leases = [
                f"{names.address(lease.address)} {_lifetime(lease.preferred, lease.valid)}"
                for lease in map(IaAddress.decode, every(inside, OptionCode.IAADDR))
            ]
            texts.append(f"IA_NA {', '.join(leases)}{_status(inside)}".strip())
        elif code == OptionCode.IA_PD:
            inside = IaPd.decode(body).options
            leases = [
                f"{names.prefix(lease.prefix)} {_lifetime(lease.preferred, lease.valid)}"
                for lease in map(IaPrefix.decode, every(inside, OptionCode.IAPREFIX))
            ]
            texts.append(f"IA_PD {', '.join(leases)}{_status(inside)}".strip())
    if status := _status(options):
        texts.append(status.strip())
    return texts


def _lifetime(preferred: int, valid: int) -> str:
    if valid == 0:
        return "ended" if preferred == 0 else "invalid"
    return "deprecated" if preferred == 0 else f"{preferred} s"


def _status(options: Options) -> str:
    body = first(options, OptionCode.STATUS_CODE)
    if body is None:
        return ""
    code = StatusOption.decode(body).code
    return f" {StatusCode(code).name if code in set(StatusCode) else code}"


# --- PMIPv6 and ICMPv6 ---


def _mobility(packet: Packet, names: Names) -> Message:
    # The checksum was filled in by the kernel and is checked here for each of them.
    ends = packet.source, packet.destination
    place = (packet.at, packet.link, *_parties(packet))
    try:
        decoded = mh.decode(packet.payload, *ends)
    except WireError as problem:
        if problem.reason != "binding-error":
            raise
        error = mh.decode_binding_error(packet.payload, *ends)
        return Message(*place, "Binding Error", details=(wording.binding_error(error),))
    name = "PBU" if isinstance(decoded, mh.BindingUpdate) else "PBA"
    return Message(
        *(*place, name),
        details=tuple(wording.binding(decoded, names)),
        suboptions=tuple(_suboptions(decoded)),
        mobility=decoded,
    )


def _suboptions(
    message: mh.BindingUpdate | mh.BindingAcknowledgement,
) -> Iterator[dmm.SubOption]:
    """The sub-options in Vendor Specific mobility options; one that cannot be read counts as absent."""
    for option in message.options:
        if isinstance(option, mh.VendorSpecific) and option.enterprise == dmm.DEFAULT_ENTERPRISE:
            kind = dmm.REGISTRY.get(option.subtype)
            with suppress(WireError):
                yield from () if kind is None else (kind.decode(option.data),)


def _icmpv6(packet: Packet, names: Names) -> Message:
    sender, receiver = _parties(packet)
    name = _ICMPV6_NAMES[packet.payload[0]]
    details: tuple[str, ...] = ()
    if name == "RA" and len(packet.payload) >= 16:
        flags = " ".join(text for bit, text in _RA_FLAGS.items() if packet.payload[5] & bit)
        # One to all nodes (ff02::1) may be in a frame to this node alone.
        target = "all nodes" if packet.multicast else "to the node"
        router = names.address(packet.source)
        shown = f" as {router}" if router.startswith("R") else ""
        details = (
            f"{target}{shown}, flags {flags or 'none'}",
            *_prefix_informations(packet, names),
        )
    return Message(packet.at, packet.link, sender, receiver, name, details=details)


def _prefix_informations(packet: Packet, names: Names) -> Iterator[str]:
    """The Prefix Information options of a Router Advertisement (RFC 4861 section 4.6.2)."""
    data = packet.payload[16:]
    while len(data) >= 8 and data[1]:
        option, data = data[: 8 * data[1]], data[8 * data[1] :]
        if option[0] == _PREFIX_INFORMATION and len(option) == 32:
            flags = "".join(text for bit, text in _PREFIX_FLAGS.items() if option[3] & bit)
            valid, preferred = (int.from_bytes(option[at : at + 4], "big") for at in (4, 8))
            prefix = names.prefix(Prefix.of(option[16:32], option[2]))
            yield f"{prefix} {_lifetime(preferred, valid)}{flags and f', {flags}'}"


def named_prefixes(message: mh.BindingUpdate | mh.BindingAcknowledgement) -> list[Prefix]:
    """The prefixes that a PBU or PBA is about."""
    return [
        option.prefix
        for option in message.options
        if isinstance(option, mh.HomeNetworkPrefix | mh.DelegatedPrefix) and option.prefix.length
    ]
