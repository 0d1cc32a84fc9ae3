"""MAARs that register nodes by PBU (RFC 8885 section 3.1): the same visits and prefixes as by DHCPv6."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dhcp_cmd.core.model import EventType, Kind, State
from dhcp_cmd.core.replay import Held, replay
from dhcp_cmd.pmip.front import Late
from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    AccessTechnology,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    MobileNodeIdentifier,
    MobilityOption,
    ServingMaar,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import ALL_ZERO
from dmm_wire.timestamp import from_micros
from tests.cmd.core.registering import EUI48, MAC, REFRESH, Maars
from tests.cmd.core.world import Host, M, World, a_domain, a_maar, na, pd

STRANGER = parse_address("2001:db8:ffff::99")


@pytest.fixture
def world() -> World:
    return World(mode=SignallingMode.PROXY)


@pytest.fixture
def maars(world: World) -> Maars:
    return Maars(world)


def live(world: World) -> dict[Prefix, tuple[int, State]]:
    return {
        b.prefix: (b.anchor, b.state)
        for b in world.store.bindings.values()
        if b.state is not State.ENDED
    }


def owed(world: World) -> set[int]:
    return {maar for _, maar in world.store.tables.signals}


def unit(maar: int, number: int) -> Prefix:
    """A prefix out of the LINK pool of that MAAR."""
    return Prefix(parse_address(f"2001:db8:{maar:x}00:{number:x}::"), 64)


def test_a_first_registration_gets_a_prefix_of_the_maar(world: World, maars: Maars) -> None:
    answer = maars.register(1)
    assert answer.status == Status.ACCEPTED
    assert answer.previous == []
    (prefix,) = answer.local
    assert unit(1, 0).address[:6] == prefix.address[:6]
    assert prefix.length == 64
    assert answer.lifetime == 3600
    assert live(world) == {prefix: (1, State.ACTIVE)}
    assert world.events() == [("handover", "pbu"), ("assigned", "pbu")]
    assert owed(world) == set()
    (node,) = world.store.tables.nodes.values()
    assert node.serving == 1
    assert node.generation == answer.generation
    assert node.identities == (EUI48,)


def test_the_answer_echoes_what_it_has_to(world: World, maars: Maars) -> None:
    sent = maars.options()
    answer = maars.asked(1, maars.update(sent))
    assert answer is not None
    for option in sent:
        if not isinstance(option, HomeNetworkPrefix):
            assert option in answer.message.options


@pytest.mark.parametrize(
    ("subtype", "value"),
    [
        (IdentitySubtype.NAI, b"anna@example.org"),
        (IdentitySubtype.DUID, bytes.fromhex("00030001020000005301")),
        (IdentitySubtype.EUI48, MAC),
        (IdentitySubtype.EUI64, bytes.fromhex("0200000000005301")),
    ],
)
@pytest.mark.parametrize("link_layer", [None, MAC])
def test_a_node_is_known_by_any_identifier(
    world: World, maars: Maars, subtype: int, value: bytes, link_layer: bytes | None
) -> None:
    identity = Identity(subtype, value)
    first = maars.register(1, identity=identity, link_layer=link_layer)
    again = maars.register(
        1, *first.local, identity=identity, link_layer=link_layer, handoff=REFRESH, skew=0.1
    )
    assert (first.status, again.status) == (Status.ACCEPTED, Status.ACCEPTED)
    assert again.local == first.local
    assert again.generation == first.generation
    assert len(world.store.tables.nodes) == 1


def test_the_maar_may_choose_the_prefix(world: World, maars: Maars) -> None:
    assert maars.register(1, unit(1, 7)).local == [unit(1, 7)]
    assert live(world) == {unit(1, 7): (1, State.ACTIVE)}


def test_a_prefix_that_is_not_the_maars_or_not_free_is_refused(world: World, maars: Maars) -> None:
    maars.register(1, unit(1, 7))
    other = Identity(IdentitySubtype.NAI, b"other@example.org")
    before = world.store.tables.copy()
    for named in ([unit(2, 7)], [unit(1, 7)], [unit(1, 8), unit(1, 9)]):
        answer = maars.register(1, *named, identity=other, link_layer=None)
        assert answer.status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
        assert answer.local == named
    half = Prefix(unit(1, 7).address, 65)
    assert maars.register(1, half, identity=other, link_layer=None).status == 155
    assert world.store.tables == before


def test_another_set_than_the_sessions(world: World, maars: Maars) -> None:
    (local,) = maars.register(1).local
    free = next(u for u in (unit(1, 1), unit(1, 2)) if u != local)
    assert maars.register(1, local, free, skew=0.1).status == Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH
    assert maars.register(1, free, skew=0.1).status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    assert maars.register(1, local, skew=0.1).status == Status.ACCEPTED


def test_no_room(world: World, maars: Maars) -> None:
    pools = {
        m: tuple(p for p in ps if p.kind is not Kind.LINK) for m, ps in world.domain.pools.items()
    }
    world.change(pools=pools)
    answer = maars.register(1)
    assert answer.status == Status.INSUFFICIENT_RESOURCES
    assert world.store.tables.nodes == {}
    assert world.store.history == []


def without(options: list[MobilityOption], kind: type[MobilityOption]) -> list[MobilityOption]:
    return [each for each in options if not isinstance(each, kind)]


@pytest.mark.parametrize(
    ("missing", "status"),
    [
        (MobileNodeIdentifier, Status.MISSING_MN_IDENTIFIER_OPTION),
        (Timestamp, Status.TIMESTAMP_MISMATCH),
        (HomeNetworkPrefix, Status.MISSING_HOME_NETWORK_PREFIX_OPTION),
        (HandoffIndicator, Status.MISSING_HANDOFF_INDICATOR_OPTION),
        (AccessTechnology, Status.MISSING_ACCESS_TECH_TYPE_OPTION),
    ],
)
def test_each_mandatory_option(
    world: World, maars: Maars, missing: type[MobilityOption], status: Status
) -> None:
    answer = maars.asked(1, maars.update(without(maars.options(), missing)))
    assert answer is not None
    assert answer.status == status
    assert world.store.tables.nodes == {}
    # Section 5.3.6: what is mandatory in a PBA is there.
    kinds = [option.option_type for option in answer.message.options]
    assert {8, 22, 23, 24} <= set(kinds)
    assert (27 in kinds) == (missing is not Timestamp)


@pytest.mark.parametrize("missing", [HomeNetworkPrefix, HandoffIndicator, AccessTechnology])
def test_a_timestamp_is_looked_at_before_what_is_missing(
    world: World, maars: Maars, missing: type[MobilityOption]
) -> None:
    """RFC 5213 section 5.3.1, 9 and then 10 to 12."""
    wrong = maars.asked(1, maars.update(without(maars.options(skew=10.0), missing)))
    assert wrong is not None
    assert wrong.status == Status.TIMESTAMP_MISMATCH
    maars.register(1, skew=0.1)
    late = maars.asked(2, maars.update(without(maars.options(), missing)))
    assert late is not None
    assert late.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    before = world.store.tables.copy()
    assert maars.asked(2, maars.update(without(maars.options(skew=0.2), missing))) is not None
    assert world.store.tables == before


def test_who_may_not_register(world: World, maars: Maars) -> None:
    update = maars.update(maars.options())
    answer = maars.send(STRANGER, update)
    assert isinstance(answer, bytes)
    assert maars.read(STRANGER, answer, update).status == Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG

    def judged(update: BindingUpdate) -> int:
        answer = maars.asked(1, update)
        assert answer is not None
        return answer.status

    def status(*more: MobilityOption) -> int:
        return judged(maars.update([*maars.options(), *more]))

    assert judged(replace(update, proxy=False)) == Status.HOME_REGISTRATION_NOT_SUPPORTED
    assert judged(replace(update, dmm=False)) == Status.NOT_LMA_FOR_THIS_MOBILE_NODE
    where = world.domain.maars[1].endpoint
    assert status(ServingMaar(where)) == Status.NOT_LMA_FOR_THIS_MOBILE_NODE
    delegated = DelegatedPrefix(Prefix.parse("2001:db8:101::/60"))
    assert status(delegated) == Status.NOT_AUTHORIZED_FOR_DELEGATED_MNP
    by_address = Identity(IdentitySubtype.IPV6_ADDRESS, STRANGER)
    assert maars.register(1, identity=by_address).status == Status.NOT_LMA_FOR_THIS_MOBILE_NODE
    assert world.store.tables.nodes == {}


def test_who_flaps_is_denied(world: World, maars: Maars) -> None:
    """The conflict that can be had by PBU alone: nobody goes to and fro as fast as that."""
    where = 1
    for _ in range(8):
        world.later(1)
        moves = len(world.events("handover"))
        if maars.register(3 - where).status == Status.ADMINISTRATIVELY_PROHIBITED:
            break
        where = 3 - where
    else:
        raise AssertionError("it may go on for ever")
    assert len(world.events("handover")) == moves == world.cmd.settings.flap_limit + 2
    assert len(world.events("conflict")) == 1
    assert maars.register(where, skew=0.1).status == Status.ACCEPTED


def test_nobody_asked_for_an_answer(world: World, maars: Maars) -> None:
    assert maars.asked(1, replace(maars.update(maars.options()), acknowledge=False)) is None
    assert len(world.store.tables.nodes) == 1


def test_the_clock_of_a_maar_must_be_near(world: World, maars: Maars) -> None:
    for skew in (-0.31, 0.31, -1e6):
        answer = maars.register(1, skew=skew)
        assert answer.status == Status.TIMESTAMP_MISMATCH
        assert answer.clock == from_micros(world.now)
    assert maars.register(1, skew=-0.29).status == Status.ACCEPTED
    assert maars.register(1, skew=0.29).status == Status.ACCEPTED


def test_the_window_is_configurable() -> None:
    world = World(mode=SignallingMode.PROXY, timestamp_window=2000)
    assert Maars(world).register(1, skew=-1.9).status == Status.ACCEPTED


def test_an_older_message_is_refused(world: World, maars: Maars) -> None:
    first = maars.register(1, skew=0.05)
    late = maars.register(1, handoff=REFRESH)
    assert late.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    assert late.clock == from_micros(world.now)
    assert maars.register(2).status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    assert maars.register(2, skew=0.1).status == Status.ACCEPTED
    assert first.status == Status.ACCEPTED
    # Lower than the last one that was accepted, at whatever MAAR.
    assert maars.register(1, skew=0.08).status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_a_clock_that_was_set_back_shuts_nobody_out(world: World, maars: Maars) -> None:
    """The CMD's was an hour ahead, and those of the MAARs with it; then likewise at a visit by DHCPv6."""
    maars.register(1)
    world.later(-3600)
    assert maars.register(2).status == Status.ACCEPTED
    world.later(3600)
    world.attached(Host(1, mac=MAC), 3, na())
    world.later(-3599)
    assert maars.register(1).status == Status.ACCEPTED
    assert len(world.events("handover")) == 4


