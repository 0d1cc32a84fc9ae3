"""Which database and which configuration a command works on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from dhcp_cmd.core.model import Micros, Settings
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store import SqlStore, open_store, parse_url

ENVIRONMENT = "DHCP_CMD_DATABASE"

OPERATOR_MISTAKE = 2
FAILURE = 1


class Mistake(ValueError):
    """The operator's mistake: one line, exit status 2."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The global options as given."""

    database: str | None
    config: str | None

    def url(self) -> str:
        """The database: --database, else that of --config, else the environment's. Raises Mistake."""
        url = self.database or self._configured() or os.environ.get(ENVIRONMENT)
        if not url:
            raise Mistake(
                f"which database? Give --database URL, --config FILE, or set {ENVIRONMENT}"
            )
        try:
            parse_url(url)
        except StoreError as error:
            raise Mistake(str(error)) from error
        return url

    def _configured(self) -> str | None:
        if self.config is None:
            return None
        from dhcp_cmd.plugin.config import ConfigError, database_url  # brings dhcpkit in: slow

        try:
            return database_url(self.config)
        except ConfigError as error:
            raise Mistake(str(error)) from error

    def settings(self) -> Settings:
        """The CMD's settings: those of --config, else the defaults. Raises Mistake."""
        if self.config is None:
            return Settings(server_duid=b"")
        from dhcp_cmd.plugin.config import ConfigError, settings

        try:
            return settings(self.config)
        except ConfigError as error:
            raise Mistake(str(error)) from error


def chosen(context: typer.Context) -> Chosen:
    """The global options of a command's context."""
    found = context.find_object(Chosen)
    if found is None:
        raise Mistake("no options")
    return found


@contextmanager
def database(context: typer.Context) -> Iterator[SqlStore]:
    """The store that a command works on. Raises Mistake, StoreError."""
    # An operator's command rather waits for the CMD's transaction than fails.
    store = open_store(chosen(context).url(), busy_timeout=10.0)
    try:
        yield store
    finally:
        store.close()


def now() -> Micros:
    """The time, in microseconds since the epoch."""
    return time.time_ns() // 1_000
