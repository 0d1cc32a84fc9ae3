"""The CMD's database: bindings, their history and the mobility domain, in SQL.

`open_store` gives the core's Store (dhcp_cmd.core.ports), on SQLite or PostgreSQL. What differs between them is in the
modules `sqlite`, `postgresql` and `sql_postgresql`, in `types`, and in schema/<engine>.
"""

from __future__ import annotations

from dhcp_cmd.core.ports import Collision, StoreError
from dhcp_cmd.store.engine import (
    SCHEMA_VERSION,
    SchemaMismatch,
    backend,
    check_schema,
    make_engine,
    parse_url,
    show_url,
)
from dhcp_cmd.store.sql import SqlStore

__all__ = [
    "SCHEMA_VERSION",
    "Collision",
    "SchemaMismatch",
    "SqlStore",
    "StoreError",
    "create_database",
    "database_exists",
    "open_store",
    "parse_url",
    "upgrade",
]


def open_store(
    url: str, *, create: bool = False, busy_timeout: float = 2.0, serving: bool = False
) -> SqlStore:
    """Open the database `url` (SQLAlchemy URL, or the path of a SQLite file), with `create` making it when it is
    missing. `busy_timeout` in seconds is how long a transaction waits for another writer. `serving` is for a process
    that goes on writing and that clients wait for: what SQLite does beside the commits is done beside them, and a
    PostgreSQL that is silent for a second longer than `busy_timeout` is given up.

    Raises StoreError when it cannot be opened, SchemaMismatch when its schema is not this program's.
    """
    if create and not database_exists(url):
        create_database(url)
    engine = make_engine(
        url, busy_timeout=busy_timeout, patience=busy_timeout + 1 if serving else None
    )
    try:
        check_schema(engine, show_url(url))
    except SchemaMismatch:
        engine.dispose()
        raise
    except StoreError as error:
        engine.dispose()
        raise StoreError(f"{show_url(url)}: {error}") from error
    if engine.dialect.name == "postgresql":
        from dhcp_cmd.store.sql_postgresql import PostgresStore

        return PostgresStore(engine)
    if not serving:
        return SqlStore(engine)
    from dhcp_cmd.store.checkpoints import Checkpoints

    return SqlStore(engine, Checkpoints(engine))


def database_exists(url: str) -> bool:
    """Whether there is a database to open or to upgrade. Raises StoreError when that cannot be found out."""
    parsed = parse_url(url)
    return backend(parsed.get_backend_name()).exists(parsed)


def create_database(url: str) -> None:
    """Make a new database with the current schema. Raises StoreError; on SQLite also when its file is there already."""
    from dhcp_cmd.store import migrate

    migrate.create_database(url)


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database to this program's schema version; gives the version before and after. Raises StoreError."""
    from dhcp_cmd.store import migrate

    return migrate.upgrade(url)
