"""A MAAR says in its PBU that it knows a later visit of the node than the CMD (docs/protocol.md)."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from dhcp_cmd.core.model import Node
from dhcp_cmd.core.signals import MOST_AHEAD, RAISED, TOO_FAR
from dmm_wire import dmm
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import Status, VendorSpecific
from dmm_wire.mobility.registration import later_option
from dmm_wire.timestamp import from_micros
from tests.cmd.core.registering import ATTACHED, REFRESH, Maars, Pba
from tests.cmd.core.world import ENTERPRISE, World, a_maar


@pytest.fixture
def world() -> World:
    """The node has come from MAAR 1 to MAAR 2, as all know; nothing would be extended by now."""
    world = World(mode=SignallingMode.PROXY)
    maars = Maars(world)
    for maar in (1, 2, 2):
        maars.register(maar)
        world.later(3)
    world.store.tables.signals.clear()
    world.cmd.signalled.clear()
    return world


@pytest.fixture
def maars(world: World) -> Maars:
    return Maars(world)


def the_node(world: World) -> Node:
    (node,) = world.store.tables.nodes.values()
    return node


def tell(
    maars: Maars,
    maar: int,
    known: int,
    *,
    handoff: int = REFRESH,
    lifetime: int = 3600,
    option: VendorSpecific | None = None,
) -> Pba | None:
    said = option or later_option(dmm.Visit(known, a_maar(maar).endpoint), ENTERPRISE)
    update = maars.update([*maars.options(handoff=handoff), said], lifetime)
    return maars.asked(maar, update)


def test_ours_is_the_later_one_in_the_same_answer(world: World, maars: Maars) -> None:
    before = the_node(world)
    for known in (before.generation + 5, from_micros(world.now + MOST_AHEAD) - 1):
        answer = tell(maars, 2, known)
        assert answer is not None
        assert (answer.status, answer.generation) == (Status.ACCEPTED, known + 1)
        assert the_node(world).generation == known + 1
        assert the_node(world).visit_since == before.visit_since
        # The anchor is told by the new generation: it would refuse the one before.
        assert set(world.cmd.signalled) == {(before.id, 1)}
        world.cmd.signalled.clear()
    assert (maars.outcomes[RAISED], world.cmd.outcomes[RAISED]) == (2, 2)
    # Now that it knows, it is told nothing new by that.
    assert tell(maars, 2, known) is not None
    assert the_node(world).generation == known + 1
    assert maars.outcomes[RAISED] == 2
    # The next visit is later still.
    world.later(1)
    assert maars.register(1).generation == known + 2


def test_a_node_may_come_with_it(world: World, maars: Maars) -> None:
    known = from_micros(world.now) + 1000
    answer = tell(maars, 3, known, handoff=ATTACHED)
    assert answer is not None
    assert answer.generation == known + 1
    assert the_node(world).serving == 3
    assert {maar for _, maar in world.cmd.signalled} == {1, 2}


@pytest.mark.parametrize("less", [0, 1, 1 << 20])
def test_what_is_not_later_changes_nothing(world: World, maars: Maars, less: int) -> None:
    before = the_node(world).generation
    answer = tell(maars, 2, before - less)
    assert answer is not None
    assert (answer.generation, the_node(world).generation) == (before, before)
    assert world.cmd.signalled == {}
    assert maars.outcomes[RAISED] == 0


def test_one_that_is_too_far_ahead_is_not_believed_and_the_operator_hears_of_it(
    world: World, maars: Maars, caplog: pytest.LogCaptureFixture
) -> None:
    before = the_node(world).generation
    with caplog.at_level(logging.ERROR):
        for known in (from_micros(world.now + MOST_AHEAD), (1 << 64) - 1):
            answer = tell(maars, 2, known)
            assert answer is not None
            assert (answer.status, answer.generation) == (Status.ACCEPTED, before)
    assert the_node(world).generation == before
    assert (maars.outcomes[TOO_FAR], world.cmd.outcomes[TOO_FAR]) == (2, 2)
    assert [record.message for record in caplog.records] == [
        "a MAAR knows a visit that is far ahead of our clock: not believed"
    ]


def test_only_the_maar_where_the_node_is_can_raise_it(world: World, maars: Maars) -> None:
    before = the_node(world)
    known = before.generation + 5
    late = tell(maars, 1, known)
    assert late is not None
    assert late.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    assert tell(maars, 1, known, lifetime=0) is None
    assert the_node(world) == before
    # Who says that the node is gone says nothing of where it is.
    assert tell(maars, 2, known, lifetime=0) is not None
    assert the_node(world).generation == before.generation


def test_what_is_refused_raises_nothing(world: World, maars: Maars) -> None:
    before = the_node(world)
    said = later_option(dmm.Visit(before.generation + 5, a_maar(2).endpoint), ENTERPRISE)
    options = [*maars.options(world.domain.pools[1][0].unit(1)), said]
    answer = maars.asked(2, maars.update(options))
    assert answer is not None
    assert answer.status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    assert the_node(world) == before


def test_what_is_not_ours_or_damaged_is_passed_over(world: World, maars: Maars) -> None:
    before = the_node(world).generation
    said = later_option(dmm.Visit(before + 5, a_maar(2).endpoint), ENTERPRISE)
    for option in (replace(said, enterprise=1), replace(said, data=said.data[:-1])):
        answer = tell(maars, 2, 0, option=option)
        assert answer is not None
        assert (answer.status, answer.generation) == (Status.ACCEPTED, before)


def test_in_mode_relay_the_answer_waits_for_who_hears_of_it_anew() -> None:
    world = World(mode=SignallingMode.RELAY)
    maars = Maars(world)
    for maar in (1, 2):
        maars.send(a_maar(maar).endpoint, maars.update(maars.options()))
        world.store.tables.signals.clear()
        world.later(60)
    said = later_option(dmm.Visit(the_node(world).generation + 5, a_maar(2).endpoint), ENTERPRISE)
    update = maars.update([*maars.options(handoff=REFRESH), said])
    late = maars.send(a_maar(2).endpoint, update)
    assert not isinstance(late, bytes | None)
    assert [maar for maar, _ in late.hold.anchors] == [1]
    octets = late.answer(())
    assert octets is not None
    answer = maars.read(a_maar(2).endpoint, octets, update)
    assert answer.generation == the_node(world).generation
    assert [at for at, _ in answer.previous] == [a_maar(1).endpoint]
