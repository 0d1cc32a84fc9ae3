"""Whatever is lost, doubled, overtaken or killed: no packet ever loops, and in the end the roles
are right everywhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.router_identity import of_anchor
from relay_maar.core.items import Dlif
from relay_maar.core.settings import AccessLink, RouterSettings
from tests.maar.core.world import ACCESS, MAC, World, delegated_prefix, endpoint, link_prefix

SECOND = "access1"
LINKS = tuple(
    AccessLink(name, parse_address(address), name.encode(), MAC)
    for name, address in ((ACCESS, "fd00::1"), (SECOND, "fd00::2"))
)
NUMBERS = st.sampled_from([1, 2, 3])
KINDS = st.sampled_from([MessageType.SOLICIT, MessageType.REQUEST, MessageType.RENEW])
STEPS = st.one_of(
    st.tuples(st.just("move"), NUMBERS),
    st.tuples(st.just("attach"), NUMBERS),
    st.tuples(st.just("talk at"), NUMBERS),
    st.tuples(st.just("link"), st.sampled_from([ACCESS, SECOND])),
    st.tuples(st.just("talk"), KINDS),
    st.tuples(st.just("lose all"), st.none()),
    st.tuples(st.just("say"), KINDS),
    st.tuples(st.just("deliver"), st.integers(0, 30)),
    st.tuples(st.just("deliver"), st.just(0)),
    st.tuples(st.just("lose"), st.integers(0, 30)),
    st.tuples(st.just("double"), st.integers(0, 30)),
    st.tuples(st.just("kernel"), NUMBERS),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 3.0, 20.0, 70.0, 200.0])),
    st.tuples(st.just("kill"), NUMBERS),
    st.tuples(st.just("end"), NUMBERS),
    st.tuples(st.just("cmd"), st.booleans()),
)


def perform(world: World, step: tuple[str, Any]) -> None:
    what, value = step
    match what:
        case "move" | "attach" | "talk at":
            world.place = value
            if what == "move":
                world.say(MessageType.SOLICIT)
            elif what == "talk at":
                world.talk(MessageType.REQUEST)
            elif world.cmd_up and not world.slow_kernel:
                world.attach(value)
        case "link":
            world.interface = value
        case "say":
            world.say(value)
        case "talk":
            world.talk(value)
        case "deliver" | "lose" | "double":
            disturb(world, what, value)
        case "lose all":
            world.wire.clear()
        case "kernel":
            world.run_kernel(value)
        case "wait":
            world.pass_time(value, world.check_no_loop)
        case "kill":
            world.restart(value)
        case "end":
            world.cmd.prefixes.pop(link_prefix(value), None)
        case "cmd":
            world.cmd_up = bool(value)


def disturb(world: World, what: str, index: int) -> None:
    """Deliver a packet of the wire out of turn, lose it, or deliver it and keep it for another time."""
    if world.wire:
        packet = world.wire[index % len(world.wire)]
        if what != "double":
            world.wire.remove(packet)
        if what != "lose":
            world.deliver(packet)


def heal(world: World, seconds: float) -> None:
    """Nothing is lost any more, and the node renews now and then."""
    world.cmd_up = True
    for _ in range(int(seconds / 40)):
        world.say(MessageType.RENEW)
        world.settle()
        world.check_no_loop()
        world.pass_time(40.0, world.check_no_loop)
        world.settle()
        world.check_no_loop()


@pytest.mark.timeout(600)  # sixty lives, on a machine that may be busy
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, min_size=5, max_size=60), slow_kernel=st.booleans())
def test_no_loop_and_the_right_end(steps: list[tuple[str, Any]], slow_kernel: bool) -> None:
    # Advertisements have no part in this.
    world = World(
        slow_kernel=slow_kernel,
        valid=300,
        router=RouterSettings(600.0, 1800.0),
        access=LINKS,
        dlif=True,
    )
    for step in steps:
        perform(world, step)
        world.check_no_loop()
    # A MAAR of which the CMD knows more than we let it hear learns the rest when the node comes to
    # it again; what nobody tells it any more ends with its lifetime.
    world.place = world.place or 1
    heal(world, 700)
    world.check_reached()
    for number, maar in world.maars.items():
        roles = world.roles(number)
        if number == world.place:
            here = {
                p: "local" if a == number else "served"
                for p, (a, _, _) in world.cmd.prefixes.items()
            }
            assert roles == here
        else:
            anchored = {p for p, (a, _, _) in world.cmd.prefixes.items() if a == number}
            assert {p for p, role in roles.items() if role == "anchored"} == anchored
            assert not {p for p, role in roles.items() if role in ("local", "served")}
        shown = {item for item in maar.kernel.items.values() if isinstance(item, Dlif)}
        anchors = {world.cmd.prefixes[p][0] for p, role in roles.items() if role == "served"}
        assert shown == {Dlif(world.interface, of_anchor(endpoint(each))) for each in anchors}
        assert not maar.applies


def test_nothing_is_left_when_all_has_ended() -> None:
    world = World(valid=300)
    before = {n: dict(maar.kernel.items) for n, maar in world.maars.items()}
    for number in (1, 2, 3, 1):
        world.attach(number)
    world.place = None
    for _ in range(100):
        world.pass_time(10.0, world.check_no_loop)
        world.settle()
    assert {n: maar.kernel.items for n, maar in world.maars.items()} == before
    assert all(list(maar.file) == ["0:646f6d61696e"] for maar in world.maars.values())
    assert delegated_prefix(1) not in world.roles(1)
