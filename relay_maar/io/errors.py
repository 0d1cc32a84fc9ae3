"""When the errors from inside the tunnels are relayed: at once, but never so many that the service waits for them."""

from __future__ import annotations

import asyncio
from collections import Counter

from relay_maar.southbound.api import Southbound

PAUSE = 0.02
"""Seconds between two calls of the driver. A host can cause errors as fast as it can send; more of them than the driver
takes in one call wait in a small buffer, and what that does not hold is lost."""


class ErrorRelay:
    """Has the driver relay errors as they come, counted as `tunnel.REASON`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, driver: Southbound, counters: Counter[str]
    ) -> None:
        """Raises DriverUnavailable."""
        self._loop = loop
        self._driver = driver
        self._counters = counters
        self._timer: asyncio.TimerHandle | None = None
        self._descriptor = driver.errors()
        self._listen()

    def close(self) -> None:
        """No more calls."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()

    def _listen(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._timer = self._loop.call_later(PAUSE, self._listen)
        for reason, count in self._driver.relay_errors().items():
            self._counters[f"tunnel.{reason}"] += count
