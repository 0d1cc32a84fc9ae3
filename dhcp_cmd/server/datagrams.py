"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), for which Python has no names.

At ten thousand messages a second the system calls, and the addresses as text that Python makes of each sender, cost
as much as reading the messages does. Here an address is the kernel's own: a `sockaddr_in6` of 28 octets.

For one datagram Python's own socket does it in half of the time (`receive_one`, `send_one`): to call a function by
ctypes takes longer than what it does then, and where few nodes move somebody waits for each.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import termios
from collections.abc import Sequence
from struct import Struct
from typing import Final

SLOTS: Final = 128
"""Datagrams of one system call."""
MAX_DATAGRAM: Final = 65_535

_libc: Final = ctypes.CDLL(None, use_errno=True)

Address = bytes
"""A `sockaddr_in6`."""

_SOCKADDR: Final = Struct("=HHI16sI")  # family, port (network order), flow label, address, scope
_PORT: Final = slice(2, 4)
_TIMESTAMPNS: Final = 35  # SO_TIMESTAMPNS, asm-generic/socket.h; Python has no name for it
_STAMP: Final = Struct("@Niiqq")  # struct cmsghdr and struct timespec
_TIMESPEC: Final = Struct("@qq")
_STAMP_ROOM: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_HOST: Final = slice(8, 24)


def host_of(address: Address) -> bytes:
    """The IPv6 address (16 octets) in a socket address."""
    return address[_HOST]


def with_port(address: Address, port: int) -> Address:
    """The same address with another port."""
    return address[:2] + port.to_bytes(2, "big") + address[4:]


def make_address(host: bytes, port: int, scope: int = 0) -> Address:
    """A socket address; `scope` is the index of the interface for a link-local one."""
    return _SOCKADDR.pack(socket.AF_INET6, socket.htons(port), 0, host, scope)


def stamp_arrivals(sock: socket.socket) -> None:
    """Have the kernel write down when each datagram arrives."""
    sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)


def receive_one(sock: socket.socket) -> tuple[bytes, Address, int] | None:
    """The next datagram, with its sender and with when it came, as `Batch.receive` has them."""
    try:
        data, stamps, _, (host, port, _, scope) = sock.recvmsg(MAX_DATAGRAM, _STAMP_ROOM)
    except OSError:
        return None
    came = 0
    for level, kind, stamp in stamps:
        if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack(stamp)
            came = seconds * 1_000_000_000 + nanoseconds
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return data, make_address(packed, port, scope), came


def holds_more(sock: socket.socket) -> bool:
    """Whether another datagram waits. (Of one without data this says nothing; whoever polls hears of it.)"""
    size = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return any(size)


def send_one(sock: socket.socket, data: bytes, address: Address) -> bool:
    """Send a datagram; whether the network or its queue took it."""
    _, port, _, host, scope = _SOCKADDR.unpack(address)
    to = (socket.inet_ntop(socket.AF_INET6, host), socket.ntohs(port), 0, scope)
    try:
        sock.sendto(data, to)
    except OSError:
        return False
    return True


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Iovec)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_LENGTH: Final = Struct("=I").unpack_from
_set_size: Final = Struct("@N").pack_into


class Batch:
    """Room for the datagrams of one system call, used again for each.

    Its memory is what was ever written to it: of a slot that only saw small datagrams, one page. With `stamps` it has
    room for when each arrived, and only receives.
    """

    def __init__(self, *, stamps: bool = False) -> None:
        self._data = (ctypes.c_char * (SLOTS * MAX_DATAGRAM))()
        self._names = (ctypes.c_char * (SLOTS * _SOCKADDR.size))()
        self._vectors = (_Iovec * SLOTS)()
        self._stamps = (ctypes.c_char * (SLOTS * _STAMP.size))()
        self._messages = (_Message * SLOTS)()
        for slot in range(SLOTS):
            vector, header = self._vectors[slot], self._messages[slot].header
            vector.base = ctypes.addressof(self._data) + slot * MAX_DATAGRAM
            vector.length = MAX_DATAGRAM
            header.name = ctypes.addressof(self._names) + slot * _SOCKADDR.size
            header.name_length = _SOCKADDR.size
            header.vector = ctypes.pointer(vector)
            header.vector_length = 1
            if stamps:
                header.control = ctypes.addressof(self._stamps) + slot * _STAMP.size
                header.control_length = _STAMP.size
        # Octets of the same memory: reading and writing fields of ctypes' structures one by one is slow.
        self._octets = memoryview(self._data).cast("B")
        self._addresses = memoryview(self._names).cast("B")
        self._sizes = memoryview(self._vectors).cast("B")
        self._headers = memoryview(self._messages).cast("B")

    def receive(self, descriptor: int, limit: int = SLOTS) -> list[tuple[bytes, Address, int]]:
        """What has arrived at a socket, at most `limit` or SLOTS datagrams, each with its sender and with when it
        came, in nanoseconds since the epoch; 0 where that is not known: it takes `stamps`, and `stamp_arrivals` for
        the socket.

        Nothing where nothing is there, or where the network reports an error, which is over with this.
        """
        count = _libc.recvmmsg(
            descriptor, self._messages, min(limit, SLOTS), socket.MSG_DONTWAIT, None
        )
        octets, addresses, headers = self._octets, self._addresses, self._headers
        stamps, stamped = self._stamps, _STAMP.unpack_from
        found = []
        start = name = stamp = 0
        length = _Message.length.offset
        for _ in range(count):
            size = _LENGTH(headers, length)[0]
            _, _, _, seconds, nanoseconds = stamped(stamps, stamp)
            found.append(
                (
                    bytes(octets[start : start + size]),
                    bytes(addresses[name : name + _SOCKADDR.size]),
                    seconds * 1_000_000_000 + nanoseconds,
                )
            )
            stamp += _STAMP.size
            start += MAX_DATAGRAM
            name += _SOCKADDR.size
            length += _MESSAGE_SIZE
        return found

    def send(self, descriptor: int, datagrams: Sequence[tuple[bytes, Address]]) -> int:
        """Send datagrams; how many the network or its queue did not take."""
        unsent = 0
        for first in range(0, len(datagrams), SLOTS):
            unsent += self._send(descriptor, datagrams[first : first + SLOTS])
        return unsent

    def _send(self, descriptor: int, datagrams: Sequence[tuple[bytes, Address]]) -> int:
        octets, addresses, sizes = self._octets, self._addresses, self._sizes
        start = name = 0
        length = _Iovec.length.offset
        for data, address in datagrams:
            octets[start : start + len(data)] = data
            addresses[name : name + _SOCKADDR.size] = address
            _set_size(sizes, length, len(data))
            start += MAX_DATAGRAM
            name += _SOCKADDR.size
            length += _VECTOR_SIZE
        unsent = done = 0
        while done < len(datagrams):
            messages = ctypes.byref(self._messages, done * _MESSAGE_SIZE)
            sent = _libc.sendmmsg(descriptor, messages, len(datagrams) - done, socket.MSG_DONTWAIT)
            if sent > 0:
                done += sent
            elif ctypes.get_errno() != errno.EINTR:  # this one cannot be sent: go on behind it
                done += 1
                unsent += 1
        return unsent


_MESSAGE_SIZE: Final = ctypes.sizeof(_Message)
_VECTOR_SIZE: Final = ctypes.sizeof(_Iovec)
