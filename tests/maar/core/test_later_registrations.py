"""A MAAR that registers nodes knows of a later visit than the CMD: its next PBU says so (docs/protocol.md)."""

from __future__ import annotations

import logging

import pytest

from dhcp_cmd.core.signals import RAISED, TOO_FAR
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import DEFAULT_ENTERPRISE, SignallingMode, Visit
from dmm_wire.mobility import BindingUpdate, VendorSpecific
from dmm_wire.mobility.registration import later_generation
from dmm_wire.timestamp import from_micros
from relay_maar.core.noticed import Ask, Place
from relay_maar.core.registering import Registering
from tests.cmd.memory_store import Tables
from tests.maar.core.pmip_world import NAME, PmipWorld, walked
from tests.maar.core.registering_bench import CMD, Bench, handoff
from tests.maar.core.test_later_visits import restore
from tests.maar.core.test_registering import PROBE, gone_to
from tests.maar.core.world import ACCESS, MAC, NODE, endpoint, settings

MODES = (SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY)
DAY = 86_400


def set_back(world: PmipWorld, backup: Tables, behind: float = 1000.0) -> None:
    """The whole site had the wrong time, and the CMD has a database of before."""
    restore(world, backup, behind)
    world.skews.update(dict.fromkeys(world.maars, -behind))
    world.registered.clear()
    world.mark()


def generation(world: PmipWorld) -> int:
    return world.store.node(NAME).generation


def says(update: BindingUpdate) -> int | None:
    return later_generation(update, DEFAULT_ENTERPRISE)


def said(world: PmipWorld) -> list[int | None]:
    """What later visit each PBU to the CMD told of."""
    return [says(update) for _, update in world.registered]


def session(world: PmipWorld, number: int) -> int:
    """The generation of the visit that this MAAR knows."""
    (found,) = world.maars[number].agent.status(world.now)["sessions"]
    known = found["generation"]
    assert isinstance(known, int)
    return known


# --- with the CMD ---


@pytest.mark.parametrize("mode", MODES)
def test_a_cmd_that_was_set_back_hears_of_the_later_visit_at_once(mode: SignallingMode) -> None:
    world = PmipWorld(mode, 2)
    nothing = world.store.tables.copy()
    walked(world, 2, pause=30)
    lost = generation(world)
    set_back(world, nothing)
    world.show()
    world.go_on(0.0)
    assert said(world) == [None, lost]
    ((_, update),) = world.registered[1:]
    option = next(o for o in update.options if isinstance(o, VendorSpecific))
    assert Visit.decode(option.data) == Visit(lost, endpoint(2))
    # The same PBA says so.
    assert generation(world) == session(world, 2) == lost + 1
    assert world.server.outcomes[RAISED] == 1
    assert world.maars[2].agent.status(world.now)["counters"]["visit.stale"] == 1
    world.check()
    # And that is all.
    world.show()
    world.go_on(600.0)
    assert said(world)[2:] == [None] * len(world.registered[2:])
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_the_anchors_hear_of_it_too(mode: SignallingMode) -> None:
    """The database has the node at the MAAR before; the CMD's first PBU is refused by what the anchor knows."""
    world = walked(PmipWorld(mode, 3), 1)
    backup = world.store.tables.copy()
    walked(world, 2)
    lost = generation(world)
    set_back(world, backup)
    world.show()
    world.go_on(0.0)
    assert generation(world) == session(world, 2) == session(world, 1) == lost + 1
    world.go_on(60.0)
    world.check()
    for number in (3, 1):
        walked(world, number)
        world.check()


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_comes_back_to_who_knows_that_it_went_on(mode: SignallingMode) -> None:
    """The later visit is one elsewhere, so the PBA may only be late: the node is asked, and then the CMD."""
    world = walked(PmipWorld(mode, 2), 1)
    backup = world.store.tables.copy()
    walked(world, 2)
    lost = generation(world)
    set_back(world, backup)
    probed = world.maars[1].agent.status(world.now)["counters"].get("attach.probed", 0)
    world.attach(1)
    world.go_on(1.0)
    assert said(world) == [None, lost]
    assert generation(world) == session(world, 1) == lost + 1
    assert world.maars[1].agent.status(world.now)["counters"]["attach.probed"] == probed + 1
    # What the CMD never heard of, that the MAAR gave it meanwhile, it does not tell.
    for prefix in world.live():
        assert world.trace(prefix)[-1] == "node"


