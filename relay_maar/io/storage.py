"""The session file in the daemon's service: what the disk refuses is tried again, and what it has taken it is asked to
keep, without delay for anybody."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay_maar.io.session_file import SessionFile

log = logging.getLogger("relay-maar")

SYNC_PAUSE = 1.0
"""Seconds for which changes are gathered before the disk is asked to keep them."""
REPAIR_PAUSE = 2.0
"""Seconds until a file that could not be written is tried again; the next change of a session tries it too."""


class Storage:
    """A full disk must not stop a router: the fault is logged once and counted, the service goes on, and the file is
    written whole as soon as the disk lets it."""

    def __init__(self, path: Path, counters: Counter[str]) -> None:
        self._file = SessionFile(path, time.time)
        self._counters = counters
        self._failed = False
        self._repair: asyncio.TimerHandle | None = None
        self._sync: asyncio.Task[None] | None = None

    def load(self) -> list[dict[str, Any]]:
        """The records, each with its `age` in seconds. Raises OSError."""
        return [{**record, "age": age} for record, age in self._file.load()]

    def write(self, records: Mapping[str, dict[str, Any] | None]) -> None:
        """See `SessionFile.write`, without its errors."""
        try:
            self._file.write(records)
        except OSError as error:
            self._fault(error)
        else:
            self._written()

    def close(self) -> None:
        """Everything is on the disk afterwards, where it can be."""
        if self._repair is not None:
            self._repair.cancel()
        if self._sync is not None:
            self._sync.cancel()
        self._file.close()

    def _written(self) -> None:
        if self._failed:
            log.warning("session file: written again, nothing is missing")
        self._failed = False
        if self._sync is None and self._file.unsynced:
            self._sync = asyncio.get_running_loop().create_task(self._synchronize())

    def _fault(self, error: OSError) -> None:
        self._counters["session-file-error"] += 1
        if not self._failed:
            log.error(
                "session file: %s; a restart now would forget what is not in it", error.strerror
            )
        self._failed = True
        if self._repair is None:
            self._repair = asyncio.get_running_loop().call_later(REPAIR_PAUSE, self._mend)

    def _mend(self) -> None:
        self._repair = None
        try:
            self._file.mend()
        except OSError as error:
            self._fault(error)
        else:
            self._written()

    async def _synchronize(self) -> None:
        try:
            while self._file.unsynced:
                await asyncio.sleep(SYNC_PAUSE)
                await asyncio.to_thread(self._file.begin_sync())
        except OSError as error:
            # Nobody knows what of it the disk has: the file is to be written anew.
            self._file.distrust()
            self._fault(error)
        finally:
            self._sync = None
