"""When the kernel is compared: soon after a sign, never without a pause, and from time to time anyway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from relay_maar.io.watch import AUDIT, PAUSE, RETRY, SETTLE, KernelWatch
from relay_maar.southbound.api import Southbound


class Timer:
    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self._when = when
        self.action: Callable[[], None] | None = action

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.action = None


class Loop:
    """An event loop whose time a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []
        self.readers: dict[int, Callable[[], None]] = {}

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, action))
        return self.timers[-1]

    def call_later(self, delay: float, action: Callable[[], None]) -> Timer:
        return self.call_at(self.now + delay, action)

    def add_reader(self, descriptor: int, reader: Callable[[], None]) -> None:
        self.readers[descriptor] = reader

    def remove_reader(self, descriptor: int) -> None:
        self.readers.pop(descriptor, None)

    def run_until(self, end: float) -> None:
        while waiting := [each for each in self.timers if each.action and each.when() <= end]:
            timer = min(waiting, key=Timer.when)
            self.now = max(self.now, timer.when())
            action, timer.action = timer.action, None
            assert action is not None
            action()
        self.now = end


class World:
    """A driver, the loop in which it is watched, and when the kernel was compared."""

    def __init__(self, descriptor: int = 7) -> None:
        self.loop = Loop()
        self.runs: list[float] = []
        self.noticed = True
        self.takes = 0.0
        self.good = True
        self._descriptor = descriptor
        loop, driver = cast(asyncio.AbstractEventLoop, self.loop), cast(Southbound, self)
        self.kernel = KernelWatch(loop, driver, self.compare)

    def watch(self) -> int:
        return self._descriptor

    def disturbed(self) -> bool:
        return self.noticed

    def compare(self) -> bool:
        self.runs.append(round(self.loop.now, 6))
        self.loop.now += self.takes
        return self.good

    def sign(self) -> None:
        self.loop.readers[7]()


@pytest.fixture
def world() -> World:
    return World()


def test_a_sign_is_followed_at_once_and_many_are_one(world: World) -> None:
    for _ in range(3):
        world.sign()
    world.loop.run_until(1.0)
    assert world.runs == [SETTLE]


def test_no_sign_no_haste(world: World) -> None:
    world.noticed = False
    world.sign()
    world.loop.run_until(AUDIT - 1)
    assert world.runs == []


def test_endless_signs_are_followed_once_in_a_while(world: World) -> None:
    for tenth in range(50):
        world.loop.run_until(tenth / 10)
        world.sign()
    world.loop.run_until(5.0)
    assert world.runs == [SETTLE + PAUSE * number for number in range(5)]


def test_a_comparison_that_takes_long_comes_seldom(world: World) -> None:
    world.takes = 1.0
    for second in range(60):
        world.loop.run_until(second)
        world.sign()
    assert world.runs == [SETTLE, SETTLE + 21, SETTLE + 42]


def test_without_a_sign_it_is_audited(world: World) -> None:
    world.loop.run_until(3 * AUDIT)
    assert world.runs == [AUDIT, 2 * AUDIT, 3 * AUDIT]


def test_a_driver_without_notifications_is_audited() -> None:
    world = World(descriptor=-1)
    assert not world.loop.readers
    world.loop.run_until(AUDIT)
    assert world.runs == [AUDIT]
    world.kernel.close()


def test_what_did_not_come_to_its_end_is_tried_again_soon(world: World) -> None:
    world.good = False
    world.loop.run_until(AUDIT + RETRY)
    assert world.runs == [AUDIT, AUDIT + RETRY]


def test_a_fault_does_not_end_the_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> bool:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(world.kernel, "_compare", broken)
        with pytest.raises(RuntimeError):
            world.loop.run_until(AUDIT)
    world.loop.run_until(AUDIT + RETRY)
    assert world.runs == [AUDIT + RETRY]


def test_the_end_is_the_end(world: World) -> None:
    world.sign()
    world.kernel.close()
    assert not world.loop.readers
    world.loop.run_until(3 * AUDIT)
    assert world.runs == []
