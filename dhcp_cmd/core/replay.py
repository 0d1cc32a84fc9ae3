"""From the history back to the bindings table: the proof that nothing was written without its event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dhcp_cmd.core.model import Binding, Event, EventType, Kind, MaarId, NodeId, State
from dmm_wire.address import Prefix


class Held(NamedTuple):
    """What the history knows of a binding: everything but its lifetimes."""

    prefix: Prefix
    kind: Kind
    node: NodeId
    iaid: int | None
    anchor: MaarId
    state: State

    @classmethod
    def of(cls, binding: Binding) -> Held:
        """The part of a row that the history must give."""
        b = binding
        return cls(b.prefix, b.kind, b.node, b.iaid, b.anchor, b.state)


_STATE_AFTER = {
    EventType.ASSIGNED: State.ACTIVE,
    EventType.DEPRECATED: State.DEPRECATED,
    EventType.RELEASED: State.ENDED,
    EventType.EXPIRED: State.ENDED,
}


def replay(events: Iterable[Event]) -> dict[bytes, Held]:
    """The bindings table, keyed as it is by first address, after `events` in the order they were recorded.

    Every event names its binding in full, so a history whose oldest part was pruned still replays for each binding
    that it mentions.
    """
    table: dict[bytes, Held] = {}
    for event in events:
        if event.prefix is None or event.kind is None or event.anchor is None:
            continue  # a handover or a conflict
        if event.type is EventType.RECLAIMED:
            table.pop(event.prefix.address, None)
        elif event.type in _STATE_AFTER:
            table[event.prefix.address] = Held(
                event.prefix,
                event.kind,
                event.node,
                event.iaid,
                event.anchor,
                _STATE_AFTER[event.type],
            )
    return table
