"""Generated traffic: what clients, relay agents and MAARs of a small domain send, and what nobody should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from dhcp_cmd.server.responder import Arrival
from dhcp_cmd.store.admin import default_relay_id
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, Options, RelayMessage, every, unwrap
from dmm_wire.dhcpv6.options import (
    ClientLinkLayerAddress,
    ElapsedTime,
    IaAddress,
    IaNa,
    IaPd,
    IaPrefix,
    OptionRequest,
)
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.plugin.messages import SERVER_DUID
from tests.cmd.server.hosts import MULTICAST, UNICAST

ENTERPRISE = dmm.DEFAULT_ENTERPRISE
MAARS = (1, 2, 3)
NODES = (1, 2, 3, 4)
SECOND = 1_000_000

OPTION_CODES = (7, 12, 21, 22, 23, 24, 31, 56, 64, 82, 83, 94)
"""What clients ask for: all static options that dhcpkit has, and others."""


def duid(node: int) -> bytes:
    return b"\x00\x03\x00\x01" + mac(node)


def mac(node: int) -> bytes:
    return b"\x02\x00\x00\x00\x00" + bytes((node,))


def endpoint(maar: int) -> bytes:
    return parse_address(f"2001:db8:ffff::{maar}")


@dataclass(frozen=True)
class Ia:
    delegated: bool
    iaid: int
    hints: str
    """own: what the node holds; foreign, length: a prefix of nobody, a length only; zero: as own, lifetimes 0."""


@dataclass(frozen=True)
class Path:
    """How a message reaches the server."""

    kind: str
    """maar, own (the MAAR asks for itself), plain (a relay agent that knows nothing of mobility), ldra or relay (one
    more level below the MAAR), unknown (a MAAR that nobody registered), liar (one with another's Relay-ID), multicast
    or unicast (direct)."""
    maar: int
    options: tuple[str, ...]
    """More options at the relay level nearest to the server."""


@dataclass(frozen=True)
class Step:
    """One message, and how many seconds after the one before."""

    after: int
    node: int
    seen_mac: int | None
    kind: int
    path: Path
    ias: tuple[Ia, ...]
    server_id: str
    client_id: str
    requests: tuple[int, ...] | None
    elapsed: int | None
    extras: tuple[str, ...]
    damage: tuple[int, int] | None = None
    """An octet set to a value, counted from the end."""


CLIENT_TYPES = (
    MessageType.SOLICIT,
    MessageType.REQUEST,
    MessageType.CONFIRM,
    MessageType.RENEW,
    MessageType.REBIND,
    MessageType.RELEASE,
    MessageType.DECLINE,
    MessageType.INFORMATION_REQUEST,
)

EXTRAS = {
    "rapid-commit": (int(OptionCode.RAPID_COMMIT), b""),
    "ia-ta": (int(OptionCode.IA_TA), b"\x00\x00\x00\x01"),
    "odd-oro": (int(OptionCode.ORO), b"\x00\x17\x00"),
    "second-oro": (int(OptionCode.ORO), b"\x00\x1f"),
    "unknown": (65_000, b"anything"),
    "vendor-class": (int(OptionCode.VENDOR_CLASS), b"\x00\x00\x7e\xd9\x00\x01x"),
    "user-class": (int(OptionCode.USER_CLASS), b"\x00\x01u"),
    "vendor": (int(OptionCode.VENDOR_OPTS), b"\x00\x00\x7e\xd9"),
    "fqdn": (int(OptionCode.CLIENT_FQDN), b"\x00\x01h\x00"),
    "reconfigure": (int(OptionCode.RECONF_ACCEPT), b""),
    "preference": (int(OptionCode.PREFERENCE), b"\x05"),
    "status": (int(OptionCode.STATUS_CODE), b"\x00\x00"),
    "auth": (int(OptionCode.AUTH), b"\x00" * 11),
}

RELAY_OPTIONS = {
    "remote-id": (int(OptionCode.REMOTE_ID), b"\x00\x00\x7e\xd9port 7"),
    "subscriber-id": (int(OptionCode.SUBSCRIBER_ID), b"someone"),
    "ero": (int(OptionCode.ERO), b"\x00\x25\x00\x12\xfd\xe8"),
    "odd-ero": (int(OptionCode.ERO), b"\x00\x25\x00"),
    "unknown": (65_000, b"anything"),
    "second-interface": (int(OptionCode.INTERFACE_ID), b"eth2"),
    "ero-relay-id": (int(OptionCode.ERO), b"\x00\x35\xfd\xe8"),
    "ero-nothing": (int(OptionCode.ERO), b"\xfd\xe9"),
}

ias = st.builds(
    Ia,
    st.booleans(),
    st.sampled_from((1, 2)),
    st.sampled_from(("", "", "own", "own", "zero", "foreign", "length")),
)
paths = st.builds(
    Path,
    st.sampled_from(
        ("maar",) * 10
        + ("own", "own", "plain", "plain", "ldra", "relay", "unknown", "liar")
        + ("multicast", "unicast")
    ),
    st.sampled_from(MAARS),
    st.lists(st.sampled_from(tuple(RELAY_OPTIONS)), max_size=3, unique=True).map(tuple),
)
steps = st.builds(
    Step,
    after=st.sampled_from((0, 0, 0, 1, 1, 10, 1000, 2500, 4000, 90_000)),
    node=st.sampled_from(NODES),
    seen_mac=st.sampled_from((0, 0, 0, 0, 0, 0, None, 1, 2)),  # 0: the node's own
    kind=st.sampled_from(CLIENT_TYPES * 5 + (MessageType.SOLICIT,) * 8 + (2, 10, 13, 14, 200)),
    path=paths,
    ias=st.lists(ias, max_size=3).map(tuple),
    server_id=st.sampled_from(("proper",) * 9 + ("none", "other", "ours")),
    client_id=st.sampled_from(("proper",) * 20 + ("none", "short", "long")),
    requests=st.none()
    | st.lists(st.sampled_from(OPTION_CODES), max_size=4, unique=True).map(tuple),
    elapsed=st.sampled_from((0, 0, 100, 3000, 65_535, None)),
    extras=st.lists(st.sampled_from(tuple(EXTRAS)), max_size=2, unique=True).map(tuple),
    damage=st.none() | st.none() | st.none() | st.tuples(st.integers(1, 120), st.integers(0, 255)),
)
batches = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=1, max_size=8)


@dataclass
class Nodes:
    """What the nodes hold, as the answers told them."""

    held: dict[tuple[int, bool, int], set[Prefix]] = field(default_factory=dict)
    messages: int = 0

    def learn(self, node: int, answer: bytes) -> None:
        try:
            options = unwrap(answer).client.options
        except WireError:
            return
        for body in every(options, OptionCode.IA_NA):
            na = IaNa.decode(body)
            for lease in every(na.options, OptionCode.IAADDR):
                address = Prefix(IaAddress.decode(lease).address, 128)
                self.held.setdefault((node, False, na.iaid), set()).add(address)
        for body in every(options, OptionCode.IA_PD):
            pd = IaPd.decode(body)
            for lease in every(pd.options, OptionCode.IAPREFIX):
                prefix = IaPrefix.decode(lease).prefix
                self.held.setdefault((node, True, pd.iaid), set()).add(prefix)

    def message(self, step: Step) -> Arrival:
        """The datagram of a step."""
        self.messages += 1
        if step.path.kind == "own":
            data = _own(step, self.messages)
        else:
            data = _relayed(self._client(step), step)
        if step.damage is not None:
            back, value = step.damage
            position = len(data) - 1 - back % len(data)
            data = data[:position] + bytes((value,)) + data[position + 1 :]
        if step.path.kind == "multicast":
            return Arrival(data, parse_address("fe80::9"), MULTICAST)
        if step.path.kind == "unicast":
            return Arrival(data, parse_address("2001:db8:9::9"), UNICAST)
        return Arrival(data, endpoint(step.path.maar), UNICAST)

    def _client(self, step: Step) -> bytes:
        options: list[tuple[int, bytes]] = []
        if step.client_id != "none":
            body = {"short": b"\x00", "long": bytes(140)}.get(step.client_id, duid(step.node))
            options.append((int(OptionCode.CLIENTID), body))
        if _has_server_id(step):
            other = step.server_id == "other"
            options.append((int(OptionCode.SERVERID), b"\x00\x02other" if other else SERVER_DUID))
        if step.elapsed is not None:
            options.append(ElapsedTime(step.elapsed).encode())
        if step.requests is not None:
            options.append(OptionRequest(step.requests).encode())
        if step.kind != MessageType.INFORMATION_REQUEST or step.server_id == "ours":
            options += (self._ia(step.node, ia) for ia in step.ias)
        options += (EXTRAS[name] for name in step.extras)
        return ClientMessage(step.kind, self.messages.to_bytes(3, "big"), tuple(options)).encode()

    def _ia(self, node: int, ia: Ia) -> tuple[int, bytes]:
        lifetimes = (0, 0) if ia.hints == "zero" else (300, 600)
        prefixes: list[Prefix] = []
        if ia.hints in ("own", "zero"):
            prefixes = sorted(self.held.get((node, ia.delegated, ia.iaid), ()))
        elif ia.hints == "foreign":
            prefixes = [
                Prefix.parse("2001:db8:f00d::/60" if ia.delegated else "2001:db8:f00d::1/128")
            ]
        elif ia.hints == "length":
            prefixes = [Prefix(UNSPECIFIED, 60 if ia.delegated else 128)]
        if ia.delegated:
            inner: Options = tuple(IaPrefix(p, *lifetimes).encode() for p in prefixes)
            return IaPd(ia.iaid, 0, 0, inner).encode()
        inner = tuple(IaAddress(p.address, *lifetimes).encode() for p in prefixes)
        return IaNa(ia.iaid, 0, 0, inner).encode()


def _has_server_id(step: Step) -> bool:
    wants = step.kind in (
        MessageType.REQUEST,
        MessageType.RENEW,
        MessageType.RELEASE,
        MessageType.DECLINE,
    )
    return {"proper": wants, "none": False}.get(step.server_id, True)


def _own(step: Step, number: int) -> bytes:
    """A first frame of a node, or a refresh where no link-layer address was seen; a failed anchor."""
    maar = step.path.maar
    relay_id = default_relay_id(f"maar{maar}")
    suboptions: list[dmm.SubOption] = [dmm.Maar(endpoint(maar), 0xC000)]
    if step.seen_mac is not None:
        suboptions.append(
            dmm.MobileNode(Identity(IdentitySubtype.EUI48, mac(step.seen_mac or step.node)))
        )
        if step.server_id != "none":
            suboptions.append(dmm.Attachment(step.after * 10, 1, 4, 1, mac(step.node)))
        if step.requests:
            prefix = Prefix.parse(f"2001:db8:{step.requests[0] % 3 + 1}00::/64")
            suboptions.append(dmm.AnchorFailed(prefix, endpoint(step.requests[0] % 3 + 1)))
    query = ClientMessage(
        MessageType.INFORMATION_REQUEST,
        number.to_bytes(3, "big"),
        ((int(OptionCode.CLIENTID), relay_id), ElapsedTime(0).encode()),
    ).encode()
    link = UNSPECIFIED if step.seen_mac is None else _link(maar)
    return _forward(query, maar, link, 0, relay_id, suboptions, step, bytes(16))


def _relayed(message: bytes, step: Step) -> bytes:
    path, maar = step.path, step.path.maar
    peer = parse_address(f"fe80::{step.node}")
    own: list[dmm.SubOption] = [dmm.Maar(endpoint(maar), 0xC000)]
    relay_id = default_relay_id(f"maar{maar}")
    match path.kind:
        case "multicast" | "unicast":
            return message
        case "plain":
            return _forward(message, maar, _link(maar), 0, None, None, step, peer)
        case "ldra" | "relay":
            below = UNSPECIFIED if path.kind == "ldra" else parse_address("2001:db8:b::1")
            inner = RelayMessage(
                MessageType.RELAY_FORW,
                0,
                below,
                peer,
                (
                    (int(OptionCode.INTERFACE_ID), b"port1"),
                    (int(OptionCode.RELAY_MSG), message),
                ),
            ).encode()
            return _forward(inner, maar, _link(maar), 1, relay_id, own, step, peer)
        case "unknown":
            return _forward(message, maar, _link(maar), 0, b"\x00\x02nobody", own, step, peer)
        case "liar":
            other = default_relay_id(f"maar{maar % 3 + 1}")
            return _forward(message, maar, _link(maar), 0, other, own, step, peer)
        case _:
            return _forward(message, maar, _link(maar), 0, relay_id, own, step, peer)


def _link(maar: int) -> bytes:
    return parse_address(f"2001:db8:aaaa:{maar}::1")


def _forward(
    message: bytes,
    maar: int,
    link: bytes,
    hops: int,
    relay_id: bytes | None,
    suboptions: Sequence[dmm.SubOption] | None,
    step: Step,
    peer: bytes,
) -> bytes:
    options: list[tuple[int, bytes]] = [(int(OptionCode.INTERFACE_ID), b"eth%d" % maar)]
    if relay_id is not None:
        options.append((int(OptionCode.RELAY_ID), relay_id))
    if step.seen_mac is not None:
        options.append(ClientLinkLayerAddress(1, mac(step.seen_mac or step.node)).encode())
    options += (RELAY_OPTIONS[name] for name in step.path.options)
    if suboptions is not None:
        options.append(dmm.to_option(ENTERPRISE, suboptions))
    options.append((int(OptionCode.RELAY_MSG), message))
    return RelayMessage(MessageType.RELAY_FORW, hops, link, peer, tuple(options)).encode()
