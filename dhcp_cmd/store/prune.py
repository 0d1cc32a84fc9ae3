"""Forgetting: what ended long ago leaves the history, and nodes of which nothing is left leave the database.

Replay stays exact, without a checkpoint: every event names its binding in full, so for each prefix the last event
alone gives the row. That one is therefore never pruned while its binding has a row, nor is the last one before the
limit, without which the state at the limit would be unknown. For what is still held, the assignment that began the
tenure stays too (who-had says since when); the moves in between go.

A running CMD waits for the one write lock two seconds at most. So the search only reads, and what it found is deleted
a little at a time, a transaction each. What is recorded meanwhile makes nothing found worth keeping: it only adds
later events. After a crash the database is sound, for events go in the order in which they were recorded; the next
prune does the rest.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, bindparam, delete, insert, select, text, update

from dhcp_cmd.core.model import Micros
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import backend, reading
from dhcp_cmd.store.sql import SqlStore
from dhcp_cmd.store.types import Time

CHUNK = 500
"""Rows deleted in one transaction: some 20 ms."""


class Pruned(NamedTuple):
    """How much went."""

    events: int
    nodes: int


def _sql(statement: str) -> TextClause:
    return text(statement).bindparams(bindparam("before", type_=Time))


# `last`: of the old events of a prefix, the one that says how things stood at the limit.
# `tenure`: the first one after the last end, the assignment that began the tenure.
# `newer`: normally none is older than an old one; after a clock was set back there may be, and then what was
# recorded after it stays, for replay goes by the order of recording.
_BINDING_EVENTS = """
    SELECT id
    FROM (
        SELECT id, type, at, last, newer,
               min(CASE WHEN at < :before AND id > last_end THEN id END)
                   OVER (PARTITION BY prefix) AS tenure
        FROM (
            SELECT id, type, at, prefix,
                   max(CASE WHEN at < :before THEN id END) OVER (PARTITION BY prefix) AS last,
                   min(CASE WHEN at >= :before THEN id END) OVER (PARTITION BY prefix) AS newer,
                   max(CASE WHEN at < :before AND type IN ('released', 'expired', 'reclaimed')
                            THEN id ELSE 0 END) OVER (PARTITION BY prefix) AS last_end
            FROM history
            WHERE prefix IS NOT NULL AND type <> 'conflict'
        ) AS ranked
    ) AS old
    WHERE at < :before
      AND (newer IS NULL OR id < newer)
      AND (type = 'reclaimed' OR id <> last)
      AND (tenure IS NULL OR id <> tenure)
"""
_CONFLICTS = "SELECT id FROM history WHERE type = 'conflict' AND at < :before"
# The last handover before the limit says where the node was at the limit.
_HANDOVERS = """
    SELECT id FROM history WHERE type = 'handover' AND at < :before AND EXISTS (
        SELECT 1 FROM history AS later
        WHERE later.node_id = history.node_id AND later.type = 'handover' AND later.at < :before
          AND (later.at, later.id) > (history.at, history.id)
    )
"""
_EVENTS = _sql(f"{_BINDING_EVENTS} UNION ALL {_CONFLICTS} UNION ALL {_HANDOVERS} ORDER BY id")

# What the operator says now stays, since when he says it.
_LINK_EVENTS = _sql("""
    SELECT id FROM node_link_event AS said WHERE at < :before AND NOT EXISTS (
        SELECT 1 FROM node_link
        WHERE said.event = 'linked' AND said.at = made_at
          AND node_link.first IN (said.first, said.second) AND node_link.second IN (said.first, said.second)
    )
    ORDER BY id
""")

# Nothing is left of a node but its last handover, and no node that became it still has more.
_NODES = """
    SELECT id FROM mobile_node
    WHERE visit_since < :before
      AND NOT EXISTS (SELECT 1 FROM binding WHERE binding.node_id = mobile_node.id)
      AND NOT EXISTS (SELECT 1 FROM history WHERE history.node_id = mobile_node.id
                      AND (history.at >= :before OR history.type <> 'handover'))
      AND NOT EXISTS (SELECT 1 FROM mobile_node AS merged WHERE merged.merged_into_id = mobile_node.id)
