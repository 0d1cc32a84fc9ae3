"""The capacity of a server: the highest offered rate at which at most one exchange in a hundred is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MOST_LOST = 0.01
PRECISION = 0.04
"""How far, relatively, the lowest rate that was too high may be above the highest that was not."""
STEP = 1.3
MOST_TRIALS = 20
AGAIN = 0.05
"""A trial that lost too much, but less than this, is made once more, for something else may have used the machine."""
LEAST_RATE = 5.0
"""Exchanges per second; a server that cannot do these does not serve."""
SHORTFALL = 0.9
"""Of the rate asked for; a generator that offers less is itself the limit."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of the exchanges that were begun within `seconds`. `latencies` are seconds for each message and its
    answer, sorted; empty where nobody took them down.
    """

    seconds: float
    begun: int
    completed: int
    latencies: Sequence[float] = field(default=(), repr=False)
    mean_latency: float | None = None

    @property
    def offered(self) -> float:
        """Exchanges begun per second."""
        return self.begun / self.seconds

    @property
    def lost(self) -> float:
        """The part of the exchanges that was not completed, 0 to 1."""
        return (self.begun - self.completed) / self.begun if self.begun else 1.0

    @property
    def passed(self) -> bool:
        """Whether few enough were lost."""
        return self.lost <= MOST_LOST

    def latency(self, part: float) -> float | None:
        """The latency that `part` (0 to 1) of the messages did not exceed, seconds."""
        if not self.latencies:
            return None
        return self.latencies[min(int(part * len(self.latencies)), len(self.latencies) - 1)]


@dataclass(frozen=True, slots=True)
class Capacity:
    """The best trial that passed (None: none did), all trials in order, and whether the generator was the limit."""

    best: Trial | None
    trials: tuple[Trial, ...]
    limited_by_generator: bool = False

    @property
    def rate(self) -> float:
        """Exchanges per second; 0 where none are served."""
        return self.best.offered if self.best is not None else 0.0


def find_capacity(
    offer: Callable[[float], Trial], start: float, precision: float = PRECISION
) -> Capacity:
    """Find it with trials, each at a rate that `offer` is asked for: steps from `start` until it lies between two
    rates, then halving, until they are as close as `precision`.
    """
    trials: list[Trial] = []

    def attempt(rate: float) -> Trial:
        trials.append(offer(rate))
        if MOST_LOST < trials[-1].lost < AGAIN:
            trials.append(offer(rate))
        return trials[-1]

    best: Trial | None = None
    low, high, rate = 0.0, float("inf"), start
    while len(trials) < MOST_TRIALS and high > max(low * (1 + precision), LEAST_RATE):
        trial = attempt(rate)
        if trial.passed:
            if best is None or trial.offered > best.offered:
                best = trial
            low = rate
            if trial.offered < SHORTFALL * rate:
                return Capacity(best, tuple(trials), limited_by_generator=True)
        else:
            high = rate
        if high == float("inf"):
            rate = low * STEP
        elif low == 0:
            # Far above the capacity, what is still completed says more than a step would.
            done = trial.completed / trial.seconds
            rate = max(min(high / STEP, max(done, high / 10)), LEAST_RATE)
        else:
            rate = (low * high) ** 0.5
    return Capacity(best, tuple(trials))
