"""From a change to the netlink requests that make it, without reading the kernel for each."""

from __future__ import annotations

import errno
from typing import NamedTuple, Protocol

from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Item,
    Key,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
)
from relay_maar.southbound.api import AccessDevice
from relay_maar.southbound.checks import check
from relay_maar.southbound.found import Note, Notebook
from relay_maar.southbound.layout import DEFAULT, LAST_METRIC, METRIC, Layout
from relay_maar.southbound.messages import (
    RT_TABLE_MAIN,
    drop_neighbour,
    drop_route,
    next_hop,
    put_neighbour,
)
from relay_maar.southbound.netlink import Request

GONE = frozenset(
    {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
)
"""What the kernel answers when there is nothing to remove."""
EXISTS = frozenset({errno.EEXIST})


class Step(NamedTuple):
    """A request, and the refusals that are as good as success."""

    request: Request
    tolerated: frozenset[int] = frozenset()


class Tunnels(Protocol):
    """What a driver adds to the plan."""

    def encapsulation(self, peer: bytes) -> bytes:
        """The route attributes that send packets through the tunnel to `peer`."""
        ...

    def decapsulation(self) -> Request:
        """Put the route to T in the decapsulation table."""
        ...


class Planner:
    """Knows what the kernel holds as far as we put it there or found it last."""

    def __init__(self, layout: Layout, tunnels: Tunnels, notebook: Notebook) -> None:
        self.items: dict[Key, Item] = {}
        self.tables: dict[bytes, int] = {}
        """The routing table of each peer."""
        self.devices: dict[str, AccessDevice] = {}
        self._layout = layout
        self._tunnels = tunnels
        self._notebook = notebook

    def plan(self, change: Change) -> list[Step]:
        """The steps of a change, taken as made from here on. Raises Impossible."""
        item = change.item
        check(change, self.items, self.devices, self._layout.endpoint.address)
        if isinstance(change, Put):
            steps = self._put(item)
            self.items[item.key] = item
            return steps
        steps = self._drop(item)
        self.items.pop(item.key, None)
        return steps

    def _put(self, item: Item) -> list[Step]:
        match item:
            case Route():
                return [Step(self._route(item))]
            case SourceRule():
                return self._put_source_rule(item)
            case Neighbour():
                return [
                    Step(
                        put_neighbour(
                            self.devices[item.interface].index,
                            item.address,
                            item.link_layer,
                            self._layout.protocol,
                        )
                    )
                ]
            case Tunnel():
                return self._put_tunnel(item.peer)
            case AcceptFrom():
                accept = self._layout.accept_rule(item.peer, put=True)
                return [Step(self._tunnels.decapsulation()), Step(accept, EXISTS)]

    def _drop(self, item: Item) -> list[Step]:
        protocol = self._layout.protocol
        match item:
            case Route():
                return [Step(drop_route(item.prefix, RT_TABLE_MAIN, METRIC, protocol), GONE)]
            case SourceRule():
                return self._drop_source_rule(item.key)
            case Neighbour():
                if item.interface not in self.devices:
                    return []
                index = self.devices[item.interface].index
                return [Step(drop_neighbour(index, item.address), GONE)]
            case Tunnel():
                return self._drop_tunnel(item.peer)
            case AcceptFrom():
                return [Step(self._layout.accept_rule(item.peer, put=False), GONE)]

    def _route(self, route: Route) -> Request:
        match route.target:
            case ToNode(interface, neighbour):
                way = next_hop(self.devices[interface].index, neighbour)
            case ToPeer(endpoint):
                way = self._tunnels.encapsulation(endpoint)
            case _:
                return self._layout.unreachable(route.prefix, RT_TABLE_MAIN)
        return self._layout.route(route.prefix, RT_TABLE_MAIN, way)

    def _put_source_rule(self, item: SourceRule) -> list[Step]:
        table = self.tables[item.peer]
        steps = [Step(self._layout.source_rule(item.prefix, table, put=True), EXISTS)]
        before = self.items.get(item.key)
        if before != item:
            # The older of two equal priorities goes first: packets follow it until it is removed.
            steps += self._drop_source_rule(item.key)
        return steps

    def _drop_source_rule(self, key: Key) -> list[Step]:
        before = self.items.get(key)
        if not isinstance(before, SourceRule) or before.peer not in self.tables:
            return []
        table = self.tables[before.peer]
        return [Step(self._layout.source_rule(before.prefix, table, put=False), GONE)]

    def _put_tunnel(self, peer: bytes) -> list[Step]:
        table = self.tables.get(peer)
        if table is None:
            table = self._layout.free_table(set(self.tables.values()))
            self.tables[peer] = table
        way = self._tunnels.encapsulation(peer)
        return [
            Step(self._notebook.writing(Note.PEER_TABLES + table, peer)),
            Step(self._layout.unreachable(DEFAULT, table, LAST_METRIC)),
            Step(self._layout.route(DEFAULT, table, way)),
        ]

    def _drop_tunnel(self, peer: bytes) -> list[Step]:
        if peer not in self.tables:
            return []
        return self.unmake_tunnel(peer, self.tables.pop(peer))

    def unmake_tunnel(self, peer: bytes, table: int) -> list[Step]:
        """Free a peer's table; the note goes last."""
        protocol = self._layout.protocol
        return [
            Step(drop_route(DEFAULT, table, METRIC, protocol), GONE),
            Step(drop_route(DEFAULT, table, LAST_METRIC, protocol), GONE),
            Step(self._notebook.erasing(Note.PEER_TABLES + table, peer), GONE),
        ]
