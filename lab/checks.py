"""A list of assertions that goes on after one of them did not hold, and says what was found instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Check:
    """One assertion: `what` must hold; `found` says what was seen when it did not."""

    what: str
    held: bool
    found: str = ""


@dataclass(slots=True)
class Checks:
    """Assertions in their order. `tell` hears of each as it is made."""

    tell: Callable[[Check], None] = lambda check: None
    made: list[Check] = field(default_factory=list)

    def that(self, what: str, held: bool, found: object = "") -> None:
        """Note an assertion."""
        check = Check(what, bool(held), "" if held else str(found))
        self.made.append(check)
        self.tell(check)

    def equal(self, what: str, found: object, expected: object) -> None:
        """Note that `found` must be `expected`."""
        self.that(what, found == expected, f"found {found}, expected {expected}")

    @property
    def failed(self) -> list[Check]:
        """Those that did not hold."""
        return [check for check in self.made if not check.held]
