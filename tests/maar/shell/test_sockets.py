"""The MAAR's sockets against a real kernel: who is heard where, and with which link-layer address."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from dmm_wire.address import parse_address, parse_mac
from dmm_wire.mobility import BindingUpdate, decode, encode
from lab import netns
from relay_maar.io.frames import Frame, FrameSocket, LinkLayers
from relay_maar.io.sockets import (
    ClientSocket,
    MobilitySocket,
    RouterSocket,
    ServerSocket,
)

pytestmark = pytest.mark.root

T = TypeVar("T")
ROUTER, HOST = f"mst{os.getpid()}-r", f"mst{os.getpid()}-h"
HOST_MAC = "02:00:00:00:00:0a"
HOST_LINK_LOCAL = parse_address("fe80::a")
ROUTER_LINK_LOCAL = parse_address("fe80::1")
ENDPOINT = parse_address("2001:db8:ff::1")


@pytest.fixture(scope="module", autouse=True)
def link() -> Iterator[None]:
    """A router and a host on one link; the endpoint is routed to the router and is no address of its."""
    netns.remove((ROUTER, HOST))
    try:
        for name in (ROUTER, HOST):
            netns.ip("netns", "add", name)
        netns.ip("link", "add", "r0", "netns", ROUTER, "type", "veth", "peer", "h0", "netns", HOST)
        netns.batch(
            (
                "link set lo up",
                "link set r0 addrgenmode none",
                "link set r0 up",
                "addr add fe80::1/64 dev r0 nodad",
                "addr add 2001:db8:c::1/64 dev r0 nodad",
                "addr add 2001:db8:ff::1/128 dev lo nodad",
                "link add other0 type veth peer other1",
                "link set other0 up",
                "link set other1 up",
            ),
            namespace=ROUTER,
        )
        netns.batch(
            (
                f"link set h0 address {HOST_MAC} addrgenmode none",
                "link set h0 up",
                "addr add fe80::a/64 dev h0 nodad",
                "addr add 2001:db8:c::a/64 dev h0 nodad",
                "route add default via fe80::1 dev h0",
            ),
            namespace=HOST,
        )
        yield
    finally:
        netns.remove((ROUTER, HOST))


def index() -> int:
    return int(netns.ip_json("link", "show", "r0", namespace=ROUTER)[0]["ifindex"])


def at_router(make: Callable[[], T]) -> T:
    return netns.inside(ROUTER, make)


def at_host(family: int, kind: int, protocol: int = 0) -> socket.socket:
    sock: socket.socket = netns.inside(HOST, lambda: socket.socket(family, kind, protocol))
    sock.settimeout(5)
    return sock


def wait(sock: Any) -> Any:
    """The next datagram of `sock`; fails after 5 seconds."""
    assert select.select([sock], [], [], 5)[0], "nothing arrived"
    return sock.receive()


def host_index(sock: socket.socket) -> int:
    return int(netns.inside(HOST, lambda: socket.if_nametoindex("h0")))


def test_a_clients_multicast_is_heard_and_its_frame_tells_who_sent_it() -> None:
    frames = at_router(lambda: FrameSocket("r0"))
    clients = at_router(lambda: ClientSocket("r0", index()))
    host = at_host(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        host.bind(("fe80::a", 546, 0, host_index(host)))
        host.sendto(b"solicit", ("ff02::1:2", 547, 0, host_index(host)))
        received = wait(clients)
        assert received == (HOST_LINK_LOCAL, b"solicit")
        # The frame was there before the datagram: no waiting.
        seen = LinkLayers()
        while frame := frames.receive():
            seen.learn("access0", frame)
        assert seen.of("access0", HOST_LINK_LOCAL, b"oli") == parse_mac(HOST_MAC)

        clients.send(HOST_LINK_LOCAL, 546, b"advertise")
        assert host.recv(100) == b"advertise"
        assert (
            frames.receive() is None or frames.receive() is None
        )  # ours is not taken for another's
    finally:
        for sock in (frames, clients, host):
            sock.close()


def test_a_server_is_heard_on_the_core_interface_only() -> None:
    here = at_router(lambda: ServerSocket(ENDPOINT, "r0"))
    elsewhere = at_router(lambda: ServerSocket(parse_address("2001:db8:c::1"), "other0"))
    server = at_host(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        server.bind(("2001:db8:c::a", 547))
        here.send(parse_address("2001:db8:c::a"), b"relay-forward")
        data, source = server.recvfrom(100)
        assert (data, source[:2]) == (b"relay-forward", ("2001:db8:ff::1", 547))
        server.sendto(b"to the wrong door", ("2001:db8:c::1", 547))
        server.sendto(b"relay-reply", ("2001:db8:ff::1", 547))
        assert wait(here) == (parse_address("2001:db8:c::a"), b"relay-reply")
        assert elsewhere.receive() is None
    finally:
        for sock in (here, elsewhere, server):
            sock.close()


def test_router_solicitations_are_heard_and_advertisements_have_hop_limit_255() -> None:
    router = at_router(lambda: RouterSocket("r0", index(), ROUTER_LINK_LOCAL))
    host = at_host(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        host.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        solicitation = struct.pack("!BBHI", 133, 0, 0, 0)
        option = b"\x01\x01" + parse_mac(HOST_MAC)
        sent = [
            (254, solicitation),
            (255, solicitation + option),
            (255, solicitation[:1] + b"\x01" + solicitation[2:]),
            (255, solicitation[:4]),
            (255, solicitation + b"\x01\x00"),
        ]
        for hop_limit, data in sent:
            host.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
            host.sendto(data, ("ff02::2", 0, 0, host_index(host)))
        # What is valid the core says: it has all of them, whole, but for the checksum.
        for hop_limit, data in sent:
            received = wait(router)
            assert (received.source, received.hop_limit) == (HOST_LINK_LOCAL, hop_limit)
            assert received.data[:2] + received.data[4:] == data[:2] + data[4:]
        assert router.receive() is None

        router.send(
            parse_address("ff02::1"), struct.pack("!BBHBBHII", 134, 0, 0, 64, 0x80, 1800, 0, 0)
        )
        while True:
            data, ancillary, _, source = host.recvmsg(1000, 100)
            if data[0] == 134:
                break
        assert source[0].partition("%")[0] == "fe80::1"
        assert [value for level, kind, value in ancillary if kind == socket.IPV6_HOPLIMIT] == [
            struct.pack("@I", 255)
        ]
    finally:
        router.close()
        host.close()


def test_mobility_headers_arrive_whole_also_with_a_bad_checksum() -> None:
    mobility = at_router(lambda: MobilitySocket(ENDPOINT, "r0"))
    peer = at_host(socket.AF_INET6, socket.SOCK_RAW, 135)
    there = parse_address("2001:db8:c::a")
    try:
        peer.setsockopt(
            socket.IPPROTO_IPV6, 7, -1
        )  # IPV6_CHECKSUM: send what we are told, faults too
        peer.bind(("2001:db8:c::a", 0))
        message = BindingUpdate(sequence=7, lifetime=40, options=())
        good = encode(message, there, ENDPOINT)
        bad = good[:4] + bytes([good[4] ^ 1]) + good[5:]
        for data in (bad, good):
            peer.sendto(data, ("2001:db8:ff::1", 0))
        assert wait(mobility) == (there, bad)
        source, data = wait(mobility)
        assert decode(data, source, ENDPOINT) == message

        mobility.send(there, encode(message, ENDPOINT, there))
        data, source = peer.recvfrom(1000)
        assert source[0] == "2001:db8:ff::1"
        assert decode(data, ENDPOINT, there) == message
    finally:
        mobility.close()
        peer.close()


def test_what_is_no_business_of_ours_does_not_pass_the_frame_filter() -> None:
    frames = at_router(lambda: FrameSocket("r0"))
    host = at_host(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        for port in (53, 546, 548):
            host.sendto(b"x", ("ff02::1", port, 0, host_index(host)))
        host.sendto(b"x", ("ff02::1:2", 547, 0, host_index(host)))
        kinds = {wait(frames).trigger}
        while frame := frames.receive():
            kinds.add(frame.trigger)
        assert "dhcpv6" in kinds
        assert kinds <= {"dhcpv6", "mld", "ns", "na", "una"}
    finally:
        frames.close()
        host.close()


def test_link_layers_forget_the_least_recently_seen() -> None:
    seen = LinkLayers(limit=2)
    for source, link_layer in ((b"1", b"x"), (b"2", b"y"), (b"1", b"z"), (b"3", b"w")):
        seen.learn("a", Frame(link_layer, source, "rs"))
    assert [seen.of("a", key) for key in (b"1", b"2", b"3")] == [b"z", None, b"w"]


def test_nobody_takes_anothers_message_for_his_own() -> None:
    seen = LinkLayers()
    seen.learn("a", Frame(b"victim", b"fe80", "dhcpv6", b"xid"))
    for transaction in (b"xid", b"own"):  # a copy of what was heard, and a message of his own
        seen.learn("a", Frame(b"thief", b"fe80", "dhcpv6", transaction))
    seen.learn("a", Frame(b"thief", b"fe80", "ns"))
    assert seen.of("a", b"fe80", b"xid") == b"victim"
