"""Who the mobile nodes are, for the operator: what is known of each, and which identifiers he said are one node's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select

from dhcp_cmd.core.model import Micros, NodeId
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import Mode, reading
from dhcp_cmd.store.sql import SqlStore, load_domain
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity

_ENDED = "ended"


class Known(NamedTuple):
    """A node: by what it is known, where it is (the MAAR's name; None: nowhere), since when it is or was on its last
    visit, and how many prefixes and addresses it has. `id` None: it is to come, by the operator's word."""

    id: NodeId | None
    identities: tuple[str, ...]
    serving: str | None = None
    since: Micros | None = None
    holds: int = 0


class Held(NamedTuple):
    """A prefix or address of a node."""

    prefix: Prefix
    kind: str
    state: str
    anchor: str
    valid_until: Micros | None


def _pair(first: Identity, second: Identity) -> tuple[str, str]:
    one, other = sorted((str(first), str(second)))
    return one, other


def _is(pair: tuple[str, str]) -> ColumnElement[bool]:
    return and_(t.node_link.c.first == pair[0], t.node_link.c.second == pair[1])


def keep_link(store: SqlStore, first: Identity, second: Identity, now: Micros) -> bool:
    """Keep it that these two, which differ, are one node's; whether that is news. Raises StoreError."""
    pair = _pair(first, second)
    with store.administration(Mode.ALONE) as connection:
        if connection.execute(select(t.node_link.c.made_at).where(_is(pair))).first() is not None:
            return False
        row = {"first": pair[0], "second": pair[1], "made_at": now}
        connection.execute(insert(t.node_link).values(row))
        _record(connection, now, "linked", first, second)
        return True


def drop_link(store: SqlStore, first: Identity, second: Identity, now: Micros) -> bool:
    """Keep it no longer; whether it was kept. What is one node's without the operator's word is his to part, too: that
    is recorded as well. Raises StoreError."""
    with store.administration(Mode.ALONE) as connection:
        kept = connection.execute(delete(t.node_link).where(_is(_pair(first, second))))
        was_kept = kept.rowcount > 0
        if was_kept or _is_one(connection, first, second):
            _record(connection, now, "unlinked", first, second)
        return was_kept


def _is_one(connection: Connection, first: Identity, second: Identity) -> bool:
    name = t.node_identity.c
    named = name.text.in_((str(first), str(second)))
    nodes = connection.scalars(select(name.node_id).where(named, name.retired == 0)).all()
    return len(nodes) == 2 and nodes[0] == nodes[1]


def _record(
    connection: Connection, at: Micros, event: str, first: Identity, second: Identity
) -> None:
    row = {"at": at, "event": event, "first": str(first), "second": str(second)}
    connection.execute(insert(t.node_link_event).values(row))


def linked_with(store: SqlStore, identity: Identity) -> tuple[Identity, ...]:
    """All that is one node's with this identifier by the operator's word. Raises StoreError."""
    with reading(store.engine) as connection:
        return load_domain(connection).linked.get(identity, ())


def known(store: SqlStore) -> list[Known]:
    """All nodes, the one that was known first first; behind them those that are to come. Raises StoreError."""
    with reading(store.engine) as connection:
        nodes = list(_nodes(connection))
        links = connection.execute(select(t.node_link.c.first, t.node_link.c.second)).all()
    by_name = {name for node in nodes for name in node.identities}
    groups: list[set[str]] = []
    for first, second in links:
        joined = {first, second}.union(*(group for group in groups if group & {first, second}))
        groups = [group for group in groups if not group & joined] + [joined]
    to_come = sorted(tuple(sorted(group)) for group in groups if not group & by_name)
    return [*nodes, *(Known(None, names) for names in to_come)]


def held(store: SqlStore, node: NodeId) -> list[Held]:
    """What a node has that has not ended, in the order of the prefixes. Raises StoreError."""
    row = t.binding.c
    columns = (row.prefix, row.prefix_length, row.kind, row.state, t.maar.c.name, row.valid_until)
    wanted = (
        select(*columns)
        .join(t.maar, t.maar.c.id == row.anchor_id)
        .where(row.node_id == node, row.state != _ENDED)
    )
    with reading(store.engine) as connection:
        found = [
            Held(Prefix(prefix, length), kind, state, anchor, valid_until)
            for prefix, length, kind, state, anchor, valid_until in connection.execute(wanted)
        ]
    return sorted(found)


def _nodes(connection: Connection) -> Iterator[Known]:
    node, name = t.mobile_node.c, t.node_identity.c
    identities: dict[NodeId, list[str]] = {}
    named = select(name.node_id, name.text).where(name.retired == 0).order_by(name.id)
    for number, text in connection.execute(named):
        identities.setdefault(number, []).append(text)
    binding = t.binding.c
    holding = select(binding.node_id, func.count()).where(binding.state != _ENDED)
    counts = dict(map(tuple, connection.execute(holding.group_by(binding.node_id))))
    rows = (
        select(node.id, t.maar.c.name, node.visit_since)
        .join(t.maar, t.maar.c.id == node.serving_id, isouter=True)
        .order_by(node.id)
    )
    for number, serving, since in connection.execute(rows):
        # The rows of nodes that are no more stay for the history, and have no identifiers.
        if number in identities:
            yield Known(number, tuple(identities[number]), serving, since, counts.get(number, 0))
