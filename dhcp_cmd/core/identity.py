"""Who a mobile node is: its identifiers, when two nodes are one, and when a claim is a conflict (DESIGN 3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Final, NamedTuple
from zlib import crc32

from dhcp_cmd.core.lifetime import end_of
from dhcp_cmd.core.model import (
    BindingRequest,
    MaarId,
    Micros,
    Node,
    NodeId,
    Snapshot,
    State,
)
from dhcp_cmd.core.place import Place
from dmm_wire import dmm
from dmm_wire.identity import Identity, IdentitySubtype

# Looking a member up in its class costs as much as a call.
_DUID: Final = IdentitySubtype.DUID
_ENDED: Final = State.ENDED

_LINK_LAYER = (int(IdentitySubtype.EUI48), int(IdentitySubtype.EUI64))
MAX_LINK_LAYERS = 8
"""Link-layer addresses that one node is known by, the last ones."""
_HASH_BITS = 18
"""Of a node's id, the lower bits: two nodes of the same millisecond clash once in 262,144 times."""
_BY_SIZE: Mapping[int, int] = {6: IdentitySubtype.EUI48, 8: IdentitySubtype.EUI64}


class Claim(NamedTuple):
    """What a message shows of a node: a `name` (its DUID, or what a MAAR knows it by) and a link-layer address.

    `vouched`: it is a MAAR that says so in PMIPv6, having identified the node itself, and not the node.
    """

    name: Identity | None
    link_layer: Identity | None
    vouched: bool = False

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Both, as far as there are."""
        name, link_layer, _ = self
        if name is None:
            return () if link_layer is None else (link_layer,)
        return (name,) if link_layer is None else (name, link_layer)

    @property
    def key(self) -> bytes:
        """The octets that allocation hashes: of the name if there is one."""
        shown = self[0] or self[1]
        return b"" if shown is None else bytes((shown.subtype,)) + shown.value

    def __str__(self) -> str:
        return " ".join(map(str, self.identities))


def claim_of(request: BindingRequest, place: Place) -> Claim:
    """Read the claim of a client's message, or of what a MAAR asks on a node's behalf."""
    link_layer = None if place.link_layer is None else link_layer_identity(place.link_layer[1])
    if not place.own:
        name = Identity(_DUID, request.client_id) if request.client_id else None
        return Claim(name, link_layer)
    asked = place.first(dmm.MobileNode)
    if asked is None:
        return Claim(None, link_layer)
    address = None if link_layer is None else link_layer.value
    return registered_claim(asked.identity, address, vouched=False)


def registered_claim(name: Identity, address: bytes | None, *, vouched: bool = True) -> Claim:
    """The claim of a Proxy Binding Update: its Mobile Node Identifier, and the link-layer address of its option."""
    link_layer = None if address is None else link_layer_identity(address)
    if name.subtype in _LINK_LAYER:
        return Claim(None, link_layer or name, vouched)
    return Claim(name, link_layer, vouched)


def link_layer_identity(address: bytes) -> Identity | None:
    """A link-layer address as an identity: the size tells, hardware types are many."""
    subtype = _BY_SIZE.get(len(address))
    return None if subtype is None else Identity(subtype, address)


class Verdict(Enum):
    """What a claim turned out to be."""

    UNKNOWN = auto()
    """Nobody has any of it: a new node."""
    KNOWN = auto()
    """One node's."""
    MERGE = auto()
    """Two nodes' that are one: `other` was known by its link-layer address only."""
    CONFLICT = auto()
    """Somebody claims what is another node's (`node` is whose)."""


_CONFLICT: Final = Verdict.CONFLICT
_KNOWN: Final = Verdict.KNOWN
_MERGE: Final = Verdict.MERGE
_UNKNOWN: Final = Verdict.UNKNOWN


class Finding(NamedTuple):
    """The verdict on a claim. `learn` are the identities that `node` did not have yet."""

    verdict: Verdict
    node: Node | None = None
    other: Node | None = None
    learn: tuple[Identity, ...] = ()
    why: str = ""


def identify(
    claim: Claim,
    snapshot: Snapshot,
    now: Micros,
    to: MaarId | None = None,
    *,
    accept: bool = False,
) -> Finding:
    """Judge a claim; `to` is the MAAR that the node would be at. With `accept`, a conflict is not one: the node moves
    and learns what nobody else has. With what it learns comes what the operator linked with that.
    """
    finding = _judged(claim, snapshot, now, to, accept=accept)
    if not (finding.learn and snapshot.domain.linked):
        return finding
    return _as_linked(finding, snapshot)


