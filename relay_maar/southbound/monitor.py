"""What others do to our part of the kernel, from rtnetlink's notifications.

A routing daemon with a full table may share the machine: a filter in the kernel drops what is not about us before it
costs anything. What we ask for ourselves is announced too, but with our own port: the same filter drops it. A link is
compared with how it was when it was last announced, because our part of its settings is announced without a port.

Announced, but not looked at: neighbours (any host makes many) and routes that take the place of ours. The daemon's
audit finds those.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_DELROUTE, RTM_DELRULE, RTM_NEWLINK

from relay_maar.southbound.api import SouthboundSettings
from relay_maar.southbound.identity import Link, is_device_name, is_dlif_name

_RTMGRP_LINK = 1 << 0
_RTMGRP_IPV6_ROUTE = 1 << 10
_RTMGRP_IPV6_RULE = 1 << 18
_SO_ATTACH_FILTER = 26
_HEADER = struct.Struct("=LHHLL")
_IFINFO = struct.Struct("=BxHiII")
_ATTRIBUTE = struct.Struct("=HH")
_IFLA_IFNAME = 3
_IFF_UP = 1
_AT_ONCE = 1024
"""Notifications read in one call; the others keep the descriptor readable."""
_LARGEST = 65_536

_LD_W, _LD_H, _LD_B, _JEQ, _RET = 0x20, 0x28, 0x30, 0x15, 0x06
_TYPE, _PORT, _ROUTE_PROTOCOL = 4, 12, 21
"""Offsets in a notification: nlmsg_type, nlmsg_pid, rtm_protocol."""


def _filter(protocol: int, port: int) -> bytes:
    """Classic BPF: links, and deletions of our routes and of rules that another port asked for. It loads in network
    byte order what netlink has in the machine's."""
    number = {kind: socket.htons(kind) for kind in (RTM_DELROUTE, RTM_DELRULE, RTM_NEWLINK)}
    program = (
        (_LD_H, 0, 0, _TYPE),
        (_JEQ, 3, 0, number[RTM_DELROUTE]),  # 1: to 5
        (_JEQ, 4, 0, number[RTM_DELRULE]),  # 2: to 7
        (_JEQ, 6, 0, number[RTM_NEWLINK]),  # 3: to 10
        (_JEQ, 5, 4, socket.htons(RTM_DELLINK)),  # 4: to 10, else 9
        (_LD_B, 0, 0, _ROUTE_PROTOCOL),  # 5
        (_JEQ, 0, 2, protocol),  # 6: else 9
        (_LD_W, 0, 0, _PORT),  # 7
        (_JEQ, 0, 1, socket.htonl(port)),  # 8: else 10
        (_RET, 0, 0, 0),  # 9 drop
        (_RET, 0, 0, _LARGEST),  # 10 keep
    )
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class _Link(NamedTuple):
    name: str
    up: bool


class Monitor:
    """A socket that hears of losses. `port` is that of our own requests. Raises OSError."""

    def __init__(self, settings: SouthboundSettings, port: int) -> None:
        self._interfaces = {"lo", settings.core_interface, *settings.access_interfaces}
        self._links: dict[int, _Link] = {}
        """Ours, by index, as they were last seen."""
        self._ending: set[int] = set()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            program = _filter(settings.protocol, port)
            buffer = ctypes.create_string_buffer(program)
            # struct sock_fprog: the count, padded to a pointer, then where the instructions are.
            fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
            self._socket.bind((0, _RTMGRP_LINK | _RTMGRP_IPV6_ROUTE | _RTMGRP_IPV6_RULE))
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def assume(self, links: Iterable[Link]) -> None:
        """The links are like this. What is announced counts from here on."""
        self._links = {
            link.number: _Link(link.name, link.up) for link in links if self._is_ours(link.name)
        }

    def ending(self, index: int) -> None:
        """We remove this device ourselves."""
        self._ending.add(index)

    def fileno(self) -> int:
        """Readable when there are notifications."""
        return self._socket.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def disturbed(self) -> bool:
        """See `Southbound.disturbed`."""
        disturbed = False
        for data in self._waiting():
            number = _HEADER.unpack_from(data)[1]
            if number in (RTM_NEWLINK, RTM_DELLINK):
                disturbed = self._link_changed(number, data[_HEADER.size :]) or disturbed
            else:
                disturbed = True
        return disturbed

    def _waiting(self) -> Iterator[bytes]:
        """One notification each; an empty deletion for those that were lost."""
        for _ in range(_AT_ONCE):
            try:
                yield self._socket.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._links.clear()
                yield _HEADER.pack(_HEADER.size, RTM_DELROUTE, 0, 0, 0)

    def _link_changed(self, number: int, body: bytes) -> bool:
        family, _, index, flags, _ = _IFINFO.unpack_from(body)
        if family != socket.AF_UNSPEC:
            return False  # of a bridge's port
        before = self._links.pop(index, None)
        if number == RTM_DELLINK and index in self._ending:
            self._ending.remove(index)
            return False
        if number == RTM_DELLINK:
            return before is not None or self._is_ours(_name(body))
        link = _Link(_name(body), bool(flags & _IFF_UP))
        if not self._is_ours(link.name):
            return before is not None
        self._links[index] = link
        # Of those that show other anchors we make and change one after the other: only a loss counts.
        return link != before and not is_dlif_name(link.name)

    def _is_ours(self, name: str) -> bool:
        return name in self._interfaces or is_device_name(name) or is_dlif_name(name)


def _name(body: bytes) -> str:
    offset = _IFINFO.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == _IFLA_IFNAME:
            return (
                body[offset + _ATTRIBUTE.size : offset + length]
                .rstrip(b"\0")
                .decode(errors="replace")
            )
        offset += (length + 3) & ~3
    return ""
