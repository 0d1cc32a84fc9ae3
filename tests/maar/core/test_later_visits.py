"""A MAAR knows of a later visit of a node than the CMD: what heals, whoever was wrong (docs/protocol.md)."""

from __future__ import annotations

import logging

import pytest

from dhcp_cmd.core.model import Micros, Node
from dhcp_cmd.core.ports import StoreError
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity
from dmm_wire.mobility import BindingUpdate, ServingMaar, Status, Timestamp, decode
from dmm_wire.timestamp import from_micros
from tests.cmd.memory_store import Tables
from tests.maar.core.modes_world import ModesWorld
from tests.maar.core.test_who_is_believed import (
    change_mode,
    forged,
    last_update,
    later,
    live,
    moved,
    tell,
)
from tests.maar.core.world import NODE_ID, endpoint

DIRECT, PROXY = SignallingMode.DIRECT, SignallingMode.PROXY
MODES = (DIRECT, PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY)
DAY = 86_400


def node(world: ModesWorld) -> Node:
    return world.store.node(NODE_ID)


def restore(world: ModesWorld, backup: Tables, behind: float) -> None:
    """The CMD comes back with a database of before, and a time of day of before."""
    world.store.tables = backup.copy()
    world.behind = behind
    world.start_cmd()


def poisoned(mode: SignallingMode, seconds: int) -> ModesWorld:
    """MAAR 3 has told MAAR 1 that the node is with it, in mode direct, by a made-up generation that is so many seconds
    ahead."""
    world = moved(DIRECT)
    update = last_update(world, 1)
    made_up = forged(update, later(update, seconds), ServingMaar(endpoint(3)))
    assert tell(world, 1, endpoint(3), made_up) == Status.ACCEPTED
    world.go_on(1.0)
    (link, _) = live(world, 1)
    assert world.trace(link)[1] == "maar3"
    if mode is not DIRECT:
        change_mode(world, mode, *world.maars)
    return world


