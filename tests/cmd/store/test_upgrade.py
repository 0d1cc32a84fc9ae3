"""A database of the first schema, with a life in it, becomes one of today's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from dhcp_cmd.core.model import EventType, Lookup, PutBinding, PutNode, PutSignal, Record, Signal
from dhcp_cmd.store import (
    SCHEMA_VERSION,
    StoreError,
    create_database,
    maintenance,
    migrate,
    open_store,
    upgrade,
)
from dhcp_cmd.store.admin import read_domain, set_router
from dhcp_cmd.store.nodes import drop_link, keep_link
from dmm_wire.address import format_address, parse_address
from tests.cmd.store.domain import (
    ENGINES,
    T0,
    WITHOUT_LINK_EVENTS,
    WITHOUT_LINKS,
    a_binding,
    a_node,
    duid,
    event,
    link_events,
    mac,
    opened,
    the_pool,
    url_of,
    without_routers,
)

LINK, LAST = "20010db8010000010000000000000000", "20010db801000001ffffffffffffffff"
ADDRESS = "20010db8010000010000000000000007"
A_LIFE = f"""
INSERT INTO maar (id, name, relay_id, endpoint, endpoint_text, relay_address, relay_address_text)
VALUES (1, 'maar1', x'000201', x'20010db8ffff00000000000000000001', '2001:db8:ffff::1',
        x'20010db8ffff00000000000000000001', '2001:db8:ffff::1');
INSERT INTO pool (id, maar_id, kind, prefix, prefix_length, prefix_text, unit_length, preferred, valid)
VALUES (1, 1, 'link', x'20010db8010000000000000000000000', 60, '2001:db8:100::/60', 64, 1800, 3600);
INSERT INTO mobile_node (id, serving_id, generation, visit_since) VALUES (7, 1, 5, {T0}), (8, NULL, 1, {T0});
UPDATE mobile_node SET idle = NULL WHERE id = 8;
INSERT INTO node_identity (node_id, subtype, value, text, retired)
VALUES (7, 8, x'{duid(7).value.hex()}', '{duid(7)}', 0), (8, 8, x'{duid(7).value.hex()}', '{duid(7)}', 1);
INSERT INTO binding (prefix, prefix_length, prefix_text, last_address, kind, node_id, iaid, anchor_id, pool_id, slot,
                     state, assigned_at, preferred_until, valid_until)
VALUES (x'{LINK}', 64, '2001:db8:100:1::/64', x'{LAST}', 'link', 7, NULL, 1, 1, 1, 'active', {T0}, {T0 + 1}, {T0 + 2}),
       (x'{ADDRESS}', 128, '2001:db8:100:1::7/128', x'{ADDRESS}', 'address', 7, 1, 1, NULL, NULL, 'active', {T0},
        {T0 + 1}, {T0 + 2});
