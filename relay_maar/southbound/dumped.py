"""What a dump of routes, rules or neighbours brings, read no further than it is asked for.

pyroute2 takes some 60 us for a message, and a start reads thousands. Here is what the drivers ask for by the names that
pyroute2 has for it; anything else is left to pyroute2.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

_HEADER: Final = 16
_ATTRIBUTE: Final = struct.Struct("=HH")
_KIND: Final = 0x3FFF
"""Of an attribute's type, without the flags for nested ones and for byte order."""


def _unsigned(value: bytes) -> int:
    return int.from_bytes(value, sys.byteorder)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _link_layer(value: bytes) -> str:
    return value.hex(":")


_Read = Callable[[bytes], Any]


class _Layout(NamedTuple):
    """Of one kind of message: its fixed part and the attributes that are read here."""

    kind: Any
    fixed: struct.Struct
    fields: dict[str, int]
    attributes: dict[str, tuple[int, _Read]]


ROUTE: Final = _Layout(
    rtmsg,
    struct.Struct("=BBBBBBBBI"),
    {"family": 0, "dst_len": 1, "src_len": 2, "tos": 3, "table": 4, "proto": 5, "type": 7},
    {
        "RTA_DST": (1, bytes),
        "RTA_SRC": (2, bytes),
        "RTA_OIF": (4, _unsigned),
        "RTA_GATEWAY": (5, bytes),
        "RTA_PRIORITY": (6, _unsigned),
        "RTA_TABLE": (15, _unsigned),
        "RTA_ENCAP_TYPE": (21, _unsigned),
    },
)
RULE: Final = _Layout(
    fibmsg,
    struct.Struct("=BBBBBBBBI"),
    {"family": 0, "dst_len": 1, "src_len": 2, "tos": 3, "table": 4, "action": 7, "flags": 8},
    {
        "FRA_DST": (1, bytes),
        "FRA_SRC": (2, bytes),
        "FRA_IIFNAME": (3, _text),
        "FRA_PRIORITY": (6, _unsigned),
        "FRA_TABLE": (15, _unsigned),
        "FRA_PROTOCOL": (21, _unsigned),
        "FRA_IP_PROTO": (22, _unsigned),
    },
)
NEIGHBOUR: Final = _Layout(
    ndmsg,
    struct.Struct("=B3xiHBB"),
    {"family": 0, "ifindex": 1, "state": 2, "flags": 3},
    {"NDA_DST": (1, bytes), "NDA_LLADDR": (2, _link_layer), "NDA_PROTOCOL": (12, _unsigned)},
)


class Dumped:
    """One message of a dump. `get_attr` and `[]` as of pyroute2's, but for addresses, which are packed."""

    __slots__ = ("_data", "_fields", "_layout", "_values")

    def __init__(self, layout: _Layout, data: bytes) -> None:
        self._layout = layout
        self._data = data
        self._fields = layout.fixed.unpack_from(data, _HEADER)
        self._values: dict[int, bytes] = {}
        offset, end = _HEADER + layout.fixed.size, len(data)
        while offset + 4 <= end:
            length, kind = _ATTRIBUTE.unpack_from(data, offset)
            if length < 4:
                break
            self._values[kind & _KIND] = data[offset + 4 : offset + length]
            offset += (length + 3) & ~3

    def __getitem__(self, name: str) -> Any:
        return self._fields[self._layout.fields[name]]

    def get_attr(self, name: str) -> Any:
        """The value of an attribute, None where there is none of it."""
        known = self._layout.attributes.get(name)
        if known is None:
            return self._by_pyroute2(name)
        value = self._values.get(known[0])
        return None if value is None else known[1](value)

    def _by_pyroute2(self, name: str) -> Any:
        if name == "RTA_ENCAP":
            # As many as there are peers, for as many routes as there are nodes.
            return _encapsulation(self._values.get(_ENCAP_TYPE, b""), self._values.get(_ENCAP, b""))
        return _decoded(self._layout.kind, self._data).get_attr(name)


_ENCAP_TYPE, _ENCAP = 21, 22


@lru_cache(maxsize=4096)
def _encapsulation(kind: bytes, value: bytes) -> Any:
    if not value:
        return None
    body = bytes(ROUTE.fixed.size)
    for number, octets in ((_ENCAP_TYPE, kind), (_ENCAP, value)):
        body += _ATTRIBUTE.pack(4 + len(octets), number) + octets + bytes(-len(octets) & 3)
    header = struct.pack("=LHHLL", _HEADER + len(body), 24, 0, 0, 0)
    return _decoded(rtmsg, header + body).get_attr("RTA_ENCAP")


def _decoded(kind: Any, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return message
