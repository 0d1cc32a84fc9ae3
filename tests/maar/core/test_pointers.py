"""What is sent after a node that has left ends when it is seen again, before anybody sends anything back."""

from __future__ import annotations

import pytest

from dmm_wire.address import Prefix, parse_address
from dmm_wire.dmm import SignallingMode
from relay_maar.core.items import Route, ToPeer, Unreachable
from tests.maar.core.modes_world import ModesWorld
from tests.maar.core.pmip_world import PmipWorld, walked
from tests.maar.core.world import ACCESS, MAC, NODE

MODES = [SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY]
OTHER_MAC, OTHER = bytes.fromhex("0200000000bb"), parse_address("fe80::ff:fe00:2")


def of_one(world: ModesWorld) -> Prefix:
    """The node's on-link prefix that is anchored at MAAR 1."""
    return min(b.prefix for b in world.store.bindings.values() if b.anchor == 1)


def is_pointer(world: ModesWorld, number: int) -> bool:
    """Whether this MAAR sends on what comes for that prefix."""
    item = world.maars[number].kernel.items.get(Route(of_one(world), Unreachable()).key)
    return isinstance(item, Route) and isinstance(item.target, ToPeer)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [ModesWorld, PmipWorld])
def test_a_node_that_comes_back(mode: SignallingMode, kind: type[ModesWorld]) -> None:
    """What the CMD says to MAAR 2 is lost for a while; all others know that the node is there."""
    deaf = False
    world = kind(
        mode, 3, lambda what, _: deaf and ("cmd > maar2" in what or "> maar2  PBA" in what)
    )
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(10.0)
    assert is_pointer(world, 2)
    deaf = True
    world.attach(2)
    world.go_on(3.0)
    assert is_pointer(world, 3)
    assert not is_pointer(world, 2)
    deaf = False
    world.attach(2)
    world.go_on(40.0)
    world.check()


def test_others_that_are_seen_change_nothing() -> None:
    world = walked(PmipWorld(SignallingMode.PROXY, 3), 1, 2, 3)
    maar = world.maars[2]
    world.run(maar, maar.agent.seen(ACCESS, OTHER, OTHER_MAC, "mld", world.now))
    assert is_pointer(world, 2)


def test_it_outlives_a_restart_and_an_older_message() -> None:
    """A second copy of the PBU about MAAR 3 comes after the node was seen at MAAR 2."""
    deaf = False
    world = PmipWorld(SignallingMode.PROXY, 3, lambda what, _: deaf and "maar2 > cmd" in what)
    walked(world, 1, 2, 3)
    late = [packet for packet in world.sent if "maar2  PBU: at maar3" in world.told(packet)][-1]
    world.restart(2)
    assert is_pointer(world, 2)
    deaf = True
    maar = world.maars[2]
    world.run(maar, maar.agent.seen(ACCESS, NODE, MAC, "mld", world.now))
    assert not is_pointer(world, 2)
    world.restart(2)
    world.wire.append(late)
    world.go_on(1.0)
    assert not is_pointer(world, 2)