def updates(world: ModesWorld, since: int, to: int) -> int:
    """How many PBUs went to this MAAR since then."""
    return sum(
        packet.kind == "mobility"
        and packet.destination == endpoint(to)
        and isinstance(decode(packet.data, packet.source, packet.destination), BindingUpdate)
        for packet in world.sent[since:]
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_cmd_that_was_set_back_catches_up_with_its_maars(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 4)
    world.attach(1)
    world.go_on(30.0)
    backup = world.store.tables.copy()
    for number in (2, 3):
        world.attach(number)
        world.go_on(30.0)
    lost = node(world).generation
    restore(world, backup, behind=1000.0)
    world.attach(4)
    world.go_on(20.0)
    assert node(world).generation > lost
    world.say(MessageType.RENEW)
    world.go_on(20.0)
    # What MAARs 2 and 3 gave the node it does not know, and so does not tell them.
    for prefix in (*live(world, 1), *live(world, 4)):
        assert world.trace(prefix)[-1] == "node"
    assert world.store.tables.signals == {}


@pytest.mark.parametrize("mode", MODES)
def test_all_anchors_that_know_of_it_hear_of_the_raised_visit(mode: SignallingMode) -> None:
    """They refuse together: where the first has raised the visit, the others know of none that is later."""
    world = ModesWorld(mode, 5)
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(30.0)
    backup = world.store.tables.copy()
    world.attach(4)
    world.go_on(30.0)
    lost = node(world).generation
    restore(world, backup, behind=1000.0)
    world.attach(5)
    world.go_on(30.0)
    assert node(world).generation == lost + 1
    for number in (1, 2, 3, 5):
        for prefix in live(world, number):
            for start in (1, 2, 3, 5):
                assert world.trace(prefix, start)[-1] == "node"
    assert world.store.tables.signals == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_stayed_where_it_was_goes_on_with_a_cmd_that_was_set_back(
    mode: SignallingMode,
) -> None:
    world = ModesWorld(mode, 2)
    nothing = world.store.tables.copy()
    world.attach(2)
    world.go_on(30.0)
    lost = node(world).generation
    restore(world, nothing, behind=1000.0)
    world.say(MessageType.REBIND)
    world.go_on(5.0)
    assert node(world).generation == lost + 1
    (session,) = world.maars[2].agent.status(world.now)["sessions"]
    assert session["generation"] == lost + 1
    world.say(MessageType.RENEW)
    world.go_on(100.0)
    world.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seconds", [5, 3600])
def test_a_generation_that_was_made_up_does_not_outlast_the_next_move(
    mode: SignallingMode, seconds: int
) -> None:
    world = poisoned(mode, seconds)
    world.attach(3)
    world.go_on(5.0)
    # The S-MAAR hears its visit's new generation with the next message at the latest.
    world.say(MessageType.RENEW)
    world.go_on(5.0)
    world.check()
    if mode is not DIRECT and seconds > 60:
        assert world.signaller.outcomes["visit-raised"] == 1
    for number in (1, 2):
        world.attach(number)
        world.go_on(5.0)
        world.check()


@pytest.mark.parametrize("mode", MODES)
def test_one_that_is_far_ahead_is_not_believed_and_the_operator_hears_of_it(
    mode: SignallingMode, caplog: pytest.LogCaptureFixture
) -> None:
    world = poisoned(mode, DAY + 60)
    with caplog.at_level(logging.ERROR):
        world.attach(3)
        world.go_on(60.0)
    assert node(world).generation < from_micros(world.clock())
    outcomes = world.server.outcomes if mode is DIRECT else world.signaller.outcomes
    assert outcomes["visit-too-far"] == 1
    (record,) = caplog.records
    assert "far ahead of our clock" in record.message
    # Nobody goes on asking or telling.
    since = len(world.sent)
    world.go_on(120.0)
    assert len(world.sent) == since


@pytest.mark.parametrize("mode", MODES)
def test_what_was_only_overtaken_raises_nothing(mode: SignallingMode) -> None:
    """The anchor has heard of the latest visit when it refuses one before."""
    world = moved(mode)
    update = last_update(world, 1)
    world.attach(3)
    world.go_on(5.0)
    latest = node(world).generation
    known = next(o.value for o in last_update(world, 1).options if isinstance(o, Timestamp))
    assert known == latest
    assert world.server.anchor_knows_later(NODE_ID, 1, latest, world.clock()) is None
    if mode is DIRECT:
        assert tell(world, 1, endpoint(2), update) == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    assert node(world).generation == latest
    assert world.store.tables.signals == {}


@pytest.mark.parametrize("mode", MODES)
def test_a_visit_that_is_not_believed_is_told_once_for_each_answer(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 2)
    nothing = world.store.tables.copy()
    world.attach(2)
    world.go_on(30.0)
    restore(world, nothing, behind=2.0 * DAY)
    world.mark()
    world.say(MessageType.REBIND)
    world.go_on(60.0)
    assert sum("Relay-forward(Information-request)" in line for line in world.record) == 1
    assert world.server.outcomes["visit-too-far"] == 1


def test_who_was_left_does_not_ask_what_its_last_words_were_refused_for() -> None:
    lost = True
    world = ModesWorld(DIRECT, 3, lambda what, before: lost and "maar2 > maar1" in what)
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(0.5)
    lost = False
    world.mark()
    world.go_on(40.0)
    assert any("maar1 > maar2  PBA: status 157" in line for line in world.record)
    assert not any("Relay-forward" in line for line in world.record)
    world.check()


def test_a_database_that_is_away_meanwhile_is_asked_again() -> None:
    world = poisoned(PROXY, 3600)
    asked = 0
    really = world.server.anchor_knows_later

    def fails(identity: Identity, anchor: int, known: int, now: Micros) -> str | None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise StoreError("away")
        return really(identity, anchor, known, now)

    world.signaller.knows_later = fails
    world.attach(3)
    world.go_on(10.0)
    assert asked == 3
    world.check()


def test_the_next_pbu_comes_without_waiting() -> None:
    world = poisoned(PROXY, 3600)
    since = len(world.sent)
    world.attach(3)
    world.go_on(0.1)
    assert updates(world, since, 1) == 2
    (link, _) = live(world, 1)
    assert world.trace(link) == ["maar1", "maar3", "node"]
