"""Make a decision's changes visible to the next request of the batch."""

from __future__ import annotations

from collections.abc import Iterable

from dhcp_cmd.core.model import (
    Change,
    DropBinding,
    DropIdentity,
    DropNode,
    PutBinding,
    PutNode,
    Snapshot,
)


def apply(snapshot: Snapshot, changes: Iterable[Change]) -> None:
    """Change `snapshot` as the database will be changed; history is not part of it.

    A binding changes hands only in a merge, and there the DropNode of the old holder follows.
    """
    for change in changes:
        match change:
            case PutNode(node):
                for identity in node.identities:
                    snapshot.nodes[identity] = node
                snapshot.bindings.setdefault(node.id, {})
            case DropNode(gone):
                snapshot.nodes = {i: n for i, n in snapshot.nodes.items() if n.id != gone}
                snapshot.bindings.pop(gone, None)
            case DropIdentity(identity):
                snapshot.nodes.pop(identity, None)
            case PutBinding(binding):
                key = binding.prefix.address
                snapshot.bindings.setdefault(binding.node, {})[key] = binding
                snapshot.taken[key] = binding.node
            case DropBinding(prefix, node_id):
                snapshot.bindings.get(node_id, {}).pop(prefix.address, None)
                snapshot.taken.pop(prefix.address, None)
