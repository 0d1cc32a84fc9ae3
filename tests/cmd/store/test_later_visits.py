"""An anchor knows a later visit than the CMD: one transaction makes ours the latest, in every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dhcp_cmd.core.model import Lookup, Signal, Snapshot
from dhcp_cmd.core.ports import Store
from dhcp_cmd.core.signals import MOST_AHEAD, RAISED, TOO_FAR
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, maintenance
from dmm_wire.dmm import SignallingMode
from dmm_wire.timestamp import from_micros
from tests.cmd.core.world import Host, World
from tests.cmd.store.domain import ENGINES, memory_store, opened
from tests.cmd.store.test_contract import domain_of

HOST = Host(1)


@pytest.fixture(params=["memory", *ENGINES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with (
        memory_store(tmp_path) if request.param == "memory" else opened(request.param, tmp_path)
    ) as made:
        yield made


@pytest.fixture
def world(store: Store) -> World:
    """The host has gone from MAAR 1 to MAAR 2, which nobody has acknowledged."""
    world = World(domain_of(store), mode=SignallingMode.PROXY)
    world.cmd = Cmd(store, world.settings)
    for maar in (1, 2):
        world.attached(HOST, maar)
        world.later(60)
    world.cmd.signalled.clear()
    return world


def read(store: Store) -> Snapshot:
    with store.transaction() as transaction:
        snapshot = transaction.read([Lookup((HOST.identity,))])
        transaction.signals(snapshot)
        return snapshot


def test_ours_is_the_later_one_and_is_owed_again(store: Store, world: World) -> None:
    before = read(store)
    node = before.nodes[HOST.identity]
    for known in (node.generation + 5, from_micros(world.now + MOST_AHEAD) - 1):
        assert world.cmd.anchor_knows_later(HOST.identity, 1, known, world.now) == RAISED
        after = read(store)
        assert after.nodes[HOST.identity] == node._replace(generation=known + 1)
        assert after.signals[node.id][1] == Signal(node.id, 1, True, world.now)
        assert after.bindings == before.bindings
        assert list(world.cmd.signalled) == [(node.id, 1)]
        world.later(1)
    if isinstance(store, SqlStore):
        assert maintenance.check(store) == []
    # The next visit is later still.
    world.attached(HOST, 3)
    assert read(store).nodes[HOST.identity].generation == known + 2


def test_nothing_else_changes_anything(store: Store, world: World) -> None:
    before = read(store)
    node = before.nodes[HOST.identity]
    too_far = from_micros(world.now + MOST_AHEAD)
    for identity, anchor, known, expected in (
        (HOST.identity, 1, node.generation, None),
        (HOST.identity, 1, node.generation - 5, None),
        (HOST.identity, 2, node.generation + 5, None),  # the node is there
        (Host(9).identity, 1, node.generation + 5, None),
        (HOST.identity, 1, too_far, TOO_FAR),
        (HOST.identity, 1, (1 << 64) - 1, TOO_FAR),
    ):
        assert world.cmd.anchor_knows_later(identity, anchor, known, world.now) == expected
    assert read(store) == before
    assert world.cmd.signalled == {}
