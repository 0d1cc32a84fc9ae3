"""What every store has to do (dhcp_cmd/core/ports.py), asked of each implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dhcp_cmd.core.model import (
    MICROS,
    Binding,
    Change,
    Domain,
    DropBinding,
    DropIdentity,
    DropNode,
    EventType,
    Kind,
    Lookup,
    Need,
    PutBinding,
    PutNode,
    Record,
    Snapshot,
    State,
)
from dhcp_cmd.core.ports import Collision, Store, StoreError
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.store.domain import (
    IMPLEMENTATIONS,
    T0,
    a_binding,
    a_node,
    an_address,
    duid,
    ended,
    event,
    handover,
    mac,
    the_pool,
)


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = IMPLEMENTATIONS[request.param](tmp_path)
    yield made
    if hasattr(made, "close"):
        made.close()


def domain_of(store: Store) -> Domain:
    with store.transaction() as transaction:
        return transaction.domain()


def written(store: Store, *changes: Change) -> None:
    with store.transaction() as transaction:
        transaction.write(changes)
        transaction.commit()


def look(store: Store, *identities: Identity, candidates: Sequence[bytes] = ()) -> Snapshot:
    with store.transaction() as transaction:
        return transaction.read([Lookup(identities, tuple(candidates))])


def supplied(store: Store, need: Need, snapshot: Snapshot | None = None) -> Snapshot:
    with store.transaction() as transaction:
        snapshot = snapshot or transaction.read([])
        transaction.supply(snapshot, need)
        return snapshot


def held(store: Store, node: int) -> dict[bytes, Binding]:
    return look(store, duid(node)).bindings[node]


@pytest.fixture
def link(store: Store) -> Binding:
    """A node's LINK binding, not written yet."""
    return a_binding(the_pool(domain_of(store)), 3, 7)


def test_the_domain_has_its_indexes(store: Store) -> None:
    domain = domain_of(store)
    assert [maar.name for maar in domain.maars.values()] == ["maar1", "maar2", "maar3"]
    for maar in domain.maars.values():
        assert domain.by_relay_id[maar.relay_id] is maar
        assert [pool.kind for pool in domain.pools[maar.id]] == [Kind.LINK, Kind.DELEGATED]
    assert len(domain.hash_key) >= 16


def test_what_is_written_is_read(store: Store, link: Binding) -> None:
    node = a_node(7, duid(7), mac(7))
    address = an_address(link, 0x99)
    pd = a_binding(the_pool(domain_of(store), kind=Kind.DELEGATED), 0, 7, 0xFFFFFFFF, hold_until=T0)
    written(store, PutNode(node, True), *(PutBinding(b, True) for b in (link, address, pd)))
    free = link.prefix.last
    snapshot = look(store, mac(7), mac(8), candidates=[link.prefix.address, free])
    assert {i: n._replace(identities=()) for i, n in snapshot.nodes.items()} == dict.fromkeys(
        (duid(7), mac(7)), node._replace(identities=())
    )
    assert set(snapshot.nodes[mac(7)].identities) == {duid(7), mac(7)}
    assert snapshot.bindings == {7: {b.prefix.address: b for b in (link, address, pd)}}
    assert snapshot.taken == {link.prefix.address: 7}


def test_nothing_is_there_without_commit(store: Store, link: Binding) -> None:
    with store.transaction() as transaction:
        transaction.write([PutNode(a_node(7), True), PutBinding(link, True)])
    with pytest.raises(ZeroDivisionError), store.transaction() as transaction:  # noqa: PT012
        transaction.write([PutNode(a_node(7), True)])
        raise ZeroDivisionError
    assert look(store, duid(7), candidates=[link.prefix.address]).nodes == {}


def test_a_batch_of_many_nodes_is_one_read(store: Store) -> None:
    domain = domain_of(store)
    nodes = [a_node(number) for number in range(1, 501)]
    written(store, *(PutNode(node, True) for node in nodes))
    pool = the_pool(domain)
    written(store, *(PutBinding(a_binding(pool, slot, slot + 1), True) for slot in range(8)))
    with store.transaction() as transaction:
        lookups = [Lookup(node.identities, (pool.unit(0).address,)) for node in nodes]
        snapshot = transaction.read(lookups)
    assert {node.id for node in snapshot.nodes.values()} == set(range(1, 501))
    assert [len(snapshot.bindings[number]) for number in (1, 8, 9, 500)] == [1, 1, 0, 0]
    assert snapshot.taken == {pool.unit(0).address: 1}