def test_the_same_message_twice_is_answered_twice(world: World, maars: Maars) -> None:
    update = maars.update(maars.options())
    first, again = maars.asked(1, update), maars.asked(1, update)
    assert first is not None
    assert again is not None
    assert first.message == again.message
    assert len(world.events("handover")) == 1


def test_a_move_by_pbu(world: World, maars: Maars) -> None:
    first = maars.register(1)
    second = maars.register(2, skew=0.2)
    assert second.previous == [(world.domain.maars[1].endpoint, first.local[0])]
    assert second.generation > first.generation
    assert live(world) == {
        first.local[0]: (1, State.DEPRECATED),
        second.local[0]: (2, State.ACTIVE),
    }
    assert owed(world) == {1}
    (signalling,) = second.told(dmm.Signalling)
    assert signalling == dmm.Signalling(SignallingMode.PROXY)
    ((previous),) = second.told(dmm.PreviousMaar)
    assert previous.valid == 3600
    assert previous.preferred == 0


def test_what_a_node_has_goes_on_where_there_is_nothing_to_be_had(
    world: World, maars: Maars
) -> None:
    first = maars.register(1)
    world.drain(2)
    assert maars.register(2, unit(2, 1), skew=0.1).status == 155
    second = maars.register(2, skew=0.2)
    assert second.status == Status.ACCEPTED
    assert second.all(HomeNetworkPrefix) == [ALL_ZERO]
    assert second.previous == [(world.domain.maars[1].endpoint, first.local[0])]
    assert live(world) == {first.local[0]: (1, State.DEPRECATED)}
    assert owed(world) == {1}
    again = maars.register(2, handoff=REFRESH, skew=0.25)
    assert again.previous == second.previous
    other = parse_address("2001:db8::1")[:6]
    assert (
        maars.register(2, identity=Identity(IdentitySubtype.EUI48, other), link_layer=None).status
        == 130
    )