def _as_linked(finding: Finding, snapshot: Snapshot) -> Finding:
    """What the operator said of identifiers before the node was known by them, or forgotten since."""
    said, learn = snapshot.domain.linked, finding.learn
    others = dict.fromkeys(each for identity in learn for each in said.get(identity, ()))
    known = [node for each in others if (node := snapshot.nodes.get(each)) is not None]
    free = (each for each in others if each not in snapshot.nodes)
    learn = tuple(dict.fromkeys((*learn, *free)))
    if finding.verdict is _UNKNOWN and known:
        return Finding(_KNOWN, max(known, key=lambda node: (node.generation, node.id)), learn=learn)
    return finding._replace(learn=learn)


def linked(pairs: Iterable[tuple[Identity, Identity]]) -> dict[Identity, tuple[Identity, ...]]:
    """By each identifier, all others of the same node, if each of `pairs` is one's."""
    groups: dict[Identity, dict[Identity, None]] = {}
    for one, other in pairs:
        joined = groups.get(one, {one: None}) | groups.get(other, {other: None})
        for each in joined:
            groups[each] = joined
    return {
        identity: tuple(each for each in group if each != identity)
        for identity, group in groups.items()
    }


def _judged(
    claim: Claim, snapshot: Snapshot, now: Micros, to: MaarId | None, *, accept: bool
) -> Finding:
    named = snapshot.nodes.get(claim.name) if claim.name is not None else None
    seen = snapshot.nodes.get(claim.link_layer) if claim.link_layer is not None else None
    if named is None:
        return _nameless(claim, seen)
    is_own = seen is not None and seen.id == named.id
    if not accept and _is_another_machine(claim, named, to):
        if is_live(named.id, snapshot, now):
            return Finding(_CONFLICT, named, why="another link-layer address")
        if seen is not None and not is_own and _names(seen):
            return Finding(_CONFLICT, seen, why="link-layer address of another node")
    if claim.link_layer is None or is_own:
        return Finding(_KNOWN, named)
    if seen is None:
        return Finding(_KNOWN, named, learn=(claim.link_layer,))
    if _names(seen):
        return Finding(_KNOWN, named)  # what is somebody else's is not learned
    return Finding(_MERGE, named, other=seen)


def _is_another_machine(claim: Claim, named: Node, to: MaarId | None) -> bool:
    """Whether the link-layer address is not the one that the node had last. One that is not shown proves nothing, but
    it moves nobody either.
    """
    if named.link_layer is None:
        return False
    if claim.link_layer is None:
        return not claim.vouched and to not in (None, named.serving)
    if claim.vouched and claim.link_layer in named.identities:
        return False  # the operator said so (`dhcp-cmd node link`), or an earlier message did
    return claim.link_layer != named.link_layer


def _nameless(claim: Claim, seen: Node | None) -> Finding:
    """No node has the name, or the claim has none."""
    if seen is None:
        return Finding(_UNKNOWN, learn=claim.identities)
    if claim.name is None:
        return Finding(_KNOWN, seen)
    if any(each.subtype == claim.name.subtype for each in seen.identities):
        # One interface, another system: what boots first by network and then from disk, or is installed anew, has
        # another DUID each time. It is a node of its own; it takes nothing from the one that had the interface before.
        return Finding(_UNKNOWN, learn=(claim.name,))
    return Finding(_KNOWN, seen, learn=(claim.name,))


def is_live(node: NodeId, snapshot: Snapshot, now: Micros) -> bool:
    """Whether the node holds anything that has not ended, also where the end is still to be recorded."""
    held = snapshot.bindings.get(node, {}).values()
    return any(b.state is not _ENDED and end_of(b)[0] > now for b in held)


def new_node_id(claim: Claim, snapshot: Snapshot, now: Micros, salt: int) -> NodeId:
    """A surrogate id of 63 bits; salted again where it clashes. It begins with the time (milliseconds of 1,024
    microseconds): the history keeps the ids of nodes that are forgotten, and nodes that came together have their rows
    together.
    """
    while True:
        number = (now >> 10 << _HASH_BITS) | crc32(claim.key, salt) >> 32 - _HASH_BITS
        if number and number not in snapshot.bindings:
            return number
        salt += 1


def mobile_node(node: Node) -> Identity | None:
    """The identity that PMIPv6 signalling uses for the node: its DUID, else whatever it is known by."""
    for identity in node.identities:
        if identity.subtype == _DUID:
            return identity
    return node.identities[0] if node.identities else None


def _names(node: Node) -> bool:
    return any(each.subtype not in _LINK_LAYER for each in node.identities)


def known_by(*identities: Identity) -> tuple[Identity, ...]:
    """The identities of one node, each once, of its link-layer addresses the last `MAX_LINK_LAYERS` only: a node that
    invents another one each time is not looked for by all of them.
    """
    unique = tuple(dict.fromkeys(identities))
    surplus = [each for each in unique if each.subtype in _LINK_LAYER][:-MAX_LINK_LAYERS]
    return tuple(each for each in unique if each not in surplus)
