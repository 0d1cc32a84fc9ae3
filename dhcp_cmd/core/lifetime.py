"""Between lifetimes on the wire (seconds from now) and instants in the database (microseconds); when things end."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.model import MICROS, Binding, Kind, Micros, Settings, State
from dmm_wire.dhcpv6.codes import INFINITY

_DEPRECATED: Final = State.DEPRECATED

NEVER: Micros = 253_402_300_799 * MICROS
"""The end of an infinite lifetime: the last second that every engine's timestamps can hold (the year 9999)."""


def until(now: Micros, seconds: int) -> Micros:
    """When a lifetime or duration of `seconds` that begins `now` ends; `NEVER` for infinity."""
    return NEVER if seconds == INFINITY else min(now + seconds * MICROS, NEVER)


def left(end: Micros, now: Micros) -> int:
    """The whole seconds from `now` to `end`: 0 when it is over, infinity for `NEVER`."""
    if end <= now:
        return 0
    return INFINITY if end >= NEVER else min((end - now) // MICROS, INFINITY - 1)


def ended_binding(binding: Binding, at: Micros, settings: Settings) -> Binding:
    """The binding, ended `at`; free for others when all that was promised, and the margin, is over.

    A LINK prefix that is not ended may have a `reusable_at` already: one of its addresses was declined and is in
    quarantine until then. It comes free a moment after its addresses, so that the reaper, which goes by time, never
    leaves an address behind in a prefix that is somebody else's by now.
    """
    free = until(binding.valid_until, settings.reuse_margin)
    if binding.kind is Kind.LINK:
        free = max(free, binding.reusable_at or free) + 1
    return binding._replace(state=State.ENDED, ended_at=at, hold_until=None, reusable_at=free)


def end_of(binding: Binding) -> tuple[Micros, str]:
    """When a live binding ends by itself, and of what."""
    if binding.hold_until is not None and binding.hold_until <= binding.valid_until:
        return binding.hold_until, "anchor-hold" if binding.state is _DEPRECATED else "deregistered"
    return binding.valid_until, "valid-lifetime"
