"""Crowds of several sizes between two MAARs alone: what they take, and what the kernel takes for the same changes.

The CMD answers by a script, and each node's first message is a DHCPv6 Request. What a whole domain takes until packets
go both ways is `crowd_moves`'.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bench.maars import ROOT, Site
from bench.maars_crowd import AWAY, HOME, Crowd, Moved
from bench.nodes import endpoint, link_local, mac, pool, prefix
from lab import netns
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Drop,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
)
from relay_maar.southbound.api import SouthboundSettings
from relay_maar.southbound.seg6 import Seg6Southbound

MOST_ROUNDS = 50
MOVES = 1000
"""Of nodes, for each size: a small crowd moves more often."""
TITLE = "The MAARs alone (CMD by a script), from each node's first message to both kernels"
COLUMNS = (
    "move",
    "nodes",
    "median ms",
    "p95 ms",
    "p99 ms",
    "last ms",
    "last PBA ms",
    "CPU us/node",
    "kernel alone ms",
    "wrong",
)


@dataclass(slots=True)
class Result:
    """All moves of one kind by crowds of one size. Seconds; CPU of MAAR 1 and MAAR 2 per node."""

    version: str
    move: str
    nodes: int
    took: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    acknowledged: list[float] = field(default_factory=list)
    cpu: list[tuple[float, float]] = field(default_factory=list)
    kernel: float = 0.0
    """What the kernels of both MAARs take for the same changes, asked for in one batch each."""
    wrong: list[str] = field(default_factory=list)

    def add(self, moved: Moved, reached: int) -> None:
        """One more move."""
        self.took += moved.took
        self.last.append(moved.last)
        self.acknowledged.append(moved.acknowledged)
        self.cpu.append((moved.cpu[HOME] / self.nodes, moved.cpu[AWAY] / self.nodes))
        self.wrong += moved.wrong
        if moved.early:
            self.wrong.append(f"{moved.early} nodes were sent packets that nobody could take yet")
        if moved.gaps:
            self.wrong.append(f"{moved.gaps} routes were taken away")
        if reached < self.nodes:
            self.wrong.append(f"{self.nodes - reached} nodes are not reached")

    def row(self) -> tuple[str, ...]:
        """As COLUMNS."""
        used = [sum(each[n] for each in self.cpu) / len(self.cpu) * 1e6 for n in (0, 1)]
        return (
            f"{self.move}{f' ({self.version})' if self.version else ''}",
            f"{self.nodes:,}",
            *(f"{quantile(self.took, part) * 1e3:.1f}" for part in (0.5, 0.95, 0.99)),
            f"{max(self.last) * 1e3:.1f}",
            f"{max(self.acknowledged) * 1e3:.1f}",
            f"{used[0]:.0f} + {used[1]:.0f}",
            f"{self.kernel * 1e3:.1f}",
            str(len(self.wrong)),
        )


def quantile(values: Sequence[float], part: float) -> float:
    """The value that this part of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def measure(
    name: str,
    sizes: Sequence[int],
    beside: Path | None,
    tell: Callable[[str], None],
    most: int = MOST_ROUNDS,
) -> list[Result]:
    """Move crowds of these sizes away and back, `most` times at most. `beside` is the tree of another version, which
    takes turns with this one: what disturbs the machine disturbs both. Raises LabError."""
    versions = {"": ROOT} if beside is None else {"this": ROOT, "beside": beside.resolve()}
    results: dict[tuple[str, str, int], Result] = {}
    for size in sizes:
        alone = dict(zip(("away", "back"), kernel_alone(f"{name}-k", size), strict=True))
        for version, source in versions.items():
            with Site(name, (source, source)) as site:
                site.start()
                with closing(Crowd(site, range(1, size + 1))) as crowd:
                    for move, moved in _moves(crowd, _rounds(size, most)):
                        key = version, move, size
                        result = results.setdefault(key, Result(*key))
                        result.kernel = alone.get(move, 0.0)
                        result.add(moved, crowd.reached())
            tell(f"{size:,} nodes{f' ({version})' if version else ''}: measured")
    return list(results.values())


def _rounds(size: int, most: int) -> int:
    return max(1, min(most, MOVES // size))


def _moves(crowd: Crowd, rounds: int) -> Iterator[tuple[str, Moved]]:
    yield "first attach", crowd.move(HOME)
    for _ in range(rounds):
        yield "away", crowd.move(AWAY)
        yield "back", crowd.move(HOME)


def kernel_alone(namespace: str, nodes: int) -> tuple[float, float]:
    """Seconds that the kernels take for what both MAARs change when so many nodes go away, and when they come back."""
    settings = SouthboundSettings(
        endpoint(HOME), "core0", ("access0",), (pool(HOME), pool(AWAY)), table_base=21300
    )
    peer = endpoint(AWAY)
    every = range(1, nodes + 1)
    here: list[Change] = [Put(Neighbour("access0", link_local(node), mac(node))) for node in every]
    here += [Put(Route(prefix(HOME, node), ToNode("access0", link_local(node)))) for node in every]
    tunnelled: list[Change] = [Put(Route(prefix(HOME, node), ToPeer(peer))) for node in every]
    ruled: list[Change] = [Put(SourceRule(prefix(HOME, node), peer)) for node in every]
    gone: list[Change] = [
        Drop(change.item) for changes in (here[:nodes], ruled) for change in changes
    ]

    def timed(driver: Seg6Southbound, changes: Sequence[Change]) -> float:
        start = time.perf_counter()
        driver.apply(changes)
        return time.perf_counter() - start

    def work() -> tuple[float, float]:
        driver = Seg6Southbound(settings)
        driver.open()
        try:
            driver.apply([Put(AcceptFrom(peer)), Put(Tunnel(peer)), *here])
            anchor = timed(driver, tunnelled + [Drop(each.item) for each in here[:nodes]])
            serving = timed(driver, here + ruled)
            away = timed(driver, gone + [Drop(each.item) for each in here[nodes:]])
            home = timed(driver, here)
            return anchor + serving, away + home
        finally:
            driver.close(keep=False)

    far = f"{namespace}f"
    netns.remove((namespace, far))
    try:
        netns.batch((f"netns add {namespace}", f"netns add {far}"))
        for device in ("core0", "access0"):
            netns.ip(
                *f"link add {device} netns {namespace} type veth peer {device} netns {far}".split()
            )
            for each in (namespace, far):
                netns.ip("link", "set", device, "up", namespace=each)
        netns.batch(
            ("link set lo up", "addr add 2001:db8:c::1/64 dev core0 nodad"), namespace=namespace
        )
        return netns.inside(namespace, work)
    finally:
        netns.remove((namespace, far))


def compared(results: Sequence[Result]) -> Iterator[str]:
    """How the other version does, a line for each size and move."""
    before = {(each.move, each.nodes): each for each in results if each.version == "beside"}
    for each in results:
        other = before.get((each.move, each.nodes))
        if other is not None and each is not other:
            ratio = quantile(other.last, 0.5) / quantile(each.last, 0.5)
            used = sum(map(sum, other.cpu)) / sum(map(sum, each.cpu))
            yield (
                f"{each.nodes:,} {each.move}: the other version takes {ratio:.1f} times as long, "
                f"{used:.1f} times the CPU"
            )
