"""PostgreSQL 15 or later, by psycopg 3: for more than one CMD on one database. See `engine.Backend`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shlex import join
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection

from dhcp_cmd.core.ports import Collision, Refused, StoreError
from dhcp_cmd.store.engine import Mode, mode_of, transaction

_DRIVERS = ("postgresql", "postgresql+psycopg")
_COLLISIONS = (
    "23505",  # unique_violation
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
)
_REFUSALS = (
    "22",  # data exception
    "23",  # integrity constraint violation
    "54",  # program limit exceeded: a value too long for an index
)
"""Classes of codes."""
_OURS = "relnamespace = current_schema()::regnamespace"
_UPGRADE_LOCK = 0x646D6D  # "dmm"; nobody else has a reason to use it

_UNPREPARED = "prepare_threshold"
"""psycopg's word. With None there are no prepared statements: for a pooler that hands connections on without them."""

_CONNECT: dict[str, int | str] = {
    # Seconds, and milliseconds: what a dead server or a dead network may cost.
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "dhcp-cmd",
}
# SET LOCAL, because a pooler between us hands connections on. A transaction that was left open (a CMD that is stopped)
# holds up the others no longer than that. Without seqscan: the plan that a connection keeps may be of the time when
# the tables were empty. READ COMMITTED: each statement sees what others have committed before it.
_WRITE = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    "SET LOCAL lock_timeout = {busy}; SET LOCAL statement_timeout = {longest};"
    "SET LOCAL idle_in_transaction_session_timeout = 10000;"
    "SET LOCAL enable_seqscan = off; SET LOCAL jit = off;"
)
_BEGIN = {
    Mode.READ: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    Mode.WRITE: f"{_WRITE} LOCK TABLE domain IN ROW SHARE MODE",
    Mode.ALONE: f"{_WRITE} LOCK TABLE domain IN EXCLUSIVE MODE",
    Mode.UPGRADE: "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
}


def check_url(url: URL) -> URL:
    """A URL of psycopg 3 that names a database."""
    if url.drivername not in _DRIVERS:
        raise StoreError(f"{url.drivername}: the driver is psycopg: postgresql+psycopg://")
    if url.query.get(_UNPREPARED, "None") != "None":
        raise StoreError(f"{_UNPREPARED}: None, or it is left out")
    if not url.database:
        raise StoreError(f"'{url.render_as_string()}' names no database")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise StoreError(
            f"PostgreSQL needs psycopg (pip install 'distributed-mobility[postgresql]'): {error}"
        ) from None
    return url.set(drivername="postgresql+psycopg")


