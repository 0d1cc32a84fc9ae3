"""What the kernels of several namespaces say of the routes to and from nodes' prefixes, as they say it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_DELRULE, RTM_NEWROUTE, RTM_NEWRULE

from lab import netns

_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 64 << 20
_GROUPS: Final = 1 << 10 | 1 << 18
"""RTMGRP_IPV6_ROUTE, RTMGRP_IPV6_RULE."""
_HEADER: Final = 16
_FIXED: Final = 12
"""Octets of struct rtmsg and of struct fib_rule_hdr, which have the lengths of both prefixes in the same place."""
_ADDRESS: Final = 20
"""Octets of an attribute with an address."""
_NODE_BITS: Final = 64
_DESTINATION, _SOURCE = 1, 2
"""Attributes, of routes and of rules alike."""
_TO_LENGTH, _FROM_LENGTH, _ROUTE_TYPE = 1, 2, 7
_UNREACHABLE = 7


class What(IntEnum):
    """What has become of a prefix."""

    ROUTE_PUT = 1
    ROUTE_DROPPED = 2
    SOURCE_PUT = 3
    SOURCE_DROPPED = 4


_BY_DESTINATION: Final = {RTM_NEWROUTE: What.ROUTE_PUT, RTM_DELROUTE: What.ROUTE_DROPPED}
_BY_SOURCE: Final = {
    RTM_NEWROUTE: What.SOURCE_PUT,
    RTM_DELROUTE: What.SOURCE_DROPPED,
    # Of versions that had a rule for each prefix, which `--beside` measures, too.
    RTM_NEWRULE: What.SOURCE_PUT,
    RTM_DELRULE: What.SOURCE_DROPPED,
}


class Event(NamedTuple):
    """A change of the route to a /64 or of the way from it into a tunnel, and when it was heard of (seconds,
    monotonic)."""

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
        for data in self.heard():
            at = time.monotonic()
            for what, address in changes(data):
                yield Event(what, address, at)

    def heard(self) -> Iterator[bytes]:
        """The same as the kernel says it, to be read by `changes`."""
        while True:
            try:
                yield self.socket.recv(1 << 16)
            except BlockingIOError:
                return

    def close(self) -> None:
        """Hear no more."""
        self.socket.close()


def changes(data: bytes) -> Iterator[tuple[What, bytes]]:
    """What netlink messages say of prefixes."""
    offset = 0
    while offset < len(data):
        length, number = struct.unpack_from("=LH", data, offset)
        found = _change(number, data[offset + _HEADER : offset + length])
        if found is not None:
            yield found
        offset += (length + 3) & ~3


def _change(number: int, body: bytes) -> tuple[What, bytes] | None:
    if number not in _BY_SOURCE:
        return None
    if body[_FROM_LENGTH]:
        what, wanted = _BY_SOURCE.get(number), _SOURCE
        bits = body[_FROM_LENGTH]
    else:
        what, wanted = _BY_DESTINATION.get(number), _DESTINATION
        bits = body[_TO_LENGTH]
    # Behind each way into a tunnel there is an unreachable one, which is none.
    behind = wanted == _SOURCE and body[_ROUTE_TYPE] == _UNREACHABLE
    if what is None or bits != _NODE_BITS or behind:
        return None
    offset = _FIXED
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == wanted and length == _ADDRESS:
            return what, body[offset + 4 : offset + _ADDRESS]
        offset += (length + 3) & ~3
    return None
