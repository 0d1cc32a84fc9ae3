"""The rtnetlink messages the drivers use, built from packed addresses and read back into them."""

from __future__ import annotations

from socket import AF_INET6

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST
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

from dmm_wire.address import UNSPECIFIED, Prefix, format_address, format_mac, parse_address
from relay_maar.southbound.netlink import Attributes, Message, message

RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_UNREACHABLE = 7
RT_TABLE_MAIN = 254
IPPROTO_IPV6 = 41
IPPROTO_MH = 135
NUD_PERMANENT = 0x80


def put_route(
    prefix: Prefix,
    table: int,
    metric: int,
    protocol: int,
    attributes: Attributes = (),
    kind: int = RTN_UNICAST,
) -> Message:
    """Install, or replace in one step the route of the same prefix, table and metric."""
    return message(
        rtmsg,
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_REPLACE,
        {"family": AF_INET6, "dst_len": prefix.length, "proto": protocol, "type": kind},
        [*_route_key(prefix, table, metric), *attributes],
    )


def unless_there(route: Message) -> Message:
    """`put_route` that touches nothing where there is a route of that prefix, table and metric (EEXIST)."""
    route["header"]["flags"] = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL
    return route


def drop_route(prefix: Prefix, table: int, metric: int, protocol: int) -> Message:
    """Remove our route of that prefix, table and metric, wherever it leads."""
    return message(
        rtmsg,
        RTM_DELROUTE,
        0,
        {"family": AF_INET6, "dst_len": prefix.length, "proto": protocol},
        _route_key(prefix, table, metric),
    )


def _route_key(prefix: Prefix, table: int, metric: int) -> Attributes:
    return [
        ("RTA_DST", format_address(prefix.address)),
        ("RTA_TABLE", table),
        ("RTA_PRIORITY", metric),
    ]


def all_routes(protocol: int) -> Message:
    """The dump of the IPv6 routes with that protocol number, in every table."""
    return message(rtmsg, RTM_GETROUTE, 0, {"family": AF_INET6, "proto": protocol}, ())


def drop_found_route(found: Message) -> Message:
    """Remove a route of a dump."""
    return drop_route(
        route_prefix(found),
        found.get_attr("RTA_TABLE"),
        found.get_attr("RTA_PRIORITY"),
        found["proto"],
    )


def route_prefix(route: Message) -> Prefix:
    """The destination of a route of a dump."""
    return Prefix(packed(route, "RTA_DST"), route["dst_len"])


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
    mark: int = 0,
) -> Message:
    """Put (EEXIST if it is there) or drop the rule that sends matching packets to `table`; to table
    0 means to drop them silently. `mark`: those that have all its bits in theirs."""
    attributes: list[tuple[str, int | str]] = [
        ("FRA_PRIORITY", priority),
        ("FRA_PROTOCOL", protocol),
    ]
    if table:
        attributes.append(("FRA_TABLE", table))
    if source is not None:
        attributes.append(("FRA_SRC", format_address(source.address)))
    if destination is not None:
        attributes.append(("FRA_DST", format_address(destination.address)))
    if device is not None:
        attributes.append(("FRA_IIFNAME", device))
    if ip_protocol is not None:
        attributes.append(("FRA_IP_PROTO", ip_protocol))
    if mark:
        attributes += [("FRA_FWMARK", mark), ("FRA_FWMASK", mark)]
    return message(
        fibmsg,
        RTM_NEWRULE if put else RTM_DELRULE,
        NLM_F_CREATE | NLM_F_EXCL if put else 0,
        {
            "family": AF_INET6,
            "src_len": source.length if source else 0,
            "dst_len": destination.length if destination else 0,
            "action": FR_ACT_TO_TBL if table else FR_ACT_BLACKHOLE,
        },
        attributes,
    )


def drop_found_rule(found: Message) -> Message:
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
        mark=found.get_attr("FRA_FWMARK") or 0,
    )


def rule_table(found: Message) -> int:
    """Where a rule of a dump sends packets."""
    return int(found.get_attr("FRA_TABLE") or 0) if found["action"] == FR_ACT_TO_TBL else 0


def rule_source(found: Message) -> Prefix | None:
    """The source prefix that a rule of a dump asks for."""
    return _rule_prefix(found, "src_len", "FRA_SRC")


def rule_destination(found: Message) -> Prefix | None:
    """The destination prefix that a rule of a dump asks for."""
    return _rule_prefix(found, "dst_len", "FRA_DST")


def _rule_prefix(found: Message, length: str, attribute: str) -> Prefix | None:
    return Prefix(packed(found, attribute), found[length]) if found[length] else None


def all_rules() -> Message:
    """The dump of the IPv6 rules."""
    return message(fibmsg, RTM_GETRULE, 0, {"family": AF_INET6}, ())


def put_neighbour(index: int, address: bytes, link_layer: bytes, protocol: int) -> Message:
    """Install or replace. Permanent: the kernel would drop any other when the carrier is lost."""
    return message(
        ndmsg,
        RTM_NEWNEIGH,
        NLM_F_CREATE | NLM_F_REPLACE,
        {"family": AF_INET6, "ifindex": index, "state": NUD_PERMANENT},
        [
            ("NDA_DST", format_address(address)),
            ("NDA_LLADDR", format_mac(link_layer)),
            ("NDA_PROTOCOL", protocol),
        ],
    )


def drop_neighbour(index: int, address: bytes) -> Message:
    """Remove a neighbour."""
    return message(
        ndmsg,
        RTM_DELNEIGH,
        0,
        {"family": AF_INET6, "ifindex": index},
        [("NDA_DST", format_address(address))],
    )


def all_neighbours() -> Message:
    """The dump of the IPv6 neighbours."""
    return message(ndmsg, RTM_GETNEIGH, 0, {"family": AF_INET6}, ())


def packed(source: Message, attribute: str) -> bytes:
    """An address attribute of a dumped message; absent means unspecified."""
    text = source.get_attr(attribute)
    return parse_address(text) if text else UNSPECIFIED
