"""What was said before is of no use to anybody, in any mode, after any restart; and PBAs that answer none."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import (
    BindingUpdate,
    Key,
    KeyStore,
    MessageAuthentication,
    ReplayProtection,
    decode,
)
from dmm_wire.mobility.authentication import locate
from dmm_wire.mobility.security import Security
from tests.maar.core.modes_world import CMD, Loses, ModesWorld
from tests.maar.core.pmip_world import PmipWorld
from tests.maar.core.secure_world import (
    KEY,
    LOCATOR,
    MODES,
    NEW,
    NUMBERS,
    PROXY,
    Make,
    again,
    counters,
    hear,
    mobility,
    refused,
    registering,
    restart_cmd,
    secure,
    state,
    statuses,
    walk,
)
from tests.maar.core.world import Packet, endpoint, fix_checksum


@pytest.fixture(params=[ModesWorld, PmipWorld], ids=["dhcp", "pmip"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a world by DHCPv6, or by PMIPv6 alone."""
    return partial(secure, request.param)


# --- replays ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("restarted", [(), (0,), (1, 2, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("later", [0.0, 3.0, 600.0])
def test_what_was_captured_is_of_no_use(
    make: Make, mode: SignallingMode, restarted: tuple[int, ...], later: float
) -> None:
    world = make(mode)
    walk(world, 1, 2, 3, pause=1.0)
    captured = mobility(world)
    world.attach(1)
    world.go_on(later)
    world.check()
    for number in restarted:
        if number:
            world.restart(number)
        else:
            restart_cmd(world)
    world.settle()
    before = state(world)
    again(world, captured)
    assert state(world) == before
    counted = sum(sum(counts.values()) for counts in refused(world).values())
    assert counted >= len(captured)
    walk(world, 2)
    world.check()


@pytest.mark.parametrize("back", [0.0, 5.0, 3600.0, 1e8])
def test_a_registration_is_refused_after_a_restart_with_another_time_of_day(back: float) -> None:
    world = registering()
    walk(world, 1, 2, pause=1.0)
    captured = [packet for packet in mobility(world) if packet.destination == CMD]
    world.ahead = -back
    restart_cmd(world)
    before = state(world)
    again(world, captured)
    assert state(world) == before
    reasons = {name for name in refused(world)[0] if "answered" not in name}
    assert reasons <= {"auth-stale", "auth-repeated", "auth-unmatched"}
    walk(world, 1)
    world.check()


def test_without_its_mark_a_clock_that_was_set_back_would_let_it_in() -> None:
    """What the mark in the database is for."""
    world = registering()
    walk(world, 1, pause=1.0)
    (captured,) = [
        packet
        for packet in mobility(world)
        if packet.destination == CMD
        and isinstance(decode(packet.data, packet.source, CMD), BindingUpdate)
    ]
    world.marks.marks.clear()
    world.ahead = -5.0
    restart_cmd(world)
    hear(world, captured)
    assert refused(world) == {}
    assert world.marks.marks.keys() == {endpoint(1)}


def test_a_message_turned_around_or_sent_on_is_refused(make: Make) -> None:
    world = make(LOCATOR)
    walk(world, 1, 2)
    before = state(world)
    for packet in mobility(world):
        again(world, [Packet("mobility", packet.destination, packet.source, packet.data)])
        others = {CMD, *map(endpoint, NUMBERS)} - {packet.source, packet.destination}
        again(world, [Packet("mobility", packet.source, each, packet.data) for each in others])
    assert state(world) == before


def test_a_replay_is_refused_after_a_change_of_keys(make: Make) -> None:
    world = make(PROXY)
    walk(world, 1, 2, 3)
    captured = mobility(world)
    for require in (False, True):
        world.signaller.change(Security(KeyStore([NEW, KEY]), require=require, tolerance=3600.0))
        before = state(world)
        again(world, captured)
        assert state(world) == before
    assert refused(world)[0].keys() <= {"auth-repeated", "auth-stale", "auth-unmatched"} | {
        "auth-answered-144"
    }


# --- copies: what an anchor tells the S-MAAR, which asked it nothing (mode locator, RFC 8885 section 3.3) ---


PAIRS = [frozenset(pair) for pair in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))]
"""Who speaks with whom; 0 is the CMD."""


def key_of(pair: frozenset[int]) -> Key:
    number = 1000 + PAIRS.index(pair)
    return Key(number, number.to_bytes(4, "big") * 4)


def paired(number: int, *others: int, **changes: Any) -> Security:
    """One key with each of these others."""
    peers = {CMD if n == 0 else endpoint(n): [key_of(frozenset((number, n)))] for n in others}
    return Security(KeyStore(peers=peers), **{"require": True, **changes})


def domain(make: Make, loses: Loses | None = None, **own: Security) -> ModesWorld:
    """A key for each pair, unless said otherwise of a MAAR: mode locator, the node at MAAR 1."""
    every = (0, *NUMBERS)
    mine = {n: {"security": paired(n, *(set(every) - {n}))} for n in NUMBERS}
    mine |= {int(name[-1]): {"security": security} for name, security in own.items()}
    world = make(LOCATOR, loses, own=mine, security=paired(0, *NUMBERS))
    walk(world, 1)
    return world


def copies(world: ModesWorld) -> list[Packet]:
    return [p for p in mobility(world) if (p.source, p.destination) == (endpoint(1), endpoint(2))]


