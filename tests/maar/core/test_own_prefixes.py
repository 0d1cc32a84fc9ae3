"""A MAAR that chooses a node's prefix itself (RFC 8885 section 3.1), and a CMD that may refuse it."""

from __future__ import annotations

from typing import Any

import pytest

from dhcp_cmd.core.model import Kind
from dmm_wire.address import Prefix
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import HomeNetworkPrefix
from dmm_wire.mobility.answers import ALL_ZERO
from relay_maar.core.own_prefixes import MOST_REFUSED, OwnPrefixes
from tests.maar.core.pmip_world import PmipWorld, walked
from tests.maar.core.world import MAC, pools

POOL = pools(1)[0]
SECRET = b"secret"
EVERY_MODE = pytest.mark.parametrize(
    "mode", [SignallingMode.RELAY, SignallingMode.PROXY, SignallingMode.LOCATOR]
)


def chooses(*numbers: int, **own: Any) -> dict[int, dict[str, Any]]:
    return {number: {"own_prefixes": pools(number)[0], **own} for number in numbers}


def named(world: PmipWorld, number: int = -1) -> list[Prefix]:
    """What a registration at the CMD named, mostly the last; all zeros included."""
    _, update = world.registered[number]
    return [each.prefix for each in update.options if isinstance(each, HomeNetworkPrefix)]


# --- choosing ---


def test_it_is_a_64_of_the_pool_and_the_same_each_time() -> None:
    own = OwnPrefixes(POOL, SECRET, lambda prefix: True)
    chosen = own.choose(MAC, 0)
    assert chosen is not None
    assert chosen.length == 64
    assert POOL.contains(chosen)
    assert chosen == own.choose(MAC, 0)


def test_nodes_are_spread_over_the_whole_pool() -> None:
    own = OwnPrefixes(Prefix.parse("2001:db8:1:100::/60"), SECRET, lambda prefix: True)
    found = {own.choose(number.to_bytes(6, "big"), 0) for number in range(400)}
    assert len(found) == 16


def test_another_secret_is_another_choice() -> None:
    nodes = [number.to_bytes(6, "big") for number in range(50)]
    one, other = (OwnPrefixes(POOL, key, lambda prefix: True) for key in (b"one", b"other"))
    assert sum(one.choose(each, 0) == other.choose(each, 0) for each in nodes) < 10


def test_what_a_node_here_has_is_passed_over() -> None:
    first = OwnPrefixes(POOL, SECRET, lambda prefix: True).choose(MAC, 0)
    second = OwnPrefixes(POOL, SECRET, lambda prefix: prefix != first).choose(MAC, 0)
    assert second not in (first, None)
    assert OwnPrefixes(POOL, SECRET, lambda prefix: False).choose(MAC, 0) is None


def test_after_refusals_the_cmd_chooses() -> None:
    own = OwnPrefixes(Prefix.parse("2001:db8::/32"), SECRET, lambda prefix: True)
    choices = [own.choose(MAC, refused) for refused in range(MOST_REFUSED)]
    assert len(set(choices)) == MOST_REFUSED
    assert own.choose(MAC, MOST_REFUSED) is None


def test_a_pool_of_one() -> None:
    one = Prefix.parse("2001:db8:1:101::/64")
    assert OwnPrefixes(one, SECRET, lambda prefix: True).choose(MAC, 0) == one


# --- with the CMD ---


def local(world: PmipWorld, number: int) -> Prefix:
    """The node's prefix at this MAAR, where it is."""
    (found,) = (prefix for prefix, role in world.roles(number).items() if role == "local")
    return found


@EVERY_MODE
def test_the_node_gets_what_its_maar_chose(mode: SignallingMode) -> None:
    world = walked(PmipWorld(mode, 2, own=chooses(1, 2)), 1)
    (first,) = named(world)
    assert first == local(world, 1)
    assert first.length == 64
    assert pools(1)[0].contains(first)
    bound = {b.prefix: b.kind for b in world.store.bindings.values()}
    assert bound == {first: Kind.LINK}
    walked(world, 2)
    assert named(world) == [local(world, 2)]
    assert pools(2)[0].contains(local(world, 2))
    assert world.roles(2)[first] == "served"
    world.check()


@EVERY_MODE
def test_one_that_the_cmd_refuses_is_not_insisted_on(mode: SignallingMode) -> None:
    """Out of a pool that is another MAAR's: 155 each time, until the CMD is asked to choose."""
    world = PmipWorld(mode, 2, own={1: {"own_prefixes": pools(2)[0]}})
    walked(world, 1)
    asked = [
        [each.prefix for each in update.options if isinstance(each, HomeNetworkPrefix)]
        for _, update in world.registered
    ]
    assert len({prefix for (prefix,) in asked}) == MOST_REFUSED + 1
    assert asked[-1] == [ALL_ZERO.prefix]
    assert pools(1)[0].contains(local(world, 1))
    world.check()


def test_a_node_that_the_cmd_knows_here_keeps_what_it_has() -> None:
    """A MAAR that has lost all it knew chooses another one, and is told."""
    world = walked(PmipWorld(SignallingMode.PROXY, 2, own=chooses(1)), 1)
    before = local(world, 1)
    world.own[1] = {"own_prefixes": Prefix(pools(1)[0].address, 59)}
    world.maars[1].file.clear()
    world.restart(1)
    world.show()
    world.go_on(10)
    assert len({named(world, number)[0] for number in range(1, MOST_REFUSED + 1)}) == MOST_REFUSED
    assert named(world) == [ALL_ZERO.prefix]
    assert local(world, 1) == before


def test_what_is_known_is_named_and_nothing_else_chosen() -> None:
    world = walked(PmipWorld(SignallingMode.PROXY, 2, own=chooses(1)), 1)
    mine = local(world, 1)
    walked(world, 2, 1)
    assert named(world) == [mine]
    assert local(world, 1) == mine


def test_of_one_that_leaves_no_prefix_is_chosen() -> None:
    world = walked(PmipWorld(SignallingMode.PROXY, 2, own=chooses(1), lifetime=600), 1)
    mine = local(world, 1)
    world.awake = False
    world.go_on(700)
    assert world.registered[-1][1].lifetime == 0
    assert named(world) == [mine]
