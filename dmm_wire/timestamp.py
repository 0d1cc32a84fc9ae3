"""The 64-bit timestamp of RFC 5213 section 8.8: 48 bits of seconds, 16 bits of 1/65536 second.

A unit is about 15.3 microseconds, so `from_micros` maps neighbouring microseconds to the same
timestamp. Whoever needs a strictly growing sequence counts in timestamps, not in microseconds.
"""

from __future__ import annotations

from dmm_wire.errors import WireError

_SECOND = 1_000_000


def from_micros(micros: int) -> int:
    """The timestamp of `micros` microseconds since the epoch (UTC), rounded down.

    Raises WireError `range` for a negative time or one beyond 48 bits of seconds.
    """
    seconds, fraction = divmod(micros, _SECOND)
    if not 0 <= seconds < 1 << 48:
        raise WireError("range", f"{micros} microseconds have no timestamp")
    return seconds << 16 | (fraction << 16) // _SECOND


def to_micros(timestamp: int) -> int:
    """Microseconds since the epoch (UTC) of a timestamp, rounded up.

    `from_micros(to_micros(t)) == t` for every timestamp. Raises WireError `range` for a number
    that is not an unsigned 64-bit one.
    """
    if not 0 <= timestamp < 1 << 64:
        raise WireError("range", f"{timestamp} is not a 64-bit timestamp")
    return (timestamp >> 16) * _SECOND + -(-(timestamp & 0xFFFF) * _SECOND >> 16)
