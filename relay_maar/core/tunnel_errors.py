"""Packet Too Big from inside a tunnel, made into the one that the sender of the inner packet understands.

What is encapsulated comes from us: a router on the way that cannot pass it, and that is our own kernel first, tells us
and not the sender (RFC 2473 section 8). It needs what the tunnel leaves of that MTU (section 7.1).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from dmm_wire.address import Prefix, is_routable
from relay_maar.core.items import Item, Key, Route, SourceRule, ToPeer, Unreachable

PACKET_TOO_BIG: Final = 2
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


class TooBig(NamedTuple):
    """A Packet Too Big for `destination`, its checksum still 0."""

    destination: bytes
    message: bytes


class Dropped(Exception):
    """An error that is not relayed; `reason` is for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def relay(error: bytes, endpoint: bytes, items: Mapping[Key, Item]) -> TooBig:
    """What to send for an ICMPv6 message to our tunnel `endpoint`. `items` is what the kernel holds: only what it would
    have sent into that tunnel is believed to have been there. Raises Dropped."""
    if len(error) < _HEADER.size + OVERHEAD + _IPV6_HEADER:
        raise Dropped("truncated")
    kind, _, _, mtu = _HEADER.unpack_from(error)
    outer, inner = error[_HEADER.size :], error[_HEADER.size + OVERHEAD :]
    if kind != PACKET_TOO_BIG or outer[6] != _IPV6 or _source(outer) != endpoint:
        raise Dropped("no-tunnel")
    if outer[0] >> 4 != 6 or inner[0] >> 4 != 6:
        raise Dropped("version")
    source, destination, peer = _source(inner), _destination(inner), _destination(outer)
    if not is_routable(source):
        raise Dropped("source")
    if inner[6] == _ICMPV6 and inner[_IPV6_HEADER : _IPV6_HEADER + 1] < bytes([_INFORMATIONAL]):
        raise Dropped("error")  # RFC 4443 section 2.4 (e.1)
    if _tunnel(source, destination, items) != peer:
        raise Dropped("no-tunnel")
    left = max(mtu - OVERHEAD, MINIMUM_MTU)
    length = int.from_bytes(
        inner[4:6], "big"
    )  # 0: of segments that the kernel sends as one, beyond 64 KB
    if length and _IPV6_HEADER + length <= left:
        # Nothing that its sender could do: such a link carries no tunnel, or this is made up.
        raise Dropped("narrow")
    return TooBig(destination=source, message=_HEADER.pack(kind, 0, 0, left) + inner[:_QUOTED])


def _source(packet: bytes) -> bytes:
    return packet[8:24]


def _destination(packet: bytes) -> bytes:
    return packet[24:40]


def _tunnel(source: bytes, destination: bytes, items: Mapping[Key, Item]) -> bytes | None:
    """The peer that the kernel tunnels such a packet to: by its source first, as the kernel looks for that first."""
    for length in range(128, -1, -1):
        rule = items.get(SourceRule(Prefix.of(source, length), b"").key)
        if isinstance(rule, SourceRule):
            return rule.peer
    for length in range(128, -1, -1):
        route = items.get(Route(Prefix.of(destination, length), Unreachable()).key)
        if isinstance(route, Route):
            return route.target.endpoint if isinstance(route.target, ToPeer) else None
    return None
