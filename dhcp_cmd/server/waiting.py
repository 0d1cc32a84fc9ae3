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
    """What waits of one side, each sort the oldest first: so the oldest of each is found without a look at the rest,
    of which there is much when there is no time for that."""

    __slots__ = ("going_on", "lasting", "opening")

    def __init__(self) -> None:
        self.opening: deque[tuple[float, Item]] = deque()
        self.going_on: deque[tuple[float, Item]] = deque()
        self.lasting: deque[tuple[float, Item]] = deque()

    def __len__(self) -> int:
        return len(self.opening) + len(self.going_on) + len(self.lasting)

    def take(self, most: int) -> list[tuple[float, Item]]:
        """At most so many, in the order in which they came."""
        others = len(self.going_on) + len(self.lasting)
        openings = min(max(most - others, most // OPENING_SHARE), len(self.opening))
        taken = [self.opening.popleft() for _ in range(openings)]
        taken += [self._next_other().popleft() for _ in range(min(most - openings, others))]
        # Of two messages of one node, the later one says where it is.
        taken.sort(key=_when)
        return taken

    def _next_other(self) -> deque[tuple[float, Item]]:
        """Where the oldest is that does not begin an exchange, of which there is one."""
        if not self.lasting:
            return self.going_on
        if not self.going_on or self.lasting[0][0] < self.going_on[0][0]:
            return self.lasting
        return self.going_on


class WaitingRoom(Generic[From, Item]):
    """Items that wait, by where they came from: a flood from one side leaves the others their turn.

    At most `most` items wait for each side, none longer than `longest` seconds, or LASTING times that if it `lasts`.
    `opens` says of an item whether it begins an exchange; what does never lasts.
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
        opens, lasts = self._opens, self._lasts
        for each in items:
            if opens(each[1]):
                queue.opening.append(each)
            elif lasts(each[1]):
                queue.lasting.append(each)
            else:
                queue.going_on.append(each)
        surplus = max(len(queue) - self.most, 0)
        for _ in range(surplus):
            (queue.opening or queue.going_on or queue.lasting).popleft()
        return surplus

    def drop_old(self, now: float) -> int:
        """Drop what has waited too long at `now`; returns how many."""
        dropped = 0
        for each in self._queues.values():
            for queue, longest in (
                (each.opening, self.longest),
                (each.going_on, self.longest),
                (each.lasting, LASTING * self.longest),
            ):
                while queue and now - queue[0][0] > longest:
                    queue.popleft()
                    dropped += 1
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
