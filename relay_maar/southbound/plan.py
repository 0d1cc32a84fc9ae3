"""From a change to the netlink requests that make it, without reading the kernel for each."""

from __future__ import annotations

import errno
from typing import NamedTuple, Protocol

from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Dlif,
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
from relay_maar.southbound.dlif import Dlifs
from relay_maar.southbound.found import Note, Notebook
from relay_maar.southbound.layout import METRIC, Layout
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

    def decapsulation(self) -> bytes:
        """The route attributes that let packets to T out of a tunnel."""
        ...


class Planner:
    """Knows what the kernel holds as far as we put it there or found it last."""

    def __init__(self, layout: Layout, tunnels: Tunnels, notebook: Notebook, dlifs: Dlifs) -> None:
        self.items: dict[Key, Item] = {}
        self.devices: dict[str, AccessDevice] = {}
        self._layout = layout
        self._tunnels = tunnels
        self._notebook = notebook
        self._dlifs = dlifs

    def plan(self, change: Change) -> list[Step]:
        """The steps of a change, taken as made from here on; that of a Dlif is made. Raises Impossible."""
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
                way = self._tunnels.encapsulation(item.peer)
                return [Step(route) for route in self._layout.ways_from(item.prefix, way)]
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
            case Dlif():
                self._dlifs.put(item)
                return []
            case Tunnel():
                return [Step(self._notebook.writing(Note.TUNNEL, item.peer))]
            case AcceptFrom():
                return [Step(self._layout.accept(item.peer, self._tunnels.decapsulation()))]

    def _drop(self, item: Item) -> list[Step]:
        protocol = self._layout.protocol
        match item:
            case Route():
                return [Step(drop_route(item.prefix, RT_TABLE_MAIN, METRIC, protocol), GONE)]
            case SourceRule():
                return [Step(route, GONE) for route in self._layout.no_ways_from(item.prefix)]
            case Neighbour():
                if item.interface not in self.devices:
                    return []
                index = self.devices[item.interface].index
                return [Step(drop_neighbour(index, item.address), GONE)]
            case Dlif():
                self._dlifs.drop(item)
                return []
            case Tunnel():
                return [Step(self._notebook.erasing(Note.TUNNEL, item.peer), GONE)]
            case AcceptFrom():
                return [Step(self._layout.refuse(item.peer), GONE)]

    def _route(self, route: Route) -> Request:
        match route.target:
            case ToNode(interface, neighbour):
                way = next_hop(self.devices[interface].index, neighbour)
            case ToPeer(endpoint):
                way = self._tunnels.encapsulation(endpoint)
            case _:
                return self._layout.unreachable(route.prefix, RT_TABLE_MAIN)
        return self._layout.route(route.prefix, RT_TABLE_MAIN, way)
