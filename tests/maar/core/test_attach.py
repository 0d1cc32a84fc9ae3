"""Nodes that come, from the first frame, with the real CMD's core: what is asked, set up, and not believed.

Where nothing else is said, with either way to ask."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import SignallingMode
from dmm_wire.router_identity import FIXED
from relay_maar.core import actions as act
from relay_maar.core.items import Neighbour, Route, ToNode
from relay_maar.core.noticed import made_link_local
from relay_maar.core.settings import AttachSettings
from tests.maar.core.attach_world import CLIENT, QUERY, AttachWorld
from tests.maar.core.both_worlds import KINDS, noticing
from tests.maar.core.noticing import Noticing, Question
from tests.maar.core.pmip_world import PmipWorld
from tests.maar.core.world import ACCESS, MAC, NODE, NODE_ID, endpoint, link_prefix, pools

M = MessageType
UNSPECIFIED = bytes(16)
MOMENT = 1e-4
"""Seconds between two messages."""


def anchored_at(world: Noticing, number: int) -> set[Prefix]:
    return {prefix for prefix, anchor in world.live().items() if anchor == number}


# --- arrivals ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trigger", ["mld", "rs", "ns", "na", "una", "data", "hook"])
def test_the_first_frame_of_a_known_node_moves_it(kind: str, trigger: str) -> None:
    world = noticing(kind).settled_at(1)
    before = len(world.questions())
    world.move(2, trigger)
    world.settle()
    world.check_place()
    assert world.questions()[before:] == [Question(2, known=False)]
    if isinstance(world, AttachWorld):
        assert world.real.asked[-1] == (2, QUERY, dmm.Attachment(0, 4, 4, 1, MAC))
    assert set(world.roles(2).values()) == {"local", "served"}
    assert world.counters(2)["attach.asked"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_router_solicitation_as_the_socket_has_it(kind: str) -> None:
    """Not its frame, but the message, with its address."""
    world = noticing(kind).settled_at(1)
    world.place = 2
    maar = world.maars[2]
    solicitation = bytes((133, 0)) + bytes(6) + b"\x01\x01" + MAC
    world.run(maar, maar.agent.router_solicitation(ACCESS, NODE, MAC, solicitation, world.now))
    world.settle()
    world.check_place()
    assert world.counters(2)["attach.seen-rs"] == 1


def test_dhcpv6_finds_it_done_and_only_adds_leases() -> None:
    world = AttachWorld().settled_at(1)
    world.move(2)
    world.settle()
    session = world.maars[2].agent.status(world.now)["sessions"][0]
    moves = world.handovers()
    for kind in (M.SOLICIT, M.REQUEST):
        world.say(kind)
        world.settle()
    after = world.maars[2].agent.status(world.now)["sessions"][0]
    assert world.handovers() == moves == [(None, 1), (1, 2)]
    assert (after["identity"], after["generation"]) == (str(NODE_ID), session["generation"])
    assert len(after["prefixes"]) == len(session["prefixes"]) + 1  # the delegated one
    assert [each[1] for each in world.real.asked[-3:]] == [QUERY, CLIENT, CLIENT]
    world.check()


def test_dhcpv6_that_comes_first_is_the_question_itself() -> None:
    world = AttachWorld().settled_at(1)
    world.place = 2
    world.say(M.REBIND)
    world.settle()
    world.frame("mld")
    world.settle()
    assert {each[1] for each in world.real.asked} == {CLIENT}
    world.check()


@pytest.mark.parametrize("kind", KINDS)
def test_frames_of_a_node_that_is_here_ask_nothing(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    before = len(world.questions())
    for trigger in ("ns", "na", "una"):
        world.frame(trigger)
        world.go_on(5)
    assert len(world.questions()) == before
    assert not world.send_packet(next(iter(world.live())))  # its packets do not even get to us


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trigger", ["mld", "rs", "dad", "hook"])
def test_what_it_says_when_it_comes_is_believed_of_one_that_never_left(
    kind: str, trigger: str
) -> None:
    """It may have been elsewhere without our knowing. If not, nothing changes."""
    world = noticing(kind).settled_at(1)
    moves, before = world.handovers(), len(world.questions())
    session = world.maars[1].agent.status(world.now)["sessions"][0]
    for _ in range(3):
        world.frame(trigger)
        world.go_on(0.1)
    assert world.questions()[before:] == [Question(1, known=True)]
    assert world.handovers() == moves
    after = world.maars[1].agent.status(world.now)["sessions"][0]
    assert after["generation"] == session["generation"]


def test_many_frames_are_one_question_that_is_repeated_until_it_is_answered() -> None:
    world = AttachWorld().settled_at(1)
    before = len(world.questions())
    world.cmd_up = False
    world.move(2)
    for _ in range(20):
        world.frame("ns")
    world.go_on(1.0)
    assert world.counters(2)["attach.asked"] == 1
    assert world.counters(2)["attach.asked-again"] == 2
    world.cmd_up = True
    world.go_on(2.0)
    world.check()
    ((_, _, attachment),) = world.real.asked[-1:]
    assert len(world.questions()) == before + 1
    assert attachment is not None
    # The last frame was then, and a MAAR that knows of a later one is right.
    assert attachment.age_ms == pytest.approx(1750, abs=10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cmd_that_is_away_is_not_asked_for_ever(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    world.cmd_up = False
    world.move(2)
    world.awake = False
    world.go_on(120)
    counters = world.counters(2)
    assert counters.get("attach.unanswered", 0) + counters.get("attach.silent-arrival", 0) == 1
    assert counters.get("attach.asked-again", 0) == (7 if kind == "dhcp" else 0)
    world.cmd_up, world.awake = True, True
    world.frame("ns")
    world.go_on(1)
    world.check_place()


def test_a_stranger_is_asked_for_once_and_leaves_no_trace() -> None:
    world = AttachWorld()
    commits = world.real.store.commits
    world.move(1)
    for _ in range(25):
        world.go_on(1)
        world.frame("ns")
    assert [each[1] for each in world.real.asked] == [QUERY]
    assert world.real.store.commits == commits
    assert world.counters(1)["cmd.unknown-node"] == 1
    for kind in (M.SOLICIT, M.REQUEST):
        world.say(kind)
        world.settle()
    world.check()
    # It is no stranger any more, and when it comes back it is believed at once.
    for number in (2, 1):
        world.move(number)
        world.go_on(0.1)
        world.check()


@pytest.mark.parametrize("kind", KINDS)
def test_no_node_has_the_address_of_a_router(kind: str) -> None:
    """Whoever tries it out, or writes it into what it sends: routes by it would lead to ourselves."""
    world = noticing(kind).settled_at(1)
    (link,) = {prefix for prefix in anchored_at(world, 1) if prefix.length == 64}
    world.place = 2
    maar, router, made = world.maars[2], FIXED.link_local, made_link_local(MAC)
    led = Route(link, ToNode(ACCESS, made))
    tries = maar.agent.seen(ACCESS, UNSPECIFIED, MAC, "ns", world.now, target=router)
    world.run(maar, tries)
    world.settle()
    assert led in maar.kernel.items.values()
    for trigger in ("mld", "ns", "na"):
        world.frame(trigger, source=router)
        world.settle()
        assert led in maar.kernel.items.values()
    solicitation = bytes((133, 0)) + bytes(6)
    world.run(maar, maar.agent.router_solicitation(ACCESS, router, MAC, solicitation, world.now))
    assert world.counters(2)["rs.source"] == 1
    world.run(maar, maar.agent.client_datagram(ACCESS, router, MAC, b"\1abc", world.now))
    assert led in maar.kernel.items.values()


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_is_known_by_its_place_before_it_says_where_it_is(kind: str) -> None:
    """A packet, or a report from the unspecified address, shows no link-local address."""
    world = noticing(kind).settled_at(1)
    (link,) = {prefix for prefix in anchored_at(world, 1) if prefix.length == 64}
    world.place = 2
    maar = world.maars[2]
    assert world.send_packet(link)
    world.settle()
    made = made_link_local(MAC)
    assert maar.kernel.items[Route(link, ToNode(ACCESS, made)).key] == Route(
        link, ToNode(ACCESS, made)
    )
    assert Neighbour(ACCESS, made, MAC) in maar.kernel.items.values()
    # It shows its own address, which takes the place of the made one.
    world.frame("ns")
    world.settle()
    assert Neighbour(ACCESS, made, MAC) not in maar.kernel.items.values()
    world.check_place()
    # And a packet does not bring the made one back, nor another advertisement.
    heard = len(maar.advertisements)
    world.frame("data", source=link.address[:15] + b"\5")
    world.settle()
    world.check_place()
    assert len(maar.advertisements) == heard


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_that_is_tried_out_is_the_nodes(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    world.place = 2
    agent = world.maars[2].agent
    actions = agent.seen(ACCESS, UNSPECIFIED, MAC, "ns", world.now, target=NODE)
    sent = [a for a in actions if isinstance(a, act.SendRouterAdvertisement)]
    # It takes nothing that is for that address yet; but the frame goes to it and to nobody else.
    assert [(a.destination, a.link_layer) for a in sent] == [(parse_address("ff02::1"), MAC)]
    world.run(world.maars[2], actions)
    world.settle()
    world.check_place()


@pytest.mark.parametrize("kind", KINDS)
def test_the_node_hears_of_its_router_without_waiting_for_anybody(kind: str) -> None:
    """Neither for the CMD nor for the kernel. What goes out first of this is for the shell to say."""
    world = noticing(kind).settled_at(1)
    actions = world.maars[2].agent.seen(ACCESS, NODE, MAC, "mld", world.now)
    kinds = {type(a) for a in actions}
    asked = act.SendToServers if kind == "dhcp" else act.SendMobility
    assert {act.SendRouterAdvertisement, asked} <= kinds
    assert act.Apply not in kinds


# --- late frames, ping-pong ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_frame_does_not_pull_the_node_back(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    world.move(2)
    world.go_on(0.01)
    moves = world.handovers()
    world.frame("mld", at=1)
    world.go_on(5)
    assert world.handovers() == moves
    assert world.counters(1)["attach.late"] == 1
    assert set(world.probes) == {1}
    assert world.counters(1)["attach.silent-arrival"] == 1
    world.check_place()


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_late_as_long_as_it_may_have_been_on_its_way(kind: str) -> None:
    """Also when the node was asked before whether it is back, and was silent. An access point's word is not late."""
    world = noticing(kind).settled_at(1)
    world.move(2)
    world.go_on(1)
    assert world.counters(1)["attach.silent-arrival"] == 1
    moves = world.handovers()
    world.frame("mld", at=1)
    world.go_on(1)
    assert world.handovers() == moves
    assert world.counters(1)["attach.late"] == 1
    assert world.counters(1)["attach.silent-arrival"] == 2
    world.check_place()
    world.awake = False
    world.place = 1
    maar = world.maars[1]
    world.run(maar, maar.agent.attached(ACCESS, MAC, world.now))
    world.settle()
    assert world.served_at() == [1]
    assert world.counters(1)["attach.late"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_comes_back_at_once_answers_and_is_back(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    world.move(2)
    world.go_on(0.2)
    world.move(1)
    world.go_on(0.05)
    assert world.counters(1)["attach.answered-probe"] == 1
    world.check_place()


@pytest.mark.parametrize("kind", KINDS)
def test_a_return_that_crosses_with_the_pbu_is_noticed(kind: str) -> None:
    """It was back before we knew that it had left, and said all that it had to say."""
    world = noticing(kind).settled_at(1)
    world.move(2)
    while packets := [p for p in world.wire if p.destination != endpoint(1)]:
        world.wire.remove(packets[0])
        world.deliver(packets[0])
    assert world.wire  # the CMD knows; the PBU is on its way
    world.frame("ns", at=1)
    world.place = 1
    world.go_on(1)
    world.check_place()


def test_a_later_visit_elsewhere_is_believed_until_the_node_answers() -> None:
    """The CMD says `stale`: the frame is older than what another MAAR saw."""
    world = AttachWorld().settled_at(1)
    world.place = 2
    world.cmd_up = False
    world.frame("mld")
    world.settle()
    world.go_on(0.3)
    world.cmd_up = True
    world.wire.clear()
    world.place = 3
    world.frame("mld")
    world.settle()
    world.check()
    world.go_on(10)  # what MAAR2 asks again is stale, and nobody answers its probes
    assert world.counters(2)["cmd.stale"] == 1
    assert world.counters(2)["attach.silent-arrival"] == 1
    world.check()


def ping_pong(world: Noticing, noise: random.Random, after_each: Callable[[], None]) -> None:
    """Every 200 ms somewhere else, with frames that are late, lost, or seen while messages are on their way."""
    for _ in range(noise.randint(5, 25)):
        last = world.place
        world.place = noise.choice([1, 2, 3])
        if noise.random() < 0.9:
            world.frame(noise.choice(["mld", "ns", "rs"]))
        for _ in range(noise.randint(0, 6)):
            if world.wire and noise.random() < 0.8:
                world.deliver(world.wire.pop(noise.randrange(len(world.wire))))
                world.now += MOMENT
        if noise.random() < 0.3:
            world.frame("mld", at=last)
        if noise.random() < 0.2 and world.wire:
            world.wire.pop(noise.randrange(len(world.wire)))  # lost
        world.pass_time(noise.uniform(0.0, 0.4), after_each)
    while world.wire:
        world.deliver(world.wire.pop(0))
        world.now += MOMENT
    world.go_on(1)
    world.frame("mld")
    world.go_on(35)  # longer than the longest pause after a refusal
    assert world.place in world.served_at()
    for prefix in world.live():
        assert world.trace(prefix)[-1] == "node"
    # A MAAR that was told of its visit too late, or of its end never, finds out by itself.
    world.go_on(330)
    world.check_place(("node", "unreachable"))
    moves = len(world.handovers())
    world.go_on(700)
    assert len(world.handovers()) == moves, "it rests"


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("slaac", [False, True])
def test_ping_pong_ends_in_the_true_place(seed: int, slaac: bool) -> None:
    world = AttachWorld(slaac=slaac)
    ping_pong(world.settled_at(1), random.Random(seed), world.check_no_loop)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "mode", [SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY]
)
def test_ping_pong_between_maars_that_register(seed: int, mode: SignallingMode) -> None:
    """Where the CMD signals, packets may go round for as long as its messages are under way."""
    ping_pong(noticing("pmip", mode=mode).settled_at(1), random.Random(seed), lambda: None)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "mode", [SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY]
)
def test_ping_pong_between_maars_of_both_kinds(seed: int, mode: SignallingMode) -> None:
    world = PmipWorld(mode, 3, fed=(2,)).settled_at(1)
    ping_pong(world, random.Random(seed), lambda: None)


