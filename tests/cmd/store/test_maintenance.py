"""Check, backup, prune: and the store under the CMD's own messages, beside the store in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dhcp_cmd.core.model import (
    MICROS,
    Binding,
    BindingRequest,
    Change,
    Decision,
    DropBinding,
    DropNode,
    Event,
    EventType,
    PutBinding,
    PutNode,
    Record,
    State,
)
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, admin, maintenance, open_store, tables
from dhcp_cmd.store.prune import Pruned, prune
from dhcp_cmd.store.rows import binding_of, event_of
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.identity import Identity
from tests.cmd.core.world import Answer, Host, World, na, pd
from tests.cmd.store.domain import (
    T0,
    a_binding,
    a_node,
    duid,
    ended,
    event,
    handover,
    mac,
    sqlite_store,
    the_pool,
)

DAY = 86_400 * MICROS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = sqlite_store(tmp_path)
    yield made
    made.close()


def written(store: SqlStore, *changes: Change) -> None:
    with store.transaction() as transaction:
        transaction.write(changes)
        transaction.commit()


def history(store: SqlStore) -> list[Event]:
    with store.administration() as connection:
        return [
            event_of(row)
            for row in connection.execute(select(tables.history).order_by(tables.history.c.id))
        ]


def bindings(store: SqlStore) -> dict[bytes, Binding]:
    with store.administration() as connection:
        found = [binding_of(row) for row in connection.execute(select(tables.binding))]
    return {binding.prefix.address: binding for binding in found}


def identities(store: SqlStore) -> dict[Identity, int]:
    with store.administration() as connection:
        rows = connection.execute(select(tables.node_identity))
        return {Identity(row.subtype, row.value): row.node_id for row in rows}


# --- check ---


def a_life(store: SqlStore) -> None:
    """Node 1 has a prefix; node 2 had one, which is reclaimed."""
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
    one, two = a_binding(pool, 1, 1), a_binding(pool, 2, 2)
    over = ended(two, T0 + 10, T0 + 20)
    written(
        store,
        PutNode(a_node(1), True),
        PutNode(a_node(2), True),
        PutBinding(one, True),
        PutBinding(two, True),
        Record(handover(1, None, 1)),
        Record(handover(2, None, 1)),
        Record(event(EventType.ASSIGNED, one)),
        Record(event(EventType.ASSIGNED, two)),
    )
    written(store, PutBinding(over, False), Record(event(EventType.RELEASED, over, T0 + 10)))
    written(store, DropBinding(two.prefix, 2), Record(event(EventType.RECLAIMED, over, T0 + 20)))


def test_a_sound_database(store: SqlStore) -> None:
    a_life(store)
    assert maintenance.check(store) == []


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("UPDATE binding SET state = 'deprecated'", "replay: 2001:db8:100:1::/64 is"),
        ("DELETE FROM binding", "but it has no row"),
        ("UPDATE binding SET prefix_text = '::/64'", "is written as ::/64"),
        ("UPDATE binding SET slot = 5", "is not slot 5 of pool"),
        (
            (
                "INSERT INTO binding"
                " SELECT x'20010db8010000010000000000000001', 128, '2001:db8:100:1::1/128',"
                " x'20010db8010000010000000000000001', 'address', 2, 1, anchor_id, NULL, NULL, state, assigned_at,"
                " preferred_until, valid_until, NULL, NULL, NULL FROM binding"
            ),
            "2001:db8:100:1::1/128 of node 2 lies in 2001:db8:100:1::/64 of node 1",
        ),
        (
            "UPDATE pool SET prefix = x'20010db8010000000000000000000000', prefix_length = 40",
            "overlaps 2001:db8:100::/",
        ),
    ],
)
def test_check_finds(store: SqlStore, tmp_path: Path, sql: str, problem: str) -> None:
    a_life(store)
    with store.administration() as connection:
        connection.exec_driver_sql("DROP INDEX pool_prefix")
        connection.exec_driver_sql(sql)
    assert any(problem in line for line in maintenance.check(store))


def test_check_finds_broken_references(store: SqlStore, tmp_path: Path) -> None:
    a_life(store)
    connection = sqlite3.connect(tmp_path / "cmd.sqlite")  # without foreign_keys=ON
    connection.execute("DELETE FROM mobile_node WHERE id = 2")
    connection.commit()
    connection.close()
    assert any("mobile_node" in line for line in maintenance.check(store))


# --- backup ---


def test_backup_is_one_moment_while_writing_goes_on(store: SqlStore, tmp_path: Path) -> None:
    a_life(store)
    copy = tmp_path / "copy.sqlite"
    with store.transaction() as transaction:  # a writer in the middle of it
        transaction.write([PutNode(a_node(3), True)])
        assert maintenance.backup(store, copy) == copy.stat().st_size
    assert copy.stat().st_mode & 0o007 == 0
    assert not list(tmp_path.glob("copy.sqlite-*"))
    restored = open_store(str(copy))
    assert maintenance.check(restored) == []
    assert bindings(restored) == bindings(store)
    assert history(restored) == history(store)
    restored.close()
    with pytest.raises(StoreError, match="exists"):
        maintenance.backup(store, copy)


# --- prune ---


def test_prune_forgets_what_is_over_and_who(store: SqlStore) -> None:
    a_life(store)
    before = bindings(store)
    assert prune(store, T0 + 20, T0 + DAY) == Pruned(1, 0)  # not reclaimed yet: its end stays
    assert maintenance.check(store) == []
    assert prune(store, T0 + 21, T0 + DAY) == Pruned(3, 1)
    assert bindings(store) == before
    assert [(e.type, e.node) for e in history(store)] == [
        (EventType.HANDOVER, 1),
        (EventType.ASSIGNED, 1),
    ]
    assert identities(store) == {duid(1): 1}
    assert maintenance.check(store) == []
    assert maintenance.status(store)["pruned_before"] == T0 + 21


def test_prune_keeps_how_things_stood_at_the_limit(store: SqlStore) -> None:
    """Of a commuter's year its first assignment and its last state stay."""
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
    home = a_binding(pool, 1, 1)
    events: list[Event] = []
    for day in range(5):
        events += [
            handover(1, 2, 1, T0 + day * DAY),
            event(EventType.ASSIGNED, home, T0 + day * DAY),
            handover(1, 1, 2, T0 + day * DAY + 1),
            event(EventType.DEPRECATED, home, T0 + day * DAY + 1),
        ]
    away = a_binding(pool, 1, 1, state=State.DEPRECATED)
    written(store, PutNode(a_node(1), True), PutBinding(away, True), *map(Record, events))
    assert prune(store, T0 + 3 * DAY, T0 + 5 * DAY) == Pruned(9, 0)
    assert history(store) == [events[1], *events[10:]]
    assert maintenance.check(store) == []


