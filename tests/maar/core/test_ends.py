"""Prefixes that end while a MAAR has not heard of it: the packets that still come must not go
round."""

from __future__ import annotations

from dmm_wire.dhcpv6.codes import MessageType
from tests.maar.core.world import World, delegated_prefix, endpoint, link_prefix


def test_ended_at_the_serving_maar_before_the_anchor_knows() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    del world.cmd.prefixes[link_prefix(1)]
    world.talk(MessageType.RENEW)
    assert world.roles(2)[link_prefix(1)] == "ended"
    assert world.trace(link_prefix(1)) == ["maar1", "maar2", "unreachable"]
    world.wire.clear()  # the PBU is lost
    world.pass_time(1.5, world.check_no_loop)
    world.settle()
    # Its retransmission withdraws the prefix at the anchor, and the acknowledgement the rest here.
    assert link_prefix(1) not in world.roles(1)
    assert link_prefix(1) not in world.roles(2)
    world.check_reached()


def test_all_of_an_anchor_ended_and_it_is_told() -> None:
    world = World()
    for place in (1, 2, 3):
        world.attach(place)
    # MAAR 1 is neither the MAAR just left nor, from now on, an anchor.
    world.cmd.prefixes = {p: e for p, e in world.cmd.prefixes.items() if e[0] != 1}
    world.talk(MessageType.RENEW)
    world.settle()
    assert world.roles(1) == {}
    assert set(world.roles(3).values()) == {"local", "served"}
    world.check_no_loop()


def test_ended_with_the_move_and_its_anchor_is_told() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    del world.cmd.prefixes[link_prefix(1)]
    world.place = 3
    world.talk(MessageType.REQUEST)
    before = {packet.destination: packet for packet in world.wire}
    world.deliver(before[endpoint(2)])
    # MAAR 3 does not serve the prefix, so MAAR 2 must not send there what MAAR 1 still tunnels.
    assert world.roles(2)[link_prefix(1)] == "ended"
    world.check_no_loop()
    world.settle()
    assert link_prefix(1) not in world.roles(1)
    assert link_prefix(1) not in world.roles(2)


def test_ended_with_the_move_and_who_was_left_tells_its_anchor() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    world.cmd.prefixes = {p: e for p, e in world.cmd.prefixes.items() if e[0] != 1}
    world.place = 3
    world.talk(MessageType.REQUEST)
    # Nothing of the node is at MAAR 1 any more, so MAAR 3 has nothing to say to it; MAAR 2 has.
    (to_left,) = world.wire
    world.wire.clear()
    world.deliver(to_left)
    assert world.trace(link_prefix(1)) == ["maar1", "maar2", "unreachable"]
    world.wire = [packet for packet in world.wire if packet.destination != endpoint(1)]  # lost
    world.pass_time(1.5, world.check_no_loop)
    world.settle()
    assert world.roles(1) == {}
    assert not {link_prefix(1), delegated_prefix(1)} & set(world.roles(2))
    world.check_reached()


def test_what_a_node_released_and_got_again_is_not_cut_off_at_a_maar_that_nobody_tells() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    given = dict(world.cmd.prefixes)
    world.cmd.prefixes = {p: e for p, e in given.items() if e[0] != 1}
    world.talk(MessageType.RELEASE)
    # The PBU that says so is lost, and the node goes on; MAAR 2 hears of it, MAAR 1 does not.
    world.wire = [packet for packet in world.wire if packet.destination != endpoint(1)]
    world.cmd.prefixes = {}
    world.attach(3)
    world.cmd.prefixes = {}
    world.place = 1
    world.cmd.prefixes = {p: e for p, e in given.items() if e[0] == 1}
    world.talk(MessageType.REQUEST)
    world.settle()
    world.pass_time(65.0)
    world.settle()
    assert link_prefix(1) not in world.roles(2)
    world.check_reached()


def test_the_anchor_expires_a_little_later_than_the_serving_maar() -> None:
    world = World(valid=100)
    world.attach(1)
    world.attach(2)
    world.place = None
    for _ in range(130):
        world.pass_time(1.0, world.check_no_loop)
        world.check_no_loop()
    assert world.roles(1) == world.roles(2) == {}


def test_a_late_retransmission_does_not_bring_a_left_visit_back() -> None:
    world = World()
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    late = [packet for packet in world.wire if packet.kind == "mobility"]
    world.settle()
    world.attach(3)
    for packet in late:
        world.deliver(packet)
    world.settle()
    world.check_reached()
    assert world.maars[1].agent.status(world.now)["counters"]["pbu.refused-157"] == 1


