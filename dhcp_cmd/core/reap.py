"""Record what ended by itself, and free what nobody can still rely on."""

from __future__ import annotations

from collections.abc import Iterable

from dhcp_cmd.core.lifetime import end_of, ended_binding
from dhcp_cmd.core.model import (
    Binding,
    Change,
    DropBinding,
    Event,
    EventType,
    Kind,
    Micros,
    PutBinding,
    PutSignal,
    Record,
    Settings,
    Signal,
    State,
)
from dmm_wire.dmm import SignallingMode

CAUSE = "reaper"


def reap(due: Iterable[Binding], now: Micros, settings: Settings) -> tuple[Change, ...]:
    """The changes for due bindings; one that is not due is left alone.

    An end is recorded with the instant it took effect; the prefix is freed by a later call, when `reusable_at` has
    passed. Addresses come before the LINK prefix they are in.
    """
    changes: list[Change] = []
    signals = settings.mode is not SignallingMode.DIRECT
    for binding in sorted(due, key=lambda b: b.kind is Kind.LINK):
        if binding.state is not State.ENDED:
            end, cause = end_of(binding)
            if end <= now:
                ended = ended_binding(binding, end, settings)
                changes.append(PutBinding(ended, new=False))
                changes.append(Record(_event(ended, EventType.EXPIRED, end, now, cause)))
                if (
                    signals
                    and binding.state is State.DEPRECATED
                    and binding.kind is not Kind.ADDRESS
                ):
                    # A PBU has one lifetime for all that it names, so the anchor may hold it for longer.
                    changes.append(PutSignal(Signal(binding.node, binding.anchor, False, now)))
        elif binding.reusable_at is not None and binding.reusable_at <= now:
            changes.append(DropBinding(binding.prefix, binding.node))
            changes.append(Record(_event(binding, EventType.RECLAIMED, now, now, CAUSE)))
    return tuple(changes)


def _event(binding: Binding, kind: EventType, at: Micros, now: Micros, cause: str) -> Event:
    return Event(
        at=at,
        recorded_at=now,
        type=kind,
        node=binding.node,
        cause=cause,
        prefix=binding.prefix,
        kind=binding.kind,
        iaid=binding.iaid,
        anchor=binding.anchor,
    )
