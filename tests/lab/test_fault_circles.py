"""The fault run sees packets that go round in circles: all of them, no others, and it fails for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from dmm_wire.address import Prefix, format_address
from lab import netns
from lab.daemons import DIRECT, Daemons
from lab.faults.air import PROBED, Air, make_nodes
from lab.faults.loop import Loop
from lab.faults.probes import Probes
from lab.faults.run import FaultRun, Settings
from lab.faults.view import view
from lab.kernel import host_in
from lab.topology import CN1, CORE_INTERFACE, MAAR_PLANS, MaarPlan, Topology

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("sqlite3", "setpriv", "nft"),
    pytest.mark.timeout(120),
]

PREFIX = f"labc{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS
PROBES = 7
HOP_LIMIT = 64
SEED = 1
"""Of a node that stays at MAAR3."""
CIRCLE, BOUNCE, DETOUR = (Prefix.parse(f"2001:db8:1{n}:1::/64") for n in (10, 20, 30))
"""Out of MAAR1's pool, which gives others out first."""


@pytest.fixture
def topology() -> Iterator[Topology]:
    with Topology(PREFIX) as topology:
        yield topology


def gateway(plan: MaarPlan) -> str:
    """The core, as this MAAR knows it."""
    return f"2001:db8:0:{plan.number}::1"


def tunnel(topology: Topology, here: MaarPlan, to: Prefix, there: MaarPlan) -> None:
    """What the daemons put for a prefix that goes into a tunnel; not marked as theirs, so that they leave it."""
    into = ("encap", "seg6", "mode", "encap.red", "segs", format_address(there.endpoint))
    route = ("-6", "route", "add", str(to), *into, "dev", CORE_INTERFACE)
    netns.ip(*route, namespace=topology.namespace(here.node))


def test_what_goes_round_is_counted_and_nothing_else(topology: Topology) -> None:
    (node,) = make_nodes(1, 0, seed=SEED)
    with (
        Daemons(topology, mode=DIRECT),
        Air(topology, [node]) as air,
        Probes(topology, air) as probes,
        Loop((air, probes)) as loop,
    ):
        loop.run(lambda: node.arrived, timeout=30, what="a node at MAAR3")
        assert node.at == THREE
        # Two MAARs that point at each other: who gets the Time Exceeded is a MAAR.
        tunnel(topology, ONE, CIRCLE, TWO)
        tunnel(topology, TWO, CIRCLE, ONE)
        # One that sends back what the core gives it: the Time Exceeded comes to CN1.
        back = (str(BOUNCE), "via", gateway(ONE), "dev", CORE_INTERFACE)
        netns.ip("-6", "route", "add", *back, namespace=topology.namespace(ONE.node))
        # From the anchor to the MAAR before, which sends it on to where the node is: the longest way there may be.
        tunnel(topology, ONE, DETOUR, TWO)
        tunnel(topology, TWO, DETOUR, THREE)
        to_node = ("via", format_address(node.link_local), "dev", view(topology, THREE).router)
        route = ("-6", "route", "add", str(DETOUR), *to_node)
        netns.ip(*route, namespace=topology.namespace(THREE.node))

        for number in range(PROBES):
            probes.down(DETOUR, b"%d" % number)
        loop.run(lambda: air.arrivals.total() == PROBES, timeout=10, what="the detour")
        assert probes.circled == {}
        assert probes.problems() == []

        for number in range(PROBES):
            probes.down(DETOUR, b"again %d" % number)
            probes.down(CIRCLE, b"%d" % number)
            probes.down(BOUNCE, b"%d" % number)
        # Between two MAARs each tunnel takes one off the hop limit, and so does the core before each; without tunnels
        # it is the core and the MAAR. Both have one for the way to MAAR1.
        rounds = HOP_LIMIT // 2 - 1
        expected = {
            f"{number} from {CN1.address} to {host_in(prefix)}": rounds
            for prefix in (CIRCLE, BOUNCE)
            for number in range(PROBES)
        }
        loop.run(
            lambda: (
                air.arrivals.total() == 2 * PROBES
                and probes.circled.total() >= sum(expected.values())
            ),
            timeout=10,
            what="the circles to end",
        )
        assert probes.circled == expected
        assert len(probes.problems()) == len(expected)
        assert f"one MAAR sent it on {rounds} times" in probes.problems()[0]
        assert probes.sent == 4 * PROBES

        # Between nodes two times are right, no more.
        (own,) = (p for p in node.client.prefixes if THREE.link_pool.contains(p))
        probes.across(node, own, CIRCLE, b"across")
        name = f"across from {host_in(own)} to {host_in(CIRCLE)}"
        loop.run(lambda: probes.circled[name] > 2, timeout=10, what="the circle between nodes")


def test_a_run_with_a_circle_in_it_is_not_right() -> None:
    """A rule that nobody asks for makes MAAR1 send back what comes for the nodes."""
    prefix = f"{PREFIX}r"
    namespace = Topology(prefix).namespace(ONE.node)

    def disturb(said: str) -> None:
        if "they stay" in said:
            back = ("default", "via", gateway(ONE), "dev", CORE_INTERFACE, "table", "77")
            netns.ip("-6", "route", "add", *back, namespace=namespace)
            probes = ("iif", CORE_INTERFACE, "ipproto", "udp", "dport", str(PROBED))
            netns.ip("-6", "rule", "add", "pref", "5", *probes, "lookup", "77", namespace=namespace)

    settings = Settings(DIRECT, moves=4, nodes=2, seed=SEED, patient=False, clears=True)
    result = FaultRun(settings, prefix, disturb).run()
    went = [line for line in result.problems if "went round in a circle" in line]
    assert result.circled > 0
    assert len(went) == result.circled, result.problems