def make_engine(url: URL, busy_timeout: float, patience: float | None = None) -> Engine:
    """An engine for the database."""
    from dhcp_cmd.store.psycopg_patience import PatientConnection
    from dhcp_cmd.store.psycopg_values import adapt

    given = {name for name in _CONNECT if name in url.query}
    unprepared = {_UNPREPARED: None} if _UNPREPARED in url.query else {}
    engine = create_engine(
        url.difference_update_query([_UNPREPARED]),
        connect_args={
            # No transactions but ours.
            "autocommit": True,
            **unprepared,
            **{name: value for name, value in _CONNECT.items() if name not in given},
        },
        use_native_hstore=False,
        pool_reset_on_return="rollback",
        # Location data does not belong in a log.
        hide_parameters=True,
    )
    timeouts = {
        "busy": max(1, int(busy_timeout * 1000)),
        # In the server too, or what was given up would go on there, with its locks.
        "longest": 60_000 if patience is None else int(patience * 1000),
    }

    if patience is not None:

        @event.listens_for(engine, "do_connect")
        def _do_connect(_dialect: Any, _record: Any, arguments: Any, named: Any) -> Any:
            return PatientConnection.to(patience, *arguments, **named)

    @event.listens_for(engine, "connect")
    def _connect(connection: DBAPIConnection, _record: object) -> None:
        adapt(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        run_script(connection, _BEGIN[mode_of(connection)].format(**timeouts))

    return engine


def begin(connection: Connection) -> None:
    """By SQLAlchemy, which tells `make_engine`."""
    connection.begin()


def commit(connection: Connection) -> None:
    """By SQLAlchemy."""
    connection.commit()


def roll_back(connection: Connection) -> None:
    """By SQLAlchemy."""
    if connection.in_transaction():
        connection.rollback()


def exists(url: URL) -> bool:
    """Whether the database has our tables. It itself is made by the server's administrator (createdb)."""
    engine = make_engine(url, 2.0)
    try:
        with transaction(engine, Mode.READ) as connection:
            return schema_version(connection) is not None
    finally:
        engine.dispose()


def create(_url: URL) -> None:
    """The database is there."""


def discard(_url: URL) -> None:
    """An upgrade that fails leaves nothing."""


def begin_upgrade(connection: Connection) -> None:
    """Wait for another one."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")


def schema_version(connection: Connection) -> str | None:
    """What Alembic wrote down."""
    if connection.exec_driver_sql("SELECT to_regclass('alembic_version') IS NULL").scalar():
        return None
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if version is None else str(version)


def is_empty(connection: Connection) -> bool:
    """Whether the schema that our tables would go to has none."""
    count = f"SELECT count(*) FROM pg_class WHERE {_OURS} AND relkind IN ('r', 'v')"
    return not connection.exec_driver_sql(count).scalar()


def run_script(connection: Connection, script: str) -> None:
    """Run a script as a whole, in one exchange with the server."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.execute(script, binary=False)


def error(original: BaseException | None) -> type[StoreError]:
    """By the standard's code."""
    code = getattr(original, "sqlstate", None) or ""
    if code in _COLLISIONS:
        return Collision
    return Refused if code.startswith(_REFUSALS) else StoreError


# What has no foreign key (schema/postgresql/0002_tables.sql says why).
_REFERENCES = (
    ("node_identity", "node_id", "mobile_node"),
    ("binding", "node_id", "mobile_node"),
    ("binding", "anchor_id", "maar"),
    ("binding", "pool_id", "pool"),
    ("history", "node_id", "mobile_node"),
    ("history", "anchor_id", "maar"),
    ("history", "from_maar_id", "maar"),
    ("history", "to_maar_id", "maar"),
    ("mobile_node", "serving_id", "maar"),
    ("mobile_node", "previous_id", "maar"),
    ("mobile_node", "merged_into_id", "mobile_node"),
    ("signal", "node_id", "mobile_node"),
    ("signal", "maar_id", "maar"),
)
_SWITCHED_OFF = f"""
    SELECT 'index ' || indexrelid::regclass || ' is not valid' FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
    WHERE {_OURS} AND NOT (indisvalid AND indisready)
    UNION ALL
    SELECT 'trigger ' || tgname || ' of ' || relname || ' is switched off'
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE {_OURS} AND tgenabled NOT IN ('O', 'A')
    UNION ALL
    SELECT 'constraint ' || conname || ' of ' || relname || ' is not validated'
    FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid WHERE {_OURS} AND NOT convalidated
"""


def integrity(connection: Connection) -> Iterator[str]:
    """Indexes, triggers and constraints that were switched off, and the references that have no foreign key. (For
    damaged pages there is pg_amcheck.)
    """
    for (line,) in connection.exec_driver_sql(_SWITCHED_OFF):
        yield f"integrity: {line}"
    for table, column, parent in _REFERENCES:
        missing = (
            f"SELECT DISTINCT {column} FROM {table} AS child WHERE {column} IS NOT NULL"
            f" AND NOT EXISTS (SELECT FROM {parent} AS parent WHERE parent.id = child.{column}) ORDER BY 1 LIMIT 100"
        )
        for (number,) in connection.exec_driver_sql(missing):
            yield f"reference: {table}.{column} {number} names a missing row of {parent}"


def prepare_to_forget(_connection: Connection) -> None:
    """Deleted rows go when the table is vacuumed, and with the write-ahead log."""


def backup(engine: Engine, file: Path) -> None:
    """By pg_dump, for pg_restore."""
    from psycopg.conninfo import make_conninfo

    _, parameters = engine.dialect.create_connect_args(engine.url)
    del parameters["context"]  # of SQLAlchemy's for psycopg; what is left is libpq's
    password = parameters.pop("password", None)
    command = ["pg_dump", "--format=custom", f"--dbname={make_conninfo(**parameters)}"]
    if shutil.which(command[0]) is None:
        raise StoreError(
            f"pg_dump is not installed (Debian: postgresql-client); where it is: {join(command)} --file=FILE"
        )
    environment = dict(os.environ)
    if password:
        environment["PGPASSWORD"] = password  # an argument could be read by everybody
    with file.open("wb") as target:
        done = subprocess.run(
            command, stdout=target, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"pg_dump: exit status {done.returncode}"]
        raise StoreError(lines[0])
