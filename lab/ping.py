"""A steady stream of ICMPv6 echo requests: `python -m lab.ping SOURCE DESTINATION`, until standard input ends.

Writes a line `sequence sent received` (nanoseconds since the epoch) for each reply, as it comes, and `ready` first.
A request that cannot be sent, because there is no carrier or no route, counts: its reply is missing like any other.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import sys
import time

INTERVAL = 0.01

_ICMP6_FILTER = 1
_ECHO = struct.Struct("!BBHHHQI")
_REQUEST = 128
_REPLY = 129
# What a node without carrier, route or address hears from its own kernel.
_NO_WAY = frozenset(
    (
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.ENOBUFS,
        errno.EACCES,
        errno.EINVAL,
        errno.EAGAIN,
        errno.ECONNREFUSED,
    )
)


def main(source: str, destination: str) -> None:
    """The program."""
    identifier = os.getpid() & 0xFFFF
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as icmp,
        selectors.DefaultSelector() as selector,
    ):
        # A 1 bit keeps a type out; all but echo reply.
        blocked = bytearray(b"\xff" * 32)
        struct.pack_into("=I", blocked, _REPLY // 32 * 4, 0xFFFFFFFF & ~(1 << _REPLY % 32))
        icmp.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(blocked))
        icmp.bind((source, 0))
        icmp.setblocking(False)
        selector.register(icmp, selectors.EVENT_READ)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        print("ready", flush=True)
        sequence = 0
        due = time.monotonic()
        while True:
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                if key.fileobj is not icmp:
                    return
                receive(icmp, identifier)
            if time.monotonic() >= due:
                due += INTERVAL
                sequence += 1
                request = _ECHO.pack(
                    _REQUEST, 0, 0, identifier, sequence & 0xFFFF, time.time_ns(), sequence
                )
                try:
                    icmp.sendto(request, (destination, 0))
                except OSError as problem:
                    if problem.errno not in _NO_WAY:
                        raise


def receive(icmp: socket.socket, identifier: int) -> None:
    """Write down a reply, if it is one of ours."""
    try:
        packet = icmp.recv(2048)
    except OSError as problem:  # also an ICMPv6 error that the kernel kept for us
        if problem.errno not in _NO_WAY:
            raise
        return
    now = time.time_ns()
    if len(packet) >= _ECHO.size:
        _, _, _, to, _, sent, sequence = _ECHO.unpack_from(packet)
        if to == identifier:
            print(sequence, sent, now, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
