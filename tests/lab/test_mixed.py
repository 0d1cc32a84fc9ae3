"""A domain with MAARs of both kinds, on real kernels: MAAR1 and MAAR3 are fed by relay options, MAAR2 registers its
nodes by PBU. A host goes from one kind to the other, and back, and its flows go on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dmm_wire.address import Prefix
from lab import kernel
from lab.expect import mn_link_local
from lab.flows import Counts, PingStream, Stream
from lab.lab import Lab
from lab.netns import LabError, wait_for
from lab.topology import CN1, CN2, MAAR_PLANS, MaarPlan
from tests.lab.test_pmip import arrive, flows, goes_on

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


@pytest.fixture(params=["proxy", "relay"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(
        PREFIX, mode=request.param, stock=False, registers={TWO}, client=False, more=SLAAC
    ) as lab:
        yield lab


def ways(lab: Lab, serving: MaarPlan, prefixes: dict[MaarPlan, Prefix]) -> list[str]:
    """What is wrong with the way of these prefixes, by the kernels' own word; `prefixes` by anchor."""
    topology, node, wrong = lab.topology, mn_link_local(), []
    (device,) = {
        line.split(" dev ")[1].split()[0]
        for line in kernel.routes_with_protocol(topology, serving, 213)
        if " via fe80:" in line
    }
    for anchor, prefix in prefixes.items():
        for plan in MAAR_PLANS:
            down = kernel.down(topology, plan, prefix, CN1.address)
            if (down.via == node) != (plan == serving):
                wrong.append(f"{plan.name}, {prefix} of {anchor.name}: {down}")
        if anchor != serving:
            down = kernel.down(topology, anchor, prefix, CN1.address)
            if down.peer != serving.endpoint:
                wrong.append(f"{anchor.name}, {prefix} of its own: {down}")
        up = kernel.up(topology, serving, prefix, CN1.address, device)
        if up.unreachable or up.peer != (None if anchor == serving else anchor.endpoint):
            wrong.append(f"{serving.name}, from {prefix} of {anchor.name}: {up}")
    return wrong


def routes_are_right(lab: Lab, serving: MaarPlan, prefixes: dict[MaarPlan, Prefix]) -> None:
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


def test_a_host_that_makes_its_addresses(lab: Lab) -> None:
    lab.topology.plug(ONE)
    arrive(lab, ONE, 0)
    address = lab.node.address_of(ONE)
    assert address is not None
    prefixes = {ONE: Prefix.of(address.address, 64)}
    with (
        Stream(lab.topology, CN1, 5001, address.address) as stream,
        PingStream(lab.topology, address.address, CN1) as pings,
    ):
        flows(pings)
        for number, plan in enumerate(WALK):
            before = stream.counts()
            lab.topology.move(plan)
            arrive(lab, plan, len({*prefixes, plan}) - 1)
            flows(pings)
            goes_on(stream, before)
            own = lab.node.address_of(plan)
            assert own is not None
            # Back at a MAAR, the node has there what it had.
            assert prefixes.setdefault(plan, Prefix.of(own.address, 64)).contains(own.address)
            routes_are_right(lab, plan, prefixes)
            with Stream(lab.topology, CN2, 5002 + number) as new:
                assert plan.anchors(new.address)
                goes_on(new, Counts(0, 0, 0, 0, True))
                assert new.finish().complete
        assert stream.finish().complete
    causes = lab.daemons.cmd.query("SELECT DISTINCT cause FROM history ORDER BY cause")
    assert [row["cause"] for row in causes] == ["pbu", "query"]
    conclude(lab)
