"""Our reading of a dump beside pyroute2's, of everything there is in a kernel."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dmm_wire.address import parse_address
from relay_maar.core.items import Put
from relay_maar.southbound.api import SouthboundSettings
from relay_maar.southbound.dumped import NEIGHBOUR, ROUTE, RULE, Dumped
from relay_maar.southbound.messages import all_neighbours, all_routes, all_rules
from relay_maar.southbound.netlink import Netlink
from relay_maar.southbound.seg6 import Seg6Southbound
from tests.maar.southbound.namespaces import Namespace
from tests.maar.southbound.test_contract import ALL

KINDS: list[tuple[Any, Callable[[], Any]]] = [
    (ROUTE, partial(all_routes, 0)),
    (RULE, all_rules),
    (NEIGHBOUR, all_neighbours),
]


@pytest.mark.root
def test_it_says_what_pyroute2_says(router: Namespace, settings: SouthboundSettings) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        driver.apply([Put(item) for item in ALL])
        router.ip("-6 route add 2001:db8:9::/48 via fe80::7 dev core mtu 1400")
        router.ip("-6 rule add iif acc0 to 2001:db8::/32 ipproto tcp blackhole")
        netlink = Netlink()
        for layout, everything in KINDS:
            ours = netlink.dump(everything(), partial(Dumped, layout))
            theirs = netlink.dump(everything())
            assert len(ours) == len(theirs) > 3
            for our, their in zip(ours, theirs, strict=True):
                for name in layout.fields:
                    assert our[name] == their[name], name
                for name in (*layout.attributes, "RTA_METRICS"):
                    if layout is ROUTE or name != "RTA_METRICS":
                        assert plain(our.get_attr(name)) == plain(their.get_attr(name)), name
                if layout is ROUTE:
                    assert str(our.get_attr("RTA_ENCAP")) == str(their.get_attr("RTA_ENCAP"))
        encapsulated = [
            route
            for route in netlink.dump(all_routes(0), partial(Dumped, ROUTE))
            if route.get_attr("RTA_ENCAP")
        ]
        assert len(encapsulated) > 3
        netlink.close()
        driver.close(keep=False)


def plain(value: Any) -> Any:
    """Addresses are text there and packed here."""
    if isinstance(value, str) and value.count(":") > 1 and len(value) != 17:
        return parse_address(value)
    return str(value) if isinstance(value, dict) else value


@pytest.mark.parametrize("tail", [b"", b"\0", b"\3\0\1\0", b"\x20\0\1\0\1\2"])
def test_what_is_cut_short_ends_there(tail: bytes) -> None:
    whole = struct.pack("=HHI", 8, 15, 254)
    data = bytes(16) + ROUTE.fixed.pack(10, 64, 0, 0, 0, 213, 0, 1, 0) + whole + tail
    found = Dumped(ROUTE, data)
    assert (found["dst_len"], found["proto"], found["type"]) == (64, 213, 1)
    assert found.get_attr("RTA_TABLE") == 254
    assert found.get_attr("RTA_GATEWAY") is None
