"""Sockets whose packets come with the kernel's time of their arrival: who reads them late knows it all the same."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from relay_maar.io import bpf

_ETH_P_ALL: Final = 0x0003
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_IGNORE_OUTGOING: Final = 23
_TIMESPEC: Final = struct.Struct("@ll")
_INTEGER: Final = struct.Struct("@i")
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size) + socket.CMSG_SPACE(_INTEGER.size)
_BUFFER: Final = 64 << 20


class Arrival(NamedTuple):
    """A packet, when it came (nanoseconds since the epoch), and its hop limit where the socket tells it (else 0)."""

    data: bytes
    at: int
    hop_limit: int


def packets(device: str, program: Sequence[bpf.Instruction]) -> socket.socket:
    """What comes in by a device and passes the program, as frames, before the device's own stack, or the bridge that it
    is a port of, has it. To be called in the device's namespace. Raises OSError."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        bpf.attach(sock, program)
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        _stamp(sock)
        sock.bind((device, _ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock


def datagrams(address: str, port: int, hop_limit: int) -> socket.socket:
    """UDP to and from this address and port. To be called in its namespace. Raises OSError."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hop_limit)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        _stamp(sock)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _stamp(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)


def arrivals(sock: socket.socket) -> Iterator[Arrival]:
    """All that is there."""
    while True:
        try:
            data, ancillary, _, _ = sock.recvmsg(2048, _ANCILLARY)
        except BlockingIOError:
            return
        at = hop_limit = 0
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                at = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT):
                (hop_limit,) = _INTEGER.unpack_from(value)
        yield Arrival(data, at, hop_limit)


def lost(sock: socket.socket) -> int:
    """How many frames the kernel had no room for since this was last asked of a socket of `packets`."""
    statistics = sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    return int(struct.unpack("=II", statistics)[1])
