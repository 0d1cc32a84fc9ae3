"""Which messages are fresh: the timestamps of RFC 4285 section 6, and a window of those accepted.

Inside, a timestamp is a plain integer: units of 2**-32 s since 1900, without end. On the wire it has
64 bits, so that its seconds begin anew in 2036; `unfold` tells which era is meant.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum

SECOND = 1 << 32
"""A second in the units of a timestamp."""

_WHOLE = 1 << 64
_MICROS = 1_000_000
_NTP_EPOCH = 2_208_988_800
"""1900 to 1970, seconds."""
_REMEMBERED = 4096
"""Timestamps kept for one peer. One that is older than the oldest kept is refused, so this bounds how
far two messages may overtake each other, not what can be replayed."""


class Freshness(Enum):
    """What a window says of a timestamp."""

    FRESH = "fresh"
    REPEATED = "repeated"
    STALE = "stale"


def timestamp(unix: float) -> int:
    """The timestamp of a time in seconds since 1970 (UTC)."""
    return int(unix * SECOND) + _NTP_EPOCH * SECOND


def microseconds(stamp: int) -> int:
    """When that was, in microseconds since 1970, rounded up."""
    return -((_NTP_EPOCH * SECOND - stamp) * _MICROS // SECOND)


def from_microseconds(micros: int) -> int:
    """The timestamp of a time in microseconds since 1970: never before one that `microseconds` made it of."""
    return micros * SECOND // _MICROS + _NTP_EPOCH * SECOND


def unfold(wire: int, near: int) -> int:
    """The timestamp whose low 64 bits are `wire` that is nearest to `near`."""
    return near + (wire - near + _WHOLE // 2) % _WHOLE - _WHOLE // 2


def fold(stamp: int) -> int:
    """The 64 bits of a timestamp that are sent."""
    return stamp % _WHOLE


class Window:
    """The timestamps accepted from one peer: each is accepted once, none from before `floor`, and
    none that is more than `tolerance` seconds from the clock.

    RFC 4285 wants each greater than all before. Here one may overtake another, as messages about
    different nodes do: what of the last `tolerance` was accepted is remembered one by one.
    """

    def __init__(self, floor: int, tolerance: float) -> None:
        self.allow(tolerance)
        self._floor = floor
        self._seen: list[int] = []
        self.highest = floor
        """The latest that was accepted."""

    def allow(self, tolerance: float) -> None:
        """Another tolerance from now on. What was forgotten is not accepted by a greater one either."""
        self._tolerance = int(tolerance * SECOND)

    def accept(self, wire: int, clock: int) -> Freshness:
        """Judge a timestamp at the time `clock`; one that is FRESH now counts as accepted. A peer
        that was believed to be ahead takes the clock along: it must be able to go on from there."""
        clock = max(clock, self.highest)
        stamp = unfold(wire, clock)
        place = bisect_left(self._seen, stamp)
        if self._seen[place : place + 1] == [stamp]:
            return Freshness.REPEATED
        if stamp <= self._floor or abs(stamp - clock) > self._tolerance:
            return Freshness.STALE
        self._seen.insert(place, stamp)
        self.highest = max(self.highest, stamp)
        self._forget(clock - self._tolerance)
        return Freshness.FRESH

    def suggestion(self, wire: int, clock: int) -> int:
        """What to answer to a timestamp that is STALE: 64 bits with its low half, and a high half with
        which they are soon after all that was accepted and after `clock`. RFC 4285 section 6: the
        sender adjusts its timestamps to that."""
        clock = max(clock, self.highest)
        low = wire % SECOND
        stamp = clock // SECOND * SECOND + low
        return fold(stamp if stamp > clock else stamp + SECOND)

    def _forget(self, until: int) -> None:
        old = max(bisect_left(self._seen, until), len(self._seen) - _REMEMBERED)
        if old > 0:
            self._floor = max(self._floor, self._seen[old - 1])
            del self._seen[:old]
