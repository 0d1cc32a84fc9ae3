"""MAARs that speak only PMIPv6, on real kernels: a host without any client keeps its flows over three moves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from dmm_wire.mobility import (
    BindingUpdate,
    HandoffIndicator,
    HandoffIndicatorValue,
    ServingMaar,
)
from dmm_wire.mobility.answers import first
from lab import kernel, messages, netns
from lab.flows import Counts, PingStream, Stream
from lab.lab import Lab
from lab.names import CMD_NAME, Names
from lab.topology import CN1, CN2, MAAR_PLANS, MaarPlan

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("nft", "sqlite3"),
    pytest.mark.timeout(180),
]

PREFIX = f"labp{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS
_PATIENCE = 20.0


@pytest.fixture(params=["proxy", "locator", "relay"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(PREFIX, mode=request.param, stock=False, registers=MAAR_PLANS) as lab:
        yield lab


def arrive(lab: Lab, plan: MaarPlan, anchors: int) -> None:
    """Until the node has its address there, and the MAAR has the way of all others."""

    def settled() -> bool:
        for maar in lab.daemons.maars.values():
            maar.check()
        lab.daemons.cmd.check()
        sessions = lab.daemons.maars[plan].status()["sessions"]
        roles = [each["role"] for session in sessions for each in session["prefixes"]]
        return lab.node.is_at(plan) and sorted(roles) == ["local"] + ["served"] * anchors

    try:
        netns.wait_for(settled, timeout=_PATIENCE, what=f"the node to be at {plan.name}")
    except netns.LabError as problem:
        raise AssertionError(f"{problem}\n{lab.node.addresses()}\n{lab.daemons.tails()}") from None


def flows(pings: PingStream) -> None:
    since = time.time_ns()
    netns.wait_for(lambda: pings.answered(since), timeout=_PATIENCE, what="pings to be answered")


def goes_on(stream: Stream, before: Counts) -> None:
    netns.wait_for(
        lambda: stream.counts().is_beyond(before), timeout=_PATIENCE, what="the TCP flow to go on"
    )


def test_a_host_without_a_client_moves(lab: Lab) -> None:
    lab.topology.plug(ONE)
    arrive(lab, ONE, 0)
    address = lab.node.address_of(ONE)
    assert address is not None
    routers = lab.node.default_routers()
    assert len(routers) == 1
    with (
        Stream(lab.topology, CN1, 5001, address.address) as stream,
        PingStream(lab.topology, address.address, CN1) as pings,
    ):
        flows(pings)
        for anchors, plan in enumerate((TWO, THREE), 1):
            before = stream.counts()
            lab.topology.move(plan)
            arrive(lab, plan, anchors)
            flows(pings)
            goes_on(stream, before)
            assert lab.node.default_routers() == routers
            # What is new takes the short way.
            with Stream(lab.topology, CN2, 5001 + plan.number) as new:
                assert plan.anchors(new.address)
                goes_on(new, Counts(0, 0, 0, 0, True))
                assert new.finish().complete
        lab.topology.move(ONE)
        arrive(lab, ONE, 2)
        flows(pings)
        back = lab.node.address_of(ONE)
        assert back is not None
        assert back.preferred
        assert back.address == address.address
        assert stream.finish().complete
    said = messages.read(lab.capture.packets(), Names())
    updates = [m for m in said if isinstance(m.mobility, BindingUpdate)]
    registrations = [m for m in updates if first(m.mobility, ServingMaar) is None]  # type: ignore[arg-type]
    unknown = HandoffIndicator(HandoffIndicatorValue.UNKNOWN)
    came = [m for m in registrations if first(m.mobility, HandoffIndicator) == unknown]  # type: ignore[arg-type]
    assert [(m.sender, m.receiver) for m in came] == [
        (plan.name.upper(), CMD_NAME) for plan in (ONE, TWO, THREE, ONE)
    ]
    assert all(m.sender == CMD_NAME for m in updates if m not in registrations)
    netns.wait_for(
        lambda: lab.daemons.cmd.query("SELECT * FROM signals") == [],
        timeout=_PATIENCE,
        what="all MAARs to acknowledge",
    )
    assert lab.daemons.cmd.command("db", "check") == "sound\n"
    causes = lab.daemons.cmd.query("SELECT DISTINCT cause FROM history")
    assert causes == [{"cause": "pbu"}]
    for plan, maar in lab.daemons.maars.items():
        assert maar.stop() == 0
        assert kernel.snapshot(lab.topology, plan) == lab.kernels[plan]