def test_a_return_makes_the_prefix_local_again(world: World, maars: Maars) -> None:
    first = maars.register(1)
    second = maars.register(2, skew=0.1)
    world.later(60)
    third = maars.register(1)
    assert third.local == first.local
    assert third.previous == [(world.domain.maars[2].endpoint, second.local[0])]
    assert owed(world) == {2}


def test_a_refresh_of_a_visit_that_is_over_moves_nobody(world: World, maars: Maars) -> None:
    (local,) = maars.register(1).local
    maars.register(2, skew=0.1)
    world.later(60)
    assert maars.register(1, local, handoff=REFRESH).status == 157
    (node,) = world.store.tables.nodes.values()
    assert node.serving == 2


def test_a_refresh_extends_all_that_the_node_made_its_addresses_of(
    world: World, maars: Maars
) -> None:
    first = maars.register(1)
    second = maars.register(2, skew=0.1)
    world.store.tables.signals.clear()
    world.later(2000)
    again = maars.register(2, *second.local, handoff=REFRESH)
    assert [each.valid for each in again.told(dmm.PreviousMaar)] == [3600]
    assert [each.valid for each in again.told(dmm.AnchoredPrefix)] == [3600]
    assert owed(world) == {1}  # which learns that the lifetime has grown
    assert len(world.events("handover")) == 2
    assert first.local[0] in live(world)


