"""One thread that does everything in time: sockets that are read, timers that come due."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from lab.netns import LabError


class Part(Protocol):
    """What the loop turns."""

    def descriptors(self) -> Iterable[int]:
        """What it reads from."""
        ...

    def readable(self, descriptor: int, now: float) -> None:
        """There is something to read, without waiting."""
        ...

    def deadline(self) -> float | None:
        """When it has something to do by itself (`time.monotonic`)."""
        ...

    def due(self, now: float) -> None:
        """Do what is due."""
        ...


class Loop:
    """Turns its parts, between `with` and its end."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = tuple(parts)
        self._selector = selectors.DefaultSelector()
        for part in self._parts:
            for descriptor in part.descriptors():
                self._selector.register(descriptor, selectors.EVENT_READ, part)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def run(
        self,
        until: Callable[[], bool],
        *,
        timeout: float,
        what: str,
        interval: float | None = None,
    ) -> None:
        """Turn until the condition holds. It is asked after each turn, or every `interval` seconds. Raises LabError
        after `timeout` seconds."""
        end = time.monotonic() + timeout
        ask = 0.0
        while True:
            now = time.monotonic()
            if now >= ask:
                if until():
                    return
                now = time.monotonic()
                ask = now + (interval or 0.0)
            if now >= end:
                raise LabError(f"waited {timeout:g} s in vain for {what}")
            self._turn(min(end, ask if interval else end))

    def _turn(self, until: float) -> None:
        deadlines = [when for part in self._parts if (when := part.deadline()) is not None]
        wait = max(0.0, min(until, *deadlines, until) - time.monotonic())
        for key, _ in self._selector.select(wait):
            key.data.readable(key.fd, time.monotonic())
        for part in self._parts:
            when = part.deadline()
            if when is not None and when <= time.monotonic():
                part.due(time.monotonic())
