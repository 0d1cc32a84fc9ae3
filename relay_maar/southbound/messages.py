"""The rtnetlink messages the drivers use, built from packed addresses and read back into them.

What is asked for every mobile node is packed here, as rtnetlink.h, fib_rules.h and neighbour.h of the kernel have it.
"""

from __future__ import annotations

import struct
from socket import AF_INET6

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
from pyroute2.netlink.rtnl import (
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_GETNEIGH,
    RTM_GETROUTE,
    RTM_GETRULE,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_NEWRULE,
)
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_BLACKHOLE, FR_ACT_TO_TBL, fibmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from relay_maar.southbound.netlink import Attributes, Message, Request, message

RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_UNREACHABLE = 7
RT_TABLE_MAIN = 254
IPPROTO_IPV6 = 41
IPPROTO_MH = 135
NUD_PERMANENT = 0x80
FIB_RULE_INVERT = 2


_ROUTE = struct.Struct("=BBBBBBBBI")
_RULE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=B3xiHBB")
"""rtmsg, fib_rule_hdr and ndmsg, whose lengths are multiples of four."""
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=HHI")
_U8 = struct.Struct("=HHB3x")
_ADDRESS = struct.Struct("=HH16s")
_ROUTE_KEY = struct.Struct("=HH16sHHIHHI")
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 2, 4, 5, 6, 15
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_TABLE = 1, 2, 3, 6, 15
_FRA_FWMARK, _FRA_FWMASK, _FRA_PROTOCOL, _FRA_IP_PROTO = 10, 16, 21, 22
_NDA_DST, _NDA_LLADDR, _NDA_PROTOCOL = 1, 2, 12


def _u32(kind: int, value: int) -> bytes:
    return _U32.pack(8, kind, value)


def _u8(kind: int, value: int) -> bytes:
    return _U8.pack(5, kind, value)


def _address(kind: int, value: bytes) -> bytes:
    return _ADDRESS.pack(20, kind, value)


def _octets(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size & 3)


def nested(attributes: Attributes) -> bytes:
    """Attributes of a route as pyroute2 encodes them: those that are not worth code of our own. It takes its time."""
    request = message(rtmsg, RTM_NEWROUTE, 0, {"family": AF_INET6}, attributes)
    request.encode()
    return bytes(request.data[16 + _ROUTE.size :])


def out_of(index: int) -> bytes:
    """The attribute of a route out of the device with that index."""
    return _u32(_RTA_OIF, index)


def next_hop(index: int, gateway: bytes) -> bytes:
    """The attributes of a route to `gateway` on the device with that index."""
    return _u32(_RTA_OIF, index) + _address(_RTA_GATEWAY, gateway)


def put_route(
    prefix: Prefix,
    table: int,
    metric: int,
    protocol: int,
    attributes: bytes = b"",
    kind: int = RTN_UNICAST,
    source: Prefix | None = None,
) -> Request:
    """Install, or replace in one step the route of the same prefix, source, table and metric. `attributes` say where
    it leads; `source`: only what comes from there."""
    body = _route(prefix, table, metric, protocol, kind, source) + attributes
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body)


def unless_there(route: Request) -> Request:
    """`put_route` that touches nothing where there is such a route (EEXIST)."""
    return route._replace(flags=NLM_F_CREATE | NLM_F_EXCL)


def drop_route(
    prefix: Prefix, table: int, metric: int, protocol: int, source: Prefix | None = None
) -> Request:
    """Remove our route of that prefix, source, table and metric, wherever it leads."""
    return Request(RTM_DELROUTE, 0, _route(prefix, table, metric, protocol, 0, source))


def _route(
    prefix: Prefix, table: int, metric: int, protocol: int, kind: int, source: Prefix | None
) -> bytes:
    from_length = source.length if source is not None else 0
    fixed = _ROUTE.pack(AF_INET6, prefix.length, from_length, 0, 0, protocol, 0, kind, 0)
    key = _ROUTE_KEY.pack(
        20, _RTA_DST, prefix.address, 8, _RTA_TABLE, table, 8, _RTA_PRIORITY, metric
    )
    return fixed + key + (_address(_RTA_SRC, source.address) if source is not None else b"")


def all_routes(protocol: int) -> Message:
    """The dump of the IPv6 routes with that protocol number, in every table."""
    return message(rtmsg, RTM_GETROUTE, 0, {"family": AF_INET6, "proto": protocol}, ())


def drop_found_route(found: Message) -> Request:
    """Remove a route of a dump."""
    return drop_route(
        route_prefix(found),
        found.get_attr("RTA_TABLE"),
        found.get_attr("RTA_PRIORITY"),
        found["proto"],
        route_source(found),
    )


