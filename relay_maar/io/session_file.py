"""The session file: what a MAAR must still know after a restart (RFC 8987 section 4.4, S-1).

A journal of JSON lines, one for each change of a session; the last line of an identity wins. It is read once, at start,
and rewritten when it has grown to many times what is alive. A line cut off by a crash is dropped: the message it
belonged to was never answered, so the client or the peer asks again.

Lifetimes in a record are remaining seconds; each line carries the wall-clock time it was written, and reading subtracts
what has passed since. A clock that was set back makes lifetimes longer by at most that step, never negative ages.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FORMAT = 1
_COMPACT_AFTER = 4096
"""Lines beyond the living ones before the journal is rewritten."""


class SessionFile:
    """The journal at `path`. One process at a time (the daemon holds a lock on its runtime directory).

    Every method raises OSError when the disk does not do it; the next one that succeeds writes what was missed too.
    """

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self._path = path
        self._wall = wall
        self._alive: dict[str, str] = {}
        self._lines = 0
        self._fd = -1
        self._incomplete = False

    def load(self) -> list[tuple[dict[str, Any], float]]:
        """Read the journal and open it for writing. Returns each record with its age in seconds (>= 0)."""
        now = self._wall()
        records: dict[str, tuple[dict[str, Any], float]] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        for line in lines:
            entry = _parse(line)
            if entry is None:
                continue
            key, at, record = entry
            if record is None:
                records.pop(key, None)
                self._alive.pop(key, None)
            else:
                records[key] = (record, max(0.0, now - at))
                self._alive[key] = line.decode()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._compact()
        return list(records.values())

    def save(self, key: str, record: dict[str, Any]) -> None:
        """Write `record` under `key`; when this returns, a kill of the process loses nothing."""
        line = self._line(key, record)
        self._alive[key] = line
        self._append(line)

    def forget(self, key: str) -> None:
        """Remove what is stored under `key`."""
        if self._alive.pop(key, None) is not None:
            self._append(self._line(key, None))

    def mend(self) -> None:
        """Write the file anew if something is missing in it."""
        if self._incomplete:
            self._compact()

    def _line(self, key: str, record: dict[str, Any] | None) -> str:
        entry = {"v": _FORMAT, "key": key, "at": self._wall(), "record": record}
        return json.dumps(entry, separators=(",", ":"))

    def close(self) -> None:
        """Close the file; what was written stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, line: str) -> None:
        if self._incomplete or self._lines > len(self._alive) + _COMPACT_AFTER:
            self._compact()
            return
        # Until the line is whole, the file is not what it should be; the next write then starts it anew.
        self._incomplete = True
        data = line.encode() + b"\n"
        # No fsync: a write survives the death of this process, and after a power failure the kernel state is gone too.
        if os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._incomplete = False
        self._lines += 1

    def _compact(self) -> None:
        """Rewrite the journal with the living lines only, in one step (write, fsync, rename)."""
        temporary = self._path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with os.fdopen(fd, "wb") as file:
            file.writelines(line.encode() + b"\n" for line in self._alive.values())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(self._alive)
        self._incomplete = False


def _parse(line: bytes) -> tuple[str, float, dict[str, Any] | None] | None:
    """One journal line as (key, time, record or None); None for a line that is empty, cut off or of another format."""
    try:
        entry = json.loads(line)
        record = entry["record"]
        if entry["v"] != _FORMAT or not (record is None or isinstance(record, dict)):
            return None
        return str(entry["key"]), float(entry["at"]), record
    except (ValueError, KeyError, TypeError):
        return None
