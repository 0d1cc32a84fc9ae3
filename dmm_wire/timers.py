"""Timers without a clock: what is due when, asked with the caller's `now`."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

_Name = TypeVar("_Name", bound=Hashable)


class Timers(Generic[_Name]):
    """Named points in time (seconds). Setting a timer again moves it; each one fires once."""

    def __init__(self) -> None:
        self._when: dict[_Name, float] = {}
        self._heap: list[tuple[float, int, _Name]] = []
        self._count = 0

    def set(self, name: _Name, when: float) -> None:
        """Have `name` fire at `when`, and at no other time. Infinity: never."""
        if when == float("inf"):
            self.cancel(name)
        elif self._when.get(name) != when:
            self._when[name] = when
            self._push(when, name)

    def cancel(self, name: _Name) -> None:
        """Have `name` not fire. No error where it was not set."""
        self._when.pop(name, None)

    def when(self, name: _Name) -> float | None:
        """When `name` fires, None if it is not set."""
        return self._when.get(name)

    def deadline(self) -> float | None:
        """When the next one fires, None if none is set."""
        while self._heap:
            when, _, name = self._heap[0]
            if self._when.get(name) == when:
                return when
            heapq.heappop(self._heap)
        return None

    def due(self, now: float) -> list[_Name]:
        """Those that have come by `now`, in order; they are no longer set."""
        names: list[_Name] = []
        while (when := self.deadline()) is not None and when <= now:
            name = heapq.heappop(self._heap)[2]
            del self._when[name]
            names.append(name)
        return names

    def _push(self, when: float, name: _Name) -> None:
        # Entries of timers that were moved or cancelled stay in the heap until they come up or are
        # too many.
        if len(self._heap) > 64 + 2 * len(self._when):
            self._heap = [
                (at, at_count, each)
                for at, at_count, each in self._heap
                if self._when.get(each) == at
            ]
            heapq.heapify(self._heap)
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, name))
