"""What the kernels of several namespaces say of the routes and rules of nodes' prefixes, as they say it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from lab import netns

_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 64 << 20
_GROUPS: Final = 1 << 10 | 1 << 18
"""RTMGRP_IPV6_ROUTE, RTMGRP_IPV6_RULE."""
_HEADER: Final = 16
_FIXED: Final = 12
"""Octets of struct rtmsg and of struct fib_rule_hdr."""
_ADDRESS: Final = 20
"""Octets of an attribute with an address."""
_NODE_BITS: Final = 64
_RTA_DST, _FRA_SRC = 1, 2


class What(IntEnum):
    """What has become of a prefix: the numbers of RTM_NEWROUTE and so on."""

    ROUTE_PUT = 24
    ROUTE_DROPPED = 25
    RULE_PUT = 32
    RULE_DROPPED = 33


class Event(NamedTuple):
    """A change of the route to a /64 or of the rule from it, and when it was heard of (seconds, monotonic)."""

    what: What
    address: bytes
    at: float


class Monitor:
    """Hears of the changes in one namespace."""

    def __init__(self, namespace: str) -> None:
        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            sock.bind((0, _GROUPS))
            return sock

        self.socket = netns.inside(namespace, opened)
        self.socket.setblocking(False)

    def read(self) -> Iterator[Event]:
        """What is there. Raises OSError where something was lost (ENOBUFS)."""
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                return
            at = time.monotonic()
            offset = 0
            while offset < len(data):
                length, number = struct.unpack_from("=LH", data, offset)
                address = _address(number, data[offset + _HEADER : offset + length])
                if address is not None:
                    yield Event(What(number), address, at)
                offset += (length + 3) & ~3

    def close(self) -> None:
        """Hear no more."""
        self.socket.close()


def _address(number: int, body: bytes) -> bytes | None:
    match number:
        case What.ROUTE_PUT | What.ROUTE_DROPPED:
            bits, wanted = body[1], _RTA_DST
        case What.RULE_PUT | What.RULE_DROPPED:
            bits, wanted = body[2], _FRA_SRC
        case _:
            return None
    offset = _FIXED
    while bits == _NODE_BITS and offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == wanted and length == _ADDRESS:
            return body[offset + 4 : offset + _ADDRESS]
        offset += (length + 3) & ~3
    return None
