"""The MAAR's sockets. All are non-blocking; each `receive` returns None when nothing waits.

What a socket accepts is decided by where it is bound: server and peer traffic only on the core interface, so that a
host on an access link cannot speak as a server or as a MAAR; client traffic only on the access device it arrived at.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from functools import lru_cache
from typing import NamedTuple

from dmm_wire.address import format_address, parse_address
from dmm_wire.dhcpv6.codes import SERVER_PORT

# Not in the socket module of Python 3.11.
IPV6_FREEBIND = 78
IPV6_CHECKSUM = 7
ICMP6_FILTER = 1
SO_RCVBUFFORCE = 33

MOBILITY_HEADER = 135
"""IPv6 next header of PMIPv6 signalling (RFC 6275 section 6.1)."""
ROUTER_SOLICITATION = 133
LARGEST = 65_535
_BUFFER = 4 << 20

ALL_RELAYS_AND_SERVERS = parse_address("ff02::1:2")
ALL_ROUTERS = parse_address("ff02::2")


_ROOM = memoryview(bytearray(LARGEST))
"""Where datagrams are received: one at a time, and few are large."""


class Received(NamedTuple):
    """A datagram and the address it came from."""

    source: bytes
    data: bytes


class Solicitation(NamedTuple):
    """A whole ICMPv6 message of type Router Solicitation, where it came from and with which hop limit."""

    source: bytes
    data: bytes
    hop_limit: int


def _source(address: tuple[str, int, int, int] | tuple[str, int]) -> bytes:
    text = address[0]
    return socket.inet_pton(socket.AF_INET6, text.partition("%")[0] if "%" in text else text)


@lru_cache(maxsize=4096)
def _text(address: bytes) -> str:
    """As sendto(2) in Python wants it: the servers, the other MAARs and who is talked to now come again and again."""
    return socket.inet_ntop(socket.AF_INET6, address)


def _make_room(sock: socket.socket) -> None:
    """A burst must not push out what came before it. Beyond net.core.rmem_max takes CAP_NET_ADMIN."""
    for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            return


class Socket:
    """What all sockets here share: a file descriptor, room for a burst, a close."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._length = bytearray(4)
        sock.setblocking(False)
        _make_room(sock)

    def fileno(self) -> int:
        return self._socket.fileno()

    def holds_more(self) -> bool:
        """Whether something waits: cheaper than to receive nothing and be told so by an exception. (Of a datagram
        without data it says nothing; whoever polls hears of it.)"""
        fcntl.ioctl(self._socket, termios.FIONREAD, self._length)
        return any(self._length)

    def close(self) -> None:
        self._socket.close()


class _Datagram(Socket):
    """A socket that receives datagrams and never blocks."""

    def receive(self) -> Received | None:
        """The next datagram, None when there is none (or only an error the network reported: a peer that is down)."""
        try:
            size, address = self._socket.recvfrom_into(_ROOM)
        except OSError:
            return None
        return Received(_source(address), bytes(_ROOM[:size]))


def _udp(port: int, address: bytes, device: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        # The endpoint need not be a local address by the main table (southbound drivers), so bind without asking.
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind((format_address(address), port))
    except OSError:
        sock.close()
        raise
    return sock


class ServerSocket(_Datagram):
    """UDP from the endpoint, port 547, to the DHCPv6 servers and back (RFC 9915 section 19)."""

    def __init__(self, endpoint: bytes, core_interface: str) -> None:
        super().__init__(_udp(SERVER_PORT, endpoint, core_interface))

    def send(self, destination: bytes, data: bytes) -> None:
        """Send `data` to a server. Raises OSError."""
        self._socket.sendto(data, (_text(destination), SERVER_PORT))


class ClientSocket(_Datagram):
    """UDP port 547 on one access device: multicast to All_DHCP_Relay_Agents_and_Servers and unicast to us."""

    def __init__(self, device: str, index: int) -> None:
        sock = _udp(SERVER_PORT, bytes(16), device)
        sock.setsockopt(
            socket.IPPROTO_IPV6,
            socket.IPV6_JOIN_GROUP,
            ALL_RELAYS_AND_SERVERS + struct.pack("@I", index),
        )
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        super().__init__(sock)
        self._index = index

    def send(self, destination: bytes, port: int, data: bytes) -> None:
        """Send `data` to a client or to a relay below us. Raises OSError."""
        self._socket.sendto(data, (_text(destination), port, 0, self._index))


class RouterSocket(Socket):
    """ICMPv6 on one access device: Router Solicitations in, Router Advertisements out (RFC 4861 sections 4.1, 4.2)."""

    def __init__(self, device: str, index: int, link_local: bytes) -> None:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            # A set bit blocks that type: all but Router Solicitation.
            blocked = bytearray(b"\xff" * 32)
            word = struct.unpack_from("=I", blocked, (ROUTER_SOLICITATION // 32) * 4)[0]
            struct.pack_into(
                "=I",
                blocked,
                (ROUTER_SOLICITATION // 32) * 4,
                word & ~(1 << (ROUTER_SOLICITATION % 32)),
            )
            sock.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(blocked))
            # RFC 4861 section 4.2: the hop limit is 255, or the host drops the advertisement.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            sock.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, ALL_ROUTERS + struct.pack("@I", index)
            )
            # The source of RAs; what goes to the joined group is heard all the same.
            sock.bind((format_address(link_local), 0, 0, index))
        except OSError:
            sock.close()
            raise
        super().__init__(sock)
        self._index = index

    def receive(self) -> Solicitation | None:
        """The next Router Solicitation, valid or not; its checksum is right."""
        try:
            data, ancillary, _, address = self._socket.recvmsg(LARGEST, 64)
        except OSError:
            return None
        hop_limit = next(
            (
                int.from_bytes(value[:4], sys.byteorder)
                for level, kind, value in ancillary
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)
            ),
            0,
        )
        return Solicitation(_source(address), data, hop_limit)

    def send(self, destination: bytes, data: bytes) -> None:
        """Send a Router Advertisement; the kernel fills in the checksum. Raises OSError."""
        self._socket.sendto(data, (_text(destination), 0, 0, self._index))


class MobilitySocket(_Datagram):
    """The raw Mobility Header socket, bound to the endpoint on the core interface.

    The kernel would drop a bad checksum silently; IPV6_CHECKSUM -1 lets it through, so that the core counts it.
    """

    def __init__(self, endpoint: bytes, core_interface: str) -> None:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, MOBILITY_HEADER)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, core_interface.encode())
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, -1)
            sock.bind((format_address(endpoint), 0))
        except OSError:
            sock.close()
            raise
        super().__init__(sock)

    def send(self, destination: bytes, data: bytes) -> None:
        """Send a whole Mobility Header. Raises OSError."""
        self._socket.sendto(data, (_text(destination), 0))
