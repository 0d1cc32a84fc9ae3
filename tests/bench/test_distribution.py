from __future__ import annotations

import pytest

from bench.distribution import Distribution


def test_percentiles_are_values_that_were_measured() -> None:
    hundred = [float(each) for each in range(100, 0, -1)]
    assert Distribution.of(hundred) == Distribution(100, 50.0, 95.0, 99.0, 100.0)
    assert Distribution.of([3.0, 1.0, 2.0]) == Distribution(3, 2.0, 3.0, 3.0, 3.0)
    assert Distribution.of([7.0]) == Distribution(1, 7.0, 7.0, 7.0, 7.0)


def test_of_nothing_nothing_is_said() -> None:
    assert Distribution.of([]) is None


@pytest.mark.parametrize("count", [2, 19, 20, 21, 50, 199, 200, 201])
def test_no_more_than_the_part_is_below(count: int) -> None:
    values = [float(each) for each in range(count)]
    found = Distribution.of(values)
    assert found is not None
    for part, at in ((0.5, found.median), (0.95, found.p95), (0.99, found.p99)):
        assert sum(each < at for each in values) <= part * count <= sum(e <= at for e in values)
