"""Where in the kernel each item lives. Everything carries our protocol number.

Rules, their priorities counted from `SouthboundSettings.table_base`:

    +0  from an access link, ipproto 135; the same, ipproto 41 to T    dropped
        Hosts do not signal and do not tunnel to us, whatever source they write into it.
    +1  to T, ipproto 41                                               table +0
        Decapsulation: for each AcceptFrom `T from PEER`, the driver's.
    +2  to T, ipproto 41                                               dropped
        Only the domain's MAARs have tunnels to us.
    +3  to T                                                           table +1
        `local T`: signalling, ping, ICMPv6 errors.
    +3  with the bit MARK                                              table main
        The ingress filter asks for the way back to a source, see `ingress`; no packet is sent by it.
    +5  not from the core interface                                    table +2
        For each SourceRule `default from PREFIX`: by the tunnel to its anchor, else unreachable. What a node here has
        sent to another one here comes back from the anchor by the core, and must not go to it a second time. (At +4
        earlier versions had it without that: to drop such a rule would drop this one, too, were it there.)

There is one rule for all peers or prefixes and not one for each: rules are a list that a packet goes through, the
sources of routes a tree. What is from none of them goes on to the next rule. A lookup takes the longest destination
first and then the source, so that all routes of such a table have the same destination.

Routes to prefixes are in the main table, notes (see `found`) in a table that no rule looks up.

T, the tunnel endpoint, is in no local table that comes before these rules: the kernel would take a
tunnelled packet for itself. Sockets bind T with IPV6_FREEBIND. What decapsulation lets out looks up
the main table and no rule, so that a packet never goes back into the tunnel it came from.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import chain
from typing import NamedTuple

from dmm_wire.address import Prefix
from relay_maar.southbound.api import SouthboundSettings
from relay_maar.southbound.messages import (
    IPPROTO_IPV6,
    IPPROTO_MH,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    RTN_UNREACHABLE,
    drop_route,
    out_of,
    put_route,
    route_prefix,
    route_source,
    rule,
    rule_destination,
    rule_is_for_others,
    rule_source,
    rule_table,
)
from relay_maar.southbound.netlink import Message, Request

METRIC = 128
"""Of our routes: before the kernel's own connected routes (256) and an operator's (1024), which a
replacement must not touch."""
NOTES_TABLE = int.from_bytes(b"MAAR", "big")
"""Whatever the base: a later process may have another one configured."""
LAST_METRIC = 0xFFFFFFFF
MARK = 0x20000000
"""The bit of packets' marks that is ours."""
DEFAULT = Prefix(bytes(16), 0)
LOOPBACK_INDEX = 1
_MAIN_RULE_PRIORITY = 32766


class Way(NamedTuple):
    """One of the two routes of a SourceRule, in a dump."""

    source: Prefix
    last: bool
    """That it is the unreachable one behind the tunnel's."""


