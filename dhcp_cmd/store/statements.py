"""The statements of a batch, built once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

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
    insert,
    literal_column,
    select,
    update,
)

from dhcp_cmd.store import tables as t
from dhcp_cmd.store.rows import BINDING, EVENT, IDENTITY, LIFE, NEW_NODE, NODE

# Literals, not parameters: SQLite uses a partial index only where it can see that its condition holds.
_ENDED: ColumnElement[str] = literal_column("'ended'")

_known = t.node_identity.alias("known")

Among: TypeAlias = Callable[[ColumnElement[Any]], ColumnElement[bool]]
"""Whether a column has one of the values asked for."""


@dataclass(frozen=True, eq=False, slots=True)
class Listed:
    """A statement that takes a list of values, and nothing else. `build` makes it, with the engine's way to say
    "among these".
    """

    build: Callable[[Among], Any]

    def text(self, dialect: Dialect, size: int) -> str:
        """The statement's text with a placeholder for each of `size` values."""
        values: list[BindParameter[Any]] = [bindparam(f"value_{number}") for number in range(size)]
        compiled = self.build(lambda column: column.in_(values)).compile(dialect=dialect)
        if len(compiled.positiontup or ()) != size:
            raise ValueError(f"{compiled} takes more than a list")
        return str(compiled)


# All identities of the nodes that are known by one of those asked for (their texts).
NODES = Listed(
    lambda among: (
        select(
            t.node_identity.c.subtype,
            t.node_identity.c.value,
            *(t.mobile_node.c[name] for name in NODE),
        )
        .join(t.node_identity, t.node_identity.c.node_id == t.mobile_node.c.id)
        .where(
            t.mobile_node.c.id.in_(
                select(_known.c.node_id).where(
                    among(_known.c.text), _known.c.retired == literal_column("0")
                )
            )
        )
        # One order for all: engines that lock rows (SQLite has one writer and ignores this) cannot deadlock.
        .order_by(t.mobile_node.c.id, t.node_identity.c.id)
        .with_for_update(of=t.mobile_node)
    )
)
BINDINGS = Listed(lambda among: select(t.binding).where(among(t.binding.c.node_id)))
TAKEN = Listed(
    lambda among: select(t.binding.c.prefix, t.binding.c.node_id).where(among(t.binding.c.prefix))
)
IDENTITIES = Listed(
    lambda among: select(
        t.node_identity.c.subtype, t.node_identity.c.value, t.node_identity.c.node_id
    ).where(among(t.node_identity.c.node_id))
)
FREE_IDENTITIES = Listed(
    lambda among: delete(t.node_identity).where(among(t.node_identity.c.node_id))
)
RETIRE_IDENTITIES = Listed(
    lambda among: (
        update(t.node_identity)
        .where(among(t.node_identity.c.node_id))
        .values(retired=t.node_identity.c.node_id)
    )
)

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

# What is taken of a range, in the order of the addresses.
TAKEN_FROM = (
    select(t.binding.c.prefix)
    .where(t.binding.c.prefix.between(bindparam("first"), bindparam("last")))
    .order_by(t.binding.c.prefix)
    .limit(bindparam("most"))
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


def _update(table: Table, key: Sequence[str], columns: Sequence[str]) -> Many:
    """UPDATE of `columns` (in the order of the table) where `key` is the last values of the row."""
    values = {name: bindparam(name, type_=table.c[name].type) for name in columns}
    where = [table.c[name] == bindparam(f"{name}_") for name in key]
    return Many(
        update(table).where(*where).values(values), (*columns, *(f"{name}_" for name in key))
    )


INSERT_NODE = _insert(t.mobile_node, NEW_NODE)
INSERT_IDENTITY = _insert(t.node_identity, IDENTITY)
INSERT_BINDING = _insert(t.binding, BINDING)
INSERT_EVENT = _insert(t.history, EVENT)

UPDATE_NODE = _update(t.mobile_node, ("id",), NODE[1:])
BURY_NODE = Many(
    update(t.mobile_node)
    .where(t.mobile_node.c.id == bindparam("key_"))
    .values(serving_id=None, previous_id=None, idle=None, merged_into_id=bindparam("heir")),
    ("serving_id", "previous_id", "idle", "heir", "key_"),
)

# Each touches fewer indexes than the next. The first two are for a row of the same node, and go by its primary key.
_KEY = ("node_id", "prefix")
EXTEND_BINDING = _update(t.binding, _KEY, ("preferred_until", "valid_until"))
CHANGE_BINDING = _update(t.binding, _KEY, LIFE)
UPDATE_BINDING = _update(t.binding, ("prefix",), BINDING[1:])

_owner: BindParameter[Any] = bindparam("owner", type_=t.binding.c.node_id.type)
DELETE_BINDING = Many(
    delete(t.binding).where(
        t.binding.c.prefix == bindparam("key_"),
        _owner.is_(None) | (t.binding.c.node_id == _owner),
    ),
    ("key_", "owner", "owner"),
)
FREE_IDENTITY = Many(
    delete(t.node_identity).where(
        t.node_identity.c.text == bindparam("text_"),
        t.node_identity.c.retired == literal_column("0"),
    ),
    ("text_",),
)
