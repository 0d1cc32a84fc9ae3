"""PBUs on their way: what they say, when they are sent again, and which PBA ends them (RFC 5213 section 6.9.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmm_wire import dmm
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.identity import Identity
from dmm_wire.mobility import (
    LIFETIME_INFINITY,
    AccessTechnology,
    BindingAcknowledgement,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    PreviousMaarOption,
    ServingMaar,
    Status,
    Timestamp,
    encode,
)
from relay_maar.core import actions as act
from relay_maar.core.items import Put, SourceRule, Tunnel
from tests.maar.core.test_relay import agent, visit_reply
from tests.maar.core.world import (
    MAC,
    NODE_ID,
    SERVER,
    World,
    delegated_prefix,
    endpoint,
    link_prefix,
)


@pytest.fixture
def world() -> World:
    """The node has moved from MAAR 1 to MAAR 2, whose PBU is lost."""
    world = World()
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    world.wire.clear()
    return world


def sent(world: World, number: int = 2) -> list[BindingUpdate]:
    """What this MAAR sent as PBUs, and forget it."""
    maar = world.maars[number]
    updates = [each.message for each in maar.said if isinstance(each.message, BindingUpdate)]
    maar.said.clear()
    return updates


def answer(world: World, status: int, sequence: int, source: int = 1, lifetime: int = 7200) -> None:
    """A PBA for MAAR 2."""
    message = BindingAcknowledgement(status, sequence, lifetime, (MobileNodeIdentifier(NODE_ID),))
    data = encode(message, endpoint(source), endpoint(2))
    maar = world.maars[2]
    world.run(maar, maar.agent.mobility_datagram(endpoint(source), data, world.now))


def counters(world: World, number: int = 2) -> dict[str, int]:
    found = world.maars[number].agent.status(world.now)["counters"]
    assert isinstance(found, dict)
    return found


def test_what_a_pbu_says(world: World) -> None:
    (update,) = sent(world)
    assert (update.sequence, update.lifetime) == (1, 7200)
    assert (update.acknowledge, update.proxy, update.dmm) == (True, True, True)
    assert update.options == (
        MobileNodeIdentifier(NODE_ID),
        HomeNetworkPrefix(link_prefix(1)),
        DelegatedPrefix(delegated_prefix(1)),
        HandoffIndicator(3),
        AccessTechnology(4),
        LinkLayerIdentifier(MAC),
        Timestamp(2),
        ServingMaar(endpoint(2)),
    )


def test_the_maar_just_left_hears_what_else_is_served() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    # MAAR 2's own prefixes have ended when the node moves on: it anchors nothing and is told none the less.
    world.cmd.prefixes = {p: e for p, e in world.cmd.prefixes.items() if e[0] == 1}
    world.place = 3
    world.talk(MessageType.SOLICIT)
    said = {each.destination: each.message for each in world.maars[3].said}
    assert set(said) == {endpoint(1), endpoint(2)}
    update = said[endpoint(2)]
    assert isinstance(update, BindingUpdate)
    assert update.lifetime == 4
    assert update.options == (
        MobileNodeIdentifier(NODE_ID),
        HandoffIndicator(3),
        AccessTechnology(4),
        LinkLayerIdentifier(MAC),
        Timestamp(3),
        PreviousMaarOption(endpoint(1), link_prefix(1)),
        PreviousMaarOption(endpoint(1), delegated_prefix(1)),
        ServingMaar(endpoint(3)),
    )


def test_retransmission_doubles_to_32_seconds_and_goes_on(world: World) -> None:
    start = world.now
    sent(world)
    moments = []
    last = 1
    while world.now < start + 200:
        world.pass_time(0.5)
        for update in sent(world):
            moments.append(world.now - start)
            # Each transmission has a greater number and says how much lifetime is left then.
            assert update.sequence == last + 1
            assert update.lifetime <= 7200 - (world.now - start) + 1
            last = update.sequence
    expected = [1, 3, 7, 15, 31, 63, 95, 127, 159, 191]
    assert [pytest.approx(each, abs=0.6) for each in expected] == moments


def test_it_ends_with_the_lifetime() -> None:
    world = World(valid=100)
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    world.wire.clear()
    world.place = None
    world.pass_time(2000)
    assert counters(world)["pbu.abandoned"] == 1
    assert world.maars[2].agent.status(world.now)["sessions"] == []


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_a_late_acknowledgement_of_an_earlier_transmission_counts(
    world: World, sequence: int
) -> None:
    world.pass_time(3.5)
    assert [update.sequence for update in sent(world)] == [1, 2, 3]
    answer(world, Status.ACCEPTED, sequence)
    world.pass_time(100)
    assert sent(world) == []
    assert counters(world)["pba.accepted"] == 1


@pytest.mark.parametrize(("sequence", "source"), [(2, 1), (0, 1), (1, 3)])
def test_an_acknowledgement_of_nothing_is_ignored(world: World, sequence: int, source: int) -> None:
    answer(world, Status.ACCEPTED, sequence, source)
    assert counters(world)["pba.unmatched"] == 1
    sent(world)
    world.pass_time(1.5)
    assert len(sent(world)) == 1


def test_an_acknowledgement_for_another_node_is_ignored(world: World) -> None:
    other = MobileNodeIdentifier(Identity(8, bytes(10)))
    data = encode(BindingAcknowledgement(0, 1, 7200, (other,)), endpoint(1), endpoint(2))
    world.maars[2].agent.mobility_datagram(endpoint(1), data, world.now)
    assert counters(world)["pba.unmatched"] == 1


@pytest.mark.parametrize("status", [128, 130, 154, 156])
def test_what_may_pass_is_tried_again(world: World, status: int) -> None:
    answer(world, status, 1)
    sent(world)
    world.pass_time(1.5)
    assert len(sent(world)) == 1
    assert counters(world)[f"pba.refused-{status}"] == 1


@pytest.mark.parametrize("status", [152, 153, 157])
def test_what_will_not_change_is_not(world: World, status: int) -> None:
    answer(world, status, 1)
    sent(world)
    world.pass_time(100)
    assert sent(world) == []


def test_an_anchor_that_refuses_is_reported_to_the_cmd_until_it_answers(world: World) -> None:
    world.cmd_up = False
    answer(world, Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, 1)
    world.settle()
    assert world.cmd.reports == []
    world.cmd_up = True
    world.pass_time(3.0)
    world.settle()
    assert set(world.cmd.reports) == {
        dmm.AnchorFailed(link_prefix(1), endpoint(1)),
        dmm.AnchorFailed(delegated_prefix(1), endpoint(1)),
    }
    # Its answer has the prefixes that are left.
    assert set(world.roles(2)) == {link_prefix(2), delegated_prefix(2)}
    reports = len(world.cmd.reports)
    world.pass_time(50.0)
    world.settle()
    assert len(world.cmd.reports) == reports


def test_the_messages_of_one_exchange_make_one_pbu(world: World) -> None:
    for kind in (MessageType.REQUEST, MessageType.RENEW, MessageType.SOLICIT):
        world.now += 0.3
        world.talk(kind)
    assert len(sent(world)) == 1


def test_a_renewal_is_told_as_a_refresh() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    sent(world)
    world.now += 1800
    world.talk(MessageType.RENEW)
    (update,) = sent(world)
    assert HandoffIndicator(5) in update.options
    assert Timestamp(2) in update.options
    world.settle()
    assert sent(world) == []
    world.check_reached()


def test_the_maar_just_left_is_told_as_long_as_it_may_hold_something() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    # MAAR 2's own prefixes have ended. MAAR 3 tells it that the node has left, and it hears nothing.
    world.cmd.prefixes = {p: e for p, e in world.cmd.prefixes.items() if e[0] == 1}
    world.place = 3
    world.talk(MessageType.SOLICIT)
    # MAAR 1 acknowledges that its own have ended too: all that the node has left lives shortly.
    world.cmd.prefixes = {link_prefix(3): (3, False, world.now + 100.0)}
    world.talk(MessageType.SOLICIT)
    while packets := [each for each in world.wire if each.destination != endpoint(2)]:
        world.wire.remove(packets[0])
        world.deliver(packets[0])
    assert set(world.roles(3)) == {link_prefix(3)}
    world.place = None
    world.pass_time(1000.0)
    world.wire.clear()
    world.pass_time(100.0)
    assert [p for p in world.wire if p.source == endpoint(3) and p.destination == endpoint(2)]
    world.settle()
    assert set(world.roles(2).values()) <= {"ended"}


def test_an_infinite_lifetime_that_stays_is_no_news() -> None:
    world = World(valid=0xFFFFFFFF)
    for number in (1, 2):
        world.attach(number)
    sent(world)
    world.now += 1800
    world.talk(MessageType.RENEW)
    assert sent(world) == []
    # But a finite one is.
    world.cmd.valid = 600
    world.talk(MessageType.RENEW)
    (update,) = sent(world)
    assert update.lifetime == 600


def test_a_shorter_grant_is_extended_before_it_ends(world: World) -> None:
    answer(world, Status.ACCEPTED, 1, lifetime=100)
    sent(world)
    world.pass_time(74.0)
    assert sent(world) == []
    world.pass_time(2.0)
    (update,) = sent(world)
    assert HandoffIndicator(5) in update.options


@pytest.mark.parametrize(
    ("valid", "lifetime"),
    [(0xFFFFFFFF, LIFETIME_INFINITY), (400_000, LIFETIME_INFINITY - 4), (2, 4), (10, 10)],
)
def test_lifetimes_in_units_and_bounds(valid: int, lifetime: int) -> None:
    maar = agent()
    remote = dmm.PreviousMaar(link_prefix(2), 0, valid, False, endpoint(2))
    actions = maar.server_datagram(SERVER, visit_reply(5, remote), 0.5)
    (apply,) = [each for each in actions if isinstance(each, act.Apply)]
    said = maar.applied(apply.token, {}, 0.5)
    (update,) = [each.message for each in said if isinstance(each, act.SendMobility)]
    assert isinstance(update, BindingUpdate)
    assert update.lifetime == lifetime


def test_no_second_sees_more_than_max_update_rate(world: World) -> None:
    sent(world)
    before = world.now
    moments = []
    # The set changes with each message: each time there is something new to say.
    for number in range(12):
        entry = world.cmd.prefixes.pop(link_prefix(1), None)
        if entry is None:
            world.cmd.prefixes[link_prefix(1)] = (1, False, 1e9)
        world.talk(MessageType.SOLICIT)
        world.wire.clear()
        world.pass_time(0.1)
        moments += [round(world.now - before, 1)] * len(sent(world))
        assert number < 100
    assert moments
    for moment in moments:
        assert len([each for each in moments if moment <= each < moment + 1.0]) <= 3


def test_the_receiving_side_is_there_before_the_pbu() -> None:
    world = World(slow_kernel=True)
    world.attach(1)
    world.place = 2
    world.say(MessageType.REQUEST)
    for packet in list(world.wire):
        world.wire.remove(packet)
        world.deliver(packet)
    world.deliver(world.wire.pop(0))
    assert sent(world) == []
    (apply,) = world.maars[2].applies
    items = [change.item for change in apply.changes if isinstance(change, Put)]
    assert items.index(Tunnel(endpoint(1))) < items.index(SourceRule(link_prefix(1), endpoint(1)))
    world.run_kernel(2)
    assert len(sent(world)) == 1


def test_sequence_numbers_wrap(world: World) -> None:
    # 65535 is followed by 0 (RFC 6275 section 6.1.7: modulo 2**16).
    signalling = world.maars[2].agent._cache._signalling
    signalling._sequence[endpoint(1)] = 0xFFFF
    sent(world)
    world.pass_time(1.5)
    (update,) = sent(world)
    assert update.sequence == 0
    answer(world, Status.ACCEPTED, 0)
    assert counters(world)["pba.accepted"] == 1


def test_an_acknowledgement_without_the_p_flag_is_none(world: World) -> None:
    message = replace(BindingAcknowledgement(0, 1, 7200), proxy=False)
    data = encode(message, endpoint(1), endpoint(2))
    world.maars[2].agent.mobility_datagram(endpoint(1), data, world.now)
    assert counters(world)["pba.unmatched"] == 1