def route_prefix(route: Message) -> Prefix:
    """The destination of a route of a dump."""
    return Prefix(packed(route, "RTA_DST"), route["dst_len"])


def route_source(route: Message) -> Prefix | None:
    """The source prefix that a route of a dump asks for."""
    return _prefix(route, "src_len", "RTA_SRC")


def rule(
    priority: int,
    table: int,
    protocol: int,
    *,
    put: bool,
    source: Prefix | None = None,
    destination: Prefix | None = None,
    ip_protocol: int | None = None,
    device: str | None = None,
    others: bool = False,
    mark: int = 0,
) -> Request:
    """Put (EEXIST if it is there) or drop the rule that sends matching packets to `table`; to table
    0 means to drop them silently. `others`: those that do not match. `mark`: those that have all its
    bits in theirs."""
    parts = [
        _RULE.pack(
            AF_INET6,
            destination.length if destination else 0,
            source.length if source else 0,
            0,
            0,
            0,
            0,
            FR_ACT_TO_TBL if table else FR_ACT_BLACKHOLE,
            FIB_RULE_INVERT if others else 0,
        ),
        _u32(_FRA_PRIORITY, priority),
        _u8(_FRA_PROTOCOL, protocol),
    ]
    if table:
        parts.append(_u32(_FRA_TABLE, table))
    if source is not None:
        parts.append(_address(_FRA_SRC, source.address))
    if destination is not None:
        parts.append(_address(_FRA_DST, destination.address))
    if device is not None:
        parts.append(_octets(_FRA_IIFNAME, device.encode() + b"\0"))
    if ip_protocol is not None:
        parts.append(_u8(_FRA_IP_PROTO, ip_protocol))
    if mark:
        parts += [_u32(_FRA_FWMARK, mark), _u32(_FRA_FWMASK, mark)]
    number, flags = (RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if put else (RTM_DELRULE, 0)
    return Request(number, flags, b"".join(parts))


def drop_found_rule(found: Message) -> Request:
    """Remove a rule of a dump."""
    return rule(
        found.get_attr("FRA_PRIORITY"),
        rule_table(found),
        found.get_attr("FRA_PROTOCOL"),
        put=False,
        source=rule_source(found),
        destination=rule_destination(found),
        ip_protocol=found.get_attr("FRA_IP_PROTO"),
        device=found.get_attr("FRA_IIFNAME"),
        others=rule_is_for_others(found),
        mark=found.get_attr("FRA_FWMARK") or 0,
    )


def rule_table(found: Message) -> int:
    """Where a rule of a dump sends packets."""
    return int(found.get_attr("FRA_TABLE") or 0) if found["action"] == FR_ACT_TO_TBL else 0


def rule_is_for_others(found: Message) -> bool:
    """Whether a rule of a dump is for the packets that do not match it."""
    return bool(found["flags"] & FIB_RULE_INVERT)


def rule_source(found: Message) -> Prefix | None:
    """The source prefix that a rule of a dump asks for."""
    return _prefix(found, "src_len", "FRA_SRC")


def rule_destination(found: Message) -> Prefix | None:
    """The destination prefix that a rule of a dump asks for."""
    return _prefix(found, "dst_len", "FRA_DST")


def _prefix(found: Message, length: str, attribute: str) -> Prefix | None:
    return Prefix(packed(found, attribute), found[length]) if found[length] else None


def all_rules() -> Message:
    """The dump of the IPv6 rules."""
    return message(fibmsg, RTM_GETRULE, 0, {"family": AF_INET6}, ())


def put_neighbour(index: int, address: bytes, link_layer: bytes, protocol: int) -> Request:
    """Install or replace. Permanent: the kernel would drop any other when the carrier is lost."""
    body = (
        _NEIGHBOUR.pack(AF_INET6, index, NUD_PERMANENT, 0, 0)
        + _address(_NDA_DST, address)
        + _octets(_NDA_LLADDR, link_layer)
        + _u8(_NDA_PROTOCOL, protocol)
    )
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def drop_neighbour(index: int, address: bytes) -> Request:
    """Remove a neighbour."""
    fixed = _NEIGHBOUR.pack(AF_INET6, index, 0, 0, 0)
    return Request(RTM_DELNEIGH, 0, fixed + _address(_NDA_DST, address))


def all_neighbours() -> Message:
    """The dump of the IPv6 neighbours."""
    return message(ndmsg, RTM_GETNEIGH, 0, {"family": AF_INET6}, ())


def packed(source: Message, attribute: str) -> bytes:
    """An address attribute of a dumped message; absent means unspecified."""
    value = source.get_attr(attribute)
    if isinstance(value, bytes):
        return value
    return parse_address(value) if value else UNSPECIFIED
