"""Errors from inside a tunnel, made into those that the sender of the inner packet understands.

What is encapsulated comes from us: a router on the way that cannot pass it, and that is our own kernel first, tells us
and not the sender (RFC 2473 section 8). Of a packet that is too big that one needs what the tunnel leaves of the MTU
(section 7.1). The kernel's segment routing gives the outer header the hop limit of the inner one, where section 6.3
would have one of the tunnel's: so a hop limit that ended on the way was the sender's, and it is told so.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from dmm_wire.address import Prefix, is_routable
from relay_maar.core.items import Item, Key, Route, SourceRule, ToPeer, Unreachable

UNREACHABLE, PACKET_TOO_BIG, TIME_EXCEEDED = 1, 2, 3
RELAYED: Final = {UNREACHABLE: "unreachable", PACKET_TOO_BIG: "too-big", TIME_EXCEEDED: "hop-limit"}
"""By type (RFC 4443 section 3), what they are counted as."""
_ADDRESS_UNREACHABLE: Final = 3
OVERHEAD: Final = 40
"""The outer IPv6 header (RFC 2473 section 3)."""
MINIMUM_MTU: Final = 1280
"""RFC 8200 section 5."""
_HEADER: Final = struct.Struct("!BBHI")
"""Type, code, checksum, MTU (RFC 4443 section 3.2)."""
_IPV6_HEADER: Final = 40
_QUOTED: Final = MINIMUM_MTU - _IPV6_HEADER - _HEADER.size
"""Octets of the packet that an error may quote (RFC 4443 section 2.4 (c))."""
_IPV6, _ICMPV6 = 41, 58
_INFORMATIONAL: Final = 128


class Told(NamedTuple):
    """An error for `destination`, its checksum still 0; `what` it is counted as."""

    destination: bytes
    message: bytes
    what: str


class Dropped(Exception):
    """An error that is not relayed; `reason` is for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def relay(error: bytes, endpoint: bytes, items: Mapping[Key, Item]) -> Told:
    """What to send for an ICMPv6 message to our tunnel `endpoint`. `items` is what the kernel holds: only what it would
    have sent into that tunnel is believed to have been there. Raises Dropped."""
    if len(error) < _HEADER.size + OVERHEAD + _IPV6_HEADER:
        raise Dropped("truncated")
    kind, code, _, mtu = _HEADER.unpack_from(error)
    outer, inner = error[_HEADER.size :], error[_HEADER.size + OVERHEAD :]
    if kind not in RELAYED or outer[6] != _IPV6 or _source(outer) != endpoint:
        raise Dropped("no-tunnel")
    if outer[0] >> 4 != 6 or inner[0] >> 4 != 6:
        raise Dropped("version")
    source, destination, peer = _source(inner), _destination(inner), _destination(outer)
    if not is_routable(source):
        raise Dropped("source")
    if inner[6] == _ICMPV6 and inner[_IPV6_HEADER : _IPV6_HEADER + 1] < bytes([_INFORMATIONAL]):
        raise Dropped("error")  # RFC 4443 section 2.4 (e.1)
    if peer not in (_by_source(source, items), _by_destination(destination, items)):
        raise Dropped("no-tunnel")
    header = _too_big(mtu, inner) if kind == PACKET_TOO_BIG else _other(kind, code)
    return Told(source, header + inner[:_QUOTED], RELAYED[kind])


def _too_big(mtu: int, inner: bytes) -> bytes:
    left = max(mtu - OVERHEAD, MINIMUM_MTU)
    length = int.from_bytes(
        inner[4:6], "big"
    )  # 0: of segments that the kernel sends as one, beyond 64 KB
    if length and _IPV6_HEADER + length <= left:
        # Nothing that its sender could do: such a link carries no tunnel, or this is made up.
        raise Dropped("narrow")
    return _HEADER.pack(PACKET_TOO_BIG, 0, 0, left)


def _other(kind: int, code: int) -> bytes:
    if kind == UNREACHABLE:
        return _HEADER.pack(UNREACHABLE, _ADDRESS_UNREACHABLE, 0, 0)  # RFC 2473 section 8.2
    if code:
        raise Dropped("no-tunnel")  # fragments that did not become a packet: we send none
    return _HEADER.pack(TIME_EXCEEDED, 0, 0, 0)


def _source(packet: bytes) -> bytes:
    return packet[8:24]


def _destination(packet: bytes) -> bytes:
    return packet[24:40]


def _by_source(address: bytes, items: Mapping[Key, Item]) -> bytes | None:
    """The peer that the kernel tunnels a packet of a node here to."""
    for length in range(128, -1, -1):
        rule = items.get(SourceRule(Prefix.of(address, length), b"").key)
        if isinstance(rule, SourceRule):
            return rule.peer
    return None


def _by_destination(address: bytes, items: Mapping[Key, Item]) -> bytes | None:
    """The peer that the kernel tunnels all others to; what comes from the core is one, though a node here sent it."""
    for length in range(128, -1, -1):
        route = items.get(Route(Prefix.of(address, length), Unreachable()).key)
        if isinstance(route, Route):
            return route.target.endpoint if isinstance(route.target, ToPeer) else None
    return None
