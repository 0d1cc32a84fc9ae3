"""The CMD's service: a batch of requests in, one transaction, decisions out once it is committed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias, TypeVar

from dhcp_cmd.core.apply import apply
from dhcp_cmd.core.decide import decide
from dhcp_cmd.core.errors import Undecidable
from dhcp_cmd.core.inquire import Inquiry, foresee, inquire, inquire_registration, window_at
from dhcp_cmd.core.link import link, unlink
from dhcp_cmd.core.model import (
    MICROS,
    BindingRequest,
    Change,
    Decision,
    Domain,
    DropNode,
    Lookup,
    MaarId,
    Micros,
    Need,
    NodeId,
    PutNode,
    PutSignal,
    Registration,
    Settings,
    Signal,
    Snapshot,
)
from dhcp_cmd.core.ports import Collision, Refused, Store, StoreError, Transaction
from dhcp_cmd.core.reap import reap
from dhcp_cmd.core.signals import RAISED, TOO_FAR, later_visit, owed, refused
from dmm_wire.address import Prefix
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity

_DIRECT: Final = SignallingMode.DIRECT

MAX_TRIES = 5
"""How often a batch is decided because somebody else was first. Each time that somebody has got on."""
MAX_READS = 16
"""Further reads that one IA may need, beside one for each request before its own in the batch."""

Clock: TypeAlias = Callable[[], Micros]
"""Microseconds since the epoch (UTC)."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Cmd:
    """The Central Mobility Database on a store. Not for use by two threads at once.

    `lane` (0 to 63) is best another one for each CMD on one database: it says out of which part of a pool they
    allocate first. `outcomes` counts what became of requests, by `Decision.outcome`; `commits` the transactions that
    wrote something. `signalled` has the signals that were committed, by node and MAAR; whoever sends them empties it.
    """

    def __init__(self, store: Store, settings: Settings, lane: int = 0) -> None:
        self.store = store
        self.settings = settings
        self.lane = lane
        self.outcomes: Counter[str] = Counter()
        self.commits = 0
        self.signalled: dict[tuple[NodeId, MaarId], None] = {}
        self._logged: set[str] = set()

    def handle(
        self, requests: Sequence[BindingRequest | Registration], clock: Clock
    ) -> list[Decision]:
        """Decide `requests` in order, each seeing what those before it did, and commit; one decision for each.

        `clock` is read after any wait for others who write about the same nodes: what is committed later is later. What
        is returned is durable and may be sent. A batch that collides again and again with what others write, or that
        one request spoils, is halved. In the end such a request has the outcome "collision", one that cannot be decided
        or written for a fault of ours "internal-error", both no reply; the others go on. Raises StoreError when the
        database did not do it: then nothing may be answered.
        """
        if not requests:
            return []
        try:
            decisions = self._retried(lambda salt: self._transact(requests, clock, salt))
        except Exception as error:
            if not _is_of_one(error):
                raise
            if len(requests) > 1:
                middle = len(requests) // 2
                first = self.handle(requests[:middle], clock)
                return [*first, *self.handle(requests[middle:], clock)]
            decisions = [self._spoilt(error)]
        for decision in decisions:
            self.outcomes[decision.outcome] += 1
        if self.outcomes[TOO_FAR] and TOO_FAR not in self._logged:
            self._logged.add(TOO_FAR)
            _log.error("a MAAR knows a visit that is far ahead of our clock: not believed")
        for maar in {each.forgot for each in decisions if each.forgot is not None}:
            self.tell_again(maar, clock())
        return decisions

    def tell_again(self, maar: MaarId, now: Micros) -> int:
        """The MAAR has lost what it knew: it is owed again what it anchors for each node that is elsewhere. Returns of
        how many. Raises StoreError."""

        def once(_salt: int) -> int:
            with self.store.transaction() as transaction:
                nodes = transaction.anchored_away(maar)
                changes = [PutSignal(Signal(node, maar, False, now)) for node in nodes]
                if changes:
                    self._write(transaction, changes)
                return len(nodes)

        return self._retried(once)

    def reap(self, now: Micros, limit: int) -> int:
        """Record the ends and free the prefixes that are due, and forget the nodes that have held nothing for long, at
        most `limit` of all of them; returns how many there were.

        Call again while it returns `limit`. Raises StoreError.
        """

        def once(_salt: int) -> int:
            with self.store.transaction() as transaction:
                due = transaction.due(now, limit)
                changes = reap(due, now, self.settings)
                transaction.write(changes)
                before = now - self.settings.node_retention * MICROS
                idle = transaction.idle(before, limit - len(due))
                transaction.write([DropNode(node) for node in idle])
                if due or idle:
                    transaction.commit()
                    self._committed(changes)
                return len(due) + len(idle)

        return self._retried(once)

    def anchor_refused(
        self, identity: Identity, anchor: MaarId, prefixes: Iterable[Prefix], now: Micros
    ) -> None:
        """The anchor says that it does not serve these prefixes of the node: they end. Raises StoreError."""

        def once(_salt: int) -> None:
            with self.store.transaction() as transaction:
                snapshot = transaction.read([Lookup((identity,))])
                node = snapshot.nodes.get(identity)
                if node is None:
                    return
                bindings = snapshot.bindings.get(node.id, {})
                changes = refused(node, bindings, anchor, prefixes, now, self.settings)
                if changes:
                    self._write(transaction, changes)

        self._retried(once)

    def anchor_knows_later(
        self, identity: Identity, anchor: MaarId, known: int, now: Micros
    ) -> str | None:
        """The anchor says that it knows a visit of the node with the generation `known`. Where that is later than ours,
        ours is made the later one, and the anchor is owed it again, as are all others: they may know that visit, too.
        Returns RAISED, TOO_FAR, or None where it is not later. Raises StoreError."""

        def once(_salt: int) -> str | None:
            with self.store.transaction() as transaction:
                snapshot = transaction.read([Lookup((identity,))])
                node = snapshot.nodes.get(identity)
                if node is None or node.serving == anchor:
                    return None
                after = later_visit(node, known, now)
                if after is None or isinstance(after, str):
                    return after
                transaction.signals(snapshot)
                waiting = snapshot.signals.get(node.id, {})
                held = snapshot.bindings.get(node.id, {}).values()
                found = owed(waiting, node, after, held, held, now, left=(anchor,))
                anew = [PutSignal(s) for m, s in found.items() if m in snapshot.domain.maars]
                self._write(transaction, [PutNode(after, False), *anew])
                return RAISED

        return self._retried(once)

    def link(self, first: Identity, second: Identity, now: Micros) -> bool:
        """The operator says that both are one node's; whether that is news. Raises StoreError, `core.link.Unknown`.

        Where something is owed to MAARs about one of the two, a CMD signals, whatever our settings say: who links may
        not know the mode.
        """

        def once(_salt: int) -> bool:
            with self.store.transaction() as transaction:
                snapshot = transaction.read([Lookup((first, second))])
                transaction.signals(snapshot)
                settings = self.settings
                if settings.mode is _DIRECT and any(snapshot.signals.values()):
                    settings = replace(settings, mode=SignallingMode.PROXY)
                changes = link(first, second, snapshot, settings, now)
                if changes:
                    self._write(transaction, changes)
                return bool(changes)

        return self._retried(once)

    def unlink(self, first: Identity, second: Identity) -> bool:
        """The operator says that `second` is not the node's any more that has `first`; whether it was. Raises
        StoreError."""

        def once(_salt: int) -> bool:
            with self.store.transaction() as transaction:
                changes = unlink(first, second, transaction.read([Lookup((first, second))]))
                if changes:
                    self._write(transaction, changes)
                return bool(changes)

        return self._retried(once)

    def _write(self, transaction: Transaction, changes: Sequence[Change]) -> None:
        transaction.write(changes)
        transaction.commit()
        self._committed(changes)

    def _committed(self, changes: Sequence[Change]) -> None:
        self.commits += 1
        if self.settings.mode is _DIRECT:
            return
        for change in changes:
            if isinstance(change, PutSignal):
                self.signalled[change.signal.node, change.signal.maar] = None

    def _retried(self, work: Callable[[int], _T]) -> _T:
        for salt in range(MAX_TRIES - 1):
            try:
                return work(salt)
            except Collision:
                self.outcomes["batch-retried"] += 1
        return work(MAX_TRIES - 1)

    def _transact(
        self, requests: Sequence[BindingRequest | Registration], clock: Clock, salt: int
    ) -> list[Decision]:
        with self.store.transaction() as transaction:
            domain = transaction.domain()
            window = window_at(clock(), self.lane)
            inquiries = [self._inquire(each, domain, window) for each in requests]
            snapshot = transaction.read(
                [each.lookup for each in inquiries if type(each) is Inquiry]
            )
            if self.settings.mode is not _DIRECT:
                transaction.signals(snapshot)
            now = clock()
            foreseen = foresee([each for each in inquiries if type(each) is Inquiry], snapshot)
            if foreseen.last_held:
                transaction.supply(snapshot, foreseen)
            decisions: list[Decision] = []
            changes: list[Change] = []
            for inquiry in inquiries:
                if isinstance(inquiry, Decision):
                    decisions.append(inquiry)
                    continue
                try:
                    reads = MAX_READS * (1 + len(inquiry.request.ias)) + len(decisions)
                    decision = self._decide(inquiry, snapshot, transaction, now, salt, reads)
                except StoreError:
                    raise
                except Exception as error:
                    decision = self._spoilt(error)
                apply(snapshot, decision.changes)
                changes += decision.changes
                decisions.append(decision)
            if changes:
                self._write(transaction, changes)
        return decisions

    def _inquire(
        self, request: BindingRequest | Registration, domain: Domain, window: int
    ) -> Inquiry | Decision:
        try:
            if isinstance(request, Registration):
                return inquire_registration(request, domain, window)
            return inquire(request, domain, self.settings, window)
        except Exception as error:
            return self._spoilt(error)

    def _decide(
        self,
        inquiry: Inquiry,
        snapshot: Snapshot,
        transaction: Transaction,
        now: Micros,
        salt: int,
        reads: int,
    ) -> Decision:
        for _ in range(reads):
            decision = decide(inquiry, snapshot, self.settings, now, salt)
            if not isinstance(decision, Need):
                return decision
            transaction.supply(snapshot, decision)
        raise Undecidable(f"still asking after {reads} reads")

    def _spoilt(self, error: Exception) -> Decision:
        if isinstance(error, Collision):
            return Decision(None, None, (), (), "collision")
        kind = f"{type(error).__name__}: {error}"[:200]
        if type(error).__name__ not in self._logged:
            self._logged.add(type(error).__name__)
            # Of what the database refuses, its line says enough; below it stands the row, which is nobody's business.
            told = None if isinstance(error, Refused) else error
            _log.error("a request could not be decided: %s", kind, exc_info=told)
        return Decision(None, None, (), (), "internal-error")


def _is_of_one(error: Exception) -> bool:
    """Whether a failure may be the fault of one request: a collision that persists, a row that the database does not
    take, or a bug; not the database."""
    return isinstance(error, Collision | Refused) or not isinstance(error, StoreError)
