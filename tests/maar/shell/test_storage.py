"""The session file in the daemon's service: the disk is asked to keep things soon, seldom, and off the event loop."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from relay_maar.io import storage
from relay_maar.io.storage import Storage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.jsonl"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SYNC_PAUSE", 0.01)
    monkeypatch.setattr(storage, "REPAIR_PAUSE", 0.01)


def keys(path: Path) -> list[str]:
    return [json.loads(line)["key"] for line in path.read_bytes().splitlines()]


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.001)


def test_many_changes_are_one_sync_in_another_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[tuple[int, list[str]]] = []
    real = os.fdatasync

    def noted(descriptor: int) -> None:
        real(descriptor)
        syncs.append((threading.get_ident(), keys(path)))

    monkeypatch.setattr(os, "fdatasync", noted)

    async def changes() -> None:
        store = Storage(path, Counter())
        store.load()
        for name in "abc":
            store.write({name: {}})
        store.write({"b": None})
        assert not syncs
        await until(lambda: bool(syncs))
        store.write({"d": {}})
        await until(lambda: len(syncs) == 2)
        store.close()

    asyncio.run(changes())
    assert [found for _, found in syncs] == [["a", "b", "c", "b"], ["a", "b", "c", "b", "d"]]
    assert threading.get_ident() not in {thread for thread, _ in syncs}


def test_the_end_does_not_wait_for_the_next_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SYNC_PAUSE", 3600)
    syncs: list[list[str]] = []
    monkeypatch.setattr(os, "fdatasync", lambda _: syncs.append(keys(path)))

    async def change() -> None:
        store = Storage(path, Counter())
        store.load()
        store.write({"a": {}})
        await asyncio.sleep(0)
        store.close()

    asyncio.run(change())
    assert syncs == [["a"]]


def test_a_disk_that_fails_at_a_sync_gets_the_whole_file_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    counters: Counter[str] = Counter()

    async def change() -> None:
        store = Storage(path, counters)
        store.load()
        with monkeypatch.context() as disk:
            disk.setattr(os, "fdatasync", broken)
            store.write({"a": {}})
            await until(lambda: counters["session-file-error"] == 1)
            os.truncate(path, 0)
        await until(lambda: "written again" in caplog.text)
        store.close()

    asyncio.run(change())
    assert keys(path) == ["a"]
    assert "session file: Input/output error" in caplog.text
