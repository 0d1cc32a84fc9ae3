"""The operator's side of the domain: MAARs, their links and pools. Every change moves the domain's version (triggers
see to it), and a running CMD sees it in its next transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from sqlalchemy import Connection, Table, delete, insert, select, update

from dhcp_cmd.core.lifetime import ended_binding
from dhcp_cmd.core.model import (
    Binding,
    Change,
    Domain,
    Event,
    EventType,
    Kind,
    Maar,
    MaarId,
    MaarState,
    Micros,
    Node,
    PutBinding,
    PutNode,
    Record,
    Settings,
    State,
)
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import Mode, reading
from dhcp_cmd.store.rows import binding_of
from dhcp_cmd.store.sql import SqlStore, SqlTransaction, load_domain
from dmm_wire.address import Prefix, format_address, format_mac
from dmm_wire.dhcpv6.codes import INFINITY
from dmm_wire.dmm import DEFAULT_ENTERPRISE
from dmm_wire.router_identity import RouterIdentity, chosen, fault

MAX_SLOT_BITS = 62
"""A pool's slots are numbered by a signed 64-bit integer of the database."""

REMOVED = "maar-removed"
"""The cause in the history of what ends with its MAAR."""

_DUID_EN = 2
_LINK_LOCAL = bytes.fromhex("fe80000000000000")


class AdminError(ValueError):
    """What the operator asked for cannot be: one line that says why."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool to be: as `core.model.Pool`, without what the database gives it. Lifetimes in seconds."""

    kind: Kind
    prefix: Prefix
    unit_length: int
    preferred: int
    valid: int

    def check(self) -> None:
        """Raise AdminError for what no pool can be."""
        bits = self.unit_length - self.prefix.length
        if not 0 <= bits <= MAX_SLOT_BITS or self.unit_length > 128:
            highest = min(128, self.prefix.length + MAX_SLOT_BITS)
            raise AdminError(
                f"pool {self.prefix}: unit length {self.unit_length} is not from {self.prefix.length} to {highest}"
            )
        if self.kind is Kind.ADDRESS:
            raise AdminError(f"pool {self.prefix}: addresses come out of link pools")
        if not 1 <= self.preferred <= self.valid <= INFINITY:
            raise AdminError(
                f"pool {self.prefix}: lifetimes must be 1 <= preferred ({self.preferred}) <= valid ({self.valid})"
            )


@dataclass(frozen=True, slots=True)
class MaarSpec:
    """A MAAR to be. `relay_id` None: `default_relay_id`; `relay_address` None: the endpoint; of the router's addresses
    (`core.model.Maar.router`) None: what follows from the endpoint."""

    name: str
    endpoint: bytes
    links: tuple[Prefix, ...]
    pools: tuple[PoolSpec, ...]
    relay_id: bytes | None = None
    relay_address: bytes | None = None
    router_link_local: bytes | None = None
    router_link_layer: bytes | None = None


def default_relay_id(name: str, enterprise: int = DEFAULT_ENTERPRISE) -> bytes:
    """The DUID that a MAAR of this name has unless told otherwise: DUID-EN (RFC 9915 section 11.3) of the enterprise
    number, with the name in UTF-8 as identifier. Raises AdminError for a name that does not fit.
    """
    identifier = name.encode()
    # A DUID is a type of 2 octets and at most 128 more, 4 of them the enterprise number.
    if not 1 <= len(identifier) <= 124:
        raise AdminError(f"MAAR name {name!r}: 1 to 124 octets")
    return _DUID_EN.to_bytes(2, "big") + enterprise.to_bytes(4, "big") + identifier


def add_maars(
    store: SqlStore,
    specs: Iterable[MaarSpec],
    enterprise: int = DEFAULT_ENTERPRISE,
    *,
    skip_same: bool = False,
) -> list[MaarId]:
    """Register MAARs, all or none; with `skip_same` those that are there just so are left alone. Gives the new ones.

    Raises AdminError for what is wrong or overlaps, StoreError.
    """
    with store.administration(Mode.ALONE) as connection:
        return [
            _add(connection, spec, enterprise)
            for spec in specs
            if not (skip_same and _is_there(load_domain(connection), spec, enterprise))
        ]


def _is_there(domain: Domain, spec: MaarSpec, enterprise: int) -> bool:
    for maar in domain.maars.values():
        if maar.name == spec.name:
            break
    else:
        return False
    links = {link.prefix for link in domain.links if link.maar == maar.id}
    pools = {
        PoolSpec(pool.kind, pool.prefix, pool.unit_length, pool.preferred, pool.valid)
        for pool in domain.pools[maar.id]
    }
    return (
        maar.endpoint == spec.endpoint
        and maar.relay_id == (spec.relay_id or default_relay_id(spec.name, enterprise))
        and maar.relay_address == (spec.relay_address or spec.endpoint)
        and maar.router_link_local == spec.router_link_local
        and maar.router_link_layer == spec.router_link_layer
        and links == set(spec.links)
        and pools == set(spec.pools)
    )


