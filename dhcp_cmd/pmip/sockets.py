"""The raw Mobility Header socket of the CMD (IP protocol 135)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from dmm_wire.address import format_address
from dmm_wire.mobility import MOBILITY_HEADER

_IPV6_CHECKSUM = 7
"""Not in the socket module of Python 3.11."""
_LARGEST = 65_535
_BUFFER = 4 << 20
_MOST = 1_024
"""Datagrams read at a time."""


class MobilitySocket:
    """Sends and receives whole Mobility Headers at `endpoint`, an address of this machine. It never blocks.

    Raises OSError: it takes CAP_NET_RAW. Two processes may have one for the same address; each hears everything.
    """

    def __init__(self, endpoint: bytes) -> None:
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, MOBILITY_HEADER)
        try:
            # The kernel would drop a bad checksum silently; this way it is counted.
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, -1)
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((format_address(endpoint), 0))
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, destination: bytes, data: bytes) -> None:
        """Send a whole Mobility Header. Raises OSError."""
        self._socket.sendto(data, (format_address(destination), 0))

    def receive(self) -> Iterator[tuple[bytes, bytes]]:
        """What has arrived, each with the address that it came from."""
        for _ in range(_MOST):
            try:
                data, address = self._socket.recvfrom(_LARGEST)
            except OSError:
                return  # nothing more, or an error that the network reports
            yield socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0]), data

    def close(self) -> None:
        """Close it."""
        self._socket.close()
