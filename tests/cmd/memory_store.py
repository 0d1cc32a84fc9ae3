"""A Store in memory: the reference for what dhcp_cmd/core/ports.py means, and the tests' quick database.

It is strict: a broken reference, a second owner, a row inserted twice or updated without being there is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dhcp_cmd.core.lifetime import end_of
from dhcp_cmd.core.model import (
    Binding,
    Change,
    Domain,
    DropBinding,
    DropIdentity,
    DropNode,
    DropSignal,
    Event,
    EventType,
    Kind,
    Lookup,
    MaarId,
    Micros,
    Need,
    Node,
    NodeId,
    Pool,
    PutBinding,
    PutNode,
    PutSignal,
    Record,
    Signal,
    Snapshot,
    State,
)
from dhcp_cmd.core.ports import Collision, StoreError
from dhcp_cmd.store.outbox import Key, Owed
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity


@dataclass(slots=True)
class Tables:
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    identities: dict[Identity, NodeId] = field(default_factory=dict)
    bindings: dict[bytes, Binding] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    signals: dict[tuple[NodeId, MaarId], Signal] = field(default_factory=dict)

    def copy(self) -> Tables:
        return Tables(
            dict(self.nodes),
            dict(self.identities),
            dict(self.bindings),
            list(self.history),
            dict(self.signals),
        )


class MemoryStore:
    """`before_write` and `before_commit`, where set, run at that moment: raise from them to see a failure."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.tables = Tables()
        self.serials: dict[tuple[NodeId, MaarId], int] = {}
        """Of each signal that was ever put; they only grow."""
        self.commits = 0
        self.reads = 0
        self.before_write: Callable[[Sequence[Change]], None] | None = None
        self.before_commit: Callable[[], None] | None = None

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        yield MemoryTransaction(self, self.tables.copy())

    @property
    def history(self) -> list[Event]:
        return self.tables.history

    @property
    def bindings(self) -> dict[bytes, Binding]:
        return self.tables.bindings

    def node(self, identity: Identity) -> Node:
        return self.tables.nodes[self.tables.identities[identity]]


