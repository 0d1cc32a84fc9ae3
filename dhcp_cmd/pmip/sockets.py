"""The raw Mobility Header socket of the CMD (IP protocol 135)."""

from __future__ import annotations

import contextlib
import errno
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


class Claim:
    """That this process alone speaks PMIPv6 at `endpoint`, until it closes the claim or ends, however it ends.

    The kernel lets two processes have a raw socket at one address, and both would hear everything and send what is
    owed under one name. It lets one only have a socket of the same name in the abstract namespace, which is that of
    the network: where the address is, is the name. Raises OSError where another one has it.
    """

    def __init__(self, endpoint: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.bind(f"\0dhcp-cmd/pmip/{format_address(endpoint)}")
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise OSError(
                errno.EADDRINUSE, "dhcp-cmd serve or signal speaks PMIPv6 there"
            ) from None

    def close(self) -> None:
        """Give it up."""
        self._socket.close()


class MobilitySocket:
    """Sends and receives whole Mobility Headers at `endpoint`, an address of this machine. It never blocks.

    Raises OSError: it takes CAP_NET_RAW, and there is one for each address.
    """

    _claim: Claim | None = None

    def __init__(self, endpoint: bytes) -> None:
        self._claim = Claim(endpoint)
        try:
            self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW, MOBILITY_HEADER)
        except OSError:
            self._claim.close()
            raise
        try:
            # The kernel would drop a bad checksum silently; this way it is counted.
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, -1)
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((format_address(endpoint), 0))
            self._socket.setblocking(False)
        except OSError:
            self.close()
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
        if self._claim is not None:
            self._claim.close()
