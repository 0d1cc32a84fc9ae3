"""What every southbound driver keeps, whatever it drives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dmm_wire.address import Prefix, parse_address, parse_mac
from dmm_wire.router_identity import of_anchor
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Dlif,
    Drop,
    Item,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
    Unreachable,
)
from relay_maar.southbound.api import Southbound, SouthboundError, SouthboundSettings

PEER = parse_address("2001:db8:f::2")
OTHER = parse_address("2001:db8:f::3")
NODE = parse_address("fe80::10")
POOL = Prefix.parse("2001:db8:1::/48")
LOCAL = Prefix.parse("2001:db8:1:1::/64")
AWAY = Prefix.parse("2001:db8:1:2::/64")
VISITING = Prefix.parse("2001:db8:2:1::/64")
HOST = Prefix.parse("2001:db8:2:2::10/128")

ALL: tuple[Item, ...] = (
    Tunnel(PEER),
    Tunnel(OTHER),
    AcceptFrom(PEER),
    AcceptFrom(OTHER),
    Dlif("acc0", of_anchor(PEER)),
    Dlif("acc1", of_anchor(PEER)),
    Dlif("acc1", of_anchor(OTHER)),
    Neighbour("acc0", NODE, parse_mac("02:00:00:00:00:10")),
    Neighbour("acc1", NODE, parse_mac("02:00:00:00:00:11")),
    Route(POOL, Unreachable()),
    Route(LOCAL, ToNode("acc0", NODE)),
    Route(AWAY, ToPeer(PEER)),
    Route(VISITING, ToNode("acc1", NODE)),
    Route(HOST, ToNode("acc1", NODE)),
    SourceRule(VISITING, PEER),
    SourceRule(HOST, OTHER),
)

Make = Callable[[], Southbound]


def put(driver: Southbound, *items: Item) -> None:
    driver.apply([Put(item) for item in items])


def test_access_devices(new_driver: Make, settings: SouthboundSettings) -> None:
    devices = new_driver().open()
    assert [device.interface for device in devices] == list(settings.access_interfaces)
    assert len({device.index for device in devices}) == len(devices)
    for device in devices:
        assert device.link_local == settings.router.link_local
        assert device.link_layer == settings.router.link_layer


def test_nothing_at_first(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    assert driver.dump() == frozenset()


def test_dump_is_what_was_put(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    for number, item in enumerate(ALL):
        put(driver, item)
        assert driver.dump() == frozenset(ALL[: number + 1])


def test_put_is_idempotent(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    put(driver, *ALL, *ALL)
    put(driver, *ALL)
    assert driver.dump() == frozenset(ALL)


@pytest.mark.parametrize("item", ALL[2:], ids=lambda item: str(item.key[0]))
def test_drop_takes_that_item_only(new_driver: Make, item: Item) -> None:
    driver = new_driver()
    driver.open()
    put(driver, *ALL)
    driver.apply([Drop(item), Drop(item)])
    driver.apply([Drop(item)])
    assert driver.dump() == frozenset(ALL) - {item}


def test_drop_of_everything_in_reverse(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    put(driver, *ALL)
    driver.apply([Drop(item) for item in reversed(ALL)])
    assert driver.dump() == frozenset()


def test_drop_of_what_never_was(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    driver.apply([Drop(item) for item in ALL])
    driver.apply([Drop(Neighbour("elsewhere", NODE, bytes(6)))])
    assert driver.dump() == frozenset()


def test_drop_goes_by_key(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    put(driver, *ALL)
    driver.apply([Drop(Route(AWAY, Unreachable())), Drop(SourceRule(VISITING, OTHER))])
    assert driver.dump() == frozenset(ALL) - {Route(AWAY, ToPeer(PEER)), SourceRule(VISITING, PEER)}


TARGETS = (
    ToNode("acc0", NODE),
    ToNode("acc1", NODE),
    ToNode("acc1", parse_address("fe80::11")),
    ToPeer(PEER),
    ToPeer(OTHER),
    Unreachable(),
)


@pytest.mark.parametrize("before", TARGETS)
@pytest.mark.parametrize("after", TARGETS)
def test_route_is_replaced(
    new_driver: Make, before: ToNode | ToPeer | Unreachable, after: ToNode | ToPeer | Unreachable
) -> None:
    driver = new_driver()
    driver.open()
    tunnels = (Tunnel(PEER), Tunnel(OTHER))
    put(driver, *tunnels, Route(LOCAL, before))
    put(driver, Route(LOCAL, after))
    assert driver.dump() == {*tunnels, Route(LOCAL, after)}


def test_rule_and_neighbour_are_replaced(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    put(driver, *ALL)
    replaced: set[Item] = {
        SourceRule(VISITING, OTHER),
        Neighbour("acc0", NODE, parse_mac("02:00:00:00:00:99")),
    }
    put(driver, *replaced)
    keys = {item.key for item in replaced}
    assert driver.dump() == {item for item in ALL if item.key not in keys} | replaced


def test_sources_nest(new_driver: Make) -> None:
    """A prefix inside another one, each with its anchor: what becomes of the one is nothing to the other."""
    driver = new_driver()
    driver.open()
    tunnels = (Tunnel(PEER), Tunnel(OTHER))
    around, inside = Prefix.parse("2001:db8:2::/48"), VISITING
    put(driver, *tunnels, SourceRule(inside, PEER), SourceRule(around, OTHER))
    assert driver.dump() == {*tunnels, SourceRule(inside, PEER), SourceRule(around, OTHER)}
    put(driver, SourceRule(around, PEER))
    driver.apply([Drop(SourceRule(inside, PEER))])
    assert driver.dump() == {*tunnels, SourceRule(around, PEER)}
    put(driver, SourceRule(inside, OTHER))
    driver.apply([Drop(SourceRule(around, PEER))])
    assert driver.dump() == {*tunnels, SourceRule(inside, OTHER)}


def test_next_process_adopts(new_driver: Make) -> None:
    first = new_driver()
    devices = first.open()
    put(first, *ALL)
    first.close(keep=True)
    second = new_driver()
    assert second.open() == devices
    assert second.dump() == frozenset(ALL)
    changed = Route(LOCAL, ToPeer(OTHER))
    second.apply([Put(changed), Drop(SourceRule(VISITING, PEER)), Put(SourceRule(HOST, PEER))])
    assert second.dump() == (
        frozenset(ALL)
        - {Route(LOCAL, ToNode("acc0", NODE)), SourceRule(VISITING, PEER), SourceRule(HOST, OTHER)}
        | {changed, SourceRule(HOST, PEER)}
    )


def test_next_process_adopts_what_a_killed_one_left(new_driver: Make) -> None:
    killed = new_driver()
    killed.open()
    put(killed, *ALL)
    heir = new_driver()
    heir.open()
    heir.open()
    put(heir, *ALL)
    assert heir.dump() == frozenset(ALL)


def test_close_leaves_nothing_and_may_come_twice(new_driver: Make) -> None:
    first = new_driver()
    first.open()
    put(first, *ALL)
    first.close(keep=False)
    first.close(keep=False)
    second = new_driver()
    second.open()
    assert second.dump() == frozenset()


def test_close_without_open(new_driver: Make) -> None:
    killed = new_driver()
    killed.open()
    put(killed, *ALL)
    new_driver().close(keep=False)
    heir = new_driver()
    heir.open()
    assert heir.dump() == frozenset()


def test_failures_are_reported_per_change(new_driver: Make, settings: SouthboundSettings) -> None:
    driver = new_driver()
    driver.open()
    bad: tuple[Change, ...] = (
        Put(Route(LOCAL, ToNode("elsewhere", NODE))),
        Put(Neighbour("elsewhere", NODE, bytes(6))),
        Put(Route(AWAY, ToPeer(OTHER))),
        Put(SourceRule(VISITING, OTHER)),
        Put(Tunnel(settings.endpoint)),
        Drop(Tunnel(PEER)),
    )
    good: tuple[Item, ...] = (Tunnel(PEER), Route(AWAY, ToPeer(PEER)), SourceRule(HOST, PEER))
    changes = [*(Put(item) for item in good), *bad, Put(Route(POOL, Unreachable()))]
    with pytest.raises(SouthboundError) as error:
        driver.apply(changes)
    assert [change for change, _ in error.value.failures] == list(bad)
    assert [reason.split(":")[0] for _, reason in error.value.failures] == [
        "ENODEV",
        "ENODEV",
        "ENOENT",
        "ENOENT",
        "EINVAL",
        "EBUSY",
    ]
    assert driver.dump() == {*good, Route(POOL, Unreachable())}
    # The failure left nothing behind that confuses what comes next.
    put(driver, *ALL)
    assert driver.dump() == frozenset(ALL)


def test_an_empty_batch(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    driver.apply([])
    assert driver.dump() == frozenset()


CROWD = 1200
"""Nodes that move at once: more than fit one exchange with the kernel."""


def crowd(interface: str = "acc0") -> tuple[list[Item], list[Item], list[Item]]:
    """The items of as many nodes where they are: their neighbours, their routes, and the rules to PEER."""
    nodes = [parse_address(f"fe80::1:{number:x}") for number in range(CROWD)]
    prefixes = [
        Prefix.parse(f"2001:db8:2:{number:x}::/64") for number in range(0x100, 0x100 + CROWD)
    ]
    macs = [b"\x02\0\0\0" + number.to_bytes(2, "big") for number in range(CROWD)]
    return (
        [Neighbour(interface, node, mac) for node, mac in zip(nodes, macs, strict=True)],
        [Route(p, ToNode(interface, node)) for p, node in zip(prefixes, nodes, strict=True)],
        [SourceRule(p, PEER) for p in prefixes],
    )


def test_a_crowd_comes_moves_on_and_goes_in_a_batch_each(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    neighbours, routes, rules = crowd()
    tunnel = Tunnel(PEER)
    put(driver, tunnel, *neighbours, *routes, *rules)
    assert driver.dump() == {tunnel, *neighbours, *routes, *rules}
    away = [Route(route.prefix, ToPeer(PEER)) for route in routes if isinstance(route, Route)]
    leaving = [Drop(item) for item in (*rules, *neighbours)]
    driver.apply([*map(Put, away), *leaving])
    assert driver.dump() == {tunnel, *away}
    driver.apply([*(Drop(route) for route in away), Drop(tunnel)])
    assert driver.dump() == frozenset()


def test_the_same_batch_again_changes_nothing(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    neighbours, routes, rules = crowd()
    everything = [Tunnel(PEER), *neighbours, *routes, *rules]
    for _ in range(2):
        put(driver, *everything)
    assert driver.dump() == frozenset(everything)
    gone = [Drop(item) for item in reversed(everything)]
    for _ in range(2):
        driver.apply(gone)
    assert driver.dump() == frozenset()


def test_of_a_crowd_exactly_those_fail_that_cannot_be_made(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    neighbours, routes, rules = crowd()
    strangers = [
        SourceRule(rule.prefix, OTHER) for rule in rules[::100] if isinstance(rule, SourceRule)
    ]
    bad: list[Item] = [*strangers, Neighbour("elsewhere", NODE, bytes(6))]
    good = [Tunnel(PEER), *neighbours, *routes, *(rule for n, rule in enumerate(rules) if n % 100)]
    changes = [Put(item) for item in good]
    for number, item in enumerate(bad):
        changes.insert(1 + 250 * number, Put(item))
    with pytest.raises(SouthboundError) as error:
        driver.apply(changes)
    assert [change.item for change, _ in error.value.failures] == bad
    assert driver.dump() == frozenset(good)
    # Who comes next is not mixed up with who failed.
    put(driver, *rules)
    assert driver.dump() == {*good, *rules}


def test_nobody_disturbs_and_nothing_is_to_be_restored(new_driver: Make) -> None:
    driver = new_driver()
    devices = driver.open()
    driver.watch()
    put(driver, *ALL)
    driver.apply([Drop(item) for item in reversed(ALL)])
    put(driver, *ALL[:-1])
    assert not driver.disturbed()
    state = driver.restore()
    assert (state.access, state.items) == (devices, frozenset(ALL[:-1]))
    assert (state.repaired, state.faults) == (0, ())
    assert state.core_index not in (0, *(device.index for device in devices))
    assert not driver.disturbed()
    assert driver.dump() == frozenset(ALL[:-1])


def test_watch_may_come_twice_and_ends_with_the_driver(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    assert driver.watch() == driver.watch()
    driver.close(keep=False)


def test_errors_are_listened_for_as_often_as_one_likes(new_driver: Make) -> None:
    driver = new_driver()
    driver.open()
    put(driver, *ALL)
    assert driver.relay_errors() == {}
    assert driver.errors() == driver.errors()
    assert driver.relay_errors() == {}
    assert driver.dump() == frozenset(ALL)
    driver.close(keep=True)
    heir = new_driver()
    heir.open()
    assert heir.errors() == heir.errors()
