"""Questions about a crowd: which of them the CMD may still have before it, and which are lost."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest

from relay_maar.core.attaching import Attaching
from relay_maar.core.noticed import Ask, Pace, Place, made_link_local
from relay_maar.core.settings import AttachSettings

FIRST = 0.25
PACE = Pace(FIRST, 8.0, 8, dated=True)


class Crowd:
    """Nodes that come 10 ms one after the other, from 0 on, and are asked about at once."""

    def __init__(self, nodes: int) -> None:
        numbers = count(1)
        self.counters: Counter[str] = Counter()
        self.attaching = Attaching(
            AttachSettings(),
            PACE,
            lambda _: False,
            lambda: next(numbers).to_bytes(3, "big"),
            self.counters,
        )
        for node in range(1, nodes + 1):
            now = (node - 1) * 0.01
            mac = b"\x02\xbe\0\0\0" + bytes((node,))
            own = made_link_local(mac)
            self.attaching.seen(Place("access", mac, own, own), "mld", now)
            assert self.asked(now) == [node]

    def asked(self, now: float) -> list[int]:
        """The nodes that are asked about now."""
        return [
            each.place.link_layer[-1] for each in self.attaching.due(now) if isinstance(each, Ask)
        ]

    def answered(self, node: int, now: float) -> None:
        number = node.to_bytes(3, "big")
        assert self.attaching.answered(number, now) is not None
        self.attaching.settled(number)


def test_who_waits_for_its_turn_is_not_asked_about_again() -> None:
    crowd = Crowd(4)
    crowd.answered(1, 0.2)
    assert crowd.asked(0.35) == []
    crowd.answered(2, 0.44)
    # That one took 0.43 s: the next may take as long.
    assert crowd.asked(0.86) == []
    assert crowd.counters["attach.in-turn"] > 0
    assert crowd.counters["attach.asked-again"] == 0
    # Nothing more has come.
    assert crowd.asked(0.88) == [3, 4]


def test_an_answer_that_comes_after_all_ends_it() -> None:
    crowd = Crowd(2)
    crowd.answered(1, 0.24)
    assert crowd.asked(0.27) == []
    crowd.answered(2, 0.3)
    assert crowd.asked(10.0) == []
    assert crowd.counters["attach.asked-again"] == 0


def test_who_was_passed_over_is_asked_about_again_at_its_time() -> None:
    crowd = Crowd(3)
    crowd.answered(2, 0.2)
    assert crowd.asked(0.24) == []
    assert crowd.asked(0.25) == [1]
    assert crowd.asked(0.28) == [], "the third may still come"


def test_where_nobody_answers_all_are_asked_about_again() -> None:
    crowd = Crowd(3)
    assert [crowd.asked(at) for at in (0.25, 0.26, 0.27)] == [[1], [2], [3]]


@pytest.mark.parametrize("long", [8.0, 100.0])
def test_a_slow_cmd_is_waited_for_no_longer_than_between_two_questions(long: float) -> None:
    crowd = Crowd(2)
    for at in (0.25, 0.26, 0.75, 0.76):
        crowd.asked(at)
    crowd.answered(1, long)
    assert crowd.asked(long) == []
    assert crowd.asked(long + PACE.longest) == [2]


def test_a_cmd_that_is_back_is_asked_as_soon_as_ever() -> None:
    crowd = Crowd(2)
    for at in (0.25, 0.26, 0.75, 0.76, 1.75):
        crowd.asked(at)
    # Only what it was asked after its return has reached it: that took 10 ms, not two seconds.
    crowd.answered(1, 1.76)
    assert crowd.asked(1.76) == [2]