# --- limits ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_of_made_up_addresses_costs_a_bounded_number_of_questions(kind: str) -> None:
    settings = AttachSettings(rate=10, burst=50)
    world = noticing(kind, attach=settings).settled_at(1)
    maar = world.maars[2]
    noise = random.Random(1)
    for _ in range(5000):
        made_up = b"\2" + noise.randbytes(5)
        world.run(maar, maar.agent.seen(ACCESS, NODE, made_up, "ns", world.now))
        world.now += 0.0004
    counters = world.counters(2)
    assert counters["attach.asked"] <= 50 + 2 * 10 + 1
    assert counters["attach.limited"] >= 5000 - 75
    world.wire.clear()
    world.place = 2
    if isinstance(world, AttachWorld):
        # Who is known at the CMD is only late for it: DHCPv6 is not held up.
        world.say(M.REBIND)
    else:
        world.go_on(10)
        world.frame("ns")
    world.settle()
    world.check_place(("node", "unreachable"))


@pytest.mark.parametrize("kind", KINDS)
def test_no_node_is_asked_about_more_than_three_times_in_a_second(kind: str) -> None:
    world = noticing(kind, flap_interval=0).settled_at(1)
    before = {number: world.counters(number).get("attach.asked", 0) for number in (1, 2)}
    for number in (2, 1) * 6:
        world.move(number, "hook")
        world.go_on(0.08)
    for number, asked in before.items():
        assert world.counters(number)["attach.asked"] - asked <= 3
    world.go_on(10)
    world.check_place()


