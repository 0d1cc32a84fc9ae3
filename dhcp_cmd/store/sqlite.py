"""SQLite: one file, one writer at a time, no server. See `engine.Backend`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool

from dhcp_cmd.core.ports import Collision, Refused, StoreError
from dhcp_cmd.store.engine import Mode, mode_of, reading

_COLLISIONS = (
    "SQLITE_CONSTRAINT_UNIQUE",
    "SQLITE_CONSTRAINT_PRIMARYKEY",
    "SQLITE_CONSTRAINT_ROWID",
)
_REFUSALS = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
"""How such names begin."""


def check_url(url: URL) -> URL:
    """A URL that names a file."""
    if url.database in (None, "", ":memory:"):
        raise StoreError(f"'{url}' names no file, and a database in memory keeps nothing")
    return url


def _path(url: URL) -> Path:
    return Path(str(url.database))


def make_engine(url: URL, busy_timeout: float, _patience: float | None = None) -> Engine:
    """An engine for the file. There is nobody to be patient with."""
    # mode=rw: a mistyped path is an error, not a new and empty database.
    uri = f"file:{quote(str(_path(url).absolute()))}?mode=rw"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=busy_timeout,
            # No transactions but ours: the driver would begin them late, and deferred.
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # FULL: after commit() returned, the rows survive a power cut.
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            # A commit is scattered over many indexes: keep 32 MiB of their pages (SQLite: 2), and copy them from the
            # log to the database file less often, after 16 MiB (SQLite: 4), for what changed twice is copied once.
            connection.execute("PRAGMA cache_size=-32768")
            connection.execute("PRAGMA wal_autocheckpoint=4096")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        # The one used last: it has the pages in its cache that another would have to read again.
        pool_use_lifo=True,
        pool_reset_on_return="rollback",
        # Location data does not belong in a log.
        hide_parameters=True,
    )

    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    # A transaction that may write takes the write lock at once: one that begins as a reader and finds, when it
    # wants to write, that somebody else wrote, can only be thrown away.
    read_only = mode_of(connection) is Mode.READ
    _driver(connection).execute("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def begin(connection: Connection) -> None:
    """By SQLAlchemy once. It runs thirty functions for each transaction, which takes longer than to begin it: so it
    does not hear of the end of this one, nor of those that begin when its connection was kept."""
    if connection.in_transaction():
        _begin(connection)
    else:
        connection.begin()


def commit(connection: Connection) -> None:
    """By the driver."""
    _driver(connection).commit()


def roll_back(connection: Connection) -> None:
    """By the driver."""
    driver = _driver(connection)
    if driver.in_transaction:
        driver.rollback()


def exists(url: URL) -> bool:
    """Whether the file is there."""
    return _path(url).exists()


def create(url: URL) -> None:
    """Make the empty file, readable by its owner and group only: it will hold location data."""
    path = _path(url)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
        connection = sqlite3.connect(path)
        try:
            # A property of the file: readers and the one writer do not wait for each other.
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreError(f"{path}: {reason}") from error


def discard(url: URL) -> None:
    """Remove the file that was made."""
    _path(url).unlink(missing_ok=True)


def begin_upgrade(_connection: Connection) -> None:
    """There is one writer anyway."""


def schema_version(connection: Connection) -> str | None:
    """What Alembic wrote down."""
    table = connection.exec_driver_sql(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
    ).scalar()
    if table is None:
        return None
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if version is None else str(version)


def is_empty(connection: Connection) -> bool:
    """Whether the file has nothing in it."""
    return not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()


def run_script(connection: Connection, script: str) -> None:
    """Run a script's statements one by one."""
    for statement in statements(script):
        connection.exec_driver_sql(statement)


def statements(script: str) -> Iterator[str]:
    """The statements of a script one by one, so that they run inside our transaction (`executescript` commits first).
    A trigger is one statement, whatever semicolons are in it.
    """
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in statement.splitlines()):
        raise ValueError(f"the script ends inside a statement: {statement.strip()[:60]!r}")


def error(original: BaseException | None) -> type[StoreError]:
    """By the extended code, not by the text."""
    name = getattr(original, "sqlite_errorname", "")
    if name in _COLLISIONS:
        return Collision
    return Refused if name.startswith(_REFUSALS) else StoreError


def integrity(connection: Connection) -> Iterator[str]:
    """The file's pages and indexes, and the foreign keys."""
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if line != "ok":
            yield f"integrity: {line}"
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"reference: row {row} of {table} names a missing row of {parent}"


def prepare_to_forget(connection: Connection) -> None:
    """What is deleted is overwritten."""
    connection.exec_driver_sql("PRAGMA secure_delete=ON")


def backup(engine: Engine, file: Path) -> None:
    """A copy of the file, page by page."""
    try:
        with reading(engine) as connection:
            source = connection.connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            target = sqlite3.connect(file)
            try:
                source.backup(target)
                # The copy is one file: no write-ahead log beside it.
                target.execute("PRAGMA journal_mode=DELETE")
            finally:
                target.close()
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error
