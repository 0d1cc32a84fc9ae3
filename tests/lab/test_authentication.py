"""MAARs that share keys, with real daemons and kernels: flows go on, a wrong key and a replay change nothing."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable

import pytest

from dmm_wire.address import Prefix, format_address
from dmm_wire.mobility import BindingUpdate, encode
from dmm_wire.mobility.authentication import locate
from lab import expect, kernel, netns, trail
from lab.checks import Checks
from lab.daemons import Maar
from lab.flows import ROOT
from lab.lab import Lab
from lab.packets import MOBILITY, Packet
from lab.scenario import MainJob
from lab.topology import CN1, MAAR_PLANS, MAARS, MaarPlan

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "nft", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

PREFIX = f"laba{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS
_REFUSED = ("auth.repeated", "auth.stale", "auth.unmatched", "pba.unmatched")
"""Where a replay is counted; a PBA whose PBU is remembered answers nothing any more."""
RIGHT, WRONG = "5a" * 32, "a5" * 32
KEY = '\n[[security.key]]\nspi = 1001\nsecret = "{}"\n'


def signalling(lab: Lab) -> list[Packet]:
    """The PBUs and PBAs so far, each once."""
    core = [packet for packet in lab.capture.packets() if packet.sender == "core"]
    return [packet for packet in core if packet.protocol == MOBILITY]


def counters(maar: Maar) -> dict[str, int]:
    found: dict[str, int] = maar.status()["counters"]
    return found


def refused(maar: Maar) -> dict[str, int]:
    return {name: count for name, count in counters(maar).items() if name.startswith("auth.")}


def send_again(lab: Lab, packets: list[Packet], receivers: Iterable[bytes]) -> None:
    """Send them as they were, from the core: whoever is on the way, with addresses that are not its own; then, to each
    receiver, something unsigned of a stranger, which is known by its reason when it has come."""
    messages = [(each.source, each.destination, each.payload) for each in packets]
    stranger = CN1.packed
    unsigned = BindingUpdate(1, 4)
    messages += [(stranger, each, encode(unsigned, stranger, each)) for each in receivers]

    def opened() -> socket.socket:
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)

    with netns.inside(lab.topology.namespace("core"), opened) as sock:
        for source, destination, payload in messages:
            header = struct.pack("!IHBB", 6 << 28, len(payload), MOBILITY, 64)
            sock.sendto(header + source + destination + payload, (format_address(destination), 0))


def replay(lab: Lab, packets: list[Packet]) -> None:
    """Send them again to the MAARs. All have been looked at when this returns, and each was refused."""
    maars = lab.daemons.maars.values()
    before = [counters(maar) for maar in maars]
    send_again(lab, packets, [plan.endpoint for plan in MAAR_PLANS])

    def counted(reasons: tuple[str, ...]) -> list[int]:
        return [
            sum(counters(maar).get(name, 0) - old.get(name, 0) for name in reasons)
            for maar, old in zip(maars, before, strict=True)
        ]

    netns.wait_for(
        lambda: min(counted(("auth.unsigned",))) == 1, timeout=10, what="the last messages"
    )
    for plan, count in zip(MAAR_PLANS, counted(_REFUSED), strict=True):
        assert count >= sum(packet.destination == plan.endpoint for packet in packets)


def state(lab: Lab, plan: MaarPlan) -> tuple[object, ...]:
    """What a replay could change at a MAAR: its kernel, and what it knows of the node."""
    sessions = lab.daemons.maars[plan].status()["sessions"]
    known = [
        (each["identity"], each["serving"], [(p["prefix"], p["role"]) for p in each["prefixes"]])
        for each in sessions
    ]
    routes = kernel.routes_with_protocol(lab.topology, plan, 213)
    return routes, kernel.rules(lab.topology, plan), known


def test_the_main_job_with_keys_and_what_was_captured_in_it() -> None:
    checks = Checks()
    with (
        Lab(PREFIX, more=dict.fromkeys(MAARS, KEY.format(RIGHT))) as lab,
        MainJob(lab, checks) as job,
    ):
        job.run()
        maars = lab.daemons.maars
        captured = signalling(lab)
        assert len(captured) >= 8
        assert all(locate(packet.payload) for packet in captured)
        assert [refused(maar) for maar in maars.values()] == [{}, {}, {}]

        # The node is at MAAR1. What said that it is elsewhere, and all else, is sent again.
        before = {plan: state(lab, plan) for plan in MAAR_PLANS}
        replay(lab, captured)
        assert {plan: state(lab, plan) for plan in MAAR_PLANS} == before

        # Also after a restart, which has forgotten the clocks and each single message.
        for maar in maars.values():
            maar.kill()
            maar.start()
        lab.daemons.wait_until_ready()
        replay(lab, captured)
        assert {plan: state(lab, plan) for plan in MAAR_PLANS} == before

        job.finish()
        trail.history(job, lab.daemons.cmd)
        for maar in maars.values():
            checks.equal(f"{maar.name} stops", maar.stop(), 0)
        expect.kernels_are_clean(job)
        failed = [f"{check.what}: {check.found}" for check in checks.failed]
        assert not failed, "\n".join([*failed, lab.daemons.tails()])


def test_a_maar_with_a_wrong_key_until_it_gets_the_right_one() -> None:
    keys = {number: KEY.format(WRONG if number == TWO.number else RIGHT) for number in MAARS}
    checks = Checks()
    with (
        Lab(PREFIX, more=keys) as lab,
        MainJob(lab, checks, counts_messages=False) as job,
    ):
        job.attach(ONE, "attach")
        one, two = lab.daemons.maars[ONE], lab.daemons.maars[TWO]
        prefixes = job.prefixes[ONE]
        before = state(lab, ONE)
        lab.topology.move(TWO)
        netns.wait_for(
            lambda: refused(one).get("auth.forged", 0) >= 2, timeout=30, what="PBUs to be refused"
        )
        assert state(lab, ONE) == before
        ways = [kernel.down(lab.topology, ONE, prefix, CN1.address) for prefix in prefixes]
        assert [way.peer for way in ways] == [None, None]
        assert "pba.accepted" not in two.status()["counters"]
        assert "is not signed by the key that it names" in one.log.read_text()

        mend(two)
        wait_for_the_tunnel(lab, prefixes)
        assert two.status()["counters"]["pba.accepted"] >= 1


def mend(maar: Maar) -> None:
    """Give it the right key."""
    text = maar.configuration.read_text()
    maar.configuration.write_text(text.replace(WRONG, RIGHT))
    restart(maar)


def wait_for_the_tunnel(lab: Lab, prefixes: Iterable[Prefix]) -> None:
    """Until all these prefixes of MAAR1 go to MAAR2."""

    def leads_there() -> bool:
        ways = [kernel.down(lab.topology, ONE, prefix, CN1.address) for prefix in prefixes]
        return all(way.peer == TWO.endpoint for way in ways)

    netns.wait_for(leads_there, timeout=60, what="the tunnel to MAAR2")


def restart(maar: Maar) -> None:
    """As an operator does after a change of keys."""
    command = [sys.executable, "-m", "relay_maar", "restart", str(maar.configuration)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
