"""A kernel that refuses, is slow, or loses what it was given."""

from __future__ import annotations

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Drop,
    Item,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
)
from tests.maar.core.test_relay import agent, relay_reply, visit_reply
from tests.maar.core.world import (
    ACCESS,
    DUID,
    MAC,
    NODE,
    SERVER,
    Kernel,
    World,
    client_message,
    endpoint,
    link_prefix,
)


def moved() -> World:
    """The node has been at MAAR 1 and is at MAAR 2."""
    world = World()
    world.attach(1)
    world.attach(2)
    return world


def found(world: World, number: int) -> frozenset[Item]:
    return frozenset(world.maars[number].kernel.items.values())


def changes(actions: list[act.Action]) -> list[Change]:
    return [change for each in actions if isinstance(each, act.Apply) for change in each.changes]


def counters(maar: Agent) -> dict[str, int]:
    counters = maar.status(0.0)["counters"]
    assert isinstance(counters, dict)
    return counters


# --- what somebody else takes away ---


def test_what_the_kernel_lost_is_put_again_and_nothing_else() -> None:
    world = moved()
    maar = world.maars[2]
    before = dict(maar.kernel.items)
    flushed: list[Item] = [
        SourceRule(link_prefix(1), endpoint(1)),
        Route(link_prefix(2), ToNode(ACCESS, NODE)),
        Tunnel(endpoint(1)),
    ]
    for item in flushed:
        del maar.kernel.items[item.key]
    changed = Route(link_prefix(1), ToPeer(endpoint(3)))
    maar.kernel.items[changed.key] = changed
    leftover = Route(Prefix.parse("2001:db8:7::/64"), ToPeer(endpoint(3)))
    maar.kernel.items[leftover.key] = leftover
    maar.log.clear()
    actions = maar.agent.kernel_changed(found(world, 2), world.now)
    made = changes(actions)
    assert {each.item.key for each in made} == {each.key for each in (*flushed, changed, leftover)}
    assert made[0].item == Tunnel(endpoint(1))
    assert made[-1] == Drop(leftover)
    world.run(maar, actions)
    assert maar.kernel.items == before
    assert counters(maar.agent)["kernel.restored"] == 4
    (line,) = maar.log
    assert line.startswith("the kernel lost 4 items, to be put again: tunnel to maar 2001:db8:1::1")
    assert [each.level for each in actions if isinstance(each, act.Log)] == ["warning"]
    world.check_reached()


def test_a_kernel_that_is_right_is_left_alone() -> None:
    world = moved()
    for number, maar in world.maars.items():
        assert maar.agent.kernel_changed(found(world, number), world.now) == []
        assert "kernel.restored" not in counters(maar.agent)


def test_what_the_kernel_has_not_answered_for_is_not_sent_twice() -> None:
    world = World(slow_kernel=True)
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    maar = world.maars[2]
    assert len(maar.applies) == 1
    assert maar.agent.kernel_changed(found(world, 2), world.now) == []
    world.settle()
    assert maar.agent.kernel_changed(found(world, 2), world.now) == []
    world.check_reached()


def test_what_the_kernel_refused_it_may_take_when_it_has_changed() -> None:
    world = World()
    route = Route(link_prefix(1), ToNode(ACCESS, NODE))
    maar = world.maars[1]
    maar.kernel.refuse = {route.key}
    world.attach(1)
    assert counters(maar.agent)["kernel.refused"] == 1
    world.run(maar, maar.agent.kernel_changed(found(world, 1), world.now))
    assert counters(maar.agent)["kernel.refused"] == 2
    maar.kernel.refuse = set()
    world.run(maar, maar.agent.kernel_changed(found(world, 1), world.now))
    world.check_reached()
    # It was never there, so it was not lost.
    assert "kernel.restored" not in counters(maar.agent)
    world.pass_time(100.0)
    assert counters(maar.agent)["kernel.refused"] == 2


def test_what_the_kernel_would_not_give_up_may_be_gone_when_it_has_changed() -> None:
    world = World(valid=300)
    world.attach(1)
    maar = world.maars[1]
    route = Route(link_prefix(1), ToNode(ACCESS, NODE))
    maar.kernel.refuse = {route.key}
    world.place = None
    world.pass_time(301.0)
    assert route.key in maar.kernel.items
    maar.kernel.refuse = set()
    del maar.kernel.items[route.key]
    assert changes(maar.agent.kernel_changed(found(world, 1), world.now)) == []
    refused = counters(maar.agent)["kernel.refused"]
    world.pass_time(100.0)
    assert counters(maar.agent)["kernel.refused"] == refused
    assert route.key not in maar.kernel.items


