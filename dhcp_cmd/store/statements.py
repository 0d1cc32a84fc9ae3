"""The statements of a batch, built once; `asked` is always an IN list of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Delete,
    Dialect,
    Insert,
    Table,
    Update,
    bindparam,
    delete,
    exists,
    insert,
    literal_column,
    select,
    update,
)

from dhcp_cmd.store import tables as t
from dhcp_cmd.store.rows import BINDING, EVENT, IDENTITY, LIFE, NODE

# Literals, not parameters: SQLite uses a partial index only where it can see that its condition holds.
_ENDED: ColumnElement[str] = literal_column("'ended'")

_asked: BindParameter[Any] = bindparam("asked", expanding=True)
_known = t.node_identity.alias("known")

# All identities of the nodes that have one of the values asked for. The subtype is compared afterwards.
NODES = (
    select(
        t.node_identity.c.subtype,
        t.node_identity.c.value,
        *(t.mobile_node.c[name] for name in NODE),
    )
    .join(t.node_identity, t.node_identity.c.node_id == t.mobile_node.c.id)
    .where(
        t.mobile_node.c.id.in_(
            select(_known.c.node_id).where(
                _known.c.value.in_(_asked), _known.c.retired == literal_column("0")
            )
        )
    )
    # One order for all: engines that lock rows (SQLite has one writer and ignores this) cannot deadlock.
    .order_by(t.mobile_node.c.id, t.node_identity.c.id)
    .with_for_update(of=t.mobile_node)
)
BINDINGS = select(t.binding).where(t.binding.c.node_id.in_(_asked))
TAKEN = select(t.binding.c.prefix, t.binding.c.node_id).where(t.binding.c.prefix.in_(_asked))
IDENTITIES = select(
    t.node_identity.c.subtype, t.node_identity.c.value, t.node_identity.c.node_id
).where(t.node_identity.c.node_id.in_(_asked))

# What is due goes by time and, at one instant, by kind: the addresses of a LINK prefix end before it does, whatever
# the limit. A prefix that came free before an address of it would go to a node that can never get that address.
IDLE = (
    select(t.mobile_node.c.id)
    .where(
        t.mobile_node.c.idle == literal_column("1"),
        t.mobile_node.c.visit_since <= bindparam("before"),
    )
    .order_by(t.mobile_node.c.visit_since, t.mobile_node.c.id)
    .limit(bindparam("most"))
)
EXPIRED = (
    select(t.binding)
    .where(t.binding.c.state != _ENDED, t.binding.c.valid_until <= bindparam("now"))
    .order_by(t.binding.c.valid_until, t.binding.c.kind)
    .limit(bindparam("most"))
)
HELD_LONG_ENOUGH = (
    select(t.binding)
    .where(t.binding.c.state == literal_column("'deprecated'"))
    .where(t.binding.c.hold_until <= bindparam("now"), t.binding.c.valid_until > bindparam("now"))
    .order_by(t.binding.c.hold_until, t.binding.c.kind)
    .limit(bindparam("most"))
)
REUSABLE = (
    select(t.binding)
    .where(t.binding.c.state == _ENDED, t.binding.c.reusable_at <= bindparam("now"))
    .order_by(t.binding.c.reusable_at, t.binding.c.kind)
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


# --- what is run for many rows at once ---


@dataclass(frozen=True, eq=False, slots=True)
class Many:
    """A statement for many rows. A row is a tuple of the values of `parameters`, in this order."""

    statement: Insert | Update | Delete
    parameters: tuple[str, ...]

    def driver_text(self, dialect: Dialect) -> str | None:
        """The statement for a driver that takes such rows just as they are (SQLite's); None for any other, whose rows
        have to go through SQLAlchemy. Spares half the time of a write.
        """
        compiled = self.statement.compile(dialect=dialect)
        if compiled.positiontup is None or any(
            parameter.type.dialect_impl(dialect).bind_processor(dialect)
            for parameter in compiled.binds.values()
        ):
            return None
        if tuple(compiled.positiontup) != self.parameters:
            raise ValueError(f"{compiled} takes {compiled.positiontup}, not {self.parameters}")
        return str(compiled)


def _insert(table: Table, columns: Sequence[str]) -> Many:
    values = {name: bindparam(name, type_=table.c[name].type) for name in columns}
    return Many(insert(table).inline().values(values), tuple(columns))


def _update(table: Table, key: str, columns: Sequence[str]) -> Many:
    """UPDATE of `columns` (in the order of the table) where `key` is the last value of the row."""
    values = {name: bindparam(name, type_=table.c[name].type) for name in columns}
    statement = update(table).where(table.c[key] == bindparam("key_")).values(values)
    return Many(statement, (*columns, "key_"))


INSERT_NODE = _insert(t.mobile_node, NODE)
INSERT_IDENTITY = _insert(t.node_identity, IDENTITY)
INSERT_BINDING = _insert(t.binding, BINDING)
INSERT_EVENT = _insert(t.history, EVENT)

UPDATE_NODE = _update(t.mobile_node, "id", NODE[1:])
BURY_NODE = Many(
    update(t.mobile_node)
    .where(t.mobile_node.c.id == bindparam("key_"))
    .values(serving_id=None, previous_id=None, idle=None, merged_into_id=bindparam("heir")),
    ("serving_id", "previous_id", "idle", "heir", "key_"),
)

# Each touches fewer indexes than the next.
EXTEND_BINDING = _update(t.binding, "prefix", ("preferred_until", "valid_until"))
CHANGE_BINDING = _update(t.binding, "prefix", LIFE)
UPDATE_BINDING = _update(t.binding, "prefix", BINDING[1:])

_owner: BindParameter[Any] = bindparam("owner", type_=t.binding.c.node_id.type)
DELETE_BINDING = Many(
    delete(t.binding).where(
        t.binding.c.prefix == bindparam("key_"),
        _owner.is_(None) | (t.binding.c.node_id == _owner),
    ),
    ("key_", "owner", "owner"),
)
FREE_IDENTITIES = delete(t.node_identity).where(t.node_identity.c.node_id.in_(_asked))
RETIRE_IDENTITIES = (
    update(t.node_identity)
    .where(t.node_identity.c.node_id.in_(_asked))
    .values(retired=literal_column("1"))
)
FREE_IDENTITY = Many(
    delete(t.node_identity).where(
        t.node_identity.c.value == bindparam("value_"),
        t.node_identity.c.subtype == bindparam("subtype_"),
        t.node_identity.c.retired == literal_column("0"),
    ),
    ("value_", "subtype_"),
)