@pytest.mark.parametrize("kind", KINDS)
def test_refused_moves_are_tried_again_while_the_node_is_there(kind: str) -> None:
    world = noticing(kind, flap_interval=5).settled_at(1)
    for number in (2, 1, 2, 1, 2):
        world.move(number)
        world.go_on(0.2)
    refused = {"dhcp": "cmd.identity-conflict", "pmip": "registration.refused-129"}
    assert world.counters(2)[refused[kind]] == 1
    assert world.served_at() == [1]
    world.go_on(10)
    world.check_place()


@pytest.mark.parametrize("kind", KINDS)
def test_where_packets_show_nothing_they_are_not_watched(kind: str) -> None:
    settings = AttachSettings(triggers=frozenset({"mld", "hook"}))
    world = noticing(kind, attach=settings).settled_at(1)
    assert world.quiet == {}
    world.place = 2
    world.frame("ns")
    world.settle()
    assert world.counters(2)["attach.not-a-trigger"] == 1
    world.frame("mld")
    world.settle()
    world.check_place()


# --- an access point's word ---


@pytest.mark.parametrize("kind", KINDS)
def test_a_detached_node_keeps_its_prefixes(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    world.awake = False
    maar = world.maars[1]
    before = dict(maar.kernel.items)
    world.run(maar, maar.agent.detached(ACCESS, MAC, world.now))
    world.go_on(1)
    assert world.probes == [1, 1, 1]
    (session,) = maar.agent.status(world.now)["sessions"]
    assert (session["here"], session["present"]) == (True, False)
    assert maar.kernel.items == before
    # Back: its first frame, or packet, is news again.
    world.awake = True
    world.go_on(60)
    assert world.send_packet(next(iter(world.live())))
    world.settle()
    (session,) = maar.agent.status(world.now)["sessions"]
    assert session["present"]
    world.check_place()


def test_dhcpv6_of_a_detached_node_shows_it_too() -> None:
    world = AttachWorld().settled_at(1)
    world.awake = False
    maar = world.maars[1]
    world.run(maar, maar.agent.detached(ACCESS, MAC, world.now))
    world.go_on(1)
    world.say(M.RENEW)
    world.settle()
    assert maar.agent.status(world.now)["sessions"][0]["present"]
    world.go_on(1)
    assert not world.send_packet(link_prefix(1))
    world.check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_answers_has_not_left(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    maar = world.maars[1]
    world.run(maar, maar.agent.detached(ACCESS, MAC, world.now))
    world.go_on(1)
    assert world.counters(1)["attach.stayed"] == 1
    assert maar.agent.status(world.now)["sessions"][0]["present"]
    world.run(maar, maar.agent.detached(ACCESS, b"\2\2\2\2\2\2", world.now))
    assert world.counters(1)["attach.detached-unknown"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_attach_by_an_access_point_needs_no_frame_and_is_never_late(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    for number in (2, 1):
        world.place = number
        maar = world.maars[number]
        world.run(maar, maar.agent.attached(ACCESS, MAC, world.now))
        world.settle()
        assert world.served_at() == [number]
        world.go_on(0.1)
    assert "attach.late" not in world.counters(1)
    world.frame("mld")
    world.settle()
    world.check_place()


# --- hosts without a client ---


def test_a_host_without_a_client_is_served_and_keeps_its_prefix() -> None:
    world = AttachWorld(slaac=True)
    world.move(1)
    world.settle()
    world.check()
    (prefix,) = world.live()
    assert pools(1)[0].contains(prefix)
    advertised = world.maars[1].advertisements[-1].data
    option = advertised[advertised.index(prefix.address) - 16 :]
    assert option[:4] == bytes((3, 4, 64, 0x40))  # A, not L
    assert advertised[5] == 0x80  # and M: who has a client may use it
    world.go_on(100)
    world.move(2)
    world.settle()
    world.check()
    assert len(world.live()) == 2
    advertised = world.maars[2].advertisements[-1].data
    option = advertised[advertised.index(prefix.address) - 16 :]
    assert int.from_bytes(option[8:12], "big") == 0  # deprecated
    assert int.from_bytes(option[4:8], "big") > 3000


@pytest.mark.parametrize("silent", [False, True])
def test_its_prefixes_last_while_it_answers(silent: bool) -> None:
    world = AttachWorld(slaac=True)
    world.move(1)
    world.go_on(60)
    world.move(2)
    world.go_on(60)
    world.awake = not silent
    world.go_on(3 * 3600)
    if silent:
        assert world.served_at() == []
        assert world.maars[2].agent.status(world.now)["tunnels"] == []
    else:
        world.check()
        assert len(world.live()) == 2
        assert world.handovers() == [(None, 1), (1, 2)]
        # The host is told each time: what it knows is as long as what we know.
        data = [each for each in world.maars[2].advertisements if each.link_layer == MAC][-1].data
        for prefix in world.live():
            valid = data[data.index(prefix.address) - 12 :][:4]
            assert int.from_bytes(valid, "big") == 3600, (
                "as it was granted, and not as it was before"
            )


def test_a_client_that_comes_later_gives_the_node_its_name() -> None:
    """It was known by its link-layer address alone, here and at its anchors."""
    world = AttachWorld(slaac=True)
    for number in (1, 2):
        world.move(number)
        world.go_on(10)
    for kind in (M.SOLICIT, M.REQUEST):
        world.say(kind)
        world.settle()
    world.check()
    world.go_on(10)
    world.move(3)
    world.go_on(1)
    world.check()
    for maar in world.maars.values():
        names = {each["identity"] for each in maar.agent.status(world.now)["sessions"]}
        assert names == {str(NODE_ID)}
