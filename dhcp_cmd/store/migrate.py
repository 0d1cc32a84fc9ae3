"""Making a database and bringing it to this program's schema. Alembic is imported only here."""

from __future__ import annotations

import logging
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from sqlalchemy import Connection, Engine

from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store.engine import (
    SCHEMA_VERSION,
    Mode,
    SchemaMismatch,
    backend,
    make_engine,
    parse_url,
    show_url,
    writing,
)


def schema_files() -> Traversable:
    """The folder schema/: installed as `dhcp_cmd.schema`, or beside this package in a source tree."""
    try:
        return resources.files("dhcp_cmd.schema")
    except ModuleNotFoundError:
        return Path(__file__).parents[2] / "schema"


def run_script(connection: Connection, name: str) -> None:
    """Run schema/<engine>/<name> in the connection's transaction; for migrations."""
    engine = connection.dialect.name
    script = (schema_files() / engine / name).read_text(encoding="utf-8")
    backend(engine).run_script(connection, script)


def create_database(text: str) -> None:
    """Make a new database with the current schema. Raises StoreError; on SQLite also when its file is there already."""
    url = parse_url(text)
    maker = backend(url.get_backend_name())
    maker.create(url)
    try:
        upgrade(text)
    except BaseException:
        maker.discard(url)
        raise


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database to this program's schema version, in one transaction; gives the version before and after.

    Raises StoreError, and SchemaMismatch when the database is newer than this program or none of ours.
    """
    engine = make_engine(url)
    try:
        return _upgrade(engine, show_url(url))
    finally:
        engine.dispose()


def _upgrade(engine: Engine, name: str) -> tuple[str | None, str]:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(schema_files() / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with writing(engine, Mode.UPGRADE) as connection:
        maker = backend(engine.dialect.name)
        maker.begin_upgrade(connection)
        before = maker.schema_version(connection)
        if before is None and not maker.is_empty(connection):
            raise SchemaMismatch(f"{name}: holds tables, but not those of a mobility database")
        if before is not None and before > SCHEMA_VERSION:
            raise SchemaMismatch(
                f"{name}: schema version {before} is newer than this program's {SCHEMA_VERSION}; upgrade the program"
            )
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, SCHEMA_VERSION)
        except CommandError as error:
            raise StoreError(f"{name}: {error}") from error
    return before, SCHEMA_VERSION
