"""What the kernel does, as it does it."""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

from dmm_wire.address import Prefix, format_address
from lab import netns
from tests.maar.daemon.actors import SO_RCVBUFFORCE

_KINDS: Final = {24: "route", 25: "route", 28: "neighbour", 29: "neighbour"}
_FIXED: Final = 12
_DESTINATION, _SOURCE = 1, 2
"""The attribute with the address."""


class Event(NamedTuple):
    """A change in the kernel: "put" or "drop"; "route", "source" (a route by source) or "neighbour"; of which prefix or
    address."""

    what: str
    kind: str
    of: str


class Monitor:
    """Every change of routes and neighbours, in the order in which the kernel makes them."""

    def __init__(self, namespace: str) -> None:
        def opened() -> socket.socket:
            # NETLINK_ROUTE; groups of neighbours and IPv6 routes.
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            sock.bind((0, 1 << 2 | 1 << 10))
            return sock

        self._socket = netns.inside(namespace, opened)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.events: list[Event] = []

    def read(self) -> list[Event]:
        """All events so far. Raises OSError where one was lost (ENOBUFS)."""
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                return self.events
            while data:
                length, number = struct.unpack_from("=LH", data)
                if (kind := _KINDS.get(number)) is not None:
                    self.events.append(self._event(kind, number, data[16:length]))
                data = data[(length + 3) & ~3 :]

    def _event(self, kind: str, number: int, body: bytes) -> Event:
        wanted, bits = _DESTINATION, body[1]
        if kind == "route" and body[2]:
            kind, wanted, bits = "source", _SOURCE, body[2]
        address, rest = bytes(16), body[_FIXED:]
        while len(rest) >= 4:
            length, attribute = struct.unpack_from("=HH", rest)
            if attribute == wanted and length == 20:
                address = rest[4:20]
            rest = rest[(length + 3) & ~3 :]
        text = (
            format_address(address) if kind == "neighbour" else f"{format_address(address)}/{bits}"
        )
        return Event("drop" if number & 1 else "put", kind, text)

    def dropped(self, *prefixes: Prefix) -> list[Event]:
        """The removals of what has to stay."""
        names = {str(prefix) for prefix in prefixes}
        return [each for each in self.read() if each.what == "drop" and each.of in names]

    def close(self) -> None:
        self._socket.close()
