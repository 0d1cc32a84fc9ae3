"""What a first frame is worth, on real kernels: an unmodified host moves, and all is ready before it asks for anything.

Its carrier is lost, or it is not; it has a DHCPv6 client, or none; it says something, or a hook does. The MAARs ask the
CMD by DHCPv6, or register the node by PMIPv6.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix, format_mac, parse_address
from dmm_wire.mobility import BindingUpdate, ServingMaar
from dmm_wire.mobility.answers import first
from dmm_wire.router_identity import FIXED
from lab import kernel, messages, netns
from lab.flows import ROOT, PingStream, Stream
from lab.lab import Lab
from lab.messages import Message
from lab.names import Names
from lab.topology import CN1, MAAR_PLANS, MaarPlan
from relay_maar.core.noticed import made_link_local

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

PREFIX = f"laba{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS
_PATIENCE = 20.0


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(PREFIX) as lab:
        yield lab


@pytest.fixture(params=["dhcp", "pmip"])
def either(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """With either way to ask the CMD."""
    if request.param == "dhcp":
        with Lab(PREFIX) as lab:
            yield lab
    else:
        with Lab(PREFIX, mode="proxy", stock=False, registers=MAAR_PLANS) as lab:
            yield lab


@pytest.fixture
def slaac() -> Iterator[Lab]:
    """MAARs that speak DHCPv6 with the CMD, and a host that has no client."""
    more = {plan.number: "slaac = true\n" for plan in MAAR_PLANS}
    with Lab(PREFIX, more=more, client=False) as lab:
        yield lab


def wait(lab: Lab, what: str, is_so: Callable[[], object], timeout: float = _PATIENCE) -> None:
    try:
        netns.wait_for(lambda: bool(is_so()), timeout=timeout, what=what, interval=0.002)
    except netns.LabError as problem:
        tails = lab.daemons.tails()
        raise AssertionError(f"{problem}\n{lab.node.addresses()}\n{tails}") from None


def roles(lab: Lab, plan: MaarPlan) -> list[str]:
    sessions = lab.daemons.maars[plan].status()["sessions"]
    return sorted(each["role"] for session in sessions for each in session["prefixes"])


def arrive(lab: Lab, plan: MaarPlan) -> bytes:
    """The host gets what it can there; its address, as it has it."""
    lab.topology.plug(plan)
    wait(lab, f"the node to be at {plan.name}", lambda: lab.node.is_at(plan))
    address = lab.node.address_of(plan)
    assert address is not None
    return address.address


def plug_at_once(lab: Lab, plan: MaarPlan) -> None:
    """To another link without loss of carrier: what a roam between two access points is to the host."""
    netns.ip(
        *f"link set mn master link{plan.number}".split(), namespace=lab.topology.namespace("air")
    )
    lab.topology.attached = plan


def flows(lab: Lab, pings: PingStream) -> None:
    since = time.time_ns()
    wait(lab, "pings to be answered", lambda: pings.answered(since))


def said(lab: Lab, since: int) -> list[Message]:
    return messages.read(lab.capture.packets(since), Names())


def is_query(message: Message) -> bool:
    return (
        message.name == "Relay-forward"
        and message.inner == "Information-request"
        and any(isinstance(each, dmm.Attachment) for each in message.suboptions)
    )


def asks(message: Message) -> bool:
    """Whether a MAAR asks the CMD about a node."""
    if isinstance(message.mobility, BindingUpdate):
        return first(message.mobility, ServingMaar) is None
    return is_query(message)


def served(lab: Lab) -> list[str]:
    """The MAARs that take the node to be on their links."""
    return [
        maar.name
        for maar in lab.daemons.maars.values()
        for session in maar.status()["sessions"]
        if session["here"] and {"local", "served"} & {e["role"] for e in session["prefixes"]}
    ]


def count(lab: Lab, plan: MaarPlan, reason: str) -> int:
    counters: dict[str, int] = lab.daemons.maars[plan].status()["counters"]
    return counters.get(reason, 0)


def test_all_stands_before_dhcpv6_says_a_word(lab: Lab) -> None:
    address = arrive(lab, ONE)
    (prefix,) = [p for p in _prefixes(lab, ONE) if p.contains(address)]
    with PingStream(lab.topology, address, CN1) as pings:
        flows(lab, pings)
        since = time.time_ns()
        lab.topology.move(TWO)
        plugged = time.time_ns()

        def stands() -> bool:
            down = kernel.down(lab.topology, TWO, prefix, CN1.address)
            anchor = kernel.down(lab.topology, ONE, prefix, CN1.address)
            return down.via is not None and anchor.peer == TWO.endpoint

        wait(lab, "both ends of the tunnel", stands)
        stood = time.time_ns()
        flows(lab, pings)
        wait(lab, "dhcpcd to ask", lambda: any(m.name == "Rebind" for m in said(lab, since)))
        wait(lab, "its leases", lambda: lab.node.is_at(TWO))
    found = said(lab, since)
    at = {
        "report": next(m.at for m in found if m.name == "MLDv2 report" and m.at >= plugged - 10**8),
        "RA": next(m.at for m in found if m.name == "RA" and m.at >= plugged - 10**8),
        "query": next(m.at for m in found if is_query(m)),
        "PBU": next(m.at for m in found if m.name == "PBU"),
        "PBA": next(m.at for m in found if m.name == "PBA"),
        "client": next(m.at for m in found if m.name == "Rebind"),
    }
    assert at["report"] < at["RA"] < at["client"]
    assert at["report"] < at["query"] < at["PBU"] < at["PBA"] < at["client"]
    assert stood < at["client"], "the kernel, too"
    assert len([m for m in found if is_query(m) and m.at < at["client"]]) <= 2
    # One visit: DHCPv6 found it done.
    visits = {s for m in found for s in m.suboptions if isinstance(s, dmm.Visit)}
    assert len(visits) == 1
    moves = lab.daemons.cmd.query("SELECT cause FROM history WHERE type = 'handover' ORDER BY id")
    assert [each["cause"] for each in moves][-1] == "query"
    assert len(moves) == 2


def _prefixes(lab: Lab, plan: MaarPlan) -> list[Prefix]:
    sessions = lab.daemons.maars[plan].status()["sessions"]
    return [Prefix.parse(e["prefix"]) for s in sessions for e in s["prefixes"]]


def test_a_host_that_sends_moves_without_loss_of_carrier(either: Lab) -> None:
    """Its client, if it has one, notices nothing. Each packet that the host sends says that it is there."""
    lab = either
    address = arrive(lab, ONE)
    with (
        Stream(lab.topology, CN1, 5001, address) as stream,
        PingStream(lab.topology, address, CN1) as pings,
    ):
        flows(lab, pings)
        for plan in (TWO, THREE, ONE, TWO):
            since = time.time_ns()
            plug_at_once(lab, plan)
            flows(lab, pings)
            # The filter lets its packets alone again, once it is known.
            pause = pings.interruption(since - 50_000_000, time.time_ns())
            assert pause.milliseconds < 1000
            found = said(lab, since)
            assert any(asks(m) for m in found)
            assert not [m for m in found if m.name in ("Rebind", "Confirm", "Solicit", "Renew")]
        counts = {m.name: m.status()["counters"] for m in lab.daemons.maars.values()}
        assert counts["MAAR2"]["attach.seen-data"] < 200, "hundreds of packets went by unseen"
        assert stream.finish().complete


@pytest.mark.parametrize("carrier", [True, False])
def test_a_host_without_a_client(slaac: Lab, carrier: bool) -> None:
    lab = slaac
    address = arrive(lab, ONE)
    routers = lab.node.default_routers()
    with PingStream(lab.topology, address, CN1) as pings:
        flows(lab, pings)
        for plan in (TWO, THREE, ONE):
            if carrier:
                lab.topology.move(plan)
            else:
                plug_at_once(lab, plan)
            wait(lab, f"its address from {plan.name}", lambda plan=plan: lab.node.is_at(plan))  # type: ignore[misc]
            flows(lab, pings)
            assert lab.node.default_routers() == routers
    assert roles(lab, ONE) == ["local", "served", "served"]
    assert lab.daemons.cmd.command("db", "check") == "sound\n"
    causes = lab.daemons.cmd.query("SELECT DISTINCT cause FROM history")
    assert causes == [{"cause": "query"}]
    for plan, maar in lab.daemons.maars.items():
        assert maar.stop() == 0
        assert kernel.snapshot(lab.topology, plan) == lab.kernels[plan]


def test_a_late_frame_at_the_maar_just_left_does_not_pull_the_node_back(either: Lab) -> None:
    """Some packets that an access point still had, of a node that is elsewhere and silent there."""
    lab = either
    address = arrive(lab, ONE)
    silent = "attach.silent-arrival"
    before = count(lab, ONE, silent)
    with PingStream(lab.topology, address, CN1) as pings:
        flows(lab, pings)
        plug_at_once(lab, TWO)
        flows(lab, pings)
    # It was asked whether it is back.
    wait(lab, "MAAR1 to know", lambda: count(lab, ONE, silent) == before + 1)
    assert served(lab) == ["MAAR2"]
    moves = lab.daemons.cmd.query("SELECT id FROM history WHERE type = 'handover'")
    for frame in (report(lab), packet(lab, address)):
        inject(lab, ONE, frame)
    wait(lab, "the frames to be judged", lambda: count(lab, ONE, silent) == before + 2)
    assert count(lab, ONE, "attach.late")
    assert lab.daemons.cmd.query("SELECT id FROM history WHERE type = 'handover'") == moves
    assert served(lab) == ["MAAR2"]
    with PingStream(lab.topology, address, CN1) as pings:
        flows(lab, pings)


def report(lab: Lab) -> bytes:
    """An MLDv2 report of the node; whoever looks at the checksum drops it."""
    body = bytes.fromhex("3a00050200000100") + bytes((143, 0, 0, 0, 0, 0, 0, 0))
    source = made_link_local(lab.topology.mn_link_layer)
    groups = bytes.fromhex("ff020000000000000000000000000016")
    return frame_of(lab, bytes.fromhex("333300000016"), 0, 1, source, groups, body)


def packet(lab: Lab, address: bytes) -> bytes:
    """A datagram of the node to the far side."""
    body = struct.pack("!HHHH", 9, 9, 8, 0)
    return frame_of(lab, FIXED.link_layer, 17, 64, address, parse_address(CN1.address), body)


def frame_of(
    lab: Lab, to: bytes, header: int, limit: int, source: bytes, destination: bytes, body: bytes
) -> bytes:
    fixed = struct.pack("!IHBB", 6 << 28, len(body), header, limit)
    ethernet = to + lab.topology.mn_link_layer + b"\x86\xdd"
    return ethernet + fixed + source + destination + body


def inject(lab: Lab, plan: MaarPlan, frame: bytes) -> None:
    """As if it had waited in an access point: on the link, while the node is elsewhere."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.sendto(frame, (f"link{plan.number}", 0x86DD))

    netns.inside(lab.topology.namespace("air"), send)


