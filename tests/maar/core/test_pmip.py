"""MAARs that speak only PMIPv6 (RFC 8885 sections 3.1 to 3.5), with the real CMD's core: ladders and outcomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dhcp_cmd.core.model import Kind, MaarState, State
from dmm_wire.address import format_address, parse_address
from dmm_wire.dmm import DEFAULT_ENTERPRISE, SignallingMode
from dmm_wire.mobility import BindingUpdate, decode
from dmm_wire.mobility.registration import has_forgotten
from relay_maar.core.items import Route
from tests.maar.core.modes_world import CMD
from tests.maar.core.pmip_world import NAME, PmipWorld, walked
from tests.maar.core.world import ACCESS, MAC, endpoint

PROXY, LOCATOR, RELAY = SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY
MODES = [PROXY, LOCATOR, RELAY]


def said(world: PmipWorld) -> list[str]:
    """What was said since the mark, without when."""
    return [line[9:].rstrip() for line in world.record]


def states(world: PmipWorld) -> list[State]:
    return sorted(b.state for b in world.store.bindings.values())


# --- ladders ---


@pytest.mark.parametrize("mode", MODES)
def test_a_first_registration(mode: SignallingMode) -> None:
    """Figure 1; it is the same in every mode."""
    world = PmipWorld(mode, 2)
    world.mark()
    walked(world, 1)
    assert said(world) == [
        "maar1 > cmd    PBU: attached",
        "  cmd > maar1  PBA: status 0, 1 prefixes",
    ]
    world.check()
    advertisement = world.advertised(1)
    (prefix,) = world.roles(1)
    assert advertisement[5] == 0  # neither M nor O
    option = advertisement[advertisement.index(prefix.address) - 16 :]
    assert option[:4] == bytes((3, 4, 64, 0x40))  # A
    assert option[4:12] == (3600).to_bytes(4, "big") * 2


def test_figure_4_proxy() -> None:
    world = walked(PmipWorld(PROXY, 3), 1)
    world.mark()
    walked(world, 2)
    assert said(world) == [
        "maar2 > cmd    PBU: attached",
        "  cmd > maar2  PBA: status 0, 1 prefixes, of maar1",
        "  cmd > maar1  PBU: at maar2, 1 prefixes",
        "maar1 > cmd    PBA: status 0, 1 prefixes",
    ]
    world.check()


def test_figure_3_locator() -> None:
    world = walked(PmipWorld(LOCATOR, 3), 1)
    world.mark()
    walked(world, 2)
    assert said(world)[:5] == [
        "maar2 > cmd    PBU: attached",
        "  cmd > maar2  PBA: status 0, 1 prefixes",
        "  cmd > maar1  PBU: at maar2, 1 prefixes",
        "maar1 > cmd    PBA: status 0, 1 prefixes",
        "maar1 > maar2  PBA: status 0, 1 prefixes",
    ]
    world.check()


def test_figure_2_relay() -> None:
    world = walked(PmipWorld(RELAY, 3), 1)
    world.mark()
    walked(world, 2)
    assert said(world) == [
        "maar2 > cmd    PBU: attached",
        "  cmd > maar1  PBU: at maar2, 1 prefixes",
        "maar1 > cmd    PBA: status 0, 1 prefixes",
        "  cmd > maar2  PBA: status 0, 1 prefixes, of maar1",
    ]
    world.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("anchors", [1, 2, 8])
def test_several_anchors(mode: SignallingMode, anchors: int) -> None:
    world = walked(PmipWorld(mode, anchors + 1), *range(1, anchors + 1))
    world.mark()
    walked(world, anchors + 1)
    told = said(world)
    for number in range(1, anchors + 1):
        assert sum(f"cmd > maar{number}  PBU" in line for line in told) == 1
        assert sum(f"maar{number} > cmd    PBA" in line for line in told) == 1
        copies = sum(f"maar{number} > maar{anchors + 1}  PBA" in line for line in told)
        assert copies == (mode is LOCATOR)
    assert states(world) == [State.ACTIVE] + [State.DEPRECATED] * anchors
    world.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fed", [(1,), (2,), (1, 3), (2, 4)])
def test_both_kinds_of_maars(mode: SignallingMode, fed: tuple[int, ...]) -> None:
    world = PmipWorld(mode, 4, fed=fed)
    for number in (1, 2, 3, 4, 1, 3):
        walked(world, number)
        world.check()
        assert len(world.store.tables.nodes) == 1


# --- with DHCPv6 besides ---


def kinds(world: PmipWorld) -> dict[int, set[Kind]]:
    """What the node has, by anchor."""
    live = [b for b in world.store.bindings.values() if b.state is not State.ENDED]
    return {b.anchor: {other.kind for other in live if other.anchor == b.anchor} for b in live}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fed", [(), (1,), (2,), (1, 3), (2, 4)])
def test_a_node_with_leases_at_both_kinds_of_maars(
    mode: SignallingMode, fed: tuple[int, ...]
) -> None:
    """RFC 5213 section 6.11: a MAAR that registers the node relays its DHCPv6 messages, too."""
    relays = tuple({1, 2, 3, 4} - {*fed})
    world = PmipWorld(mode, 4, fed=fed, relays=relays)
    seen: set[int] = set()
    for number in (1, 2, 3, 4, 1, 3):
        walked(world, number)
        world.check()
        seen.add(number)
        assert kinds(world) == {each: set(Kind) for each in seen}
        assert len(world.store.tables.nodes) == 1
        assert world.advertised(number)[5] == 0x80  # M
    moves = [event for event in world.store.history if event.type == "handover"]
    assert [event.to_maar for event in moves] == [1, 2, 3, 4, 1, 3]
    assert [event.cause == "pbu" for event in moves] == [event.to_maar in relays for event in moves]


def test_dhcpv6_may_be_heard_of_before_the_registration() -> None:
    """The two go to the CMD by two sockets. A PBU from before the visit that DHCPv6 tells of is good."""
    world = walked(PmipWorld(PROXY, 2, relays=(1, 2)), 1)
    world.mark()
    world.attach(2)
    early = [p for p in world.wire if p.kind == "mobility" and p.source == endpoint(2)]
    assert early
    for packet in early:
        world.wire.remove(packet)
    world.now += 0.01
    world.settle()
    world.check()
    for packet in early:
        world.deliver(packet)
    world.go_on(5)
    world.check()
    assert world.maars[2].agent.status(world.now)["counters"]["registration.accepted"] == 1
    assert not [line for line in world.record if "status 157" in line]
    assert [event.to_maar for event in world.store.history if event.type == "handover"] == [1, 2]


def test_all_maars_are_known_by_dhcpv6() -> None:
    """A PBA says who matters; DOMAIN says who there is, and that is not forgotten."""
    world = walked(PmipWorld(PROXY, 4, relays=(1, 2)), 1, 2, pause=100)
    others = {format_address(endpoint(number)) for number in (1, 3, 4)}
    assert set(world.maars[2].agent.status(world.now)["domain"]["peers"]) == others


def test_a_maar_that_relays_is_started_again() -> None:
    world = walked(PmipWorld(PROXY, 3, relays=(1, 2), fed=(3,)), 1, 3, 2)
    world.restart(2)
    world.go_on(10)
    world.check()
    walked(world, 3, 1)
    world.check()


# --- losses ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "what",
    [
        "maar2 > cmd    PBU",
        "  cmd > maar2  PBA",
        "  cmd > maar1  PBU",
        "maar1 > cmd    PBA",
        "maar1 > maar2",
    ],
)
def test_a_message_that_is_lost(mode: SignallingMode, what: str) -> None:
    lost: list[str] = []

    def loses(line: str, before: int) -> bool:
        if what in line and len(lost) < 2:
            lost.append(line)
            return True
        return False

    world = PmipWorld(mode, 3, loses)
    walked(world, 1)
    walked(world, 2, pause=40)
    assert lost or (what == "maar1 > maar2" and mode is not LOCATOR)
    world.check()


# --- coming and going ---


def test_what_is_late_in_mode_relay_is_believed_and_not_asked_for() -> None:
    """It names a MAAR that this one has never heard of."""
    is_lost = False
    world = PmipWorld(
        SignallingMode.RELAY,
        2,
        lambda what, before: is_lost and "PBU: at maar" in what and not before,
    )
    walked(world, 1)
    is_lost = True
    world.mark()
    world.forget_what_was_said()
    walked(world, 2)
    assert world.record == [
        "  0.000  maar2 > cmd    PBU: attached",
        "  0.000    cmd > maar1  PBU: at maar2, 1 prefixes  LOST",
        "  0.200    cmd > maar2  PBA: status 0, 1 prefixes",
        "  1.000    cmd > maar1  PBU: at maar2, 1 prefixes",
        "  1.000  maar1 > cmd    PBA: status 0, 1 prefixes",
        "  1.000    cmd > maar2  PBA: status 0, 1 prefixes, of maar1",
    ]
    world.check()


def test_a_maar_that_matters_no_more_is_not_believed_for_ever() -> None:
    world = walked(PmipWorld(SignallingMode.PROXY, 3, lifetime=400), 1, 2, 3)
    agent = world.maars[3].agent
    both = sorted(map(format_address, (endpoint(1), endpoint(2))))
    assert agent.status(world.now)["domain"]["peers"] == both
    (lost,) = [b for b in world.store.bindings.values() if b.anchor == 1]
    world.server.anchor_refused(NAME, 1, [lost.prefix], world.clock())
    world.go_on(3600.0)
    assert agent.status(world.now)["domain"]["peers"] == [format_address(endpoint(2))]
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_a_maar_that_drains_serves_what_comes_from_elsewhere(mode: SignallingMode) -> None:
    world = walked(PmipWorld(mode, 3), 1)
    domain = world.store.domain
    draining = replace(domain.maars[2], state=MaarState.DRAINING)
    maars = {**domain.maars, 2: draining}
    by_relay_id = {each.relay_id: each for each in maars.values()}
    world.store.domain = replace(domain, maars=maars, by_relay_id=by_relay_id)
    walked(world, 2, pause=4000.0)
    assert set(world.roles(2).values()) == {"served"}
    world.check()
    walked(world, 3)
    world.check()


def test_a_return_to_an_earlier_maar() -> None:
    world = walked(PmipWorld(PROXY, 3), 1, 2)
    first = {prefix for prefix, role in world.roles(2).items() if role == "served"}
    walked(world, 1)
    world.check()
    assert {prefix for prefix, role in world.roles(1).items() if role == "local"} == first


def test_a_node_that_answers_is_kept_and_its_anchors_with_it() -> None:
    world = walked(PmipWorld(PROXY, 3, lifetime=600), 1, 2)
    for _ in range(40):
        world.go_on(300)
        world.reap()
        world.go_on(1)
        world.check()
    assert states(world) == [State.ACTIVE, State.DEPRECATED]


def test_a_node_that_left_the_domain_ends_everywhere() -> None:
    world = walked(PmipWorld(PROXY, 3, lifetime=600), 1, 2)
    world.awake = False
    world.mark()
    world.go_on(600)
    assert said(world)[-2:] == [
        "maar2 > cmd    PBU: gone",
        "  cmd > maar2  PBA: status 0, 1 prefixes",
    ]
    world.go_on(11)
    world.reap()
    world.go_on(60)
    assert set(states(world)) == {State.ENDED}
    assert world.store.tables.signals == {}
    for maar in world.maars.values():
        assert maar.agent.status(world.now)["tunnels"] == []
    world.go_on(5000)
    assert all(not m.agent.status(world.now)["sessions"] for m in world.maars.values())
    for maar in world.maars.values():
        routes = [i for i in maar.kernel.items.values() if isinstance(i, Route)]
        assert len(routes) == 2  # those that close the pools


@pytest.mark.parametrize(
    ("status", "is_final"), [(129, True), (154, True), (130, False), (156, False)]
)
def test_a_refresh_that_is_refused_for_good_ends_service(status: int, is_final: bool) -> None:
    """RFC 5213 section 6.9.1.2, 11: neither routes nor advertisements are left of what the CMD denies."""
    world = walked(PmipWorld(PROXY, 3, lifetime=600), 1, 2)
    mine, other = sorted(world.roles(2), key=lambda prefix: world.roles(2)[prefix])
    world.refuses_registrations = status
    world.go_on(450)
    maar = world.maars[2]
    counters = maar.agent.status(world.now)["counters"]
    assert counters[f"registration.refused-{status}"]
    ways = {world.trace(prefix, 2)[-1] for prefix in (mine, other)}
    assert ways == ({"unreachable"} if is_final else {"node"})
    assert ("local" in world.roles(2).values()) is not is_final
    for prefix in (mine, other):
        # Of what it names no more an advertisement says nothing: the last one that does.
        told = [a.data for a in maar.advertisements if prefix.address in a.data]
        advertisement = told[-1]
        option = advertisement[advertisement.index(prefix.address) - 16 :]
        assert (option[4:12] == bytes(8)) is is_final
    # Once it is accepted again, all is as it was.
    world.refuses_registrations = None
    world.go_on(40)
    world.show()
    world.go_on(40)
    world.check()


def test_a_node_that_is_back_before_its_end_goes_on() -> None:
    world = walked(PmipWorld(PROXY, 3, lifetime=600), 1, 2)
    before = set(world.roles(2))
    world.awake = False
    world.go_on(590)
    assert states(world) == [State.ACTIVE, State.DEPRECATED]
    assert "local" not in world.roles(2).values()  # it was given up there
    world.awake = True
    walked(world, 3, pause=1)
    world.reap()
    world.check()
    assert before < set(world.roles(3))


def test_the_maar_just_left_does_not_end_what_another_one_goes_on_with() -> None:
    """The PBU to it is lost for a while; its own timer ends."""
    world = PmipWorld(
        PROXY, 3, lambda line, _: "cmd > maar1  PBU" in line and blocked, lifetime=600
    )
    blocked = False
    walked(world, 1)
    blocked = True
    world.attach(2)
    world.go_on(590)
    blocked = False
    world.go_on(60)
    world.reap()
    world.check()


def test_a_cmd_that_is_away_keeps_nobody_from_going_on() -> None:
    world = walked(PmipWorld(PROXY, 3, lifetime=600), 1, 2)
    world.cmd_up = False
    world.go_on(500)
    assert set(world.roles(2).values()) == {"local", "served"}
    world.cmd_up = True
    world.go_on(100)
    world.reap()
    world.check()


def test_a_maar_that_is_started_again_goes_on() -> None:
    world = walked(PmipWorld(LOCATOR, 3), 1, 2)
    for number in (2, 1):
        world.restart(number)
        world.go_on(10)
        world.check()
    walked(world, 3)
    world.check()


@pytest.mark.parametrize("mode", MODES)
def test_an_anchor_that_lost_its_disk_serves_on_from_its_next_registration(
    mode: SignallingMode,
) -> None:
    """Whichever node it is: the CMD hears with that PBU that the MAAR knows nobody."""
    world = walked(PmipWorld(mode, 3), 1, 2, 3)
    anchored = {p for p, role in world.roles(1).items() if role == "anchored"}
    world.maars[1].file.clear()
    world.maars[1].kernel.items.clear()
    world.restart(1)
    world.go_on(10)
    assert anchored
    assert world.roles(1) == {}
    maar, since = world.maars[1], len(world.sent)
    one, other = bytes.fromhex("0200000000bb"), bytes.fromhex("0200000000cc")
    world.run(maar, maar.agent.seen(ACCESS, parse_address("fe80::b"), one, "mld", world.now))
    world.go_on(5)
    assert {p for p, role in world.roles(1).items() if role == "anchored"} == anchored
    for prefix in anchored:
        assert world.trace(prefix)[-1] == "node"
    # It has said so once.
    world.run(maar, maar.agent.seen(ACCESS, parse_address("fe80::c"), other, "mld", world.now))
    world.go_on(5)
    said = [
        decode(packet.data, packet.source, CMD)
        for packet in world.sent[since:]
        if (packet.source, packet.destination) == (endpoint(1), CMD)
    ]
    updates = [each for each in said if isinstance(each, BindingUpdate)]
    assert [has_forgotten(each, DEFAULT_ENTERPRISE) for each in updates] == [True, False]
    assert world.store.tables.signals == {}


def test_a_cmd_that_is_started_again_goes_on() -> None:
    world = walked(PmipWorld(RELAY, 3), 1)
    world.attach(2)
    world.deliver(world.wire.pop(0))
    world.wire.clear()
    world.start_cmd()
    world.go_on(40)
    world.check()


# --- clocks ---


def test_clocks_that_differ_a_little() -> None:
    world = PmipWorld(PROXY, 3, skews={1: 0.25, 2: -0.25})
    walked(world, 1, 2, 3, 1, pause=0.2)
    walked(world, 2, pause=5)
    world.check()


def test_a_clock_that_is_wrong_is_said_to_be() -> None:
    world = PmipWorld(PROXY, 2, skews={1: -5.0})
    walked(world, 1)
    assert world.store.tables.nodes == {}
    (line, *_) = [line for line in world.maars[1].log if "status 156" in line]
    assert (
        line
        == f"{NAME}: the CMD refused the registration with status 156; its clock is +5.000 s ahead"
    )
    world.skews[1] = 0.0
    world.maars[1].agent = world._agent(1)
    world.run(world.maars[1], world.maars[1].agent.start(frozenset(), [], world.now))
    walked(world, 1)
    world.check()


# --- whom a MAAR believes ---


def test_only_the_cmd_says_where_a_node_is() -> None:
    from dmm_wire.mobility import BindingAcknowledgement, BindingUpdate, decode, encode

    world = walked(PmipWorld(PROXY, 3), 1, 2)
    forged = [p for p in world.sent if p.source == CMD and p.destination == endpoint(1)][-1]
    message = decode(forged.data, CMD, endpoint(1))
    assert isinstance(message, BindingUpdate)
    data = encode(message, endpoint(2), endpoint(1))
    maar = world.maars[1]
    maar.said.clear()
    world.run(maar, maar.agent.mobility_datagram(endpoint(2), data, world.now))
    (answer,) = maar.said
    assert isinstance(answer.message, BindingAcknowledgement)
    assert answer.message.status == 154


def test_what_people_read() -> None:
    world = walked(PmipWorld(PROXY, 2), 1)
    status = world.maars[1].agent.status(world.now)
    assert status["counters"]["registration.accepted"] == 1
    assert status["domain"]["mode"] == "proxy"
    (session,) = status["sessions"]
    assert session["identity"] == str(NAME)
    assert session["attachment"]["link_layer"] == MAC.hex(":")
