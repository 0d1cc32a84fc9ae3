"""All that `./dev bench handover` finds out, and every bar of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench import attaching, crowds, relays
from bench.attaching import Attaches, Trigger
from bench.bars import Bar
from bench.goodput import Goodputs

PARTS: Final = ("moves", "goodput", "crowd", "relay")
"""What it consists of."""
LARGEST: Final = 1000
"""Nodes at once that there is a bar for."""


@dataclass(slots=True)
class Findings:
    """What there is so far. `programs`: seconds that `relay-maar attach` took as a program, each time."""

    machine: Mapping[str, str]
    attaches: Attaches = field(default_factory=Attaches)
    programs: list[float] = field(default_factory=list)
    goodputs: Goodputs | None = None
    crowds: Sequence[crowds.Result] = ()
    relays: Sequence[relays.Figures] = ()

    def triggers(self) -> list[Trigger]:
        """Those that something was measured of."""
        return self.attaches.triggers()

    def bars(self) -> list[Bar]:
        """All that this run says something about."""
        found = [*attaching.bars(self.attaches), *_crowd_bars(self.crowds)]
        if self.goodputs is not None:
            found += self.goodputs.bars()
        return [*found, *_relay_bars(self.relays)]


def _crowd_bars(results: Sequence[crowds.Result]) -> Iterator[Bar]:
    for each in results:
        if each.nodes == LARGEST:
            last = max(each.last)
            found = f"{last:.2f} s" + (f" ({last - crowds.BAR:.2f} s over)" * (last > crowds.BAR))
            what = (
                f"{each.nodes:,} nodes at once, {each.move}, CMD by a script: the last one restored"
            )
            yield Bar(what, found, f"≤ {crowds.BAR:g} s", last <= crowds.BAR)
    if results:
        wrong = sum(len(each.wrong) for each in results)
        yield Bar("crowds: nodes wrong, stale routes", str(wrong), "0", wrong == 0)


def _relay_bars(figures: Sequence[relays.Figures]) -> Iterator[Bar]:
    best = relays.best(figures)
    if "relay-maar" in best and "dhcrelay" in best:
        ratio = best["relay-maar"].rate / best["dhcrelay"].rate
        found = f"{ratio:.2f}" + (f" ({relays.BAR - ratio:.2f} short)" * (ratio < relays.BAR))
        what = f"relayed packets per second, in those of ISC dhcrelay (aim {relays.AIM:g})"
        yield Bar(what, found, f"≥ {relays.BAR:g}", ratio >= relays.BAR)