def test_ping_pong_ends_in_the_true_place(either: Lab) -> None:
    lab = either
    address = arrive(lab, ONE)
    with PingStream(lab.topology, address, CN1) as pings:
        flows(lab, pings)
        for plan in (TWO, ONE, TWO, ONE, TWO, THREE, TWO, ONE, THREE):
            plug_at_once(lab, plan)
            time.sleep(0.2)
        flows(lab, pings)
        wait(lab, "one MAAR, the right one, to serve it", lambda: served(lab) == ["MAAR3"])
        flows(lab, pings)


def test_an_access_points_hooks(either: Lab) -> None:
    """The host is mute: it neither reports nor sends. The access point says where it is."""
    lab = either
    arrive(lab, ONE)
    if not lab.registers:
        os.kill(lab.mn.pid, signal.SIGSTOP)
    plug_at_once(lab, TWO)
    mac = format_mac(lab.topology.mn_link_layer)
    for command, maar in (("attach", TWO), ("detach", TWO)):
        configuration = lab.daemons.maars[maar].configuration
        arguments = [command, str(configuration), maar.access_interface, mac]
        done = subprocess.run(
            [sys.executable, "-m", "relay_maar", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        if command == "attach":
            wait(lab, "MAAR2 to serve it", lambda: "served" in roles(lab, TWO))
            assert "anchored" in roles(lab, ONE)
    counters = lab.daemons.maars[TWO].status()["counters"]
    assert counters["seen.hook"] == 1
    assert counters["attach.detached"] == 1
    assert "served" in roles(lab, TWO), "its prefixes stay"
