"""Messages, kernel changes and database rows in the words of a ladder diagram: all have names, no address is left.

The names: `Pref1` and `Del1` are the prefixes that maar1 anchors for the node, on the link and delegated, `Addr1` an
address out of Pref1; another one of the same pool is `Pref1b`. `visit 2` is the second generation that the CMD gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from struct import Struct

from dhcp_cmd.core import model
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import ClientMessage, unwrap
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix
from dmm_wire.identity import Identity
from dmm_wire.mobility import (
    AccessTechnology,
    BindingAcknowledgement,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    PreviousMaarOption,
    ServingMaar,
    Timestamp,
    UpdateFlag,
    VendorSpecific,
    decode,
)
from dmm_wire.mobility.answers import first
from relay_maar.core import items
from tests.maar.core.modes_world import CMD
from tests.maar.core.world import DUID, MAC, NODE, SERVER, Packet, endpoint, pools

_FLAGS = {
    "A": UpdateFlag.ACKNOWLEDGE,
    "H": UpdateFlag.HOME_REGISTRATION,
    "P": UpdateFlag.PROXY,
    "D": UpdateFlag.DMM,
}
_PREFIX_INFORMATION = Struct("!BBBBIIxxxx16s")


class Names:
    """What everything is called in one story. `seconds` gives the time of a RFC 5213 timestamp in its left column."""

    def __init__(self, count: int, seconds: Callable[[int], float]) -> None:
        self._seconds = seconds
        self._peers = {endpoint(n): f"maar{n}" for n in range(1, count + 1)}
        self._peers |= {CMD: "cmd", SERVER: "cmd", bytes(16): "nobody"}
        self._pools = {
            pool: f"{kind}{n}"
            for n in range(1, count + 1)
            for kind, pool in zip(("Pref", "Del"), pools(n), strict=True)
        }
        self._prefixes: dict[Prefix, str] = {}
        self._visits: dict[int, int] = {}
        self._said: dict[tuple[bytes, bytes, str], int] = {}

    def peer(self, address: bytes) -> str:
        return self._peers[address]

    def prefix(self, prefix: Prefix) -> str:
        if prefix == Prefix(bytes(16), 0):
            return "any"
        known = self._prefixes.get(prefix)
        if known is None:
            name = next((n for pool, n in self._pools.items() if pool.contains(prefix)), None)
            if name is None:
                return str(prefix)
            if prefix in self._pools:
                name = f"all of {name}"
            elif prefix.length == 128:
                name = name.replace("Pref", "Addr")
            taken = sum(each.rstrip("bcdefg") == name for each in self._prefixes.values())
            known = self._prefixes[prefix] = name + ("", *"bcdefg")[taken]
        return known

    def prefixes(self, prefixes: Iterable[Prefix]) -> str:
        return " ".join(map(self.prefix, prefixes)) or "no prefix"

    def node(self, identity: Identity | bytes | None) -> str:
        known: dict[Identity | bytes | None, str] = {DUID: "DUID", MAC: "MAC", None: "none"}
        value = identity.value if isinstance(identity, Identity) else identity
        return known.get(value, str(identity))

    def new_visit(self, generation: int) -> None:
        """The CMD has begun one."""
        self._visits.setdefault(generation, len(self._visits) + 1)

    def visit(self, generation: int) -> str:
        known = self._visits.get(generation)
        return f"time {self._seconds(generation):.3f}" if known is None else f"visit {known}"

    # --- mobility headers ---

    def short(self, packet: Packet) -> str:
        """A message that was told in full before."""
        if packet.kind != "mobility":
            unwrapped = unwrap(packet.data)
            relay = "Relay-forward" if packet.kind == "up" else "Relay-reply"
            return f"{relay}({_spelt(unwrapped.client.type)})"
        match decode(packet.data, packet.source, packet.destination):
            case BindingUpdate(sequence):
                return f"PBU {sequence}"
            case BindingAcknowledgement(_, sequence):
                return f"PBA {sequence}"

    def full(self, packet: Packet) -> str:
        """All that a message says; of one that says what an earlier one of the same sender said, that it does."""
        if packet.kind == "mobility":
            message = decode(packet.data, packet.source, packet.destination)
            head, options = _head(message), "; ".join(self._options(message))
            same = (packet.source, packet.destination, options)
            known = self._said.setdefault(same, message.sequence)
            is_update = isinstance(message, BindingUpdate)
            if is_update and known != message.sequence:
                return f"{head}; else as PBU {known}"
            return f"{head}; {options}"
        relay = unwrap(packet.data).relays[0]
        said = dmm.from_options(dmm.DEFAULT_ENTERPRISE, relay.options) or ()
        return f"{self.short(packet)}: {self._suboptions(said)}"

    def forget_what_was_said(self) -> None:
        """Whatever comes is told in full again."""
        self._said.clear()

    def _options(self, message: BindingUpdate | BindingAcknowledgement) -> Iterator[str]:
        """The options in a fixed order; what is at a P-MAAR is put together."""
        options = message.options
        on_link = [o.prefix for o in options if isinstance(o, HomeNetworkPrefix)]
        delegated = [o.prefix for o in options if isinstance(o, DelegatedPrefix)]
        yield f"HNP {self.prefixes(on_link)}" if on_link else "no HNP"
        if delegated:
            yield f"DMNP {self.prefixes(delegated)}"
        elsewhere = [o for o in options if isinstance(o, PreviousMaarOption)]
        if elsewhere:
            at = groupby(elsewhere, lambda option: option.endpoint)
            told = (f"{self.peer(a)} {self.prefixes(o.prefix for o in each)}" for a, each in at)
            yield f"P-MAARs {', '.join(told)}"
        if (serving := first(message, ServingMaar)) is not None:
            yield f"S-MAAR {self.peer(serving.endpoint)}"
        if (handoff := first(message, HandoffIndicator)) is not None:
            yield f"HI {handoff.value}"
        if (technology := first(message, AccessTechnology)) is not None:
            yield f"ATT {technology.value}"
        if (node := first(message, MobileNodeIdentifier)) is not None:
            yield f"node {self.node(node.identity)}"
        if (link_layer := first(message, LinkLayerIdentifier)) is not None:
            yield f"at {self.node(link_layer.value)}"
        if (timestamp := first(message, Timestamp)) is not None:
            yield self.visit(timestamp.value)
        beside = [o for o in options if isinstance(o, VendorSpecific)]
        if beside:
            bodies = (dmm.REGISTRY[each.subtype].decode(each.data) for each in beside)
            yield self._suboptions(bodies)
        for option in options:
            if not isinstance(option, _TOLD):
                yield str(option)

    def _suboptions(self, said: Iterable[dmm.SubOption]) -> str:
        """Those of a kind are told together."""
        told = (self._suboption(each) for each in said)
        return "; ".join(
            f"{kind} {', '.join(what for _, what in group)}"
            for kind, group in groupby(told, lambda each: each[0])
        )

    def _suboption(self, said: dmm.SubOption) -> tuple[str, str]:
        match said:
            case dmm.Maar(at, capabilities):
                return "MAAR", f"{self.peer(at)} {capabilities:#06x}"
            case dmm.Attachment(age, handoff, technology, _, address):
                told = f"{age} ms ago, HI {handoff}, ATT {technology}, {self.node(address)}"
                return "ATTACHMENT", told
            case dmm.AnchoredPrefix(prefix, preferred, valid, delegated):
                told = f"{self.prefix(prefix)} {preferred}/{valid}"
                return f"ANCHORED_PREFIX{' delegated' * delegated}", told
            case dmm.PreviousMaar(prefix, preferred, valid, delegated, at):
                told = f"{self.peer(at)} {self.prefix(prefix)} {preferred}/{valid}"
                told += " delegated" * delegated + " awaited" * said.awaited
                return "PREVIOUS_MAAR", told
            case dmm.Visit(generation, previous):
                told = self.visit(generation).removeprefix("visit ")
                return "VISIT", f"{told}, left {self.peer(previous)}"
            case dmm.Status(code):
                return "STATUS", str(code)
            case dmm.MobileNode(identity):
                return "MOBILE_NODE", self.node(identity)
            case dmm.Domain(endpoints):
                return "DOMAIN", " ".join(map(self.peer, endpoints))
            case dmm.AnchorFailed(prefix, at):
                return "ANCHOR_FAILED", f"{self.prefix(prefix)} at {self.peer(at)}"
            case dmm.Signalling(mode):
                return "SIGNALLING", dmm.SignallingMode(mode).name.lower()
        raise AssertionError(said)

    # --- to the node ---

    def reply(self, data: bytes) -> str:
        """What the client gets."""
        message = unwrap(data).client
        return f"{_spelt(message.type)}: {'; '.join(self._leases(message))}"

    def _leases(self, message: ClientMessage) -> Iterator[str]:
        for code, body in message.options:
            if code not in (IaNa.CODE, IaPd.CODE):
                continue
            kind = "IA_NA" if code == IaNa.CODE else "IA_PD"
            leases = []
            for inner, lease in IaNa.decode(body).options:
                if inner == IaAddress.CODE:
                    address = IaAddress.decode(lease)
                    name = self.prefix(Prefix(address.address, 128))
                    leases.append(f"{name} {address.preferred}/{address.valid}")
                elif inner == IaPrefix.CODE:
                    prefix = IaPrefix.decode(lease)
                    leases.append(f"{self.prefix(prefix.prefix)} {prefix.preferred}/{prefix.valid}")
            yield f"{kind} {', '.join(leases) or 'nothing'}"

    def advertisement(self, data: bytes) -> str:
        """The prefixes in a Router Advertisement."""
        managed, position, told = bool(data[5] & 0x80), 16, []
        while position < len(data):
            if data[position] == 3:
                _, _, length, flags, valid, preferred, address = _PREFIX_INFORMATION.unpack_from(
                    data, position
                )
                name = self.prefix(Prefix(address, length))
                told.append(f"{name} {preferred}/{valid}{' A' if flags & 0x40 else ''}")
            position += 8 * data[position + 1]
        return f"RA{' M' * managed}: {', '.join(told) or 'no prefix'}"

    # --- the kernel ---

    def changes(self, changes: Iterable[tuple[items.Change, items.Item | None]]) -> str:
        """Changes in their order, each with what the kernel had in its place: `+` new, `=` replaced in one step, `-`
        dropped. Those that follow each other and do the same are told together."""
        told = (self._change(*each) for each in changes)
        return "; ".join(
            f"{what} {' '.join(name for _, name, _ in group)} {where}".rstrip()
            for (what, where), group in groupby(told, lambda each: (each[0], each[2]))
        )

    def _change(self, change: items.Change, before: items.Item | None) -> tuple[str, str, str]:
        what, name, where = self._item(change.item)
        if isinstance(change, items.Drop):
            return f"- {what}", name, where
        if before is None:
            return f"+ {what}", name, where
        was = "as it was" if before == change.item else f"was {self._item(before)[2]}"
        return f"= {what}", name, f"{where} ({was})"

    def _item(self, item: items.Item) -> tuple[str, str, str]:
        """What it is, its name and what it does."""
        match item:
            case items.Route(prefix, items.ToNode(interface)):
                return "route", self.prefix(prefix), f"to {interface}"
            case items.Route(prefix, items.ToPeer(peer)):
                return "route", self.prefix(prefix), f"to tunnel {self.peer(peer)}"
            case items.Route(prefix):
                return "route", self.prefix(prefix), "unreachable"
            case items.SourceRule(prefix, peer):
                return "rule from", self.prefix(prefix), f"to tunnel {self.peer(peer)}"
            case items.Neighbour(interface, address, link_layer):
                name = "node" if address == NODE else address.hex()
                return "neighbour", name, f"at {self.node(link_layer)} on {interface}"
            case items.Tunnel(peer):
                return "tunnel", self.peer(peer), ""
            case items.AcceptFrom(peer):
                return "accept from", self.peer(peer), ""
            case items.Dlif():
                return "dlif", str(item), ""

    # --- the database ---

    def rows(self, changes: Sequence[model.Change], micros: int) -> Iterator[str]:
        """What one transaction writes."""
        for change in changes:
            if isinstance(change, model.PutNode):
                node = change.node
                self.new_visit(node.generation)
                at, left = (f"maar{n}" if n else "nowhere" for n in (node.serving, node.previous))
                names = ", ".join(map(self.node, node.identities))
                yield f"node {names}: {self.visit(node.generation)} at {at}, left {left}"
        rows = [c.binding for c in changes if isinstance(c, model.PutBinding)]
        for state, group in groupby(rows, lambda row: self._state(row, micros)):
            yield f"binding {self.prefixes(row.prefix for row in group)}: {state}"
        gone = [c.prefix for c in changes if isinstance(c, model.DropBinding)]
        if gone:
            yield f"no binding {self.prefixes(gone)} any more"
        for visit in (True, False):
            owed = [c.signal for c in changes if isinstance(c, model.PutSignal)]
            maars = " ".join(f"maar{s.maar}" for s in owed if s.visit == visit)
            if maars:
                yield f"outbox: {maars} {'where the node is' if visit else 'what has changed'}"
        events = [c.event for c in changes if isinstance(c, model.Record)]
        for (what, cause), told in groupby(events, lambda e: (e.type, e.cause)):
            whose = [self.prefix(e.prefix) for e in told if e.prefix is not None]
            yield f"history: {' '.join([what, *whose])} ({cause})"

    @staticmethod
    def _state(row: model.Binding, micros: int) -> str:
        left = (row.valid_until - micros) / model.MICROS
        held = "" if row.hold_until is None else f", held {_plain(row.hold_until, micros)} s"
        return f"{row.state} at maar{row.anchor}, {left:g} s{held}"


_TOLD = (
    HomeNetworkPrefix,
    DelegatedPrefix,
    PreviousMaarOption,
    ServingMaar,
    HandoffIndicator,
    AccessTechnology,
    MobileNodeIdentifier,
    LinkLayerIdentifier,
    Timestamp,
    VendorSpecific,
)


def _head(message: BindingUpdate | BindingAcknowledgement) -> str:
    if isinstance(message, BindingUpdate):
        flags = "".join(letter for letter, flag in _FLAGS.items() if message.flags & flag)
        return f"PBU {message.sequence} {flags}, {message.lifetime} s"
    flags = "P" * message.proxy + "D" * message.dmm
    return f"PBA {message.sequence} {flags}, status {message.status}, {message.lifetime} s"


def _plain(until: int, micros: int) -> str:
    return f"{(until - micros) / model.MICROS:g}"


def _spelt(kind: int) -> str:
    return MessageType(kind).name.capitalize().replace("_r", "-r")


def roles(found: Mapping[Prefix, str], names: Names) -> str:
    """What a MAAR is to each prefix."""
    by_role: dict[str, list[Prefix]] = {}
    for prefix, role in found.items():
        by_role.setdefault(role, []).append(prefix)
    return ", ".join(f"{role} {names.prefixes(each)}" for role, each in by_role.items())
