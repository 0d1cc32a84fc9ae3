"""Two CMDs on one PostgreSQL, step by step: who waits, who collides, who sees what."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dhcp_cmd.core.model import (
    MICROS,
    DropBinding,
    DropNode,
    Lookup,
    PutBinding,
    PutNode,
)
from dhcp_cmd.core.ports import Collision
from dhcp_cmd.store import (
    SqlStore,
    admin,
)
from dhcp_cmd.store.prune import Pruned, prune
from dhcp_cmd.store.sql_postgresql import PostgresTransaction
from tests.cmd.store.domain import (
    T0,
    a_binding,
    a_node,
    duid,
    mac,
    the_pool,
)
from tests.cmd.store.on_postgresql import (
    DAY,
    a_new_node,
    empty,
    executed,
    nodes_in,
    other,
    pool,
    store,
    waits,
)

__all__ = ["empty", "other", "pool", "store"]

pytestmark = pytest.mark.needs("postgres")


# --- several at once ---


def test_the_second_waits_and_collides(
    store: SqlStore, other: SqlStore, pool: ThreadPoolExecutor
) -> None:
    """Two CMDs meet the same stranger, or give out the same prefix, at the same instant."""
    with store.transaction() as transaction:
        free = a_binding(the_pool(transaction.domain()), 1, 1)

    def second(*changes: PutNode | PutBinding) -> None:
        with other.transaction() as transaction:
            transaction.write(changes)
            transaction.commit()

    for changes in (
        [PutNode(a_node(8, mac(8), duid(1)), True)],
        [PutNode(a_node(8), True), PutBinding(free._replace(node=8), True)],
    ):
        with store.transaction() as transaction:
            transaction.write([PutNode(a_node(1), True), PutBinding(free, True)])
            waiting = pool.submit(second, *changes)
            waits(store)
            transaction.commit()
        with pytest.raises(Collision):
            waiting.result()
        assert nodes_in(store) == {1}
        with store.transaction() as transaction:
            transaction.write([DropBinding(free.prefix, 1), DropNode(1)])
            transaction.commit()
        executed(store, "DELETE FROM node_identity")
        executed(store, "DELETE FROM mobile_node")


def test_the_first_rolls_back_and_the_second_gets_it(
    store: SqlStore, other: SqlStore, pool: ThreadPoolExecutor
) -> None:
    with store.transaction() as transaction:
        transaction.write([PutNode(a_node(1), True)])
        waiting = pool.submit(a_new_node, other, 1)
        waits(store)
    waiting.result()
    assert nodes_in(store) == {1}


def test_what_is_read_of_a_node_is_as_the_last_one_left_it(
    store: SqlStore, other: SqlStore, pool: ThreadPoolExecutor
) -> None:
    """Who waited for a node's lock sees its new visit, identities and bindings, not those of when it began to wait."""
    a_new_node(store, 1)

    def second() -> tuple[int, set[object], int]:
        with other.transaction() as transaction:
            found = transaction.read([Lookup((duid(1),), ())])
            return found.nodes[duid(1)].generation, set(found.nodes), len(found.bindings[1])

    with store.transaction() as transaction:
        domain = transaction.domain()
        node = transaction.read([Lookup((duid(1),), ())]).nodes[duid(1)]
        waiting = pool.submit(second)
        waits(store)
        moved = node._replace(generation=node.generation + 1, identities=(duid(1), mac(1)))
        transaction.write(
            [PutNode(moved, False), PutBinding(a_binding(the_pool(domain, 2), 0, 1), True)]
        )
        transaction.commit()
    assert waiting.result() == (node.generation + 1, {duid(1), mac(1)}, 2)


def test_who_waited_for_a_node_that_is_another_now_collides(
    store: SqlStore, other: SqlStore, pool: ThreadPoolExecutor
) -> None:
    """A merge moved the identity to a node that was not locked: read again, in the right order."""
    a_new_node(store, 1)
    a_new_node(store, 2)

    def second() -> None:
        with other.transaction() as transaction:
            transaction.read([Lookup((duid(2),), ())])

    with store.transaction() as transaction:
        found = transaction.read([Lookup((duid(1), duid(2)), ())])
        waiting = pool.submit(second)
        waits(store)
        (held,) = found.bindings[2].values()
        both = found.nodes[duid(1)]._replace(identities=(duid(1), duid(2)))
        transaction.write(
            [PutBinding(held._replace(node=1), False), DropNode(2), PutNode(both, False)]
        )
        transaction.commit()
    with pytest.raises(Collision, match="another node's"):
        waiting.result()
    with other.transaction() as transaction:
        assert set(transaction.read([Lookup((duid(2),), ())]).bindings) == {1}


