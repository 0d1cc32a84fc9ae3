"""Connections: how a database is named, opened and refused, and what its errors mean to us.

What differs between SQLite and PostgreSQL is in the modules of these names; each is a `Backend`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from dhcp_cmd.core.ports import StoreError

SCHEMA_VERSION = "0008"
"""The revision of schema/migrations that this program reads and writes."""

_MODE = "dmm_mode"
_BACKENDS = ("sqlite", "postgresql")


class Mode(Enum):
    """What a transaction is for: how it begins depends on that."""

    READ = auto()
    """It only reads: one state of the database, and no writer waits for it."""
    WRITE = auto()
    """It may write about nodes, bindings and the history, beside others that do."""
    ALONE = auto()
    """It begins when all that WRITE are over, and those that come wait for its end: to change the domain."""
    UPGRADE = auto()
    """It makes or changes the tables."""


class SchemaMismatch(StoreError):
    """The database has another schema version than this program, or is none of ours."""


class Backend(Protocol):
    """An engine. All of it may raise StoreError."""

    def check_url(self, url: URL) -> URL:
        """The URL as it is used; StoreError, in one line, for one that cannot be."""
        ...

    def make_engine(self, url: URL, busy_timeout: float, patience: float | None) -> Engine:
        """An engine whose transactions begin as `mode_of` their connection says; `busy_timeout` in seconds is how long
        one waits for another writer, `patience` how long for an answer of the database, None: for ever."""
        ...

    def begin(self, connection: Connection) -> None:
        """Begin a transaction as `mode_of` says, on a new connection or on one that was kept."""
        ...

    def commit(self, connection: Connection) -> None:
        """Commit the transaction that was begun so."""
        ...

    def roll_back(self, connection: Connection) -> None:
        """Roll it back, if it is not over."""
        ...

    def exists(self, url: URL) -> bool:
        """Whether there is a database to open or to upgrade."""
        ...

    def create(self, url: URL) -> None:
        """Make what `upgrade` can make our tables in."""
        ...

    def discard(self, url: URL) -> None:
        """Take back what `create` made."""
        ...

    def begin_upgrade(self, connection: Connection) -> None:
        """See to it that nobody else upgrades before this transaction is over."""
        ...

    def schema_version(self, connection: Connection) -> str | None:
        """The database's schema version; None for one without our schema."""
        ...

    def is_empty(self, connection: Connection) -> bool:
        """Whether it has no tables."""
        ...

    def run_script(self, connection: Connection, script: str) -> None:
        """Run the statements of a script inside the connection's transaction."""
        ...

    def error(self, original: BaseException | None) -> type[StoreError]:
        """What an error of the driver is to the core."""
        ...

    def integrity(self, connection: Connection) -> Iterator[str]:
        """What is wrong with the database below our tables and their rows, a line each."""
        ...

    def prepare_to_forget(self, connection: Connection) -> None:
        """See to it that nothing is left of what this transaction deletes, as far as the engine can."""
        ...

    def backup(self, engine: Engine, file: Path) -> None:
        """Write the database, as it is at one moment, into a file that is there and empty."""
        ...


@cache
def backend(name: str) -> Backend:
    """The engine of that name, as `URL.get_backend_name` and `Dialect.name` say it. Raises StoreError."""
    if name not in _BACKENDS:
        raise StoreError(f"{name}: no such engine here, only {' and '.join(_BACKENDS)}")
    return cast(Backend, import_module(f"dhcp_cmd.store.{name}"))


def parse_url(text: str) -> URL:
    """A SQLAlchemy URL; what has no scheme is the path of a SQLite file. Raises StoreError."""
    try:
        url = make_url(text) if "://" in text else URL.create("sqlite", database=text)
    except (ArgumentError, ValueError):
        raise StoreError(
            f"{text!r} is not a database URL, such as sqlite:////var/lib/cmd.sqlite"
        ) from None
    return backend(url.get_backend_name()).check_url(url)


def show_url(text: str) -> str:
    """The name of a database as it may be printed: without a password."""
    return parse_url(text).render_as_string(hide_password=True) if "://" in text else text


