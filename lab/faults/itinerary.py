"""Where each node goes, and what it does there, drawn from a seed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random

from lab.topology import MAARS


class Deed(Enum):
    """What a node does at a MAAR besides being there."""

    NOTHING = "nothing"
    RENEW = "renews what it holds"
    RELEASE_SOME = "releases what one MAAR anchors"
    RELEASE_ALL = "releases all that it holds"


@dataclass(frozen=True, slots=True)
class Stay:
    """A stay at a MAAR. `hasty`: it ends after `seconds`, whether or not anybody has answered; else that long after the
    answers. `gap` seconds without a link go before it. `afresh`: the client has forgotten what it held."""

    maar: int
    hasty: bool
    seconds: float
    gap: float
    afresh: bool
    deed: Deed


_DEEDS = (Deed.NOTHING, Deed.RENEW, Deed.RELEASE_SOME, Deed.RELEASE_ALL)
_WEIGHTS = (80, 10, 5, 5)


_OUTAGE = 0.05
"""How often the next stay is at the same MAAR: a link that fails and comes back."""


def itinerary(draws: Random, moves: int) -> list[Stay]:
    """The first stay and those that `moves` moves lead to; the last one is for good, and nothing is done there."""
    stays: list[Stay] = []
    while moves >= 0:
        if not stays:
            maar = draws.choice(MAARS)
            moves -= 1
        elif draws.random() < _OUTAGE:
            maar = stays[-1].maar
        else:
            maar = draws.choice([other for other in MAARS if other != stays[-1].maar])
            moves -= 1
        stays.append(_stay(draws, maar, last=moves < 0))
    return stays


def _stay(draws: Random, maar: int, *, last: bool) -> Stay:
    hasty = draws.random() < 0.3 and not last
    return Stay(
        maar,
        hasty,
        draws.expovariate(1 / 0.04) if hasty else draws.uniform(0.05, 1.2),
        draws.choice((0.0, 0.02, 0.1)),
        draws.random() < 0.2,
        Deed.NOTHING if hasty or last else draws.choices(_DEEDS, _WEIGHTS)[0],
    )
