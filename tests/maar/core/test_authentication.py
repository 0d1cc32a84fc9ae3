"""MAARs that share keys: moves go on as without, and who has no key, or only what was said before, changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingUpdate,
    KeyStore,
    ReplayProtection,
    Status,
    decode,
    encode,
)
from dmm_wire.mobility.authentication import locate
from dmm_wire.mobility.security import Security
from relay_maar.core import actions as act
from tests.maar.core.secure_world import CHANGE, KEY, SECURE, WRONG
from tests.maar.core.world import NODE_ID, Packet, World, endpoint, link_prefix

TODAY = 1_700_000_000.0


def secure(**changes: Any) -> World:
    return World(**{"security": SECURE, "epochs": dict.fromkeys((1, 2, 3), TODAY), **changes})


def counters(world: World, number: int) -> dict[str, int]:
    found: dict[str, int] = world.maars[number].agent.status(world.now)["counters"]
    return found


def refused(world: World, number: int) -> dict[str, int]:
    """What of the counters tells of authentication."""
    return {
        name: count for name, count in counters(world, number).items() if name.startswith("auth.")
    }


def mobility(world: World) -> list[Packet]:
    return [packet for packet in world.sent if packet.kind == "mobility"]


def updates(world: World) -> list[BindingUpdate]:
    messages = [decode(each.data, each.source, each.destination) for each in mobility(world)]
    return [each for each in messages if isinstance(each, BindingUpdate)]


def statuses(world: World) -> list[int]:
    messages = [decode(each.data, each.source, each.destination) for each in mobility(world)]
    return [each.status for each in messages if isinstance(each, BindingAcknowledgement)]


def kernels(world: World) -> dict[int, dict[Any, Any]]:
    return {number: dict(maar.kernel.items) for number, maar in world.maars.items()}


def test_a_node_moves_among_maars_that_share_a_key() -> None:
    world = secure()
    for place in (1, 2, 3, 1):
        world.attach(place)
        world.check_reached()
        world.pass_time(60)
        world.settle()
    assert all(locate(packet.data) for packet in mobility(world))
    assert set(statuses(world)) == {0}
    assert [refused(world, number) for number in (1, 2, 3)] == [{}, {}, {}]


def test_retransmissions_are_signed_with_a_time_of_their_own() -> None:
    world = secure()
    world.attach(1)
    world.place = 2
    for kind in (1, 3):
        world.talk(kind)
    world.wire.clear()
    world.pass_time(8)
    sent = updates(world)
    stamps = [o.value for each in sent for o in each.options if isinstance(o, ReplayProtection)]
    assert len(set(stamps)) == len(stamps) == len(sent) == 4  # after 1, 2 and 4 s
    assert all(locate(packet.data) for packet in mobility(world))
    world.settle()
    world.check_reached()


def test_a_retransmission_while_the_kernel_is_busy_is_known_as_one() -> None:
    world = secure(slow_kernel=True, valid=0xFFFFFFFF)
    world.attach(1)
    world.place = 2
    for kind in (1, 3):
        world.talk(kind)
        world.run_kernel(2)
    (first,) = [packet for packet in world.wire if packet.destination == endpoint(1)]
    world.wire.clear()
    world.deliver(first)
    world.pass_time(1.5)
    for packet in [each for each in world.wire if each.destination == endpoint(1)]:
        world.deliver(packet)
    assert counters(world, 1)["pbu.duplicate"] == 1
    # The answer is to the last one: it repeats that one's time, and so is believed.
    world.settle()
    assert counters(world, 2)["pba.accepted"] == 1
    assert refused(world, 2) == {}


@pytest.mark.parametrize("difference", [-1e9, -60.0, 60.0, 1e9])
def test_clocks_that_differ_cost_no_time(difference: float) -> None:
    world = secure(epochs={1: TODAY, 2: TODAY + difference, 3: TODAY})
    world.attach(1)
    world.attach(2)  # time stands still meanwhile
    world.check_reached()
    assert statuses(world) == [Status.MIPV6_ID_MISMATCH, 0]
    world.pass_time(30)
    world.attach(3)
    world.check_reached()
    world.pass_time(30)
    world.attach(2)
    world.check_reached()
    assert refused(world, 1) == {"auth.stale": 1, "auth.answered-144": 1}


def test_a_peer_that_never_accepts_our_time_is_not_asked_at_once_for_ever() -> None:
    world = secure()
    world.attach(1)
    world.place = 2
    for kind in (1, 3):
        world.talk(kind)
    world.wire.clear()
    guard = world.maars[1].agent._guard
    for _ in range(4):
        (packet,) = [each for each in mobility(world)[-1:] if each.destination == endpoint(1)]
        update = decode(packet.data, endpoint(2), endpoint(1))
        (stamp,) = [o for o in update.options if isinstance(o, ReplayProtection)]
        answer = BindingAcknowledgement(144, update.sequence, 0, (stamp,))
        data = guard.outgoing(endpoint(2), answer, world.now)
        world.deliver(Packet("mobility", endpoint(1), endpoint(2), data))
        world.wire.clear()
    # Once at once; the next when its time has come.
    assert len(updates(world)) == 2


def test_a_maar_with_a_wrong_key_changes_nothing_until_it_has_the_right_one() -> None:
    world = secure(own={3: {"security": WRONG}})
    world.attach(1)
    before = kernels(world)[1]
    world.attach(3)
    assert kernels(world)[1] == before
    assert counters(world, 1)["auth.forged"] >= 1
    assert "pbu.accepted" not in counters(world, 1)
    assert any("is not signed by the key" in line for line in world.maars[1].log)
    # It is told, by a key that is not its own: it does not believe that either, and goes on.
    world.pass_time(3)
    world.settle()
    assert "pba.accepted" not in counters(world, 3)
    assert counters(world, 3)["auth.forged"] >= 1
    world.own.clear()
    world.restart(3)
    world.settle()
    world.pass_time(40)
    world.settle()
    world.check_reached()


def test_a_stranger_is_not_answered_and_asks_nothing_of_the_cmd() -> None:
    world = secure()
    world.attach(1)
    world.pass_time(1)
    world.settle()
    before, said = kernels(world), len(world.sent)
    for source in (endpoint(9), endpoint(2)):
        forged = encode(BindingUpdate(1, 1200), source, endpoint(1))
        world.deliver(Packet("mobility", source, endpoint(1), forged))
    world.pass_time(10)
    assert refused(world, 1) == {"auth.unsigned": 2}
    assert [each for each in world.sent[said:] if each.kind == "mobility"] == []
    assert [each for each in world.sent[said:] if each.source == endpoint(1)] == []
    assert kernels(world) == before


@pytest.mark.parametrize("restarted", [(), (1,), (2,), (1, 2, 3)])
@pytest.mark.parametrize("later", [0.0, 3.0, 3000.0])
def test_what_was_captured_is_of_no_use_after_the_node_moved_on(
    restarted: tuple[int, ...], later: float
) -> None:
    world = secure()
    for place in (1, 2, 3):
        world.attach(place)
        world.pass_time(1)
    captured = mobility(world)
    world.attach(1)
    world.pass_time(later)
    world.settle()
    for number in restarted:
        world.restart(number)
    world.settle()
    before = kernels(world)
    roles = [world.roles(number) for number in (1, 2, 3)]
    for packet in captured * 2:
        world.deliver(packet)
        world.settle()
    assert kernels(world) == before
    assert [world.roles(number) for number in (1, 2, 3)] == roles
    assert sum(sum(refused(world, number).values()) for number in (1, 2, 3)) >= len(captured)
    world.check_reached()


def test_a_message_turned_around_or_sent_on_is_refused() -> None:
    world = secure()
    world.attach(1)
    world.attach(2)
    before = kernels(world)
    for packet in mobility(world):
        world.deliver(Packet("mobility", packet.destination, packet.source, packet.data))
        world.deliver(Packet("mobility", packet.source, endpoint(3), packet.data))
    world.settle()
    assert kernels(world) == before
    assert counters(world, 3)["mobility.checksum"] >= 2
    assert refused(world, 1)["auth.forged"] + refused(world, 2)["auth.forged"] >= 2


def test_keys_come_into_a_running_domain_and_are_changed_in_it() -> None:
    world = secure(security=CHANGE[0])
    place = 1
    world.attach(place)
    for step in CHANGE[1:]:
        for number in (1, 2, 3):
            world.own[number] = {"security": step}
            world.restart(number)
            world.settle()
            place = place % 3 + 1
            world.attach(place)
            world.check_reached()
            world.pass_time(5)
            world.settle()
    assert set(statuses(world)) == {0}
    signed = [seal.spi for packet in mobility(world) if (seal := locate(packet.data))]
    assert {1001, 1002} == set(signed)
    assert signed[-1] == 1002


def test_a_mark_is_in_the_file_before_anybody_acts_on_the_message() -> None:
    world = secure()
    world.attach(1)
    world.place = 2
    for kind in (1, 3):
        world.talk(kind)
    (packet,) = world.wire
    actions = world.maars[1].agent.mobility_datagram(packet.source, packet.data, world.now)
    first, *rest = actions
    assert isinstance(first, act.SaveSession)
    assert first.record["kind"] == "mark"
    assert any(isinstance(each, act.SaveSession) and each.identity == NODE_ID for each in rest)
    assert all(not isinstance(each, act.SendMobility) for each in actions)


def test_a_damaged_mark_is_left_out() -> None:
    world = secure()
    world.attach(1)
    world.attach(2)
    maar = world.maars[1]
    marks = [name for name, (text, _) in maar.file.items() if '"mark"' in text]
    assert len(marks) == 1
    maar.file[marks[0]] = ('{"kind": "mark", "endpoint": 7, "timestamp": "soon"}', world.now)
    world.restart(1)
    assert counters(world, 1)["record.damaged"] == 1


def test_the_operator_hears_who_has_no_key() -> None:
    keys = Security(KeyStore(peers={endpoint(2): [KEY]}), require=True)
    world = secure(own={1: {"security": keys}})
    assert any(
        "no key is shared with 2001:db8:3::1" in line and "2001:db8:2::1" not in line
        for line in world.maars[1].log
    )
    assert not any("no key" in line for line in world.maars[2].log)
    assert link_prefix(1) not in world.roles(1)
