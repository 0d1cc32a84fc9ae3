"""A node that goes from one access link of a MAAR to another one, and many nodes on one link, by first frames."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmm_wire.address import parse_address
from relay_maar.core import actions as act
from relay_maar.core import arrivals
from relay_maar.core.items import Neighbour, Route, ToNode
from relay_maar.core.noticed import made_link_local
from relay_maar.core.settings import AttachSettings
from tests.maar.core.attach_world import AttachWorld
from tests.maar.core.both_worlds import KINDS, noticing
from tests.maar.core.world import ACCESS, MAC, NODE, endpoint, link_prefix, settings

SECOND = "access1"
OTHER_MAC = bytes.fromhex("0200000000bb")


class TwoLinks(AttachWorld):
    """MAAR 1 has a second access link. The node answers no probe but where a test says so."""

    def __init__(self) -> None:
        (link,) = settings(1).access
        address = parse_address("2001:db8:1:100::2")
        second = replace(link, interface=SECOND, interface_id=SECOND.encode(), link_address=address)
        super().__init__(own={1: {"access": (link, second)}})

    def see(self, interface: str, trigger: str = "mld") -> None:
        """A frame of the node on that link of MAAR 1."""
        self.place = 1
        maar = self.maars[1]
        self.run(maar, maar.agent.seen(interface, NODE, MAC, trigger, self.now))

    def links(self) -> set[str]:
        """The links of MAAR 1 that its kernel sends the node's packets to."""
        items = self.maars[1].kernel.items.values()
        routes = {
            e.target.interface
            for e in items
            if isinstance(e, Route) and isinstance(e.target, ToNode)
        }
        assert routes == {each.interface for each in items if isinstance(each, Neighbour)}
        return routes


def test_a_late_frame_on_the_link_just_left_does_not_pull_the_node_back() -> None:
    world = TwoLinks()
    world.settled_at(1)
    world.awake = False
    moves = world.handovers()
    assert world.links() == {ACCESS}
    world.see(SECOND)
    world.settle()
    assert world.links() == {SECOND}
    world.go_on(1)  # on the other link it is asked whether it is there after all
    assert world.counters(1)["attach.probed"] == 3
    world.see(ACCESS)
    world.go_on(1)
    assert world.counters(1)["attach.late"] == 1
    assert world.links() == {SECOND}
    # Later it is believed; and for the CMD it is all the same visit.
    world.go_on(3)
    world.see(ACCESS)
    world.settle()
    assert world.links() == {ACCESS}
    assert world.handovers() == moves


def test_a_late_answer_does_not_pull_it_back_either() -> None:
    world = TwoLinks()
    world.settled_at(2)
    world.go_on(1)  # what else is to be asked
    world.awake = False
    world.see(ACCESS)
    (question,) = [each for each in world.wire if each.kind == "up"]
    world.wire.remove(question)
    world.deliver(question)
    (answer,) = [each for each in world.wire if each.destination == endpoint(1)]
    world.wire.remove(answer)
    world.go_on(0.1)
    world.see(SECOND)
    world.see(SECOND, "na")  # both may be late: it was asked there
    world.settle()
    assert world.links() == {SECOND}
    world.deliver(answer)
    world.settle()
    assert world.counters(1)["attach.late-answer"] == 1
    assert world.links() == {SECOND}


def test_who_shows_the_address_of_another_does_not_get_its_place() -> None:
    world = AttachWorld(slaac=True)
    world.move(1)
    world.settle()
    maar = world.maars[1]
    world.run(maar, maar.agent.attached(ACCESS, OTHER_MAC, world.now))
    world.settle()
    made = made_link_local(OTHER_MAC)
    both = {Neighbour(ACCESS, NODE, MAC), Neighbour(ACCESS, made, OTHER_MAC)}
    before = dict(maar.kernel.items)
    assert {each for each in before.values() if isinstance(each, Neighbour)} == both
    world.run(maar, maar.agent.seen(ACCESS, NODE, OTHER_MAC, "ns", world.now))
    world.settle()
    assert maar.kernel.items == before