def test_prune_forgets_merged_nodes_with_the_last_of_them(store: SqlStore) -> None:
    written(
        store,
        PutNode(a_node(8, mac(8)), True),
        Record(handover(8, None, 1)),
        PutNode(a_node(7), True),
        Record(handover(7, None, 1, T0 + 1)),
    )
    written(store, DropNode(8), PutNode(a_node(7, duid(7), mac(8)), False))
    assert prune(store, T0, T0 + DAY) == Pruned(0, 0)
    assert prune(store, T0 + DAY, T0 + DAY) == Pruned(2, 2)
    assert history(store) == []
    with store.administration() as connection:
        assert connection.execute(select(tables.mobile_node)).all() == []


def test_a_failed_prune_leaves_all(store: SqlStore) -> None:
    a_life(store)
    with store.administration() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER no BEFORE DELETE ON mobile_node BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
    before = history(store)
    with pytest.raises(StoreError, match="no"):
        prune(store, T0 + DAY, T0 + DAY)
    assert history(store) == before
    assert maintenance.status(store)["pruned_before"] is None
    with pytest.raises(StoreError, match="append-only"), store.administration() as connection:
        connection.exec_driver_sql("DELETE FROM history")


# --- the same messages, in memory and in SQL ---

M = MessageType
_MESSAGES = st.tuples(
    st.integers(1, 4),  # host
    st.integers(1, 3),  # MAAR
    st.sampled_from([M.SOLICIT, M.REQUEST, M.RENEW, M.REBIND, M.RELEASE, M.DECLINE]),
    st.sampled_from(["na", "pd", "both"]),
    st.booleans(),  # rapid commit
    st.booleans(),  # with the link-layer address
)
_STEPS = st.lists(
    st.one_of(
        st.lists(_MESSAGES, min_size=1, max_size=4),  # a batch
        st.sampled_from(
            [1.0, 900.0, 3601.0, 9000.0, 90_000.0]
        ),  # time passes, and the reaper comes
    ),
    min_size=1,
    max_size=20,
)
_Message = tuple[int, int, MessageType, str, bool, bool]


def said(decision: Decision) -> tuple[object, ...]:
    """What a decision says, whatever the order in which the rows were read."""
    answer = None
    if decision.reply is not None:
        answer = {**vars(Answer(decision)), "options": None}
    return decision.outcome, decision.level, frozenset(decision.relay), answer


def packets(world: World, batch: list[_Message]) -> list[BindingRequest]:
    """The messages of a batch; those that name leases name all there are, also others' ones."""
    requests = []
    for number, maar, kind, asked, rapid, with_mac in batch:
        names = kind in (M.RELEASE, M.DECLINE, M.RENEW)
        held = [b.prefix for b in world.store.bindings.values() if names and b.iaid == 1]
        ias = []
        if asked != "pd":
            ias.append(na(1, *(each.address for each in held if each.length == 128)))
        if asked != "na":
            ias.append(pd(1, *(each for each in held if each.length == 60)))
        host = Host(number)
        requests.append(world.packet(host, maar, kind, *ias, rapid=rapid, mac=with_mac))
    return requests


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS)
def test_sql_does_what_memory_does(steps: list[list[_Message] | float]) -> None:
    with TemporaryDirectory() as folder:
        store = sqlite_store(Path(folder), bits=2)
        world = World(admin.read_domain(store))
        beside = Cmd(store, world.settings)
        for step in steps:
            if isinstance(step, list):
                batch = packets(world, step)
                in_memory = world.cmd.handle(batch, world.now)
                assert list(map(said, beside.handle(batch, world.now))) == list(
                    map(said, in_memory)
                )
            else:
                world.later(step)
                assert beside.reap(world.now, 1000) == world.cmd.reap(world.now, 1000)
            assert bindings(store) == world.store.bindings
            assert identities(store) == world.store.tables.identities
        assert sorted(map(repr, history(store))) == sorted(map(repr, world.store.history))
        assert maintenance.check(store) == []
        for hours in (30, 2, 0):
            prune(store, world.now - hours * 3600 * MICROS, world.now)
            assert maintenance.check(store) == []
            assert bindings(store) == world.store.bindings
        store.close()
