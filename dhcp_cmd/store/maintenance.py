"""Looking after a database: check, backup, status. Pruning is in `prune`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, exists, func, or_, select

from dhcp_cmd.core.model import Binding, EventType, Kind, Micros, State
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.core.replay import Held, replay
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.admin import overlap
from dhcp_cmd.store.engine import backend, reading, schema_version
from dhcp_cmd.store.rows import binding_of, event_of
from dhcp_cmd.store.sql import SqlStore, load_domain
from dmm_wire.address import Prefix, format_address

_ROWS = 1_000
"""Rows fetched at a time where a whole table is walked."""


def check(store: SqlStore) -> list[str]:
    """Everything that is wrong with the database, a line each; nothing when it is sound. Raises StoreError.

    Reads one state of it while the CMD goes on writing: file integrity, references, pools and bindings that overlap,
    bindings outside their pool, and that replaying the history gives the bindings table.
    """
    with reading(store.engine) as connection:
        problems = [*backend(connection.dialect.name).integrity(connection)]
        problems += _written(connection)
        problems += _pools(connection)
        problems += _bindings(connection)
        problems += _idle(connection)
        problems += _signals(connection)
        problems += _replay(connection)
    return problems


def _pools(connection: Connection) -> Iterator[str]:
    domain = load_domain(connection)
    seen: list[tuple[Prefix, str]] = []
    for maar, pools in domain.pools.items():
        for pool in pools:
            name = domain.maars[maar].name
            for prefix, other in seen:
                if overlap(pool.prefix, prefix):
                    yield f"pools: {pool.prefix} of {name} overlaps {prefix} of {other}"
            seen.append((pool.prefix, name))


def _written(connection: Connection) -> Iterator[str]:
    """What a person reads beside an address is that address."""
    if not t.has_written(connection.dialect):
        return
    binding = t.binding.c
    query = select(binding.prefix, binding.prefix_length, binding.prefix_text)
    for address, length, text in connection.execution_options(yield_per=_ROWS).execute(query):
        if text != str(prefix := Prefix(address, length)):
            yield f"bindings: {prefix} is written as {text}"


def _bindings(connection: Connection) -> Iterator[str]:
    """Walk the bindings in the order of their addresses: what covers a row came before it."""
    pools = {
        row.id: (Prefix(row.prefix, row.prefix_length), row.unit_length)
        for row in connection.execute(select(*t.columns(t.pool)))
    }
    query = select(*t.columns(t.binding)).order_by(t.binding.c.prefix)
    before: Binding | None = None
    for row in connection.execution_options(yield_per=_ROWS).execute(query):
        binding = binding_of(row)
        prefix = binding.prefix
        if before is not None and before.prefix.contains(prefix):
            inside = binding.kind is Kind.ADDRESS and before.kind is Kind.LINK
            if not inside or before.node != binding.node:
                yield f"bindings: {prefix} of node {binding.node} lies in {before.prefix} of node {before.node}"
            elif binding.state is not State.ENDED and before.state is State.ENDED:
                yield f"bindings: {prefix} has not ended, but {before.prefix} that it is in has"
        elif binding.kind is Kind.ADDRESS:
            yield f"bindings: {prefix} of node {binding.node} lies in no prefix of it"
        if before is None or not before.prefix.contains(prefix):
            before = binding
        if binding.pool is not None and binding.pool in pools:  # else a missing reference
            pool, unit_length = pools[binding.pool]
            if prefix.length != unit_length or not pool.contains(prefix):
                yield f"bindings: {prefix} is not a unit of its pool {pool}"


def _idle(connection: Connection) -> Iterator[str]:
    """The reaper retires nodes by their column `idle`, which triggers keep."""
    node = t.mobile_node.c
    holds = exists().where(t.binding.c.node_id == node.id)
    wrong = or_(and_(node.idle == 1, holds), and_(node.idle == 0, ~holds))
    for number, idle in connection.execute(select(node.id, node.idle).where(wrong)):
        yield f"nodes: {number} has idle = {idle}, but {'holds something' if idle else 'holds nothing'}"


def _signals(connection: Connection) -> Iterator[str]:
    """The MAAR where a node is knows of it, and is owed nothing: a CMD that signals sees to that at each move. Rows
    from before the visit have stayed since the domain went to mode direct, in which nobody reads them."""
    node, signal = t.mobile_node.c, t.signal.c
    query = select(signal.node_id, signal.maar_id).join(t.mobile_node, node.id == signal.node_id)
    is_there = and_(node.serving_id == signal.maar_id, signal.put_at >= node.visit_since)
    for number, maar in connection.execute(query.where(is_there)):
        yield f"signals: MAAR {maar} is owed a signal about node {number}, which is there"


def _replay(connection: Connection) -> Iterator[str]:
    """The history, replayed, must be the bindings table. Every event names its binding in full, so the last one of
    each prefix says all that replaying those before it would: of a long history few rows are read.
    """
    walk = connection.execution_options(yield_per=_ROWS)
    of_bindings = t.history.c.prefix.is_not(None), t.history.c.type != EventType.CONFLICT.value
    last = select(func.max(t.history.c.id)).where(*of_bindings).group_by(t.history.c.prefix)
    query = select(*t.columns(t.history)).where(t.history.c.id.in_(last)).order_by(t.history.c.id)
    replayed = replay(map(event_of, walk.execute(query)))
    for row in walk.execute(select(*t.columns(t.binding))):
        binding = binding_of(row)
        held = replayed.pop(binding.prefix.address, None)
        if held is None:
            yield f"replay: the history does not know {binding.prefix}"
        elif held != Held.of(binding):
            yield f"replay: {binding.prefix} is {_told(Held.of(binding))}, the history says {_told(held)}"
    for held in replayed.values():
        yield f"replay: the history says {held.prefix} is {_told(held)}, but it has no row"


def _told(held: Held) -> str:
    return f"{held.prefix} {held.kind} {held.state} of node {held.node} at MAAR {held.anchor} iaid {held.iaid}"


def backup(store: SqlStore, file: Path) -> int:
    """Copy the database, as it is at one moment and while the CMD goes on, into a new file that its owner and group
    may read; how many bytes. Raises StoreError, also when the file exists.
    """
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}") from error
    try:
        backend(store.engine.dialect.name).backup(store.engine, file)
        return file.stat().st_size
    except (OSError, StoreError) as error:
        file.unlink(missing_ok=True)
        raise StoreError(f"{file}: {error}") from error


def pruned_before(store: SqlStore) -> Micros | None:
    """The time before which the history is no longer whole; None: nothing was pruned. Raises StoreError."""
    with reading(store.engine) as connection:
        before: Micros | None = connection.execute(select(func.max(t.prune.c.before))).scalar()
        return before


def status(store: SqlStore) -> dict[str, Any]:
    """What the database holds, as JSON can say it. Raises StoreError."""
    with reading(store.engine) as connection:
        domain = load_domain(connection)
        counts: dict[int, dict[str, int]] = {}
        query = select(t.binding.c.anchor_id, t.binding.c.state, func.count()).group_by(
            t.binding.c.anchor_id, t.binding.c.state
        )
        for anchor, state, count in connection.execute(query):
            counts.setdefault(anchor, {})[state] = count
        visits = select(t.mobile_node.c.serving_id, func.count()).group_by(
            t.mobile_node.c.serving_id
        )
        serving = {row[0]: row[1] for row in connection.execute(visits)}
        alive = select(func.count()).where(t.mobile_node.c.idle.is_not(None))
        last = connection.execute(
            select(*t.columns(t.history)).order_by(t.history.c.id.desc()).limit(1)
        ).first()
        pruned = connection.execute(select(func.max(t.prune.c.before))).scalar()
        return {
            "schema_version": schema_version(connection),
            "domain_version": domain.version,
            "maars": [
                {
                    "name": maar.name,
                    "endpoint": format_address(maar.endpoint),
                    "state": maar.state.value,
                    "nodes": serving.get(maar.id, 0),
                    "bindings": counts.get(maar.id, {}),
                }
                for maar in domain.maars.values()
            ],
            "nodes": connection.execute(alive).scalar_one(),
            "bindings": {
                state: sum(each.get(state, 0) for each in counts.values())
                for state in ("active", "deprecated", "ended")
            },
            "last_event": None
            if last is None
            else {"at": last.at, "event": last.type, "node": last.node_id, "cause": last.cause},
            "pruned_before": pruned,
        }
