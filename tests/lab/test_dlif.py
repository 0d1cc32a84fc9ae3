"""A router for each anchor (RFC 8885 section 3.7), on real kernels, with hosts that nobody modified."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import pytest

from dmm_wire.address import format_address, format_mac
from lab import kernel, netns, routers
from lab.flows import PingStream, Stream
from lab.lab import Lab
from lab.topology import CN1, MAAR_PLANS, MaarPlan

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

PREFIX = f"labd{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS
_PATIENCE = 20.0


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(PREFIX, router="dlif") as lab:
        yield lab


@pytest.fixture
def slaac() -> Iterator[Lab]:
    more = {plan.number: "slaac = true\n" for plan in MAAR_PLANS}
    with Lab(PREFIX, router="dlif", more=more, client=False) as lab:
        yield lab


def wait(lab: Lab, what: str, is_so: Callable[[], object]) -> None:
    try:
        netns.wait_for(lambda: bool(is_so()), timeout=_PATIENCE, what=what, interval=0.002)
    except netns.LabError as problem:
        tails = lab.daemons.tails()
        host = netns.ip("-6", "route", "show", namespace=lab.topology.namespace("mn"))
        at = {plan.name: routers.shown(lab.topology, plan) for plan in MAAR_PLANS}
        raise AssertionError(f"{problem}\n{lab.node.addresses()}\n{host}\n{at}\n{tails}") from None


def arrive(lab: Lab, plan: MaarPlan) -> bytes:
    lab.topology.plug(plan)
    wait(lab, f"the node to be at {plan.name}", lambda: lab.node.is_at(plan))
    address = lab.node.address_of(plan)
    assert address is not None
    return address.address


def flows(lab: Lab, pings: PingStream) -> None:
    since = time.time_ns()
    wait(lab, "pings to be answered", lambda: pings.answered(since))


def move(lab: Lab, plan: MaarPlan, *, carrier: bool) -> None:
    """To another link, with or without loss of carrier."""
    if carrier:
        lab.topology.move(plan)
        return
    command = f"link set mn master link{plan.number}"
    netns.ip(*command.split(), namespace=lab.topology.namespace("air"))
    lab.topology.attached = plan


def are_shown(lab: Lab, at: Sequence[MaarPlan]) -> bool:
    """Whether the first of these MAARs shows itself as all of them, and the others as themselves."""
    expected = [(at[0], at), *((each, [each]) for each in at[1:])]
    return all(routers.shown(lab.topology, plan) == routers.macs(as_) for plan, as_ in expected)


def stands(lab: Lab, at: Sequence[MaarPlan]) -> bool:
    """Whether the node, at the first of these MAARs, has a prefix of each, and all that goes with it."""
    here, *others = at
    old = [lab.node.address_of(each) for each in others]
    return (
        lab.node.is_at(here)
        and all(each is not None and each.preferred == 0 for each in old)
        and routers.ways(lab.topology)
        == {each: format_address(each.router.link_local) for each in at}
        and are_shown(lab, at)
    )


def test_the_router_follows_the_host(lab: Lab) -> None:
    address = arrive(lab, ONE)
    assert lab.node.default_routers() == routers.link_locals([ONE])
    with (
        PingStream(lab.topology, address, CN1) as pings,
        Stream(lab.topology, CN1, 5001, address) as stream,
    ):
        flows(lab, pings)
        for at in ([TWO, ONE], [THREE, TWO, ONE], [ONE, THREE, TWO]):
            lab.topology.move(at[0])
            wait(lab, f"all of it at {at[0].name}", partial(stands, lab, at))
            # dhcpcd installs one default route, whatever there is; a prefix leads to its router.
            assert set(lab.node.default_routers()) <= set(routers.link_locals(at))
            flows(lab, pings)
        assert stream.finish().complete
    for plan, maar in lab.daemons.maars.items():
        assert maar.stop() == 0
        assert kernel.snapshot(lab.topology, plan) == lab.kernels[plan]


def test_a_killed_maar_and_its_heir(lab: Lab) -> None:
    """The heir takes up what it finds; what was lost meanwhile is put again."""
    address = arrive(lab, ONE)
    lab.topology.move(TWO)
    wait(lab, "all of it at MAAR2", partial(stands, lab, [TWO, ONE]))
    maar = lab.daemons.maars[TWO]
    namespace = lab.topology.namespace(TWO.node)
    with PingStream(lab.topology, address, CN1) as pings:
        flows(lab, pings)
        before = netns.ip("-o", "link", "show", "type", "macvlan", namespace=namespace)
        maar.kill()
        flows(lab, pings)
        maar.start()
        maar.wait_until_ready()
        assert netns.ip("-o", "link", "show", "type", "macvlan", namespace=namespace) == before
        flows(lab, pings)
        (name,) = re.findall(r"(maar\d+d\d+)@", before)
        netns.ip("link", "del", name, namespace=namespace)
        wait(lab, "it to be there again", lambda: are_shown(lab, [TWO, ONE]))
        flows(lab, pings)
        counters = maar.status()["counters"]
        assert counters["kernel.restored"] >= 1
        assert not [each for each in counters if each.startswith("filter.")]


def test_a_maar_that_stops_takes_leave_as_each_router(slaac: Lab) -> None:
    """RFC 4861 section 6.2.5: a host does not wait for the end of a lifetime."""
    lab = slaac
    arrive(lab, ONE)
    lab.topology.move(TWO)
    wait(lab, "all of it at MAAR2", partial(at_once, lab, [TWO, ONE]))
    shown = [each for each in lab.daemons.maars[TWO].status()["routers"] if each["nodes"]]
    assert [(each["anchor"], each["link_local"], each["link_layer"]) for each in shown] == [
        (format_address(each.endpoint), format_address(local), format_mac(mac))
        for each, (local, mac) in ((plan, plan.router) for plan in (TWO, ONE))
    ]
    assert lab.daemons.maars[TWO].stop() == 0
    wait(lab, "the host to have no router", lambda: not lab.node.default_routers())


@pytest.mark.parametrize(
    ("mode", "registers"),
    [("proxy", ()), ("locator", ()), ("relay", ()), ("proxy", MAAR_PLANS)],
)
def test_in_the_other_modes(mode: str, registers: Collection[MaarPlan]) -> None:
    """Whoever says where a prefix is anchored says as which router it is advertised."""
    stock = mode != "relay"
    with Lab(PREFIX, router="dlif", mode=mode, registers=registers, stock=stock) as lab:
        address = arrive(lab, ONE)
        with PingStream(lab.topology, address, CN1) as pings:
            flows(lab, pings)
            for at in ([TWO, ONE], [ONE, TWO]):
                lab.topology.move(at[0])
                right = at_once if registers else stands
                wait(lab, f"all of it at {at[0].name}", partial(right, lab, at))
                flows(lab, pings)


def at_once(lab: Lab, at: Sequence[MaarPlan]) -> bool:
    """Whether a host without a client has an address and a default router of each of these MAARs."""
    return (
        lab.node.is_at(at[0])
        and all(lab.node.address_of(each) is not None for each in at)
        and sorted(lab.node.default_routers()) == routers.link_locals(at)
        and are_shown(lab, at)
    )


@pytest.mark.parametrize("carrier", [True, False])
def test_a_host_without_a_client_is_not_cut_off_for_longer(slaac: Lab, carrier: bool) -> None:
    lab = slaac
    address = arrive(lab, ONE)
    with PingStream(lab.topology, address, CN1) as pings:
        flows(lab, pings)
        for at in ([TWO, ONE], [THREE, TWO, ONE], [ONE, THREE, TWO]):
            before = time.time_ns()
            move(lab, at[0], carrier=carrier)
            wait(lab, f"all of it at {at[0].name}", partial(at_once, lab, at))
            flows(lab, pings)
            pause = pings.interruption(before, time.time_ns())
            # An address resolution that is lost takes a second.
            assert pause.milliseconds < (900 if carrier else 600), pause
            assert routers.mistaken(lab.topology) == []
