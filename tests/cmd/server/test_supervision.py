"""Which workers there are to be, decided without any."""

from __future__ import annotations

import random
from itertools import count

import pytest

from dhcp_cmd.server.supervision import (
    LONGEST_PAUSE,
    PATIENCE,
    PAUSE,
    Action,
    Complete,
    End,
    Fork,
    Kill,
    Leave,
    Report,
    Stop,
    Supervision,
)


class Parent:
    """Does what it is told, with processes that are only numbers, and writes it down."""

    def __init__(self, number: int) -> None:
        self.now = 1000.0
        self.supervision = Supervision(number)
        self.seats: dict[int, int] = {}
        """Those that live, by pid."""
        self.done: list[Action] = []
        self._pids = count(1)
        self.do(self.supervision.proceed(self.now))

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            self.done.append(action)
            if isinstance(action, Fork):
                pid = next(self._pids)
                self.seats[pid] = action.seat
                self.do(self.supervision.forked(action.seat, pid, self.now))

    def serves(self, *pids: int) -> None:
        for pid in pids:
            self.do(self.supervision.serves(pid, self.now))

    def died(self, pid: int, status: int = 0, reason: str | None = None) -> None:
        del self.seats[pid]
        self.do(self.supervision.died(pid, status, reason, self.now))

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.supervision.proceed(self.now))

    def reload(self, number: int) -> None:
        self.do(self.supervision.reload(number, self.now))

    def stop(self) -> None:
        self.do(self.supervision.stop(self.now))

    def wake(self) -> float | None:
        return self.supervision.wake(self.now)

    def news(self) -> list[Action]:
        """What was to be done since the last time."""
        done, self.done = self.done, []
        return done


def running(number: int) -> Parent:
    parent = Parent(number)
    parent.serves(*parent.seats)
    parent.news()
    return parent


def test_it_is_ready_when_all_of_them_serve() -> None:
    parent = Parent(3)
    assert parent.news() == [Fork(0), Fork(1), Fork(2)]
    parent.serves(2, 1)
    assert parent.news() == []
    parent.serves(3)
    assert parent.news() == [Complete(first=True)]
    parent.passes(1000)
    assert parent.news() == []
    assert parent.wake() is None


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        (1, "no database", "worker 2 gave up: no database"),
        (-9, None, "worker 2 was killed by signal 9"),
        (1, None, "worker 2 ended with status 1"),
        (0, None, "worker 2 ended"),
    ],
)
def test_one_that_dies_at_the_start_ends_it(status: int, reason: str | None, text: str) -> None:
    parent = Parent(3)
    parent.serves(1)
    parent.news()
    parent.died(2, status, reason)
    assert parent.news() == [Stop(1), Stop(3)]
    parent.died(3, 1, "no database either")
    parent.died(1)
    assert parent.news() == [End(text)]


def test_one_that_cannot_be_forked_at_the_start_ends_it() -> None:
    supervision = Supervision(1)
    assert supervision.proceed(0.0) == [Fork(0)]
    assert supervision.unforked(0, "no memory", 0.0) == [
        End("a worker could not be started: no memory")
    ]


def test_one_that_dies_is_told_once_and_replaced() -> None:
    parent = running(3)
    parent.passes(60)
    parent.died(2, -9)
    told = Report("worker 2 was killed by signal 9; another one takes its place")
    assert parent.news() == [told, Fork(1)]
    parent.serves(4)
    parent.passes(60)
    assert parent.news() == []  # it was complete before


def test_one_that_dies_again_and_again_is_forked_once_in_a_while() -> None:
    parent = running(1)
    forks = 0
    for _ in range(100):  # each dies as soon as it serves
        [pid] = parent.seats
        parent.died(pid, -11)
        while not parent.seats:
            wake = parent.wake()
            assert wake is not None
            assert wake > parent.now
            parent.passes(wake - parent.now)
        parent.serves(*parent.seats)
        forks += parent.news().count(Fork(0))
    assert forks == 100
    assert parent.now >= 1000 + 100 * PAUSE


def test_one_that_does_not_come_to_serve_is_told_once_and_tried_more_and_more_seldom() -> None:
    parent = running(2)
    parent.passes(60)
    parent.died(1, -9)
    parent.news()
    pauses = []
    for number in range(10):
        [pid] = (pid for pid, seat in parent.seats.items() if seat == 0)
        parent.died(pid, 1, "no database")
        told = [action for action in parent.news() if isinstance(action, Report)]
        assert told == (
            [Report(f"worker {pid} gave up: no database; it is tried again")] if not number else []
        )
        wake = parent.wake()
        assert wake is not None
        pauses.append(wake - parent.now)
        parent.passes(pauses[-1])
    assert pauses == sorted(pauses)
    assert pauses[0] == 2 * PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    [pid] = (pid for pid, seat in parent.seats.items() if seat == 0)
    parent.serves(pid)
    parent.passes(60)
    parent.died(pid, -9)
    assert Fork(0) in parent.news()  # at once


