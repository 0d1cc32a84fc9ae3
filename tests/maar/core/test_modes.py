"""The modes when more goes wrong than a message: what is to be true in the end. Step by step: test_recorded.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage
from dmm_wire.dhcpv6.options import IaNa, IaPd
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import BindingAcknowledgement, decode, encode
from tests.maar.core.modes_world import CMD, ModesWorld
from tests.maar.core.world import ACCESS, NODE_ID, endpoint

MODES = (SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY)
TIME = 9
"""Columns of the time in a line of the record."""


@pytest.mark.parametrize("mode", MODES)
def test_three_moves_and_back(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 3)
    for number in (1, 2, 3, 1, 2, 1):
        world.attach(number)
        world.go_on(12.0)
        world.check()


@pytest.mark.parametrize("mode", MODES)
def test_moves_faster_than_signals(mode: SignallingMode) -> None:
    """Each move comes while the PBUs of the one before are lost; then they are not lost any more."""
    silent = False
    world = ModesWorld(mode, 4, lambda what, before: silent and "PB" in what)
    world.attach(1)
    world.go_on(5.0)
    silent = True
    for number in (2, 3, 2, 4):
        world.attach(number)
        world.go_on(2.5)
    silent = False
    world.go_on(40.0)
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_a_cmd_that_dies_between_commit_and_pbu(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 3)
    for number in (1, 2):
        world.attach(number)
        world.go_on(30.0)
    world.dies_after_commit = True
    world.attach(3)
    world.settle()
    assert not [line for line in world.record if "PBU" in line and "at maar3" in line]
    assert len(world.store.tables.signals) == 2
    world.start_cmd()
    world.go_on(3.0)
    # In mode relay the answer died, too: the client asks again.
    world.say(MessageType.REBIND)
    world.go_on(10.0)
    world.check()
    sent = [line[TIME:] for line in world.record if "PBU: at maar3" in line]
    assert len(sent) == len(set(sent)) == 2


@pytest.mark.parametrize("mode", MODES)
def test_maars_that_are_started_again_know_what_they_knew(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 3)
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(30.0)
    world.mark()
    for number in (1, 2, 3):
        world.restart(number)
    world.go_on(30.0)
    world.check()
    assert not [line for line in world.record if "PBU" in line], "nothing has changed"


def test_an_s_maar_started_again_still_asks_for_what_is_missing() -> None:
    world = ModesWorld(SignallingMode.LOCATOR, 2, lambda what, before: "maar1 > maar2" in what)
    world.attach(1)
    world.go_on(30.0)
    world.attach(2)
    world.go_on(0.5)
    assert "served" not in world.roles(2).values()
    world.restart(2)
    world.go_on(3.0)
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_the_end_of_a_prefix_is_told(mode: SignallingMode) -> None:
    """A Release at the S-MAAR of what is anchored elsewhere."""
    world = ModesWorld(mode, 2)
    for number in (1, 2):
        world.attach(number)
        world.go_on(30.0)
    world.mark()
    world.release(anchored_at=1)
    world.go_on(10.0)
    world.check()
    assert "anchored" not in world.roles(1).values()
    assert len([line for line in world.record if "PBU" in line]) == 1


@pytest.mark.parametrize("mode", MODES)
def test_what_ended_is_not_brought_back_by_a_pbu_that_was_late(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 2)
    world.attach(1)
    world.go_on(10.0)
    world.attach(2)
    world.go_on(10.0)
    (late,) = [e for e in world.sent if (e.source, e.destination) == (CMD, endpoint(1))]
    world.release(1)
    world.go_on(10.0)
    assert world.roles(1) == {}
    world.mark()
    world.wire.append(late)
    world.go_on(1.0)
    assert "PBA: status 157" in world.record[-1]
    assert world.roles(1) == {}
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_an_acceptance_without_the_d_flag_is_counted_and_not_believed(mode: SignallingMode) -> None:
    lost = True
    world = ModesWorld(mode, 2, lambda what, before: lost and "PBA" in what)
    for number in (1, 2):
        world.attach(number)
        world.go_on(0.5)
    said = [p for p in world.sent if (p.source, p.destination) == (endpoint(1), CMD)]
    answer = decode(said[-1].data, endpoint(1), CMD)
    assert isinstance(answer, BindingAcknowledgement)
    world.hear(endpoint(1), encode(replace(answer, dmm=False), endpoint(1), CMD))
    outcomes = world.signaller.outcomes
    assert (outcomes["pba-no-dmm"], outcomes["pba-unmatched"], outcomes["pba-accepted"]) == (
        1,
        0,
        0,
    )
    assert len(world.store.tables.signals) == 1
    lost = False
    world.go_on(5.0)
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_what_has_ended_does_not_stay_unreachable(mode: SignallingMode) -> None:
    """Nobody tells MAAR 2 when MAAR 1 knows, nor when the node gets the same prefix again."""
    world = ModesWorld(mode, 3)
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(30.0)
    of_one = {prefix for prefix, role in world.roles(1).items() if role == "anchored"}
    for number in (1, 2):
        world.release(anchored_at=number)
        world.go_on(10.0)
    assert {world.roles(2).get(prefix) for prefix in of_one} == {"ended"}
    world.go_on(60.0)
    for number in (1, 2, 3):
        assert not of_one & set(world.roles(number))
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_longer_lifetimes_are_told_and_small_changes_are_not(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 2)
    world.attach(1)
    world.go_on(20.0)
    world.attach(2)
    world.go_on(5.0)
    for seconds, expected in ((3.0, 0), (1000.0, 1), (4.0, 0)):
        world.go_on(seconds)
        world.mark()
        world.say(MessageType.RENEW)
        world.go_on(5.0)
        assert len([line for line in world.record if "PBU" in line]) == expected
        world.check()


@pytest.mark.parametrize("mode", MODES)
def test_lifetimes_that_end_end_everywhere(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 2)
    for number in (1, 2):
        world.attach(number)
        world.go_on(5.0)
    for _ in range(5000):
        world.go_on(1.0)
        world.reap()
    for number in (1, 2):
        assert world.roles(number) == {}
    assert world.store.tables.signals == {}


@pytest.mark.parametrize("mode", MODES)
def test_an_anchor_that_knows_nothing_ends_its_prefixes(mode: SignallingMode) -> None:
    """MAAR 1 has lost its session, and somebody else has the prefix there: status 155."""
    world = ModesWorld(mode, 2)
    world.attach(1)
    world.go_on(5.0)
    world.refuses.add(1)
    world.attach(2)
    world.go_on(10.0)
    world.refuses.clear()
    world.check()
    assert "served" not in world.roles(2).values()


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_that_was_lost_before_a_move_ends_nothing(mode: SignallingMode) -> None:
    """MAAR 1 never heard of the last prefix that the node got there; what it knew of is in use all the same."""
    is_lost = False
    world = ModesWorld(mode, 2, lambda what, before: is_lost and "Relay-reply" in what)
    world.place = 1
    world.say(MessageType.REBIND, IaNa(1).encode())
    world.go_on(10.0)
    is_lost = True
    world.say(MessageType.REQUEST, IaPd(2).encode())
    world.settle()
    is_lost = False
    assert len(world.roles(1)) == 1
    world.attach(2)
    world.go_on(10.0)
    assert len([b for b in world.store.bindings.values() if b.anchor == 1]) == 3
    assert set(world.roles(1).values()) == {"anchored"}
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_an_anchor_that_lost_its_disk_serves_on(mode: SignallingMode) -> None:
    """Nothing of the node changes, and nobody asks anything but the MAAR that has forgotten."""
    world = ModesWorld(mode, 3)
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(5.0)
    world.maars[1].file.clear()
    world.maars[1].kernel.items.clear()
    world.restart(1)
    world.go_on(2.0)
    assert "anchored" in world.roles(1).values()
    world.check()
    # It has said so once.
    before = world.store.commits
    world.restart(1)
    world.go_on(2.0)
    assert world.store.commits == before
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_two_nodes_of_one_anchor_that_are_linked(mode: SignallingMode) -> None:
    """MAAR 1 knows two, of which the CMD says that they are one, at MAAR 2."""
    world = ModesWorld(mode, 2)
    other_mac = bytes.fromhex("0200000000bb")
    other_duid = bytes.fromhex("00030001") + other_mac
    options = ((int(OptionCode.CLIENTID), other_duid), IaPd(2).encode())
    message = ClientMessage(MessageType.REBIND, b"two", options).encode()
    maar = world.maars[1]
    at = parse_address("fe80::ff:fe00:2")
    world.run(maar, maar.agent.client_datagram(ACCESS, at, other_mac, message, world.now))
    world.attach(1)
    world.go_on(10.0)
    world.attach(2)
    world.go_on(10.0)
    other = Identity(IdentitySubtype.DUID, other_duid)
    assert world.server.link(NODE_ID, other, world.clock())
    world.go_on(0.0)
    world.attach(2)
    world.go_on(10.0)
    assert len(world.roles(1)) == 3
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_a_database_that_is_away_for_a_while(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 2)
    world.attach(1)
    world.go_on(5.0)
    world.outbox.failing = True
    world.attach(2)
    world.go_on(3.5)
    assert len(world.store.tables.signals) == 1
    world.outbox.failing = False
    world.go_on(5.0)
    world.check()
