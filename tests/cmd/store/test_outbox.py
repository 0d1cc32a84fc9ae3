"""The outbox of Proxy Binding Updates: what every store does with signals, and what their senders see of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dhcp_cmd.core.model import (
    MICROS,
    Change,
    DropNode,
    DropSignal,
    Lookup,
    PutBinding,
    PutNode,
    PutSignal,
    Signal,
    State,
)
from dhcp_cmd.core.ports import Store
from dhcp_cmd.store import SqlStore, maintenance
from dhcp_cmd.store.outbox import SqlOutbox
from dhcp_cmd.store.prune import prune
from dhcp_cmd.store.rows import CLAIM
from tests.cmd.store.domain import (
    ENGINES,
    T0,
    a_binding,
    a_node,
    duid,
    memory_store,
    opened,
    the_pool,
)
from tests.cmd.store.test_contract import domain_of, written


@pytest.fixture(params=["memory", *ENGINES])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with (
        memory_store(tmp_path) if request.param == "memory" else opened(request.param, tmp_path)
    ) as made:
        yield made


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with opened(request.param, tmp_path) as made:
        yield made


def put(node: int, maar: int, *, visit: bool = True, at: int = T0) -> PutSignal:
    return PutSignal(Signal(node, maar, visit, at))


def signals(store: Store, *nodes: int) -> dict[tuple[int, int], Signal]:
    """What is owed about these nodes."""
    with store.transaction() as transaction:
        snapshot = transaction.read([Lookup(tuple(map(duid, nodes)))])
        transaction.signals(snapshot)
    return {(s.node, s.maar): s for of in snapshot.signals.values() for s in of.values()}


def test_signals_are_put_and_dropped(any_store: Store) -> None:
    written(any_store, PutNode(a_node(7, serving=3), True), put(7, 1), put(7, 2, visit=False))
    assert signals(any_store, 7) == {
        (7, 1): Signal(7, 1, True, T0),
        (7, 2): Signal(7, 2, False, T0),
    }
    written(any_store, DropSignal(7, 1), DropSignal(7, 3))
    assert set(signals(any_store, 7)) == {(7, 2)}


def test_what_has_not_been_acknowledged_stays_so(any_store: Store) -> None:
    written(any_store, PutNode(a_node(7, serving=3), True), put(7, 1))
    written(any_store, put(7, 1, visit=False, at=T0 + 5))
    assert signals(any_store, 7) == {(7, 1): Signal(7, 1, True, T0 + 5)}


def test_a_batch_writes_the_last_word(any_store: Store) -> None:
    written(any_store, PutNode(a_node(7, serving=3), True), put(7, 1), put(7, 1, visit=False))
    assert signals(any_store, 7)[7, 1].visit
    changes: list[Change] = [DropSignal(7, 1), put(7, 2), DropSignal(7, 2)]
    written(any_store, *changes)
    assert signals(any_store, 7) == {}


def test_a_node_that_goes_takes_its_signals_along(any_store: Store) -> None:
    written(any_store, *(PutNode(a_node(n, serving=3), True) for n in (7, 8)), put(7, 1), put(8, 1))
    written(any_store, put(7, 2), DropNode(7))
    assert set(signals(any_store, 7, 8)) == {(8, 1)}


def test_only_the_signals_of_the_nodes_read_are_read(any_store: Store) -> None:
    written(any_store, *(PutNode(a_node(n, serving=3), True) for n in (7, 8)), put(7, 1), put(8, 1))
    assert set(signals(any_store, 8)) == {(8, 1)}


def test_the_nodes_elsewhere_that_a_maar_anchors_something_for(any_store: Store) -> None:
    pool, other = the_pool(domain_of(any_store)), the_pool(domain_of(any_store), 2)
    over = a_binding(pool, 4, 10)._replace(state=State.ENDED, ended_at=T0, reusable_at=T0)
    written(
        any_store,
        *(PutNode(a_node(n, serving=3), True) for n in (8, 7, 9, 10)),
        PutNode(a_node(11, serving=1), True),
        PutNode(a_node(12)._replace(serving=None), True),
        PutBinding(a_binding(pool, 1, 8), True),
        PutBinding(a_binding(pool, 2, 7), True),
        PutBinding(a_binding(other, 1, 9), True),
        PutBinding(over, True),
        PutBinding(a_binding(pool, 5, 11), True),
        PutBinding(a_binding(pool, 6, 12), True),
    )
    with any_store.transaction() as transaction:
        assert transaction.anchored_away(1) == [7, 8]
    with any_store.transaction() as transaction:
        assert transaction.anchored_away(3) == []


# --- the sender's side ---


def test_whoever_wrote_it_sends_it(store: SqlStore) -> None:
    store.sender = "here"
    written(store, PutNode(a_node(7, serving=3), True), put(7, 1))
    here, there = SqlOutbox(store, "here"), SqlOutbox(store, "there")
    assert there.claim(T0 + CLAIM - 1) == []
    assert there.look([(7, 1)])[1] == {}
    (owed,) = here.look([(7, 1), (7, 2)])[1].values()
    assert (owed.maar, owed.visit, owed.node.identities) == (1, True, (duid(7),))


def test_what_it_does_not_keep_another_one_takes_over(store: SqlStore) -> None:
    store.sender = "here"
    written(store, PutNode(a_node(7, serving=3), True), put(7, 1), put(7, 2, at=T0 + 1))
    here, there = SqlOutbox(store, "here"), SqlOutbox(store, "there")
    here.keep(T0 + MICROS)
    assert there.claim(T0 + CLAIM + MICROS - 1) == []
    assert there.claim(T0 + CLAIM + MICROS) == [(7, 1), (7, 2)]
    assert here.look([(7, 1)])[1] == {}
    assert set(there.look([(7, 1), (7, 2)])[1]) == {(7, 1), (7, 2)}
    # ...and who is started again under its name goes on at once, and takes it up once.
    now = T0 + CLAIM + 2 * MICROS
    again = SqlOutbox(store, "there")
    assert again.claim(now) == []
    assert again.claim(now, left_before=now) == [(7, 1), (7, 2)]
    assert again.claim(now + 1, left_before=now) == []


def test_what_nobody_was_named_for_is_there_at_once(store: SqlStore) -> None:
    written(store, PutNode(a_node(7, serving=3), True), put(7, 1))
    assert SqlOutbox(store, "any").claim(T0) == [(7, 1)]
    assert SqlOutbox(store, "other").claim(T0) == []


def test_only_what_was_sent_is_finished(store: SqlStore) -> None:
    store.sender = "here"
    written(store, PutNode(a_node(7, serving=3), True), put(7, 1))
    outbox = SqlOutbox(store, "here")
    before = outbox.look([(7, 1)])[1][7, 1].serial
    written(store, put(7, 1, at=T0 + 9))
    after = outbox.look([(7, 1)])[1][7, 1].serial
    assert after > before
    outbox.finish([((7, 1), before)])
    assert set(signals(store, 7)) == {(7, 1)}
    outbox.finish([((7, 1), after)])
    assert signals(store, 7) == {}
    written(store, put(7, 1))  # the clock was set back
    outbox.finish([((7, 1), after), ((7, 1), before)])
    assert set(signals(store, 7)) == {(7, 1)}, "a serial does not come again"


def test_who_has_acknowledged_to_whatever_sender(store: SqlStore) -> None:
    store.sender = "there"
    pool = the_pool(domain_of(store))
    ended = a_binding(the_pool(domain_of(store), 2), 2, 7)._replace(
        state=State.ENDED, ended_at=T0, reusable_at=T0
    )
    written(
        store,
        PutNode(a_node(7, serving=3), True),
        PutNode(a_node(8, serving=3), True),
        PutBinding(a_binding(pool, 1, 7), True),
        PutBinding(a_binding(pool, 2, 8), True),
        PutBinding(ended, True),
        put(8, 1),
    )
    here = SqlOutbox(store, "here")
    asked = [(7, 1), (7, 2), (8, 1), (9, 1)]
    assert here.heard(asked) == {(7, 1)}
    written(store, DropSignal(8, 1), put(7, 1, visit=False))
    assert here.heard(asked) == {(7, 1), (8, 1)}, "a longer lifetime is no news of where it is"


def test_what_a_pbu_is_made_of(store: SqlStore) -> None:
    store.sender = "here"
    pool = the_pool(domain_of(store))
    bindings = [a_binding(pool, slot, 7) for slot in (1, 2)]
    written(
        store,
        PutNode(a_node(7, serving=3), True),
        *(PutBinding(each, True) for each in bindings),
        put(7, 1),
    )
    domain, owed = SqlOutbox(store, "here").look([(7, 1)])
    assert set(domain.maars) == {1, 2, 3}
    assert sorted(owed[7, 1].bindings) == bindings
    assert owed[7, 1].node.serving == 3


def test_check_finds_what_is_owed_to_the_maar_where_the_node_is(store: SqlStore) -> None:
    written(store, PutNode(a_node(7, serving=3), True), put(7, 1))
    assert not [line for line in maintenance.check(store) if "signal" in line]
    written(store, put(7, 3))
    assert "signals: MAAR 3 is owed a signal about node 7, which is there" in maintenance.check(
        store
    )


def test_check_does_not_mind_what_is_left_of_another_mode(store: SqlStore) -> None:
    """Back in mode direct nobody reads what was owed, and the node may come to a MAAR that was owed something."""
    written(store, PutNode(a_node(7, serving=3), True), put(7, 1))
    moved = a_node(7, serving=1)._replace(previous=3, visit_since=T0 + MICROS)
    written(store, PutNode(moved, False))
    assert not [line for line in maintenance.check(store) if "signal" in line]


def test_prune_takes_signals_along(store: SqlStore) -> None:
    written(store, PutNode(a_node(7, serving=3), True), put(7, 1))
    assert prune(store, T0 + 1, T0 + 2, lambda _: None).nodes == 1
    with store.administration() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM signal").scalar() == 0
