"""The session file: the last word of each session survives, whatever ended the process or filled the disk."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay_maar.io import session_file
from relay_maar.io.session_file import SessionFile


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions.jsonl"


@pytest.fixture
def journal(path: Path, clock: Clock) -> Iterator[SessionFile]:
    journal = SessionFile(path, clock)
    assert journal.load() == []
    yield journal
    journal.close()


@pytest.fixture
def synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the journal held each time the disk was asked to keep it."""
    found: list[bytes] = []
    real = os.fdatasync

    def noted(descriptor: int) -> None:
        real(descriptor)
        found.append(path.read_bytes())

    monkeypatch.setattr(os, "fdatasync", noted)
    return found


def reread(path: Path, clock: Clock) -> list[tuple[dict[str, object], float]]:
    again = SessionFile(path, clock)
    try:
        return again.load()
    finally:
        again.close()


def test_the_last_record_of_a_session_comes_back_with_its_age(
    journal: SessionFile, path: Path, clock: Clock
) -> None:
    journal.write({"a": {"n": 1}})
    clock.now += 10
    journal.write({"a": {"n": 2}})
    journal.write({"b": {"n": 3}})
    clock.now += 5
    assert reread(path, clock) == [({"n": 2}, 5.0), ({"n": 3}, 5.0)]


def test_a_forgotten_session_stays_forgotten(
    journal: SessionFile, path: Path, clock: Clock
) -> None:
    journal.write({"a": {"n": 1}})
    journal.write({"a": None})
    journal.write({"never there": None})
    assert reread(path, clock) == []


def test_a_clock_set_back_gives_no_negative_age(
    journal: SessionFile, path: Path, clock: Clock
) -> None:
    journal.write({"a": {"n": 1}})
    clock.now -= 500
    assert reread(path, clock) == [({"n": 1}, 0.0)]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_cut_off_by_a_crash_costs_only_itself(
    journal: SessionFile, path: Path, clock: Clock, cut: int
) -> None:
    journal.write({"a": {"n": 1}})
    journal.write({"a": {"n": 2}})
    path.write_bytes(path.read_bytes()[:-cut])
    expected = {"n": 2} if cut == 1 else {"n": 1}  # only the line's end is missing: nothing is lost
    assert [record for record, _ in reread(path, clock)] == [expected]


@given(st.binary(max_size=200))
def test_noise_in_the_file_is_skipped(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "sessions.jsonl"
    good = json.dumps({"v": 1, "key": "a", "at": 1000.0, "record": {"n": 1}}).encode()
    path.write_bytes(noise.replace(b"\n", b"") + b"\n" + good + b"\n")
    assert ({"n": 1}, 0.0) in reread(path, Clock())


def test_the_journal_is_rewritten_when_it_has_grown(
    journal: SessionFile, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_file, "_COMPACT_AFTER", 10)
    for number in range(100):
        journal.write({"a": {"n": number}})
    journal.write({"b": {"n": -1}})
    assert len(path.read_bytes().splitlines()) <= 13
    assert [record for record, _ in reread(path, clock)] == [{"n": 99}, {"n": -1}]


def test_what_a_full_disk_lost_is_written_with_the_next_record(
    journal: SessionFile, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write({"a": {"n": 1}})
    real_write = os.write

    def short_write(descriptor: int, data: bytes) -> int:
        return real_write(descriptor, data[:7])

    with monkeypatch.context() as full:
        full.setattr(os, "write", short_write)
        with pytest.raises(OSError, match="No space left"):
            journal.write({"b": {"n": 2}})
    journal.write({"c": {"n": 3}})
    assert [record for record, _ in reread(path, clock)] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_a_sync_brings_all_that_is_written_to_the_disk(
    journal: SessionFile, path: Path, synced: list[bytes]
) -> None:
    states = [journal.unsynced]
    journal.write({"a": {"n": 1}})
    journal.write({"b": {"n": 2}})
    states.append(journal.unsynced)
    assert not synced, "a write waits for no disk"
    sync = journal.begin_sync()
    states.append(journal.unsynced)
    journal.write({"c": {"n": 3}})
    states.append(journal.unsynced)
    assert states == [False, True, False, True], "what comes after the begin is for the next"
    sync()
    assert synced == [path.read_bytes()]


def test_a_sync_outlives_a_rewrite_and_the_end(
    journal: SessionFile, synced: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_file, "_COMPACT_AFTER", 0)
    journal.write({"a": {"n": 1}})
    sync = journal.begin_sync()
    journal.write({"a": {"n": 2}})
    journal.write({"a": {"n": 3}})
    journal.close()
    sync()
    assert synced


def test_the_end_syncs_what_is_not_yet(
    journal: SessionFile, path: Path, synced: list[bytes]
) -> None:
    journal.write({"a": {"n": 1}})
    journal.close()
    journal.close()
    assert synced == [path.read_bytes()]


def test_what_the_disk_lost_is_written_anew(journal: SessionFile, path: Path, clock: Clock) -> None:
    journal.write({"a": {"n": 1}})
    path.write_bytes(b"")
    journal.distrust()
    journal.mend()
    assert reread(path, clock) == [({"n": 1}, 0.0)]


def test_a_rewrite_that_fails_at_any_step_is_made_up_for(
    journal: SessionFile, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fsync, left = os.fsync, 1

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(descriptor)

    journal.write({"a": {"n": 1}})
    with monkeypatch.context() as disk:
        disk.setattr(session_file, "_COMPACT_AFTER", -1)
        disk.setattr(os, "fsync", fsync)
        for n in (2, 3):  # the directory's fsync fails, then the file's
            with pytest.raises(OSError, match="Input/output"):
                journal.write({"a": {"n": n}})
    journal.write({"b": {"n": 4}})
    assert [record for record, _ in reread(path, clock)] == [{"n": 3}, {"n": 4}]