def test_a_copy_signed_by_the_key_of_the_two_is_believed_and_has_a_time_of_its_own(
    make: Make,
) -> None:
    world = domain(make)
    walk(world, 2)
    world.check()
    (copy,) = copies(world)
    (original,) = [p for p in mobility(world) if (p.source, p.destination) == (endpoint(1), CMD)][
        -1:
    ]
    stamps = [
        option.value
        for packet in (copy, original)
        for option in decode(packet.data, packet.source, packet.destination).options
        if isinstance(option, ReplayProtection)
    ]
    assert len(set(stamps)) == 2
    seal = locate(copy.data)
    assert seal is not None
    assert seal.spi == key_of(frozenset((1, 2))).spi
    assert counters(world, 2)["pba.unsolicited"] == 1
    assert refused(world) == {}


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (paired(1, 0), "auth.unsigned"),
        (Security(KeyStore([Key(1003, b"w" * 16)], {CMD: [key_of(PAIRS[0])]})), "auth.forged"),
        (Security(KeyStore([key_of(PAIRS[0])])), "auth.spi"),
    ],
    ids=["without a key", "with another secret", "with its key of the CMD"],
)
def test_any_other_copy_is_refused(make: Make, theirs: Security, reason: str) -> None:
    world = domain(make, maar1=theirs)
    world.attach(2)
    world.settle()
    assert len(copies(world)) == 1
    assert refused(world) == {2: {reason: 1}}
    assert "pba.unsolicited" not in counters(world, 2)
    # The way is not open by it; the CMD, which the anchor has told the same, is asked and believed.
    assert "served" not in world.roles(2).values()
    world.go_on(60.0)
    world.check()


def test_where_nothing_is_required_one_without_a_key_is_heard(make: Make) -> None:
    world = domain(make, maar1=paired(1, 0), maar2=paired(2, 0, 1, 3, require=False))
    walk(world, 2, pause=0.0)
    assert counters(world, 2)["pba.unsolicited"] == 1
    assert refused(world) == {}


@pytest.mark.parametrize("later", [0.0, 3.0, 600.0])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_copy_counts_once(make: Make, later: float, restarted: bool) -> None:
    world = domain(make)
    walk(world, 2, pause=0.0)
    (copy,) = copies(world)
    walk(world, 3, pause=0.0)
    walk(world, 2, pause=later)
    if restarted:
        world.restart(2)
        world.settle()
    before, heard = state(world), counters(world, 2).get("pba.unsolicited", 0)
    again(world, [copy])
    assert state(world) == before
    assert counters(world, 2)["auth.unmatched"] == 2
    assert counters(world, 2).get("pba.unsolicited", 0) == heard


def test_one_that_was_lost_and_comes_before_all_others_counts_once(make: Make) -> None:
    """Nothing of that peer was accepted before: the window is what the start has made it."""
    world = domain(make, lambda what, before: what.startswith("maar1 > maar2"))
    world.attach(2)
    world.settle()
    assert "served" not in world.roles(2).values()
    hear(world, *copies(world))
    assert "served" in world.roles(2).values()
    before = state(world)
    again(world, copies(world))
    assert state(world) == before
    assert refused(world) == {2: {"auth.unmatched": 2}}


def test_a_copy_is_for_one_maar(make: Make) -> None:
    world = domain(make)
    walk(world, 2)
    (copy,) = copies(world)
    before = state(world)
    for wrong in (endpoint(3), CMD):
        data = fix_checksum(copy.data, copy.source, wrong)
        hear(world, Packet("mobility", copy.source, wrong, data))
    data = fix_checksum(copy.data, endpoint(3), endpoint(2))
    hear(world, Packet("mobility", endpoint(3), endpoint(2), data))
    assert refused(world) == {0: {"auth-spi": 1}, 2: {"auth.spi": 1}, 3: {"auth.spi": 1}}
    assert state(world) == before


# --- the mark ---


def test_a_mark_is_durable_before_anybody_acts_on_the_message() -> None:
    world = registering()
    world.marks.failing = True
    world.attach(1)
    world.go_on(0.5)
    assert world.store.tables.nodes == {}
    assert statuses(world) == []
    assert world.signaller.outcomes["auth-store-error"] == 1
    world.marks.failing = False
    world.go_on(5.0)  # the MAAR asks again
    world.check()
    assert world.marks.marks.keys() == {endpoint(1)}


def test_what_overtakes_a_message_whose_mark_was_not_written_has_to_wait_for_it() -> None:
    world = registering()
    guard = world.maars[1].agent._guard
    early, late = (guard.outgoing(CMD, BindingUpdate(n, 1200), world.now) for n in (1, 2))
    world.marks.failing = True
    heard, _ = world.authenticated.incoming([(endpoint(1), late)])
    assert heard == []
    # It is earlier, so it raises no mark of its own.
    heard, _ = world.authenticated.incoming([(endpoint(1), early)])
    assert heard == []
    world.marks.failing = False
    third = guard.outgoing(CMD, BindingUpdate(3, 1200), world.now)
    heard, _ = world.authenticated.incoming([(endpoint(1), third)])
    assert [each.source for each in heard] == [endpoint(1)]


def test_one_write_serves_for_a_while() -> None:
    world = registering()
    guard = world.maars[1].agent._guard
    for number in range(50):
        world.now += 0.01
        octets = guard.outgoing(CMD, BindingUpdate(number, 1200), world.now)
        heard, _ = world.authenticated.incoming([(endpoint(1), octets)])
        assert len(heard) == 1
        assert not any(isinstance(o, MessageAuthentication) for o in heard[0].message.options)
    assert world.marks.writes == 1
    world.now += 1.0
    octets = guard.outgoing(CMD, BindingUpdate(100, 1200), world.now)
    assert len(world.authenticated.incoming([(endpoint(1), octets)])[0]) == 1
    assert world.marks.writes == 2
