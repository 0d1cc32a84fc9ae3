"""Rows to values of the core and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from secrets import randbits
from typing import Any

from sqlalchemy import Row

from dhcp_cmd.core.identity import link_layer_identity, linked
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
    Micros,
    Node,
    Pool,
    Signal,
    State,
)
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity

Values = tuple[Any, ...]
"""A row as the driver takes it: the values of the columns named beside the function that makes it, in this order."""


@lru_cache(maxsize=16_384)
def _text(prefix: Prefix) -> str:
    """The same prefix is written with its binding, its events, and again when it moves."""
    return str(prefix)


_KINDS = {kind.value: kind for kind in Kind}
_STATES = {state.value: state for state in State}
_EVENT_TYPES = {kind.value: kind for kind in EventType}
# The other way too: asking a member for its value is a call of Python's.
_TEXTS: dict[Kind | State | EventType | None, str | None] = {
    None: None,
    **{each: each.value for each in (*Kind, *State, *EventType)},
}


def domain_of(
    version: int,
    hash_key: bytes,
    maars: Iterable[Maar],
    links: Iterable[Link],
    pools: Iterable[Pool],
    pairs: Iterable[tuple[Identity, Identity]] = (),
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
        linked=linked(pairs),
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
        router_link_local=row.router_link_local,
        router_link_layer=row.router_link_layer,
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


@lru_cache(maxsize=16_384)
def identity_text(identity: Identity) -> str:
    """The same node speaks more than once, and is looked for each time."""
    return str(identity)


NODE = (
    "id",
    "serving_id",
    "previous_id",
    "generation",
    "visit_since",
    "flaps",
    "link_layer",
    "heard",
    "heard_before",
    "conflict_at",
    "registered",
)
NEW_NODE = (*NODE[:-1], "idle", NODE[-1])


def node_of(row: Sequence[Any], identities: Iterable[Identity]) -> Node:
    """A node from the columns NODE, with its identities."""
    (
        number,
        serving,
        previous,
        generation,
        since,
        flaps,
        link_layer,
        heard,
        before,
        conflict,
        registered,
    ) = row
    known_by = tuple(dict.fromkeys(identities))
    seen = None if link_layer is None else link_layer_identity(link_layer)
    return Node(
        number,
        serving,
        previous,
        generation,
        since,
        flaps,
        known_by,
        seen,
        heard,
        before,
        conflict,
        registered,
    )


def node_values(node: Node) -> Values:
    """The columns NODE of a node (its identities have a table of their own)."""
    return (
        node.id,
        node.serving,
        node.previous,
        node.generation,
        node.visit_since,
        node.flaps,
        None if node.link_layer is None else node.link_layer.value,
        node.heard,
        node.heard_before,
        node.conflict_at,
        node.registered,
    )


def new_node_values(node: Node, idle: bool) -> Values:
    """The columns NEW_NODE of a node. The triggers see to `idle` too; that they find it right spares them a write."""
    values = node_values(node)
    return (*values[:-1], int(idle), values[-1])


IDENTITY = ("node_id", "subtype", "value", "text")


def identity_values(node: int, identity: Identity) -> Values:
    """The columns IDENTITY of one identity."""
    return (node, int(identity.subtype), identity.value, identity_text(identity))


def binding_of(row: Iterable[Any]) -> Binding:
    """A row of binding, the columns that every engine has (by position: this is the hot path)."""
    (
        prefix,
        length,
        kind,
        node,
        iaid,
        anchor,
        pool,
        state,
        assigned_at,
        preferred_until,
        valid_until,
        hold_until,
        ended_at,
        reusable_at,
        autoconf,
    ) = row
    return Binding(
        Prefix(prefix, length),
        _KINDS[kind],
        node,
        iaid,
        anchor,
        pool,
        _STATES[state],
        assigned_at,
        preferred_until,
        valid_until,
        hold_until,
        ended_at,
        reusable_at,
        autoconf == 1,
    )


BINDING = (
    "prefix",
    "prefix_length",
    "prefix_text",
    "kind",
    "node_id",
    "iaid",
    "anchor_id",
    "pool_id",
    "state",
    "assigned_at",
    "preferred_until",
    "valid_until",
    "hold_until",
    "ended_at",
    "reusable_at",
    "autoconf",
)


def binding_values(binding: Binding) -> Values:
    """The columns BINDING of a binding."""
    prefix = binding.prefix
    return (
        prefix.address,
        prefix.length,
        _text(prefix),
        _TEXTS[binding.kind],
        binding.node,
        binding.iaid,
        binding.anchor,
        binding.pool,
        _TEXTS[binding.state],
        binding.assigned_at,
        binding.preferred_until,
        binding.valid_until,
        binding.hold_until,
        binding.ended_at,
        binding.reusable_at,
        int(binding.autoconf),
    )


LIFE = (
    "state",
    "assigned_at",
    "preferred_until",
    "valid_until",
    "hold_until",
    "ended_at",
    "reusable_at",
    "autoconf",
)
"""What changes in the life of a binding, while it is the same node's."""