def read_domain(store: SqlStore) -> Domain:
    """The mobility domain as it is now. Raises StoreError."""
    with reading(store.engine) as connection:
        return load_domain(connection)


def _add(connection: Connection, spec: MaarSpec, enterprise: int) -> MaarId:
    relay_id = spec.relay_id or default_relay_id(spec.name, enterprise)
    relay_address = spec.relay_address or spec.endpoint
    _check(spec, relay_id, load_domain(connection))
    _check_leftovers(connection, spec)
    maar: MaarId = _insert(
        connection,
        t.maar,
        {
            "name": spec.name,
            "relay_id": relay_id,
            "endpoint": spec.endpoint,
            "endpoint_text": format_address(spec.endpoint),
            "relay_address": relay_address,
            "relay_address_text": format_address(relay_address),
            "state": MaarState.ACTIVE.value,
            **_router_values(spec.router_link_local, spec.router_link_layer),
        },
    )
    for prefix in spec.links:
        _insert(connection, t.link, {"maar_id": maar, **_prefix_values(prefix)})
    for pool in spec.pools:
        _insert(connection, t.pool, _pool_values(maar, pool))
    return maar


def _router_values(link_local: bytes | None, link_layer: bytes | None) -> dict[str, object]:
    return {
        "router_link_local": link_local,
        "router_link_local_text": None if link_local is None else format_address(link_local),
        "router_link_layer": link_layer,
    }


def _insert(connection: Connection, table: Table, values: dict[str, object]) -> int:
    """Insert a row; its id."""
    kept = _kept(connection, values)
    number: int = connection.execute(insert(table).returning(table.c.id), kept).scalar_one()
    return number


def _kept(connection: Connection, values: dict[str, object]) -> dict[str, object]:
    """What of these values the engine has columns for."""
    written = t.has_written(connection.dialect)
    return {name: each for name, each in values.items() if written or name not in t.WRITTEN}


def _prefix_values(prefix: Prefix) -> dict[str, object]:
    return {
        "prefix": prefix.address,
        "prefix_length": prefix.length,
        "prefix_text": str(prefix),
    }


def _pool_values(maar: MaarId, pool: PoolSpec) -> dict[str, object]:
    return {
        "maar_id": maar,
        "kind": pool.kind.value,
        **_prefix_values(pool.prefix),
        "unit_length": pool.unit_length,
        "preferred": pool.preferred,
        "valid": pool.valid,
    }


def overlap(one: Prefix, other: Prefix) -> bool:
    """Whether two prefixes have an address in common."""
    return one.contains(other) or other.contains(one)


def _check(spec: MaarSpec, relay_id: bytes, domain: Domain) -> None:
    """Raise AdminError for what is wrong with `spec`, by itself or beside what is there."""
    who = f"MAAR {spec.name}"
    if not spec.name or not spec.name.isprintable() or spec.name != spec.name.strip():
        raise AdminError(f"MAAR name {spec.name!r}: printable, without spaces around it")
    if not any(spec.endpoint) or spec.endpoint[0] == 0xFF or spec.endpoint[:8] == _LINK_LOCAL:
        raise AdminError(
            f"{who}: endpoint {format_address(spec.endpoint)} is not a global unicast address"
        )
    if not 3 <= len(relay_id) <= 130:
        raise AdminError(f"{who}: relay id of {len(relay_id)} octets is not a DUID (3 to 130)")
    if not spec.links:
        raise AdminError(f"{who}: needs at least one link")
    for maar in domain.maars.values():
        if maar.name == spec.name:
            raise AdminError(f"{who} exists")
        if maar.endpoint == spec.endpoint:
            raise AdminError(
                f"{who}: endpoint {format_address(spec.endpoint)} is that of MAAR {maar.name}"
            )
        if maar.relay_id == relay_id:
            raise AdminError(f"{who}: relay id {relay_id.hex()} is that of MAAR {maar.name}")
    router = chosen(spec.endpoint, spec.router_link_local, spec.router_link_layer)
    _check_router(spec.name, router, domain)
    _check_ranges(spec, domain)
    _check_endpoints(spec, domain)


