"""How often the CMD is asked about nodes that come: those of each link, and each one."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

MOST_OFTEN: Final = 3
"""Questions about a node in a second (MAX_UPDATE_RATE, RFC 6275 section 12)."""

MOST_REMEMBERED: Final = 8192
"""Nodes of which it is remembered when they were asked about."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float


class Rates:
    """`rate` questions in a second, and `burst` of them at once, about the nodes of each link: one on which addresses
    are made up takes nothing from the others."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, _Bucket] = {}
        self._asked: OrderedDict[bytes, deque[float]] = OrderedDict()

    def may_ask(self, interface: str, now: float, *, spare: bool) -> bool:
        """Whether one more node of this link may be asked about: a flood of made-up addresses costs the CMD no more
        than that. `spare`: only if there is plenty."""
        bucket = self._buckets.get(interface)
        if bucket is None:
            bucket = self._buckets[interface] = _Bucket(self._burst, now)
        gained = (now - bucket.filled) * self._rate
        bucket.tokens, bucket.filled = min(self._burst, bucket.tokens + gained), now
        if bucket.tokens < (self._burst / 2 if spare else 1):
            return False
        bucket.tokens -= 1
        return True

    def earliest(self, link_layer: bytes) -> float:
        """From when on the next question about this node may go."""
        asked = self._asked.get(link_layer)
        return float("-inf") if asked is None or len(asked) < MOST_OFTEN else asked[0] + 1.0

    def asked(self, link_layer: bytes, now: float) -> None:
        """A question about this node went."""
        self._asked.setdefault(link_layer, deque(maxlen=MOST_OFTEN)).append(now)
        self._asked.move_to_end(link_layer)
        if len(self._asked) > MOST_REMEMBERED:
            self._asked.popitem(last=False)
