"""When each part of a handover was done, from packets on the links and nothing else: what programs say is not asked.

Times are nanoseconds since the node's DHCPv6 message arrived on its new link, or since another instant that is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from bench.packet_stream import Flow
from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType
from dmm_wire.dhcpv6.message import ClientMessage, Unwrapped, unwrap
from dmm_wire.errors import WireError
from lab import messages
from lab.capture import BEFORE_DELAY
from lab.names import Names
from lab.packets import MOBILITY, UDP, Packet
from lab.topology import CMD, CN1, CoreNode, MaarPlan

_Key = TypeVar("_Key")


class Phase(StrEnum):
    """What a handover consists of, by what is on the wire when it is done."""

    REPLY = "reply"
    """The Relay-reply is at the S-MAAR."""
    CLIENT = "client"
    """The Reply is at the node."""
    UPDATES = "updates"
    """Every P-MAAR has its PBU."""
    ACKNOWLEDGED = "acknowledged"
    """Every PBA is where it goes."""
    KNOWN = "known"
    """The S-MAAR has been told of all anchors."""
    DOWN = "down"
    """A packet to each watched old address has arrived on the node's new link."""
    UP = "up"
    """A packet from each watched old address has arrived at the CN by way of its anchor. One that the S-MAAR sent out
    by its default route, before it knew better, does not count: a network that filters by source (BCP 38) drops it."""
    OPEN = "open"
    """Both: the handover is over for the node's flows."""


@dataclass(frozen=True, slots=True)
class Move:
    """What is known of a move beforehand: where to, the P-MAARs, the transaction of the node's message, who gets PBAs
    ("CMD", the S-MAAR's name, or both), and the flows that are watched, as the CN sends them."""

    serving: MaarPlan
    anchors: tuple[MaarPlan, ...]
    transaction: bytes
    told: frozenset[str]
    flows: tuple[Flow, ...]
    peer: CoreNode = CN1


@dataclass(slots=True)
class Phases:
    """The times found: of Phase.REPLY and CLIENT one, of the others one for each MAAR, receiver or address."""

    start: int | None = None
    """When the node's message arrived, nanoseconds since the epoch."""
    reply: int | None = None
    client: int | None = None
    updates: dict[MaarPlan, int] = field(default_factory=dict)
    acknowledged: dict[tuple[MaarPlan, str], int] = field(default_factory=dict)
    known: dict[MaarPlan, int] = field(default_factory=dict)
    down: dict[bytes, int] = field(default_factory=dict)
    up: dict[bytes, int] = field(default_factory=dict)
    anchored: set[object] = field(default_factory=set)
    """Packets that an anchor sent on to the core, out of the tunnel."""

    def all(self, move: Move) -> dict[Phase, int | None]:
        """For each phase when the last part of it was done; None where a part is missing."""
        told = [(anchor, name) for anchor in move.anchors for name in move.told]
        watched = [flow.destination for flow in move.flows]
        down, up = _last(self.down, watched), _last(self.up, watched)
        return {
            Phase.REPLY: self.reply,
            Phase.CLIENT: self.client,
            Phase.UPDATES: _last(self.updates, move.anchors),
            Phase.ACKNOWLEDGED: _last(self.acknowledged, told),
            Phase.KNOWN: _last(self.known, move.anchors),
            Phase.DOWN: down,
            Phase.UP: up,
            Phase.OPEN: None if down is None or up is None else max(down, up),
        }


def _last(times: dict[_Key, int], wanted: Sequence[_Key]) -> int | None:
    """When the last of those wanted came; None while one is missing, or where none is wanted."""
    if not wanted or any(key not in times for key in wanted):
        return None
    return max(times[key] for key in wanted)


def phases(packets: Iterable[Packet], move: Move, start: int | None = None) -> Phases:
    """Read them from packets in the order of time. They count from the node's message or, where something else shows
    that it is there, from `start` (nanoseconds since the epoch). What came before does not count."""
    found = Phases(start)
    for packet in packets:
        if start is not None and packet.at < start:
            continue
        if packet.protocol == UDP and SERVER_PORT in packet.ports:
            _dhcpv6(packet, move, found)
        elif found.start is None:
            continue
        elif packet.protocol == MOBILITY:
            _mobility(packet, move, found)
        elif packet.protocol == UDP:
            _datagram(packet, move, found)
    return found


