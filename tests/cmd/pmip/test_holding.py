"""Answers that wait for acknowledgements."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NoReturn

from dhcp_cmd.core.model import Hold
from dhcp_cmd.pmip.holding import MOST_HELD, Holding

ONE, TWO = b"one", b"two"
BOTH = Hold(7, ((1, ONE), (2, TWO)), 0)


def test_it_goes_when_all_have_acknowledged() -> None:
    holding: Holding[str] = Holding()
    assert holding.hold("m", "answer", BOTH, 1.0) == []
    assert holding.is_waited_for(7, 1)
    assert not holding.is_waited_for(8, 1)
    assert holding.acknowledged(7, 1) == []
    assert not holding.is_waited_for(7, 1)
    assert holding.acknowledged(8, 2) == []
    assert holding.acknowledged(7, 2) == [("answer", ())]
    assert (len(holding), holding.deadline()) == (0, None)


def test_it_goes_when_its_time_is_over_with_what_it_has() -> None:
    holding: Holding[str] = Holding()
    holding.hold("m", "answer", BOTH, 1.0)
    holding.acknowledged(7, 1)
    assert holding.deadline() == 1.0
    assert (holding.due(0.9), holding.overdue(0.9)) == ([], [])
    assert holding.overdue(1.0) == [(7, 2)]
    assert holding.due(1.0) == [("answer", (TWO,))]
    assert holding.acknowledged(7, 2) == []


def test_a_message_sent_again_is_answered_once_and_no_later() -> None:
    holding: Holding[str] = Holding()
    holding.hold("m", "first", BOTH, 1.0)
    holding.hold("m", "second", BOTH, 1.5)
    assert len(holding) == 1
    assert holding.due(1.0) == [("second", (ONE, TWO))]


def test_several_messages_of_one_node() -> None:
    holding: Holding[str] = Holding()
    holding.hold("m", "first", BOTH, 1.0)
    holding.hold("n", "second", Hold(7, ((2, TWO),), 0), 1.1)
    assert holding.acknowledged(7, 2) == [("second", ())]
    assert holding.acknowledged(7, 1) == [("first", ())]


def test_what_comes_beyond_the_most_makes_the_oldest_go() -> None:
    holding: Holding[int] = Holding(most=2)
    holding.hold(1, 1, BOTH, 1.0)
    holding.hold(2, 2, BOTH, 1.0)
    assert holding.hold(3, 3, BOTH, 1.0) == [(1, (ONE, TWO))]
    assert len(holding) == 2


def test_who_refused_a_part_is_not_waited_for_and_not_named() -> None:
    holding: Holding[str] = Holding()
    holding.hold("m", "answer", BOTH, 1.0)
    assert holding.refused(7, 1) == []
    assert not holding.is_waited_for(7, 1)
    assert holding.acknowledged(7, 2) == [("answer", (ONE,))]
    holding.hold("m", "answer", BOTH, 1.0)
    assert holding.acknowledged(7, 1) == []
    assert holding.refused(7, 2) == [("answer", (TWO,))]
    assert holding.refused(7, 2) == []


class Unwalked(dict[Hashable, Any]):
    """What is looked up, and not looked through."""

    def _walked(self) -> NoReturn:
        raise AssertionError("all that is held was looked through")

    __iter__ = keys = values = items = _walked


def test_a_full_house_is_not_looked_through_at_each_turn() -> None:
    holding: Holding[int] = Holding()
    for number in range(MOST_HELD):
        holding.hold(number, number, Hold(number, ((1, ONE),), 0), number / 1000)
    holding._held = Unwalked(holding._held)
    assert holding.deadline() == 0.0
    assert holding.overdue(0.001) == [(0, 1), (1, 1)]
    assert holding.acknowledged(0, 1) == [(0, ())]
    assert holding.due(0.002) == [(1, (ONE,)), (2, (ONE,))]
    assert holding.acknowledged(3, 1) == [(3, ())]
    assert (holding.deadline(), len(holding)) == (0.004, MOST_HELD - 4)


def test_one_that_comes_again_when_its_time_is_over_goes_at_once() -> None:
    holding: Holding[str] = Holding()
    holding.hold("m", "first", BOTH, 1.0)
    assert holding.overdue(1.0) == [(7, 1), (7, 2)]
    holding.hold("m", "second", BOTH, 1.5)
    assert holding.due(1.0) == [("second", (ONE, TWO))]
    assert holding.deadline() is None
