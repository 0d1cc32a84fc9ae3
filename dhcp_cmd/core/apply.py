"""Make a decision's changes visible to the next request of the batch."""

from __future__ import annotations

from collections.abc import Iterable

from dhcp_cmd.core.model import (
    Change,
    DropBinding,
    DropIdentity,
    DropNode,
    DropSignal,
    PutBinding,
    PutNode,
    PutSignal,
    Record,
    Snapshot,
)


def apply(snapshot: Snapshot, changes: Iterable[Change]) -> None:
    """Change `snapshot` as the database will be changed; history is not part of it.

    A binding changes hands only in a merge, and there the DropNode of the old holder follows.
    """
    for change in changes:
        # The most frequent ones first; `match` would look at each class in turn.
        if isinstance(change, Record):
            continue
        if isinstance(change, PutBinding):
            binding = change.binding
            key = binding.prefix.address
            snapshot.bindings.setdefault(binding.node, {})[key] = binding
            snapshot.taken[key] = binding.node
        elif isinstance(change, PutNode):
            node = change.node
            for identity in node.identities:
                snapshot.nodes[identity] = node
            snapshot.bindings.setdefault(node.id, {})
        elif isinstance(change, DropBinding):
            key = change.prefix.address
            snapshot.bindings.get(change.node, {}).pop(key, None)
            snapshot.taken.pop(key, None)
        elif isinstance(change, DropIdentity):
            snapshot.nodes.pop(change.identity, None)
        elif isinstance(change, PutSignal):
            signal = change.signal
            snapshot.signals.setdefault(signal.node, {})[signal.maar] = signal
        elif isinstance(change, DropSignal):
            snapshot.signals.get(change.node, {}).pop(change.maar, None)
        elif isinstance(change, DropNode):
            gone = change.node
            snapshot.signals.pop(gone, None)
            snapshot.nodes = {i: n for i, n in snapshot.nodes.items() if n.id != gone}
            snapshot.bindings.pop(gone, None)
