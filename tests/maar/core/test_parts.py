"""The parts by themselves: timers, transitions, claims, and the questions to the CMD."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire.address import Prefix
from dmm_wire.timers import Timers
from relay_maar.core.desired import Wanted
from relay_maar.core.domain import Domain
from relay_maar.core.items import (
    AcceptFrom,
    Drop,
    Item,
    Key,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
    Unreachable,
)
from relay_maar.core.session import TRANSITIONS, Event, Role
from tests.maar.core.world import endpoint

# --- timers ---


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 5), st.integers(0, 50)),
            st.tuples(st.just("cancel"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("due"), st.just(0), st.integers(0, 50)),
        ),
        max_size=80,
    )
)
def test_timers_do_what_a_dictionary_does(steps: list[tuple[str, int, int]]) -> None:
    timers: Timers[int] = Timers()
    model: dict[int, float] = {}
    for what, name, when in steps:
        match what:
            case "set":
                timers.set(name, float(when))
                model[name] = float(when)
            case "cancel":
                timers.cancel(name)
                model.pop(name, None)
            case _:
                fired = timers.due(float(when))
                assert sorted(fired) == sorted(n for n, w in model.items() if w <= when)
                moments = [model.pop(n) for n in fired]
                assert moments == sorted(moments)
        assert timers.deadline() == min(model.values(), default=None)


def test_a_timer_that_is_moved_for_ever_takes_no_room() -> None:
    timers: Timers[str] = Timers()
    for when in range(10_000):
        timers.set("a", float(when))
    assert len(timers._heap) < 200
    assert timers.due(1e9) == ["a"]


# --- the transitions of a role ---


def test_every_transition_is_there() -> None:
    assert set(TRANSITIONS) == set(Event)
    for table in TRANSITIONS.values():
        assert set(table) == {None, *Role}


def test_a_prefix_of_another_pool_never_just_vanishes() -> None:
    # Its anchor may still tunnel to us: it ends as Unreachable first, unless the anchor itself is where the node is.
    for event, table in TRANSITIONS.items():
        if event is not Event.AWAY_HOME:
            assert table[Role.SERVED] is not None
            assert table[Role.FORWARDED] is not None


def test_only_a_visit_makes_a_node_served_here() -> None:
    for event, table in TRANSITIONS.items():
        for before, after in table.items():
            if after in (Role.LOCAL, Role.SERVED) and before != after:
                assert event in (Event.HERE_LOCAL, Event.HERE_SERVED)


# --- claims on the kernel ---

P = Prefix.parse("2001:db8:9:1::/64")
PEER, OTHER = endpoint(2), endpoint(3)
TO_NODE = Route(P, ToNode("access0", bytes(16)))


def test_a_tunnel_is_shared_and_counted() -> None:
    wanted = Wanted()
    assert wanted.claim("a", [Tunnel(PEER)]) == (Put(Tunnel(PEER)),)
    wanted.issue(1, [Put(Tunnel(PEER))])
    assert wanted.claim("b", [Tunnel(PEER)]) == ()
    assert wanted.claim("a", []) == ()
    assert wanted.claim("b", []) == (Drop(Tunnel(PEER)),)


def test_a_changed_target_is_one_put() -> None:
    wanted = Wanted()
    wanted.issue(1, wanted.claim("a", [TO_NODE]))
    assert wanted.claim("a", [Route(P, ToPeer(PEER))]) == (Put(Route(P, ToPeer(PEER))),)


def test_a_prefix_that_is_a_whole_pool_gives_it_back() -> None:
    wanted = Wanted()
    wanted.issue(1, wanted.claim("pools", [Route(P, Unreachable())]))
    wanted.issue(2, wanted.claim("a", [TO_NODE]))
    assert wanted.claim("a", []) == (Put(Route(P, Unreachable())),)


def test_make_before_break_in_order_of_dependence() -> None:
    old: list[Item] = [
        SourceRule(P, PEER),
        TO_NODE,
        Neighbour("access0", bytes(16), bytes(6)),
        Tunnel(PEER),
        AcceptFrom(PEER),
    ]
    new: list[Item] = [Route(P, ToPeer(OTHER)), Tunnel(OTHER), AcceptFrom(OTHER)]
    for first, second in itertools.permutations([0, 1]):
        wanted = Wanted()
        wanted.issue(1, wanted.claim("a", old if first < second else old[::-1]))
        assert wanted.claim("a", new) == (
            Put(AcceptFrom(OTHER)),
            Put(Tunnel(OTHER)),
            Put(Route(P, ToPeer(OTHER))),
            Drop(SourceRule(P, PEER)),
            Drop(Neighbour("access0", bytes(16), bytes(6))),
            Drop(Tunnel(PEER)),
            Drop(AcceptFrom(PEER)),
        )


def test_what_was_refused_is_tried_until_it_is_there_or_not_wanted() -> None:
    wanted = Wanted()
    changes = wanted.claim("a", [TO_NODE])
    wanted.issue(1, changes)
    assert wanted.answered(1, changes, {TO_NODE.key: "ENOMEM"}) == list(changes)
    assert wanted.refused([TO_NODE])
    assert wanted.retry() == changes
    # Nobody wants it any more; but nobody knows what the kernel did with it either.
    assert wanted.claim("a", []) == (Drop(TO_NODE),)
    wanted.issue(2, [Drop(TO_NODE)])
    assert wanted.answered(2, [Drop(TO_NODE)], {}) == []
    assert wanted.retry() == ()


def test_what_could_not_be_taken_away_and_is_gone_is_not_tried_again() -> None:
    wanted = Wanted()
    wanted.issue(1, wanted.claim("a", [TO_NODE]))
    gone = wanted.claim("a", [])
    wanted.issue(2, gone)
    wanted.answered(2, gone, {TO_NODE.key: "EBUSY"})
    assert wanted.failed == {TO_NODE.key}
    assert wanted.compare([TO_NODE]) == gone
    assert wanted.compare([]) == ()
    assert not wanted.failed


def test_a_late_refusal_of_what_was_replaced_counts_no_more() -> None:
    wanted = Wanted()
    first = wanted.claim("a", [TO_NODE])
    wanted.issue(1, first)
    second = wanted.claim("a", [Route(P, ToPeer(PEER))])
    wanted.issue(2, second)
    assert wanted.answered(1, first, {TO_NODE.key: "ENOMEM"}) == []
    assert wanted.last_token([TO_NODE]) == 2
    assert wanted.answered(2, second, {}) == []
    assert wanted.last_token([TO_NODE]) is None


KEYS: list[Item] = [TO_NODE, Route(P, ToPeer(PEER)), Tunnel(PEER), Tunnel(OTHER), AcceptFrom(PEER)]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from(KEYS)), st.booleans()),
        max_size=30,
    )
)
def test_the_kernel_always_ends_as_the_claims_want(
    steps: list[tuple[str, set[Item], bool]],
) -> None:
    wanted = Wanted()
    kernel: dict[Key, Item] = {}
    for token, (owner, items, refuse) in enumerate(steps):
        changes: Any = wanted.claim(owner, sorted(items, key=repr))
        for attempt in (token * 2, token * 2 + 1):
            wanted.issue(attempt, changes)
            failures = {}
            for change in changes:
                if refuse and attempt == token * 2:
                    failures[change.item.key] = "no"
                elif isinstance(change, Put):
                    kernel[change.item.key] = change.item
                else:
                    kernel.pop(change.item.key, None)
            wanted.answered(attempt, changes, failures)
            changes = wanted.retry()
        assert not wanted.failed
        assert {item.key: item for item in wanted.effective()} == kernel


# --- questions to the CMD ---


def domain() -> Domain:
    return Domain(endpoint(1), 60.0, lambda transaction, _: transaction, lambda: 0.5)


def moments(asked: Domain, until: float) -> list[float]:
    found = []
    while (when := asked.deadline()) is not None and when < until:
        found += [when] * len(asked.due(when))
    return found


def test_the_domain_is_asked_for_until_it_is_told() -> None:
    asked = domain()
    asked.start(0.0)
    assert moments(asked, 100.0) == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0]


def test_a_question_keeps_its_transaction_id_and_the_next_has_another() -> None:
    asked = domain()
    asked.start(0.0)
    (first,) = asked.due(0.0)
    assert asked.due(1.0) == [first]
    assert not asked.answered(b"xyz", 1.1)
    assert asked.answered(first, 1.1)
    assert not asked.answered(first, 1.2)
    assert asked.deadline() == 61.1
    (second,) = asked.due(61.1)
    assert second != first


def test_a_suspicion_hastens_the_question_but_not_for_ever() -> None:
    asked = domain()
    asked.start(0.0)
    (first,) = asked.due(0.0)
    asked.answered(first, 0.1)
    for now in (1.0, 2.0, 4.9):
        asked.suspect(now)
    assert asked.deadline() == 5.0


@pytest.mark.parametrize("count", [0, 3])
def test_the_domain_is_the_others(count: int) -> None:
    asked = domain()
    assert asked.learn([endpoint(1), *map(endpoint, range(2, 2 + count))]) == bool(count)
    assert asked.peers == frozenset(map(endpoint, range(2, 2 + count)))