@pytest.mark.parametrize("mode", MODES)
def test_one_that_is_too_far_ahead_is_told_with_each_pbu_and_there_is_no_storm(
    mode: SignallingMode, caplog: pytest.LogCaptureFixture
) -> None:
    world = PmipWorld(mode, 2)
    nothing = world.store.tables.copy()
    walked(world, 2, pause=30)
    lost = generation(world)
    set_back(world, nothing, behind=2.0 * DAY)
    with caplog.at_level(logging.ERROR):
        world.show()
        world.go_on(600.0)
    first, *others = said(world)
    assert first is None
    assert set(others) == {lost}
    # 0, 0.1, 0.2 s and so on, doubling to 32 s.
    assert len(others) < 35
    assert world.server.outcomes[TOO_FAR] == len(others)
    assert world.server.outcomes[RAISED] == 0
    assert generation(world) < from_micros(world.clock())
    (record,) = caplog.records
    assert "far ahead of our clock" in record.message
    # The node is served by what was granted, until that ends: then the CMD's word is news.
    (prefix,) = world.live()
    assert world.trace(prefix) == ["maar2", "node"]
    assert session(world, 2) == lost
    world.go_on(2 * 3600.0)
    assert session(world, 2) == generation(world)
    world.check()
    world.registered.clear()
    world.go_on(3600.0)
    assert set(said(world)) == {None}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by_dhcpv6", [False, True])
def test_one_that_relays_dhcpv6_says_it_as_it_was_told(
    mode: SignallingMode, by_dhcpv6: bool
) -> None:
    """A PBA is followed by a PBU, a Relay-reply by a question."""
    world = PmipWorld(mode, 2, relays=(1, 2))
    nothing = world.store.tables.copy()
    walked(world, 2, pause=30)
    lost = world.store.node(NAME).generation
    set_back(world, nothing)
    if by_dhcpv6:
        world.say(MessageType.REBIND)
    else:
        world.show()
    world.go_on(5.0)
    assert said(world) == ([] if by_dhcpv6 else [None, lost])
    questions = sum("Relay-forward(Information-request)" in line for line in world.record)
    assert questions == by_dhcpv6
    assert world.server.outcomes[RAISED] == 1
    assert generation(world) == session(world, 2) == lost + 1
    world.say(MessageType.REBIND)
    world.show()
    world.go_on(60.0)
    world.check()
    assert world.server.outcomes[RAISED] == 1


# --- by itself ---


def test_a_pbu_follows_at_once_and_then_only_when_the_node_answers() -> None:
    bench = Bench().registered()
    bench.rests(740)
    bench.seen()
    bench.go_on()
    update = bench.sent()
    assert says(update) is None
    bench.answer(update, generation=5)
    update = bench.sent()
    assert (says(update), handoff(update)) == (7, 5)
    for wait in (0, 0.1, 0.2, 0.4):
        bench.answer(update, generation=5)
        assert bench.go_on() == pytest.approx(wait)
        assert bench.out() == [PROBE]
        bench.seen(trigger="na")
        bench.go_on()
        update = bench.sent()
        assert says(update) == 7
    bench.answer(update, generation=8)
    bench.rests(740)
    assert bench.serves()
    bench.seen()
    bench.go_on()
    assert says(bench.sent()) is None


def test_an_answer_that_was_overtaken_claims_nobody() -> None:
    """The node is known to be elsewhere since, so it is asked itself where it is."""
    bench = Bench().registered()
    gone_to(bench)
    for _ in range(3):
        bench.go_on()
        bench.out()
    bench.rests(10)
    bench.seen()
    bench.answer(bench.sent(), generation=7)
    for _ in range(3):
        bench.go_on()
        assert bench.out() == [PROBE]
    bench.rests(1000)


def test_who_says_that_the_node_is_gone_says_no_more() -> None:
    registering = Registering(settings(1, cmds=(CMD,)), lambda identity: None, lambda now: 9)
    place = Place(ACCESS, MAC, NODE, NODE)
    ask, later = Ask(place, b"one", 0.0, known=True), Visit(7, endpoint(1))
    assert says(registering.ask(ask, 0.0).update) is None
    assert [registering.knows_later(MAC, later) for _ in range(2)] == [True, False]
    assert says(registering.ask(ask, 1.0).update) == 7
    assert says(registering.leave(place, 2.0).update) is None
    assert not registering.knows_later(MAC, None)
    assert says(registering.ask(ask, 3.0).update) is None