def test_the_lifetime_is_that_of_what_ends_first(world: World, maars: Maars) -> None:
    world.cmd.settings = replace(world.settings, anchor_hold=100)
    maars.register(1)
    second = maars.register(2, skew=0.1)
    assert second.lifetime == 100
    assert [each.valid for each in second.told(dmm.AnchoredPrefix)] == [3600]
    assert maars.register(2, lifetime=60, handoff=REFRESH, skew=0.2).lifetime == 60
    world.later(101)
    assert world.cmd.reap(world.now, 100) == 1
    third = maars.register(2, handoff=REFRESH)
    assert (third.lifetime, third.previous) == (3600, [])


def test_only_the_serving_maar_ends_a_session(world: World, maars: Maars) -> None:
    maars.register(1)
    maars.register(2, skew=0.1)
    world.later(10)
    before = world.store.tables.copy()
    assert maars.leave(1) is None  # section 5.3.5, 1: ignored
    assert maars.leave(3) is None
    stranger = Identity(IdentitySubtype.NAI, b"nobody@example.org")
    assert maars.leave(2, stranger, None) is None
    assert world.store.tables == before


def test_a_session_ends_a_moment_after_its_deregistration(world: World, maars: Maars) -> None:
    first = maars.register(1)
    second = maars.register(2, skew=0.1)
    world.store.tables.signals.clear()
    world.later(10)
    answer = maars.leave(2)
    assert answer is not None
    assert (answer.status, answer.lifetime) == (Status.ACCEPTED, 0)
    assert owed(world) == set()  # nothing is told before it is sure
    world.later(9.9)
    world.cmd.reap(world.now, 100)
    assert set(live(world)) == {first.local[0], second.local[0]}
    world.later(0.2)
    world.cmd.reap(world.now, 100)
    assert live(world) == {}
    assert owed(world) == {1}
    assert ("expired", "deregistered") in world.events()


def test_what_had_ended_by_itself_is_told_at_the_deregistration(world: World, maars: Maars) -> None:
    world.attached(Host(1, mac=MAC), 1, na(), pd())
    world.later(1800)
    maars.register(2)
    world.later(60)
    maars.register(3)
    world.store.tables.signals.clear()
    world.later(1800)  # what MAAR 1 anchors is over, and nobody has reaped
    assert maars.leave(3) is not None
    assert owed(world) == {1}
    world.store.tables.signals.clear()
    world.later(5)
    assert maars.leave(3) is not None
    assert owed(world) == set()


