from __future__ import annotations

from collections import Counter

import pytest

from bench.plan import SCALED, Starts, Unknown, plan


def test_everything_once_and_what_tells_of_scale_with_every_size() -> None:
    steps = plan()
    assert len({(step.server.name, step.workload.name, step.size) for step in steps}) == len(steps)
    by_size = Counter(step.size for step in steps)
    assert list(by_size) == [10_000, 100_000, 1_000_000]
    # Two Keas with nine kinds of traffic, two compiled CMDs with eleven; interpreted, with several workers, and
    # ipv6-dhcpd, with two.
    assert by_size[10_000] == 2 * 9 + 2 * 11 + 4 * 2
    assert by_size[1_000_000] == 2 * 1 + 2 * 2
    assert {step.workload.name for step in steps if step.size > 10_000} == set(SCALED)


def test_what_is_compared_is_measured_one_after_the_other() -> None:
    steps = plan(["kea-memfile", "compiled-sqlite"], ["pd-relayed", "na-relayed"], [5])
    assert [(step.workload.name, step.server.name) for step in steps] == [
        ("pd-relayed", "kea-memfile"),
        ("pd-relayed", "compiled-sqlite"),
        ("na-relayed", "kea-memfile"),
        ("na-relayed", "compiled-sqlite"),
    ]


def test_what_is_named_is_measured() -> None:
    steps = plan(["ipv6-dhcpd", "kea-memfile"], ["refresh", "pd-direct"], [5])
    found = [(step.server.name, step.workload.name, step.size) for step in steps]
    assert found == [
        ("kea-memfile", "pd-direct", 5),
        ("ipv6-dhcpd", "pd-direct", 5),
        ("ipv6-dhcpd", "refresh", 5),
    ]


@pytest.mark.parametrize(("servers", "traffic"), [(["kea"], []), ([], ["pd"])])
def test_a_name_that_is_none(servers: list[str], traffic: list[str]) -> None:
    with pytest.raises(Unknown, match="is none of"):
        plan(servers, traffic)


def test_a_search_begins_near_what_was_found_before() -> None:
    first, second, *_ = plan(["serve-sqlite"])
    starts = Starts()
    assert starts.start(first) == first.workload.start
    starts.learn(first, first.workload.start / 2)
    assert starts.start(first) == first.workload.start / 2
    assert starts.start(second) == second.workload.start / 2
    starts.learn(second, 0.0)  # not served: says nothing
    assert starts.start(second) == second.workload.start / 2
