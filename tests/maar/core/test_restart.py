"""Start, stop and restart: the file and the kernel are taken up, traffic that flows is not cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import unwrap
from dmm_wire.mobility import BindingUpdate
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Drop,
    Item,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToPeer,
    Tunnel,
    Unreachable,
)
from tests.maar.core.world import NODE_ID, World, endpoint, link_prefix, pools, settings


def started(found: frozenset[Item], records: list[dict[str, Any]]) -> list[act.Action]:
    return Agent(settings(2), jitter=lambda: 0.5).start(found, records, 50.0)


def changes(actions: list[act.Action]) -> list[Change]:
    return [change for each in actions if isinstance(each, act.Apply) for change in each.changes]


def test_a_first_start_closes_the_pools_and_asks_for_the_domain() -> None:
    actions = started(frozenset(), [])
    assert changes(actions) == [Put(Route(pool, Unreachable())) for pool in pools(2)]
    assert [type(each) for each in actions] == [act.Apply, act.WatchPackets, act.SendToServers]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_restart_changes_nothing_that_is_right(number: int) -> None:
    world = World()
    for place in (1, 2, 3):
        world.attach(place)
    before = dict(world.maars[number].kernel.items)
    maar = world.maars[number]
    records = [json.loads(text) for text, _ in maar.file.values()]
    agent = Agent(settings(number), jitter=lambda: 0.5)
    actions = agent.start(frozenset(before.values()), records, world.now)
    assert changes(actions) == []
    assert [each for each in actions if isinstance(each, act.SendMobility)] == []


def test_leftovers_go_and_what_is_missing_comes() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    maar = world.maars[2]
    rule = SourceRule(link_prefix(1), endpoint(1))
    del maar.kernel.items[rule.key]
    stranger = endpoint(9)
    left: list[Item] = [
        Tunnel(stranger),
        AcceptFrom(stranger),
        Route(Prefix.parse("2001:db8:7::/64"), ToPeer(stranger)),
        Neighbour("access0", parse_address("fe80::99"), bytes(6)),
    ]
    for item in left:
        maar.kernel.items[item.key] = item
    records = [json.loads(text) for text, _ in maar.file.values()]
    actions = started(frozenset(maar.kernel.items.values()), records)
    made = changes(actions)
    # Make before break, and in the order of dependence.
    assert made[0] == Put(rule)
    assert made[1:] == [Drop(left[2]), Drop(left[3]), Drop(left[0]), Drop(left[1])]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_before_the_pbu_was_acknowledged(number: int) -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    world.place = 3
    world.talk(MessageType.REQUEST)
    if number == 3:
        world.wire.clear()
    world.restart(number)
    # No message of the node is needed.
    world.settle()
    world.pass_time(5.0)
    world.settle()
    world.check_reached()
    assert set(world.roles(1).values()) == {"anchored"}


def test_acknowledged_peers_are_not_told_again_after_a_restart() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    world.maars[2].said.clear()
    world.restart(2)
    world.settle()
    world.pass_time(100.0)
    said = [each.message for each in world.maars[2].said]
    assert not [each for each in said if isinstance(each, BindingUpdate)]


def test_lifetimes_go_on_while_the_maar_is_down() -> None:
    world = World(valid=300)
    world.attach(1)
    world.now += 299
    world.restart(1)
    assert set(world.roles(1).values()) == {"local"}
    world.now += 2
    world.restart(1)
    assert world.roles(1) == {}
    world.place = None
    world.pass_time(100.0)
    assert str(NODE_ID) not in world.maars[1].file


def test_the_domain_is_known_while_the_cmd_is_down() -> None:
    world = World()
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    world.cmd_up = False
    world.restart(1)
    assert world.maars[1].agent.status(world.now)["domain"] == {
        "known": False,
        "mode": "direct",
        "peers": ["2001:db8:2::1", "2001:db8:3::1"],
    }
    world.settle()
    world.check_reached()


def test_a_link_that_is_no_longer_configured() -> None:
    world = World()
    world.attach(1)
    record = json.loads(
        next(text for text, _ in world.maars[1].file.values() if "attachment" in text)
    )
    record["attachment"]["interface"] = "gone0"
    agent = Agent(settings(1), jitter=lambda: 0.5)
    agent.start(frozenset(), [record], world.now)
    assert agent.status(world.now)["sessions"] == []


def test_stop_leaves_the_kernel_as_it_was_and_the_sessions_in_the_file() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    for number, maar in world.maars.items():
        maar.advertisements.clear()
        world.run(maar, maar.agent.stop(world.now, keep=False))
        assert maar.kernel.items == {}
        (last,) = maar.advertisements
        assert last.data[6:8] == bytes(2)  # router lifetime 0
        assert maar.agent.deadline() is None
        assert (str(NODE_ID) in maar.file) == (number != 3)
    for number in world.maars:
        world.restart(number)
    world.settle()
    world.check_reached()


def test_stop_to_restart_touches_nothing() -> None:
    world = World()
    world.attach(1)
    maar = world.maars[1]
    assert maar.agent.stop(world.now, keep=True) == []
    assert maar.agent.tick(world.now + 100) == []


def test_records_are_json_and_come_back_as_they_were() -> None:
    world = World(valid=0xFFFFFFFF)
    for place in (1, 2, 3, 1):
        world.attach(place)
    for number, maar in world.maars.items():
        before = maar.agent.status(world.now)["sessions"]
        assert before
        assert all(json.loads(text) for text, _ in maar.file.values())
        world.restart(number)
        assert maar.agent.status(world.now)["sessions"] == before


def test_an_acknowledgement_from_before_the_restart_is_not_taken_for_another() -> None:
    world = World()
    world.attach(1)
    world.place = 2
    world.talk(MessageType.REQUEST)
    world.deliver(world.wire.pop())
    (late,) = world.wire
    world.settle()
    # The node goes round, and MAAR 2 begins to count anew.
    for place in (3, 1):
        world.attach(place)
    world.restart(2)
    world.settle()
    world.place = 2
    world.talk(MessageType.REQUEST)
    world.wire.clear()
    world.deliver(late)
    assert world.maars[2].agent.status(world.now)["counters"]["pba.unmatched"] == 1
    world.pass_time(5.0)
    world.settle()
    world.check_reached()


def asked(actions: list[act.Action]) -> list[int]:
    """The capabilities in the questions to the CMD."""
    found = []
    for action in actions:
        if isinstance(action, act.SendToServers):
            level = unwrap(action.data).relays[0]
            ours = dmm.from_options(dmm.DEFAULT_ENTERPRISE, level.options) or ()
            found += [each.capabilities for each in ours if isinstance(each, dmm.Maar)]
    return found


def test_a_maar_without_records_says_so_until_the_cmd_has_heard_it() -> None:
    agent = Agent(settings(1), jitter=lambda: 0.5)
    first = agent.start(frozenset(), [], 0.0)
    assert asked(first) == [0xC000 | dmm.NO_SESSIONS]
    assert asked(agent.tick(2.0)) == [0xC000 | dmm.NO_SESSIONS]
    world = World()  # whose MAARs have asked, and were answered
    world.attach(1)
    world.pass_time(120.0)
    questions = [p for p in world.sent if p.kind == "up" and p.source == endpoint(1)]
    said = [asked([act.SendToServers(each.data)])[0] for each in questions]
    assert said[0] == 0xC000 | dmm.NO_SESSIONS
    assert set(said[1:]) == {0xC000}
    assert len(said) > 3


def test_one_with_records_does_not_unless_one_is_damaged() -> None:
    world = World()
    world.attach(1)
    records = [{**json.loads(text), "age": 0.0} for text, _ in world.maars[1].file.values()]
    assert asked(started(frozenset(), records)) == [0xC000]
    assert asked(started(frozenset(), [*records, {"kind": "session"}])) == [
        0xC000 | dmm.NO_SESSIONS
    ]


def test_in_mode_direct_the_next_renew_tells_a_maar_that_lost_its_disk() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    world.maars[1].file.clear()
    world.maars[1].kernel.items.clear()
    world.restart(1)
    world.settle()
    assert world.roles(1) == {}
    world.now += 1800
    world.talk(MessageType.RENEW)
    world.settle()
    assert set(world.roles(1).values()) == {"anchored"}
    world.check_reached()
