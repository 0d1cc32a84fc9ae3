"""SQLite's write-ahead log, copied to the database file beside the commits and not within them.

A commit that finds the log long copies it by itself, and everybody who waits for that commit waits some 30 ms more.
Here a thread with a connection of its own copies what is committed already. It hinders neither writers nor readers,
but the log begins anew only when all of it is copied, which never is while commits go on: so once it is long a commit
still copies the rest, which is little by then.
"""

from __future__ import annotations

import logging
import sqlite3
from threading import Event, Thread

from sqlalchemy import Connection, Engine, event

EVERY = 32
"""Commits between two copies."""
LONGEST_LOG = 16_384
"""Pages after which a commit copies the rest itself: 64 MiB."""

_log = logging.getLogger(__name__)


class Checkpoints:
    """Copies the log of `engine`'s database until closed. Use it in the process that writes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._commits = 0
        self._due = Event()
        self._closing = False
        engine.dispose()  # connections that know nothing of this
        event.listen(engine, "connect", _let_the_log_grow)
        event.listen(engine, "commit", self._committed)
        self._thread = Thread(target=self._run, name="checkpoints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. What is in the log is copied by a later commit, or when the last connection is closed."""
        event.remove(self._engine, "commit", self._committed)
        event.remove(self._engine, "connect", _let_the_log_grow)
        self._closing = True
        self._due.set()
        self._thread.join()

    def _committed(self, _connection: Connection) -> None:
        self.committed()

    def committed(self) -> None:
        """There is more to copy. (SQLAlchemy tells us of those commits that it hears of.)"""
        self._commits += 1
        if self._commits % EVERY == 0:
            self._due.set()

    def _run(self) -> None:
        failed = False
        while self._due.wait() and not self._closing:
            self._due.clear()
            try:
                with self._engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert isinstance(driver, sqlite3.Connection)
                    driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except Exception as error:
                if not failed:  # commits copy the log then, and say what is wrong
                    _log.warning("the write-ahead log cannot be copied: %s", error)
                failed = True
            else:
                failed = False


def _let_the_log_grow(driver: sqlite3.Connection, _record: object) -> None:
    driver.execute(f"PRAGMA wal_autocheckpoint={LONGEST_LOG}")
