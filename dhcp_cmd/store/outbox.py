"""The outbox as its sender sees it: signals to claim, what they are about, and their end. See the table `signal`.

Several senders may share a database. A signal is sent by the CMD that wrote it, and by another one when that one has
not said for a while that it still does; where nobody was named, by whoever comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import and_, bindparam, delete, or_, select, tuple_, update

from dhcp_cmd.core.model import Binding, Domain, MaarId, Micros, Node, NodeId, State
from dhcp_cmd.store import statements as q
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import Mode, reading
from dhcp_cmd.store.rows import CLAIM
from dhcp_cmd.store.sql import SqlStore

Key: TypeAlias = tuple[NodeId, MaarId]

MOST_CLAIMED = 1_000
"""Signals claimed at a time."""

_signal = t.signal.c
_KEY = tuple_(_signal.node_id, _signal.maar_id)


class Owed(NamedTuple):
    """A signal, and all that its PBU is made of. `serial` tells whether the row is still the one that was read."""

    maar: MaarId
    serial: int
    visit: bool
    node: Node
    bindings: tuple[Binding, ...]


class SqlOutbox:
    """The signals of one sender, `owner`. All methods raise StoreError.

    A sender that is started again under the same name goes on with what it had; so no two that run may share one.
    """

    def __init__(self, store: SqlStore, owner: str) -> None:
        self._store = store
        self._owner = owner

    def claim(self, now: Micros, *, left_before: Micros | None = None) -> list[Key]:
        """Signals that are now this sender's and were nobody's, or no longer somebody's; also those that an earlier
        process of its name has left before a time. The oldest first, MOST_CLAIMED at most."""
        free = _signal.claimed_until <= now
        if left_before is not None:
            # Whoever wrote or kept one at a time has it until CLAIM after that.
            left = and_(_signal.owner == self._owner, _signal.claimed_until < left_before + CLAIM)
            free = or_(free, left)
        wanted = (
            select(_signal.node_id, _signal.maar_id)
            .where(free)
            .order_by(_signal.put_at, _signal.node_id, _signal.maar_id)
            .limit(MOST_CLAIMED)
        )
        with reading(self._store.engine) as connection:
            if connection.execute(wanted.limit(1)).first() is None:
                return []  # nearly always, and nobody had to wait for it
        with self._store.administration() as connection:
            rows = connection.execute(wanted.with_for_update(skip_locked=True)).all()
            keys: list[Key] = [(row[0], row[1]) for row in rows]
            claimed = {"owner": self._owner, "claimed_until": now + CLAIM}
            connection.execute(update(t.signal).where(_KEY.in_(keys)).values(claimed))
        return keys

    def keep(self, now: Micros) -> None:
        """Say that this sender still sends what is its own."""
        values = {"claimed_until": now + CLAIM}
        with self._store.administration() as connection:
            connection.execute(update(t.signal).where(_signal.owner == self._owner).values(values))

    def look(self, keys: Sequence[Key]) -> tuple[Domain, dict[Key, Owed]]:
        """The domain, and what is owed now of `keys`; what is no longer this sender's is not among it."""
        nodes = list({node for node, _ in keys})
        asked = set(keys)
        with self._store.transaction(Mode.READ) as transaction:
            domain = transaction.domain()
            signals = [
                row
                for row in transaction.rows(q.OWED, nodes)
                if (row[0], row[1]) in asked and row[4] == self._owner
            ]
            found = transaction.nodes(list({row[0] for row in signals}))
        return domain, {
            (node, maar): Owed(maar, serial, bool(visit), *found[node])
            for node, maar, serial, visit, _ in signals
            if node in found
        }

    def heard(self, keys: Sequence[Key]) -> set[Key]:
        """Of `keys`, the MAARs that have acknowledged where the node is, to whatever sender, and anchor something."""
        nodes = list({node for node, _ in keys})
        with self._store.transaction(Mode.READ) as transaction:
            waiting = {(row[0], row[1]) for row in transaction.rows(q.SIGNALS, nodes) if row[2]}
            held = transaction.nodes(nodes)
        anchored = {
            (node, binding.anchor)
            for node, (_, bindings) in held.items()
            for binding in bindings
            if binding.state is not State.ENDED
        }
        return {key for key in keys if key in anchored and key not in waiting}

    def finish(self, done: Iterable[tuple[Key, int]]) -> None:
        """These signals, each with the serial it had when it was sent, have been acknowledged, or cannot be. One that
        was put anew meanwhile stays."""
        rows = [
            {"node": node, "maar": maar, "was": serial} for (node, maar), serial in sorted(done)
        ]
        if rows:
            with self._store.administration() as connection:
                connection.execute(_FINISH, rows)


_FINISH: Any = delete(t.signal).where(
    and_(
        _signal.node_id == bindparam("node"),
        _signal.maar_id == bindparam("maar"),
        _signal.serial == bindparam("was"),
    )
)


class Watch:
    """When to look for signals that others have put: at each `interval`, in seconds."""

    interval = 0.02

    def may_have_news(self) -> bool:
        """Whether somebody else may have put signals since the last question."""
        return True

    def close(self) -> None:
        """Stop looking."""


class SqliteWatch(Watch):
    """On SQLite it costs next to nothing to see whether anybody has committed."""

    interval = 0.005

    def __init__(self, store: SqlStore) -> None:
        self._connection: Any = store.engine.raw_connection()
        self._version: object = None

    def may_have_news(self) -> bool:
        """Whether another connection has committed since the last question."""
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except Exception:  # it will be heard of by who looks
            return True
        changed = bool(version != self._version)
        self._version = version
        return changed

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


def watch(store: SqlStore) -> Watch:
    """What its engine offers."""
    return SqliteWatch(store) if store.engine.dialect.name == "sqlite" else Watch()
