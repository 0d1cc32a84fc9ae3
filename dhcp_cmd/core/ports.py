"""What the CMD's core asks of a store. `dhcp_cmd.store` implements it in SQL, the tests also in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from dhcp_cmd.core.model import (
    Binding,
    Change,
    Domain,
    Lookup,
    MaarId,
    Micros,
    Need,
    NodeId,
    Snapshot,
)


class StoreError(Exception):
    """The database did not do it (locked, full, away): our fault or the operator's, never the client's.

    Nothing of the transaction is kept, so nothing may be answered; the client's retransmission tries again.
    """


class Collision(StoreError):
    """Somebody else took the same prefix, identity or row first: read again and decide again."""


class Refused(StoreError):
    """The database is there and does not take what is to be written: the fault of one request, not of the database."""


class Transaction(Protocol):
    """One transaction: nothing of it is visible or durable before `commit` returned. Leaving it without, or by an
    exception, rolls it back. Every method may raise StoreError."""

    def domain(self) -> Domain:
        """The domain as of this transaction (cached by its version)."""
        ...

    def read(self, lookups: Sequence[Lookup]) -> Snapshot:
        """One read for all requests of a batch. What it says of the nodes found stays so until the transaction is over:
        where others write at the same time, their rows are locked first, in the order of their ids. What was not found
        may be there by the time of `write`, which then raises Collision, as this may."""
        ...

    def supply(self, snapshot: Snapshot, need: Need) -> None:
        """Add to `snapshot` what a decision asked for."""
        ...

    def signals(self, snapshot: Snapshot) -> None:
        """Add to `snapshot` what is owed to MAARs about its nodes. A signal may be finished meanwhile: that one was
        acknowledged, and is owed no less than what is decided now."""
        ...

    def due(self, now: Micros, limit: int) -> list[Binding]:
        """At most `limit` bindings to reap: first those not ENDED with `valid_until` or `hold_until` <= now, then those
        ENDED with `reusable_at` <= now, each sort in the order of these times. Those of nodes that another transaction
        is about are left for the next time."""
        ...

    def idle(self, before: Micros, limit: int) -> list[NodeId]:
        """At most `limit` nodes without any binding, not even an ENDED one, whose visit began at `before` or earlier,
        the one that moved longest ago first; those that another transaction is about are left for the next time."""
        ...

    def anchored_away(self, maar: MaarId) -> list[NodeId]:
        """The nodes elsewhere that this MAAR anchors something for, in the order of their ids, in which they are
        locked. Nothing else may have been read by this transaction."""
        ...

    def write(self, changes: Sequence[Change]) -> None:
        """Write changes, history rows too, in few statements. Raises Collision when somebody else was first: nothing of
        this transaction can be kept, another one will read what that one did. Raises Refused for a row that cannot be
        written, whatever others do."""
        ...

    def commit(self) -> None:
        """Make it durable. Raises StoreError (or Collision): then nothing was written."""
        ...


class Store(Protocol):
    """Where bindings and their history live."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that may write (SQLite: BEGIN IMMEDIATE)."""
        ...