def test_after_the_end_nothing_is_put_back() -> None:
    world = moved()
    maar = world.maars[2]
    world.run(maar, maar.agent.stop(world.now, keep=False))
    assert maar.agent.kernel_changed(frozenset(), world.now) == []


# --- what it refuses ---


def refusals(maar: Agent, prefix: Prefix, start: float, until: float) -> list[float]:
    """A visit brings `prefix` at `start`, and the kernel refuses its route until `until`. Returns
    when it was asked, in seconds from the start."""
    key = Route(prefix, ToNode(ACCESS, NODE)).key
    named = dmm.AnchoredPrefix(prefix, 7200, 7200)
    moments = []
    now, actions = start, maar.server_datagram(SERVER, visit_reply(5, named), start)
    while applies := [each for each in actions if isinstance(each, act.Apply)]:
        for apply in applies:
            asked = key in [change.item.key for change in apply.changes]
            moments += [now - start] * asked
            maar.applied(apply.token, {key: "ENOBUFS"} if asked and now < until else {}, now)
        actions = []
        while not actions and (deadline := maar.deadline()) is not None and deadline < until + 50:
            now = deadline
            actions = [each for each in maar.tick(now) if isinstance(each, act.Apply)]
    return moments


def test_what_was_refused_is_tried_again_less_and_less_often() -> None:
    maar = agent()
    assert refusals(maar, link_prefix(1), 10.0, 100.0) == [0, 1, 3, 7, 15, 31, 63, 95]
    # Once all is well, the waiting begins anew.
    assert refusals(maar, Prefix.parse("2001:db8:1:102::/64"), 200.0, 210.0) == [0, 1, 3, 7, 15]


@pytest.mark.parametrize(
    "item",
    [
        Tunnel(endpoint(1)),
        Route(link_prefix(1), ToNode(ACCESS, NODE)),
        SourceRule(link_prefix(1), endpoint(1)),
    ],
    ids=lambda item: type(item).__name__,
)
def test_no_pbu_promises_what_the_kernel_has_not_taken(item: Item) -> None:
    """The anchor would send to where nobody takes it on, or what the node sends would go astray."""
    world = World()
    world.attach(1)
    maar = world.maars[2]
    maar.kernel.refuse = {item.key}
    world.attach(2)
    assert "pbu.sent" not in counters(maar.agent)
    assert set(world.roles(1).values()) == {"local"}
    maar.kernel.refuse = set()
    world.pass_time(1.5)
    world.settle()
    assert counters(maar.agent)["pbu.sent"] == 1
    world.check_reached()


def test_of_several_nodes_only_the_refused_one_waits() -> None:
    maar, kernel = agent(), Kernel()
    nodes = range(3)
    duids = [DUID[:-1] + bytes((0xC0 + n,)) for n in nodes]
    places = [NODE[:-1] + bytes((0xC0 + n,)) for n in nodes]
    prefixes = [Prefix.parse(f"2001:db8:2:1c{n}::/64") for n in nodes]
    kernel.refuse = {SourceRule(prefixes[1], endpoint(2)).key}
    told: list[Prefix] = []
    served: list[bytes] = []

    def run(actions: list[act.Action], now: float) -> None:
        queue = list(actions)
        while queue:
            match queue.pop(0):
                case act.Apply(token, batch):
                    queue[:0] = maar.applied(token, kernel.apply(batch), now)
                case act.SendMobility(_, message):
                    named = {getattr(option, "prefix", None) for option in message.options}
                    told.extend(prefix for prefix in prefixes if prefix in named)
                case act.SendToClient(_, destination, _, _):
                    served.append(destination)

    for duid, place, prefix in zip(duids, places, prefixes, strict=True):
        run(maar.client_datagram(ACCESS, place, MAC, client_message(3, duid), 10.0), 10.0)
        remote = dmm.PreviousMaar(prefix, 0, 7200, False, endpoint(2))
        visit = dmm.Visit(5, endpoint(2))
        inner = client_message(MessageType.REPLY, duid)
        run(maar.server_datagram(SERVER, relay_reply(inner, visit, remote, peer=place), 10.0), 10.0)
    # All have their messages; the peer is told only what the kernel has.
    assert served == places
    assert told == [prefixes[0], prefixes[2]]
    assert {Tunnel(endpoint(2)).key, AcceptFrom(endpoint(2)).key} <= kernel.items.keys()
    kernel.refuse = set()
    told.clear()
    run(maar.tick(11.0), 11.0)
    assert SourceRule(prefixes[1], endpoint(2)) in kernel.items.values()
    assert prefixes[1] in told
