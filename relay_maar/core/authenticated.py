"""The mobility guard in the MAAR's service: what it refuses is counted, answered and told, and what it
has accepted is in the file before anybody acts on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from dmm_wire.mobility import BindingAcknowledgement, BindingUpdate, Guard, Refused
from dmm_wire.mobility.refusals import Refusals, without_key
from relay_maar.core.actions import Action, Log, SaveSession, SendMobility
from relay_maar.core.records import mark_name, mark_record, read_mark


class Authenticated:
    """Lets through what the guard accepts. Raises WireError as `Guard.incoming` does."""

    def __init__(self, guard: Guard, counters: Counter[str]) -> None:
        self._guard = guard
        self._refusals = Refusals(counters, "auth.")

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
        line = self._refusals.count(source, verdict, now)
        actions: list[Action] = []
        if verdict.answer is not None:
            actions.append(SendMobility(source, verdict.answer))
        if line is not None:
            actions.append(Log("warning", line))
        return None, actions

    def keyless(self, peers: Iterable[bytes]) -> list[Action]:
        """Tell the operator which of those that we speak with are shut out."""
        line = without_key(self._guard, peers)
        return [] if line is None else [Log("warning", line)]