@pytest.mark.parametrize("maar", [1, 2, 3])
def test_a_node_that_comes_back_in_time_keeps_everything(
    world: World, maars: Maars, maar: int
) -> None:
    first = maars.register(1)
    second = maars.register(2, skew=0.1)
    world.later(10)
    maars.leave(2)
    world.later(5)
    back = maars.register(maar)
    held = {*first.local, *second.local, *back.local}
    assert {*back.local, *(prefix for _, prefix in back.previous)} == held
    world.later(60)
    assert world.cmd.reap(world.now, 100) == 0
    assert set(live(world)) == held
    assert all(
        (b.hold_until is None) == (b.state is State.ACTIVE) for b in world.store.bindings.values()
    )


@pytest.mark.parametrize("maar", [1, 2, 3])
def test_so_does_one_that_had_nothing_where_it_was(world: World, maars: Maars, maar: int) -> None:
    """MAAR 2 drains: the node has what MAAR 1 anchors, and nothing that is active."""
    first = maars.register(1)
    world.drain(2)
    maars.register(2, skew=0.1)
    assert set(live(world)) == set(first.local)
    world.later(10)
    maars.leave(2)
    world.later(5)
    back = maars.register(maar)
    held = {*first.local, *back.local}
    assert {*(p for p in back.local if any(p.address)), *(p for _, p in back.previous)} == {
        p for p in held if any(p.address)
    }
    world.later(60)
    world.cmd.reap(world.now, 100)
    assert set(first.local) <= set(live(world))
    # It is no older for it, and what it does next is no return.
    held_until = {b.hold_until for b in world.store.bindings.values()}
    world.later(60)
    maars.register(maar, handoff=5)
    assert {b.hold_until for b in world.store.bindings.values()} == held_until


def test_a_late_deregistration_ends_nothing(world: World, maars: Maars) -> None:
    maars.register(1, skew=0.1)
    late = maars.asked(1, maars.update(maars.options(), 0))
    assert late is not None
    assert late.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
    world.later(60)
    assert world.cmd.reap(world.now, 100) == 0


def test_a_serving_maar_that_died_leaves_nothing_for_ever(world: World, maars: Maars) -> None:
    maars.register(1)
    maars.register(2, skew=0.1)
    world.later(3601)
    world.cmd.reap(world.now, 100)
    assert live(world) == {}


# --- by DHCPv6 here, by PBU there ---


def test_one_node_by_its_link_layer_address(world: World, maars: Maars) -> None:
    host = Host(1, mac=MAC)
    dhcp = world.attached(host, 1, na(), pd())
    answer = maars.register(2, skew=0.1)
    assert len(world.store.tables.nodes) == 1
    anchored = {b.prefix for b in world.rows(host, anchor=1) if b.kind is not Kind.ADDRESS}
    assert {prefix for _, prefix in answer.previous} == anchored
    assert len(anchored) == 2
    delegated = {each.prefix for each in answer.told(dmm.PreviousMaar) if each.delegated}
    assert delegated == set(dhcp.pd[1])
    assert [each.prefix for each in answer.told(dmm.AnchoredPrefix)] == answer.local
    assert [str(each.identity) for each in answer.told(dmm.MobileNode)] == [str(host.identity)]


def test_what_was_registered_is_served_where_the_node_comes_by_dhcp(
    world: World, maars: Maars
) -> None:
    (prefix,) = maars.register(1).local
    host = Host(1, mac=MAC)
    world.later(1)
    decision = world.ask(host, 2, M.REQUEST, na())
    previous = [each for each in decision.relay if isinstance(each, dmm.PreviousMaar)]
    assert [each.prefix for each in previous] == [prefix]
    assert len(world.store.tables.nodes) == 1
    assert owed(world) == {1}


