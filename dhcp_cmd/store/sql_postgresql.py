"""The core's Store on PostgreSQL, beside other CMDs.

What makes that safe (docs/architecture.md has the argument): all that is known of a node is read after its row was
locked, and nobody writes about a node without that lock; what was not there when it was read is decided by a unique
index; the domain does not change while a transaction runs. Who comes second gets a Collision, and decides again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

from dhcp_cmd.core.model import (
    Binding,
    Change,
    Lookup,
    Micros,
    Need,
    NodeId,
    Pool,
    PoolId,
    Snapshot,
)
from dhcp_cmd.core.ports import Collision, StoreError
from dhcp_cmd.store import statements as q
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.psycopg_values import Inet, array, arrays
from dhcp_cmd.store.rows import Values, identity_text
from dhcp_cmd.store.sql import Errors, SqlStore, SqlTransaction
from dmm_wire.address import Prefix

_DIALECT = PGDialect(paramstyle="format")  # type: ignore[no-untyped-call]

_KNOWN = "SELECT node_id FROM node_identity WHERE text = ANY(%s) AND retired = 0"
# One order for all: nobody waits for somebody who waits for him.
_LOCK_KNOWN = f"SELECT id FROM mobile_node WHERE id IN ({_KNOWN}) ORDER BY id FOR UPDATE"
_LOCK_IDLE_NODES = (
    "SELECT id FROM mobile_node WHERE id = ANY(%s) ORDER BY id FOR UPDATE SKIP LOCKED"
)
_LAST_HELD_KINDS = ("bigint", "smallint", "inet", "inet", "bigint")
_LAST_HELD = """
    SELECT number, (
        SELECT prefix FROM (
            SELECT * FROM history
            WHERE history.node_id = asked.node_id AND type = 'assigned' AND prefix_length = asked.length
              AND history.iaid IS NOT DISTINCT FROM asked.iaid
            ORDER BY at DESC, id DESC
            OFFSET 0 -- or all that lies in the range might be read, whosever it is
        ) AS held
        WHERE prefix BETWEEN asked.first AND asked.last
        ORDER BY at DESC, id DESC LIMIT 1
    )
    FROM unnest(%s::bigint[], %s::smallint[], %s::inet[], %s::inet[], %s::bigint[])
         WITH ORDINALITY AS asked (node_id, length, first, last, iaid, number)
