"""Rows to values of the core and back."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sqlalchemy import Row

from dhcp_cmd.core.model import (
    Binding,
    Domain,
    Event,
    EventType,
    Kind,
    Link,
    Maar,
    MaarId,
    MaarState,
    Node,
    Pool,
    State,
)
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity

Values = dict[str, Any]


@lru_cache(maxsize=16_384)
def _text(prefix: Prefix) -> str:
    """The same prefix is written with its binding, its events, and again when it moves."""
    return str(prefix)


_KINDS = {kind.value: kind for kind in Kind}
_STATES = {state.value: state for state in State}


def domain_of(
    version: int,
    hash_key: bytes,
    maars: Iterable[Maar],
    links: Iterable[Link],
    pools: Iterable[Pool],
) -> Domain:
    """The domain with its indexes."""
    by_id = {maar.id: maar for maar in maars}
    by_maar: dict[MaarId, list[Pool]] = {maar: [] for maar in by_id}
    for pool in pools:
        by_maar[pool.maar].append(pool)
    return Domain(
        version=version,
        hash_key=hash_key,
        maars=by_id,
        links=tuple(links),
        pools={maar: tuple(found) for maar, found in by_maar.items()},
        by_relay_id={maar.relay_id: maar for maar in by_id.values()},
        by_endpoint={maar.endpoint: maar for maar in by_id.values()},
    )


def maar_of(row: Row[Any]) -> Maar:
    """A row of maar."""
    return Maar(
        id=row.id,
        name=row.name,
        relay_id=row.relay_id,
        endpoint=row.endpoint,
        relay_address=row.relay_address,
        state=MaarState(row.state),
    )


def link_of(row: Row[Any]) -> Link:
    """A row of link."""
    return Link(maar=row.maar_id, prefix=Prefix(row.prefix, row.prefix_length))


def pool_of(row: Row[Any]) -> Pool:
    """A row of pool."""
    return Pool(
        id=row.id,
        maar=row.maar_id,
        kind=_KINDS[row.kind],
        prefix=Prefix(row.prefix, row.prefix_length),
        unit_length=row.unit_length,
        preferred=row.preferred,
        valid=row.valid,
    )


def node_values(node: Node) -> Values:
    """The columns of a node (its identities have a table of their own)."""
    return {
        "id": node.id,
        "serving_id": node.serving,
        "previous_id": node.previous,
        "generation": node.generation,
        "visit_since": node.visit_since,
        "flaps": node.flaps,
    }


def identity_values(node: int, identity: Identity) -> Values:
    """The columns of one identity."""
    return {
        "node_id": node,
        "subtype": int(identity.subtype),
        "value": identity.value,
        "text": str(identity),
    }


def binding_of(row: Iterable[Any]) -> Binding:
    """A row of binding, its columns in the order of the table (by position: this is the hot path)."""
    (
        prefix,
        length,
        _text,
        _last,
        kind,
        node,
        iaid,
        anchor,
        pool,
        slot,
        state,
        assigned_at,
        preferred_until,
        valid_until,
        hold_until,
        ended_at,
        reusable_at,
    ) = row
    return Binding(
        Prefix(prefix, length),
        _KINDS[kind],
        node,
        iaid,
        anchor,
        pool,
        slot,
        _STATES[state],
        assigned_at,
        preferred_until,
        valid_until,
        hold_until,
        ended_at,
        reusable_at,
    )


def binding_values(binding: Binding) -> Values:
    """The columns of a binding."""
    prefix = binding.prefix
    return {
        "prefix": prefix.address,
        "prefix_length": prefix.length,
        "prefix_text": _text(prefix),
        "last_address": prefix.last,
        "kind": binding.kind.value,
        "node_id": binding.node,
        "iaid": binding.iaid,
        "anchor_id": binding.anchor,
        "pool_id": binding.pool,
        "slot": binding.slot,
        "state": binding.state.value,
        "assigned_at": binding.assigned_at,
        "preferred_until": binding.preferred_until,
        "valid_until": binding.valid_until,
        "hold_until": binding.hold_until,
        "ended_at": binding.ended_at,
        "reusable_at": binding.reusable_at,
    }


_all_but_lifetimes = attrgetter(
    "prefix",
    "kind",
    "node",
    "iaid",
    "anchor",
    "pool",
    "slot",
    "state",
    "assigned_at",
    "hold_until",
    "ended_at",
    "reusable_at",
)


def is_extension(before: Binding, after: Binding) -> bool:
    """Whether nothing but the lifetimes changed: most writes are Renews."""
    return bool(_all_but_lifetimes(before) == _all_but_lifetimes(after))


def event_values(event: Event) -> Values:
    """The columns of a history row, without the id that the database gives it."""
    prefix = event.prefix
    return {
        "at": event.at,
        "recorded_at": event.recorded_at,
        "type": event.type.value,
        "node_id": event.node,
        "cause": event.cause,
        "prefix": None if prefix is None else prefix.address,
        "prefix_length": None if prefix is None else prefix.length,
        "prefix_text": None if prefix is None else _text(prefix),
        "kind": None if event.kind is None else event.kind.value,
        "iaid": event.iaid,
        "anchor_id": event.anchor,
        "from_maar_id": event.from_maar,
        "to_maar_id": event.to_maar,
        "generation": event.generation,
        "transaction_id": event.transaction_id,
        "detail": event.detail,
    }


def event_of(row: Row[Any]) -> Event:
    """A row of history."""
    return Event(
        at=row.at,
        recorded_at=row.recorded_at,
        type=EventType(row.type),
        node=row.node_id,
        cause=row.cause,
        prefix=None if row.prefix is None else Prefix(row.prefix, row.prefix_length),
        kind=None if row.kind is None else _KINDS[row.kind],
        iaid=row.iaid,
        anchor=row.anchor_id,
        from_maar=row.from_maar_id,
        to_maar=row.to_maar_id,
        generation=row.generation,
        transaction_id=row.transaction_id,
        detail=row.detail,
    )
