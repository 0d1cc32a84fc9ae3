"""CMD and MAARs that share keys, in every mode: moves go on as without, and who has no key changes nothing."""

from __future__ import annotations

from functools import partial

import pytest

from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingUpdate,
    KeyStore,
    Status,
    encode,
)
from dmm_wire.mobility.authentication import locate
from dmm_wire.mobility.security import Security
from tests.maar.core.modes_world import CMD, EPOCH, ModesWorld
from tests.maar.core.pmip_world import PmipWorld
from tests.maar.core.secure_world import (
    CHANGE,
    KEY,
    LOCATOR,
    MODES,
    NUMBERS,
    PROXY,
    RELAY,
    SECURE,
    WRONG,
    Make,
    counters,
    hear,
    mobility,
    refused,
    restart_cmd,
    secure,
    state,
    statuses,
    walk,
)
from tests.maar.core.world import Packet, endpoint


@pytest.fixture(params=[ModesWorld, PmipWorld], ids=["dhcp", "pmip"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a world by DHCPv6, or by PMIPv6 alone."""
    return partial(secure, request.param)


# --- moves ---


@pytest.mark.parametrize("mode", MODES)
def test_a_node_moves_as_without_keys(make: Make, mode: SignallingMode) -> None:
    world, plain = make(mode), make(mode, own={n: {} for n in NUMBERS}, security=Security())
    for each in (world, plain):
        walk(each, 1, 2, 3, 1, 2)
        each.check()
    assert world.record == plain.record
    assert mobility(world)
    assert all(locate(packet.data) for packet in mobility(world))
    assert not any(locate(packet.data) for packet in mobility(plain))
    assert refused(world) == {}
    assert plain.marks.marks == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ahead", [-1e8, -60.0, 60.0, 1e8])
def test_a_cmd_whose_clock_differs_is_told_so_once(
    make: Make, mode: SignallingMode, ahead: float
) -> None:
    world = make(mode, epochs=dict.fromkeys(NUMBERS, EPOCH - ahead))
    walk(world, 1, 2, 3)
    world.check()
    # Each MAAR that the CMD told of a node has told it the time, and each that registers nodes was told.
    told = statuses(world).count(Status.MIPV6_ID_MISMATCH)
    assert 1 <= told <= 5
    walk(world, 1, 2, 3)
    world.check()
    assert statuses(world).count(Status.MIPV6_ID_MISMATCH) <= 6
    assert set(statuses(world)) == {0, Status.MIPV6_ID_MISMATCH}


@pytest.mark.parametrize("mode", [PROXY, RELAY])
def test_a_clock_that_differs_costs_a_round_trip_and_no_timer(
    make: Make, mode: SignallingMode
) -> None:
    world = make(mode, epochs=dict.fromkeys(NUMBERS, EPOCH - 1000.0))
    walk(world, 1)
    before = world.now
    world.attach(2)
    world.settle()
    assert world.now == before
    world.check()


@pytest.mark.parametrize("number", NUMBERS)
def test_in_locator_a_maar_whose_clock_differs_from_the_others_is_heard_of_by_the_cmd(
    make: Make, number: int
) -> None:
    """Its PBAs to other MAARs are not near their clocks, and a PBA gets no answer that could tell it the time."""
    world = make(LOCATOR, epochs={number: EPOCH - 1000.0})
    for place in (1, 2, 3, 1):
        walk(world, place, pause=60.0)
        world.check()


def test_a_de_registration_that_is_told_the_time_goes_again() -> None:
    """It is sent once (RFC 5213 section 6.9.1.4), but that one did not count."""
    world = secure(partial(PmipWorld, lifetime=600), PROXY)
    walk(world, 1)
    world.awake = False  # type: ignore[attr-defined]
    world.ahead = 1000.0
    restart_cmd(world)
    world.mark()
    world.go_on(600.0)
    assert [line[9:].rstrip() for line in world.record] == [
        "maar1 > cmd    PBU: gone",
        "  cmd > maar1  PBA: status 144, 0 prefixes",
        "maar1 > cmd    PBU: gone",
        "  cmd > maar1  PBA: status 0, 1 prefixes",
    ]


# --- who is not to be believed ---


@pytest.mark.parametrize("mode", MODES)
def test_a_maar_with_a_wrong_key_counts_for_nothing(make: Make, mode: SignallingMode) -> None:
    world = make(mode, own={3: {"security": WRONG}})
    walk(world, 1, 2)
    world.check()
    before = state(world)
    update = BindingUpdate(7, 1200)
    octets = world.maars[3].agent._guard.outgoing(CMD, update, world.now)
    hear(world, Packet("mobility", endpoint(3), CMD, octets))
    if isinstance(world, PmipWorld):
        world.attach(3)
        world.go_on(10.0)
    assert state(world) == before
    assert world.signaller.outcomes["auth-forged"] >= 1
    assert "pba.accepted" not in counters(world, 3)
    assert "registration.accepted" not in counters(world, 3)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_owed_to_a_maar_with_a_wrong_key_waits_for_the_right_one(
    make: Make, mode: SignallingMode
) -> None:
    world = make(mode, own={1: {"security": WRONG}, 2: {"security": SECURE}})
    # It came by DHCPv6 or it did not at all: only there a node gets a prefix of MAAR 1 without a key.
    if isinstance(world, PmipWorld):
        world.own[1] = {"security": SECURE}
        world.restart(1)
    walk(world, 1)
    world.own[1] = {"security": WRONG}
    world.restart(1)
    walk(world, 2, pause=30.0)
    assert counters(world, 1)["auth.forged"] >= 2
    assert world.signaller.outcomes["auth-forged"] >= 1  # its refusals are not believed either
    assert len(world.store.tables.signals) == 1
    assert set(world.roles(1).values()) == {"local"}
    world.own[1] = {"security": SECURE}
    world.restart(1)
    world.go_on(70.0)
    world.check()


def test_a_stranger_is_not_answered(make: Make) -> None:
    world = make(PROXY)
    walk(world, 1, 2)
    before, said = state(world), len(mobility(world))
    for source in (endpoint(9), endpoint(1)):
        for message in (BindingUpdate(1, 1200), BindingAcknowledgement(0, 1, 1200)):
            hear(world, Packet("mobility", source, CMD, encode(message, source, CMD)))
    world.go_on(1.0)
    assert refused(world)[0] == {"auth-unsigned": 4}
    assert len(mobility(world)) == said
    assert state(world) == before


# --- keys that change ---


def test_keys_come_into_a_running_domain_and_are_changed_in_it(make: Make) -> None:
    world = make(LOCATOR, own={n: {} for n in NUMBERS}, security=CHANGE[0])
    place = 1
    walk(world, place)
    for step in CHANGE[1:]:
        for number in (0, *NUMBERS):
            if number:
                world.own[number] = {"security": step}
                world.restart(number)
            else:
                world.signaller.change(step)  # by a reload: it goes on with what it knows
            place = place % 3 + 1
            walk(world, place)
            world.check()
    assert not {144, 145, 146} & set(statuses(world))
    signed = [seal.spi for packet in mobility(world) if (seal := locate(packet.data))]
    assert {1001, 1002} == set(signed)
    assert signed[-1] == 1002


def test_the_operator_hears_who_has_no_key(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    world = make(PROXY, security=Security(KeyStore(peers={endpoint(2): [KEY]}), require=True))
    (line,) = [each.getMessage() for each in caplog.records]
    assert "no key is shared with" in line
    assert "2001:db8:2::1" not in line
    own = Security(KeyStore(peers={endpoint(2): [KEY]}), require=True)
    world.own[1] = {"security": own}
    world.restart(1)
    assert any("2001:db8:ffff::135" in each for each in world.maars[1].log)
