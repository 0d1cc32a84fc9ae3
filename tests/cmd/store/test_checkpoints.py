"""The write-ahead log is copied beside the commits."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from dhcp_cmd.core.model import PutNode
from dhcp_cmd.store import SqlStore, checkpoints, open_store
from dhcp_cmd.store.checkpoints import EVERY, LONGEST_LOG
from tests.cmd.store.domain import a_node, sqlite_store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    sqlite_store(tmp_path).close()
    return tmp_path / "cmd.sqlite"


def commit(store: SqlStore, first: int, number: int) -> None:
    for node in range(first, first + number):
        with store.transaction() as transaction:
            transaction.write([PutNode(a_node(node), True)])
            transaction.commit()


def pages_copied(file: Path) -> int:
    return file.stat().st_size


def wait_until(holds: object, *arguments: object) -> None:
    assert callable(holds)
    deadline = time.monotonic() + 30
    while not holds(*arguments):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_committed_is_copied_soon(file: Path) -> None:
    store = open_store(str(file), serving=True)
    with store.transaction() as transaction:
        limit = transaction.connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar()
    assert limit == LONGEST_LOG
    before = pages_copied(file)
    commit(store, 1, EVERY - 1)
    assert pages_copied(file) == before
    commit(store, 100, EVERY * 10)
    wait_until(lambda: pages_copied(file) > before)
    store.close()
    # The last one to close copies the rest.
    connection = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)
    count = connection.execute("SELECT count(*) FROM mobile_node").fetchone()[0]
    connection.close()
    assert count == EVERY * 11 - 1


def test_the_log_does_not_grow_for_ever(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While commits go on, the log begins anew."""
    monkeypatch.setattr(checkpoints, "LONGEST_LOG", 200)
    store = open_store(str(file), serving=True)
    log = file.with_name(file.name + "-wal")
    commit(store, 1, 400)
    longest = log.stat().st_size
    commit(store, 1_000, 2_000)
    assert log.stat().st_size <= max(longest, 400 * 4_120)
    store.close()


def test_closing_ends_the_thread(file: Path) -> None:
    before = threading.active_count()
    store = open_store(str(file), serving=True)
    assert threading.active_count() == before + 1
    store.close()
    assert threading.active_count() == before


def test_a_log_that_cannot_be_copied_is_told_once(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(file), serving=True)
    tried = 0

    def fail() -> object:
        nonlocal tried
        tried += 1
        raise OSError("no")

    connect = store.engine.connect
    monkeypatch.setattr(
        store.engine,
        "connect",
        lambda: fail() if threading.current_thread().name == "checkpoints" else connect(),
    )
    with caplog.at_level(logging.WARNING):
        for turn in (1, 2):
            commit(store, turn * 1_000, EVERY)
            wait_until(lambda turn=turn: tried == turn)
    store.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the write-ahead log cannot be copied: no"
    ]
