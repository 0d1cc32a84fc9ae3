"""The session file: what a MAAR must still know after a restart (RFC 8987 section 4.4, S-1).

A journal of JSON lines, one for each change of a session; the last line of an identity wins. It is read once, at start,
and rewritten when it has grown to many times what is alive. A line cut off by a crash is dropped: the message it
belonged to was never answered, so the client or the peer asks again. A power failure can also cost what was written
since the last `begin_sync`; the rest has to be there then, when the hosts still use their prefixes.

Lifetimes in a record are remaining seconds; each line carries the wall-clock time it was written, and reading subtracts
what has passed since. A clock that was set back makes lifetimes longer by at most that step, never negative ages.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

_FORMAT = 1
_COMPACT_AFTER = 4096
"""Lines beyond the living ones before the journal is rewritten."""


_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


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
        self.unsynced = False
        """Whether a power failure could lose what was written. The death of this process cannot."""

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

    def write(self, records: Mapping[str, dict[str, Any] | None]) -> None:
        """Write each record under its key, in one write, or forget what is stored there (None).

        When this returns, a kill of the process loses nothing, and once it is synced no power failure does: the hosts
        go on with their prefixes, whatever became of their router (RFC 8987 S-1).
        """
        at = self._wall()
        lines = []
        for key, record in records.items():
            line = _line(key, at, record)
            if record is not None:
                self._alive[key] = line
            elif self._alive.pop(key, None) is None:
                continue
            lines.append(line)
        if lines:
            self._append(lines)

    def mend(self) -> None:
        """Write the file anew if something is missing in it."""
        if self._incomplete:
            self._compact()

    def distrust(self) -> None:
        """Take it that something is missing in the file."""
        self._incomplete = True

    def begin_sync(self) -> Callable[[], None]:
        """Returns what brings all that is written by now to the disk: it takes its time, raises OSError, and may be
        called in another thread, whatever is done to this object meanwhile."""
        descriptor = os.dup(self._fd)
        self.unsynced = False

        def sync() -> None:
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

        return sync

    def close(self) -> None:
        """Close the file; what was written stays, and is on the disk if that does what it is told."""
        if self._fd >= 0:
            if self.unsynced:
                with contextlib.suppress(OSError):
                    self.begin_sync()()
            os.close(self._fd)
            self._fd = -1

    def _append(self, lines: list[str]) -> None:
        if self._incomplete or self._lines > len(self._alive) + _COMPACT_AFTER:
            self._compact()
            return
        # Until the last line is whole, the file is not what it should be; the next write then starts it anew.
        self._incomplete = True
        data = ("\n".join(lines) + "\n").encode()
        self.unsynced = True
        if os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._incomplete = False
        self._lines += len(lines)

    def _compact(self) -> None:
        """Rewrite the journal with the living lines only, in one step (write, fsync, rename, fsync)."""
        self._incomplete = True
        temporary = self._path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with os.fdopen(fd, "wb") as file:
            file.writelines(line.encode() + b"\n" for line in self._alive.values())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        self.unsynced = False
        self._sync_directory()
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(self._alive)
        self._incomplete = False

    def _sync_directory(self) -> None:
        """Else a power failure could bring the old file back, without what was written since."""
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _line(key: str, at: float, record: dict[str, Any] | None) -> str:
    return _encode({"v": _FORMAT, "key": key, "at": at, "record": record})


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
