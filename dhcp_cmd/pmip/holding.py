"""Answers that wait for the P-MAARs to acknowledge (mode relay, RFC 8885 section 3.2). No clock, no sockets."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from dhcp_cmd.core.model import Hold, MaarId, NodeId
from dmm_wire.timers import Timers

Answer = TypeVar("Answer")

MOST_HELD = 4096
"""Answers held at a time. What comes beyond makes the oldest go, with what it has."""


class Released(NamedTuple, Generic[Answer]):
    """An answer that goes now, and the endpoints of those that have not acknowledged."""

    answer: Answer
    unheard: tuple[bytes, ...]


@dataclass(slots=True)
class _Held(Generic[Answer]):
    answer: Answer
    node: NodeId
    waiting: dict[MaarId, bytes]
    without: list[bytes] = field(default_factory=list)
    """Those that have refused something: what they anchor is no longer what the answer says."""


class Holding(Generic[Answer]):
    """Answers by what tells a message from others; the answer to one that was sent again takes the place of the first,
    and is no later. Times are seconds."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self._most = most
        self._held: dict[Hashable, _Held[Answer]] = {}
        self._ends: Timers[Hashable] = Timers()
        self._over: dict[Hashable, None] = {}
        """Those whose time is over, until they are taken."""
        self._by_node: dict[NodeId, dict[Hashable, None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(
        self, message: Hashable, answer: Answer, hold: Hold, until: float
    ) -> list[Released[Answer]]:
        """Keep this answer until then at most; what has to go for it."""
        if message in self._held:
            end = self._ends.when(message)
            until = -math.inf if end is None else min(until, end)
            self._pop(message)
        self._held[message] = _Held(answer, hold.node, dict(hold.anchors))
        self._ends.set(message, until)
        self._by_node.setdefault(hold.node, {})[message] = None
        released = []
        while len(self._held) > self._most:
            released.append(self._release(next(iter(self._held))))
        return released

    def is_waited_for(self, node: NodeId, maar: MaarId) -> bool:
        """Whether an answer waits for this MAAR to acknowledge where this node is."""
        return any(maar in self._held[m].waiting for m in self._by_node.get(node, ()))

    def acknowledged(self, node: NodeId, maar: MaarId) -> list[Released[Answer]]:
        """It has; the answers that wait for nothing more."""
        return self._heard(node, maar, False)

    def refused(self, node: NodeId, maar: MaarId) -> list[Released[Answer]]:
        """It has refused a part; the answers that wait for nothing more, and go without this MAAR."""
        return self._heard(node, maar, True)

    def _heard(self, node: NodeId, maar: MaarId, refused: bool) -> list[Released[Answer]]:
        released = []
        for message in list(self._by_node.get(node, ())):
            held = self._held[message]
            endpoint = held.waiting.pop(maar, None)
            if refused and endpoint is not None:
                held.without.append(endpoint)
            if not held.waiting:
                released.append(self._release(message))
        return released

    def deadline(self) -> float | None:
        """When the time of one is over."""
        return self._ends.deadline()

    def overdue(self, now: float) -> list[tuple[NodeId, MaarId]]:
        """The MAARs that those wait for whose time is over, each with the node that it is about."""
        self._over.update(dict.fromkeys(self._ends.due(now)))
        over = [self._held[message] for message in self._over]
        return list(dict.fromkeys((held.node, maar) for held in over for maar in held.waiting))

    def due(self, now: float) -> list[Released[Answer]]:
        """Those whose time is over."""
        self._over.update(dict.fromkeys(self._ends.due(now)))
        return [self._release(message) for message in list(self._over)]

    def _release(self, message: Hashable) -> Released[Answer]:
        held = self._pop(message)
        return Released(held.answer, (*held.without, *held.waiting.values()))

    def _pop(self, message: Hashable) -> _Held[Answer]:
        held = self._held.pop(message)
        self._ends.cancel(message)
        self._over.pop(message, None)
        messages = self._by_node[held.node]
        del messages[message]
        if not messages:
            del self._by_node[held.node]
        return held
