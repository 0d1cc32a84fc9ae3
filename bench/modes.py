"""What is to be expected of the four modes, and what was found.

The figures of RFC 8885 sections 3.2 to 3.4 give, for each message, how often something has crossed the network before
it is there. D is the way between the CMD and a MAAR, M that between two MAARs, one way each. From the node's message at
the S-MAAR on:

- relay (3.2): CMD (D), P-MAAR (2 D), CMD (3 D), S-MAAR (4 D), and only then it knows;
- locator (3.3): CMD (D), P-MAAR (2 D), S-MAAR (2 D + M);
- proxy (3.4): CMD (D), P-MAAR and S-MAAR (2 D);
- direct, which is ours: CMD (D), S-MAAR (2 D), P-MAAR (2 D + M).

A packet to an old address needs its P-MAAR's tunnel, M, and an S-MAAR that knows; one from it needs an S-MAAR that
knows, and M. What programs and kernels take comes on top of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

from bench.distribution import Distribution
from bench.handover_lab import Handover
from bench.phase_clock import Phase

_T = TypeVar("_T")

MODES: Final = ("direct", "proxy", "locator", "relay")
RFC_ORDER: Final = ("proxy", "locator", "relay")
"""From the least handover latency to the largest, as RFC 8885 argues (sections 3.3 and 3.4)."""
DELAYS: Final = (0.0, 0.005, 0.02)
"""D, seconds."""
ANCHORS: Final = (1, 2, 8)
"""Numbers of P-MAARs."""


class Formula(NamedTuple):
    """So many times D and M."""

    d: int
    m: int = 0

    def __str__(self) -> str:
        parts = ((self.d, "D"), (self.m, "M"))
        return " + ".join(f"{n} {name}" if n > 1 else name for n, name in parts if n)

    def seconds(self, d: float, m: float = 0.0) -> float:
        """With these delays."""
        return self.d * d + self.m * m


def _formulas(reply: Formula, *others: Formula) -> Mapping[Phase, Formula]:
    return dict(zip(Phase, (reply, reply, *others), strict=True))


FORMULAS: Final[Mapping[str, Mapping[Phase, Formula]]] = {
    # reply and client; PBUs, PBAs, known; down, up, open
    "direct": _formulas(
        *(Formula(2), Formula(2, 1), Formula(2, 2), Formula(2)),
        *(Formula(2, 2), Formula(2, 1), Formula(2, 2)),
    ),
    "proxy": _formulas(
        *(Formula(2), Formula(2), Formula(3), Formula(2)),
        *(Formula(2, 1), Formula(2, 1), Formula(2, 1)),
    ),
    "locator": _formulas(
        *(Formula(2), Formula(2), Formula(3), Formula(2, 1)),
        *(Formula(2, 1), Formula(2, 2), Formula(2, 2)),
    ),
    "relay": _formulas(
        *(Formula(4), Formula(2), Formula(3), Formula(4)),
        *(Formula(4), Formula(4, 1), Formula(4, 1)),
    ),
}
"""When each phase is done. A PBA to the CMD takes 3 D, which is taken to be more than 2 D + M."""


def expected_messages(mode: str, anchors: int) -> Counter[str]:
    """The messages of a handover to a new MAAR with so many P-MAARs, in our modes."""
    pbas = anchors * (2 if mode == "locator" else 1)
    once = dict.fromkeys(("Rebind", "Relay-forward", "Relay-reply", "Reply"), 1)
    return Counter(once | {"PBU": anchors, "PBA": pbas})


class Point(NamedTuple):
    """What is compared: the modes at one point."""

    delay: float
    anchors: int


@dataclass(frozen=True, slots=True)
class Duel:
    """How often one mode had its flows open before another one's, of so many pairs of handovers that were made one
    after the other."""

    faster: str
    slower: str
    won: int
    of: int


class Results:
    """All handovers of a run."""

    def __init__(self, machine: Mapping[str, str] | None = None) -> None:
        self.machine = dict(machine or {})
        self.held_back: dict[str, int] = {}
        """PBUs that a CMD held back for MAX_UPDATE_RATE, by mode."""
        self.handovers: list[Handover] = []
        self._at: defaultdict[tuple[Point, str], list[Handover]] = defaultdict(list)

    def add(self, handover: Handover) -> None:
        """One more."""
        self.handovers.append(handover)
        point = Point(handover.delay, handover.anchors)
        self._at[point, handover.mode].append(handover)

    def points(self) -> list[Point]:
        """All points that something was measured at, in their order."""
        return sorted({point for point, _ in self._at})

    def modes(self, point: Point) -> list[str]:
        """The modes that were measured there, in ours."""
        return [mode for mode in MODES if (point, mode) in self._at]

    def at(self, point: Point, mode: str) -> list[Handover]:
        """The handovers there, in the order in which they were made."""
        return self._at.get((point, mode), [])

    def incomplete(self) -> list[Handover]:
        """Those of which some phase was never seen."""
        return [each for each in self.handovers if not each.is_complete]

    def phase(self, point: Point, mode: str, phase: Phase) -> Distribution | None:
        """Seconds until the phase was done."""
        done = (each.seconds.get(phase) for each in self.at(point, mode))
        return Distribution.of(each for each in done if each is not None)

    def messages(self, point: Point, mode: str) -> dict[str, float]:
        """Messages per handover, on average, by kind."""
        found = self.at(point, mode)
        total: Counter[str] = sum((each.messages for each in found), Counter())
        return {kind: count / len(found) for kind, count in sorted(total.items())}

    def sent_back(self, point: Point, mode: str) -> float:
        """Packets per handover, on average, that the S-MAAR sent back to the core."""
        found = self.at(point, mode)
        return sum(each.sent_back for each in found) / len(found)

    def duels(self, point: Point) -> list[Duel]:
        """The order of RFC 8885, two by two; direct first against proxy."""
        order = ("direct", *RFC_ORDER)
        return [
            duel(one, other, self.at(point, one), self.at(point, other))
            for one, other in pairwise(order)
            if self.at(point, one) and self.at(point, other)
        ]

    def held(self, delay: float) -> Distribution | None:
        """For how long messages were really held where the delay was to be this."""
        return Distribution.of(
            seconds for each in self.handovers if each.delay == delay for seconds in each.held
        )


def duel(faster: str, slower: str, one: Sequence[Handover], other: Sequence[Handover]) -> Duel:
    """Compare handovers in pairs; those in which one never had its flows open are left out."""
    pairs = [
        (a.seconds[Phase.OPEN], b.seconds[Phase.OPEN])
        for a, b in zip(one, other, strict=False)
        if Phase.OPEN in a.seconds and Phase.OPEN in b.seconds
    ]
    return Duel(faster, slower, sum(a < b for a, b in pairs), len(pairs))


def turns(modes: Sequence[_T], count: int) -> Iterable[list[_T]]:
    """Modes, or whatever is compared, `count` times, each time another one first: so that none always follows one."""
    for number in range(count):
        begin = number % len(modes)
        yield [*modes[begin:], *modes[:begin]]
