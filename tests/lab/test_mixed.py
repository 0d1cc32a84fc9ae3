"""A domain with MAARs of both kinds, on real kernels: MAAR1 and MAAR3 are fed by relay options, MAAR2 registers its
nodes by PBU. A host goes from one kind to the other, and back, and its flows go on.
"""

from __future__ import annotations

import os

import pytest

from dmm_wire.address import Prefix
from lab import kernel
from lab.expect import mn_link_local
from lab.flows import Counts, PingStream, Stream
from lab.lab import Lab
from lab.netns import LabError, wait_for
from lab.topology import CN1, CN2, MAAR_PLANS, MaarPlan
from tests.lab.test_pmip import flows, goes_on

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("nft", "sqlite3"),
    pytest.mark.timeout(180),
]

PREFIX = f"labx{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS
SLAAC = {plan.number: "slaac = true\n" for plan in (ONE, THREE)}
WALK = (TWO, THREE, TWO, ONE)
"""From MAAR1: each way between the kinds, to a MAAR that is new to the node and to one that is not."""

Prefixes = dict[MaarPlan, set[Prefix]]
"""What a node has, by the MAAR that anchors it."""


def arrive(lab: Lab, plan: MaarPlan, prefixes: Prefixes, each: int) -> None:
    """Until the node knows that it is there, and has `each` prefixes of it and of all MAARs before; these are noted."""

    def served(role: str) -> set[Prefix]:
        sessions = lab.daemons.maars[plan].status()["sessions"]
        entries = [entry for session in sessions for entry in session["prefixes"]]
        return {Prefix.parse(entry["prefix"]) for entry in entries if entry["role"] == role}

    away = {prefix for other, own in prefixes.items() if other != plan for prefix in own}

    def settled() -> bool:
        for daemon in lab.daemons:
            daemon.check()
        is_there = len(served("local")) == each and served("served") == away
        return is_there and lab.node.is_at(plan)

    try:
        wait_for(settled, timeout=20, what=f"the node to be at {plan.name}")
    except LabError as problem:
        found = [str(address) for address in lab.node.addresses()]
        raise AssertionError(f"{problem}\n{found}\n{lab.daemons.tails()}") from None
    # Back at a MAAR, the node has there what it had.
    assert prefixes.setdefault(plan, served("local")) == served("local")


def ways(lab: Lab, serving: MaarPlan, prefixes: Prefixes) -> list[str]:
    """What is wrong with the way of these prefixes, by the kernels' own word."""
    topology, node, wrong = lab.topology, mn_link_local(), []
    devices = {
        line.split(" dev ")[1].split()[0]
        for line in kernel.routes_with_protocol(topology, serving, 213)
        if " via fe80:" in line
    }
    if len(devices) != 1:
        return [f"{serving.name} has routes to the node by {devices}"]
    for anchor, prefix in ((anchor, each) for anchor, own in prefixes.items() for each in own):
        for plan in MAAR_PLANS:
            down = kernel.down(topology, plan, prefix, CN1.address)
            if (down.via == node) != (plan == serving):
                wrong.append(f"{plan.name}, {prefix} of {anchor.name}: {down}")
            if plan == anchor != serving and down.peer != serving.endpoint:
                wrong.append(f"{anchor.name}, {prefix} of its own: {down}")
        up = kernel.up(topology, serving, prefix, CN1.address, *devices)
        if up.unreachable or up.peer != (None if anchor == serving else anchor.endpoint):
            wrong.append(f"{serving.name}, from {prefix} of {anchor.name}: {up}")
    return wrong


def routes_are_right(lab: Lab, serving: MaarPlan, prefixes: Prefixes) -> None:
    what = f"the routes to be those of a node at {serving.name}"
    try:
        wait_for(lambda: not ways(lab, serving, prefixes), timeout=20, what=what)
    except LabError as problem:
        raise AssertionError(f"{problem}: {ways(lab, serving, prefixes)}") from None


def conclude(lab: Lab) -> None:
    wait_for(
        lambda: lab.daemons.cmd.query("SELECT * FROM signals") == [],
        timeout=20,
        what="all MAARs to acknowledge",
    )
    assert lab.daemons.cmd.command("db", "check") == "sound\n"
    for plan, maar in lab.daemons.maars.items():
        assert maar.stop() == 0
        assert kernel.snapshot(lab.topology, plan) == lab.kernels[plan]


def walk(lab: Lab, each: int) -> None:
    """The node begins a flow at MAAR1, and it goes on at all MAARs, where new ones take the short way."""
    prefixes: Prefixes = {}
    lab.topology.plug(ONE)
    arrive(lab, ONE, prefixes, each)
    address = lab.node.address_of(ONE)
    assert address is not None
    with (
        Stream(lab.topology, CN1, 5001, address.address) as stream,
        PingStream(lab.topology, address.address, CN1) as pings,
    ):
        flows(pings)
        for number, plan in enumerate(WALK):
            before = stream.counts()
            lab.topology.move(plan)
            arrive(lab, plan, prefixes, each)
            flows(pings)
            goes_on(stream, before)
            routes_are_right(lab, plan, prefixes)
            with Stream(lab.topology, CN2, 5002 + number) as new:
                assert plan.anchors(new.address)
                goes_on(new, Counts(0, 0, 0, 0, True))
                assert new.finish().complete
        assert stream.finish().complete
    kept = lab.node.address_of(ONE)
    assert kept is not None
    assert kept.address == address.address


@pytest.mark.parametrize("mode", ["proxy", "relay"])
def test_a_host_that_makes_its_addresses(mode: str) -> None:
    with Lab(PREFIX, mode=mode, stock=False, registers={TWO}, client=False, more=SLAAC) as lab:
        walk(lab, 1)
        causes = lab.daemons.cmd.query("SELECT DISTINCT cause FROM history ORDER BY cause")
        assert [row["cause"] for row in causes] == ["pbu", "query"]
        conclude(lab)


@pytest.mark.needs("dhcpcd", "setpriv")
@pytest.mark.parametrize("mode", ["proxy", "locator", "relay"])
def test_a_host_with_leases(mode: str) -> None:
    """MAAR2 relays DHCPv6, too (RFC 5213 section 6.11): an unmodified client has an address and a delegated prefix of
    each, and makes none itself."""
    with Lab(PREFIX, mode=mode, stock=False, registers={TWO}, relays={TWO}) as lab:
        walk(lab, 2)
        assert lab.mn.runs
        (node,) = lab.daemons.cmd.query("SELECT * FROM nodes")
        leases = lab.daemons.cmd.query(
            "SELECT prefix, anchor FROM bindings WHERE kind = 'address' ORDER BY anchor"
        )
        assert [lease["anchor"] for lease in leases] == ["maar1", "maar2", "maar3"], node
        wanted = {lease["prefix"].removesuffix("/128") for lease in leases}
        # The client puts them back one by one, when its DAD is over.
        wait_for(
            lambda: {str(address) for address in lab.node.addresses()} == wanted,
            timeout=20,
            what=f"the node to hold {wanted}",
        )
        moves = "SELECT cause, from_maar, to_maar FROM events WHERE event = 'handover' ORDER BY at"
        assert [tuple(row.values()) for row in lab.daemons.cmd.query(moves)] == [
            ("request", None, "maar1"),
            ("pbu", "maar1", "maar2"),
            ("query", "maar2", "maar3"),
            ("pbu", "maar3", "maar2"),
            ("query", "maar2", "maar1"),
        ]
        conclude(lab)