class MemoryTransaction:
    def __init__(self, store: MemoryStore, tables: Tables) -> None:
        self._store = store
        self._tables = tables

    def domain(self) -> Domain:
        return self._store.domain

    def read(self, lookups: Sequence[Lookup]) -> Snapshot:
        self._store.reads += 1
        snapshot = Snapshot(self._store.domain)
        tables = self._tables
        for lookup in lookups:
            for identity in lookup.identities:
                node_id = tables.identities.get(identity)
                if node_id is not None:
                    node = tables.nodes[node_id]
                    for each in node.identities:
                        snapshot.nodes[each] = node
                    snapshot.bindings[node_id] = {
                        key: b for key, b in tables.bindings.items() if b.node == node_id
                    }
            self._look(snapshot, lookup.candidates)
        return snapshot

    def supply(self, snapshot: Snapshot, need: Need) -> None:
        self._store.reads += 1
        pools = {p.id: p for pools in self._store.domain.pools.values() for p in pools}
        for node, pool, iaid in need.last_held:
            snapshot.last_held[node, pool, iaid] = self._last(node, pools[pool], iaid)
        for pool, slot in need.gaps:
            snapshot.gaps[pool, slot] = self._gap(pools[pool], slot)

    def signals(self, snapshot: Snapshot) -> None:
        for signal in self._tables.signals.values():
            if signal.node in snapshot.bindings:
                snapshot.signals.setdefault(signal.node, {})[signal.maar] = signal

    def due(self, now: Micros, limit: int) -> list[Binding]:
        over = [
            (end_of(b)[0], b) for b in self._tables.bindings.values() if b.state is not State.ENDED
        ]
        free = [
            (b.reusable_at or 0, b)
            for b in self._tables.bindings.values()
            if b.state is State.ENDED
        ]
        both = [
            (at, b)
            for sort in (over, free)
            for at, b in sorted(sort, key=lambda due: (due[0], due[1].kind, due[1].prefix))
        ]
        return [b for at, b in both if at <= now][:limit]

    def idle(self, before: Micros, limit: int) -> list[NodeId]:
        busy = {binding.node for binding in self._tables.bindings.values()}
        nodes = sorted(self._tables.nodes.values(), key=lambda node: (node.visit_since, node.id))
        return [n.id for n in nodes if n.id not in busy and n.visit_since <= before][:limit]

    def anchored_away(self, maar: MaarId) -> list[NodeId]:
        mine = [b for b in self._tables.bindings.values() if b.anchor == maar]
        held = {b.node for b in mine if b.state is not State.ENDED and b.kind is not Kind.ADDRESS}
        nodes = self._tables.nodes
        return sorted(n for n in held if nodes[n].serving not in (None, maar))

    def write(self, changes: Sequence[Change]) -> None:
        if self._store.before_write is not None:
            self._store.before_write(changes)
        for change in changes:
            match change:
                case PutNode(node, new):
                    self._put_node(node, new)
                case DropNode(node_id):
                    self._drop_node(node_id)
                case DropIdentity(identity):
                    del self._tables.identities[identity]
                case PutBinding(binding, new):
                    self._put_binding(binding, new)
                case DropBinding(prefix, node_id):
                    gone = self._tables.bindings.pop(prefix.address, None)
                    if gone is None or gone.node != node_id or gone.prefix != prefix:
                        raise StoreError(f"no binding {prefix} of node {node_id}")
                case PutSignal(signal):
                    self._put_signal(signal)
                case DropSignal(node_id, maar):
                    self._tables.signals.pop((node_id, maar), None)
                case Record(event):
                    self._tables.history.append(event)

    def commit(self) -> None:
        if self._store.before_commit is not None:
            self._store.before_commit()
        for binding in self._tables.bindings.values():
            if binding.node not in self._tables.nodes:
                raise StoreError(f"{binding.prefix} belongs to nobody")
            if binding.state is State.ENDED and None in (binding.ended_at, binding.reusable_at):
                raise StoreError(f"{binding.prefix} ended without an end")
        self._store.tables = self._tables
        self._store.commits += 1

    def _look(self, snapshot: Snapshot, candidates: Sequence[bytes]) -> None:
        for candidate in candidates:
            row = self._tables.bindings.get(candidate)
            if row is not None:
                snapshot.taken[candidate] = row.node

    def _last(self, node: NodeId, pool: Pool, iaid: int | None) -> Prefix | None:
        for event in reversed(self._tables.history):
            if (
                event.type is EventType.ASSIGNED
                and event.node == node
                and event.iaid == iaid
                and event.prefix is not None
                and pool.slot(event.prefix) is not None
            ):
                return event.prefix
        return None

    def _gap(self, pool: Pool, slot: int) -> Prefix | None:
        for step in range(pool.size):
            unit = pool.unit((slot + step) % pool.size)
            if unit.address not in self._tables.bindings:
                return unit
        return None

    def _put_node(self, node: Node, new: bool) -> None:
        tables = self._tables
        if new and node.id in tables.nodes:
            raise Collision(f"node {node.id}")
        if not new and node.id not in tables.nodes:
            raise StoreError(f"no node {node.id}")
        tables.nodes[node.id] = node
        for identity in node.identities:
            if tables.identities.setdefault(identity, node.id) != node.id:
                raise Collision(str(identity))

    def _drop_node(self, node_id: NodeId) -> None:
        tables = self._tables
        if any(b.node == node_id for b in tables.bindings.values()):
            raise StoreError(f"node {node_id} still holds something")
        for identity in tables.nodes.pop(node_id).identities:
            del tables.identities[identity]
        tables.signals = {key: each for key, each in tables.signals.items() if key[0] != node_id}

    def _put_signal(self, signal: Signal) -> None:
        key = (signal.node, signal.maar)
        if signal.node not in self._tables.nodes or signal.maar not in self._store.domain.maars:
            raise StoreError(f"a signal of nobody, or to nobody: {signal}")
        before = self._tables.signals.get(key)
        visit = signal.visit or (before is not None and before.visit)
        self._store.serials[key] = self._store.serials.get(key, 0) + 1
        self._tables.signals[key] = signal._replace(visit=visit)

    def _put_binding(self, binding: Binding, new: bool) -> None:
        tables, key = self._tables, binding.prefix.address
        if new and key in tables.bindings:
            raise Collision(str(binding.prefix))
        if not new and key not in tables.bindings:
            raise StoreError(f"no binding {binding.prefix}")
        if binding.node not in tables.nodes:
            raise StoreError(f"no node {binding.node}")
        tables.bindings[key] = binding


class MemoryMarks:
    """The marks of one CMD; see `dhcp_cmd.store.marks.SqlMarks`. With `failing` it writes nothing."""

    def __init__(self) -> None:
        self.marks: dict[bytes, Micros] = {}
        self.writes = 0
        self.failing = False

    def read(self) -> dict[bytes, Micros]:
        return dict(self.marks)

    def write(self, marks: Mapping[bytes, Micros]) -> None:
        if self.failing:
            raise StoreError("the database is away")
        self.writes += 1
        for peer, mark in marks.items():
            self.marks[peer] = max(mark, self.marks.get(peer, mark))


class MemoryOutbox:
    """The signals of a store as its one sender sees them; see `dhcp_cmd.store.outbox.SqlOutbox`. With `failing` it does
    nothing but that."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._claimed: set[Key] = set()
        self.failing = False

    def claim(self, now: Micros, *, left_before: Micros | None = None) -> list[Key]:
        self._works()
        if left_before is None:
            return []
        left = [key for key in self._store.tables.signals if key not in self._claimed]
        self._claimed.update(left)
        return left

    def keep(self, now: Micros) -> None:
        self._works()

    def look(self, keys: Sequence[Key]) -> tuple[Domain, dict[Key, Owed]]:
        self._works()
        tables = self._store.tables
        found = {}
        for key in keys:
            signal = tables.signals.get(key)
            if signal is not None:
                held = tuple(b for b in tables.bindings.values() if b.node == signal.node)
                serial = self._store.serials[key]
                node = tables.nodes[signal.node]
                found[key] = Owed(signal.maar, serial, signal.visit, node, held)
        return self._store.domain, found

    def finish(self, done: Iterable[tuple[Key, int]]) -> None:
        self._works()
        for key, serial in done:
            if self._store.serials.get(key) == serial:
                self._store.tables.signals.pop(key, None)

    def _works(self) -> None:
        if self.failing:
            raise StoreError("the database is away")
