"""A small domain in a database, and values to write into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Connection, select, update

from dhcp_cmd.core.model import (
    MICROS,
    Binding,
    Domain,
    Event,
    EventType,
    Kind,
    Node,
    Pool,
    State,
)
from dhcp_cmd.store import SqlStore, admin, migrate, open_store, tables
from dmm_wire.address import Prefix, parse_address
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.memory_store import MemoryStore
from tests.cmd.store import databases

T0 = 1_800_000_000 * MICROS  # 2027-01-15T08:00:00Z


def prefix(text: str) -> Prefix:
    return Prefix.parse(text)


def maar_spec(number: int, bits: int = 3) -> admin.MaarSpec:
    """maar1, maar2...: a LINK pool of /64 and a DELEGATED one of /60, `bits` bits of units in each."""
    link = Prefix.of(parse_address(f"2001:db8:{number:x}00::"), 64 - bits)
    delegated = Prefix.of(parse_address(f"2001:db8:{number:x}01::"), 60 - bits)
    return admin.MaarSpec(
        name=f"maar{number}",
        endpoint=parse_address(f"2001:db8:ffff::{number}"),
        links=(prefix(f"2001:db8:aaaa:{number:x}::/64"),),
        pools=(
            admin.PoolSpec(Kind.LINK, link, 64, 1800, 3600),
            admin.PoolSpec(Kind.DELEGATED, delegated, 60, 1800, 3600),
        ),
    )


@contextmanager
def opened(engine: str, folder: Path, maars: int = 3, bits: int = 3) -> Iterator[SqlStore]:
    """A new database of that engine with MAARs 1 to `maars`; on SQLite it is in `folder`."""
    if engine == "sqlite":
        store = sqlite_store(folder, maars, bits)
        try:
            yield store
        finally:
            store.close()
    else:
        with databases.new(f"domain_{maars}_{bits}", lambda url: _fill(url, maars, bits)) as url:
            store = open_store(url)
            try:
                yield store
            finally:
                store.close()


def url_of(store: SqlStore, folder: Path) -> str:
    """What `open_store` opens the same database by."""
    if store.engine.dialect.name == "sqlite":
        return str(folder / "cmd.sqlite")
    return store.engine.url.render_as_string(hide_password=False)


WITHOUT_LINK_EVENTS = ("DROP VIEW link_events", "DROP TABLE node_link_event")
"""These make a database of today one of schema 0007 but for its number."""
WITHOUT_LINKS = (*WITHOUT_LINK_EVENTS, "DROP TABLE node_link")
"""Likewise of 0006."""


def link_events(store: SqlStore) -> list[tuple[int, str, str, str]]:
    """What the operator said of identifiers, and when."""
    said = tables.node_link_event.c
    with store.administration() as connection:
        rows = connection.execute(
            select(said.at, said.event, said.first, said.second).order_by(said.id)
        )
        return [(at, event, first, second) for at, event, first, second in rows]


def without_routers(connection: Connection) -> None:
    """Make a database of today one of schema 0005 but for its number."""
    is_sqlite = connection.dialect.name == "sqlite"
    file = "sqlite/0001_views.sql" if is_sqlite else "postgresql/0002_views.sql"
    views = (migrate.schema_files() / file).read_text(encoding="utf-8")
    before = views[views.index("CREATE VIEW maars") :].partition(";")[0]
    columns = ["router_link_local", "router_link_layer"]
    statements = [
        *WITHOUT_LINKS,
        "DROP VIEW maars",
        *(f"DROP INDEX maar_{column}" for column in columns),
    ]
    columns += ["router_link_local_text"] if is_sqlite else []
    statements += [f"ALTER TABLE maar DROP COLUMN {column}" for column in columns]
    for statement in (*statements, before):
        connection.exec_driver_sql(statement)


def _fill(url: str, maars: int, bits: int) -> None:
    store = open_store(url, create=True)
    admin.add_maars(store, [maar_spec(number, bits) for number in range(1, maars + 1)])
    with store.administration() as connection:  # so that allocation is the same in every run
        connection.execute(update(tables.domain).values(hash_key=bytes(range(32))))
    store.close()


@cache
def _template(maars: int, bits: int) -> bytes:
    """A database file with MAARs 1 to `maars`, made once."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "cmd.sqlite")
        _fill(str(file), maars, bits)
        return file.read_bytes()


def sqlite_store(
    folder: Path, maars: int = 3, bits: int = 3, busy_timeout: float = 2.0
) -> SqlStore:
    """A new database in `folder` with MAARs 1 to `maars`."""
    file = folder / "cmd.sqlite"
    file.touch(0o640)
    file.write_bytes(_template(maars, bits))
    return open_store(str(file), busy_timeout=busy_timeout)


@contextmanager
def memory_store(folder: Path) -> Iterator[MemoryStore]:
    """A store in memory of the same domain."""
    store = sqlite_store(folder)
    domain = admin.read_domain(store)
    store.close()
    yield MemoryStore(domain)


ENGINES = ("sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgres")))
"""Every engine there is, for `opened`: as parameters of a fixture."""


def the_pool(domain: Domain, maar: int = 1, kind: Kind = Kind.LINK) -> Pool:
    (found,) = (pool for pool in domain.pools[maar] if pool.kind is kind)
    return found


def duid(number: int) -> Identity:
    return Identity(IdentitySubtype.DUID, b"\x00\x03\x00\x01" + number.to_bytes(6, "big"))


def mac(number: int) -> Identity:
    return Identity(IdentitySubtype.EUI48, b"\x02\x00" + number.to_bytes(4, "big"))


def a_node(number: int, *identities: Identity, serving: int | None = 1) -> Node:
    return Node(number, serving, None, T0 >> 4, T0, 0, identities or (duid(number),))


def a_binding(
    pool: Pool, slot: int, node: int, iaid: int | None = None, **fields: object
) -> Binding:
    if pool.kind is Kind.DELEGATED and iaid is None:
        iaid = 1
    binding = Binding(
        prefix=pool.unit(slot),
        kind=pool.kind,
        node=node,
        iaid=iaid,
        anchor=pool.maar,
        pool=pool.id,
        state=State.ACTIVE,
        assigned_at=T0,
        preferred_until=T0 + 1800 * MICROS,
        valid_until=T0 + 3600 * MICROS,
    )
    return binding._replace(**fields)  # type: ignore[arg-type]


def an_address(link: Binding, interface: int, iaid: int = 1) -> Binding:
    number = int.from_bytes(link.prefix.address, "big") + interface
    return link._replace(
        prefix=Prefix(number.to_bytes(16, "big"), 128),
        kind=Kind.ADDRESS,
        iaid=iaid,
        pool=None,
    )


def ended(binding: Binding, at: int, reusable_at: int) -> Binding:
    return binding._replace(state=State.ENDED, ended_at=at, reusable_at=reusable_at)


def event(kind: EventType, binding: Binding, at: int = T0, cause: str = "request") -> Event:
    return Event(
        at=at,
        recorded_at=at,
        type=kind,
        node=binding.node,
        cause=cause,
        prefix=binding.prefix,
        kind=binding.kind,
        iaid=binding.iaid,
        anchor=binding.anchor,
        transaction_id=b"\x01\x02\x03",
    )


def handover(node: int, left: int | None, reached: int | None, at: int = T0) -> Event:
    return Event(at, at, EventType.HANDOVER, node, "solicit", from_maar=left, to_maar=reached)