"""
_LEFTOVERS = _sql(f"{_NODES} ORDER BY id")
_STILL_LEFTOVERS = _sql(f"{_NODES} AND id IN :asked").bindparams(bindparam("asked", expanding=True))

_LOCK = (
    select(t.mobile_node.c.id)
    .where(t.mobile_node.c.id.in_(bindparam("asked", expanding=True)))
    .with_for_update(skip_locked=True)
)


def prune(
    store: SqlStore, before: Micros, now: Micros, pause: Callable[[float], None] = time.sleep
) -> Pruned:
    """Delete the history of what had ended or changed before `before`, and the nodes of which nothing is left.

    It stays on record in the table prune. `pause` is called between two transactions, with the seconds that the last
    one took: so long the lock is free for others. Raises StoreError; what is deleted by then stays deleted.
    """
    pruning = _Pruning(store, before, now, pause)
    pruning.begin()
    pruning.all_of(_EVENTS, pruning.forget_events)
    pruning.all_of(_LINK_EVENTS, pruning.forget_link_events)
    # A round for each link of a chain of merged nodes.
    while pruning.all_of(_LEFTOVERS, pruning.forget_nodes):
        pass
    return pruning.done


class _Pruning:
    """One prune on its way."""

    def __init__(
        self, store: SqlStore, before: Micros, now: Micros, pause: Callable[[float], None]
    ) -> None:
        self._store = store
        self._before = before
        self._now = now
        self._pause = pause
        self._row = 0
        self.done = Pruned(0, 0)

    def begin(self) -> None:
        """Put it on record that the history before the limit is not whole any more."""
        values = {"before": self._before, "started_at": self._now, "finished_at": self._now}
        with self._store.administration() as connection:
            self._row = connection.execute(
                insert(t.prune).returning(t.prune.c.id), values
            ).scalar_one()

    def all_of(
        self, query: TextClause, forget: Callable[[Connection, Sequence[int]], Pruned]
    ) -> bool:
        """Forget all that the query finds, chunk by chunk; whether anything went."""
        before = self.done
        row = update(t.prune).where(t.prune.c.id == self._row)
        for chunk in self._found(query):
            began = time.monotonic()
            with self._store.administration() as connection:
                backend(connection.dialect.name).prepare_to_forget(connection)  # location data
                # While its row is open the history may be deleted from; nobody else ever sees it open.
                connection.execute(row.values(finished_at=None))
                gone = forget(connection, chunk)
                done = Pruned(self.done.events + gone.events, self.done.nodes + gone.nodes)
                connection.execute(row.values(finished_at=self._now, **done._asdict()))
            self.done = done
            self._pause(time.monotonic() - began)
        return self.done != before

    def _found(self, query: TextClause) -> Iterator[Sequence[int]]:
        with reading(self._store.engine) as connection:
            rows = connection.execution_options(yield_per=10_000).execute(
                query, {"before": self._before}
            )
            found = array("q", (row[0] for row in rows))
        for start in range(0, len(found), CHUNK):
            yield found[start : start + CHUNK]

    def forget_events(self, connection: Connection, chunk: Sequence[int]) -> Pruned:
        """Delete these history rows."""
        return Pruned(_delete(connection, t.history.c.id, chunk), 0)

    def forget_link_events(self, connection: Connection, chunk: Sequence[int]) -> Pruned:
        """Delete what the operator said of nodes' identifiers, and does not any more."""
        return Pruned(_delete(connection, t.node_link_event.c.id, chunk), 0)

    def forget_nodes(self, connection: Connection, chunk: Sequence[int]) -> Pruned:
        """Delete those of these nodes that did not come back meanwhile, with all that names them."""
        # Locked first and then looked at: a CMD that writes about one of them holds it, and is not waited for.
        locked = connection.scalars(_LOCK, {"asked": list(chunk)}).all()
        still = connection.scalars(_STILL_LEFTOVERS, {"before": self._before, "asked": locked})
        nodes = list(still)
        events = _delete(connection, t.history.c.node_id, nodes)
        _delete(connection, t.node_identity.c.node_id, nodes)
        _delete(connection, t.signal.c.node_id, nodes)
        return Pruned(events, _delete(connection, t.mobile_node.c.id, nodes))


def _delete(connection: Connection, column: Any, values: Sequence[int]) -> int:
    """Delete the rows that have one of `values` there; how many."""
    return connection.execute(delete(column.table).where(column.in_(list(values)))).rowcount
