"""The core's Store in SQL: a few statements for a batch, however many messages it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, select

from dhcp_cmd.core.model import (
    Binding,
    Change,
    Domain,
    Lookup,
    MaarId,
    Micros,
    Need,
    Node,
    NodeId,
    Pool,
    PoolId,
    Snapshot,
)
from dhcp_cmd.core.ports import Collision, StoreError
from dhcp_cmd.store import statements as q
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.changes import Grouped, group
from dhcp_cmd.store.engine import (
    Mode,
    backend,
    errors_of,
    leave_all,
    store_error,
    transaction,
    writing,
)
from dhcp_cmd.store.rows import (
    Values,
    binding_of,
    binding_values,
    domain_of,
    event_values,
    identity_text,
    identity_values,
    is_extension,
    is_same_holding,
    life_values,
    link_of,
    maar_of,
    new_node_values,
    node_of,
    node_values,
    pool_of,
    signal_of,
    signal_values,
)
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity

_WALK = (16, 128, 1_024, 4_096)
"""Rows read at a time in search of a gap: mostly the first is not far, in a pool that is nearly full it is."""
_LIST_SIZES = tuple(1 << bits for bits in range(13))
MOST_QUESTIONS = 1_000
LONGEST_LIST = _LIST_SIZES[-1]
"""Values in one IN list: SQLite takes 32,766 parameters, PostgreSQL 65,535."""


class SqlTransaction:
    """A transaction of SqlStore; see dhcp_cmd.core.ports.Transaction. After an error it can only be left."""

    def __init__(self, store: SqlStore, connection: Connection) -> None:
        self._store = store
        self.connection = connection
        """For the operator's commands, which change more than the core does."""
        # What is run for every batch goes to the driver itself: on the way through SQLAlchemy a statement costs 25 us
        # more, ten times what it takes, and a small batch has as many of them as a large one.
        self._driver: Any = connection.connection.driver_connection
        self._owners: dict[Identity, NodeId] = {}
        """Identities known to be in the database, so that only new ones are written."""
        self._loaded: set[NodeId] = set()
        """Nodes all of whose identities are in `_owners`."""
        self._stored: dict[bytes, Binding] = {}
        """Bindings as they are in the database, where that is known."""
        self._reclaimed: dict[PoolId, int] = {}
        """The counters of pools, as they were before anything was looked for there."""
        self._domain: Domain | None = None
        self._wrote = False
        self._failed = False

    # --- reading ---

    def domain(self) -> Domain:
        """The domain, which does not change before this transaction is over; loaded only when its version moved."""
        if self._domain is None:
            with Errors(self):
                ((version,),) = self._run("SELECT version FROM domain")
                cached = self._store.cached_domain
                if cached is None or cached.version != version:
                    cached = self._store.cached_domain = load_domain(self.connection)
                self._domain = cached
        return self._domain

    def read(self, lookups: Sequence[Lookup]) -> Snapshot:
        """One read for all requests of a batch: four statements."""
        snapshot = Snapshot(self.domain())
        asked = {identity_text(each) for lookup in lookups for each in lookup.identities}
        candidates = {address for lookup in lookups for address in lookup.candidates}
        with Errors(self):
            self._keep_nodes(self._in(q.NODES, list(asked)), snapshot)
            self._keep_bindings(self._in(q.BINDINGS, list(snapshot.bindings)), snapshot)
            snapshot.taken.update([(row[0], row[1]) for row in self._in(q.TAKEN, list(candidates))])
        return snapshot

    def _keep_bindings(self, rows: Iterable[Any], snapshot: Snapshot) -> None:
        for row in rows:
            binding = binding_of(row)
            snapshot.bindings[binding.node][binding.prefix.address] = binding
            self._stored[binding.prefix.address] = binding

    def _keep_nodes(self, rows: Iterable[Any], snapshot: Snapshot) -> None:
        found: dict[NodeId, tuple[Any, list[Identity]]] = {}
        for subtype, value, *row in rows:
            found.setdefault(row[0], (row, []))[1].append(Identity(subtype, value))
        for number, (row, identities) in found.items():
            node = node_of(row, identities)
            snapshot.bindings[number] = {}
            self._loaded.add(number)
            for identity in identities:
                snapshot.nodes[identity] = node
                self._owners[identity] = number

    def rows(self, listed: q.Listed, values: Sequence[object]) -> Sequence[Any]:
        """The rows of a statement for all of its `values`."""
        with Errors(self):
            return self._in(listed, values)

    def nodes(self, numbers: Sequence[NodeId]) -> dict[NodeId, tuple[Node, tuple[Binding, ...]]]:
        """These nodes, each with all its bindings; those that are known by nothing any more are left out."""
        snapshot = Snapshot(self.domain())
        with Errors(self):
            self._keep_nodes(self._in(q.NODES_BY_ID, numbers), snapshot)
            self._keep_bindings(self._in(q.BINDINGS, list(snapshot.bindings)), snapshot)
        nodes = {node.id: node for node in snapshot.nodes.values()}
        held = snapshot.bindings
        return {number: (node, tuple(held[number].values())) for number, node in nodes.items()}

    def supply(self, snapshot: Snapshot, need: Need) -> None:
        """Add to `snapshot` what a decision asked for."""
        pools = {pool.id: pool for each in snapshot.domain.pools.values() for pool in each}
        with Errors(self):
            self._supply_last_held(snapshot, need, pools)
            for pool_id, start in need.gaps:
                snapshot.gaps[pool_id, start] = self._gap(snapshot, pools[pool_id], start)

    def _supply_last_held(
        self, snapshot: Snapshot, need: Need, pools: Mapping[PoolId, Pool]
    ) -> None:
        for start in range(0, len(need.last_held), MOST_QUESTIONS):
            asked = need.last_held[start : start + MOST_QUESTIONS]
            questions = [
                (number, node, pools[pool].unit_length, pools[pool].prefix, iaid)
                for number, (node, pool, iaid) in enumerate(asked)
            ]
            values = [
                value
                for number, node, length, prefix, iaid in questions
                for value in (number, node, length, prefix.address, prefix.last, iaid)
            ]
            for number, prefix in self._run(q.last_held_text(len(questions)), values):
                length = questions[number][2]
                snapshot.last_held[asked[number]] = prefix and Prefix(prefix, length)

    def _gap(self, snapshot: Snapshot, pool: Pool, start: int) -> Prefix | None:
        """The first unit at or after `start`, wrapping around, that neither the database nor the batch has taken."""
        reclaimed = self._reclaimed.get(pool.id)
        if reclaimed is None:
            reclaimed = self._reclaimed[pool.id] = self._read_reclaimed(pool)
        if self._store.full_pools.get(pool.id) == reclaimed:
            return None
        batch = {address for held in snapshot.bindings.values() for address in held}
        free = self._free_unit(pool, start, pool.size, batch)
        if free is None:
            free = self._free_unit(pool, 0, start, batch)
        if free is None and not (self._wrote or self._holds_any(pool, batch)):
            # Walked once; until something comes back to it, nobody need walk it again. (What this
            # transaction itself wrote may be rolled back.)
            self._store.full_pools[pool.id] = reclaimed
        return free

    def _read_reclaimed(self, pool: Pool) -> int:
        count: int = self.connection.execute(q.RECLAIMED, {"pool": pool.id}).scalar_one()
        return count

    def _taken_from(self, first: bytes, last: bytes, most: int) -> Sequence[Any]:
        """The first addresses that are taken in a range."""
        where = {"first": first, "last": last, "most": most}
        return self.connection.execute(q.TAKEN_FROM, where).all()

    def _free_unit(self, pool: Pool, slot: int, high: int, batch: set[bytes]) -> Prefix | None:
        """The first unit in the slots from `slot` up to `high` (exclusive) without a row, and not in `batch`."""
        if slot >= high:
            return None
        first, last = pool.unit(slot).address, pool.unit(high - 1).last
        for most in chain(_WALK, repeat(_WALK[-1])):
            rows = self._taken_from(first, last, most)
            for (address,) in rows:
                taken = pool.slot_of(address)
                while slot < taken:
                    if (unit := pool.unit(slot)).address not in batch:
                        return unit
                    slot += 1
                slot = taken + 1
                first = address
            if len(rows) < most:
                break
            first = (int.from_bytes(first, "big") + 1).to_bytes(16, "big")
        while slot < high:
            if (unit := pool.unit(slot)).address not in batch:
                return unit
            slot += 1
        return None

    def _holds_any(self, pool: Pool, batch: set[bytes]) -> bool:
        return any(0 <= pool.slot_of(address) < pool.size for address in batch)

    def signals(self, snapshot: Snapshot) -> None:
        """Add to `snapshot` what is owed to MAARs about its nodes."""
        with Errors(self):
            for row in self._in(q.SIGNALS, list(snapshot.bindings)):
                signal = signal_of(row)
                snapshot.signals.setdefault(signal.node, {})[signal.maar] = signal

    def due(self, now: Micros, limit: int) -> list[Binding]:
        """At most `limit` bindings to reap: those whose lifetime, or whose time anchored away (`hold_until`), ran out,
        then those that may be reclaimed.
        """
        rows: list[Any] = []
        with Errors(self):
            for query in (q.EXPIRED, q.HELD_LONG_ENOUGH, q.REUSABLE):
                if len(rows) < limit:
                    rows += self.connection.execute(query, {"now": now, "most": limit - len(rows)})
        return [binding_of(row) for row in rows]

    def idle(self, before: Micros, limit: int) -> list[NodeId]:
        """At most `limit` nodes that hold nothing and moved last at `before` or earlier."""
        with Errors(self):
            rows = self.connection.execute(q.IDLE, {"before": before, "most": limit})
            return [row[0] for row in rows]

    def anchored_away(self, maar: MaarId) -> list[NodeId]:
        """The nodes elsewhere that this MAAR anchors something for, locked in the order of their ids."""
        with Errors(self):
            rows = self.connection.execute(q.ANCHORED_AWAY, {"maar": maar})
            return [row[0] for row in rows]

    # --- writing ---

    def write(self, changes: Sequence[Change]) -> None:
        """Write changes, each kind in one statement. Raises Collision when a unique index objects, or when a row
        that is to be changed is not there.
        """
        grouped = group(changes)
        self._wrote = True
        with Errors(self):
            heirs = self._free_identities(grouped)
            self._write_nodes(grouped)
            self._write_bindings(grouped)
            self._write_signals(grouped)
            self._many(q.INSERT_EVENT, [event_values(event) for event in grouped.events])
            self._each_found(
                q.BURY_NODE,
                [(None, None, None, heirs.get(node), node) for node in grouped.dropped_nodes],
            )

    def _free_identities(self, grouped: Grouped) -> dict[NodeId, NodeId]:
        """Take the identities from the nodes that go, and see to whom they went: the row of a node stays, because
        the history names it, and says so. Where they went to nobody they stay too, but are nobody's any more.
        """
        gone = grouped.dropped_nodes
        if not gone:
            return {}
        freed = {
            Identity(row[0], row[1]): NodeId(row[2]) for row in self._in(q.IDENTITIES, list(gone))
        }
        freed.update({each: node.id for node in gone.values() if node for each in node.identities})
        for identity in freed:
            self._owners.pop(identity, None)
        heirs = {
            freed[identity]: node.id
            for node in grouped.nodes.all()
            if node.id not in gone
            for identity in node.identities
            if identity in freed
        }
        self._in(q.FREE_IDENTITIES, list(heirs))
        self._in(q.RETIRE_IDENTITIES, list(gone.keys() - heirs.keys()))
        return heirs

    def _write_nodes(self, grouped: Grouped) -> None:
        inserted, updated = grouped.nodes.inserted, grouped.nodes.updated
        holders = {binding.node for binding in grouped.bindings.all()}
        self._many(
            q.INSERT_NODE,
            [new_node_values(node, node.id not in holders) for node in inserted.values()],
        )
        self._each_found(q.UPDATE_NODE, [_key_last(node_values(node)) for node in updated.values()])
        unread = [number for number in updated if number not in self._loaded]
        for subtype, value, owner in self._in(q.IDENTITIES, unread):
            self._owners[Identity(subtype, value)] = owner
        self._in(q.FREE_IDENTITY, [identity_text(each) for each in grouped.freed])
        for identity in grouped.freed:
            self._owners.pop(identity, None)
        new = []
        for node in grouped.nodes.all():
            if node.id in grouped.dropped_nodes:
                continue
            for identity in node.identities:
                if self._owners.get(identity) != node.id:
                    new.append(identity_values(node.id, identity))
                    self._owners[identity] = node.id
            self._loaded.add(node.id)
        self._many(q.INSERT_IDENTITY, new)

    def _write_bindings(self, grouped: Grouped) -> None:
        bindings = grouped.bindings
        owners = grouped.dropped_from
        self._each_found(
            q.DELETE_BINDING,
            [(key, owners.get(key)) for key in bindings.deleted],
        )
        extended: list[Values] = []
        changed: list[Values] = []
        replaced: list[Values] = []
        for key, binding in bindings.updated.items():
            before = self._stored.get(key)
            if before is None or not is_same_holding(before, binding):
                replaced.append(_key_last(binding_values(binding)))
            elif is_extension(before, binding):
                extended.append((binding.preferred_until, binding.valid_until, binding.node, key))
            else:
                changed.append((*life_values(binding), binding.node, key))
        self._each_found(q.EXTEND_BINDING, extended)
        self._each_found(q.CHANGE_BINDING, changed)
        self._each_found(q.UPDATE_BINDING, replaced)
        self._many(
            q.INSERT_BINDING, [binding_values(binding) for binding in bindings.inserted.values()]
        )
        for key in bindings.deleted:
            self._stored.pop(key, None)
        self._stored.update(bindings.updated)
        self._stored.update(bindings.inserted)

    def _write_signals(self, grouped: Grouped) -> None:
        signals = sorted(grouped.signals.items())
        self._many(q.DELETE_SIGNAL, [key for key, signal in signals if signal is None])
        sender = self._store.sender
        self._many(
            q.PUT_SIGNAL,
            [signal_values(signal, sender) for _, signal in signals if signal is not None],
        )
        self._in(q.FORGET_SIGNALS, list(grouped.dropped_nodes))

    def commit(self) -> None:
        """Make it durable. Raises StoreError (or Collision): then nothing was written."""
        if self._failed:
            raise StoreError("the transaction failed before: nothing of it can be committed")
        with Errors(self):
            self._store.backend.commit(self.connection)
        self._store.committed()

    def spoilt_by(self, error: BaseException) -> None:
        """Nothing of it can be committed any more. Raises StoreError for an error of the driver."""
        if isinstance(error, StoreError):
            self._failed = True
        elif isinstance(error, self._store.errors):
            self._failed = True
            raise store_error(error, self._store.engine) from error

    # --- how statements are run ---

    def _in(self, listed: q.Listed, values: Sequence[object]) -> Sequence[Any]:
        """Run a statement for all of its `values`; its rows."""
        rows: list[Any] = []
        for start in range(0, len(values), LONGEST_LIST):
            rows += self._run(*self._store.listed(listed, values[start : start + LONGEST_LIST]))
        return rows

    def _run(self, text: str, values: Sequence[object] = ()) -> Sequence[Any]:
        """Run one statement; its rows."""
        rows: Sequence[Any] = self._driver.execute(text, values).fetchall()
        return rows

    def _many(self, many: q.Many, rows: list[Values]) -> None:
        """Run a statement for each of `rows`."""
        if rows:
            self._driver.executemany(self._store.driver_text(many), rows)

    def _each_found(self, many: q.Many, rows: list[Values]) -> None:
        """Run UPDATE or DELETE for each of `rows`. Raises Collision unless each found its row."""
        if rows:
            cursor = self._driver.executemany(self._store.driver_text(many), rows)
            if cursor.rowcount != len(rows):
                raise Collision("a row that was to be changed is gone")


