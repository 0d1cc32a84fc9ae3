"""Which of two messages about the same visit was sent later, though it came before."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from dmm_wire.identity import Identity

OVERTAKEN: Final = 10.0
"""Seconds for which a message may come after one that was sent later about the same visit."""

_BEHIND: Final = 1 << 12
"""How many sequence numbers behind a message still was overtaken; beyond, its sender counts anew."""


class Order:
    """The last message of each sender about each node, for `OVERTAKEN` seconds."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[bytes, Identity], tuple[int, int, float]] = OrderedDict()
        """Generation, sequence number, and when."""

    def is_overtaken(
        self, sender: bytes, node: Identity, generation: int, sequence: int, now: float
    ) -> bool:
        """Whether the sender has said something later about the same visit, to which the generation
        is equal: RFC 6275 section 9.5.1 has the sequence number for that. Else this one is the last
        from now on."""
        while self._last and next(iter(self._last.values()))[2] + OVERTAKEN <= now:
            self._last.popitem(last=False)
        place = (sender, node)
        last = self._last.get(place)
        if (
            last is not None
            and last[0] == generation
            and 0 < (last[1] - sequence) & 0xFFFF < _BEHIND
        ):
            return True
        self._last[place] = (generation, sequence, now)
        self._last.move_to_end(place)
        return False