def _check_router(name: str, router: RouterIdentity, domain: Domain) -> None:
    """Raise AdminError for a router that cannot be, or has an address of another MAAR's: both may be on one link."""
    wrong = fault(router)
    if wrong == "link-layer":
        at = format_mac(router.link_layer)
        raise AdminError(
            f"MAAR {name}: router link-layer address {at} is not an individual one of 6 octets"
        )
    if wrong is not None:
        raise AdminError(
            f"MAAR {name}: router link-local address {format_address(router.link_local)} is none that a router can have"
        )
    for maar in domain.maars.values():
        if maar.name == name:
            continue
        if maar.router.link_layer == router.link_layer:
            at = format_mac(router.link_layer)
            raise AdminError(
                f"MAAR {name}: router link-layer address {at} is that of MAAR {maar.name}"
            )
        if maar.router.link_local == router.link_local:
            at = format_address(router.link_local)
            raise AdminError(
                f"MAAR {name}: router link-local address {at} is that of MAAR {maar.name}"
            )


def _check_endpoints(spec: MaarSpec, domain: Domain) -> None:
    """No pool has a MAAR's endpoint in it: a node would be given the address that tunnels and PBUs go to."""
    maars = domain.maars
    new = [(pool.prefix, spec.name) for pool in spec.pools]
    old = [(pool.prefix, maars[pool.maar].name) for each in domain.pools.values() for pool in each]
    endpoints = [(maar.endpoint, maar.name) for maar in maars.values()]
    pairs = (*product([(spec.endpoint, spec.name)], new + old), *product(endpoints, new))
    for (endpoint, name), (pool, owner) in pairs:
        if pool.contains(endpoint):
            raise AdminError(
                f"endpoint {format_address(endpoint)} of MAAR {name} is in pool {pool} of MAAR {owner}"
            )


def _check_ranges(spec: MaarSpec, domain: Domain) -> None:
    """Pools overlap no pool and no link of another MAAR; links overlap no link, and no pool of another MAAR."""
    names = {maar.id: maar.name for maar in domain.maars.values()}
    pools = [(pool.prefix, names[pool.maar]) for each in domain.pools.values() for pool in each]
    links = [(link.prefix, names[link.maar]) for link in domain.links]
    delegated: set[int] = set()
    mine: list[Prefix] = []
    for pool in spec.pools:
        pool.check()
        for other in mine:
            if overlap(pool.prefix, other):
                raise AdminError(
                    f"pool {pool.prefix} of MAAR {spec.name} overlaps its pool {other}"
                )
        _refuse(f"pool {pool.prefix} of MAAR {spec.name}", pool.prefix, "pool", pools)
        _refuse(f"pool {pool.prefix} of MAAR {spec.name}", pool.prefix, "link", links)
        mine.append(pool.prefix)
        if pool.kind is Kind.DELEGATED:
            if pool.unit_length in delegated:
                raise AdminError(
                    f"MAAR {spec.name}: two delegated pools of unit length {pool.unit_length}; a hint chooses by it"
                )
            delegated.add(pool.unit_length)
    seen: list[Prefix] = []
    for link in spec.links:
        for other in seen:
            if overlap(link, other):
                raise AdminError(f"link {link} of MAAR {spec.name} overlaps its link {other}")
        _refuse(f"link {link} of MAAR {spec.name}", link, "link", links)
        _refuse(f"link {link} of MAAR {spec.name}", link, "pool", pools)
        seen.append(link)


def _refuse(what: str, prefix: Prefix, kind: str, others: Sequence[tuple[Prefix, str]]) -> None:
    for other, owner in others:
        if overlap(prefix, other):
            raise AdminError(f"{what} overlaps {kind} {other} of MAAR {owner}")


def _check_leftovers(connection: Connection, spec: MaarSpec) -> None:
    """Raise AdminError while a lifetime promised out of a removed pool still runs on part of a new one."""
    held = select(t.binding.c.prefix, t.binding.c.prefix_length, t.maar.c.name).join(
        t.maar, t.maar.c.id == t.binding.c.anchor_id
    )
    for pool in spec.pools:
        prefix = pool.prefix
        around = {Prefix.of(prefix.address, length).address for length in range(prefix.length)}
        inside = held.where(t.binding.c.prefix.between(prefix.address, prefix.last)).limit(1)
        outside = held.where(t.binding.c.prefix.in_(around))
        for address, length, maar in (*connection.execute(inside), *connection.execute(outside)):
            if overlap(Prefix(address, length), prefix):
                raise AdminError(
                    f"pool {prefix} of MAAR {spec.name} overlaps {Prefix(address, length)}, "
                    f"which removed MAAR {maar} gave out and whose lifetime still runs"
                )


def find_maar(domain: Domain, name: str) -> Maar:
    """The MAAR of that name. Raises AdminError."""
    for maar in domain.maars.values():
        if maar.name == name:
            return maar
    raise AdminError(f"no MAAR {name}")


