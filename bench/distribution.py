"""What is said of many measurements of the same thing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Distribution:
    """So many values, their median, 95th and 99th percentile and the worst, each a value that was measured."""

    count: int
    median: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """Of these; None of none."""
        ordered = sorted(values)
        if not ordered:
            return None
        return cls(
            len(ordered),
            *(percentile(ordered, part) for part in (0.5, 0.95, 0.99, 1.0)),
        )


def percentile(ordered: list[float], part: float) -> float:
    """The least value that `part` of all are not above, by nearest rank. `ordered` is not empty."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
