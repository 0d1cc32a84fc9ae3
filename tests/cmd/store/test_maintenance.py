"""Check, backup, prune: and the store under the CMD's own messages, beside the store in memory."""

from __future__ import annotations

import re
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
from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.identity import Identity
from tests.cmd.core.world import Answer, Host, World, na, pd
from tests.cmd.store.domain import (
    ENGINES,
    T0,
    a_binding,
    a_node,
    duid,
    ended,
    event,
    handover,
    mac,
    opened,
    sqlite_store,
    the_pool,
    url_of,
)

DAY = 86_400 * MICROS


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with opened(request.param, tmp_path) as made:
        yield made


def written(store: SqlStore, *changes: Change) -> None:
    with store.transaction() as transaction:
        transaction.write(changes)
        transaction.commit()


def history(store: SqlStore) -> list[Event]:
    with store.administration() as connection:
        return [
            event_of(row)
            for row in connection.execute(
                select(*tables.columns(tables.history)).order_by(tables.history.c.id)
            )
        ]


def bindings(store: SqlStore) -> dict[bytes, Binding]:
    with store.administration() as connection:
        found = [
            binding_of(row) for row in connection.execute(select(*tables.columns(tables.binding)))
        ]
    return {binding.prefix.address: binding for binding in found}


def identities(store: SqlStore) -> dict[Identity, int]:
    with store.administration() as connection:
        rows = connection.execute(
            select(tables.node_identity).where(tables.node_identity.c.retired == 0)
        )
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
        ("UPDATE binding SET prefix_length = 63", "is not a unit of its pool"),
        ("UPDATE mobile_node SET idle = 1", "nodes: 1 has idle = 1, but holds something"),
        ("UPDATE mobile_node SET idle = 0", "nodes: 2 has idle = 0, but holds nothing"),
        (
            (
                "INSERT INTO binding SELECT [2001:db8:100:1::1], 128, 'address', 2, 1, anchor_id, NULL, state,"
                " assigned_at, preferred_until, valid_until, NULL, NULL, NULL, 0 FROM binding"
            ),
            "2001:db8:100:1::1/128 of node 2 lies in 2001:db8:100:1::/64 of node 1",
        ),
        (  # nobody could ever get it, and it is told to nobody
            (
                "UPDATE binding SET prefix = [2001:db8:100:9::1], prefix_length = 128, kind = 'address', iaid = 1,"
                " pool_id = NULL"
            ),
            "2001:db8:100:9::1/128 of node 1 lies in no prefix of it",
        ),
        (
            (
                "INSERT INTO binding SELECT [2001:db8:100:1::1], 128, 'address', 1, 1, anchor_id, NULL, state,"
                " assigned_at, preferred_until, valid_until, NULL, NULL, NULL, 0 FROM binding;"
                "UPDATE binding SET state = 'ended', ended_at = valid_until, reusable_at = valid_until"
                " WHERE kind = 'link'"
            ),
            "2001:db8:100:1::1/128 has not ended, but 2001:db8:100:1::/64 that it is in has",
        ),
        (
            "UPDATE pool SET prefix = [2001:db8:100::], prefix_length = 40",
            "overlaps 2001:db8:100::/",
        ),
    ],
)
def test_check_finds(store: SqlStore, sql: str, problem: str) -> None:
    a_life(store)
    with store.administration() as connection:
        connection.exec_driver_sql("DROP INDEX pool_prefix")
        for statement in sql.split(";"):
            connection.exec_driver_sql(spelt(store, statement))
    assert any(problem in line for line in maintenance.check(store))


def spelt(store: SqlStore, statement: str) -> str:
    """SQL as its engine spells it: an address in brackets, and what stands as text beside it."""
    if store.engine.dialect.name == "postgresql":
        return re.sub(r"\[(.*?)\]", r"inet '\1'", statement)
    columns = ", ".join(column.name for column in tables.columns(tables.binding))
    statement = statement.replace(
        "INSERT INTO binding SELECT ", f"INSERT INTO binding (prefix_text, {columns}) SELECT '', "
    )
    return re.sub(r"\[(.*?)\]", lambda at: f"x'{parse_address(at[1]).hex()}'", statement)


def test_check_finds_broken_references(store: SqlStore, tmp_path: Path) -> None:
    a_life(store)
    if store.engine.dialect.name == "sqlite":
        connection = sqlite3.connect(tmp_path / "cmd.sqlite")  # without foreign_keys=ON
        connection.execute("DELETE FROM mobile_node WHERE id = 2")
        connection.commit()
        connection.close()
    else:
        with store.administration() as plain:
            plain.exec_driver_sql("ALTER TABLE mobile_node DISABLE TRIGGER mobile_node_delete")
            plain.exec_driver_sql("DELETE FROM mobile_node WHERE id = 2")
    assert any("mobile_node" in line for line in maintenance.check(store))


# --- backup ---


