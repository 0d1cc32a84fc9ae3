"""An outage of the database has two lines, whoever noticed it."""

from __future__ import annotations

import logging

import pytest

from dhcp_cmd.server.outage import Outage, OutageOfWorker


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Clock:
    caplog.set_level(logging.WARNING)
    return Clock()


def test_it_is_told_once_and_its_end_counts_them_all(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(clock)
    outage.works()
    outage.fails(clock.now, "gone", 3)
    outage.fails(clock.now, "away", 4)
    clock.now += 2.5
    outage.works()
    outage.works()
    assert caplog.messages == [
        "the database does not answer, so nothing is answered: gone",
        "the database is back after 2.5 s; 7 messages were not answered",
    ]


def test_what_was_asked_before_it_was_back_begins_no_other_one(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(clock)
    outage.fails(clock.now, "gone", 1)
    clock.now += 3
    outage.works()
    outage.fails(clock.now - 1, "no answer within 3 s", 1)
    assert len(caplog.messages) == 2
    clock.now += 1
    outage.fails(clock.now, "gone", 1)
    assert len(caplog.messages) == 3


class Line:
    """What a worker says; its parent does not hear it while `full`."""

    def __init__(self) -> None:
        self.full = False
        self.said: list[tuple[object, ...]] = []

    def __call__(self, *words: object) -> bool:
        if not self.full:
            self.said.append(words)
        return not self.full


def test_a_worker_tells_its_parent() -> None:
    line = Line()
    worker = OutageOfWorker(line)
    worker.works()
    assert line.said == []
    worker.fails(1.0, "gone", 3)
    worker.fails(2.0, "gone", 4)
    worker.works()
    worker.works()
    assert line.said == [("fails", 1.0, "gone", 3), ("fails", 2.0, "gone", 4), ("works",)]


def test_what_the_parent_could_not_be_told_it_is_told_later() -> None:
    line = Line()
    worker = OutageOfWorker(line)
    line.full = True
    worker.fails(1.0, "gone", 3)
    worker.works()
    worker.fails(2.0, "gone", 4)
    line.full = False
    worker.fails(3.0, "gone", 5)
    line.full = True
    worker.works()
    line.full = False
    worker.works()
    assert line.said == [("fails", 3.0, "gone", 12), ("works",)]
