"""The operator says that two identifiers are one node's (`dhcp-cmd node link`), or are not (`node unlink`)."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.attach import settle, sort_out
from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.errors import CmdError
from dhcp_cmd.core.identity import Claim, known_by, mobile_node
from dhcp_cmd.core.inquire import REGISTRATION, Inquiry
from dhcp_cmd.core.model import (
    BindingRequest,
    Change,
    DropIdentity,
    Lookup,
    Micros,
    Node,
    PutNode,
    Settings,
    Snapshot,
)
from dhcp_cmd.core.place import NOWHERE
from dmm_wire.address import UNSPECIFIED
from dmm_wire.identity import Identity

CAUSE: Final = "linked"
"""In the history, what the operator did."""


class Unknown(CmdError):
    """No node is known by either identifier: what holds nothing is not stored."""


def link(
    first: Identity, second: Identity, snapshot: Snapshot, settings: Settings, now: Micros
) -> tuple[Change, ...]:
    """The changes that make `first` and `second` one node's; none where they are already. Raises Unknown.

    Of two nodes, the one whose visit is later takes over what the other has: where it is, the node is.
    """
    found = {node.id: node for each in (first, second) if (node := snapshot.nodes.get(each))}
    if not found:
        raise Unknown(f"no node is known by {first} or {second}")
    nodes = sorted(found.values(), key=lambda node: (node.generation, node.id))
    draft = _draft(nodes[-1], (first, second), snapshot, settings, now)
    if len(nodes) == 2:
        draft.absorb(nodes[0])
        settle(draft)
        serving = None if nodes[-1].serving is None else draft.domain.maars.get(nodes[-1].serving)
        if serving is not None:
            sort_out(draft, serving)
    node = draft.node
    assert node is not None
    draft.node = node._replace(identities=known_by(*node.identities, first, second))
    return draft.changes()


def unlink(first: Identity, second: Identity, snapshot: Snapshot) -> tuple[Change, ...]:
    """The changes after which `second` is not the node's any more that has `first`, and nobody's until it is seen
    again: none where it is not. What the node holds it keeps."""
    node, other = snapshot.nodes.get(first), snapshot.nodes.get(second)
    if node is None or other is None or node.id != other.id:
        return ()
    left = tuple(each for each in node.identities if each != second)
    link_layer = None if node.link_layer == second else node.link_layer
    changed = node._replace(identities=left, link_layer=link_layer)
    return DropIdentity(second), PutNode(changed, new=False)


def _draft(
    node: Node,
    identities: tuple[Identity, Identity],
    snapshot: Snapshot,
    settings: Settings,
    now: Micros,
) -> Draft:
    request = BindingRequest(REGISTRATION, bytes(3), None, None, False, (), (), UNSPECIFIED)
    claim = Claim(mobile_node(node), None)
    inquiry = Inquiry(request, NOWHERE, claim, Lookup(identities), {}, 0)
    draft = Draft(inquiry, snapshot, settings, now, CAUSE)
    draft.adopt(node, claim.key)
    return draft
