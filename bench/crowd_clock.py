"""When each node of a crowd had its packets again, and what MAARs and CMD had said to each other by then. Pure.

All times are nanoseconds since the epoch, the kernel's for packets; what comes out is seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bench.crowd_frames import TUNNELLED, Probe
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.mobility.codes import MobilityHeaderType
from lab.packets import MOBILITY


class Word(StrEnum):
    """What is said of nodes in the core."""

    QUESTION = "question"
    ANSWER = "answer"
    UPDATE = "PBU"
    ACKNOWLEDGED = "PBA"


_RELAYED = {MessageType.RELAY_FORW: Word.QUESTION, MessageType.RELAY_REPL: Word.ANSWER}
_SIGNALLED = {
    MobilityHeaderType.BINDING_UPDATE: Word.UPDATE,
    MobilityHeaderType.BINDING_ACKNOWLEDGEMENT: Word.ACKNOWLEDGED,
}


def word(frame: bytes) -> Word | None:
    """What a frame of the core says that passed `crowd_frames.SIGNALLING`."""
    if len(frame) < 63:
        return None
    if frame[20] == MOBILITY:
        return _SIGNALLED.get(MobilityHeaderType(frame[56])) if 5 <= frame[56] <= 7 else None
    return _RELAYED.get(MessageType(frame[62])) if frame[62] in _RELAYED else None


@dataclass(slots=True)
class Flows:
    """A move's flows, as they are seen: one node's each. `said`: when the node's first frame was sent."""

    move: int
    said: dict[int, int] = field(default_factory=dict)
    down: dict[int, int] = field(default_factory=dict)
    """When the first packet to the node came on its new link, through the tunnel."""
    up: dict[int, int] = field(default_factory=dict)
    """When the first packet from it was at the CN, by way of the anchor."""
    astray: Counter[str] = field(default_factory=Counter)
    """Packets that arrived another way."""

    def arrived(self, probe: Probe | None, hop_limit: int, at: int) -> bool:
        """A packet on the nodes' new link. Returns whether it is one of this move."""
        return self._came(self.down, "down", probe, hop_limit, at)

    def returned(self, probe: Probe | None, hop_limit: int, at: int) -> bool:
        """A packet at the CN. Returns whether it is one of this move."""
        return self._came(self.up, "up", probe, hop_limit, at)

    def _came(
        self, times: dict[int, int], way: str, probe: Probe | None, hop_limit: int, at: int
    ) -> bool:
        if probe is None or probe.move != self.move or probe.node not in self.said:
            return False
        if hop_limit == TUNNELLED:
            times.setdefault(probe.node, at)
        else:
            self.astray[way] += 1
        return True

    def is_open(self, node: int) -> bool:
        """Whether it has been seen both ways."""
        return node in self.up and node in self.down

    @property
    def are_open(self) -> bool:
        """Whether all of them were."""
        return len(self.up) == len(self.said) == len(self.down)


@dataclass(slots=True)
class Moved:
    """A crowd that has moved. Seconds; `down`, `up` and `opened` from each node's own first frame, one for each node
    that got so far, `last` and `words` from the first frame of all."""

    nodes: int
    down: list[float]
    up: list[float]
    opened: list[float]
    """Both ways."""
    last: float
    """Until the last flow was open of those that were."""
    words: dict[Word, list[float]]
    saying: float
    """For how long the first frames were sent."""
    astray: dict[str, int]

    @property
    def closed(self) -> int:
        """Flows that were never restored."""
        return self.nodes - len(self.opened)


def moved(flows: Flows, said: Iterable[tuple[Word, int]]) -> Moved:
    """What is left to say when it is over. `said`: in the core, since the first frame."""
    first = min(flows.said.values())
    opened = {
        node: max(flows.down[node], flows.up[node]) for node in flows.said if flows.is_open(node)
    }
    words: dict[Word, list[float]] = {each: [] for each in Word}
    for what, at in said:
        if at >= first:
            words[what].append((at - first) / 1e9)
    return Moved(
        len(flows.said),
        _since(flows.down, flows.said),
        _since(flows.up, flows.said),
        _since(opened, flows.said),
        (max(opened.values(), default=first) - first) / 1e9,
        words,
        (max(flows.said.values()) - first) / 1e9,
        dict(flows.astray),
    )


def _since(times: Mapping[int, int], said: Mapping[int, int]) -> list[float]:
    return [(at - said[node]) / 1e9 for node, at in times.items()]