def set_state(store: SqlStore, name: str, state: MaarState) -> bool:
    """Let a MAAR anchor new prefixes (ACTIVE) or not (DRAINING); whether that changed anything. Raises AdminError."""
    with store.administration(Mode.ALONE) as connection:
        maar = find_maar(load_domain(connection), name)
        if maar.state is state:
            return False
        connection.execute(update(t.maar).where(t.maar.c.id == maar.id).values(state=state.value))
        return True


def set_router(
    store: SqlStore, name: str, link_local: bytes | None, link_layer: bytes | None
) -> RouterIdentity:
    """Say as which router hosts see a MAAR; None: what follows from its endpoint. Gives what they see. Raises
    AdminError, StoreError."""
    with store.administration(Mode.ALONE) as connection:
        domain = load_domain(connection)
        maar = find_maar(domain, name)
        router = chosen(maar.endpoint, link_local, link_layer)
        _check_router(name, router, domain)
        values = _kept(connection, _router_values(link_local, link_layer))
        connection.execute(update(t.maar).where(t.maar.c.id == maar.id).values(values))
        return router


def remove_maar(
    store: SqlStore,
    name: str,
    now: Micros,
    *,
    force: bool = False,
    settings: Settings | None = None,
) -> int:
    """Remove a MAAR, its links and pools; how many live bindings that ended. Raises AdminError, StoreError.

    While it anchors live bindings that needs `force`; they then end `now` with cause "maar-removed", and their
    prefixes stay taken until every lifetime promised for them has run out (`settings.reuse_margin` later).
    Nodes it serves are on no visit any more.
    """
    with store.transaction(Mode.ALONE) as transaction:
        maar = find_maar(transaction.domain(), name)
        live = _live_bindings(transaction, maar.id)
        if live and not force:
            raise AdminError(
                f"MAAR {name} anchors {len(live)} live bindings: drain it and wait, or end them with --force"
            )
        changes: list[Change] = []
        for binding in live:
            ended = ended_binding(binding, now, settings or Settings(server_duid=b""))
            changes += (
                PutBinding(ended, new=False),
                Record(_removal(EventType.RELEASED, ended, now)),
            )
        for node in _visitors(transaction, maar.id):
            if node.serving == maar.id:
                changes.append(Record(_departure(node, now)))
            left = node._replace(
                serving=None if node.serving == maar.id else node.serving,
                previous=None if node.previous == maar.id else node.previous,
            )
            changes.append(PutNode(left, new=False))
        transaction.write(changes)
        _retire(transaction.connection, maar.id, now)
        transaction.commit()
    return len(live)


def _live_bindings(transaction: SqlTransaction, maar: MaarId) -> list[Binding]:
    live = (State.ACTIVE.value, State.DEPRECATED.value)
    columns = t.columns(t.binding)
    query = select(*columns).where(t.binding.c.anchor_id == maar, t.binding.c.state.in_(live))
    return [binding_of(row) for row in transaction.connection.execute(query)]


def _visitors(transaction: SqlTransaction, maar: MaarId) -> list[Node]:
    """The nodes whose visit, or the one before, is at the MAAR."""
    n = t.mobile_node.c
    columns = (n.id, n.serving_id, n.previous_id, n.generation, n.visit_since, n.flaps)
    query = select(*columns).where((n.serving_id == maar) | (n.previous_id == maar))
    return [
        Node(row[0], row[1], row[2], row[3], row[4], row[5], ())
        for row in transaction.connection.execute(query)
    ]


def _removal(kind: EventType, binding: Binding, now: Micros) -> Event:
    return Event(
        at=now,
        recorded_at=now,
        type=kind,
        node=binding.node,
        cause=REMOVED,
        prefix=binding.prefix,
        kind=binding.kind,
        iaid=binding.iaid,
        anchor=binding.anchor,
    )


def _departure(node: Node, now: Micros) -> Event:
    return Event(
        at=now,
        recorded_at=now,
        type=EventType.HANDOVER,
        node=node.id,
        cause=REMOVED,
        from_maar=node.serving,
        generation=node.generation,
    )


def _retire(connection: Connection, maar: MaarId, now: Micros) -> None:
    """Take the MAAR out of the domain; the rows that the history and ended bindings name stay."""
    connection.execute(delete(t.link).where(t.link.c.maar_id == maar))
    connection.execute(
        update(t.pool)
        .where(t.pool.c.maar_id == maar, t.pool.c.removed_at.is_(None))
        .values(removed_at=now)
    )
    connection.execute(update(t.maar).where(t.maar.c.id == maar).values(removed_at=now))
