"""What the MAAR puts into the kernel, as plain values: the shared vocabulary of the core and of the southbound drivers.

Each item has a `key`: the kernel holds at most one item per key, and putting another one replaces it in one step, so
that no packet ever meets a gap (make before break). A start compares what it finds with what it wants in these words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from dmm_wire.address import Prefix
from dmm_wire.router_identity import RouterIdentity

Key: TypeAlias = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class ToNode:
    """Next hop: the mobile node itself, by its link-local address on an access interface (its configured name)."""

    interface: str
    neighbour: bytes


@dataclass(frozen=True, slots=True)
class ToPeer:
    """Next hop: another MAAR, through the tunnel to its endpoint (RFC 2473)."""

    endpoint: bytes


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No next hop: answered with ICMPv6 Destination Unreachable instead of looping through the core."""


Target: TypeAlias = ToNode | ToPeer | Unreachable


@dataclass(frozen=True, slots=True)
class Route:
    """Traffic to `prefix` goes to `target`."""

    prefix: Prefix
    target: Target

    @property
    def key(self) -> Key:
        return ("route", self.prefix)


@dataclass(frozen=True, slots=True)
class SourceRule:
    """Traffic from `prefix` (a prefix anchored at `peer`) leaves through the tunnel to `peer`."""

    prefix: Prefix
    peer: bytes

    @property
    def key(self) -> Key:
        return ("rule", self.prefix)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The link-layer address of a mobile node on an access interface, so that its first packet waits for nothing."""

    interface: str
    address: bytes
    link_layer: bytes

    @property
    def key(self) -> Key:
        return ("neighbour", self.interface, self.address)


@dataclass(frozen=True, slots=True)
class Dlif:
    """Another anchor's router identity, shown to its nodes on an access interface (RFC 8885 section 3.7); shared by all
    of them there."""

    interface: str
    identity: RouterIdentity

    @property
    def key(self) -> Key:
        return ("dlif", self.interface, self.identity.link_local)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel to a peer MAAR exists; shared by all routes and rules that use it."""

    peer: bytes

    @property
    def key(self) -> Key:
        return ("tunnel", self.peer)


@dataclass(frozen=True, slots=True)
class AcceptFrom:
    """Encapsulated packets from this MAAR of the domain are decapsulated; from anybody else they are not."""

    peer: bytes

    @property
    def key(self) -> Key:
        return ("accept", self.peer)


Item: TypeAlias = Route | SourceRule | Neighbour | Dlif | Tunnel | AcceptFrom


@dataclass(frozen=True, slots=True)
class Put:
    """Install `item`, replacing in one step what has its key. Idempotent."""

    item: Item


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the item with this key. Idempotent: what is not there is not an error."""

    item: Item


Change: TypeAlias = Put | Drop