def test_one_prefix_ends_long_before_the_other_of_its_anchor() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    anchor, delegated, _ = world.cmd.prefixes[link_prefix(1)]
    world.cmd.prefixes[link_prefix(1)] = (anchor, delegated, world.now + 60)
    world.talk(MessageType.SOLICIT)
    world.settle()
    # The PBU's one lifetime is that of the other prefix, so the anchor holds both.
    assert set(world.roles(1).values()) == {"anchored"}
    world.pass_time(59.0)
    world.check_no_loop()
    world.pass_time(2.0, world.check_no_loop)
    assert world.roles(2)[link_prefix(1)] == "ended"
    world.wire.clear()  # the PBU that says so is lost
    world.pass_time(20.0, world.check_no_loop)
    world.wire.clear()
    world.pass_time(40.0, world.check_no_loop)
    world.settle()
    assert link_prefix(1) not in world.roles(1)
    assert link_prefix(1) not in world.roles(2)
    assert world.roles(1)[delegated_prefix(1)] == "anchored"
    world.check_no_loop()


def test_a_lifetime_that_is_cut_short_is_told() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    world.cmd.prefixes = {
        p: (a, d, world.now + 60 if a == 1 else until)
        for p, (a, d, until) in world.cmd.prefixes.items()
    }
    world.talk(MessageType.SOLICIT)
    world.settle()
    world.place = None
    for _ in range(80):
        world.pass_time(1.0, world.check_no_loop)
        world.check_no_loop()
    world.settle()
    assert world.roles(1) == {}


def test_a_prefix_without_end_ends_where_nobody_keeps_it_up() -> None:
    world = World(valid=0xFFFFFFFF)
    world.attach(1)
    world.attach(2)
    world.attach(3)
    assert world.roles(2)[link_prefix(1)] == "forwarded"
    for passed in (3 * 86400 + 4000, 10):
        world.now += passed
        for maar in world.maars.values():
            world.run(maar, maar.agent.tick(world.now))
        world.settle()
    assert link_prefix(1) not in world.roles(2)
    assert world.roles(1)[link_prefix(1)] == "anchored"
    assert world.roles(3)[link_prefix(1)] == "served"


def test_an_acknowledgement_that_comes_after_the_node_left_withdraws_nothing() -> None:
    world = World()
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    (to_anchor,) = world.wire
    world.wire.clear()
    # All that MAAR 1 anchors ends with the next move, so MAAR 3 does not speak to it.
    world.cmd.prefixes = {p: e for p, e in world.cmd.prefixes.items() if e[0] != 1}
    world.place = 3
    world.talk(MessageType.REQUEST)
    (to_left,) = world.wire
    world.wire.clear()
    world.deliver(to_left)
    assert world.roles(2)[link_prefix(1)] == "ended"
    last_words = [packet for packet in world.wire if packet.destination == endpoint(1)]
    world.wire.clear()
    world.deliver(to_anchor)
    world.settle()
    assert world.trace(link_prefix(1)) == ["maar1", "maar2", "unreachable"]
    for packet in last_words:
        world.deliver(packet)
    world.settle()
    assert world.roles(1) == {}
    assert link_prefix(1) not in world.roles(2)


def test_a_pbu_that_was_overtaken_by_the_next_one_of_its_visit_changes_nothing() -> None:
    world = World()
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    (late,) = [packet for packet in world.wire if packet.destination == endpoint(1)]
    world.settle()
    world.cmd.prefixes = {p: e for p, e in world.cmd.prefixes.items() if e[0] != 1}
    world.talk(MessageType.RELEASE)
    world.settle()
    assert world.roles(1) == {}
    world.deliver(late)  # its second copy took three seconds
    world.settle()
    assert world.roles(1) == {}
    assert world.maars[1].agent.status(world.now)["counters"]["pbu.overtaken"] == 1
    world.pass_time(1.5)  # what is sent from now on is believed
    world.check_no_loop()


def test_a_maar_that_did_not_hear_of_the_move_hears_of_it_after_a_detour() -> None:
    world = World()
    world.attach(1)
    world.place = 2
    world.talk(MessageType.SOLICIT)
    world.settle()
    assert set(world.roles(2).values()) == {"served"}
    for place in (3, 1, 3):
        world.place = place
        world.talk(MessageType.SOLICIT)
        # What is said to MAAR 2 is lost.
        world.wire = [packet for packet in world.wire if packet.destination != endpoint(2)]
        world.settle()
    world.pass_time(70.0)
    world.settle()
    assert set(world.roles(2).values()) == {"forwarded"}
    assert world.trace(link_prefix(1), 2) == ["maar2", "maar3", "node"]


def test_a_pointer_that_nobody_keeps_up_does_not_outlive_the_move() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    # MAAR 2's own prefixes have ended when the node goes on, so it is not told of later moves.
    world.cmd.prefixes = {p: e for p, e in world.cmd.prefixes.items() if e[0] == 1}
    world.attach(3)
    assert world.roles(2)[link_prefix(1)] == "forwarded"
    world.restart(2)
    world.pass_time(63.0)
    assert world.roles(2)[link_prefix(1)] == "forwarded"
    world.pass_time(2.0)
    assert link_prefix(1) not in world.roles(2)
    assert world.trace(link_prefix(1), 2)[-1] == "node"
    world.check_reached()