def make_engine(text: str, *, busy_timeout: float = 2.0, patience: float | None = None) -> Engine:
    """An engine for the database named `text`; nothing is opened yet. `busy_timeout` in seconds is how long to wait
    for another writer, `patience` how long for an answer of the database (None: for ever). Raises StoreError for a URL
    that is none.
    """
    url = parse_url(text)
    return backend(url.get_backend_name()).make_engine(url, busy_timeout, patience)


def schema_version(connection: Connection) -> str | None:
    """The database's schema version; None for one without our schema."""
    return backend(connection.dialect.name).schema_version(connection)


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


def store_error(error: Exception, engine: Engine) -> StoreError:
    """What a database's error is to the core: Collision where somebody else was first, Refused for a row that it does
    not take, StoreError for all else; one line.
    """
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    kind = backend(engine.dialect.name).error(original)
    return kind(str(original or error).partition("\n")[0])


def errors_of(engine: Engine) -> tuple[type[Exception], ...]:
    """What work on a connection may raise: by SQLAlchemy, or by the driver where it is used directly."""
    driver = engine.dialect.loaded_dbapi
    return SQLAlchemyError, cast(type[Exception], driver.Error)


def mode_of(connection: Connection) -> Mode:
    """What the transaction is for that begins on the connection."""
    mode: Mode = connection.get_execution_options().get(_MODE, Mode.WRITE)
    return mode


@contextmanager
def transaction(
    engine: Engine, mode: Mode, kept: list[Connection] | None = None
) -> Iterator[Connection]:
    """A connection in a transaction, which is rolled back unless it was committed. Raises StoreError.

    A connection of the pool that has died (the database was started anew) costs nothing but the time for a new one.
    `kept` holds connections that were used in this mode and well left: one is taken from there, and put back, as it is.
    For a small batch the pool's giving and taking is a tenth of all that it costs.
    """
    errors = errors_of(engine)
    try:
        connection = _begin(engine, mode, kept)
        is_well = False
        try:
            yield connection
            is_well = True
        finally:
            if kept is not None and is_well and _is_clean(connection, errors):
                kept.append(connection)
            else:
                _leave(connection, errors)
    except errors as error:
        raise store_error(error, engine) from error


def _begin(engine: Engine, mode: Mode, kept: list[Connection] | None) -> Connection:
    errors = errors_of(engine)
    if kept:
        connection = kept.pop()
        if _begins(connection, errors):
            return connection
        leave_all(kept, errors)  # the others are as dead
    for is_last in (False, True):
        connection = engine.connect().execution_options(**{_MODE: mode})
        if _begins(connection, errors, may_be_dead=not is_last):
            break
        engine.dispose()  # the others in the pool are as dead
    return connection


def _begins(
    connection: Connection, errors: tuple[type[Exception], ...], *, may_be_dead: bool = True
) -> bool:
    """Begin; where that fails the connection is left. Returns False for one that is dead, if that `may_be`."""
    try:
        backend(connection.dialect.name).begin(connection)
    except errors:
        dead = _is_dead(connection)
        _leave(connection, errors)
        if not (dead and may_be_dead):
            raise
        return False
    return True


def _is_clean(connection: Connection, errors: tuple[type[Exception], ...]) -> bool:
    """Roll back what was not committed. Returns whether the connection can be used again as it is."""
    try:
        backend(connection.dialect.name).roll_back(connection)
    except errors:
        return False
    return not connection.invalidated and not _is_dead(connection)


def leave_all(kept: list[Connection], errors: tuple[type[Exception], ...]) -> None:
    """Give back to the pool what was kept."""
    while kept:
        _leave(kept.pop(), errors)


def _is_dead(connection: Connection) -> bool:
    return bool(getattr(connection.connection.driver_connection, "closed", False))


def _leave(connection: Connection, errors: tuple[type[Exception], ...]) -> None:
    """Roll back what was not committed. An error here has nothing to undo."""
    try:
        if not connection.invalidated and _is_dead(connection):
            connection.invalidate()
        connection.close()
    except errors:
        connection.invalidate()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads. Raises StoreError."""
    with transaction(engine, Mode.READ) as connection:
        yield connection


@contextmanager
def writing(engine: Engine, mode: Mode = Mode.WRITE) -> Iterator[Connection]:
    """A transaction that commits when left normally and rolls back on an exception. Raises StoreError, Collision."""
    with transaction(engine, mode) as connection:
        yield connection
        connection.commit()