def test_a_deadlock_is_a_collision(
    store: SqlStore, other: SqlStore, pool: ThreadPoolExecutor
) -> None:
    """It cannot come from the CMDs' own reads and inserts, which go in one order; another program's may make one."""
    a_new_node(store, 1)
    a_new_node(store, 2)
    gates = [threading.Event(), threading.Event()]

    def cross(which: SqlStore, first: int, second: int, mine: int) -> None:
        with which.transaction() as transaction:
            transaction.read([Lookup((duid(first),), ())])
            gates[mine].set()
            gates[1 - mine].wait()
            transaction.read([Lookup((duid(second),), ())])

    waiting = [pool.submit(cross, store, 1, 2, 0), pool.submit(cross, other, 2, 1, 1)]
    errors = [each.exception() for each in waiting]
    assert sorted(type(error).__name__ for error in errors) == ["Collision", "NoneType"]


def test_the_reaper_leaves_a_node_that_somebody_is_about(store: SqlStore, other: SqlStore) -> None:
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
        both = [a_binding(pool, number, number) for number in (1, 2)]
        transaction.write(
            [
                *(PutNode(a_node(number), True) for number in (1, 2, 3)),
                *(PutBinding(each, True) for each in both),
            ]
        )
        transaction.commit()
    late = both[0].valid_until
    with store.transaction() as transaction:
        transaction.read([Lookup((duid(1), duid(3)), ())])
        with other.transaction() as reaper:
            assert reaper.due(late, 10) == [both[1]]
            assert reaper.idle(late, 10) == []
    with other.transaction() as reaper:
        assert reaper.due(late, 10) == both
        assert reaper.due(late, 1) == both[:1]
        assert reaper.idle(late, 10) == [3]


@pytest.mark.interpreted
def test_the_reaper_sees_what_was_renewed_before_it_had_the_lock(
    store: SqlStore, other: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_new_node(store, 1)
    lock = PostgresTransaction._lock_idle

    def renewed(reaper: PostgresTransaction, nodes: Iterable[int]) -> set[int]:
        with other.transaction() as transaction:
            (held,) = transaction.read([Lookup((duid(1),), ())]).bindings[1].values()
            transaction.write([PutBinding(held._replace(valid_until=T0 + DAY), False)])
            transaction.commit()
        return lock(reaper, nodes)

    monkeypatch.setattr(PostgresTransaction, "_lock_idle", renewed)
    with store.transaction() as reaper:
        assert reaper.due(T0 + 3600 * MICROS, 10) == []


def test_prune_leaves_a_node_that_somebody_is_about(store: SqlStore, other: SqlStore) -> None:
    with store.transaction() as transaction:
        transaction.write([PutNode(a_node(1), True), PutNode(a_node(2), True)])
        transaction.commit()
    with store.transaction() as transaction:
        transaction.read([Lookup((duid(1),), ())])
        assert prune(other, T0 + 1, T0 + 2, lambda _: None) == Pruned(0, 1)
    assert nodes_in(store) == {1}


# --- the domain ---


def test_the_domain_does_not_change_under_a_transaction(
    store: SqlStore, other: SqlStore, pool: ThreadPoolExecutor
) -> None:
    with store.transaction() as transaction:
        before = transaction.domain()
        removing = pool.submit(admin.remove_maar, other, "maar3", T0)
        waits(store)
        assert transaction.domain() is before
        # Who comes after the change waits for it, and then sees it.
        late = pool.submit(lambda: _domain_version(other))
        waits(store, 2)
        transaction.write([PutNode(a_node(1, serving=3), True)])
        transaction.commit()
    assert removing.result() == 0
    assert late.result() > before.version
    with store.transaction() as transaction:  # what was written meanwhile was seen by the removal
        assert transaction.read([Lookup((duid(1),), ())]).nodes[duid(1)].serving is None
        assert len(transaction.domain().maars) == 2


def _domain_version(store: SqlStore) -> int:
    with store.transaction() as transaction:
        return transaction.domain().version


def test_a_change_by_hand_waits_too(
    store: SqlStore, other: SqlStore, pool: ThreadPoolExecutor
) -> None:
    def by_hand() -> None:
        driver = other.engine.raw_connection()
        try:
            driver.cursor().execute("UPDATE pool SET valid = 7200")
        finally:
            driver.close()

    with store.transaction() as transaction:
        version = transaction.domain().version
        waiting: Future[None] = pool.submit(by_hand)
        waits(store)
    waiting.result()
    assert _domain_version(store) == version + 1