INSERT INTO history (at, recorded_at, type, node_id, cause, prefix, prefix_length, prefix_text, kind, iaid, anchor_id)
SELECT {T0}, {T0}, 'assigned', 7, 'request', prefix, prefix_length, prefix_text, kind, iaid, 1 FROM binding;
"""


def test_what_was_there_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cmd.sqlite"
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "SCHEMA_VERSION", "0001")
        create_database(str(file))
    old = sqlite3.connect(file)
    old.executescript(A_LIFE)
    old.close()

    assert upgrade(str(file)) == ("0001", SCHEMA_VERSION)

    store = open_store(str(file))
    assert maintenance.check(store) == []
    with store.transaction() as transaction:
        snapshot = transaction.read([Lookup((duid(7),), (bytes.fromhex(LINK),))])
    # The one that was forgotten is not found, and is still named to the audit.
    assert [node.id for node in snapshot.nodes.values()] == [7]
    assert {key.hex() for key in snapshot.bindings[7]} == {LINK, ADDRESS}
    assert snapshot.taken == {bytes.fromhex(LINK): 7}
    assert maintenance.status(store)["bindings"] == {"active": 2, "deprecated": 0, "ended": 0}
    with store.administration() as connection:
        named = connection.exec_driver_sql("SELECT node_id, retired FROM node_identity").all()
    assert sorted(map(tuple, named)) == [(7, 0), (8, 8)]
    store.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_database_gets_its_routers(engine: str, tmp_path: Path) -> None:
    with opened(engine, tmp_path) as store:
        url = url_of(store, tmp_path)
        before = read_domain(store)
        with store.administration() as connection:
            without_routers(connection)
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0005'")
        assert upgrade(url) == ("0005", SCHEMA_VERSION)
        assert read_domain(store).maars == before.maars
        set_router(store, "maar1", parse_address("fe80::1"), bytes.fromhex("02005e005301"))
        with store.administration() as connection:
            shown = connection.exec_driver_sql(
                "SELECT name, router_link_local, router_link_layer FROM maars ORDER BY name LIMIT 1"
            ).one()
        link_local = shown[1] if engine == "sqlite" else format_address(shown[1])
        assert (shown[0], link_local, shown[2]) == ("maar1", "fe80::1", "02005e005301")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_database_gets_its_links(engine: str, tmp_path: Path) -> None:
    with opened(engine, tmp_path) as store:
        url = url_of(store, tmp_path)
        before = read_domain(store)
        with store.administration() as connection:
            for statement in WITHOUT_LINKS:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0006'")
        with pytest.raises(StoreError, match="run `dhcp-cmd db upgrade`"):
            open_store(url)
        assert upgrade(url) == ("0006", SCHEMA_VERSION)
        assert read_domain(store) == before
        assert keep_link(store, duid(7), mac(8), T0)
        after = read_domain(store)
        assert after.version > before.version
        assert after.linked == {duid(7): (mac(8),), mac(8): (duid(7),)}
        assert drop_link(store, mac(8), duid(7), T0 + 1)
        assert read_domain(store).version > after.version


@pytest.mark.parametrize("engine", ENGINES)
def test_a_database_records_what_was_said_before(engine: str, tmp_path: Path) -> None:
    with opened(engine, tmp_path) as store:
        url = url_of(store, tmp_path)
        assert keep_link(store, mac(8), duid(7), T0)
        with store.administration() as connection:
            for statement in WITHOUT_LINK_EVENTS:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0007'")
        assert upgrade(url) == ("0007", SCHEMA_VERSION)
        assert drop_link(store, mac(8), duid(7), T0 + 1)
        assert link_events(store) == [
            (T0, "linked", str(duid(7)), str(mac(8))),
            (T0 + 1, "unlinked", str(mac(8)), str(duid(7))),
        ]


OF_TODAY_BUT_FOR_THE_OUTBOX = (
    "DROP INDEX binding_held; ALTER TABLE mobile_node DROP COLUMN registered;"
    "ALTER TABLE binding DROP COLUMN autoconf;"
    "CREATE INDEX binding_held ON binding (hold_until) WHERE state = 'deprecated';"
    "DROP TABLE replay_mark; DROP VIEW signals; DROP TABLE signal; UPDATE alembic_version SET version_num = '0002'"
)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_database_gets_its_outbox(engine: str, tmp_path: Path) -> None:
    with opened(engine, tmp_path) as store:
        url = url_of(store, tmp_path)
        pool = the_pool(read_domain(store))
        with store.transaction() as transaction:
            binding = a_binding(pool, 1, 7)
            transaction.write([PutNode(a_node(7), True), PutBinding(binding, True)])
            transaction.write([Record(event(EventType.ASSIGNED, binding))])
            transaction.commit()
        with store.administration() as connection:
            without_routers(connection)
            for statement in OF_TODAY_BUT_FOR_THE_OUTBOX.split(";"):
                connection.exec_driver_sql(statement)
        with pytest.raises(StoreError, match="run `dhcp-cmd db upgrade`"):
            open_store(url)
        assert upgrade(url) == ("0002", SCHEMA_VERSION)
        assert maintenance.check(store) == []
        with store.transaction() as transaction:
            transaction.write([PutSignal(Signal(7, 2, True, T0))])
            snapshot = transaction.read([Lookup((duid(7),))])
            transaction.signals(snapshot)
        assert snapshot.signals == {7: {2: Signal(7, 2, True, T0)}}
        assert list(snapshot.bindings[7].values()) == [binding]
