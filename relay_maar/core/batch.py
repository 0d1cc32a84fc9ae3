"""Many Applies as one: when a crowd of nodes moves, the kernel is asked once for all of them."""

from __future__ import annotations

from collections.abc import Iterable

from relay_maar.core.actions import Apply
from relay_maar.core.desired import rank
from relay_maar.core.items import Change, Key, Put


def merged(applies: Iterable[Apply]) -> tuple[Change, ...]:
    """The changes that have the same outcome as these Applies, one after the other.

    Of each key only the last change is made: what is put in the end replaces what is there in one step, whatever was
    wanted in between. All that is put comes before all that is dropped, and what others depend on is put first and
    dropped last, as in each Apply by itself (:mod:`relay_maar.core.desired`).
    """
    last: dict[Key, Change] = {}
    for apply in applies:
        for change in apply.changes:
            last[change.item.key] = change
    puts = [change for change in last.values() if isinstance(change, Put)]
    drops = [change for change in last.values() if not isinstance(change, Put)]
    return (
        *sorted(puts, key=lambda change: rank(change.item)),
        *sorted(drops, key=lambda change: -rank(change.item)),
    )