def test_a_reload_replaces_one_after_the_other() -> None:
    parent = running(3)
    parent.reload(3)
    for old, new in ((1, 4), (2, 5), (3, 6)):
        assert parent.news() == [Fork(old - 1)]
        assert set(parent.seats) >= {old, new}  # it goes on until the next one serves
        parent.serves(new)
        assert parent.done[0] == Leave(old)
        parent.done = parent.done[1:]
    assert parent.news() == []
    parent.died(2)
    parent.died(1)
    assert parent.news() == []
    parent.died(3)
    assert parent.news() == [Complete(first=False)]


def test_a_reload_changes_how_many_there_are() -> None:
    parent = running(2)
    parent.reload(4)
    assert parent.news() == [Fork(2), Fork(3)]  # nobody is at these seats
    parent.serves(3, 4)
    assert parent.news() == [Fork(0)]
    parent.serves(5)
    assert parent.news() == [Leave(1), Fork(1)]
    parent.serves(6)
    parent.died(1)
    parent.died(2)
    assert parent.news() == [Leave(2), Complete(first=False)]
    parent.reload(2)
    assert parent.news() == [Leave(3), Leave(4), Fork(0)]


def test_a_second_reload_overtakes_the_first() -> None:
    parent = running(2)
    parent.reload(2)
    parent.serves(3)
    assert parent.news() == [Fork(0), Leave(1), Fork(1)]
    parent.reload(2)  # 4 has not begun to serve
    assert parent.news() == [Leave(4), Fork(0)]
    parent.serves(5)
    assert parent.news() == [Leave(3), Fork(1)]
    parent.serves(6)
    for pid in (1, 2, 3, 4):
        parent.died(pid)
    assert parent.news() == [Leave(2), Complete(first=False)]


def test_in_a_reload_the_old_one_goes_on_while_the_new_one_does_not_come_to_serve() -> None:
    parent = running(2)
    parent.reload(2)
    parent.died(3, 1, "no database")
    assert parent.news() == [
        Fork(0),
        Report("worker 3 gave up: no database; it is tried again"),
        Fork(1),  # another seat may try meanwhile
    ]
    assert 1 in parent.seats


def test_told_to_stop_all_of_them_stop() -> None:
    parent = running(2)
    parent.stop()
    assert parent.news() == [Stop(1), Stop(2)]
    parent.stop()
    parent.died(1)
    assert parent.news() == []
    parent.died(2)
    assert parent.news() == [End(None)]


def test_who_does_not_stop_is_killed() -> None:
    parent = running(2)
    parent.stop()
    parent.died(2)
    parent.news()
    assert parent.wake() == parent.now + PATIENCE
    parent.passes(PATIENCE)
    assert parent.news() == [Kill(1)]
    parent.died(1, -9)
    assert parent.news() == [Report("worker 1 was killed by signal 9"), End(None)]


@pytest.mark.parametrize("seed", range(200))
def test_whatever_happens_it_ends_with_the_workers_that_are_wanted(seed: int) -> None:
    chance = random.Random(seed)
    parent = running(chance.randrange(1, 5))
    number = parent.supervision.number
    starting: set[int] = set()
    leaving: set[int] = set()

    def follow() -> None:
        for action in parent.news():
            if isinstance(action, Leave):
                assert action.pid not in leaving
                leaving.add(action.pid)
                starting.discard(action.pid)
        known.update(parent.seats)
        starting.update(parent.seats.keys() - begun - leaving)
        begun.update(parent.seats)

    known: set[int] = set(parent.seats)
    begun: set[int] = set(parent.seats)
    for _ in range(60):
        what = chance.random()
        if what < 0.4 and starting:
            pid = chance.choice(sorted(starting))
            starting.discard(pid)
            parent.serves(pid)
        elif what < 0.6 and parent.seats:
            pid = chance.choice(sorted(parent.seats))
            starting.discard(pid)
            parent.died(pid, chance.choice((0, 1, -9)))
        elif what < 0.7:
            number = chance.randrange(1, 5)
            parent.reload(number)
        else:
            parent.passes(chance.random() * 5)
        follow()
        wake = parent.wake()
        assert wake is None or wake > parent.now  # it never spins
    for _ in range(100):  # from now on all goes well
        for pid in sorted(leaving & parent.seats.keys()):
            parent.died(pid)
        for pid in sorted(starting):
            starting.discard(pid)
            parent.serves(pid)
        parent.passes(LONGEST_PAUSE)
        follow()
    assert sorted(parent.seats.values()) == list(range(number))
    parent.stop()
    assert {a.pid for a in parent.news() if isinstance(a, Stop)} == parent.seats.keys()
