"""A batch's changes put together by kind, so that each kind is one statement with many rows.

Only the first and the last word on a row matter: whether it was there before the batch, and what it is afterwards.
History rows are all kept, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dhcp_cmd.core.model import (
    Binding,
    Change,
    DropBinding,
    DropIdentity,
    DropNode,
    DropSignal,
    Event,
    MaarId,
    Node,
    NodeId,
    PutBinding,
    PutNode,
    PutSignal,
    Record,
    Signal,
)
from dmm_wire.identity import Identity

K = TypeVar("K")
V = TypeVar("V")


class Rows(Generic[K, V]):
    """What happens to the rows of one table, by key. Each key is in at most one of the three."""

    __slots__ = ("deleted", "inserted", "updated")

    def __init__(self) -> None:
        self.inserted: dict[K, V] = {}
        self.updated: dict[K, V] = {}
        self.deleted: set[K] = set()

    def all(self) -> Iterator[V]:
        """Every row that is there afterwards."""
        yield from self.inserted.values()
        yield from self.updated.values()

    def put(self, key: K, value: V, *, new: bool) -> None:
        """The row is `value` now; `new` says that it was not there just before."""
        if key in self.deleted:
            # There before the batch, dropped by it, there again.
            self.deleted.discard(key)
            self.updated[key] = value
        elif key in self.inserted or (new and key not in self.updated):
            self.inserted[key] = value
        else:
            self.updated[key] = value

    def drop(self, key: K) -> None:
        """The row is gone now."""
        if key in self.inserted:
            del self.inserted[key]
        else:
            self.updated.pop(key, None)
            self.deleted.add(key)


@dataclass(slots=True)
class Grouped:
    """All changes of a batch."""

    nodes: Rows[NodeId, Node] = field(default_factory=Rows)
    """Nodes that are there afterwards. Their rows are never deleted, because the history names them."""
    dropped_nodes: dict[NodeId, Node | None] = field(default_factory=dict)
    """Nodes that are dropped, as the batch had put them before (None: it had not)."""
    freed: set[Identity] = field(default_factory=set)
    """Identities that nodes lost; another node, or the same one, may have them again by now."""
    bindings: Rows[bytes, Binding] = field(default_factory=Rows)
    dropped_from: dict[bytes, NodeId] = field(default_factory=dict)
    """Whose a deleted binding was, by first address; not where the batch had changed it before."""
    signals: dict[tuple[NodeId, MaarId], Signal | None] = field(default_factory=dict)
    """What is owed to MAARs; None: nothing any more."""
    events: list[Event] = field(default_factory=list)


def group(changes: Sequence[Change]) -> Grouped:
    """Put `changes` together, in the order given."""
    grouped = Grouped()
    nodes, bindings = grouped.nodes, grouped.bindings
    for change in changes:
        # The most frequent ones first; `match` would look at each class in turn.
        if isinstance(change, Record):
            grouped.events.append(change.event)
        elif isinstance(change, PutBinding):
            bindings.put(change.binding.prefix.address, change.binding, new=change.new)
        elif isinstance(change, PutNode):
            nodes.put(change.node.id, change.node, new=change.new)
            grouped.dropped_nodes.pop(change.node.id, None)
        elif isinstance(change, DropBinding):
            key = change.prefix.address
            if key not in bindings.updated:
                grouped.dropped_from.setdefault(key, change.node)
            bindings.drop(key)
        elif isinstance(change, DropIdentity):
            grouped.freed.add(change.identity)
        elif isinstance(change, PutSignal):
            signal = change.signal
            before = grouped.signals.get((signal.node, signal.maar))
            if before is not None and before.visit:
                signal = signal._replace(visit=True)
            grouped.signals[signal.node, signal.maar] = signal
        elif isinstance(change, DropSignal):
            grouped.signals[change.node, change.maar] = None
        elif isinstance(change, DropNode):
            gone = change.node
            for owed in [key for key in grouped.signals if key[0] == gone]:
                del grouped.signals[owed]
            grouped.dropped_nodes[gone] = nodes.inserted.get(gone) or nodes.updated.get(gone)
    return grouped
