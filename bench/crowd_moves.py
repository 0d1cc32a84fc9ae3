"""Crowds of several sizes in a whole domain: how long until every node has its packets again, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any, Final

from bench.bars import Bar
from bench.crowd_clock import Moved, Word
from bench.crowd_lab import Cpu, CrowdLab
from bench.crowd_probes import interval
from bench.distribution import Distribution
from bench.scripted_client import Node
from lab.netns import LabError

SIZES: Final = (1, 10, 100, 1000)
MOST: Final = 0xFFFF
MOVES: Final = 50
"""Moves of each size, at most, each way: small crowds move more often."""
LARGEST: Final = 1000
"""Nodes at once that there is a bar for."""
BAR: Final = 1.5
"""Seconds within which all flows of so many nodes are restored."""
TITLE: Final = "Nodes that move at once, from each one's first frame to packets both ways"
COLUMNS: Final = (
    "move",
    "nodes",
    "moves",
    "down median ms",
    "open median ms",
    "open p95 ms",
    "open p99 ms",
    "last of all ms",
    "± ms",
    "last answer ms",
    "last PBA ms",
    "questions/node",
    "CPU CMD",
    "CPU S-MAAR",
    "CPU anchor",
    "CPU generator",
    "wrong",
)
LEGEND: Final = (
    "Nodes that move at once: times count from each node's own first frame; down: a packet to it is on its new link; "
    "open: one from it is at the CN, too, by way of its anchor. Last of all, last answer, last PBA: from the first "
    "frame of all, the worst move. A flow is looked at every ± ms at first, the fewer are left the oftener, and seen "
    "late by that.\n"
    "CPU: microseconds for each node, until the last flow was restored; generator: hosts and CN, and what the kernel "
    "takes to forward their packets.\n"
    "Wrong: flows never restored; PBAs that never came; routes, rules and neighbours that are missing or left over in "
    "either kernel; nodes that the CMD has elsewhere."
).splitlines()


@dataclass(slots=True)
class Result:
    """All moves one way of crowds of one size."""

    move: str
    nodes: int
    moves: list[Moved] = field(default_factory=list)
    cpu: list[Cpu] = field(default_factory=list)
    """By role, seconds, of each move."""
    wrong: list[str] = field(default_factory=list)

    def add(self, moved: Moved, cpu: Cpu) -> None:
        """One more."""
        self.moves.append(moved)
        self.cpu.append(cpu)
        if moved.closed:
            self.wrong.append(f"{moved.closed} of {moved.nodes} flows were never restored")
        told = len(moved.words[Word.ACKNOWLEDGED])
        if told < moved.nodes:
            self.wrong.append(f"{told} PBAs for {moved.nodes} nodes")

    @property
    def last(self) -> float:
        """Seconds until the last flow of a crowd was restored, in the worst move."""
        return max(each.last for each in self.moves)

    def opened(self) -> Distribution | None:
        """Seconds until a node's flow was, of all moves."""
        return Distribution.of(at for each in self.moves for at in each.opened)

    def down(self) -> Distribution | None:
        """The same of the way to the node."""
        return Distribution.of(at for each in self.moves for at in each.down)

    def last_word(self, word: Word) -> float:
        """Seconds until it was said for the last time, in the worst move; 0 where it never was."""
        return max((max(each.words[word], default=0.0) for each in self.moves), default=0.0)

    def row(self) -> tuple[str, ...]:
        """As COLUMNS."""
        moved = self.nodes * len(self.moves)
        opened, down = self.opened(), self.down()
        questions = sum(len(each.words[Word.QUESTION]) for each in self.moves) / moved
        cpu = (sum(each[role] for each in self.cpu) / moved * 1e6 for role in self.cpu[0])
        times = (opened.median, opened.p95, opened.p99) if opened else ()
        return (
            self.move,
            f"{self.nodes:,}",
            f"{len(self.moves)}",
            *(_ms(at) for at in ((down.median if down else None), *(times or (None,) * 3))),
            _ms(self.last),
            f"{interval(self.nodes) * 1000:g}",
            _ms(self.last_word(Word.ANSWER)),
            _ms(self.last_word(Word.ACKNOWLEDGED)),
            f"{questions:.2f}",
            *(f"{used:,.0f}" for used in cpu),
            str(len(self.wrong)),
        )

    def as_json(self) -> dict[str, Any]:
        """All that was measured."""
        return {**asdict(self), "interval": interval(self.nodes), "last": self.last}


def _ms(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds * 1000:.1f}"


def groups(size: int, most: int) -> int:
    """How many crowds of one size take turns: by what they rest."""
    return max(1, min(most, LARGEST // size))


def passes(size: int, most: int) -> int:
    """How often each of them goes and comes back: five moves each way are the least."""
    return ceil(min(most, 5) / groups(size, most))


def measure(
    name: str, sizes: Sequence[int], tell: Callable[[str], None], most: int = MOVES
) -> list[Result]:
    """Move crowds of these sizes away and back, `most` times each way at most. Raises LabError."""
    results: list[Result] = []
    with CrowdLab(name, max(size * groups(size, most) for size in sizes)) as lab:
        tell(f"a domain with {len(lab.hosts.nodes):,} nodes stands")
        try:
            for size in sizes:
                found = _moved(lab, size, most)
                results += found
                last = max(each.last for each in found)
                tell(f"{size:,} nodes at once: all restored in {last * 1000:.0f} ms at worst")
        except LabError as problem:
            raise LabError(f"{problem}\n{lab.tails()}") from problem
    return results


def _moved(lab: CrowdLab, size: int, most: int) -> tuple[Result, Result]:
    crowds = list(_crowds(lab.hosts.nodes, size, groups(size, most)))
    away, back = Result("away", size), Result("back", size)
    for _ in range(passes(size, most)):
        for result, to in ((away, lab.away), (back, lab.home)):
            for crowd in crowds:
                result.add(*lab.move(crowd, to))
            result.wrong += lab.wrong()
    return away, back


def _crowds(nodes: Sequence[Node], size: int, count: int) -> Iterator[Sequence[Node]]:
    return (nodes[number * size : (number + 1) * size] for number in range(count))


def bars(results: Sequence[Result]) -> Iterator[Bar]:
    """What this run says of them."""
    for each in results:
        if each.nodes == LARGEST:
            found = f"{each.last:.2f} s" + f" ({each.last - BAR:.2f} s over)" * (each.last > BAR)
            closed = any(moved.closed for moved in each.moves)
            what = f"{each.nodes:,} nodes at once, {each.move}: packets both ways for the last one"
            found = "never" if closed else found
            yield Bar(what, found, f"≤ {BAR:g} s", each.last <= BAR and not closed)
    if results:
        wrong = sum(len(each.wrong) for each in results)
        yield Bar(
            "crowds: flows not restored, nodes wrong, stale routes", str(wrong), "0", not wrong
        )
