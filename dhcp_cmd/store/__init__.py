"""The CMD's database: bindings, their history and the mobility domain, in SQL.

`open_store` gives the core's Store (dhcp_cmd.core.ports). SQLite now; what differs between engines is in `types`,
`engine` and schema/<engine>.
"""

from __future__ import annotations

from dhcp_cmd.core.ports import Collision, StoreError
from dhcp_cmd.store.engine import (
    SCHEMA_VERSION,
    SchemaMismatch,
    check_schema,
    database_path,
    make_engine,
    parse_url,
)
from dhcp_cmd.store.sql import SqlStore

__all__ = [
    "SCHEMA_VERSION",
    "Collision",
    "SchemaMismatch",
    "SqlStore",
    "StoreError",
    "create_database",
    "database_path",
    "open_store",
    "parse_url",
    "upgrade",
]


def open_store(url: str, *, create: bool = False, busy_timeout: float = 2.0) -> SqlStore:
    """Open the database `url` (SQLAlchemy URL, or the path of a SQLite file), with `create` making it when the file
    is missing. `busy_timeout` in seconds is how long a transaction waits for another writer.

    Raises StoreError when it cannot be opened, SchemaMismatch when its schema is not this program's.
    """
    if create and not database_path(parse_url(url)).exists():
        create_database(url)
    engine = make_engine(url, busy_timeout=busy_timeout)
    try:
        check_schema(engine, url)
    except SchemaMismatch:
        engine.dispose()
        raise
    except StoreError as error:
        engine.dispose()
        raise StoreError(f"{url}: {error}") from error
    return SqlStore(engine)


def create_database(url: str) -> None:
    """Make a new database with the current schema. Raises StoreError when its file is there already."""
    from dhcp_cmd.store import migrate

    migrate.create_database(url)


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database to this program's schema version; gives the version before and after. Raises StoreError."""
    from dhcp_cmd.store import migrate

    return migrate.upgrade(url)