def test_a_pbu_from_before_a_visit_by_dhcp_is_late(world: World, maars: Maars) -> None:
    maars.register(1)
    world.later(1)
    world.attached(Host(1, mac=MAC), 2)
    late = maars.register(1, skew=-0.1)
    assert late.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_a_pbu_from_before_this_very_visit_by_dhcp_is_not(world: World, maars: Maars) -> None:
    """A MAAR may register a node and relay its DHCPv6 messages: which of the two is heard first says nothing."""
    world.attached(Host(1, mac=MAC), 1)
    assert maars.register(1, skew=-0.1).status == Status.ACCEPTED
    # Who says that it is gone has to be later than what shows that it is there.
    world.later(1)
    world.attached(Host(1, mac=MAC), 1, na())
    world.later(1)
    world.attached(Host(1, mac=MAC), 2)
    gone = maars.register(2, skew=-0.1, lifetime=0)
    assert gone.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_the_tables_end_equal_whichever_way_a_node_comes() -> None:
    """A walk over the MAARs, each step by DHCPv6 or by PBU: the visits and LINK prefixes are the same."""

    def walked(by_pbu: set[int]) -> list[tuple[object, ...]]:
        world = World(mode=SignallingMode.PROXY)
        maars, host = Maars(world), Host(1, mac=MAC)
        for step, maar in enumerate((1, 2, 3, 1)):
            world.later(60)
            if step in by_pbu:
                assert maars.register(maar, identity=host.identity).status == Status.ACCEPTED
            else:
                world.attached(host, maar, na())
        node = world.node(host)
        rows: list[tuple[object, ...]] = [
            (b.prefix, b.anchor, b.state, b.hold_until)
            for b in sorted(world.rows(host))
            if b.kind is Kind.LINK
        ]
        assert replay(world.store.history) == {
            key: Held.of(b) for key, b in world.store.bindings.items()
        }
        visits = [
            (e.at, e.from_maar, e.to_maar, e.generation)
            for e in world.store.history
            if e.type is EventType.HANDOVER
        ]
        return [(node.serving, node.previous, node.generation), *visits, *rows, tuple(owed(world))]

    wholly = walked({0, 1, 2, 3})
    assert walked(set()) == wholly
    assert walked({0, 2}) == wholly
    assert walked({1, 3}) == wholly


# --- relay, locator ---


def test_in_mode_locator_only_what_has_acknowledged_is_named() -> None:
    world = World(mode=SignallingMode.LOCATOR)
    maars = Maars(world)
    first = maars.register(1)
    second = maars.register(2, skew=0.1)
    assert second.previous == []
    assert second.told(dmm.Signalling) == [dmm.Signalling(SignallingMode.LOCATOR)]
    assert second.awaited == [(world.domain.maars[1].endpoint, first.local[0])]
    world.store.tables.signals.clear()
    again = maars.register(2, *second.local, handoff=REFRESH, skew=0.2)
    assert [prefix for _, prefix in again.previous] == first.local
    assert again.awaited == []


@pytest.mark.parametrize("anchors", [1, 2, 8])
def test_in_mode_relay_the_answer_waits(anchors: int) -> None:
    world = World(
        a_domain([a_maar(number) for number in range(1, anchors + 2)]), mode=SignallingMode.RELAY
    )
    maars = Maars(world)
    for number in range(1, anchors + 1):
        answer = maars.send(world.domain.maars[number].endpoint, maars.update(maars.options()))
        assert isinstance(answer, Late if number > 1 else bytes)
        world.store.tables.signals.clear()
        world.later(60)
    prefixes = list(live(world))
    last = world.domain.maars[anchors + 1]
    update = maars.update(maars.options())
    answer = maars.send(last.endpoint, update)
    assert isinstance(answer, Late)
    waiting = [endpoint for _, endpoint in answer.hold.anchors]
    assert sorted(waiting) == [world.domain.maars[n].endpoint for n in range(1, anchors + 1)]
    whole, none = answer.answer([]), answer.answer(waiting)
    assert whole is not None
    assert none is not None
    pba = maars.read(last.endpoint, whole, update)
    assert [prefix for _, prefix in pba.previous] == sorted(prefixes)
    assert pba.told(dmm.Signalling) == [dmm.Signalling(SignallingMode.RELAY)]
    assert pba.awaited == []
    bare = maars.read(last.endpoint, none, update)
    assert bare.previous == []
    assert len(bare.local) == 1
    assert sorted(bare.awaited) == sorted(pba.previous)