@pytest.mark.parametrize("kind", KINDS)
def test_packets_of_a_node_that_is_being_asked_about_say_nothing_new(kind: str) -> None:
    world = noticing(kind).settled_at(1)
    world.place, world.cmd_up = 2, False
    assert world.send_packet(link_prefix(1))
    assert MAC in (world.quiet[2] or ())
    assert not world.send_packet(link_prefix(1))
    assert world.counters(2)["attach.seen-data"] == 1


def test_one_that_has_the_address_of_none_is_told_by_a_frame_of_its_own() -> None:
    """The advertisement goes to all nodes in a frame to this one: it may have another address than it has shown."""
    world = AttachWorld(slaac=True)
    maar = world.maars[1]
    actions = maar.agent.attached(ACCESS, OTHER_MAC, world.now)
    sent = [each for each in actions if isinstance(each, act.SendRouterAdvertisement)]
    assert [(each.destination, each.link_layer) for each in sent] == [
        (parse_address("ff02::1"), OTHER_MAC)
    ]


def test_a_crowd_changes_the_filter_a_few_times_and_not_for_each() -> None:
    """The first at once. A program takes some time to make."""
    world = AttachWorld(slaac=True)
    world.go_on(1)
    world.cmd_up = False
    maar = world.maars[1]
    crowd = [b"\2\0\0\0\3" + bytes((number,)) for number in range(100)]
    changed = []
    for mac in crowd:
        actions = maar.agent.attached(ACCESS, mac, world.now) + maar.agent.tick(world.now)
        changed += [len(a.quiet or ()) for a in actions if isinstance(a, act.WatchPackets)]
        world.run(maar, actions)
        world.now += 0.001
    assert changed[0] == 1
    assert 3 <= len(changed) <= 6
    world.go_on(0.1)
    assert world.quiet[1] == frozenset(crowd)


def test_where_there_are_too_many_nodes_packets_show_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "MOST_QUIET", 5)
    world = AttachWorld(slaac=True)
    maar = world.maars[1]
    for number in range(6):
        assert world.counters(1).get("attach.too-many-to-watch", 0) == 0
        mac = b"\2\0\0\0\3" + bytes((number,))
        world.run(maar, maar.agent.attached(ACCESS, mac, world.now))
        world.settle()
        world.go_on(1)
    assert world.counters(1)["attach.too-many-to-watch"] >= 1
    assert world.quiet[1] is None


def test_a_host_hears_of_its_prefix_when_the_kernel_has_it() -> None:
    """Of its router at once."""
    world = AttachWorld(slaac=True)
    world.slow_kernel = True
    maar = world.maars[1]
    heard = len(maar.advertisements)
    world.move(1)
    while world.wire:
        world.deliver(world.wire.pop(0))
    (prefix,) = world.live()
    said = [each.data for each in maar.advertisements[heard:]]
    assert said
    assert not [each for each in said if prefix.address in each]
    world.settle()
    assert prefix.address in maar.advertisements[-1].data


def test_one_that_left_without_a_word_is_not_probed_for_ever() -> None:
    world = AttachWorld().settled_at(1)
    world.awake = False
    maar = world.maars[1]
    world.run(maar, maar.agent.detached(ACCESS, MAC, world.now))
    world.go_on(1)
    asked = len(world.real.asked)
    world.go_on(1500)
    assert world.probes == [1, 1, 1]
    assert len(world.real.asked) == asked
    assert len([line for line in maar.log if "is silent" in line]) == 1


def test_a_prefix_is_asked_for_again_before_it_ends_however_seldom_nodes_are_confirmed() -> None:
    world = AttachWorld(slaac=True, attach=AttachSettings(confirm=86_400))
    world.move(1)
    world.go_on(1)
    (prefix,) = world.live()
    world.go_on(3 * 3600)
    assert set(world.live()) == {prefix}
    assert world.handovers() == [(None, 1)]
    world.check_place(("node", "unreachable"))
