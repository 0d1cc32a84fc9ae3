"""The statements of a batch, built once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Delete,
    Dialect,
    Insert,
    Table,
    Update,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from dhcp_cmd.store import tables as t
from dhcp_cmd.store.rows import BINDING, EVENT, IDENTITY, LIFE, NEW_NODE, NODE, SIGNAL

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
        .order_by(t.mobile_node.c.id, t.node_identity.c.id)
    )
)
_binding = select(*t.columns(t.binding))
BINDINGS = Listed(lambda among: _binding.where(among(t.binding.c.node_id)))
SIGNALS = Listed(
    lambda among: select(
        t.signal.c.node_id, t.signal.c.maar_id, t.signal.c.visit, t.signal.c.put_at
    ).where(among(t.signal.c.node_id))
)
OWED = Listed(
    lambda among: select(
        t.signal.c.node_id,
        t.signal.c.maar_id,
        t.signal.c.serial,
        t.signal.c.visit,
        t.signal.c.owner,
    ).where(among(t.signal.c.node_id))
)
NODES_BY_ID = Listed(
    lambda among: (
        select(
            t.node_identity.c.subtype,
            t.node_identity.c.value,
            *(t.mobile_node.c[name] for name in NODE),
        )
        .join(t.node_identity, t.node_identity.c.node_id == t.mobile_node.c.id)
        .where(among(t.mobile_node.c.id))
        .order_by(t.mobile_node.c.id, t.node_identity.c.id)
    )
)
FORGET_SIGNALS = Listed(lambda among: delete(t.signal).where(among(t.signal.c.node_id)))
TAKEN = Listed(
    lambda among: select(t.binding.c.prefix, t.binding.c.node_id).where(among(t.binding.c.prefix))
)
IDENTITIES = Listed(
    lambda among: select(
        t.node_identity.c.subtype, t.node_identity.c.value, t.node_identity.c.node_id
    ).where(among(t.node_identity.c.node_id))
)
FREE_IDENTITY = Listed(
    lambda among: delete(t.node_identity).where(
        among(t.node_identity.c.text), t.node_identity.c.retired == literal_column("0")
    )
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
ANCHORED_AWAY = (
    select(t.mobile_node.c.id)
    .where(
        t.mobile_node.c.serving_id != bindparam("maar"),
        exists().where(
            t.binding.c.node_id == t.mobile_node.c.id,
            t.binding.c.anchor_id == bindparam("maar"),
            t.binding.c.state != _ENDED,
            t.binding.c.kind != "address",
        ),
    )
    .order_by(t.mobile_node.c.id)
    .with_for_update(of=t.mobile_node)
)
EXPIRED = (
    _binding.where(t.binding.c.state != _ENDED, t.binding.c.valid_until <= bindparam("now"))
    .order_by(t.binding.c.valid_until, t.binding.c.kind)
    .limit(bindparam("most"))
)
HELD_LONG_ENOUGH = (
    _binding.where(t.binding.c.state != _ENDED)
    .where(t.binding.c.hold_until <= bindparam("now"), t.binding.c.valid_until > bindparam("now"))
    .order_by(t.binding.c.hold_until, t.binding.c.kind)
    .limit(bindparam("most"))
)
REUSABLE = (
    _binding.where(t.binding.c.state == _ENDED, t.binding.c.reusable_at <= bindparam("now"))
    .order_by(t.binding.c.reusable_at, t.binding.c.kind)
    .limit(bindparam("most"))
)

# What a node was last assigned out of a range, for many questions at once.
_QUESTION = "(?, ?, ?, ?, ?, ?)"
_LAST_HELD = """
    WITH asked (number, node_id, length, first, last, iaid) AS (VALUES {questions})
    SELECT number, (
        SELECT prefix FROM history
        WHERE history.node_id = asked.node_id AND type = 'assigned' AND prefix_length = asked.length
          AND prefix BETWEEN asked.first AND asked.last AND history.iaid IS asked.iaid
        ORDER BY at DESC, id DESC LIMIT 1
    ) FROM asked
