"""MAARs in SQL: what may be registered, and what happens to bindings of a MAAR that goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dhcp_cmd.core.model import (
    Change,
    EventType,
    Kind,
    Lookup,
    MaarState,
    PutBinding,
    PutNode,
    Record,
    Settings,
    State,
)
from dhcp_cmd.store import SqlStore, admin, maintenance
from dmm_wire.address import UNSPECIFIED, format_address, format_mac, parse_address
from dmm_wire.router_identity import RouterIdentity, of_anchor
from tests.cmd.store.domain import (
    ENGINES,
    T0,
    a_binding,
    a_node,
    duid,
    event,
    handover,
    maar_spec,
    opened,
    prefix,
    the_pool,
)

HOUR = 3600 * 1_000_000


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with opened(request.param, tmp_path, maars=2) as made:
        yield made


def test_default_relay_id_is_a_duid_en() -> None:
    assert admin.default_relay_id("maar1") == bytes.fromhex("0002 00007ed9 6d61617231")
    assert admin.default_relay_id("ö", 1) == bytes.fromhex("0002 00000001 c3b6")
    for name in ("", "x" * 125):
        with pytest.raises(admin.AdminError):
            admin.default_relay_id(name)


def a_pool(text: str, unit: int = 64, kind: Kind = Kind.LINK, **lifetimes: int) -> admin.PoolSpec:
    return admin.PoolSpec(kind, prefix(text), unit, **{"preferred": 60, "valid": 90, **lifetimes})


NEW = replace(maar_spec(9), pools=())
ROUTER1 = of_anchor(maar_spec(1).endpoint)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(NEW, name="maar1"), "MAAR maar1 exists"),
        (replace(NEW, name=" x"), "MAAR name ' x': printable, without spaces around it"),
        (replace(NEW, name="a\nb"), "MAAR name 'a\\nb': printable, without spaces around it"),
        (
            replace(NEW, endpoint=maar_spec(1).endpoint),
            "MAAR maar9: endpoint 2001:db8:ffff::1 is that of MAAR maar1",
        ),
        (
            replace(
                NEW,
                endpoint=parse_address("2001:db8:9000::1"),
                pools=(a_pool("2001:db8:9000::/48"),),
            ),
            "endpoint 2001:db8:9000::1 of MAAR maar9 is in pool 2001:db8:9000::/48 of MAAR maar9",
        ),
        (
            replace(NEW, endpoint=parse_address("2001:db8:200:7::1")),
            "endpoint 2001:db8:200:7::1 of MAAR maar9 is in pool 2001:db8:200::/61 of MAAR maar2",
        ),
        (
            replace(
                NEW,
                endpoint=parse_address("2001:db8:fff9::9"),
                pools=(a_pool("2001:db8:ffff::/61"),),
            ),
            "endpoint 2001:db8:ffff::1 of MAAR maar1 is in pool 2001:db8:ffff::/61 of MAAR maar9",
        ),
        (
            replace(NEW, endpoint=UNSPECIFIED),
            "MAAR maar9: endpoint :: is not a global unicast address",
        ),
        (
            replace(NEW, endpoint=parse_address("fe80::1")),
            "MAAR maar9: endpoint fe80::1 is not a global unicast address",
        ),
        (
            replace(NEW, relay_id=admin.default_relay_id("maar2")),
            "MAAR maar9: relay id 000200007ed96d61617232 is that of MAAR maar2",
        ),
        (
            replace(NEW, relay_id=b"\x00\x02"),
            "MAAR maar9: relay id of 2 octets is not a DUID (3 to 130)",
        ),
        (replace(NEW, links=()), "MAAR maar9: needs at least one link"),
        (
            replace(NEW, router_link_layer=b"\x01\0\x5e\0\0\1"),
            "MAAR maar9: router link-layer address 01:00:5e:00:00:01 is not an individual one of 6 octets",
        ),
        (
            replace(NEW, router_link_local=parse_address("ff02::1")),
            "MAAR maar9: router link-local address ff02::1 is none that a router can have",
        ),
        (
            replace(NEW, router_link_local=parse_address("2001:db8::1")),
            "MAAR maar9: router link-local address 2001:db8::1 is none that a router can have",
        ),
        (  # also that which nobody chose
            replace(NEW, router_link_layer=ROUTER1.link_layer),
            f"MAAR maar9: router link-layer address {format_mac(ROUTER1.link_layer)} is that of MAAR maar1",
        ),
        (
            replace(NEW, router_link_local=ROUTER1.link_local),
            f"MAAR maar9: router link-local address {format_address(ROUTER1.link_local)} is that of MAAR maar1",
        ),
        (
            replace(NEW, links=(prefix("2001:db8:aaaa::/48"),)),
            "link 2001:db8:aaaa::/48 of MAAR maar9 overlaps link 2001:db8:aaaa:1::/64 of MAAR maar1",
        ),
        (
            replace(NEW, pools=(a_pool("2001:db8:100::/48"),)),
            "pool 2001:db8:100::/48 of MAAR maar9 overlaps pool 2001:db8:100::/61 of MAAR maar1",
        ),
        (
            replace(NEW, pools=(a_pool("2001:db8:200:7::/64"),)),
            "pool 2001:db8:200:7::/64 of MAAR maar9 overlaps pool 2001:db8:200::/61 of MAAR maar2",
        ),
        (
            replace(NEW, pools=(a_pool("2001:db8:aaaa:2::/64"),)),
            "pool 2001:db8:aaaa:2::/64 of MAAR maar9 overlaps link 2001:db8:aaaa:2::/64 of MAAR maar2",
        ),
        (
            replace(
                NEW,
                pools=(
                    a_pool("2001:db8:9000::/40"),
                    a_pool("2001:db8:9000::/48", 56, Kind.DELEGATED),
                ),
            ),
            "pool 2001:db8:9000::/48 of MAAR maar9 overlaps its pool 2001:db8:9000::/40",
        ),
        (
            replace(
                NEW,
                pools=(
                    a_pool("2001:db8:9000::/48", 56, Kind.DELEGATED),
                    a_pool("2001:db8:9001::/48", 56, Kind.DELEGATED),
                ),
            ),
            "MAAR maar9: two delegated pools of unit length 56; a hint chooses by it",
        ),
        (
            replace(NEW, pools=(a_pool("2001:db8:9000::/48", 40),)),
            "pool 2001:db8:9000::/48: unit length 40 is not from 48 to 110",
        ),
        (
            replace(NEW, pools=(a_pool("2001:db8:9000::/48", preferred=91),)),
            "pool 2001:db8:9000::/48: lifetimes must be 1 <= preferred (91) <= valid (90)",
        ),
    ],
)
def test_what_cannot_be_registered(store: SqlStore, spec: admin.MaarSpec, message: str) -> None:
    before = admin.read_domain(store)
    with pytest.raises(admin.AdminError) as raised:
        admin.add_maars(store, [replace(maar_spec(5), name="first"), spec])
    assert str(raised.value) == message
    assert admin.read_domain(store) == before


def test_import_again_changes_nothing(store: SqlStore) -> None:
    before = admin.read_domain(store)
    assert admin.add_maars(store, [maar_spec(1), maar_spec(2)], skip_same=True) == []
    assert admin.read_domain(store) == before
    assert len(admin.add_maars(store, [maar_spec(1), maar_spec(3)], skip_same=True)) == 1
    with pytest.raises(admin.AdminError, match="MAAR maar1 exists"):
        admin.add_maars(store, [replace(maar_spec(1), pools=())], skip_same=True)


def test_every_change_moves_the_version(store: SqlStore) -> None:
    versions = [admin.read_domain(store).version]
    assert admin.set_state(store, "maar1", MaarState.DRAINING)
    versions.append(admin.read_domain(store).version)
    assert not admin.set_state(store, "maar1", MaarState.DRAINING)
    assert admin.read_domain(store).version == versions[-1]
    admin.add_maars(store, [maar_spec(3)])
    versions.append(admin.read_domain(store).version)
    with store.administration() as connection:  # by hand
        connection.exec_driver_sql("UPDATE pool SET valid = 7200")
    versions.append(admin.read_domain(store).version)
    assert versions == sorted(set(versions))


def occupied(store: SqlStore) -> None:
    """Node 1 is at maar2 with a prefix there and one still anchored at maar1."""
    with store.transaction() as transaction:
        domain = transaction.domain()
        one, two = a_binding(the_pool(domain, 1), 1, 1), a_binding(the_pool(domain, 2), 1, 1)
        away = one._replace(state=State.DEPRECATED, hold_until=T0 + HOUR)
        changes: list[Change] = [
            PutNode(a_node(1, serving=2)._replace(previous=1), True),
            PutBinding(away, True),
            PutBinding(two, True),
            Record(handover(1, None, 1)),
            Record(event(EventType.ASSIGNED, one)),
            Record(handover(1, 1, 2, T0 + 1)),
            Record(event(EventType.DEPRECATED, one, T0 + 1)),
            Record(event(EventType.ASSIGNED, two, T0 + 1)),
        ]
        transaction.write(changes)
        transaction.commit()


def test_a_maar_that_anchors_goes_only_by_force(store: SqlStore) -> None:
    occupied(store)
    with pytest.raises(admin.AdminError, match="maar2 anchors 1 live bindings"):
        admin.remove_maar(store, "maar2", T0 + 2)
    settings = Settings(server_duid=b"", reuse_margin=7)
    assert admin.remove_maar(store, "maar2", T0 + 2, force=True, settings=settings) == 1
    assert maintenance.check(store) == []
    with store.transaction() as transaction:
        snapshot = transaction.read([Lookup((duid(1),), ())])
    node = snapshot.nodes[duid(1)]
    assert (node.serving, node.previous) == (None, 1)
    (ended,) = (b for b in snapshot.bindings[1].values() if b.state is State.ENDED)
    # A LINK prefix: the microsecond puts it after its addresses.
    assert (ended.ended_at, ended.reusable_at) == (T0 + 2, ended.valid_until + 7_000_001)
    with store.administration() as connection:
        events = connection.exec_driver_sql(
            "SELECT event, anchor, from_maar, to_maar FROM events WHERE cause = 'maar-removed' ORDER BY id"
        ).all()
    assert [tuple(row) for row in events] == [
        ("released", "maar2", None, None),
        ("handover", None, "maar2", None),
    ]


def test_a_removed_maars_prefixes_are_not_given_out_before_their_end(store: SqlStore) -> None:
    occupied(store)
    admin.remove_maar(store, "maar2", T0 + 2, force=True)
    again = maar_spec(2)
    with pytest.raises(admin.AdminError, match="which removed MAAR maar2 gave out"):
        admin.add_maars(store, [again])
    admin.add_maars(
        store, [replace(again, pools=again.pools[1:])]
    )  # same name, endpoint, id, other range
    assert admin.find_maar(admin.read_domain(store), "maar2").id != 2


def test_unknown_maars(store: SqlStore) -> None:
    with pytest.raises(admin.AdminError, match="no MAAR x"):
        admin.remove_maar(store, "x", T0)
    with pytest.raises(admin.AdminError, match="no MAAR x"):
        admin.set_state(store, "x", MaarState.ACTIVE)


def test_a_maar_is_the_router_that_was_chosen(store: SqlStore) -> None:
    mac, link_local = bytes.fromhex("02005e005309"), parse_address("fe80::9")
    (added,) = admin.add_maars(store, [replace(NEW, router_link_layer=mac)])
    before = admin.read_domain(store)
    assert before.maars[added].router == RouterIdentity(parse_address("fe80::5eff:fe00:5309"), mac)
    assert before.maars[1].router == of_anchor(before.maars[1].endpoint)

    assert admin.set_router(store, "maar9", link_local, None).link_local == link_local
    after = admin.read_domain(store)
    own = of_anchor(NEW.endpoint).link_layer
    assert after.maars[added].router == RouterIdentity(link_local, own)
    assert after.version > before.version, "a running CMD sees it"

    admin.set_router(store, "maar9", None, None)
    assert admin.read_domain(store).maars[added].router == of_anchor(NEW.endpoint)
    with pytest.raises(admin.AdminError, match="no MAAR maar7"):
        admin.set_router(store, "maar7", link_local, None)


def test_the_router_of_a_maar_that_went_is_free_again(store: SqlStore) -> None:
    spec = replace(NEW, router_link_layer=bytes.fromhex("02005e005309"))
    for _ in range(2):
        admin.add_maars(store, [spec])
        admin.remove_maar(store, "maar9", T0)
