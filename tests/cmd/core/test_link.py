"""Two identifiers that the operator says are one node's."""

from __future__ import annotations

import pytest

from dhcp_cmd.core.identity import linked
from dhcp_cmd.core.link import Unknown
from dhcp_cmd.core.model import Kind, Settings, State
from dhcp_cmd.core.replay import Held, replay
from dhcp_cmd.service import Cmd
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import Status
from tests.cmd.core.registering import Maars
from tests.cmd.core.world import Host, World, na

NAI = Identity(IdentitySubtype.NAI, b"anna@example.org")
OTHER_MAC = bytes.fromhex("020000005302")
OTHER = Identity(IdentitySubtype.EUI48, OTHER_MAC)


@pytest.fixture
def world() -> World:
    return World(mode=SignallingMode.PROXY)


def test_two_nodes_become_one_where_it_was_last(world: World) -> None:
    maars, host = Maars(world), Host(1)
    world.attached(host, 1, na())
    world.later(60)
    (prefix,) = maars.register(2, identity=NAI, link_layer=None).local
    assert len(world.store.tables.nodes) == 2
    assert world.cmd.link(host.identity, NAI, world.now)
    (node,) = world.store.tables.nodes.values()
    assert (node.serving, set(node.identities)) == (2, {NAI, host.identity, host.hardware})
    links = {b.prefix: b.state for b in world.rows(host, kind=Kind.LINK)}
    assert links.pop(prefix) is State.ACTIVE
    assert list(links.values()) == [State.DEPRECATED]
    assert set(world.store.tables.signals) == {(node.id, 1)}
    assert replay(world.store.history) == {k: Held.of(b) for k, b in world.store.bindings.items()}
    assert not world.cmd.link(NAI, host.identity, world.now)


def test_who_links_without_knowing_the_mode_takes_nothing_from_anybody(world: World) -> None:
    """MAAR 1 is still owed the move of the one that is absorbed; `dhcp-cmd node link` may have no --config."""
    maars, host = Maars(world), Host(1)
    world.attached(host, 1, na())
    world.later(60).attached(host, 3, na())
    world.later(60)
    maars.register(2, identity=NAI, link_layer=None)
    operator = Cmd(world.store, Settings(server_duid=b""))
    assert operator.link(host.identity, NAI, world.now)
    (node,) = world.store.tables.nodes.values()
    assert node.serving == 2
    assert set(world.store.tables.signals) == {(node.id, 1), (node.id, 3)}
    assert all(each.visit for each in world.store.tables.signals.values())


def test_in_mode_direct_a_link_owes_nothing() -> None:
    world = World()
    world.attached(Host(1), 1, na())
    world.later(60).attached(Host(2), 2, na())
    assert world.cmd.link(Host(1).identity, Host(2).identity, world.now)
    assert world.store.tables.signals == {}


def test_then_it_moves_between_both_kinds_of_maars(world: World) -> None:
    maars, host = Maars(world), Host(1)
    world.attached(host, 1, na())
    world.cmd.link(host.identity, NAI, world.now)
    world.cmd.link(host.identity, OTHER, world.now)
    for maar, how in ((2, (NAI, None)), (3, (OTHER, OTHER_MAC)), (2, (NAI, OTHER_MAC))):
        world.later(60)
        answer = maars.register(maar, identity=how[0], link_layer=how[1])
        assert answer.status == Status.ACCEPTED
    world.later(60)
    assert world.attached(host, 1, na()).ia_status == {}
    assert len(world.store.tables.nodes) == 1
    assert world.node(host).serving == 1


def test_what_nobody_is_known_by_cannot_be_linked(world: World) -> None:
    with pytest.raises(Unknown, match=r"no node is known by nai:anna@example\.org or eui48:"):
        world.cmd.link(NAI, OTHER, world.now)
    assert world.store.tables.nodes == {}


# --- said before the node is known ---


