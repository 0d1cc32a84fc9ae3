"""The whole story: one node, three moves, three MAARs and a CMD in memory."""

from __future__ import annotations

from relay_maar.core.items import SourceRule, Tunnel
from tests.maar.core.world import World, delegated_prefix, endpoint, link_prefix


def roles(world: World, number: int) -> dict[str, str]:
    return {str(prefix): role for prefix, role in world.roles(number).items()}


def expected(**by_role: int | tuple[int, ...]) -> dict[str, str]:
    return {
        str(prefix(number)): role
        for role, numbers in by_role.items()
        for number in ([numbers] if isinstance(numbers, int) else numbers)
        for prefix in (link_prefix, delegated_prefix)
    }


def tunnels(world: World, number: int) -> set[bytes]:
    items = world.maars[number].kernel.items.values()
    return {item.peer for item in items if isinstance(item, Tunnel)}


def test_three_moves() -> None:
    world = World()
    world.attach(1)
    world.check_reached()
    assert roles(world, 1) == expected(local=1)
    assert tunnels(world, 1) == set()

    world.attach(2)
    world.check_reached()
    assert roles(world, 1) == expected(anchored=1)
    assert roles(world, 2) == expected(served=1, local=2)
    assert tunnels(world, 1) == {endpoint(2)}
    assert tunnels(world, 2) == {endpoint(1)}
    rules = [i for i in world.maars[2].kernel.items.values() if isinstance(i, SourceRule)]
    assert {(rule.prefix, rule.peer) for rule in rules} == {
        (link_prefix(1), endpoint(1)),
        (delegated_prefix(1), endpoint(1)),
    }

    world.attach(3)
    world.check_reached()
    assert roles(world, 1) == expected(anchored=1)
    assert roles(world, 2) == expected(forwarded=1, anchored=2)
    assert roles(world, 3) == expected(served=(1, 2), local=3)
    assert tunnels(world, 1) == {endpoint(3)}
    assert tunnels(world, 2) == {endpoint(3)}

    world.attach(1)
    world.check_reached()
    assert roles(world, 1) == expected(local=1, served=(2, 3))
    assert roles(world, 2) == expected(anchored=2)
    assert roles(world, 3) == expected(anchored=3, forwarded=2)
    assert tunnels(world, 1) == {endpoint(2), endpoint(3)}
    assert world.trace(link_prefix(1)) == ["maar1", "node"]
    assert world.trace(link_prefix(1), 3) == ["maar3", "maar1", "node"]
