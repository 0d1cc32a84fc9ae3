"""The mobility guard in the MAAR's service: what it refuses is counted, answered and told, and what it
has accepted is in the file before anybody acts on it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dmm_wire.address import format_address
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingUpdate,
    Guard,
    Refused,
)
from relay_maar.core.actions import Action, Log, SaveSession, SendMobility
from relay_maar.core.records import mark_name, mark_record, read_mark

_TELLING_PAUSE: Final = 10.0
"""Seconds between two lines in the log about messages that were refused."""

_TOLD: Final = {
    "unsigned": "is not signed",
    "spi": "is signed by a key that is not shared with it",
    "forged": "is not signed by the key that it names",
    "untimed": "has no timestamp",
    "stale": "has a timestamp that is not near our clock",
}
"""What is worth a line; the rest happens on any network."""


class Authenticated:
    """Lets through what the guard accepts. Raises WireError as `Guard.incoming` does."""

    def __init__(self, guard: Guard, counters: Counter[str]) -> None:
        self._guard = guard
        self._counters = counters
        self._told = -math.inf

    def restore(self, record: Mapping[str, Any], now: float) -> None:
        """Take up a record of kind `mark`. Raises ValueError for a damaged one."""
        peer, mark = read_mark(record)
        self._guard.restore(peer, mark, now)

    def incoming(
        self, source: bytes, data: bytes, now: float
    ) -> tuple[BindingUpdate | BindingAcknowledgement | None, list[Action]]:
        """The message, None if it was refused, and what is to be done before all else."""
        verdict = self._guard.incoming(source, data, now)
        if not isinstance(verdict, Refused):
            if verdict.mark is None:
                return verdict.message, []
            record = mark_record(source, verdict.mark)
            return verdict.message, [SaveSession(mark_name(source), record)]
        self._counters[f"auth.{verdict.reason}"] += 1
        actions: list[Action] = []
        if verdict.answer is not None:
            self._counters[f"auth.answered-{verdict.answer.status}"] += 1
            actions.append(SendMobility(source, verdict.answer))
        if verdict.reason in _TOLD and now >= self._told + _TELLING_PAUSE:
            self._told = now
            what = f"a PBU or PBA from {format_address(source)} {_TOLD[verdict.reason]}: refused"
            actions.append(Log("warning", what))
        return None, actions

    def keyless(self, peers: Iterable[bytes]) -> list[Action]:
        """Tell the operator which MAARs of the domain are shut out."""
        names = ", ".join(map(format_address, self._guard.keyless(sorted(peers))[:16]))
        if not names:
            return []
        return [Log("warning", f"no key is shared with {names}: nothing of theirs is accepted")]