@pytest.mark.parametrize("dhcp_first", [True, False])
def test_a_link_that_was_prepared_makes_one_node(world: World, dhcp_first: bool) -> None:
    """By its DUID and one link-layer address here, by another there: nothing in common but the operator's word."""
    maars, host = Maars(world), Host(1)
    world.change(linked=linked([(host.identity, OTHER)]))

    def by_dhcp(maar: int) -> None:
        world.attached(host, maar, na())

    def by_pbu(maar: int) -> None:
        answer = maars.register(maar, identity=OTHER, link_layer=OTHER_MAC)
        assert answer.status == Status.ACCEPTED

    by_dhcp(1) if dhcp_first else by_pbu(1)
    (node,) = world.store.tables.nodes.values()
    assert {*node.identities} >= {host.identity, OTHER}
    world.later(10)
    by_pbu(2)
    (node,) = world.store.tables.nodes.values()
    assert node.serving == 2
    assert {b.anchor for b in world.store.bindings.values()} == {1, 2}


def test_a_name_that_is_learned_later_brings_what_was_linked_with_it(world: World) -> None:
    maars, host = Maars(world), Host(1, mac=OTHER_MAC)
    world.change(linked=linked([(host.identity, NAI)]))
    assert maars.register(1, identity=OTHER, link_layer=OTHER_MAC).status == Status.ACCEPTED
    world.later(10)
    world.attached(host, 1, na())
    (node,) = world.store.tables.nodes.values()
    assert {*node.identities} == {OTHER, host.identity, NAI}
    world.later(10)
    assert maars.register(2, identity=NAI, link_layer=None).status == Status.ACCEPTED
    assert len(world.store.tables.nodes) == 1


def test_a_link_outlives_the_node(world: World) -> None:
    """What holds nothing for long is forgotten, and comes back as one."""
    maars, host = Maars(world), Host(1)
    world.change(linked=linked([(host.identity, NAI)]))
    for _ in range(2):
        world.attached(host, 1, na())
        world.later(10)
        assert maars.register(2, identity=NAI, link_layer=None).status == Status.ACCEPTED
        assert len(world.store.tables.nodes) == 1
        world.later(10 * 86_400)
        for _ in range(4):
            world.cmd.reap(world.now, 100)
            world.later(2 * 86_400)
        assert world.store.tables.nodes == {}


def test_who_was_not_linked_is_somebody_else(world: World) -> None:
    """Two systems on one interface, of which the operator linked one."""
    maars, one, two = Maars(world), Host(1, mac=OTHER_MAC), Host(2, mac=OTHER_MAC)
    world.change(linked=linked([(one.identity, NAI), (OTHER, NAI)]))
    for host in (one, two):
        world.attached(host, 1, na())
        world.later(10)
    assert len(world.store.tables.nodes) == 2
    assert maars.register(2, identity=NAI, link_layer=None).status == Status.ACCEPTED
    assert len(world.store.tables.nodes) == 2
    served = {node.serving: set(node.identities) for node in world.store.tables.nodes.values()}
    assert served == {2: {one.identity, OTHER, NAI}, 1: {two.identity}}


def test_what_is_parted_is_nobodys(world: World) -> None:
    maars, host = Maars(world), Host(1)
    world.attached(host, 1, na())
    assert world.cmd.link(host.identity, NAI, world.now)
    assert world.cmd.unlink(host.identity, NAI)
    assert not world.cmd.unlink(host.identity, NAI)
    assert not world.cmd.unlink(NAI, OTHER)
    (node,) = world.store.tables.nodes.values()
    assert set(node.identities) == {host.identity, host.hardware}
    world.later(10)
    assert maars.register(2, identity=NAI, link_layer=None).status == Status.ACCEPTED
    assert len(world.store.tables.nodes) == 2
    assert [b.anchor for b in world.rows(host, kind=Kind.LINK)] == [1]


def test_links_are_a_matter_of_groups() -> None:
    one, two, three, four, five = (
        Identity(IdentitySubtype.NAI, bytes((octet,)) + b"@example.org") for octet in b"abcde"
    )
    found = linked([(one, two), (four, five), (two, three), (one, three)])
    assert {each: set(others) for each, others in found.items()} == {
        one: {two, three},
        two: {one, three},
        three: {one, two},
        four: {five},
        five: {four},
    }
    assert linked([]) == {}
