"""Making a database and bringing it to this program's schema. Alembic is imported only here."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sqlalchemy import Connection, Engine

from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store.engine import (
    SCHEMA_VERSION,
    SchemaMismatch,
    create_file,
    database_path,
    make_engine,
    parse_url,
    schema_version,
    writing,
)


def schema_files() -> Traversable:
    """The folder schema/: installed as `dhcp_cmd.schema`, or beside this package in a source tree."""
    try:
        return resources.files("dhcp_cmd.schema")
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "schema"


def statements(script: str) -> Iterator[str]:
    """The statements of a SQLite script one by one, so that they run inside our transaction (`executescript`
    commits first). A trigger is one statement, whatever semicolons are in it.
    """
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in statement.splitlines()):
        raise ValueError(f"the script ends inside a statement: {statement.strip()[:60]!r}")


def run_script(connection: Connection, name: str) -> None:
    """Run schema/<engine>/<name> in the connection's transaction; for migrations."""
    folder = schema_files() / connection.dialect.name
    for statement in statements((folder / name).read_text(encoding="utf-8")):
        connection.exec_driver_sql(statement)


def create_database(url: str) -> None:
    """Make a new database with the current schema. Raises StoreError when its file is there already."""
    create_file(url)
    try:
        upgrade(url)
    except BaseException:
        database_path(parse_url(url)).unlink(missing_ok=True)
        raise


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database to this program's schema version, in one transaction; gives the version before and after.

    Raises StoreError, and SchemaMismatch when the database is newer than this program or none of ours.
    """
    engine = make_engine(url)
    try:
        return _upgrade(engine, url)
    finally:
        engine.dispose()


def _upgrade(engine: Engine, url: str) -> tuple[str | None, str]:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(schema_files() / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with writing(engine) as connection:
        before = schema_version(connection)
        if (
            before is None
            and connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        ):
            raise SchemaMismatch(f"{url}: holds tables, but not those of a mobility database")
        if before is not None and before > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{url}: schema version {before} is newer than this program's {SCHEMA_VERSION}; upgrade the program"
            )
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, SCHEMA_VERSION)
        except CommandError as error:
            raise StoreError(f"{url}: {error}") from error
    return before, SCHEMA_VERSION