"""

_HOLDER = [column.name for column in t.columns(t.binding)].index("node_id")

Statement = tuple[str, Sequence[Any]]
"""A text and its parameters."""


class PostgresTransaction(SqlTransaction):
    """A transaction of PostgresStore. Lists and rows go as arrays: a text that never changes, prepared once. What does
    not depend on each other's answer goes in one exchange with the server.
    """

    def __init__(self, store: PostgresStore, connection: Connection) -> None:
        super().__init__(store, connection)
        self._postgres = store
        self._queue: list[tuple[Statement, int | None]] = []
        """What `write` has still to run, and how many rows that must touch."""

    def read(self, lookups: Sequence[Lookup]) -> Snapshot:
        """One exchange. The first statement locks; those after it see what those did for whom it had to wait."""
        snapshot = Snapshot(self.domain())
        texts = array(
            "text", sorted({identity_text(i) for each in lookups for i in each.identities})
        )
        candidates = array("inet", list({a for each in lookups for a in each.candidates}))
        with Errors(self):
            locked, nodes, bindings, taken = self._exchange(
                [
                    (_LOCK_KNOWN, [texts]),
                    (self._postgres.nodes_text, [texts]),
                    (self._postgres.bindings_text, [texts]),
                    (self._postgres.listed_text(q.TAKEN)[0], [candidates]),
                ]
            )
            self._keep_nodes(nodes, snapshot)
            found = snapshot.bindings.keys() | {row[_HOLDER] for row in bindings}
            if not found <= {row[0] for row in locked}:
                raise Collision("an identity has become another node's meanwhile")
            self._keep_bindings(bindings, snapshot)
        snapshot.taken.update(taken)
        return snapshot

    def _supply_last_held(
        self, snapshot: Snapshot, need: Need, pools: Mapping[PoolId, Pool]
    ) -> None:
        if not need.last_held:
            return
        questions: list[Values] = []
        for node, number, iaid in need.last_held:
            pool = pools[number]
            prefix = pool.prefix
            questions.append((node, pool.unit_length, prefix.address, prefix.last, iaid))
        for place, address in self._run(_LAST_HELD, arrays(_LAST_HELD_KINDS, questions)):
            found = address and Prefix(address, questions[place - 1][1])
            snapshot.last_held[need.last_held[place - 1]] = found

    def _read_reclaimed(self, pool: Pool) -> int:
        ((count,),) = self._run("SELECT reclaimed FROM pool WHERE id = %s", [pool.id])
        return int(count)

    def _taken_from(self, first: bytes, last: bytes, most: int) -> Sequence[Any]:
        return self._run(
            "SELECT prefix FROM binding WHERE prefix BETWEEN %s AND %s ORDER BY prefix LIMIT %s",
            [Inet(first), Inet(last), most],
        )

    def due(self, now: Micros, limit: int) -> list[Binding]:
        """What is due of nodes that nobody else is about; the rest will be due the next time, too."""
        with Errors(self):
            locked = self._lock_idle({binding.node for binding in super().due(now, limit)})
        return [binding for binding in super().due(now, limit) if binding.node in locked]

    def idle(self, before: Micros, limit: int) -> list[NodeId]:
        """Nodes that hold nothing, and that nobody else is about."""
        with Errors(self):
            locked = self._lock_idle(super().idle(before, limit))
        return [node for node in super().idle(before, limit) if node in locked]

    def _lock_idle(self, nodes: Iterable[NodeId]) -> set[NodeId]:
        """Those of the nodes that could be locked at once. What is read of them afterwards is as it stays."""
        rows = self._run(_LOCK_IDLE_NODES, [array("bigint", sorted(nodes))])
        return {row[0] for row in rows}

    def write(self, changes: Sequence[Change]) -> None:
        """Write changes, each kind in one statement, all in one exchange. Raises Collision."""
        super().write(changes)
        with Errors(self):
            self._flush()

    def commit(self) -> None:
        """Make it durable. Raises StoreError (or Collision): then nothing was written; or it was written and no standby
        has it, because somebody told PostgreSQL to wait for them no longer. It says so in a warning and calls it done.
        """
        warnings: list[str] = []

        def note(notice: Any) -> None:
            if notice.severity_nonlocalized == "WARNING":
                warnings.append(str(notice.message_primary))

        self._driver.add_notice_handler(note)
        try:
            super().commit()
        finally:
            self._driver.remove_notice_handler(note)
        if warnings:
            raise StoreError(warnings[0])

    # --- how statements are run ---

    def _in(self, listed: q.Listed, values: Sequence[object]) -> Sequence[Any]:
        if not values:
            return ()
        text, kind = self._postgres.listed_text(listed)
        statement = text, [array(kind, values)]
        if text.startswith("SELECT"):
            self._flush()
            return self._run(*statement)
        self._queue.append((statement, None))
        return ()

    def _many(self, many: q.Many, rows: list[Values]) -> None:
        if rows:
            self._queue.append((self._statement(many, rows), None))

    def _each_found(self, many: q.Many, rows: list[Values]) -> None:
        if rows:
            self._queue.append((self._statement(many, rows), len(rows)))

    def _statement(self, many: q.Many, rows: list[Values]) -> Statement:
        if many.sort is not None:
            rows.sort(key=itemgetter(many.sort))
        text, kinds = self._postgres.many_text(many)
        return text, arrays(kinds, rows)

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        if not queue:
            return
        with self._driver.pipeline():
            cursors = [
                self._driver.cursor().execute(text, parameters, prepare=True)
                for (text, parameters), _ in queue
            ]
        for cursor, (_, expected) in zip(cursors, queue, strict=True):
            if expected is not None and cursor.rowcount != expected:
                raise Collision("a row that was to be changed is gone")

    def _exchange(self, statements: Sequence[Statement]) -> list[Sequence[Any]]:
        """The rows of each statement; all go out before the first answer is waited for."""
        with self._driver.pipeline():
            cursors = [
                self._driver.cursor().execute(text, parameters, prepare=True)
                for text, parameters in statements
            ]
        return [cursor.fetchall() for cursor in cursors]

    def _run(self, text: str, values: Sequence[object] = ()) -> Sequence[Any]:
        rows: Sequence[Any] = self._driver.cursor().execute(text, values, prepare=True).fetchall()
        return rows


class PostgresStore(SqlStore):
    """Bindings and their history in PostgreSQL, for any number of CMDs at once."""

    _transaction = PostgresTransaction

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._listed_texts: dict[q.Listed, tuple[str, str]] = {}
        self._many_texts: dict[q.Many, tuple[str, Sequence[str | None]]] = {}
        self.nodes_text = _listed_text(q.NODES)[0]
        """What a batch reads of nodes, and of their bindings, by the texts of identities."""
        self.bindings_text = _listed_text(q.BINDINGS)[0].replace("= ANY (%s)", f"IN ({_KNOWN})")

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
        return f"INSERT INTO {table} ({names}) SELECT * FROM {values}{many.conflict}", kinds
    given, keys = here[: len(here) - many.keys], here[len(here) - many.keys :]
    where = " AND ".join(f"{table}.{column.name} = given.{name}" for column, name in keys)
    if isinstance(many.statement, Delete):
        # Whose it is need not be said.
        where = where.replace("= given.node_id_", "= coalesce(given.node_id_, node_id)")
        return f"DELETE FROM {table} USING {values} AS given ({names}) WHERE {where}", kinds
    assigned = ", ".join(f"{column.name} = given.{name}" for column, name in given)
    return f"UPDATE {table} SET {assigned} FROM {values} AS given ({names}) WHERE {where}", kinds
