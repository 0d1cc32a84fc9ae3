"""What waits to be answered. Under overload the oldest goes: its sender has asked again, or is about to. What is not
asked again for long may wait the longer: to drop it would help nobody, and leave a node of a crowd that moves without
an answer.

Where more waits than can be answered at once, what finishes an exchange goes before what begins one: else Solicits
would be answered whose Requests are dropped afterwards, and all the work is done for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
From = TypeVar("From", bound=Hashable)

OPENING_SHARE: Final = 4
"""One in so many of a batch is for what begins an exchange, however much waits of the rest."""

LASTING: Final = 10.0
"""So many times longer than others what is asked again so much later may wait: a Solicit or Request is repeated after
1 s, a Renew or Rebind after 10 s (RFC 9915 section 7.6)."""

_when: Final = itemgetter(0)


class _Queue(Generic[Item]):
    """What waits of one side, each sort the oldest first."""

    __slots__ = ("going_on", "opening")

    def __init__(self) -> None:
        self.opening: deque[tuple[float, Item]] = deque()
        self.going_on: deque[tuple[float, Item]] = deque()

    def __len__(self) -> int:
        return len(self.opening) + len(self.going_on)

    def take(self, most: int) -> list[tuple[float, Item]]:
        """At most so many, in the order in which they came."""
        openings = max(most - len(self.going_on), most // OPENING_SHARE)
        taken = [self.opening.popleft() for _ in range(min(openings, len(self.opening)))]
        others = min(most - len(taken), len(self.going_on))
        taken += [self.going_on.popleft() for _ in range(others)]
        # Of two messages of one node, the later one says where it is.
        taken.sort(key=_when)
        return taken


class WaitingRoom(Generic[From, Item]):
    """Items that wait, by where they came from: a flood from one side leaves the others their turn.

    At most `most` items wait for each side, none longer than `longest` seconds, or LASTING times that if it `lasts`.
    `opens` says of an item whether it begins an exchange.
    """

    def __init__(
        self,
        most: int,
        longest: float,
        opens: Callable[[Item], bool],
        lasts: Callable[[Item], bool],
    ) -> None:
        self.most = most
        self.longest = longest
        self._opens = opens
        self._lasts = lasts
        self._queues: dict[From, _Queue[Item]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def waiting(self, side: From) -> int:
        """How many wait that came from there."""
        return len(self._queues.get(side, ()))

    def add(self, side: From, items: list[tuple[float, Item]]) -> int:
        """Let `items` wait, each with when it came (seconds), in this order; returns how many were dropped for it."""
        queue = self._queues.setdefault(side, _Queue())
        opens = self._opens
        for each in items:
            (queue.opening if opens(each[1]) else queue.going_on).append(each)
        surplus = max(len(queue) - self.most, 0)
        for _ in range(surplus):
            (queue.opening or queue.going_on).popleft()
        return surplus

    def drop_old(self, now: float) -> int:
        """Drop what has waited too long at `now`; returns how many."""
        dropped = 0
        for both in self._queues.values():
            for queue in (both.opening, both.going_on):
                kept: list[tuple[float, Item]] = []
                while queue and (age := now - queue[0][0]) > self.longest:
                    oldest = queue.popleft()
                    if age <= LASTING * self.longest and self._lasts(oldest[1]):
                        kept.append(oldest)
                    else:
                        dropped += 1
                queue.extendleft(reversed(kept))
        return dropped

    def take(self, most: int) -> list[tuple[From, Item]]:
        """The next batch, at most `most` items: of each side in turn, in equal shares, in the order in which they
        came.
        """
        taken: list[tuple[From, Item]] = []
        sides = [(side, queue) for side, queue in self._queues.items() if len(queue)]
        while sides and len(taken) < most:
            share = max(1, (most - len(taken)) // len(sides))
            for side, queue in sides:
                found = queue.take(min(share, most - len(taken)))
                taken += [(side, item) for _, item in found]
            sides = [(side, queue) for side, queue in sides if len(queue)]
        return taken

    def forget(self, side: From) -> int:
        """Drop all that came from there; returns how many."""
        return len(self._queues.pop(side, ()))
