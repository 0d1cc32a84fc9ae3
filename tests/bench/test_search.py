from __future__ import annotations

import pytest

from bench.search import MOST_LOST, MOST_TRIALS, PRECISION, Trial, find_capacity


class Machine:
    """Completes so many exchanges per second and loses the rest; offers at most `fastest`."""

    def __init__(self, capacity: float, fastest: float = float("inf")) -> None:
        self.capacity = capacity
        self.fastest = fastest
        self.asked: list[float] = []

    def offer(self, rate: float) -> Trial:
        self.asked.append(rate)
        begun = round(min(rate, self.fastest) * 10)
        return Trial(10, begun, min(begun, round(self.capacity * 10)))


@pytest.mark.parametrize("start", [10.0, 900.0, 1000.0, 1100.0, 50_000.0])
def test_the_capacity_is_found_from_below_and_from_above(start: float) -> None:
    machine = Machine(1000)
    found = find_capacity(machine.offer, start)
    highest = 1000 / (1 - MOST_LOST)
    assert highest / (1 + PRECISION) - 1 <= found.rate <= highest + 1
    assert found.best is not None
    assert found.best.passed
    assert not found.limited_by_generator
    assert len(machine.asked) == len(found.trials) <= MOST_TRIALS


def test_a_finer_search_comes_closer() -> None:
    found = find_capacity(Machine(1000).offer, 600, precision=0.01)
    assert found.rate == pytest.approx(1000 / (1 - MOST_LOST), rel=0.011)


def test_who_serves_nothing_has_no_capacity_and_is_given_up_soon() -> None:
    machine = Machine(0)
    found = find_capacity(machine.offer, 8000)
    assert (found.rate, found.best) == (0.0, None)
    assert len(machine.asked) < 10


def test_a_generator_that_cannot_offer_more_ends_the_search() -> None:
    found = find_capacity(Machine(1_000_000, fastest=5000).offer, 4000)
    assert found.limited_by_generator
    assert found.rate == 5000


def test_a_trial_that_lost_a_little_too_much_is_made_once_more() -> None:
    machine = Machine(1_000_000, fastest=1000)
    losses = iter([30])

    def offer(rate: float) -> Trial:
        trial = machine.offer(rate)
        return Trial(10, trial.begun, trial.begun - next(losses, 0) * trial.begun // 1000)

    found = find_capacity(offer, 900)
    assert [round(rate) for rate in machine.asked] == [900, 900, 1170]
    assert [trial.passed for trial in found.trials] == [False, True, True]


def test_at_most_one_in_a_hundred_may_be_lost() -> None:
    assert Trial(1, 1000, 990).passed
    assert not Trial(1, 1000, 989).passed
    assert not Trial(1, 0, 0).passed


def test_percentiles() -> None:
    trial = Trial(1, 100, 100, latencies=tuple(range(1, 101)))
    assert [trial.latency(part) for part in (0.5, 0.99, 1.0)] == [51, 100, 100]
    assert Trial(1, 1, 1).latency(0.5) is None
