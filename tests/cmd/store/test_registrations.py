"""What MAARs register by PMIPv6, in every store: the timestamp, the mark on a prefix, what is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dhcp_cmd.core.model import (
    MICROS,
    EventType,
    Lookup,
    PutBinding,
    PutNode,
    Record,
    State,
)
from dhcp_cmd.core.ports import Store
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SCHEMA_VERSION, SqlStore, StoreError, maintenance, open_store, upgrade
from dhcp_cmd.store.nodes import keep_link, known
from dmm_wire import dmm
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import Status
from tests.cmd.core.registering import EUI48, MAC, Maars
from tests.cmd.core.world import Host, World, na
from tests.cmd.store.domain import (
    ENGINES,
    T0,
    a_binding,
    a_node,
    duid,
    event,
    memory_store,
    opened,
    the_pool,
    url_of,
    without_routers,
)
from tests.cmd.store.test_contract import domain_of, written

HELD = T0 + 10 * MICROS
OTHER = Identity(IdentitySubtype.NAI, b"anna@example.org")


@pytest.fixture(params=["memory", *ENGINES])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with (
        memory_store(tmp_path) if request.param == "memory" else opened(request.param, tmp_path)
    ) as made:
        yield made


def test_a_node_keeps_its_timestamp(store: Store) -> None:
    binding = a_binding(the_pool(domain_of(store)), 1, 7)
    node = a_node(7)._replace(registered=(1 << 48) + 5)
    written(store, PutNode(node, True), PutBinding(binding, True))
    for each in (node, node._replace(registered=(1 << 48) + 6), node._replace(registered=None)):
        written(store, PutNode(each, False))
        with store.transaction() as transaction:
            assert transaction.read([Lookup((duid(7),))]).nodes[duid(7)] == each


def test_a_prefix_keeps_its_mark(store: Store) -> None:
    binding = a_binding(the_pool(domain_of(store)), 1, 7, autoconf=True)
    written(store, PutNode(a_node(7), True), PutBinding(binding, True))
    for each in (binding, binding._replace(autoconf=False), binding):
        written(store, PutBinding(each, False))
        with store.transaction() as transaction:
            snapshot = transaction.read([Lookup((duid(7),))])
        assert list(snapshot.bindings[7].values()) == [each]


@pytest.mark.parametrize("state", [State.ACTIVE, State.DEPRECATED])
def test_whatever_is_held_is_due_when_that_is_over(store: Store, state: State) -> None:
    pool = the_pool(domain_of(store))
    held = a_binding(pool, 1, 7, state=state, hold_until=HELD)
    other = a_binding(pool, 2, 7, state=state)
    written(store, PutNode(a_node(7), True), PutBinding(held, True), PutBinding(other, True))
    with store.transaction() as transaction:
        assert transaction.due(HELD - 1, 10) == []
        assert transaction.due(HELD, 10) == [held]


class OnStore(World):
    """A world whose CMD is on this store."""

    def __init__(self, store: Store) -> None:
        super().__init__(domain_of(store), mode=SignallingMode.PROXY)
        self.cmd = Cmd(store, self.settings)


def test_a_life_by_pbu(store: Store) -> None:
    world = OnStore(store)
    maars = Maars(world)
    first = maars.register(1)
    world.later(60)
    second = maars.register(2)
    assert [prefix for _, prefix in second.previous] == first.local
    world.later(60)
    answer = maars.leave(2)
    assert answer is not None
    assert answer.status == Status.ACCEPTED
    world.later(5)
    third = maars.register(1)
    assert third.local == first.local
    world.later(60)
    assert world.cmd.reap(world.now, 100) == 0
    maars.leave(1)
    world.later(11)
    assert world.cmd.reap(world.now, 100) == 2
    with store.transaction() as transaction:
        snapshot = transaction.read([Lookup((EUI48,))])
    (node,) = snapshot.nodes.values()
    assert {b.state for b in snapshot.bindings[node.id].values()} == {State.ENDED}
    assert node.registered is not None
    assert node.link_layer is not None
    assert node.link_layer.value == MAC
    if isinstance(store, SqlStore):
        assert maintenance.check(store) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_linked_before_is_one_node(engine: str, tmp_path: Path) -> None:
    """A running CMD sees it in its next transaction."""
    with opened(engine, tmp_path) as store:
        world = OnStore(store)
        host, maars = Host(1), Maars(world)
        assert maars.register(2, identity=OTHER, link_layer=None).status == Status.ACCEPTED
        assert keep_link(store, host.identity, EUI48, world.now)
        world.attached(host, 1, na())
        world.later(10)
        answer = maars.register(2)
        assert [str(each.identity) for each in answer.told(dmm.MobileNode)] == [str(host.identity)]
        found = {frozenset(each.identities): each.serving for each in known(store)}
        assert found == {
            frozenset({str(OTHER)}): "maar2",
            frozenset(map(str, (host.identity, host.hardware, EUI48))): "maar2",
        }
        assert maintenance.check(store) == []


OF_TODAY_BUT_FOR_THE_FRONT_END = (
    "DROP TABLE replay_mark; DROP INDEX binding_held;"
    "ALTER TABLE mobile_node DROP COLUMN registered; ALTER TABLE binding DROP COLUMN autoconf;"
    "CREATE INDEX binding_held ON binding (hold_until) WHERE state = 'deprecated';"
    "UPDATE alembic_version SET version_num = '0003'"
)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_database_gets_its_front_end(engine: str, tmp_path: Path) -> None:
    with opened(engine, tmp_path) as store:
        url = url_of(store, tmp_path)
        binding = a_binding(the_pool(domain_of(store)), 1, 7)
        assigned = Record(event(EventType.ASSIGNED, binding))
        written(store, PutNode(a_node(7), True), PutBinding(binding, True), assigned)
        with store.administration() as connection:
            without_routers(connection)
            for statement in OF_TODAY_BUT_FOR_THE_FRONT_END.split(";"):
                connection.exec_driver_sql(statement)
        with pytest.raises(StoreError, match="run `dhcp-cmd db upgrade`"):
            open_store(url)
        assert upgrade(url) == ("0003", SCHEMA_VERSION)
        assert maintenance.check(store) == []
        with store.transaction() as transaction:
            snapshot = transaction.read([Lookup((duid(7),))])
        assert snapshot.nodes[duid(7)] == a_node(7)
        assert list(snapshot.bindings[7].values()) == [binding]
