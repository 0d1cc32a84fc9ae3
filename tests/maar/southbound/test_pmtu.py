"""Errors in the tunnels: every sender learns the MTU, 1460 of a core of 1500, and no packet vanishes unsaid."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from dmm_wire.address import format_address, parse_address
from tests.maar.southbound.namespaces import Capture, Namespace, wait
from tests.maar.southbound.test_packets import (
    CN,
    ENCAPSULATED,
    ICMPV6,
    MN_OLD,
    PORT,
    T1,
    T2,
    TIME_EXCEEDED,
    UDP,
    UNREACHABLE,
    Topology,
    destination,
    ipv6,
    source,
    topology,
    udp,
)

pytestmark = [pytest.mark.root, pytest.mark.needs("ping", "nft")]

__all__ = ["topology"]

PACKET_TOO_BIG = 2
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO, IPV6_MTU = 23, 2, 24
MAAR1 = {parse_address(text) for text in ("2001:db8:99::1", "2001:db8:c1::2")}
MAAR2 = {parse_address("2001:db8:c2::2")}
SIZE = 10_000_000


class Relaying:
    """Both MAARs relay errors as their daemons would, meanwhile."""

    def __init__(self, topology: Topology) -> None:
        self.counts: Counter[str] = Counter()
        self._stop = threading.Event()
        self._drivers = []
        for maar in (topology.maar1, topology.maar2):
            with maar.namespace.inside():
                assert maar.driver.errors() >= 0
            self._drivers.append(maar.driver)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            for driver in self._drivers:
                self.counts.update(driver.relay_errors())

    def __enter__(self) -> Relaying:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def relaying(topology: Topology) -> Iterator[Relaying]:
    topology.hand_over()
    with Relaying(topology) as relaying:
        yield relaying


def is_too_big(packet: bytes) -> bool:
    return packet[6] == ICMPV6 and packet[40] == PACKET_TOO_BIG


def mtu_of(error: bytes) -> int:
    return int(struct.unpack_from("!I", error, 44)[0])


WAYS = pytest.mark.parametrize("way", ["to the node", "from the node"])


def ends(topology: Topology, way: str) -> tuple[Namespace, bytes, Namespace, bytes, set[bytes]]:
    """Who sends from which address to whom, and the global addresses of the MAAR that encapsulates."""
    if way == "to the node":
        return topology.cn, CN, topology.mn, MN_OLD, MAAR1
    return topology.mn, MN_OLD, topology.cn, CN, MAAR2


@WAYS
@pytest.mark.parametrize("size", [1280, 1460, 1461, 1462, 1499, 1500])
def test_the_edges(topology: Topology, relaying: Relaying, way: str, size: int) -> None:
    sender, here, receiver, there, maar = ends(topology, way)
    packet = udp(here, there, bytes(size - 48))
    assert len(packet) == size
    with Capture(sender, "eth0") as back, Capture(receiver, "eth0") as arrived:
        topology.inject(packet, sender)
        if size <= 1460:
            arrived.until(lambda seen: seen[40:] == packet[40:])
            assert not [seen for seen in back.read() if is_too_big(seen)]
            assert not relaying.counts
            return
        error = back.until(is_too_big)
        assert mtu_of(error) == 1460
        assert destination(error) == here
        assert source(error) in maar
        # What it quotes is what was sent, but for the hop limit.
        quoted = error[48:]
        assert quoted[:7] + quoted[8:] == (packet[:7] + packet[8:])[: len(quoted) - 1]
        assert len(error) <= 1280
        assert relaying.counts == {"too-big": 1}
        assert not [seen for seen in arrived.read() if seen[6] == UDP]


@WAYS
@pytest.mark.parametrize("hop_limit", [1, 2])
def test_a_hop_limit_ends_at_the_entry_or_in_the_tunnel(
    topology: Topology, relaying: Relaying, way: str, hop_limit: int
) -> None:
    """So that traceroute shows where the way leads; the outer header has the hop limit of the inner one."""
    sender, here, _, there, maar = ends(topology, way)
    packet = udp(here, there, b"how far")
    with Capture(sender, "eth0") as back:
        topology.inject(packet[:7] + bytes([hop_limit]) + packet[8:], sender)
        error = back.until(lambda seen: seen[6] == ICMPV6 and seen[40] == TIME_EXCEEDED)
    assert (error[41], source(error) in maar, destination(error)) == (0, True, here)
    assert error[56:88] == here + there
    assert relaying.counts == {"hop-limit": 1}


@WAYS
def test_a_peer_that_the_core_does_not_know(
    topology: Topology, relaying: Relaying, way: str
) -> None:
    sender, here, _, there, maar = ends(topology, way)
    peer = format_address(T2 if maar is MAAR1 else T1)
    topology.core.ip(f"-6 route del {peer}")
    topology.core.ip(f"-6 route add unreachable {peer}")
    with Capture(sender, "eth0") as back:
        topology.inject(udp(here, there, b"nowhere"), sender)
        error = back.until(lambda seen: seen[6] == ICMPV6 and seen[40] == UNREACHABLE)
    # RFC 2473 section 8.2.
    assert (error[41], destination(error), relaying.counts) == (3, here, {"unreachable": 1})


@WAYS
def test_a_udp_socket_learns_it(topology: Topology, relaying: Relaying, way: str) -> None:
    sender, here, _, there, _ = ends(topology, way)
    with sender.inside():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
        sock.bind((format_address(here), 0))
        sock.connect((format_address(there), PORT))
        assert sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == 1500
        sock.send(bytes(1461 - 48))

        def learnt() -> bool:
            with contextlib.suppress(ConnectionError):  # nobody listens at that port
                return bool(sock.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == 1460)
            return False

        wait(learnt)


@WAYS
def test_tcp_of_a_host_that_ignores_the_advertised_mtu(
    topology: Topology, relaying: Relaying, way: str
) -> None:
    """10 MB, with the segment size of a link of 1500 octets at both ends."""
    sender, here, receiver, there, _ = ends(topology, way)
    with receiver.inside():
        listening = socket.create_server((format_address(there), PORT), family=socket.AF_INET6)
    with sender.inside():
        sending = socket.socket(socket.AF_INET6)
    received = 0
    with listening, sending:
        sending.bind((format_address(here), 0))
        sending.settimeout(20)
        sending.connect((format_address(there), PORT))
        accepted, _ = listening.accept()
        accepted.settimeout(20)
        with accepted:
            writer = threading.Thread(target=_pour, args=(sending,))
            writer.start()
            while data := accepted.recv(1 << 20):
                received += len(data)
            assert sending.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == 1460
            writer.join()
    assert received == SIZE
    assert relaying.counts["too-big"] >= 1


def _pour(sock: socket.socket) -> None:
    sock.sendall(bytes(SIZE))
    sock.shutdown(socket.SHUT_WR)


def test_a_core_that_is_narrower_inside(topology: Topology, relaying: Relaying) -> None:
    """Between MAARs that see 1500 at their own interfaces."""
    topology.core.ip("link set c2 mtu 1400")
    with Capture(topology.cn, "eth0") as back:
        topology.inject(udp(CN, MN_OLD, bytes(1361 - 48)), topology.cn)
        assert mtu_of(back.until(is_too_big)) == 1360


def test_a_forged_error_reaches_nobody(topology: Topology, relaying: Relaying) -> None:
    """Of a packet that is not in the tunnel it names; the genuine one after it is relayed."""

    def too_big(inner: bytes, peer: bytes) -> bytes:
        quoted = ipv6(ENCAPSULATED, T1, peer, inner)[:1232]
        body = struct.pack("!BBHI", PACKET_TOO_BIG, 0, 0, 1300) + quoted
        return ipv6(ICMPV6, parse_address("2001:db8:c1::1"), T1, with_checksum(body, T1))

    def with_checksum(body: bytes, to: bytes) -> bytes:
        pseudo = parse_address("2001:db8:c1::1") + to + struct.pack("!II", len(body), ICMPV6)
        words = pseudo + body + b"\0" * (len(body) % 2)
        total = sum(struct.unpack(f"!{len(words) // 2}H", words))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]

    elsewhere = parse_address("2001:db8:1:7::1")
    with Capture(topology.cn, "eth0") as back:
        topology.inject(too_big(udp(CN, elsewhere, bytes(1400)), T2))
        topology.inject(too_big(udp(CN, MN_OLD, bytes(1400)), parse_address("2001:db8:f::9")))
        topology.inject(too_big(udp(CN, MN_OLD, bytes(1400)), T2))
        assert mtu_of(back.until(is_too_big)) == 1280
        wait(lambda: relaying.counts.total() == 3)
        assert relaying.counts == {"no-tunnel": 2, "too-big": 1}
        assert len([seen for seen in back.read() if is_too_big(seen)]) == 1


def test_a_flood_is_not_answered_at_its_own_rate(topology: Topology) -> None:
    topology.hand_over()
    driver = topology.maar1.driver
    with topology.maar1.namespace.inside():
        driver.errors()
    for _ in range(500):
        topology.inject(udp(CN, MN_OLD, bytes(1500 - 48)), topology.cn)
    counts: list[int] = []

    def is_empty() -> bool:
        counts.append(sum(driver.relay_errors().values()))
        return bool(counts[0]) and not counts[-1]

    wait(is_empty)
    assert max(counts) == 16
    assert sum(counts) < 250, "more than the buffer is to hold"
