"""Two identifiers that the operator says are one node's."""

from __future__ import annotations

import pytest

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
