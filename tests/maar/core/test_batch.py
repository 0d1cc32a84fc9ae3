"""Many Applies made as one: the same outcome as one after the other, and what waits for them all the same."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire.address import Prefix
from relay_maar.core.actions import Apply, SendMobility
from relay_maar.core.batch import merged
from relay_maar.core.items import (
    AcceptFrom,
    Change,
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
from relay_maar.southbound.checks import Impossible, check
from tests.maar.core.world import ACCESS, MAC, NODE, Kernel, World, endpoint, link_prefix

ANCHORED = [Prefix.parse(f"2001:db8:1:10{n}::/64") for n in range(3)]
PEERS = [endpoint(2), endpoint(3)]


def through(peer: bytes) -> tuple[Item, ...]:
    return AcceptFrom(peer), Tunnel(peer)


STATES: list[tuple[Item, ...]] = [
    (),
    (Neighbour(ACCESS, NODE, MAC), *(Route(p, ToNode(ACCESS, NODE)) for p in ANCHORED)),
    *(
        (
            *through(peer),
            Neighbour(ACCESS, NODE, MAC),
            *(Route(p, ToNode(ACCESS, NODE)) for p in ANCHORED),
            *(SourceRule(p, peer) for p in ANCHORED),
        )
        for peer in PEERS
    ),
    *((*through(peer), *(Route(p, ToPeer(peer)) for p in ANCHORED)) for peer in PEERS),
    tuple(Route(p, Unreachable()) for p in ANCHORED),
]
"""What a node can want of a kernel: not here, local, served for either peer, anchored for either peer, ended."""


def difference(before: tuple[Item, ...], after: tuple[Item, ...]) -> tuple[Change, ...]:
    """As the core makes it: what is put before what is dropped, in the order of dependence."""
    keys = {item.key for item in after}
    puts = [Put(item) for item in after if item not in before]
    return *puts, *(Drop(item) for item in reversed(before) if item.key not in keys)


def make(kernel: Kernel, changes: tuple[Change, ...], *, checked: bool = True) -> None:
    """Make the changes one by one, as a driver does that checks each."""
    for change in changes:
        if checked:
            check(change, kernel.items, (ACCESS,), endpoint(1))
        kernel.apply((change,))


@given(st.sampled_from(STATES), st.lists(st.sampled_from(STATES), max_size=8))
def test_the_outcome_is_that_of_one_after_the_other_and_no_route_is_away_meanwhile(
    before: tuple[Item, ...], states: list[tuple[Item, ...]]
) -> None:
    """Whatever the kernel holds; and no tunnel goes that something there is still sent into."""
    held = {item.key: item for item in before}
    one_by_one, at_once, applies = Kernel(dict(held)), Kernel(dict(held)), []
    for token, after in enumerate(states):
        changes = difference(before, after)
        applies.append(Apply(token, changes))
        make(one_by_one, changes)
        before = after
    changes = merged(applies)
    assert len({change.item.key for change in changes}) == len(changes)
    make(at_once, changes)
    assert at_once.items == one_by_one.items
    # What is there in the end was not taken away before.
    assert all(
        change.item.key not in at_once.items for change in changes if isinstance(change, Drop)
    )


def test_what_one_needs_of_another_is_in_place_whichever_came_first() -> None:
    peer = PEERS[0]
    applies = (
        Apply(1, (*map(Put, through(peer)), Put(Route(ANCHORED[0], ToPeer(peer))))),
        Apply(2, (Put(Route(ANCHORED[1], ToPeer(peer))),)),
        Apply(3, (Put(Route(ANCHORED[0], Unreachable())),)),
    )
    for order in permutations(applies):
        kernel = Kernel()
        make(kernel, merged(order))
        assert Tunnel(peer).key in kernel.items


def test_a_tunnel_goes_after_its_last_user_and_not_before() -> None:
    peer = PEERS[0]
    kernel = Kernel()
    make(kernel, tuple(map(Put, STATES[2])))
    users = Apply(2, tuple(Drop(item) for item in STATES[2] if not isinstance(item, Tunnel)))
    with pytest.raises(Impossible):
        make(Kernel(dict(kernel.items)), (Drop(Tunnel(peer)), *users.changes))
    make(kernel, merged((Apply(1, (Drop(Tunnel(peer)),)), users)))
    assert kernel.items == {}


def _moved() -> World:
    """The node has come to MAAR 2, whose kernel has not answered for any of it."""
    world = World(slow_kernel=True)
    world.attach(1)
    world.place = 2
    world.talk(1)
    world.talk(3)
    return world


def test_applies_that_were_made_as_one_are_answered_as_one() -> None:
    world = _moved()
    maar = world.maars[2]
    applies, maar.applies = maar.applies, []
    assert applies
    assert not maar.said
    failures = maar.kernel.apply(merged(applies))
    actions = maar.agent.applied([each.token for each in applies], failures, world.now)
    (told,) = (each for each in actions if isinstance(each, SendMobility))
    assert told.destination == endpoint(1)
    assert maar.agent.applied(applies[0].token, {}, world.now) == []
    assert maar.agent.status(world.now)["counters"]["kernel.unknown-token"] == 1


def test_a_peer_is_not_told_of_what_one_of_several_refused_until_the_kernel_takes_it() -> None:
    world = _moved()
    maar = world.maars[2]
    applies, maar.applies = maar.applies, []
    refused = SourceRule(link_prefix(1), endpoint(1)).key
    maar.kernel.refuse.add(refused)
    failures = maar.kernel.apply(merged(applies))
    assert set(failures) == {refused}
    world.run(maar, maar.agent.applied([each.token for each in applies], failures, world.now))
    assert not maar.said
    maar.kernel.refuse.clear()
    world.pass_time(1.5)
    world.run_kernel(2)
    assert [each.destination for each in maar.said] == [endpoint(1)]
