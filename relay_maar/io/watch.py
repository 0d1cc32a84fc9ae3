"""When the daemon compares the kernel with what it should hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay_maar.southbound.api import Southbound

SETTLE = 0.05
"""Seconds from the first sign to the comparison: what breaks one thing breaks others."""
PAUSE = 1.0
"""Seconds between two comparisons, whatever others do to the kernel."""
AUDIT = 60.0
"""Seconds to the next comparison without any sign."""
RETRY = 10.0
"""The same after one that did not come to its end."""
_SHARE = 20
"""A comparison takes time: pause for so many times longer, at least."""


class KernelWatch:
    """Calls `compare` soon after the driver noticed something, and from time to time anyway. It returns False where it
    is worth trying again soon."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, driver: Southbound, compare: Callable[[], bool]
    ) -> None:
        """Raises DriverUnavailable."""
        self._loop = loop
        self._driver = driver
        self._compare = compare
        self._not_before = loop.time()
        self._descriptor = driver.watch()
        if self._descriptor >= 0:
            loop.add_reader(self._descriptor, self._read)
        self._timer = loop.call_later(AUDIT, self._run)

    def close(self) -> None:
        """No more calls."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
        self._timer.cancel()

    def _read(self) -> None:
        if self._driver.disturbed():
            when = max(self._loop.time() + SETTLE, self._not_before)
            if when < self._timer.when():
                self._timer.cancel()
                self._timer = self._loop.call_at(when, self._run)

    def _run(self) -> None:
        started = self._loop.time()
        good = False
        try:
            good = self._compare()
        finally:
            self._ran(started, AUDIT if good else RETRY)

    def _ran(self, started: float, interval: float) -> None:
        ended = self._loop.time()
        pause = _SHARE * (ended - started)
        self._not_before = ended + max(PAUSE, pause)
        self._timer = self._loop.call_later(max(interval, pause), self._run)
