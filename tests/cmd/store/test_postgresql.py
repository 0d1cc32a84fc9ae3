"""What PostgreSQL has to do beside the contract: errors, a server that goes and comes back, the schema's own rules."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import Connection

from dhcp_cmd.core.model import (
    DropBinding,
    DropIdentity,
    DropNode,
    EventType,
    Lookup,
    Need,
    PutBinding,
    PutNode,
    Record,
)
from dhcp_cmd.core.ports import Collision, StoreError
from dhcp_cmd.store import (
    SCHEMA_VERSION,
    SchemaMismatch,
    SqlStore,
    admin,
    maintenance,
    open_store,
    parse_url,
    tables,
    upgrade,
)
from dhcp_cmd.store.engine import make_engine, reading
from dhcp_cmd.store.sql_postgresql import PostgresStore
from lab import postgres
from tests.cmd.store import databases
from tests.cmd.store.domain import (
    T0,
    a_binding,
    a_node,
    duid,
    ended,
    event,
    mac,
    the_pool,
    url_of,
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
)

__all__ = ["empty", "other", "pool", "store"]

pytestmark = pytest.mark.needs("postgres")


# --- how it is named and opened ---


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg2://host/cmd", "the driver is psycopg"),
        ("postgresql+asyncpg://host/cmd", "the driver is psycopg"),
        ("postgresql://host", "names no database"),
        ("postgresql+psycopg://host:port/cmd", "is not a database URL"),
    ],
)
def test_a_url_that_cannot_be(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as raised:
        open_store(url)
    assert "\n" not in str(raised.value)


def test_the_driver_need_not_be_named() -> None:
    assert parse_url("postgresql:///cmd").drivername == "postgresql+psycopg"


def test_no_password_is_told(empty: str) -> None:
    url = empty.replace("///", "//me:secret@/") + "&connect_timeout=1"
    for wrong in (url, url.replace("test_", "none_")):
        with pytest.raises(StoreError) as raised:
            open_store(wrong)
        assert "secret" not in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_missing_database_is_not_made() -> None:
    with pytest.raises(StoreError, match='database "typo" does not exist'):
        open_store(databases.server().url("typo"))


def test_each_transaction_is_set_up(store: SqlStore, other: SqlStore) -> None:
    names = ("synchronous_commit", "transaction_isolation", "lock_timeout", "application_name")
    with store.administration() as connection:
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
    assert shown == ["on", "read committed", "2s", "dhcp-cmd"]
    with other.administration() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "30s"
    with reading(store.engine) as connection:  # nothing of it stays with the connection
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
        assert shown == ["on", "repeatable read", "0", "dhcp-cmd"]
        with pytest.raises(StoreError, match="read-only"), reading(store.engine) as plain:
            plain.exec_driver_sql("DELETE FROM link")


# --- the database does not do it ---


def test_a_locked_row_is_a_store_error(store: SqlStore, tmp_path: Path) -> None:
    a_new_node(store, 1)
    impatient = open_store(url_of(store, tmp_path), busy_timeout=0.05)
    with store.transaction() as transaction:
        transaction.read([Lookup((duid(1),), ())])
        with pytest.raises(StoreError, match="lock timeout"), impatient.transaction() as second:
            second.read([Lookup((duid(1),), ())])
        with impatient.transaction() as second:  # other nodes are not concerned
            assert second.read([Lookup((duid(2),), ())]).nodes == {}
    with impatient.transaction() as second:
        assert len(second.read([Lookup((duid(1),), ())]).nodes) == 1
    impatient.close()


def test_a_failed_transaction_cannot_be_committed(store: SqlStore) -> None:
    a_new_node(store, 1)
    with store.transaction() as transaction:
        with pytest.raises(Collision):
            transaction.write([PutNode(a_node(2), True), PutNode(a_node(3, duid(1)), True)])
        with pytest.raises(StoreError):
            transaction.commit()
    assert nodes_in(store) == {1}


@pytest.mark.parametrize("kind", ["stop", "kill"])
def test_a_server_that_comes_back_is_used_at_once(kind: str) -> None:
    """With durable commits: what was committed is there, what was not is not, and nothing of the pool is in the way."""
    with TemporaryDirectory(prefix="dmm-") as folder, postgres.private(Path(folder)) as server:
        server.create("cmd")
        store = open_store(server.url("cmd"), create=True)
        admin.add_maars(store, [])
        executed(
            store, "INSERT INTO mobile_node (id, generation, visit_since) VALUES (1, 1, now())"
        )
        with reading(store.engine), reading(store.engine), reading(store.engine):
            pass  # three connections in the pool
        with store.transaction() as transaction:
            transaction.write([PutNode(a_node(2), True)])
            getattr(server, kind)()
            with pytest.raises(StoreError):
                transaction.commit()
        for _ in range(2):
            with pytest.raises(StoreError), store.transaction():
                pass
        server.start()
        for _ in range(4):
            with store.transaction() as transaction:
                assert transaction.read([Lookup((duid(2),), ())]).nodes == {}
        server.stop()
        server.start()  # nobody noticed
        with reading(store.engine), store.transaction() as transaction:
            transaction.write([PutNode(a_node(2), True)])
            transaction.commit()
        assert nodes_in(store) == {1, 2}
        store.close()


def test_a_connection_that_is_cut_costs_one_transaction(store: SqlStore, other: SqlStore) -> None:
    with store.transaction() as transaction:
        transaction.write([PutNode(a_node(1), True)])
        with other.administration() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).all()
        with pytest.raises(StoreError):
            transaction.commit()
    a_new_node(store, 2)
    assert nodes_in(store) == {2}


# --- the schema ---


def test_the_migrations_make_what_the_program_expects(store: SqlStore) -> None:
    with reading(store.engine) as connection:
        for table in tables.metadata.tables.values():
            found = connection.exec_driver_sql(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
                f" WHERE attrelid = '{table.name}'::regclass AND attnum > 0 ORDER BY attnum"
            ).all()
            expected = [
                (column.name, column.type.compile(store.engine.dialect).lower())
                for column in tables.columns(table)
            ]
            assert [tuple(row) for row in found] == expected


def test_two_that_start_at_once_make_one_schema(empty: str, pool: ThreadPoolExecutor) -> None:
    url = f"{empty}{'&' if '?' in empty else '?'}connect_timeout=60"  # a busy machine's connections take their time
    started = list(pool.map(lambda _: open_store(url, create=True), range(3)))
    assert len({admin.read_domain(each).hash_key for each in started}) == 1
    for each in started:
        each.close()
    assert upgrade(empty) == (SCHEMA_VERSION, SCHEMA_VERSION)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE alembic_version SET version_num = '0001'", "run `dhcp-cmd db upgrade`"),
        ("UPDATE alembic_version SET version_num = '9999'", "newer than this program"),
        ("DELETE FROM alembic_version", "not a mobility database"),
        ("DROP TABLE alembic_version", "not a mobility database"),
    ],
)
def test_another_schema_version_is_refused(
    store: SqlStore, tmp_path: Path, sql: str, message: str
) -> None:
    executed(store, sql)
    with pytest.raises(SchemaMismatch, match=message) as raised:
        open_store(url_of(store, tmp_path))
    assert "\n" not in str(raised.value)


def test_upgrade_leaves_other_databases_alone(empty: str) -> None:
    subprocess.run([*_psql(empty), "-c", "CREATE TABLE mine (x integer)"], check=True)
    with pytest.raises(SchemaMismatch, match="holds tables"):
        upgrade(empty)


def test_a_failed_migration_leaves_nothing(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dhcp_cmd.store import postgresql

    run_script = postgresql.run_script

    def broken(connection: object, script: str) -> None:
        run_script(connection, script)  # type: ignore[arg-type]
        if "CREATE TABLE binding" in script:
            run_script(connection, "CREATE TABLE binding ()")  # type: ignore[arg-type]

    monkeypatch.setattr(postgresql, "run_script", broken)
    with pytest.raises(StoreError, match="already exists"):
        upgrade(empty)
    monkeypatch.undo()
    assert upgrade(empty) == (None, SCHEMA_VERSION)


def _psql(url: str) -> list[str]:
    name = parse_url(url).database
    return [
        "psql",
        "-X",
        "-q",
        "-h",
        str(databases.server().directory),
        "-U",
        postgres.ROLE,
        str(name),
    ]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("UPDATE history SET cause = 'x'", "append-only"),
        ("DELETE FROM history", "append-only"),
        ("TRUNCATE history", "append-only"),
        ("DELETE FROM prune", "on record"),
        ("UPDATE binding SET state = 'ended'", "check constraint"),
        ("UPDATE binding SET state = 'asleep'", "check constraint"),
        ("UPDATE binding SET prefix = '10.0.0.1'", "check constraint"),
        ("UPDATE binding SET prefix = '2001:db8::/64'", "check constraint"),
        ("DELETE FROM mobile_node", "is named by other rows"),
        ("TRUNCATE mobile_node", "the history names"),
        ("DELETE FROM maar", "removed_at"),
        ("DELETE FROM pool", "removed_at"),
        ("UPDATE pool SET unit_length = 32", "check constraint"),
        ("INSERT INTO link (maar_id, prefix, prefix_length) VALUES (99, '::', 0)", "foreign key"),
    ],
)
def test_the_database_itself_refuses(store: SqlStore, sql: str, message: str) -> None:
    a_new_node(store, 1)
    executed(
        store, "INSERT INTO prune (before, started_at, finished_at) VALUES (now(), now(), now())"
    )
    with pytest.raises(StoreError, match=message):
        executed(store, sql)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        (
            "ALTER TABLE history DISABLE TRIGGER history_no_delete",
            "trigger history_no_delete of history is",
        ),
        ("UPDATE binding SET anchor_id = 99", "binding.anchor_id 99 names a missing row of maar"),
        (
            "UPDATE mobile_node SET merged_into_id = 99",
            "mobile_node.merged_into_id 99 names a missing",
        ),
    ],
)
def test_check_finds(store: SqlStore, sql: str, problem: str) -> None:
    a_new_node(store, 1)
    assert maintenance.check(store) == []
    executed(store, sql)
    assert any(problem in line for line in maintenance.check(store))


# --- backup ---


@pytest.mark.needs("pg_dump", "pg_restore")
def test_backup_and_restore(store: SqlStore, empty: str, tmp_path: Path) -> None:
    a_new_node(store, 1)
    copy = tmp_path / "copy.dump"
    with store.transaction() as transaction:  # a writer in the middle of it
        transaction.write([PutNode(a_node(2), True)])
        assert maintenance.backup(store, copy) == copy.stat().st_size > 0
        transaction.commit()
    assert copy.stat().st_mode & 0o007 == 0
    with pytest.raises(StoreError, match="exists"):
        maintenance.backup(store, copy)
    to = [
        "-h",
        str(databases.server().directory),
        "-U",
        postgres.ROLE,
        "-d",
        str(parse_url(empty).database),
    ]
    subprocess.run(["pg_restore", *to, str(copy)], check=True)
    restored = open_store(empty)
    assert maintenance.check(restored) == []
    assert nodes_in(restored) == {1}
    a_new_node(restored, 3)
    restored.close()


def test_backup_without_pg_dump_says_what_to_run(
    store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(StoreError, match="pg_dump --format=custom") as raised:
        maintenance.backup(store, tmp_path / "copy")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


# --- every statement of the hot path goes by an index ---


def test_the_hot_path_scans_nothing(store: SqlStore) -> None:
    """Not even with a plan made when the tables were empty."""
    with store.transaction() as transaction:
        pool = the_pool(transaction.domain())
        driver: Any = transaction.connection.connection.driver_connection
        seen: dict[str, object] = {}

        class Recorder(driver.cursor_factory):  # type: ignore[misc]
            def execute(self, text: Any, parameters: Any = None, **named: Any) -> Any:
                if isinstance(text, str) and text.startswith(
                    ("SELECT", "UPDATE", "INSERT", "DELETE")
                ):
                    seen[text] = parameters
                return super().execute(text, parameters, **named)

        driver.cursor_factory, factory = Recorder, driver.cursor_factory
        one = a_binding(pool, 1, 1)
        over = ended(one, T0, T0)
        transaction.write(
            [PutNode(a_node(1), True), PutNode(a_node(2), True), PutBinding(one, True)]
        )
        snapshot = transaction.read([Lookup((duid(1), duid(2)), (pool.unit(3).address,))])
        transaction.supply(snapshot, Need(((1, pool.id, None),), ((pool.id, 1),)))
        transaction.due(T0 + DAY, 10)
        transaction.idle(T0 + DAY, 10)
        longer = one._replace(valid_until=T0 + DAY)
        transaction.write([PutNode(a_node(1), False), PutBinding(longer, False)])
        transaction.write([PutBinding(over, False), Record(event(EventType.RELEASED, over))])
        transaction.write([PutBinding(over._replace(node=2), False), DropNode(1)])
        transaction.write([DropIdentity(duid(2)), PutNode(a_node(2, mac(2)), False)])
        transaction.write([DropBinding(one.prefix, 2), DropNode(2)])
        driver.cursor_factory = factory
        plans = {}
        for text, parameters in seen.items():
            rows = driver.execute(f"EXPLAIN {text}", parameters).fetchall()
            plans[text] = "\n".join(row[0] for row in rows)
    assert len(plans) > 20
    assert {text: plan for text, plan in plans.items() if "Seq Scan" in plan} == {}
    for index in ("binding_expiring", "binding_held", "binding_reusable", "mobile_node_idle"):
        assert any(index in plan for plan in plans.values()), index


def test_a_silent_server_is_given_up(
    store: SqlStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By whom clients wait for, in a statement as in a pipeline; what comes next has a connection of its own."""
    engine = make_engine(url_of(store, tmp_path), patience=0.2)
    impatient = PostgresStore(engine)

    def by_statement(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT pg_sleep(60)")

    def by_pipeline(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        with driver.pipeline():
            driver.execute("SELECT 1")
            driver.execute("SELECT pg_sleep(60)")

    for waits_for in (by_statement, by_pipeline):
        with (
            pytest.raises(StoreError, match=r"no answer within 0\.2 s"),
            reading(engine) as connection,  # which has no timeout in the server
        ):
            waits_for(connection)
    with impatient.administration() as connection:
        # In the server too: what was given up would go on, with its locks.
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "200ms"
    a_new_node(impatient, 1)
    assert nodes_in(store) == {1}
    assert caplog.records == []
    impatient.close()
