"""Forgetting: what ended long ago leaves the history, and nodes of which nothing is left leave the database.

Replay stays exact, without a checkpoint: every event names its binding in full, so for each prefix the last event
alone gives the row. That one is therefore never pruned while its binding has a row, nor is the last one before the
limit, without which the state at the limit would be unknown. For what is still held, the assignment that began the
tenure stays too (who-had says since when); the moves in between go.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import TextClause, bindparam, insert, text, update

from dhcp_cmd.core.model import Micros
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.sql import SqlStore
from dhcp_cmd.store.types import Time


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
_DELETE_BINDING_EVENTS = _sql("""
    DELETE FROM history WHERE id IN (
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
    )
""")
_DELETE_CONFLICTS = _sql("DELETE FROM history WHERE type = 'conflict' AND at < :before")
# The last handover before the limit says where the node was at the limit.
_DELETE_HANDOVERS = _sql("""
    DELETE FROM history WHERE type = 'handover' AND at < :before AND EXISTS (
        SELECT 1 FROM history AS later
        WHERE later.node_id = history.node_id AND later.type = 'handover' AND later.at < :before
          AND (later.at, later.id) > (history.at, history.id)
    )
""")

# Nothing is left of a node but its last handover, and no node that became it still has more.
_NOTHING_LEFT = """
    visit_since < :before
    AND NOT EXISTS (SELECT 1 FROM binding WHERE binding.node_id = mobile_node.id)
    AND NOT EXISTS (SELECT 1 FROM history WHERE history.node_id = mobile_node.id
                    AND (history.at >= :before OR history.type <> 'handover'))
    AND NOT EXISTS (SELECT 1 FROM mobile_node AS merged WHERE merged.merged_into_id = mobile_node.id)
"""
_FORGET_NODES = (
    _sql(
        f"DELETE FROM history WHERE node_id IN (SELECT id FROM mobile_node WHERE {_NOTHING_LEFT})"
    ),
    _sql(
        f"DELETE FROM node_identity WHERE node_id IN (SELECT id FROM mobile_node WHERE {_NOTHING_LEFT})"
    ),
    _sql(f"DELETE FROM mobile_node WHERE {_NOTHING_LEFT}"),
)


def prune(store: SqlStore, before: Micros, now: Micros) -> Pruned:
    """Delete the history of what had ended or changed before `before`, and the nodes of which nothing is left.

    One transaction; it stays on record in the table prune. Raises StoreError.
    """
    with store.administration() as connection:
        # What is deleted is overwritten: it is location data.
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
        opened = connection.execute(
            insert(t.prune).returning(t.prune.c.id), {"before": before, "started_at": now}
        ).scalar_one()
        where = {"before": before}
        events = nodes = 0
        for statement in (_DELETE_BINDING_EVENTS, _DELETE_CONFLICTS, _DELETE_HANDOVERS):
            events += connection.execute(statement, where).rowcount
        forget_history, forget_identities, forget_nodes = _FORGET_NODES
        while True:  # a round for each link of a chain of merged nodes
            forgotten = connection.execute(forget_history, where).rowcount
            connection.execute(forget_identities, where)
            gone = connection.execute(forget_nodes, where).rowcount
            events, nodes = events + forgotten, nodes + gone
            if not gone:
                break
        connection.execute(
            update(t.prune)
            .where(t.prune.c.id == opened)
            .values(finished_at=now, events=events, nodes=nodes)
        )
    return Pruned(events, nodes)
