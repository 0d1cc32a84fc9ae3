"""Connections: how a database is named, opened and refused, and what its errors mean to us."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from dhcp_cmd.core.ports import Collision, StoreError

SCHEMA_VERSION = "0002"
"""The revision of schema/migrations that this program reads and writes."""

_READ_ONLY = "dmm_read_only"


class SchemaMismatch(StoreError):
    """The database has another schema version than this program, or is none of ours."""


def parse_url(text: str) -> URL:
    """A SQLAlchemy URL; what has no scheme is the path of a SQLite file. Raises StoreError."""
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=text)
    except ArgumentError:
        raise StoreError(
            f"{text!r} is not a database URL, such as sqlite:////var/lib/cmd.sqlite"
        ) from None
    if url.get_backend_name() != "sqlite":
        raise StoreError(f"{url.get_backend_name()}: no such engine here, only sqlite")
    if url.database in (None, "", ":memory:"):
        raise StoreError(f"{text!r} names no file, and a database in memory keeps nothing")
    return url


def database_path(url: URL) -> Path:
    """The file of a SQLite URL."""
    return Path(str(url.database))


def make_engine(text: str, *, busy_timeout: float = 2.0) -> Engine:
    """An engine for the database named `text`; nothing is opened yet. `busy_timeout` in seconds is how long to wait
    for another writer. Raises StoreError for a URL that is none.
    """
    path = database_path(parse_url(text)).absolute()
    # mode=rw: a mistyped path is an error, not a new and empty database.
    uri = f"file:{quote(str(path))}?mode=rw"

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
        pool_reset_on_return="rollback",
        # Location data does not belong in a log.
        hide_parameters=True,
    )

    # A transaction that may write takes the write lock at once: one that begins as a reader and finds, when it
    # wants to write, that somebody else wrote, can only be thrown away.
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get(_READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def create_file(text: str) -> None:
    """Make the empty database file, readable by its owner and group only: it will hold location data.

    Raises StoreError when it cannot, or when the file is there already.
    """
    path = database_path(parse_url(text))
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


def schema_version(connection: Connection) -> str | None:
    """The database's schema version; None for one without our schema."""
    table = connection.exec_driver_sql(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
    ).scalar()
    if table is None:
        return None
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if version is None else str(version)


def check_schema(engine: Engine, name: str) -> None:
    """Raise SchemaMismatch, in one line that says what to do, unless the database has our schema version."""
    with reading(engine) as connection:
        version = schema_version(connection)
    if version is None:
        raise SchemaMismatch(f"{name}: not a mobility database; `dhcp-cmd db upgrade` makes one")
    if version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{name}: schema version {version} is newer than this program's {SCHEMA_VERSION}; upgrade the program"
        )
    if version < SCHEMA_VERSION:
        raise SchemaMismatch(
            f"{name}: schema version {version}, this program needs {SCHEMA_VERSION}: run `dhcp-cmd db upgrade`"
        )


def store_error(error: SQLAlchemyError) -> StoreError:
    """What a database's error is to the core: Collision for a unique index, StoreError for all else; one line."""
    original: Any = error.orig if isinstance(error, DBAPIError) else None
    text = str(original or error).partition("\n")[0]
    # The extended codes, not the text: SQLite's for SQLite, the standard's for the others.
    sqlite_code = getattr(original, "sqlite_errorname", "")
    if sqlite_code in (
        "SQLITE_CONSTRAINT_UNIQUE",
        "SQLITE_CONSTRAINT_PRIMARYKEY",
        "SQLITE_CONSTRAINT_ROWID",
    ):
        return Collision(text)
    # unique_violation, serialization_failure, deadlock_detected
    if getattr(original, "sqlstate", None) in ("23505", "40001", "40P01"):
        return Collision(text)
    return StoreError(text)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, and that no writer waits for. Raises StoreError."""
    try:
        with engine.connect() as plain:
            connection = plain.execution_options(**{_READ_ONLY: True})
            with connection.begin():
                yield connection
    except SQLAlchemyError as error:
        raise store_error(error) from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that commits when left normally and rolls back on an exception. Raises StoreError, Collision."""
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    except SQLAlchemyError as error:
        raise store_error(error) from error