def test_an_identity_is_subtype_and_octets(store: Store) -> None:
    same_octets = Identity(IdentitySubtype.NAI, duid(7).value)
    written(store, PutNode(a_node(7), True), PutNode(a_node(8, same_octets), True))
    assert look(store, duid(7)).nodes[duid(7)].id == 7
    assert list(look(store, same_octets).bindings) == [8]
    assert look(store, Identity(IdentitySubtype.EUI48, duid(7).value)).nodes == {}


def test_a_node_learns_and_moves(store: Store) -> None:
    written(store, PutNode(a_node(7), True))
    moved = a_node(7, duid(7), mac(7), serving=2)._replace(previous=1, generation=5, flaps=2)
    written(store, PutNode(moved, False))
    found = look(store, mac(7)).nodes[mac(7)]
    assert (found.serving, found.previous, found.generation, found.flaps) == (2, 1, 5, 2)
    assert set(found.identities) == {duid(7), mac(7)}


def test_a_binding_changes_ends_and_is_reclaimed(store: Store, link: Binding) -> None:
    written(store, PutNode(a_node(7), True), PutNode(a_node(8), True), PutBinding(link, True))
    away = link._replace(state=State.DEPRECATED, hold_until=T0 + 5, valid_until=T0 + 9)
    written(store, PutBinding(away, False))
    assert held(store, 7) == {link.prefix.address: away}
    over = ended(away, T0 + 1, T0 + 2)
    written(store, PutBinding(over, False))
    assert held(store, 7) == {link.prefix.address: over}
    written(store, DropBinding(link.prefix, 7), PutBinding(link._replace(node=8), True))
    assert held(store, 7) == {}
    assert held(store, 8) == {link.prefix.address: link._replace(node=8)}


def test_what_changed_after_it_was_read_is_written(store: Store, link: Binding) -> None:
    written(store, PutNode(a_node(7), True), PutBinding(link, True))
    extended = link._replace(valid_until=T0 + 9, preferred_until=T0 + 8)
    changes: list[Binding] = [
        extended,
        extended._replace(state=State.DEPRECATED, hold_until=T0 + 5),
        extended._replace(state=State.DEPRECATED, hold_until=T0 + 6),
        ended(extended, T0 + 7, T0 + 8),
        link._replace(assigned_at=T0 + 9),
    ]
    for change in changes:
        with store.transaction() as transaction:
            transaction.read([Lookup((duid(7),), ())])
            transaction.write([PutBinding(change, False)])
            transaction.commit()
        assert held(store, 7) == {link.prefix.address: change}
    with store.transaction() as transaction:  # there and back in one transaction
        transaction.read([Lookup((duid(7),), ())])
        for change in (*changes, extended):
            transaction.write([PutBinding(change, False)])
        transaction.commit()
    assert held(store, 7) == {link.prefix.address: extended}


def test_one_write_may_touch_a_row_many_times(store: Store, link: Binding) -> None:
    later = link._replace(valid_until=T0 + 99)
    written(
        store,
        PutNode(a_node(7), True),
        PutBinding(link, True),
        Record(event(EventType.ASSIGNED, link)),
        PutNode(a_node(7, duid(7), mac(7)), False),
        PutBinding(later, False),
        DropBinding(link.prefix, 7),
        PutNode(a_node(8), True),
        PutBinding(link._replace(node=8), True),
        PutBinding(later._replace(node=8), False),
    )
    assert held(store, 7) == {}
    assert held(store, 8) == {link.prefix.address: later._replace(node=8)}
    written(
        store, PutBinding(link, False), DropBinding(link.prefix, link.node)
    )  # changes hands, goes
    assert look(store, duid(8), candidates=[link.prefix.address]).taken == {}


@pytest.mark.parametrize("what", ["prefix", "identity", "node"])
def test_the_second_one_collides_and_leaves_nothing(store: Store, link: Binding, what: str) -> None:
    written(store, PutNode(a_node(7), True), PutBinding(link, True))
    second: dict[str, list[Change]] = {
        "prefix": [PutBinding(link._replace(node=8), True)],
        "identity": [PutNode(a_node(9, mac(9), duid(7)), True)],
        "node": [PutNode(a_node(7, mac(7)), True)],
    }
    with store.transaction() as transaction, pytest.raises(Collision):
        transaction.write([PutNode(a_node(8), True), *second[what]])
    assert look(store, duid(8)).nodes == {}
    assert held(store, 7) == {link.prefix.address: link}


