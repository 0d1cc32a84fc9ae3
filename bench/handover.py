"""All that `./dev bench handover` finds out, and every bar of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench import attaching, relays
from bench.attaching import Attaches, Trigger
from bench.bars import Bar
from bench.crowd_report import Crowds
from bench.goodput import Goodputs

PARTS: Final = ("moves", "goodput", "crowd", "relay")
"""What it consists of."""


@dataclass(slots=True)
class Findings:
    """What there is so far. `programs`: seconds that `relay-maar attach` took as a program, each time."""

    machine: Mapping[str, str]
    attaches: Attaches = field(default_factory=Attaches)
    programs: list[float] = field(default_factory=list)
    goodputs: Goodputs | None = None
    crowds: Crowds = field(default_factory=Crowds)
    relays: Sequence[relays.Figures] = ()

    def triggers(self) -> list[Trigger]:
        """Those that something was measured of."""
        return self.attaches.triggers()

    def bars(self) -> list[Bar]:
        """All that this run says something about."""
        found = [*attaching.bars(self.attaches), *self.crowds.bars()]
        if self.goodputs is not None:
            found += self.goodputs.bars()
        return [*found, *_relay_bars(self.relays)]


def _relay_bars(figures: Sequence[relays.Figures]) -> Iterator[Bar]:
    best = relays.best(figures)
    if "relay-maar" in best and "dhcrelay" in best:
        ratio = best["relay-maar"].rate / best["dhcrelay"].rate
        found = f"{ratio:.2f}" + (f" ({relays.BAR - ratio:.2f} short)" * (ratio < relays.BAR))
        what = f"relayed packets per second, in those of ISC dhcrelay (aim {relays.AIM:g})"
        yield Bar(what, found, f"≥ {relays.BAR:g}", ratio >= relays.BAR)
