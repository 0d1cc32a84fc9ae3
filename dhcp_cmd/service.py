"""The CMD's service: a batch of requests in, one transaction, decisions out once it is committed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from dhcp_cmd.core.apply import apply
from dhcp_cmd.core.decide import decide
from dhcp_cmd.core.errors import Undecidable
from dhcp_cmd.core.lookup import lookup
from dhcp_cmd.core.model import (
    BindingRequest,
    Change,
    Decision,
    Domain,
    EventType,
    Lookup,
    Micros,
    Need,
    NodeId,
    Record,
    Settings,
    Snapshot,
)
from dhcp_cmd.core.ports import Collision, Store, StoreError, Transaction
from dhcp_cmd.core.reap import reap

MAX_TRIES = 3
"""How often a batch is decided anew because somebody else was first."""
MAX_READS = 16
"""Further reads that one request may need, beside one for each request before it in the batch."""
MAX_CONFLICTS_REMEMBERED = 10_000

_Conflict = tuple[NodeId, str | None, int | None]
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Cmd:
    """The Central Mobility Database on a store. Not for use by two threads at once.

    `outcomes` counts what became of requests, by `Decision.outcome`.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.outcomes: Counter[str] = Counter()
        self._conflicts: dict[_Conflict, None] = {}
        self._logged: set[str] = set()

    def handle(self, requests: Sequence[BindingRequest], now: Micros) -> list[Decision]:
        """Decide `requests` in order, each seeing what those before it did, and commit; one decision for each.

        `now` is in microseconds since the epoch. What is returned is durable and may be sent. A request that cannot
        be decided for a fault of ours has the outcome "internal-error" and no reply; the others go on. Raises
        StoreError when the database did not do it: then nothing may be answered.
        """
        if not requests:
            return []
        try:
            decisions = self._retried(lambda salt: self._transact(requests, now, salt))
        except Exception as error:
            if len(requests) == 1 and not isinstance(error, StoreError):
                decisions = [self._internal_error(error)]
            elif len(requests) == 1 or not _is_of_one(error):
                raise
            else:  # one of them spoils it for all: let each stand for itself
                return [self._alone(each, now) for each in requests]
        self._count(decisions)
        return decisions

    def reap(self, now: Micros, limit: int) -> int:
        """Record the ends and free the prefixes that are due, at most `limit` of them; returns how many were due.

        Call again while it returns `limit`. Raises StoreError.
        """

        def once(_salt: int) -> int:
            with self.store.transaction() as transaction:
                due = transaction.due(now, limit)
                changes = reap(due, now, self.settings)
                if changes:
                    transaction.write(changes)
                    transaction.commit()
                return len(due)

        return self._retried(once)

    def _alone(self, request: BindingRequest, now: Micros) -> Decision:
        try:
            return self.handle([request], now)[0]
        except Collision:
            decision = Decision(None, None, (), (), "collision")
            self._count([decision])
            return decision

    def _retried(self, work: Callable[[int], _T]) -> _T:
        for salt in range(MAX_TRIES - 1):
            try:
                return work(salt)
            except Collision:
                self.outcomes["batch-retried"] += 1
        return work(MAX_TRIES - 1)

    def _transact(
        self, requests: Sequence[BindingRequest], now: Micros, salt: int
    ) -> list[Decision]:
        with self.store.transaction() as transaction:
            domain = transaction.domain()
            snapshot = transaction.read([self._lookup(each, domain) for each in requests])
            decisions: list[Decision] = []
            changes: list[Change] = []
            told: dict[_Conflict, None] = {}
            for request in requests:
                try:
                    reads = MAX_READS + len(decisions)
                    decision = self._decide(request, snapshot, transaction, now, salt, reads)
                except StoreError:
                    raise
                except Exception as error:
                    decision = self._internal_error(error)
                wanted = self._without_repeated_conflicts(decision.changes, told)
                apply(snapshot, wanted)
                changes += wanted
                decisions.append(decision)
            if changes:
                transaction.write(changes)
                transaction.commit()
        self._remember(told)
        return decisions

    def _lookup(self, request: BindingRequest, domain: Domain) -> Lookup:
        try:
            return lookup(request, domain, self.settings)
        except Exception:  # `decide` meets the same fault again, and it is reported there
            return Lookup((), ())

    def _decide(
        self,
        request: BindingRequest,
        snapshot: Snapshot,
        transaction: Transaction,
        now: Micros,
        salt: int,
        reads: int,
    ) -> Decision:
        for _ in range(reads):
            decision = decide(request, snapshot, self.settings, now, salt)
            if not isinstance(decision, Need):
                return decision
            transaction.supply(snapshot, decision)
        raise Undecidable(f"still asking after {reads} reads")

    def _without_repeated_conflicts(
        self, changes: Sequence[Change], told: dict[_Conflict, None]
    ) -> list[Change]:
        """A row in the history for each conflict, not for each packet of it."""
        wanted: list[Change] = []
        for change in changes:
            if isinstance(change, Record) and change.event.type is EventType.CONFLICT:
                event = change.event
                conflict = (event.node, event.detail, event.generation)
                if conflict in self._conflicts or conflict in told:
                    continue
                told[conflict] = None
            wanted.append(change)
        return wanted

    def _remember(self, told: dict[_Conflict, None]) -> None:
        self._conflicts |= told
        while len(self._conflicts) > MAX_CONFLICTS_REMEMBERED:
            del self._conflicts[next(iter(self._conflicts))]

    def _internal_error(self, error: Exception) -> Decision:
        kind = f"{type(error).__name__}: {error}"[:200]
        if type(error).__name__ not in self._logged:
            self._logged.add(type(error).__name__)
            _log.error("a request could not be decided: %s", kind, exc_info=error)
        return Decision(None, None, (), (), "internal-error")

    def _count(self, decisions: Sequence[Decision]) -> None:
        self.outcomes.update(decision.outcome for decision in decisions)


def _is_of_one(error: Exception) -> bool:
    """Whether a failure may be the fault of one request: a collision that persists, or a bug; not the database."""
    return isinstance(error, Collision) or not isinstance(error, StoreError)
