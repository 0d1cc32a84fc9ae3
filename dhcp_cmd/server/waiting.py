"""What waits to be answered. Under overload the oldest goes: its sender has asked again, or is about to."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")
From = TypeVar("From", bound=Hashable)


class WaitingRoom(Generic[From, Item]):
    """Items that wait, by where they came from: a flood from one side leaves the others their turn.

    At most `most` items wait for each side, none longer than `longest` seconds.
    """

    def __init__(self, most: int, longest: float) -> None:
        self.most = most
        self.longest = longest
        self._queues: dict[From, deque[tuple[float, Item]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def waiting(self, side: From) -> int:
        """How many wait that came from there."""
        return len(self._queues.get(side, ()))

    def add(self, side: From, items: list[tuple[float, Item]]) -> int:
        """Let `items` wait, each with when it came (seconds), in this order; returns how many were dropped for it."""
        queue = self._queues.setdefault(side, deque())
        queue.extend(items)
        surplus = len(queue) - self.most
        for _ in range(surplus):
            queue.popleft()
        return max(surplus, 0)

    def drop_old(self, now: float) -> int:
        """Drop what has waited too long at `now`; returns how many."""
        dropped = 0
        for queue in self._queues.values():
            while queue and now - queue[0][0] > self.longest:
                queue.popleft()
                dropped += 1
        return dropped

    def take(self, most: int) -> list[tuple[From, Item]]:
        """The next batch, at most `most` items: the oldest of each side in turn, in equal shares."""
        taken: list[tuple[From, Item]] = []
        sides = [(side, queue) for side, queue in self._queues.items() if queue]
        while sides and len(taken) < most:
            share = max(1, (most - len(taken)) // len(sides))
            for side, queue in sides:
                count = min(share, len(queue), most - len(taken))
                taken += ((side, queue.popleft()[1]) for _ in range(count))
            sides = [(side, queue) for side, queue in sides if queue]
        return taken

    def forget(self, side: From) -> int:
        """Drop all that came from there; returns how many."""
        return len(self._queues.pop(side, ()))
