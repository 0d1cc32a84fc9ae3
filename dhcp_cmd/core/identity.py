"""Who a mobile node is: its identifiers, when two nodes are one, and when a claim is a conflict (DESIGN 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import blake2b

from dhcp_cmd.core.lifetime import end_of
from dhcp_cmd.core.model import BindingRequest, Micros, Node, NodeId, Snapshot, State
from dhcp_cmd.core.place import Place
from dmm_wire import dmm
from dmm_wire.identity import Identity, IdentitySubtype

_LINK_LAYER = (int(IdentitySubtype.EUI48), int(IdentitySubtype.EUI64))
_BY_SIZE: Mapping[int, int] = {6: IdentitySubtype.EUI48, 8: IdentitySubtype.EUI64}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a message shows of a node: a `name` (its DUID, or what a MAAR knows it by) and a link-layer address."""

    name: Identity | None
    link_layer: Identity | None

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Both, as far as there are."""
        return tuple(each for each in (self.name, self.link_layer) if each is not None)

    @property
    def key(self) -> bytes:
        """The octets that allocation hashes: of the name if there is one."""
        shown = self.name or self.link_layer
        return b"" if shown is None else bytes((shown.subtype,)) + shown.value

    def __str__(self) -> str:
        return " ".join(map(str, self.identities))


def claim_of(request: BindingRequest, place: Place) -> Claim:
    """Read the claim of a client's message, or of what a MAAR asks on a node's behalf."""
    link_layer = _from_hardware(place.link_layer)
    if not place.own:
        name = Identity(IdentitySubtype.DUID, request.client_id) if request.client_id else None
        return Claim(name, link_layer)
    asked = place.first(dmm.MobileNode)
    if asked is None:
        return Claim(None, link_layer)
    if asked.identity.subtype in _LINK_LAYER:
        return Claim(None, link_layer or asked.identity)
    return Claim(asked.identity, link_layer)


def _from_hardware(link_layer: tuple[int, bytes] | None) -> Identity | None:
    """A link-layer address as an identity: the size tells, hardware types are many."""
    if link_layer is None:
        return None
    subtype = _BY_SIZE.get(len(link_layer[1]))
    return None if subtype is None else Identity(subtype, link_layer[1])


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


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on a claim. `learn` are the identities that `node` did not have yet."""

    verdict: Verdict
    node: Node | None = None
    other: Node | None = None
    learn: tuple[Identity, ...] = ()
    why: str = ""


def identify(claim: Claim, snapshot: Snapshot, now: Micros, *, accept: bool = False) -> Finding:
    """Judge a claim. With `accept`, a conflict is not one: the node moves and learns what nobody else has."""
    named = snapshot.nodes.get(claim.name) if claim.name is not None else None
    seen = snapshot.nodes.get(claim.link_layer) if claim.link_layer is not None else None
    if named is None:
        return _nameless(claim, seen)
    if claim.link_layer is None or (seen is not None and seen.id == named.id):
        return Finding(Verdict.KNOWN, named)
    if not accept and _link_layers(named):
        if is_live(named.id, snapshot, now):
            return Finding(Verdict.CONFLICT, named, why="another link-layer address")
        if seen is not None and _names(seen):
            return Finding(Verdict.CONFLICT, seen, why="link-layer address of another node")
    if seen is None:
        return Finding(Verdict.KNOWN, named, learn=(claim.link_layer,))
    if _names(seen):
        return Finding(Verdict.KNOWN, named)  # what is somebody else's is not learned
    return Finding(Verdict.MERGE, named, other=seen)


def _nameless(claim: Claim, seen: Node | None) -> Finding:
    """No node has the name, or the claim has none."""
    if seen is None:
        return Finding(Verdict.UNKNOWN, learn=claim.identities)
    if claim.name is None:
        return Finding(Verdict.KNOWN, seen)
    if any(each.subtype == claim.name.subtype for each in seen.identities):
        # One interface, another system: what boots first by network and then from disk, or is installed anew, has
        # another DUID each time. It is a node of its own; it takes nothing from the one that had the interface before.
        return Finding(Verdict.UNKNOWN, learn=(claim.name,))
    return Finding(Verdict.KNOWN, seen, learn=(claim.name,))


def is_live(node: NodeId, snapshot: Snapshot, now: Micros) -> bool:
    """Whether the node holds anything that has not ended, also where the end is still to be recorded."""
    return any(
        b.state is not State.ENDED and end_of(b)[0] > now
        for b in snapshot.bindings.get(node, {}).values()
    )


def new_node_id(claim: Claim, snapshot: Snapshot, salt: int) -> NodeId:
    """A surrogate id of 63 bits, the same whenever the same node is new; salted again where it clashes."""
    while True:
        digest = blake2b(
            claim.key, digest_size=8, key=snapshot.domain.hash_key, salt=salt.to_bytes(16, "big")
        ).digest()
        number = int.from_bytes(digest, "big") >> 1
        if number and number not in snapshot.bindings:
            return number
        salt += 1


def mobile_node(node: Node) -> Identity | None:
    """The identity that PMIPv6 signalling uses for the node: its DUID, else whatever it is known by."""
    for identity in node.identities:
        if identity.subtype == IdentitySubtype.DUID:
            return identity
    return node.identities[0] if node.identities else None


def _names(node: Node) -> bool:
    return any(each.subtype not in _LINK_LAYER for each in node.identities)


def _link_layers(node: Node) -> bool:
    return any(each.subtype in _LINK_LAYER for each in node.identities)