def life_values(binding: Binding) -> Values:
    """The columns LIFE of a binding."""
    return (
        _TEXTS[binding.state],
        binding.assigned_at,
        binding.preferred_until,
        binding.valid_until,
        binding.hold_until,
        binding.ended_at,
        binding.reusable_at,
        int(binding.autoconf),
    )


_HOLDING = Binding._fields.index("state")
_PREFERRED = Binding._fields.index("preferred_until")
_VALID = Binding._fields.index("valid_until")


def is_same_holding(before: Binding, after: Binding) -> bool:
    """Whether nothing changed but what does in the life of a binding."""
    return before[:_HOLDING] == after[:_HOLDING]


def is_extension(before: Binding, after: Binding) -> bool:
    """Whether nothing but the lifetimes changed: most writes are Renews."""
    return before[:_PREFERRED] == after[:_PREFERRED] and before[_VALID + 1 :] == after[_VALID + 1 :]


SIGNAL = ("node_id", "maar_id", "serial", "visit", "put_at", "owner", "claimed_until")
CLAIM: Micros = 10_000_000
"""For how long a signal is its sender's, unless that one says so again."""


def signal_of(row: Sequence[Any]) -> Signal:
    """A signal from the columns node_id, maar_id, visit, put_at."""
    node, maar, visit, put_at = row
    return Signal(node, maar, bool(visit), put_at)


def signal_values(signal: Signal, owner: str | None) -> Values:
    """The columns SIGNAL of a signal that `owner` is going to send; None: whoever comes first."""
    until = signal.put_at + (CLAIM if owner else 0)
    # A row that comes after another one was deleted has a serial that that one never had, whatever the clock says.
    serial = randbits(62)
    visit = int(signal.visit)
    return signal.node, signal.maar, serial, visit, signal.put_at, owner, until


EVENT = (
    "at",
    "recorded_at",
    "type",
    "node_id",
    "cause",
    "prefix",
    "prefix_length",
    "prefix_text",
    "kind",
    "iaid",
    "anchor_id",
    "from_maar_id",
    "to_maar_id",
    "generation",
    "transaction_id",
    "detail",
)


def event_values(event: Event) -> Values:
    """The columns EVENT of a history row: all but the id, which the database gives it."""
    prefix = event.prefix
    return (
        event.at,
        event.recorded_at,
        _TEXTS[event.type],
        event.node,
        event.cause,
        None if prefix is None else prefix.address,
        None if prefix is None else prefix.length,
        None if prefix is None else _text(prefix),
        _TEXTS[event.kind],
        event.iaid,
        event.anchor,
        event.from_maar,
        event.to_maar,
        event.generation,
        event.transaction_id,
        event.detail,
    )


def event_of(row: Iterable[Any]) -> Event:
    """A row of history, the columns that every engine has (by position: it is a large table)."""
    (
        _id,
        at,
        recorded_at,
        event_type,
        node,
        cause,
        prefix,
        length,
        kind,
        iaid,
        anchor,
        from_maar,
        to_maar,
        generation,
        transaction_id,
        detail,
    ) = row
    return Event(
        at,
        recorded_at,
        _EVENT_TYPES[event_type],
        node,
        cause,
        None if prefix is None else Prefix(prefix, length),
        None if kind is None else _KINDS[kind],
        iaid,
        anchor,
        from_maar,
        to_maar,
        generation,
        transaction_id,
        detail,
    )
