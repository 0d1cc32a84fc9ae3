"""When each part of a handover was done that a frame, a hook or a DHCPv6 message began: from packets on the links, and
from what both kernels say of their routes.

All times are one machine's real-time clock. A packet's is the kernel's; what a kernel says of its routes has the time
at which it was heard, which is later where the processors are busy. It was true, at the latest, when a packet crossed
that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from bench.kernel_events import What
from bench.phase_clock import Move, Phase, phases
from dmm_wire.dhcpv6.codes import SERVER_PORT, MessageType
from dmm_wire.dhcpv6.message import unwrap
from dmm_wire.errors import WireError
from lab.packets import UDP, Packet
from lab.topology import MaarPlan


class Step(StrEnum):
    """What a handover consists of, each counted from the move itself: the carrier's return or, where it was never lost,
    the node's cable in its new link."""

    FRAME = "frame"
    """The node's first frame is on its new link. For a hook: the access point's word is sent."""
    QUERY = "query"
    """The S-MAAR's question, or what it relays, leaves for the CMD."""
    ANSWER = "answer"
    """The CMD's answer is at the S-MAAR."""
    UPDATE = "update"
    """The PBU is at the anchor."""
    ACKNOWLEDGED = "acknowledged"
    """The PBA is at the S-MAAR."""
    SERVING = "serving"
    """The S-MAAR's kernel has the route to the node and the one from it into the tunnel."""
    ANCHOR = "anchor"
    """The anchor's kernel has the route into the tunnel."""
    SET = "set"
    """Both: the tunnel stands, confirmed by both kernels."""
    DOWN = "down"
    """A packet to the node has arrived on its new link."""
    UP = "up"
    """One from it has arrived at the CN by way of its anchor."""
    OPEN = "open"
    """Both: the handover is over for its flows."""


class Said(NamedTuple):
    """What the kernel of a MAAR said of a prefix, and when (nanoseconds since the epoch)."""

    maar: MaarPlan
    what: What
    address: bytes
    at: int


_NEEDED: Final = {Step.SERVING: (What.ROUTE_PUT, What.SOURCE_PUT), Step.ANCHOR: (What.ROUTE_PUT,)}
_BY_PACKET: Final = {
    Step.UPDATE: Phase.UPDATES,
    Step.ACKNOWLEDGED: Phase.ACKNOWLEDGED,
    Step.DOWN: Phase.DOWN,
    Step.UP: Phase.UP,
    Step.OPEN: Phase.OPEN,
}


@dataclass(frozen=True, slots=True)
class Watched:
    """A move of one node with one anchor, and the instants that no packet shows: `start`, the move, and `hook`, an
    access point's word of it (both nanoseconds since the epoch)."""

    move: Move
    start: int
    hook: int | None = None

    @property
    def anchor(self) -> MaarPlan:
        """The P-MAAR."""
        return self.move.anchors[0]

    @property
    def prefix(self) -> bytes:
        """The /64 that goes along, its first address."""
        return self.move.flows[0].destination[:8] + bytes(8)


def steps(packets: Sequence[Packet], said: Iterable[Said], watched: Watched) -> dict[Step, int]:
    """Nanoseconds from the start for each step that was done. `packets` are in the order of time."""
    start, serving = watched.start, watched.move.serving
    later = [packet for packet in packets if packet.at >= start]
    found: dict[Step, int | None] = {}
    found[Step.FRAME] = watched.hook or _first_frame(later, serving)
    found[Step.QUERY], found[Step.ANSWER] = _question(later, serving)
    by_packet = phases(_moved(later, watched), watched.move, start).all(watched.move)
    done = {step: at - start for step, at in found.items() if at is not None}
    done |= {step: at for step, phase in _BY_PACKET.items() if (at := by_packet[phase]) is not None}
    kernels = list(said)
    for step, maar, shown in (
        (Step.SERVING, serving, Step.OPEN),
        (Step.ANCHOR, watched.anchor, Step.DOWN),
    ):
        heard = _confirmed(kernels, maar, step, watched)
        if heard is not None:
            done[step] = min(heard - start, done.get(shown, heard - start))
    if Step.SERVING in done and Step.ANCHOR in done:
        done[Step.SET] = max(done[Step.SERVING], done[Step.ANCHOR])
    return {step: done[step] for step in Step if step in done}


def _moved(packets: Iterable[Packet], watched: Watched) -> Iterator[Packet]:
    """Without the node's packets that were on their way when it moved."""
    address, link = watched.move.flows[0].destination, watched.move.serving.access_link
    there: set[object] = set()
    for packet in packets:
        if packet.source == address and packet.protocol == UDP:
            if packet.link == link:
                there.add(packet.identity)
            elif packet.identity not in there:
                continue
        yield packet


def _first_frame(packets: Iterable[Packet], serving: MaarPlan) -> int | None:
    link = serving.access_link
    return next((p.at for p in packets if p.link == link and p.sender == "mn"), None)


def _question(packets: Iterable[Packet], serving: MaarPlan) -> tuple[int | None, int | None]:
    """When the S-MAAR's first message to the CMD left, and when the answer to it came."""
    asked, transaction = None, b""
    for packet in packets:
        if packet.link != serving.node or packet.protocol != UDP:
            continue
        if SERVER_PORT not in packet.ports:
            continue
        try:
            message = unwrap(packet.payload[8:])
        except WireError:
            continue
        if asked is None:
            if packet.sender == serving.node and message.client.type != MessageType.REPLY:
                asked, transaction = packet.at, message.client.transaction_id
        elif packet.sender == "core" and message.client.transaction_id == transaction:
            return asked, packet.at
    return asked, None


def _confirmed(said: Sequence[Said], maar: MaarPlan, step: Step, watched: Watched) -> int | None:
    """When the last thing that the step needs was there for the first time."""
    times: list[int] = []
    for what in _NEEDED[step]:
        for each in said:
            if each[:3] == (maar, what, watched.prefix) and each.at >= watched.start:
                times.append(each.at)
                break
        else:
            return None
    return max(times)