"""


@lru_cache
def last_held_text(questions: int) -> str:
    """The query for so many questions, each of six values: its number, node, prefix length, first and last address,
    IAID. A row for each has the number and the prefix.
    """
    return _LAST_HELD.format(questions=", ".join([_QUESTION] * questions))


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
    """A statement for many rows. A row is a tuple of the values of `columns`, in this order; the last `keys` of them
    (of an INSERT none) say which row of the table is meant.

    Where rows are new to the table, `sort` is the place in a row of what it is unique by: two that write at the same
    time meet in one order.
    """

    statement: Insert | Update | Delete
    columns: tuple[Column[Any], ...]
    keys: int = 0
    sort: int | None = None
    conflict: str = ""
    """What follows an INSERT: ON CONFLICT, as both engines know it."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the statement's parameters, in the order of `columns`."""
        first_key = len(self.columns) - self.keys
        return tuple(
            column.name + "_" * (number >= first_key) for number, column in enumerate(self.columns)
        )

    def driver_text(self, dialect: Dialect) -> str:
        """The statement for a driver that takes such rows just as they are (SQLite's): half the time of going through
        SQLAlchemy.
        """
        compiled = self.statement.compile(dialect=dialect)
        if compiled.positiontup is None or tuple(compiled.positiontup) != self.parameters:
            raise ValueError(f"{compiled} takes {compiled.positiontup}, not {self.parameters}")
        return f"{compiled}{self.conflict}"


def _insert(table: Table, names: Sequence[str], unique: str | None = None) -> Many:
    columns = tuple(table.c[name] for name in names)
    values = {column.name: bindparam(column.name, type_=column.type) for column in columns}
    sort = None if unique is None else names.index(unique)
    return Many(insert(table).inline().values(values), columns, sort=sort)


def _update(table: Table, key: Sequence[str], names: Sequence[str]) -> Many:
    """UPDATE of `names` (in the order of the table) where `key` is the last values of the row."""
    columns = tuple(table.c[name] for name in (*names, *key))
    values = {name: bindparam(name, type_=table.c[name].type) for name in names}
    where = [table.c[name] == bindparam(f"{name}_") for name in key]
    return Many(update(table).where(*where).values(values), columns, len(key))


INSERT_NODE = _insert(t.mobile_node, NEW_NODE)
INSERT_IDENTITY = _insert(t.node_identity, IDENTITY, unique="text")
INSERT_BINDING = _insert(t.binding, BINDING, unique="prefix")
INSERT_EVENT = _insert(t.history, EVENT)
PUT_SIGNAL = replace(
    _insert(t.signal, SIGNAL),
    conflict=" ON CONFLICT (node_id, maar_id) DO UPDATE SET serial = signal.serial + 1,"
    " visit = signal.visit | excluded.visit, put_at = excluded.put_at, owner = excluded.owner,"
    " claimed_until = excluded.claimed_until",
)
"""Owed anew. A MAAR that has not acknowledged where the node is still has not, whatever else it is told."""

UPDATE_NODE = _update(t.mobile_node, ("id",), NODE[1:])
BURY_NODE = _update(t.mobile_node, ("id",), ("serving_id", "previous_id", "idle", "merged_into_id"))

# Each touches fewer indexes than the next. The first two are for a row of the same node, and go by its primary key.
_KEY = ("node_id", "prefix")
EXTEND_BINDING = _update(t.binding, _KEY, ("preferred_until", "valid_until"))
CHANGE_BINDING = _update(t.binding, _KEY, LIFE)
UPDATE_BINDING = _update(t.binding, ("prefix",), BINDING[1:])

DELETE_SIGNAL = Many(
    delete(t.signal).where(
        t.signal.c.node_id == bindparam("node_id_"), t.signal.c.maar_id == bindparam("maar_id_")
    ),
    (t.signal.c.node_id, t.signal.c.maar_id),
    2,
)

# Whose it is need not be said.
DELETE_BINDING = Many(
    delete(t.binding).where(
        t.binding.c.prefix == bindparam("prefix_"),
        t.binding.c.node_id == func.coalesce(bindparam("node_id_"), t.binding.c.node_id),
    ),
    (t.binding.c.prefix, t.binding.c.node_id),
    2,
)
