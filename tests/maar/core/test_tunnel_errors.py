"""Errors from inside a tunnel: what the sender of the inner packet is told, and what is not believed."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire.address import Prefix, parse_address
from relay_maar.core.items import Item, Key, Route, SourceRule, ToNode, ToPeer, Tunnel
from relay_maar.core.tunnel_errors import Dropped, Told, relay

T = parse_address("2001:db8:f::1")
PEER = parse_address("2001:db8:f::2")
OTHER = parse_address("2001:db8:f::3")
CN = parse_address("2001:db8:99::2")
AWAY = parse_address("2001:db8:1:1::10")
"""Anchored here, the node is at PEER."""
VISITOR = parse_address("2001:db8:2:1::10")
"""Anchored at PEER, the node is here."""

ITEMS: dict[Key, Item] = {
    item.key: item
    for item in (
        Tunnel(PEER),
        Tunnel(OTHER),
        Route(Prefix.parse("2001:db8:1:1::/64"), ToPeer(PEER)),
        Route(Prefix.parse("2001:db8:1:1::77/128"), ToPeer(OTHER)),
        Route(Prefix.parse("2001:db8:2:1::/64"), ToNode("access", parse_address("fe80::10"))),
        SourceRule(Prefix.parse("2001:db8:2:1::/64"), PEER),
    )
}


def ipv6(source: bytes, destination: bytes, payload: bytes, next_header: int = 17) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
    return head + source + destination + payload


def error(
    inner: bytes, mtu: int = 1500, peer: bytes = PEER, source: bytes = T, kind: int = 2
) -> bytes:
    outer = ipv6(source, peer, inner, 41)
    return struct.pack("!BBHI", kind, 0, 0xBEEF, mtu) + outer[:1232]


def inner(source: bytes = CN, destination: bytes = AWAY, size: int = 1500) -> bytes:
    return ipv6(source, destination, bytes(range(256)) * 5 + bytes(size - 40 - 1280))


@pytest.mark.parametrize(
    ("mtu", "left"),
    [(1500, 1460), (1499, 1459), (1320, 1280), (1319, 1280), (1280, 1280), (0, 1280)],
)
@pytest.mark.parametrize(("source", "destination"), [(CN, AWAY), (VISITOR, CN), (VISITOR, AWAY)])
def test_the_sender_is_told_what_the_tunnel_leaves(
    mtu: int, left: int, source: bytes, destination: bytes
) -> None:
    packet = inner(source, destination)
    told = relay(error(packet, mtu), T, ITEMS)
    assert told == Told(source, struct.pack("!BBHI", 2, 0, 0, left) + packet[:1192], "too-big")


@pytest.mark.parametrize(
    ("kind", "code", "what"), [(3, 0, "hop-limit"), (1, 3, "unreachable")], ids=["3", "1"]
)
def test_why_else_it_did_not_arrive(kind: int, code: int, what: str) -> None:
    packet = inner(VISITOR, CN)
    told = relay(error(packet, 0, kind=kind), T, ITEMS)
    assert told == Told(VISITOR, struct.pack("!BBHI", kind, code, 0, 0) + packet[:1192], what)
    assert reason(error(packet, 0, kind=kind, peer=OTHER)) == "no-tunnel"


def test_fragments_are_none_of_ours() -> None:
    message = error(inner(), 0, kind=3)
    assert reason(message[:1] + b"\1" + message[2:]) == "no-tunnel"


def test_an_error_is_no_larger_than_the_minimum_mtu() -> None:
    packet = inner()
    long = struct.pack("!BBHI", 2, 0, 0, 1500) + ipv6(T, PEER, packet, 41)
    assert relay(long, T, ITEMS).message[8:] == packet[:1232]


def reason(data: bytes) -> str:
    with pytest.raises(Dropped) as dropped:
        relay(data, T, ITEMS)
    return dropped.value.reason


@pytest.mark.parametrize(
    "forged",
    [
        error(inner(), peer=OTHER),
        error(inner(), source=OTHER),
        error(inner(), kind=4),
        error(inner(CN, VISITOR)),
        error(inner(CN, CN)),
        error(inner(VISITOR, CN), peer=OTHER),
        error(inner(CN, parse_address("2001:db8:1:1::77"))),
        struct.pack("!BBHI", 2, 0, 0, 1500) + ipv6(T, PEER, inner(), 17),
    ],
)
def test_only_what_we_would_have_tunnelled_is_believed(forged: bytes) -> None:
    assert reason(forged) == "no-tunnel"


@pytest.mark.parametrize("peer", [PEER, OTHER])
def test_what_a_node_here_sends_to_one_that_has_left(peer: bytes) -> None:
    """By its source to its anchor, and when it is back from there by its destination."""
    packet = inner(VISITOR, parse_address("2001:db8:1:1::77"))
    assert relay(error(packet, peer=peer), T, ITEMS).destination == VISITOR


@pytest.mark.parametrize("source", ["::", "::1", "fe80::1", "ff02::1"])
def test_nobody_is_told_where_no_answer_goes(source: str) -> None:
    assert reason(error(inner(parse_address(source)))) == "source"


def test_no_error_about_an_error() -> None:
    about = ipv6(CN, AWAY, b"\x01" + bytes(1459), 58)
    assert reason(error(about)) == "error"
    echo = ipv6(CN, AWAY, b"\x80" + bytes(1459), 58)
    assert relay(error(echo), T, ITEMS).destination == CN


@pytest.mark.parametrize(("mtu", "size"), [(1500, 1460), (9000, 1500), (1300, 1280)])
def test_what_fits_is_not_answered(mtu: int, size: int) -> None:
    """Else anybody could make senders believe in small MTUs, for which there is no reason."""
    packet = ipv6(CN, AWAY, bytes(size - 40))
    assert reason(error(packet, mtu)) == "narrow"


def test_segments_that_the_kernel_sends_as_one() -> None:
    packet = bytearray(inner())
    packet[4:6] = bytes(2)
    assert relay(error(bytes(packet)), T, ITEMS).destination == CN


def test_what_is_cut_short() -> None:
    whole = error(inner())
    assert all(reason(whole[:size]) == "truncated" for size in range(88))
    assert relay(whole[:88], T, ITEMS).message[8:] == whole[48:88]


@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_octets(data: bytes, tail: bytes) -> None:
    for made in (data, error(data + tail)):
        try:
            told = relay(made, T, ITEMS)
        except Dropped:
            continue
        assert len(told.message) <= 1240