def test_what_is_not_there_cannot_be_changed(store: Store, link: Binding) -> None:
    written(store, PutNode(a_node(7), True))
    for change in (
        PutBinding(link, False),
        DropBinding(link.prefix, 7),
        PutNode(a_node(8), False),
    ):
        with store.transaction() as transaction, pytest.raises(StoreError):
            transaction.write([change])


def test_merge_moves_identities_and_bindings(store: Store, link: Binding) -> None:
    written(
        store,
        PutNode(a_node(7), True),
        PutNode(a_node(8, mac(8)), True),
        PutBinding(link._replace(node=8), True),
        Record(event(EventType.ASSIGNED, link._replace(node=8))),
    )
    written(
        store,
        PutBinding(link, False),
        DropNode(8),
        PutNode(a_node(7, duid(7), mac(8)), False),
        Record(event(EventType.ASSIGNED, link)),
    )
    snapshot = look(store, mac(8))
    assert snapshot.bindings == {7: {link.prefix.address: link}}
    assert {node.id for node in snapshot.nodes.values()} == {7}


def test_merge_of_a_node_of_the_same_batch(store: Store, link: Binding) -> None:
    written(
        store,
        PutNode(a_node(7), True),
        PutNode(a_node(8, mac(8)), True),
        PutBinding(link._replace(node=8), True),
        Record(event(EventType.ASSIGNED, link._replace(node=8))),
        PutBinding(link, False),
        DropNode(8),
        PutNode(a_node(7, duid(7), mac(8)), False),
    )
    assert look(store, mac(8)).bindings == {7: {link.prefix.address: link}}


def test_last_held_comes_from_the_history(store: Store) -> None:
    domain = domain_of(store)
    pool, pd = the_pool(domain), the_pool(domain, kind=Kind.DELEGATED)
    events = [
        event(EventType.ASSIGNED, a_binding(pool, 1, 7), T0),
        event(EventType.ASSIGNED, a_binding(pool, 2, 7), T0 + 1),
        event(EventType.RELEASED, a_binding(pool, 2, 7), T0 + 2),
        event(EventType.ASSIGNED, a_binding(pd, 3, 7, 1), T0 + 3),
        event(EventType.ASSIGNED, a_binding(pd, 4, 7, 2), T0 + 4),
        event(EventType.ASSIGNED, a_binding(pool, 5, 8), T0 + 5),
    ]
    written(store, PutNode(a_node(7), True), PutNode(a_node(8), True), *map(Record, events))
    need = Need(
        last_held=(
            (7, pool.id, None),
            (7, pd.id, 1),
            (7, pd.id, 2),
            (7, pd.id, 3),
            (7, the_pool(domain, 2).id, None),
        )
    )
    assert list(supplied(store, need).last_held.values()) == [
        pool.unit(2),
        pd.unit(3),
        pd.unit(4),
        None,
        None,
    ]


def test_gaps(store: Store) -> None:
    pool = the_pool(domain_of(store))
    written(store, PutNode(a_node(7), True))

    def taken(*slots: int) -> None:
        written(store, *(PutBinding(a_binding(pool, slot, 7), True) for slot in slots))

    def gap(start: int) -> int | None:
        unit = supplied(store, Need(gaps=((pool.id, start),))).gaps[pool.id, start]
        return None if unit is None else pool.slot(unit)

    assert [gap(0), gap(7)] == [0, 7]
    taken(2, 3, 4, 7)
    assert [gap(slot) for slot in range(8)] == [0, 1, 5, 5, 5, 5, 6, 0]
    taken(0, 1, 5)
    assert [gap(slot) for slot in range(8)] == [6] * 8
    taken(6)
    assert [gap(0), gap(5), gap(7)] == [None, None, None]
    written(store, DropBinding(pool.unit(1), 7))
    assert [gap(0), gap(5)] == [1, 1]
    taken(1)
    assert gap(1) is None


def test_due(store: Store) -> None:
    domain = domain_of(store)
    pool = the_pool(domain)
    one, two, three = (a_binding(pool, slot, 7) for slot in range(3))
    two = two._replace(valid_until=one.valid_until + MICROS)
    three = ended(three, T0, T0 + 10 * MICROS)
    written(store, PutNode(a_node(7), True), *(PutBinding(b, True) for b in (one, two, three)))

    def due(now: int, limit: int = 10) -> set[Binding]:
        with store.transaction() as transaction:
            found = transaction.due(now, limit)
        assert len(found) <= limit
        return set(found)

    assert due(T0 + 10 * MICROS - 1) == set()
    assert due(T0 + 10 * MICROS) == {three}
    assert due(one.valid_until - 1) == {three}
    assert due(one.valid_until) == {one, three}
    assert due(two.valid_until) == {one, two, three}
    assert len(due(two.valid_until, 2)) == 2