class Errors:
    """Makes the driver's errors the core's, and spoils the transaction. (No generator: it is entered five times for a
    batch, however small.)"""

    __slots__ = ("_transaction",)

    def __init__(self, transaction: SqlTransaction) -> None:
        self._transaction = transaction

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._transaction.spoilt_by(error)


class Beside(Protocol):
    """What goes on in the process beside the transactions, until closed."""

    def committed(self) -> None:
        """A SqlTransaction has committed."""
        ...

    def close(self) -> None:
        """Stop it."""
        ...


class SqlStore:
    """Bindings and their history in a SQL database; see dhcp_cmd.core.ports.Store. Make it with `open_store`.

    May be shared by threads, not by processes that fork: open it after the fork.
    """

    _transaction: type[SqlTransaction] = SqlTransaction

    def __init__(self, engine: Engine, beside: Beside | None = None) -> None:
        self.engine = engine
        self.backend = backend(engine.dialect.name)
        self._beside = beside
        self.errors = errors_of(engine)
        """What a statement may raise."""
        self.sender: str | None = None
        """Who sends the signals that are put (`outbox`); None: another process does."""
        self.cached_domain: Domain | None = None
        self.full_pools: dict[PoolId, int] = {}
        """Pools seen full, with what their counter `reclaimed` was then."""
        self._kept: list[Connection] = []
        self._driver_texts: dict[q.Many, str] = {}
        self._lists: dict[tuple[q.Listed, int], str] = {}

    def committed(self) -> None:
        """A transaction of this store has."""
        if self._beside is not None:
            self._beside.committed()

    def driver_text(self, many: q.Many) -> str:
        """`many.driver_text` of this database's driver, made once."""
        text = self._driver_texts.get(many)
        if text is None:
            text = self._driver_texts[many] = many.driver_text(self.engine.dialect)
        return text

    def listed(self, listed: q.Listed, values: Sequence[object]) -> tuple[str, tuple[object, ...]]:
        """A statement's text for so many values, and the values, the last one repeated up to one of few sizes: a text
        that was seen before is not prepared again.
        """
        size = next(size for size in _LIST_SIZES if len(values) <= size)
        text = self._lists.get((listed, size))
        if text is None:
            text = self._lists[listed, size] = listed.text(self.engine.dialect, size)
        return text, (*values, *[values[-1]] * (size - len(values)))

    @contextmanager
    def transaction(self, mode: Mode = Mode.WRITE) -> Iterator[SqlTransaction]:
        """Begin a transaction that may write; on SQLite it holds the one write lock. Raises StoreError."""
        kept = self._kept if mode is Mode.WRITE else None
        with transaction(self.engine, mode, kept) as connection:
            yield self._transaction(self, connection)

    @contextmanager
    def administration(self, mode: Mode = Mode.WRITE) -> Iterator[Connection]:
        """A plain connection in a transaction that commits when left normally; for the operator's commands."""
        with writing(self.engine, mode) as connection:
            yield connection

    def close(self) -> None:
        """Close the connections that are not in use, and what goes on beside."""
        if self._beside is not None:
            self._beside.close()
        leave_all(self._kept, self.errors)
        self.engine.dispose()


def _key_last(row: Values) -> Values:
    """A whole row as UPDATE takes it: the key, which the row begins with, after what is set."""
    return (*row[1:], row[0])


def load_domain(connection: Connection) -> Domain:
    """The mobility domain: the MAARs that were not removed, with all that belongs to it."""
    version, hash_key = connection.execute(select(t.domain.c.version, t.domain.c.hash_key)).one()
    maars = select(*t.columns(t.maar)).where(t.maar.c.removed_at.is_(None)).order_by(t.maar.c.id)
    links = select(*t.columns(t.link)).order_by(t.link.c.id)
    pools = select(*t.columns(t.pool)).where(t.pool.c.removed_at.is_(None)).order_by(t.pool.c.id)
    pairs = select(t.node_link.c.first, t.node_link.c.second)
    return domain_of(
        version,
        hash_key,
        map(maar_of, connection.execute(maars)),
        map(link_of, connection.execute(links)),
        map(pool_of, connection.execute(pools)),
        [(Identity.parse(one), Identity.parse(other)) for one, other in connection.execute(pairs)],
    )
