"""What SQLite has to do beside the contract: durability, errors, writers at the same time, the schema's own rules."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.engine.interfaces import DBAPIConnection

from dhcp_cmd.core.model import (
    MICROS,
    DropBinding,
    EventType,
    Lookup,
    Need,
    PutBinding,
    PutNode,
    Record,
    State,
)
from dhcp_cmd.core.ports import Collision, StoreError
from dhcp_cmd.store import (
    SCHEMA_VERSION,
    SchemaMismatch,
    SqlStore,
    admin,
    create_database,
    maintenance,
    open_store,
    tables,
    upgrade,
)
from dhcp_cmd.store.migrate import schema_files
from dhcp_cmd.store.sqlite import statements
from dmm_wire.address import Prefix
from tests.cmd.store.domain import T0, a_binding, a_node, duid, event, sqlite_store, the_pool


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = sqlite_store(tmp_path, busy_timeout=0.05)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cmd.sqlite"


def a_new_node(store: SqlStore, number: int) -> None:
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
        binding = a_binding(pool, number, number)
        transaction.write(
            [
                PutNode(a_node(number), True),
                PutBinding(binding, True),
                Record(event(EventType.ASSIGNED, binding)),
            ]
        )
        transaction.commit()


def nodes_in(file: Path) -> set[int]:
    with sqlite3.connect(file) as connection:
        found = {row[0] for row in connection.execute("SELECT id FROM mobile_node")}
    connection.close()
    return found


# --- durability ---

_WRITER = """
import sys
from dhcp_cmd.store import open_store
from tests.cmd.store.test_sqlite import a_new_node
store = open_store(sys.argv[1])
for number in range(1, 9):
    a_new_node(store, number)
    print(number, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("last", [1, 5])
def test_what_was_committed_survives_kill_9(store: SqlStore, file: Path, last: int) -> None:
    command = [sys.executable, "-c", _WRITER, str(file)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for number in range(1, last + 1):
            assert writer.stdout.readline() == f"{number}\n"
            assert nodes_in(file) == set(range(1, number + 1))
            if number < last:
                writer.stdin.write("\n")
                writer.stdin.flush()
        os.kill(writer.pid, signal.SIGKILL)
    assert nodes_in(file) == set(range(1, last + 1))
    a_new_node(store, last + 1)


def test_each_connection_is_set_up(store: SqlStore) -> None:
    with store.administration() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 50,
    }


# --- the database does not do it ---


def test_a_locked_database_is_a_store_error(store: SqlStore, file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        a_new_node(store, 1)
    other.execute("ROLLBACK")
    other.close()
    assert nodes_in(file) == set()
    a_new_node(store, 1)


def test_a_full_disk_is_a_store_error_and_nothing_is_written(store: SqlStore, file: Path) -> None:
    @sqlalchemy_event.listens_for(store.engine, "connect")
    def _limit(connection: DBAPIConnection, _record: object) -> None:
        connection.cursor().execute("PRAGMA max_page_count=1")  # no page more than there are

    store.close()
    with store.transaction() as transaction:
        transaction.domain()
        with pytest.raises(StoreError, match="full"):
            transaction.write([PutNode(a_node(number), True) for number in range(1, 5_000)])
        with pytest.raises(StoreError):
            transaction.commit()
    assert nodes_in(file) == set()
    other = open_store(str(file))
    a_new_node(other, 1)
    other.close()


_ON_A_FULL_DISK = """
import resource, signal, sys
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store import open_store
from tests.cmd.store.test_sqlite import a_new_node
store = open_store(sys.argv[1])
a_new_node(store, 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    a_new_node(store, 2)
except StoreError as error:
    print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
a_new_node(store, 3)
store.close()
"""


def test_a_write_that_the_system_refuses_is_a_store_error(store: SqlStore, file: Path) -> None:
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", _ON_A_FULL_DISK, str(file)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "refused\n"
    assert nodes_in(file) == {1, 3}


def test_a_missing_database_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open"):
        open_store(str(tmp_path / "typo.sqlite"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "nonsense://"])
def test_a_url_that_is_none_of_ours(url: str) -> None:
    with pytest.raises(StoreError):
        open_store(url)


def test_a_failed_transaction_cannot_be_committed(store: SqlStore, file: Path) -> None:
    a_new_node(store, 1)
    with store.transaction() as transaction:
        with pytest.raises(Collision):
            transaction.write([PutNode(a_node(2), True), PutNode(a_node(3, duid(1)), True)])
        with pytest.raises(StoreError):
            transaction.commit()
    assert nodes_in(file) == {1}


# --- several at once ---


def test_two_writers_take_turns(file: Path, tmp_path: Path) -> None:
    sqlite_store(tmp_path, bits=8).close()
    failures: list[BaseException] = []

    def work(first: int) -> None:
        store = open_store(str(file), busy_timeout=30)
        try:
            for number in range(first, first + 40):
                a_new_node(store, number)
        except BaseException as error:
            failures.append(error)
        finally:
            store.close()

    writers = [threading.Thread(target=work, args=(first,)) for first in (1, 101)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert nodes_in(file) == {*range(1, 41), *range(101, 141)}


def test_the_second_writer_collides(store: SqlStore, file: Path) -> None:
    other = open_store(str(file))
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
        assert transaction.read([Lookup((), (pool.unit(1).address,))]).taken == {}
    a_new_node(other, 1)
    with store.transaction() as transaction, pytest.raises(Collision):
        transaction.write([PutNode(a_node(2), True), PutBinding(a_binding(pool, 1, 2), True)])
    other.close()


def test_a_change_of_the_domain_is_seen(store: SqlStore, file: Path) -> None:
    other = open_store(str(file))
    with store.transaction() as transaction:
        before = transaction.domain()
    with store.transaction() as transaction:
        assert transaction.domain() is before
    admin.remove_maar(other, "maar3", T0)
    with store.transaction() as transaction:
        after = transaction.domain()
    assert after.version > before.version
    assert len(after.maars) == 2
    other.close()


def test_a_gap_is_not_what_the_batch_took(store: SqlStore) -> None:
    with store.transaction() as transaction:
        snapshot = transaction.read([])
        pool = the_pool(snapshot.domain)
        for slot in (0, 1):  # as core.apply does
            snapshot.bindings[7] = snapshot.bindings.get(7, {})
            snapshot.bindings[7][pool.unit(slot).address] = a_binding(pool, slot, 7)
        transaction.supply(snapshot, Need(gaps=((pool.id, 0), (pool.id, 7))))
    assert snapshot.gaps == {(pool.id, 0): pool.unit(2), (pool.id, 7): pool.unit(7)}


def test_a_full_pool_is_walked_once(store: SqlStore) -> None:
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
        slots = [PutBinding(a_binding(pool, slot, 1), True) for slot in range(pool.size)]
        transaction.write([PutNode(a_node(1), True), *slots])
        snapshot = transaction.read([])
        transaction.supply(snapshot, Need(gaps=((pool.id, 0),)))
        assert snapshot.gaps == {(pool.id, 0): None}
    assert store.full_pools == {}  # it was rolled back
    with store.transaction() as transaction:
        transaction.write([PutNode(a_node(1), True), *slots])
        transaction.commit()
    walks: list[str] = []

    @sqlalchemy_event.listens_for(store.engine, "before_cursor_execute")
    def _count(_connection: object, _cursor: object, sql: str, *_rest: object) -> None:
        if "ORDER BY binding.prefix" in sql:
            walks.append(sql)

    def gap(start: int) -> Prefix | None:
        with store.transaction() as transaction:
            snapshot = transaction.read([])
            transaction.supply(snapshot, Need(gaps=((pool.id, start),)))
            return snapshot.gaps[pool.id, start]

    assert gap(0) is None
    walked = len(walks)
    assert walked > 0
    assert [gap(3), gap(5)] == [None, None]
    assert len(walks) == walked
    with store.transaction() as transaction:
        transaction.write([DropBinding(pool.unit(4), 1)])
        transaction.commit()
    assert gap(5) == pool.unit(4)


def test_due_knows_the_limit_of_anchoring(store: SqlStore) -> None:
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
        away = a_binding(pool, 0, 1, state=State.DEPRECATED, hold_until=T0 + 5)
        transaction.write([PutNode(a_node(1), True), PutBinding(away, True)])
        assert transaction.due(T0 + 4, 9) == []
        assert transaction.due(T0 + 5, 9) == [away]
        assert transaction.due(T0 + 7200 * MICROS, 9) == [away]


def test_check_finds_what_is_written_wrong(store: SqlStore) -> None:
    a_new_node(store, 1)
    with store.administration() as connection:
        connection.exec_driver_sql("UPDATE binding SET prefix_text = '::/64'")
    assert "bindings: 2001:db8:100:1::/64 is written as ::/64" in maintenance.check(store)


# --- the schema ---


def columns(file: Path, table: str) -> list[str]:
    connection = sqlite3.connect(file)
    found = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    connection.close()
    return found


def test_the_migrations_make_what_the_program_expects(store: SqlStore, file: Path) -> None:
    for table in tables.metadata.tables.values():
        assert columns(file, table.name) == [column.name for column in table.columns]


def test_the_schema_version_is_the_newest_migration(tmp_path: Path) -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(schema_files() / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_VERSION


def test_upgrade_from_nothing_and_again(file: Path) -> None:
    sqlite3.connect(file).close()
    assert upgrade(str(file)) == (None, SCHEMA_VERSION)
    assert upgrade(f"sqlite:///{file}") == (SCHEMA_VERSION, SCHEMA_VERSION)
    open_store(str(file)).close()


def test_each_database_has_a_key_of_its_own(tmp_path: Path) -> None:
    keys = set()
    for number in (1, 2):
        (folder := tmp_path / str(number)).mkdir()
        store = open_store(str(folder / "cmd.sqlite"), create=True)
        keys.add(admin.read_domain(store).hash_key)
        store.close()
    assert len(keys) == 2


def test_the_file_is_not_for_everybody(file: Path) -> None:
    store = open_store(str(file), create=True)
    with store.administration() as connection:
        connection.exec_driver_sql("UPDATE domain SET version = 2")
    files = list(file.parent.glob("cmd.sqlite*"))
    assert len(files) == 3  # with the write-ahead log and its index
    assert all(each.stat().st_mode & 0o007 == 0 for each in files)
    store.close()


def test_an_existing_file_is_not_overwritten(store: SqlStore, file: Path) -> None:
    with pytest.raises(StoreError, match="exists"):
        create_database(str(file))


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE alembic_version SET version_num = '0000'", "run `dhcp-cmd db upgrade`"),
        ("UPDATE alembic_version SET version_num = '9999'", "newer than this program"),
        ("DELETE FROM alembic_version", "not a mobility database"),
        ("DROP TABLE alembic_version", "not a mobility database"),
    ],
)
def test_another_schema_version_is_refused(
    store: SqlStore, file: Path, sql: str, message: str
) -> None:
    store.close()
    connection = sqlite3.connect(file)
    connection.execute(sql)
    connection.commit()
    connection.close()
    with pytest.raises(SchemaMismatch, match=message) as raised:
        open_store(str(file))
    assert "\n" not in str(raised.value)


def test_upgrade_leaves_other_databases_alone(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(SchemaMismatch, match="holds tables"):
        upgrade(str(file))
    assert columns(file, "binding") == []


def test_a_failed_migration_leaves_nothing(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(script: str) -> Iterator[str]:
        yield from statements(script)
        yield "CREATE TABLE binding (twice)"

    monkeypatch.setattr("dhcp_cmd.store.sqlite.statements", broken)
    sqlite3.connect(file).close()
    with pytest.raises(StoreError, match="already exists"):
        upgrade(str(file))
    assert columns(file, "binding") == []


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE history SET cause = 'x'", "append-only"),
        ("DELETE FROM history", "append-only"),
        ("DELETE FROM prune", "on record"),
        ("UPDATE binding SET state = 'ended'", "CHECK"),
        ("UPDATE binding SET state = 'asleep'", "CHECK"),
        ("UPDATE binding SET prefix = x'00'", "CHECK"),
        ("UPDATE binding SET node_id = 99", "FOREIGN KEY"),
        ("UPDATE binding SET valid_until = 'tomorrow'", "TEXT value in INTEGER"),
        ("DELETE FROM mobile_node", "FOREIGN KEY"),
        ("DELETE FROM maar", "FOREIGN KEY"),
        ("UPDATE pool SET unit_length = 32", "CHECK"),
    ],
)
def test_the_database_itself_refuses(store: SqlStore, sql: str, message: str) -> None:
    a_new_node(store, 1)
    with store.administration() as connection:
        connection.exec_driver_sql(
            "INSERT INTO prune (before, started_at, finished_at) VALUES (1, 1, 1)"
        )
    with pytest.raises(StoreError, match=message), store.administration() as connection:
        connection.exec_driver_sql(sql)


def test_a_trigger_is_one_statement() -> None:
    script = "-- a; comment\nCREATE TABLE a (b);\nCREATE TRIGGER c AFTER INSERT ON a BEGIN\n DELETE FROM a;\nEND;\n"
    assert [each.split()[-1] for each in statements(script)] == ["(b);", "END;"]
    with pytest.raises(ValueError, match="inside"):
        list(statements("SELECT 1;\nSELECT"))


# --- every statement of the hot path goes by an index ---


class Explaining:
    """A driver's connection that explains each statement before it runs it."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self.driver = driver
        self.plans: list[str] = []

    def explain(self, sql: str, values: Any) -> None:
        if (
            sql.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH"))
            and "FROM domain" not in sql
        ):
            found = self.driver.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            self.plans.extend(f"{row[3]}  <-  {' '.join(sql.split())}" for row in found)

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        self.explain(sql, values)
        return self.driver.execute(sql, values)

    def executemany(self, sql: str, rows: Any) -> sqlite3.Cursor:
        self.explain(sql, rows[0])
        return self.driver.executemany(sql, rows)


def plans_of(store: SqlStore) -> list[str]:
    """The query plans of all that a batch runs."""
    with store.transaction() as transaction:
        transaction.domain()  # its few rows are read when its version moved
    with store.transaction() as transaction:
        explaining = Explaining(transaction._driver)
        transaction._driver = explaining

        @sqlalchemy_event.listens_for(store.engine, "before_cursor_execute")
        def _explain(_connection: object, _cursor: object, sql: str, values: Any, *_: Any) -> None:
            explaining.explain(sql, values)

        pool = the_pool(transaction.domain())
        one = a_binding(pool, 1, 1)
        transaction.write(
            [PutNode(a_node(1), True), PutNode(a_node(2), True), PutBinding(one, True)]
        )
        snapshot = transaction.read([Lookup((duid(1), duid(2)), (pool.unit(3).address,))])
        transaction.supply(snapshot, Need(((1, pool.id, None),), ((pool.id, 1),)))
        transaction.due(T0, 10)
        transaction.write([PutNode(a_node(1), False), PutBinding(one, False)])
    return explaining.plans


def test_the_hot_path_scans_nothing(store: SqlStore) -> None:
    plans = plans_of(store)
    assert len(plans) > 10
    scans = [plan for plan in plans if plan.startswith("SCAN") and "CONSTANT ROW" not in plan]
    assert [plan for plan in scans if not plan.startswith("SCAN asked")] == []  # the questions
    for index in (
        "binding_expiring",
        "binding_held",
        "binding_reusable",
        "history_node",
    ):
        assert any(index in plan for plan in plans), index
    for key in ("(prefix>? AND prefix<?)", "(prefix=?)", "(node_id=?)", "(node_id=? AND prefix=?)"):
        assert any("binding USING" in plan and f"{key}  <-" in plan for plan in plans), key
