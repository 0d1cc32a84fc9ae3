"""What became of every datagram, counted by outcome and kept where `dhcp-cmd status` finds it.

Each process of the server (its workers, and in ipv6-dhcpd the main process for what it drops before a
worker sees it) counts for itself and writes its counters to a file of its own, `counters-SERVER-PROCESS.json`,
in the status directory: at most once per second, in one step (written aside and renamed), and when
it ends. A reader adds the files up. The files of workers that ended are kept until the next start
of the server, so that a total never goes back while the server runs. A process killed with SIGKILL
loses at most the last second.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PREFIX = "counters-"
INTERVAL = 1.0
"""Seconds between a change and the file that shows it, at most; also the shortest time between two files."""


class Counters:
    """The counters of this process.

    `directory` has to exist and be writable. `server` is the pid of the server's main process: all
    files of one run of the server carry it. A directory that cannot be written costs the counters,
    never the service.
    """

    def __init__(self, directory: str, server: int) -> None:
        self._path = Path(directory, f"{PREFIX}{server}-{os.getpid()}.json")
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        # Workers of a pool leave through multiprocessing's finalizers, not through atexit.
        self.close = Finalize(self, self.write, exitpriority=0)
        """Write a last time. Called by itself when the process ends."""

    def count(self, outcome: str) -> None:
        """Add one to `outcome`, a short slug."""
        self.count_all({outcome: 1})

    def count_all(self, outcomes: Mapping[str, int]) -> None:
        """Add these numbers to their outcomes."""
        with self._lock:
            self._counts.update(outcomes)
            if self._timer is None:
                self._timer = threading.Timer(INTERVAL, self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Write the file now."""
        with self._lock:
            self._timer = None
            text = json.dumps(self._counts, indent=1, sort_keys=True)
            aside = self._path.with_suffix(".new")
            try:
                aside.write_text(text + "\n", encoding="ascii")
                aside.chmod(0o644)
                aside.replace(self._path)
            except OSError as error:
                logger.error("Cannot write the counters to %s: %s", self._path, error)


_current: Counters | None = None


def start(directory: str, server: int) -> None:
    """Count in this process from now on, into a file in `directory`."""
    global _current
    _current = Counters(directory, server)


def stop() -> None:
    """Write a last time and count no more: for a process that ends without Python's own way of ending."""
    global _current
    if _current is not None:
        _current.close()
        _current = None


def count(outcome: str) -> None:
    """Add one to `outcome`; does nothing in a process that did not `start`."""
    if _current is not None:
        _current.count(outcome)


def count_all(outcomes: Mapping[str, int]) -> None:
    """Add these numbers to their outcomes; does nothing in a process that did not `start`."""
    if _current is not None:
        _current.count_all(outcomes)


def clear(directory: str) -> None:
    """Remove the files of earlier runs. Raises OSError."""
    for path in Path(directory).glob(f"{PREFIX}*"):
        path.unlink(missing_ok=True)


def read(directory: str) -> Mapping[str, Any]:
    """The counters of the server that runs or ran last, by outcome, with the number of its processes.

    `updated` is the time of the newest file in seconds since the epoch, None when there is none.
    Files that vanish or are damaged while they are read are left out.
    """
    total: Counter[str] = Counter()
    processes = 0
    updated: float | None = None
    for path in Path(directory).glob(f"{PREFIX}*.json"):
        try:
            counts = json.loads(path.read_text(encoding="ascii"))
            modified = path.stat().st_mtime
        except (OSError, ValueError):
            continue
        total.update(counts)
        processes += 1
        updated = modified if updated is None else max(updated, modified)
    return {
        "counters": dict(sorted(total.items())),
        "processes": processes,
        "updated": updated,
    }