def test_backup_is_one_moment_while_writing_goes_on(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
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
    store.close()


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


def two_lives(store: SqlStore, lives: int = 1) -> None:
    """Node 1 has a prefix; another one was node 2's so many times, and reclaimed each time."""
    a_life(store)
    with store.transaction() as transaction:
        two = a_binding(the_pool(transaction.domain()), 2, 2)
    for life in range(1, lives):
        for at, kind in enumerate((EventType.ASSIGNED, EventType.RELEASED, EventType.RECLAIMED)):
            written(store, Record(event(kind, two, T0 + life * 100 + at)))


def test_prune_lets_the_cmd_write_in_between(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the write lock for a few rows at a time, and at each moment the database is sound."""
    two_lives(store, lives=5)
    monkeypatch.setattr("dhcp_cmd.store.prune.CHUNK", 2)
    cmd = open_store(url_of(store, tmp_path), busy_timeout=0.0)
    left = [len(history(store))]

    def write(seconds: float) -> None:
        assert seconds > 0
        written(cmd, PutNode(a_node(100 + len(left))._replace(visit_since=T0 + DAY), True))
        assert maintenance.check(cmd) == []
        left.append(len(history(store)))
        with pytest.raises(StoreError, match="append-only"), cmd.administration() as connection:
            connection.exec_driver_sql("DELETE FROM history")

    assert prune(store, T0 + DAY, T0 + DAY, write) == Pruned(16, 1)
    assert left == [18, 16, 14, 12, 10, 8, 6, 4, 3, 2]
    assert maintenance.status(store)["pruned_before"] == T0 + DAY
    cmd.close()


def test_prune_leaves_a_node_that_comes_back_meanwhile(store: SqlStore) -> None:
    a_life(store)

    def attach(_seconds: float) -> None:
        if identities(store).get(duid(2)) == 2:
            node = a_node(2)._replace(visit_since=T0 + 2 * DAY)
            written(store, PutNode(node, False), Record(handover(2, 1, 2, T0 + 2 * DAY)))

    assert prune(store, T0 + DAY, T0 + DAY, attach) == Pruned(3, 0)
    assert [e.node for e in history(store) if e.type is EventType.HANDOVER] == [1, 2, 2]
    assert maintenance.check(store) == []


_REFUSING = {
    "sqlite": (
        (
            "CREATE TRIGGER no BEFORE DELETE ON history WHEN"
            " (SELECT max(events) FROM prune) >= {} BEGIN SELECT RAISE(ABORT, 'no'); END"
        ),
    ),
    "postgresql": (
        (
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF (SELECT max(events) FROM prune) >= {} THEN RAISE EXCEPTION 'no'; END IF; RETURN OLD; END $$"
        ),
        "CREATE TRIGGER no BEFORE DELETE ON history FOR EACH ROW EXECUTE FUNCTION no()",
    ),
}


@pytest.mark.parametrize("deletions", range(13))
def test_a_prune_that_breaks_off_leaves_a_sound_database(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    two_lives(store, lives=4)
    before = bindings(store)
    monkeypatch.setattr("dhcp_cmd.store.prune.CHUNK", 1)
    with store.administration() as connection:
        for statement in _REFUSING[store.engine.dialect.name]:
            connection.exec_driver_sql(statement.format(deletions))
    with pytest.raises(StoreError, match="no"):
        prune(store, T0 + DAY, T0 + DAY, lambda _: None)
    assert len(history(store)) == 15 - deletions
    assert maintenance.check(store) == []
    assert bindings(store) == before
    assert maintenance.status(store)["pruned_before"] == T0 + DAY
    with store.administration() as connection:
        sqlite = store.engine.dialect.name == "sqlite"
        connection.exec_driver_sql("DROP TRIGGER no" if sqlite else "DROP FUNCTION no CASCADE")
    assert prune(store, T0 + DAY, T0 + DAY, lambda _: None) == Pruned(13 - deletions, 1)
    assert [e.node for e in history(store)] == [1, 1]


def test_prune_goes_by_the_order_of_recording(store: SqlStore) -> None:
    """A clock that was set back: what was recorded after a newer event decides, and stays."""
    with store.transaction() as transaction:
        home = a_binding(the_pool(transaction.domain()), 1, 1)
    events = [
        event(EventType.ASSIGNED, home, T0),
        event(EventType.DEPRECATED, home, T0 + 1),
        event(EventType.ASSIGNED, home, T0 + 2 * DAY),
        # from here on the clock is a day late
        event(EventType.DEPRECATED, home, T0 + 2),
        event(EventType.ASSIGNED, home, T0 + 3),
    ]
    written(store, PutNode(a_node(1), True), PutBinding(home, True), *map(Record, events))
    assert prune(store, T0 + DAY, T0 + 3 * DAY) == Pruned(1, 0)
    assert history(store) == [events[0], *events[2:]]
    assert maintenance.check(store) == []


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


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS)
def test_sql_does_what_memory_does(engine: str, steps: list[list[_Message] | float]) -> None:
    with TemporaryDirectory() as folder, opened(engine, Path(folder), bits=2) as store:
        world = World(admin.read_domain(store))
        beside = Cmd(store, world.settings)
        for step in steps:
            if isinstance(step, list):
                batch = packets(world, step)
                in_memory = world.handle_all(batch)
                assert list(map(said, beside.handle(batch, lambda: world.now))) == list(
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
