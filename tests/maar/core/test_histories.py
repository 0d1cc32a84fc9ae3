"""Random histories in virtual time: a node moves while PBUs and PBAs are lost, doubled and overtaken, as in the fault
run (docs/faults.md); in the end all is as the CMD knows it, and never do MAARs point at each other. Thousands are
quickly looked through:

    python -m tests.maar.core.test_histories 1000 2000
"""

from __future__ import annotations

import heapq
import logging
import sys
from collections.abc import Iterable
from dataclasses import replace
from random import Random

import pytest

from dmm_wire.address import Prefix
from dmm_wire.dmm import SignallingMode
from lab.faults.weather import FAIR, Fates, Weather
from relay_maar.core import actions as act
from relay_maar.core.items import Route, ToPeer
from relay_maar.core.settings import AttachSettings
from tests.maar.core.modes_world import ModesWorld
from tests.maar.core.pmip_world import PmipWorld
from tests.maar.core.world import Maar, Packet

DIRECT, PROXY = SignallingMode.DIRECT, SignallingMode.PROXY
LOCATOR, RELAY = SignallingMode.LOCATOR, SignallingMode.RELAY

ROUGH = Weather(lost=0.35, doubled=0.3, held=0.4, longest=0.25, longest_copy=3.0)
"""Worse than that of the fault run. What is held back longer than `timestamp-window`, 300 ms, is no registration."""

COUNT = 4
HISTORIES = 40
"""Of each kind, in a test."""

KINDS = [
    (DIRECT, False),
    *((mode, registers) for mode in (PROXY, LOCATOR, RELAY) for registers in (False, True)),
]


class _Weathered(ModesWorld):
    """The way of Mobility Headers through the weather; what comes and goes with DHCPv6 is not lost."""

    def start_cmd(self) -> None:
        super().start_cmd()
        self.fates = Fates(0, FAIR)
        self.later: list[tuple[float, int, Packet]] = []
        # Else the CMD takes a node that is so restless for two that use the same identifier.
        self.server.settings = replace(self.server.settings, flap_interval=0)

    def _emit(self, packet: Packet) -> None:
        if packet.kind != "mobility":
            super()._emit(packet)
            return
        self.sent.append(packet)
        fate = self.fates.next(packet.source, packet.destination)
        if not fate:
            self.note(f"{self.told(packet)}  LOST")
        for delay in fate:
            heapq.heappush(self.later, (self.now + delay, len(self.sent), packet))

    def _cmd_deadlines(self) -> list[float]:
        return [*super()._cmd_deadlines(), *(when for when, _, _ in self.later[:1])]

    def _work(self) -> None:
        while self.later and self.later[0][0] <= self.now:
            self.wire.append(heapq.heappop(self.later)[2])
        super()._work()

    def run(self, maar: Maar, actions: list[act.Action]) -> None:
        super().run(maar, actions)
        self.check_no_circle()

    def check_no_circle(self) -> None:
        """No packet in a tunnel comes to a MAAR again. (One that comes to a MAAR without a route is dropped there.)"""
        ways: dict[Prefix, dict[int, int]] = {}
        for number, maar in self.maars.items():
            for item in maar.kernel.items.values():
                if isinstance(item, Route) and isinstance(item.target, ToPeer):
                    there = self.by_endpoint(item.target.endpoint)
                    assert there is not None
                    ways.setdefault(item.prefix, {})[number] = there.number
        for prefix, pointers in ways.items():
            for start in pointers:
                path = [start]
                while path[-1] in pointers:
                    path.append(pointers[path[-1]])
                    assert len(path) <= COUNT, f"{prefix} goes round: {path}"

    def note(self, line: str) -> None:
        self.record.append(f"{self.now - self._marked:7.3f}  {line}")


class _Fed(_Weathered):
    """MAARs that are fed by DHCPv6."""


class _Registering(_Weathered, PmipWorld):
    """MAARs that speak only PMIPv6."""


def history(seed: int, mode: SignallingMode, registers: bool) -> _Weathered:
    """A node on its way through some stays, most of them too short for all to be told; at the last it stays long."""
    draws = Random(f"{seed} way")
    # What is owed is paid by who owes it, not because the CMD hears of the node every now and then.
    own = {number: {"attach": AttachSettings(confirm=86_400.0)} for number in range(1, COUNT + 1)}
    world = (_Registering if registers else _Fed)(mode, COUNT, own=own)
    world.fates = Fates(seed, ROUGH)
    world.mark()
    for _ in range(draws.randint(2, 6)):
        world.note("---- it moves")
        world.attach(draws.choice([n for n in world.maars if n != world.place]))
        world.go_on(draws.choice([0.05, 1.0, 5.0, 15.0]) * draws.random())
        if not registers and draws.random() < 0.3:
            world.note("---- it releases")
            world.release(anchored_at=draws.choice(list(world.maars)))
            world.go_on(3.0 * draws.random())
    world.note("---- it stays")
    if not registers:
        world.attach(world.place or 1)
    for _ in range(30):
        if isinstance(world, _Registering):
            world.show()  # who moves away too soon may be registered by the MAAR it left, until it is seen again
        world.go_on(10.0)
    # Nothing is said any more but what is still owed, and that comes through: fifteen losses in a row prove nothing.
    world.fates = Fates(seed, FAIR)
    world.go_on(300.0)
    return world


def wrong(seeds: Iterable[int], mode: SignallingMode, registers: bool) -> dict[int, str]:
    """The seeds of those histories that do not end as they have to, each with what is wrong."""
    found = {}
    for seed in seeds:
        try:
            history(seed, mode, registers).check()
        except AssertionError as error:
            found[seed] = str(error)
    return found


@pytest.mark.parametrize(("mode", "registers"), KINDS)
def test_all_is_right_in_the_end(mode: SignallingMode, registers: bool) -> None:
    assert wrong(range(HISTORIES), mode, registers) == {}


def main(first: int, last: int) -> int:
    """Look through these seeds; the number of those that end wrong."""
    logging.disable(logging.CRITICAL)
    count = 0
    for mode, registers in KINDS:
        found = wrong(range(first, last), mode, registers)
        count += len(found)
        print(f"{mode.name.lower()}{', PMIPv6' if registers else ''}: {len(found)} wrong")
        for seed, what in found.items():
            print(f"  {seed}: {' '.join(what.split())[:200]}")
    return count


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])) > 0)
