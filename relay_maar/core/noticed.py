"""What is said of nodes that come and go: where they are, what is being found out, and what that takes."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from dmm_wire.address import is_link_local, is_unicast


class Pace(NamedTuple):
    """How questions are repeated: seconds until the first time, doubling to `longest`, `times` in all; then
    the node's next frame begins anew. `dated`: they say how long ago the node was seen. One that
    does not says that it is here now, and is repeated about a node that was seen since, or that
    answers a probe (RFC 5213 section 6.9.4)."""

    first: float
    longest: float
    times: int
    dated: bool


class Place(NamedTuple):
    """Where a frame was seen, and whose it was. `address` is what the node answers to, `link_local`
    what routes name as their next hop."""

    interface: str
    link_layer: bytes
    link_local: bytes
    address: bytes

    @property
    def is_guessed(self) -> bool:
        """Whether the link-local address is only made of the link-layer address."""
        return self.link_local == made_link_local(self.link_layer)


class Ask(NamedTuple):
    """Ask the CMD about the node, which was seen `age` seconds ago, the `times`th time. `known`: it has been
    here, and the CMD has not said otherwise."""

    place: Place
    transaction_id: bytes
    age: float
    known: bool
    times: int = 1


class Probe(NamedTuple):
    """Ask the node whether it is there."""

    place: Place


class Gone(NamedTuple):
    """The node does not answer, and an access point said that it left, or it has been silent for
    long. Its prefixes stay until their lifetimes end, if the CMD does not know it elsewhere."""

    place: Place
    why: Why


class Why(Enum):
    """What is being found out."""

    ARRIVAL = "arrival"
    """Whether it came here."""
    KEEP = "keep"
    """Whether it is still here, so that the CMD hears of it again."""
    DETACH = "detach"
    """Whether it left, as an access point says."""
    END = "end"
    """Whether it is still here, as what the CMD granted ends."""


def made_link_local(link_layer: bytes) -> bytes:
    """The link-local address that is made of a link-layer address (RFC 4291 appendix A). Where a
    node's own is not known yet it serves as well: the neighbour entry leads to the node, whatever
    address the node has."""
    if len(link_layer) == 6:
        link_layer = link_layer[:3] + b"\xff\xfe" + link_layer[3:]
    return b"\xfe\x80" + bytes(6) + bytes((link_layer[0] ^ 2,)) + link_layer[1:]


def may_be_a_nodes(link_layer: bytes) -> bool:
    """Whether a frame of one node could have this link-layer address: it is no group's, and not 0."""
    return len(link_layer) in (6, 8) and not link_layer[0] & 1 and any(link_layer)


def place_of_frame(interface: str, link_layer: bytes, source: bytes, target: bytes) -> Place | None:
    """Where a frame shows a node, from its source and, of a Neighbor Solicitation for an address
    that is being tried out (RFC 4862 section 5.4.2), its target. None where it shows nobody."""
    if not may_be_a_nodes(link_layer):
        return None
    if is_link_local(source):
        return Place(interface, link_layer, source, source)
    made = made_link_local(link_layer)
    if any(source):
        return Place(interface, link_layer, made, source) if is_unicast(source) else None
    if any(target) and is_link_local(target):
        return Place(interface, link_layer, target, target)
    return Place(interface, link_layer, made, made)