def _dhcpv6(packet: Packet, move: Move, found: Phases) -> None:
    plan = move.serving
    if packet.link not in (plan.access_link, plan.node):
        return
    try:
        message = unwrap(packet.payload[8:])
    except WireError:
        return
    if message.client.transaction_id != move.transaction:
        return
    if packet.link == plan.access_link and packet.sender == "mn":
        if found.start is None:
            found.start = packet.at
    elif found.start is None or message.client.type != MessageType.REPLY:
        return
    elif packet.link == plan.access_link:
        if CLIENT_PORT in packet.ports and found.client is None:
            found.client = packet.at - found.start
    elif packet.sender == "core":
        if found.reply is None:
            found.reply = packet.at - found.start
        _learn(message, packet.at - found.start, move, found)


def _learn(message: Unwrapped, at: int, move: Move, found: Phases) -> None:
    """The anchors that a Relay-reply names (PREVIOUS_MAAR)."""
    for level in message.relays[-1:]:
        for each in dmm.from_options(dmm.DEFAULT_ENTERPRISE, level.options) or ():
            if isinstance(each, dmm.PreviousMaar):
                _knows(each.endpoint, at, move, found)


def _knows(endpoint: bytes, at: int, move: Move, found: Phases) -> None:
    for anchor in move.anchors:
        if anchor.endpoint == endpoint:
            found.known.setdefault(anchor, at)


def _mobility(packet: Packet, move: Move, found: Phases) -> None:
    assert found.start is not None
    at = packet.at - found.start
    try:
        message = mh.decode(packet.payload, packet.source, packet.destination)
    except WireError:
        return
    if isinstance(message, mh.BindingUpdate):
        for anchor in move.anchors:
            if (packet.link, packet.destination) == (anchor.node, anchor.endpoint):
                found.updates.setdefault(anchor, at)
        return
    serving = move.serving
    ends = {serving.node: (serving.endpoint, serving.name), CMD.node: (CMD.packed, CMD.node)}
    destination, name = ends.get(packet.link, (b"", ""))
    if destination != packet.destination:
        return
    for anchor in move.anchors:
        if anchor.endpoint == packet.source:
            found.acknowledged.setdefault((anchor, name), at)
    if packet.link == serving.node:
        _knows(packet.source, at, move, found)
        for option in message.options:
            if isinstance(option, mh.PreviousMaarOption):
                _knows(option.endpoint, at, move, found)


def _datagram(packet: Packet, move: Move, found: Phases) -> None:
    assert found.start is not None
    at, plan = packet.at - found.start, move.serving
    for flow in move.flows:
        if packet.destination == flow.destination:
            if packet.link == plan.access_link and packet.sender == plan.node:
                found.down.setdefault(flow.destination, at)
        elif packet.source == flow.destination and packet.destination == move.peer.packed:
            if packet.link == move.peer.node:
                if packet.identity in found.anchored:
                    found.up.setdefault(flow.destination, at)
            elif packet.tunnel is None and _is_anchor(packet.sender, flow.destination, move):
                found.anchored.add(packet.identity)


def _is_anchor(node: str, address: bytes, move: Move) -> bool:
    return any(plan.node == node and plan.anchors(address) for plan in move.anchors)


def counted(packets: Iterable[Packet], move: Move) -> Counter[str]:
    """The messages of the move by kind, each once: "Rebind", "Reply", "Relay-forward", "Relay-reply", "PBU", "PBA"."""
    found: Counter[str] = Counter()
    for message in messages.read(packets, Names()):
        if message.mobility is not None or _is_of(message.dhcpv6, move):
            found[message.name] += 1
    return found


def _is_of(message: ClientMessage | None, move: Move) -> bool:
    return message is not None and message.transaction_id == move.transaction


def sent_back(packets: Iterable[Packet], move: Move) -> int:
    """How often the S-MAAR sent what had come for a watched address back to the core, as it did not know better yet.
    The anchor tunnels it to the S-MAAR again, and so on until its hop limit is used up: this counts each time."""
    watched = {flow.destination for flow in move.flows}
    return sum(
        1
        for packet in packets
        if packet.link == packet.sender == move.serving.node
        and packet.tunnel is None
        and packet.destination in watched
    )


def held(packets: Iterable[Packet]) -> list[int]:
    """For how long each signalling packet to or from the CMD was held before its link, nanoseconds: what the delay
    really was. One that was seen at one side only is left out."""
    before: dict[object, Packet] = {}
    times = []
    for packet in packets:
        if packet.link not in (BEFORE_DELAY, CMD.node) or packet.protocol not in (UDP, MOBILITY):
            continue
        key = packet.source, packet.destination, packet.protocol, packet.payload
        first = before.pop(key, None)
        if first is None or first.link == packet.link:
            before[key] = packet
        else:
            times.append(packet.at - first.at)
    return times