class Layout:
    """The numbers of one MAAR, and the rules made of them."""

    highest_base = _MAIN_RULE_PRIORITY - 6
    """Rules behind the main table's would never see a packet."""

    def __init__(self, settings: SouthboundSettings) -> None:
        base = settings.table_base
        self.protocol = settings.protocol
        self.endpoint = Prefix(settings.endpoint, 128)
        self.decapsulation_table = base
        self.own_table = base + 1
        self.source_table = base + 2
        self._core = settings.core_interface
        self._access, self._accept, self._refuse, self._own = range(base, base + 4)
        self._source = base + 5

    def route(self, prefix: Prefix, table: int, attributes: bytes) -> Request:
        """Put a route through `attributes`."""
        return put_route(prefix, table, METRIC, self.protocol, attributes)

    def unreachable(self, prefix: Prefix, table: int, metric: int = METRIC) -> Request:
        """Put a route that answers with ICMPv6 Destination Unreachable."""
        return put_route(prefix, table, metric, self.protocol, kind=RTN_UNREACHABLE)

    def own_route(self) -> Request:
        """Put the route that makes T local."""
        loopback = out_of(LOOPBACK_INDEX)
        return put_route(self.endpoint, self.own_table, METRIC, self.protocol, loopback, RTN_LOCAL)

    def is_own_route(self, found: Message) -> bool:
        """Whether a dumped route is that to T."""
        where = found.get_attr("RTA_TABLE"), route_prefix(found), route_source(found)
        return where == (self.own_table, self.endpoint, None)

    def accept(self, peer: bytes, attributes: bytes) -> Request:
        """Put the route of an AcceptFrom, which decapsulates through `attributes`."""
        source = Prefix(peer, 128)
        return put_route(
            self.endpoint,
            self.decapsulation_table,
            METRIC,
            self.protocol,
            attributes,
            source=source,
        )

    def refuse(self, peer: bytes) -> Request:
        """Drop it."""
        source = Prefix(peer, 128)
        return drop_route(self.endpoint, self.decapsulation_table, METRIC, self.protocol, source)

    def accepted(self, found: Message) -> bytes | None:
        """The peer of an AcceptFrom, if a dumped route is its."""
        source, metric = route_source(found), found.get_attr("RTA_PRIORITY")
        where = found.get_attr("RTA_TABLE"), route_prefix(found), metric
        if source is None or where != (self.decapsulation_table, self.endpoint, METRIC):
            return None
        return source.address if source.length == 128 else None

    def ways_from(self, prefix: Prefix, attributes: bytes) -> list[Request]:
        """Put the routes of a SourceRule, the tunnel through `attributes` first, so that nothing is unreachable in
        between. Where it cannot be put, because the core interface is down, its packets go nowhere."""
        table, protocol = self.source_table, self.protocol
        return [
            put_route(DEFAULT, table, METRIC, protocol, attributes, source=prefix),
            put_route(DEFAULT, table, LAST_METRIC, protocol, kind=RTN_UNREACHABLE, source=prefix),
        ]

    def no_ways_from(self, prefix: Prefix) -> list[Request]:
        """Drop them, the tunnel last."""
        table, protocol = self.source_table, self.protocol
        return [
            drop_route(DEFAULT, table, metric, protocol, prefix) for metric in (LAST_METRIC, METRIC)
        ]

    def way(self, found: Message) -> Way | None:
        """What a dumped route is to a SourceRule, if anything."""
        source, metric = route_source(found), found.get_attr("RTA_PRIORITY")
        where = found.get_attr("RTA_TABLE"), route_prefix(found)
        if source is None or where != (self.source_table, DEFAULT):
            return None
        if metric == LAST_METRIC and found["type"] != RTN_UNREACHABLE:
            return None
        return Way(source, metric == LAST_METRIC) if metric in (METRIC, LAST_METRIC) else None

    def own_rules(self, access_devices: Iterable[str]) -> list[Request]:
        """Put the rules that are there whatever the peers."""
        refused = chain(*(self.access_rules(device, put=True) for device in access_devices))
        tunnelled = [
            rule(
                priority,
                table,
                self.protocol,
                put=True,
                destination=self.endpoint,
                ip_protocol=IPPROTO_IPV6,
            )
            for priority, table in ((self._accept, self.decapsulation_table), (self._refuse, 0))
        ]
        own = rule(self._own, self.own_table, self.protocol, put=True, destination=self.endpoint)
        marked = rule(self._own, RT_TABLE_MAIN, self.protocol, put=True, mark=MARK)
        sources = rule(
            self._source, self.source_table, self.protocol, put=True, device=self._core, others=True
        )
        return [*refused, *tunnelled, own, marked, sources]

    def access_rules(self, device: str, *, put: bool) -> list[Request]:
        """What hosts may not send to us by this device."""
        return [
            rule(
                self._access,
                0,
                self.protocol,
                put=put,
                device=device,
                destination=destination,
                ip_protocol=number,
            )
            # Not tunnels to elsewhere: a packet that we encapsulate keeps its input device.
            for number, destination in ((IPPROTO_IPV6, self.endpoint), (IPPROTO_MH, None))
        ]

    def is_own_rule(self, found: Message, access_devices: Container[str]) -> bool:
        """Whether a dumped rule is one of `own_rules`."""
        table = rule_table(found)
        if rule_source(found) is not None:
            return False  # as earlier versions had them
        to_us = rule_destination(found) == self.endpoint
        device, others = found.get_attr("FRA_IIFNAME"), rule_is_for_others(found)
        match found.get_attr("FRA_PRIORITY"):
            case self._access:
                return table == 0 and device in access_devices
            case self._accept:
                return table == self.decapsulation_table and to_us
            case self._refuse:
                return table == 0 and to_us
            case self._own if table == RT_TABLE_MAIN:
                return found.get_attr("FRA_FWMARK") == found.get_attr("FRA_FWMASK") == MARK
            case self._own:
                return table == self.own_table and to_us
            case self._source:
                return table == self.source_table and (device, others) == (self._core, True)
            case _:
                return False
