"""The core's Store on PostgreSQL, beside other CMDs.

What makes that safe (docs/architecture.md has the argument): all that is known of a node is read after its row was
locked, and nobody writes about a node without that lock; what was not there when it was read is decided by a unique
index; the domain does not change while a transaction runs. Who comes second gets a Collision, and decides again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Insert,
    any_,
    bindparam,
)
from sqlalchemy.dialects.postgresql.base import PGDialect

from dhcp_cmd.core.model import Binding, Domain, Micros, NodeId, Snapshot
from dhcp_cmd.core.ports import Collision
from dhcp_cmd.store import statements as q
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.psycopg_values import array, arrays
from dhcp_cmd.store.rows import Values
from dhcp_cmd.store.sql import SqlStore, SqlTransaction

_DIALECT = PGDialect(paramstyle="format")  # type: ignore[no-untyped-call]

_LOCK_NODES = (
    "SELECT id FROM mobile_node WHERE id IN (SELECT node_id FROM node_identity WHERE text = ANY(%s) AND retired = 0)"
    # One order for all: nobody waits for somebody who waits for him.
    " ORDER BY id FOR UPDATE"
)
_LOCK_IDLE_NODES = (
    "SELECT id FROM mobile_node WHERE id = ANY(%s) ORDER BY id FOR UPDATE SKIP LOCKED"
)


class PostgresTransaction(SqlTransaction):
    """A transaction of PostgresStore. Lists and rows go as arrays: a text that never changes, prepared once."""

    _store: PostgresStore

    def __init__(self, store: PostgresStore, connection: Connection) -> None:
        super().__init__(store, connection)
        driver: Any = connection.connection.driver_connection
        self._cursor = driver.cursor()
        self._domain: Domain | None = None

    def domain(self) -> Domain:
        """The domain, which does not change before this transaction is over."""
        if self._domain is None:
            self._domain = super().domain()
        return self._domain

    def _read_nodes(self, asked: set[str], snapshot: Snapshot) -> None:
        if not asked:
            return
        locked = {row[0] for row in self._run(_LOCK_NODES, [array("text", sorted(asked))])}
        # A new statement: it sees what those did for whom the lock was waited for.
        super()._read_nodes(asked, snapshot)
        if not snapshot.bindings.keys() <= locked:
            raise Collision("an identity has become another node's meanwhile")

    def due(self, now: Micros, limit: int) -> list[Binding]:
        """What is due of nodes that nobody else is about; the rest will be due the next time, too."""
        with self._errors():
            locked = self._lock_idle({binding.node for binding in super().due(now, limit)})
        return [binding for binding in super().due(now, limit) if binding.node in locked]

    def idle(self, before: Micros, limit: int) -> list[NodeId]:
        """Nodes that hold nothing, and that nobody else is about."""
        with self._errors():
            locked = self._lock_idle(super().idle(before, limit))
        return [node for node in super().idle(before, limit) if node in locked]

    def _lock_idle(self, nodes: Iterable[NodeId]) -> set[NodeId]:
        """Those of the nodes that could be locked at once. What is read of them afterwards is as it stays."""
        rows = self._run(_LOCK_IDLE_NODES, [array("bigint", sorted(nodes))])
        return {row[0] for row in rows}

    def _in(self, listed: q.Listed, values: Sequence[object]) -> Sequence[Any]:
        if not values:
            return []
        text, kind = self._store.listed_text(listed)
        return self._run(text, [array(kind, values)])

    def _many(self, many: q.Many, rows: list[Values]) -> int:
        if not rows:
            return 0
        if many.sort is not None:
            rows.sort(key=itemgetter(many.sort))
        text, kinds = self._store.many_text(many)
        self._run(text, arrays(kinds, rows))
        count: int = self._cursor.rowcount
        return count

    def _run(self, text: str, parameters: Sequence[Any]) -> Sequence[Any]:
        cursor = self._cursor.execute(text, parameters, prepare=True)
        rows: Sequence[Any] = cursor.fetchall() if cursor.description else ()
        return rows


class PostgresStore(SqlStore):
    """Bindings and their history in PostgreSQL, for any number of CMDs at once."""

    _transaction = PostgresTransaction

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._listed_texts: dict[q.Listed, tuple[str, str]] = {}
        self._many_texts: dict[q.Many, tuple[str, Sequence[str | None]]] = {}

    def listed_text(self, listed: q.Listed) -> tuple[str, str]:
        """The text of a statement whose list is one array, and the type of its elements."""
        found = self._listed_texts.get(listed)
        if found is None:
            found = self._listed_texts[listed] = _listed_text(listed)
        return found

    def many_text(self, many: q.Many) -> tuple[str, Sequence[str | None]]:
        """The text of a statement whose rows are arrays, and their types; None for a column that is not here."""
        found = self._many_texts.get(many)
        if found is None:
            found = self._many_texts[many] = _many_text(many)
        return found


def _kind(column: ColumnElement[Any]) -> str:
    return column.type.compile(dialect=_DIALECT).lower()


def _listed_text(listed: q.Listed) -> tuple[str, str]:
    kinds: list[str] = []

    def among(column: ColumnElement[Any]) -> ColumnElement[bool]:
        kinds.append(_kind(column))
        return column == any_(bindparam("asked", type_=ARRAY(column.type)))

    text = str(listed.build(among).compile(dialect=_DIALECT))
    (kind,) = kinds
    return text, kind


def _many_text(many: q.Many) -> tuple[str, Sequence[str | None]]:
    kinds = [None if each.name in t.WRITTEN else _kind(each) for each in many.columns]
    here = [
        (each, name)
        for each, name in zip(many.columns, many.parameters, strict=True)
        if each.name not in t.WRITTEN
    ]
    table = many.columns[0].table.name
    values = f"unnest({', '.join(f'%s::{kind}[]' for kind in kinds if kind)})"
    names = ", ".join(name for _, name in here)
    if isinstance(many.statement, Insert):
        return f"INSERT INTO {table} ({names}) SELECT * FROM {values}", kinds
    given, keys = here[: len(here) - many.keys], here[len(here) - many.keys :]
    where = " AND ".join(f"{table}.{column.name} = given.{name}" for column, name in keys)
    if isinstance(many.statement, Delete):
        # Whose it is need not be said.
        where = where.replace("= given.node_id_", "= coalesce(given.node_id_, node_id)")
        return f"DELETE FROM {table} USING {values} AS given ({names}) WHERE {where}", kinds
    assigned = ", ".join(f"{column.name} = given.{name}" for column, name in given)
    return f"UPDATE {table} SET {assigned} FROM {values} AS given ({names}) WHERE {where}", kinds
