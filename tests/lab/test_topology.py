"""The lab comes up, does what it says, and goes away without a trace, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmm_wire.address import parse_address
from lab import netns
from lab.capture import Capture
from lab.flows import ROOT, PingStream, Stream
from lab.packets import ECHO_REPLY, ECHO_REQUEST, ICMPV6, TCP
from lab.topology import CARRIER_GAP, CN1, MAAR_PLANS, MN_INTERFACE, Topology

pytestmark = pytest.mark.root

PREFIX = f"labt{os.getpid()}"
ONE, TWO = MAAR_PLANS[0], MAAR_PLANS[1]
ADDRESS = "2001:db8:100:7::1"


def traces(prefix: str) -> list[str]:
    """What of a lab with this prefix is on the machine."""
    links = [line for line in netns.ip("-o", "link").splitlines() if prefix in line]
    files = [str(path) for path in Path("/run").glob(f"{prefix}*")]
    return [name for name in netns.names() if name.startswith(prefix)] + links + files


@pytest.fixture
def topology() -> Iterator[Topology]:
    with Topology(PREFIX) as topology:
        yield topology
    assert not traces(PREFIX)


def route_by_hand(topology: Topology) -> None:
    """What the MAARs would do, done by hand for one node that is at MAAR1."""
    mn = topology.namespace("mn")
    neighbour = "fe80::5eff:fe00:53aa"
    netns.ip("addr", "add", f"{ADDRESS}/128", "dev", MN_INTERFACE, "nodad", namespace=mn)
    netns.write_sysctls(mn, {f"net/ipv6/conf/{MN_INTERFACE}/accept_dad": "0"})
    topology.plug(ONE)
    netns.ip("route", "add", "default", "via", "fe80::1", "dev", MN_INTERFACE, namespace=mn)
    for plan in (ONE, TWO):
        space = topology.namespace(plan.node)
        netns.write_sysctls(space, {"net/ipv6/conf/all/forwarding": "1"})
        device = ["dev", plan.access_interface]
        # One router identity on both links, as RFC 6543 has it.
        netns.ip("link", "set", *device, "address", "02:00:5e:00:53:ee", namespace=space)
        netns.ip("addr", "add", "fe80::1/64", *device, "nodad", namespace=space)
        netns.ip("-6", "route", "add", f"{ADDRESS}/128", "via", neighbour, *device, namespace=space)


def test_the_way_of_a_packet_is_seen_once_on_each_link(topology: Topology) -> None:
    with Capture(topology) as capture:
        route_by_hand(topology)
        since = time.time_ns()
        with PingStream(topology, parse_address(ADDRESS), CN1) as pings:
            netns.wait_for(lambda: pings.answered(since), timeout=10, what="pings")
        answered = {reply[0] for reply in pings.replies()}
        echoes = [p for p in capture.packets(since) if p.protocol == ICMPV6]
        for kind, links in (
            (ECHO_REQUEST, [("access1", "mn"), ("m1", "m1"), ("cn1", "core")]),
            (ECHO_REPLY, [("cn1", "cn1"), ("m1", "core"), ("access1", "m1")]),
        ):
            for link, sender in links:
                seen = [
                    p.payload[6:8]
                    for p in echoes
                    if (p.link, p.sender, p.icmp_type) == (link, sender, kind)
                ]
                assert len(seen) == len(set(seen)), f"{link}: a packet counted twice"
                assert {number.to_bytes(2, "big") for number in answered} <= set(seen)
    assert capture.dropped == 0


def test_a_move_interrupts_and_a_stream_arrives_whole(topology: Topology) -> None:
    with Capture(topology) as capture:
        route_by_hand(topology)
        began = time.time_ns()
        with (
            Stream(topology, CN1, 5001, parse_address(ADDRESS)) as stream,
            PingStream(topology, parse_address(ADDRESS), CN1) as pings,
        ):
            netns.wait_for(lambda: pings.answered(began), timeout=10, what="pings before the move")
            moved = time.time_ns()
            topology.move(TWO)
            plugged = time.time_ns()
            # The core still routes to MAAR1 until it is told otherwise: what a tunnel does later.
            route = ("route", "replace", f"{ADDRESS}/128", "via", TWO.core_address)
            netns.ip(*route, namespace=topology.namespace("core"))
            switched = time.time_ns()
            netns.wait_for(lambda: pings.answered(plugged), timeout=10, what="pings after the move")
            pause = pings.interruption(moved, time.time_ns())
            assert pause.milliseconds >= 1000 * CARRIER_GAP - 20
            assert pause.began <= plugged
            assert stream.address == parse_address(ADDRESS)
            assert stream.counts().intact
            assert stream.finish().complete
        packets = [p for p in capture.packets(switched) if p.protocol == TCP]
        assert any(p.link == "access2" for p in packets)
        assert not any(
            p.link == "access1" for p in packets
        )  # where neighbours may still be asked for


def test_carrier_is_what_the_node_sees(topology: Topology) -> None:
    def carrier() -> bool:
        row = netns.ip_json("link", "show", MN_INTERFACE, namespace=topology.namespace("mn"))[0]
        return "LOWER_UP" in row["flags"]

    assert not carrier()
    topology.plug(ONE)
    netns.wait_for(carrier, timeout=2, what="carrier")
    topology.unplug()
    netns.wait_for(lambda: not carrier(), timeout=2, what="carrier to go")
    assert topology.attached is None


def test_only_one_at_a_time_has_a_prefix(topology: Topology) -> None:
    with pytest.raises(netns.Busy, match=PREFIX), Topology(PREFIX):
        pass
    assert topology.namespace("mn") in netns.names()


def test_a_name_that_is_no_name_is_refused() -> None:
    for prefix in ("", "a/b", "..", "x" * 33):
        with pytest.raises(netns.LabError):
            Topology(prefix)


_CHILD = """
import sys, time
from lab import netns
from lab.signals import tidy_on_signals
from lab.topology import Topology
with tidy_on_signals(), Topology(sys.argv[1]) as topology:
    netns.start(topology.namespace("m1"), ["sleep", "1000"])
    print("up", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(number: signal.Signals) -> None:
    prefix = f"{PREFIX}s"
    with _child(prefix) as child:
        assert traces(prefix)
        child.send_signal(number)
        assert child.wait(10) != 0
    assert not traces(prefix)


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    prefix = f"{PREFIX}k"
    with _child(prefix) as child:
        child.kill()
        child.wait(10)
    assert traces(prefix)
    with Topology(prefix) as topology:
        assert topology.namespace("mn") in netns.names()
        space = os.stat(f"/run/netns/{topology.namespace('m1')}").st_ino
        inside = [p for p in Path("/proc").glob("[0-9]*") if _namespace(p) == space]
        assert not inside, "the killed run's program still runs"
    assert not traces(prefix)


def _child(prefix: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, prefix], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    return child


def _namespace(process: Path) -> int | None:
    try:
        return (process / "ns/net").stat().st_ino
    except OSError:
        return None
