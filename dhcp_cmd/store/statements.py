"""The statements of a batch, built once; `asked` is always an IN list of any size."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Table,
    Update,
    bindparam,
    delete,
    exists,
    literal_column,
    select,
    update,
)

from dhcp_cmd.store import tables as t

# Literals, not parameters: SQLite uses a partial index only where it can see that its condition holds.
_ENDED: ColumnElement[str] = literal_column("'ended'")

_asked: BindParameter[Any] = bindparam("asked", expanding=True)
_known = t.node_identity.alias("known")

# All identities of the nodes that have one of the values asked for. The subtype is compared afterwards.
NODES = (
    select(
        t.mobile_node.c.id,
        t.mobile_node.c.serving_id,
        t.mobile_node.c.previous_id,
        t.mobile_node.c.generation,
        t.mobile_node.c.visit_since,
        t.mobile_node.c.flaps,
        t.node_identity.c.subtype,
        t.node_identity.c.value,
    )
    .join(t.node_identity, t.node_identity.c.node_id == t.mobile_node.c.id)
    .where(t.mobile_node.c.id.in_(select(_known.c.node_id).where(_known.c.value.in_(_asked))))
    # One order for all: engines that lock rows (SQLite has one writer and ignores this) cannot deadlock.
    .order_by(t.mobile_node.c.id, t.node_identity.c.id)
    .with_for_update(of=t.mobile_node)
)
BINDINGS = select(t.binding).where(t.binding.c.node_id.in_(_asked))
TAKEN = select(t.binding.c.prefix, t.binding.c.node_id).where(t.binding.c.prefix.in_(_asked))
IDENTITIES = select(
    t.node_identity.c.subtype, t.node_identity.c.value, t.node_identity.c.node_id
).where(t.node_identity.c.node_id.in_(_asked))

EXPIRED = (
    select(t.binding)
    .where(t.binding.c.state != _ENDED, t.binding.c.valid_until <= bindparam("now"))
    .order_by(t.binding.c.valid_until)
    .limit(bindparam("most"))
)
HELD_LONG_ENOUGH = (
    select(t.binding)
    .where(t.binding.c.state == literal_column("'deprecated'"))
    .where(t.binding.c.hold_until <= bindparam("now"), t.binding.c.valid_until > bindparam("now"))
    .order_by(t.binding.c.hold_until)
    .limit(bindparam("most"))
)
REUSABLE = (
    select(t.binding)
    .where(t.binding.c.state == _ENDED, t.binding.c.reusable_at <= bindparam("now"))
    .order_by(t.binding.c.reusable_at)
    .limit(bindparam("most"))
)

LAST_HELD = (
    select(t.history.c.prefix, t.history.c.prefix_length)
    .where(
        t.history.c.node_id == bindparam("node"),
        t.history.c.type == literal_column("'assigned'"),
        t.history.c.prefix_length == bindparam("unit_length"),
        t.history.c.prefix.between(bindparam("first"), bindparam("last")),
        t.history.c.iaid.is_not_distinct_from(bindparam("iaid")),
    )
    .order_by(t.history.c.at.desc(), t.history.c.id.desc())
    .limit(1)
)

_next = t.binding.alias("next")
SLOT_TAKEN = select(
    exists().where(t.binding.c.pool_id == bindparam("pool"), t.binding.c.slot == bindparam("slot"))
)
# The end of the run of taken slots that begins at `slot`: the walk stops at the first gap.
RUN_END = (
    select(t.binding.c.slot)
    .where(
        t.binding.c.pool_id == bindparam("pool"),
        t.binding.c.slot >= bindparam("slot"),
        ~exists().where(
            _next.c.pool_id == t.binding.c.pool_id, _next.c.slot == t.binding.c.slot + 1
        ),
    )
    .order_by(t.binding.c.slot)
    .limit(1)
)
RECLAIMED = select(t.pool.c.reclaimed).where(t.pool.c.id == bindparam("pool"))


def _update_all(table: Table, key: str) -> Update:
    """UPDATE of every column that a row gives, found by its key, which is passed as `key_`."""
    columns = [column.name for column in table.columns if column.name != key]
    return (
        update(table)
        .where(table.c[key] == bindparam("key_"))
        .values({name: bindparam(name) for name in columns})
    )


UPDATE_BINDING = _update_all(t.binding, "prefix")
# Touches one index instead of all.
EXTEND_BINDING = (
    update(t.binding)
    .where(t.binding.c.prefix == bindparam("key_"))
    .values(preferred_until=bindparam("preferred"), valid_until=bindparam("valid"))
)
UPDATE_NODE = (
    update(t.mobile_node)
    .where(t.mobile_node.c.id == bindparam("key_"))
    .values(
        {
            name: bindparam(name)
            for name in ("serving_id", "previous_id", "generation", "visit_since", "flaps")
        }
    )
)
BURY_NODE = (
    update(t.mobile_node)
    .where(t.mobile_node.c.id == bindparam("key_"))
    .values(serving_id=None, previous_id=None, merged_into_id=bindparam("heir"))
)
_owner: BindParameter[Any] = bindparam("owner", type_=t.binding.c.node_id.type)
DELETE_BINDING = delete(t.binding).where(
    t.binding.c.prefix == bindparam("key_"),
    _owner.is_(None) | (t.binding.c.node_id == _owner),
)
FREE_IDENTITIES = delete(t.node_identity).where(t.node_identity.c.node_id.in_(_asked))
