"""What a guard refuses, counted by its reason and, now and then, told to the operator."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from dmm_wire.address import format_address
from dmm_wire.mobility.guard import Guard, Refused

_PAUSE: Final = 10.0
"""Seconds between two lines about messages that were refused."""

_NAMED: Final = 16
"""Peers in one line."""

_TOLD: Final = {
    "unsigned": "is not signed",
    "spi": "is signed by a key that is not shared with it",
    "forged": "is not signed by the key that it names",
    "untimed": "has no timestamp",
    "stale": "has a timestamp that is not near our clock",
}
"""What is worth a line; the rest happens on any network."""


class Refusals:
    """Counts in `counters`, under `prefix`."""

    def __init__(self, counters: Counter[str], prefix: str) -> None:
        self._counters = counters
        self._prefix = prefix
        self._told = -math.inf

    def count(self, source: bytes, refused: Refused, now: float) -> str | None:
        """Count what was refused, and its answer. Returns the line for the log, if it is time for one."""
        self._counters[f"{self._prefix}{refused.reason}"] += 1
        if refused.answer is not None:
            self._counters[f"{self._prefix}answered-{refused.answer.status}"] += 1
        if refused.reason not in _TOLD or now < self._told + _PAUSE:
            return None
        self._told = now
        return f"a PBU or PBA from {format_address(source)} {_TOLD[refused.reason]}: refused"


def without_key(guard: Guard, peers: Iterable[bytes]) -> str | None:
    """The line that tells the operator who is shut out, if somebody is."""
    names = ", ".join(map(format_address, guard.keyless(sorted(peers))[:_NAMED]))
    return f"no key is shared with {names}: nothing of theirs is accepted" if names else None
