"""Questions about a crowd: which of them the CMD may still have before it, and which are lost."""

from __future__ import annotations

from collections import Counter
from itertools import count

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


def test_a_cmd_that_takes_longer_and_longer_is_waited_for_as_long() -> None:
    crowd = Crowd(9)
    for node, at in enumerate((0.24, 0.48, 0.9, 1.7, 3.3, 6.5, 12.9), 1):
        assert crowd.asked(at) == []
        crowd.answered(node, at)
    assert crowd.asked(12.9 + PACE.longest - 0.01) == []
    assert crowd.asked(12.9 + PACE.longest) == [8, 9], "no longer than between two questions"


def test_a_cmd_that_is_back_is_soon_asked_all() -> None:
    crowd = Crowd(3)
    for at in (0.25, 0.26, 0.27, 0.75, 0.76, 0.77, 1.75):
        crowd.asked(at)
    # Which of the three questions that answers is not known, and how long it took neither.
    crowd.answered(1, 1.76)
    assert crowd.asked(1.9) == []
    assert crowd.asked(1.76 + FIRST) == [2, 3]


def test_one_that_was_repeated_and_answered_does_not_make_the_others_late() -> None:
    crowd = Crowd(4)
    assert crowd.asked(0.25) == [1]
    crowd.answered(1, 0.255)  # the first of the two; the others are behind it
    assert crowd.asked(0.29) == []
    assert crowd.asked(0.255 + FIRST) == [2, 3, 4]