@pytest.mark.parametrize("until", ["valid_until", "hold_until", "reusable_at"])
def test_due_names_the_addresses_of_a_prefix_before_it(store: Store, until: str) -> None:
    """At one instant and whatever the limit: else the prefix comes free with an address still in it."""
    pool = the_pool(domain_of(store))
    at = T0 + 10 * MICROS
    state = {
        "valid_until": State.ACTIVE,
        "hold_until": State.DEPRECATED,
        "reusable_at": State.ENDED,
    }
    times: dict[str, object] = {"ended_at": T0, "reusable_at": at, until: at}
    links = [
        a_binding(pool, slot, 7)._replace(state=state[until], **times)  # type: ignore[arg-type]
        for slot in range(3)
    ]
    addresses = [an_address(link, interface) for link in links for interface in (1, 2)]
    written(store, PutNode(a_node(7), True), *(PutBinding(b, True) for b in (*links, *addresses)))
    for limit in (1, 4, 6, 8):
        with store.transaction() as transaction:
            found = transaction.due(at, limit)
        assert len(found) == limit
        assert {b.kind for b in found[:6]} == {Kind.ADDRESS}


def test_what_is_known_of_a_node_is_read_again(store: Store) -> None:
    node = a_node(7, duid(7), mac(7), serving=2)._replace(
        link_layer=mac(9),
        heard=b"\x05abc",
        heard_before=b"\x01xyz",
        conflict_at=T0,
    )
    written(store, PutNode(node, True))
    found = look(store, duid(7)).nodes[duid(7)]
    assert found._replace(identities=node.identities) == node
    changed = node._replace(
        link_layer=None, heard=None, heard_before=b"\x05abc", conflict_at=T0 + 1
    )
    written(store, PutNode(changed, False))
    found = look(store, duid(7)).nodes[duid(7)]
    assert found._replace(identities=node.identities) == changed


def test_an_identity_is_dropped_and_free_again(store: Store) -> None:
    written(store, PutNode(a_node(7, duid(7), mac(7), mac(8)), True))
    written(store, DropIdentity(mac(7)), PutNode(a_node(7, duid(7), mac(8)), False))
    assert set(look(store, duid(7)).nodes) == {duid(7), mac(8)}
    assert look(store, mac(7)).nodes == {}
    written(store, PutNode(a_node(9, duid(9), mac(7)), True))
    with store.transaction() as transaction:  # as a batch does: read, lost, and learned again
        transaction.read([Lookup((duid(9),), ())])
        transaction.write(
            [
                DropIdentity(mac(7)),
                PutNode(a_node(9, duid(9)), False),
                PutNode(a_node(9, duid(9), mac(7)), False),
            ]
        )
        transaction.commit()
    assert look(store, mac(7)).nodes[mac(7)].id == 9


def idle(store: Store, before: int, limit: int = 10) -> list[int]:
    with store.transaction() as transaction:
        return transaction.idle(before, limit)


def test_nodes_that_hold_nothing(store: Store, link: Binding) -> None:
    nodes = [a_node(number)._replace(visit_since=T0 + number) for number in (9, 7, 8)]
    written(store, *(PutNode(node, True) for node in nodes))
    assert [idle(store, T0 + 8), idle(store, T0 + 9)] == [[7, 8], [7, 8, 9]]
    assert idle(store, T0 + 9, 1) == [7]
    assert idle(store, T0 + 9, 0) == []
    written(store, PutBinding(link, True))
    assert idle(store, T0 + 9) == [8, 9]
    written(store, PutBinding(ended(link, T0, T0), False))
    assert idle(store, T0 + 9) == [8, 9]
    written(store, PutBinding(link._replace(node=8), False))
    assert idle(store, T0 + 9) == [7, 9]
    written(store, DropBinding(link.prefix, 8), DropNode(9))
    assert idle(store, T0 + 9) == [7, 8]
    assert look(store, duid(9)).nodes == {}
    written(store, PutNode(a_node(10, duid(9))._replace(visit_since=T0), True))
    assert look(store, duid(9)).nodes[duid(9)].id == 10
    assert idle(store, T0 + 9) == [10, 7, 8]
    written(store, DropNode(10))  # and a second time
    assert idle(store, T0 + 9) == [7, 8]
    assert look(store, duid(9)).nodes == {}


def test_history_of_a_visit(store: Store) -> None:
    written(store, PutNode(a_node(7), True), Record(handover(7, None, 1)))
    assert look(store, duid(7)).nodes[duid(7)].serving == 1
