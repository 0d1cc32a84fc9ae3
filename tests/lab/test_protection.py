"""A node that turns against its network, between moves of real daemons; and one that does not listen to an MTU."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmm_wire.address import format_address, parse_address
from lab import netns
from lab.checks import Checks
from lab.kernel import host_in
from lab.lab import Lab
from lab.packets import UDP
from lab.scenario import MainJob
from lab.topology import CN1, CN2, MAAR_PLANS, MN_INTERFACE, MN_LINK_LAYER, Topology
from tests.lab.test_main_job import conclude
from tests.maar.daemon.actors import ROUTER_MAC, udp_frame

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "nft", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

ONE, TWO, _ = MAAR_PLANS
SIZE = 1_000_000
PORT = 5010
IPV6_MTU = 24
MN_MAC = bytes.fromhex(MN_LINK_LAYER.replace(":", ""))


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(f"labp{os.getpid()}") as lab:
        yield lab


def frame(source: bytes, destination: bytes, next_header: int, payload: bytes) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
    return ROUTER_MAC + MN_MAC + b"\x86\xdd" + header + source + destination + payload


def wire(topology: Topology) -> socket.socket:
    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.bind((MN_INTERFACE, 0))
        return sock

    return netns.inside(topology.namespace("mn"), opened)


def test_spoofing_and_the_mtu(lab: Lab) -> None:
    """At MAAR2, after a move from MAAR1: everything that a host may not send is dropped and counted, and its flows, by
    the anchor and without it, go on."""
    checks = Checks()
    with MainJob(lab, checks) as job:
        job.attach(ONE, "attach")
        job.move(TWO, "move")
        old, new = (parse_address(host_in(job.prefixes[plan][0])) for plan in (ONE, TWO))
        _spoof(lab, old, new)
        _pour_without_the_advertised_mtu(lab)
        conclude(lab, job, checks)


def _spoof(lab: Lab, old: bytes, new: bytes) -> None:
    cn, t1, t2 = CN1.packed, ONE.endpoint, TWO.endpoint
    inner = udp_frame(cn, old, (PORT, PORT), b"inner spoofed")[14:]
    mobility = struct.pack("!BBBBHH", 59, 1, 5, 0, 0, 1) + b"spoofed "
    segments = bytes([59, 2, 4, 0, 0, 0, 0, 0]) + cn
    spoofed = {
        "source": [
            udp_frame(source, cn, (PORT, PORT), b"spoofed")
            for source in (
                parse_address("2001:db8:bad::1"),  # anybody
                parse_address(host_in(ONE.link_pool)),  # another node's, anchored at MAAR1
                parse_address(host_in(TWO.link_pool)),  # nobody's, of this MAAR
                cn,
                t1,
                t2,
                parse_address(TWO.core_address),
            )
        ],
        "tunnel": [frame(source, t1, 41, inner) for source in (new, t2)]
        + [frame(t1, t2, 41, inner), frame(new, cn, 41, inner)],
        "mobility": [frame(source, t1, 135, mobility) for source in (new, t2)],
        "routing-header": [frame(new, t1, 43, segments), frame(new, cn, 43, segments)],
        "endpoint": [udp_frame(new, t2, (547, 547), b"spoofed")],
    }
    before = _filtered(lab)
    began = time.time_ns()
    with wire(lab.topology) as sock:
        for frames in spoofed.values():
            for each in frames:
                sock.send(each)
        for source in (old, new):
            sock.send(udp_frame(source, cn, (PORT, PORT), b"genuine"))
    wanted = {reason: before.get(reason, 0) + len(frames) for reason, frames in spoofed.items()}
    netns.wait_for(lambda: _filtered(lab) == before | wanted, timeout=10, what=f"{wanted}")

    def at_cn() -> int:
        found = lab.capture.packets(began)
        # CN1 answers that nobody listens there, and quotes it.
        datagrams = (each for each in found if each.link == CN1.node and each.protocol == UDP)
        return sum(b"genuine" in each.payload for each in datagrams)

    netns.wait_for(lambda: at_cn() == 2, timeout=10, what="what is genuine")
    left = [
        each
        for each in lab.capture.packets(began)
        if b"spoofed" in each.payload and each.link in (TWO.node, ONE.node, CN1.node)
    ]
    assert not left


def _filtered(lab: Lab) -> dict[str, int]:
    counters: dict[str, int] = lab.daemons.maars[TWO].status()["counters"]
    return {
        name.removeprefix("filter."): count
        for name, count in counters.items()
        if name.startswith("filter.")
    }


def _pour_without_the_advertised_mtu(lab: Lab) -> None:
    """1 MB each way by the old address, between hosts that take the path for one of 1500 octets."""
    topology = lab.topology
    (address,) = (each for each in lab.mn.addresses() if each.anchor == ONE)
    old = format_address(address.address)

    def ignore_the_mtu() -> None:
        # What the advertisement set; and the next one is not listened to either.
        for name, value in (("accept_ra_mtu", "0"), ("mtu", "1500")):
            Path("/proc/sys/net/ipv6/conf", MN_INTERFACE, name).write_text(value)

    netns.inside(topology.namespace("mn"), ignore_the_mtu)
    # Its client put the MTU on its routes.
    for line in netns.ip(
        "-6", "route", "show", "default", namespace=topology.namespace("mn")
    ).splitlines():
        if " mtu " in line:
            words = line.replace(" expires ", " \0").split("\0")[0].split()
            words[words.index("mtu") + 1] = "1500"
            netns.ip("-6", "route", "replace", *words, namespace=topology.namespace("mn"))
    for sender, receiver, there, here in (
        ("mn", "cn1", CN1.address, old),
        ("cn2", "mn", old, CN2.address),  # CN1 would know the MTU, and the node so its segment size
    ):
        listening = netns.inside(
            topology.namespace(receiver),
            lambda there=there: socket.create_server((there, PORT), family=socket.AF_INET6),  # type: ignore[misc]
        )
        sending = netns.inside(
            topology.namespace(sender), lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        )
        with listening, sending:
            sending.settimeout(30)
            sending.bind((here, 0))
            sending.connect((there, PORT))
            assert sending.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == 1500
            accepted, _ = listening.accept()
            received = 0
            with accepted:
                accepted.settimeout(30)
                writer = threading.Thread(target=_pour, args=(sending,))
                writer.start()
                while data := accepted.recv(1 << 20):
                    received += len(data)
                writer.join()
            assert received == SIZE
            assert sending.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == 1460
    for plan in (ONE, TWO):
        assert lab.daemons.maars[plan].status()["counters"]["tunnel.too-big"] >= 1


def _pour(sock: socket.socket) -> None:
    sock.sendall(bytes(SIZE))
    sock.shutdown(socket.SHUT_WR)
