"""An outage of the database, told once for as long as it lasts: by one process, or by a parent for its workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

_log = logging.getLogger(__name__)


class Told(Protocol):
    """Whom a loop tells how its database is. `moment` is when it was asked (seconds of time.monotonic)."""

    def fails(self, moment: float, error: str, unanswered: int) -> None:
        """It did not do what it was asked, for which so many messages were not answered."""
        ...

    def works(self) -> None:
        """It has committed something."""
        ...


class Outage:
    """Writes an outage's beginning and its end to the log."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._time = monotonic
        self._since: float | None = None
        self._unanswered = 0
        self._over = float("-inf")

    def fails(self, moment: float, error: str, unanswered: int) -> None:
        """See Told. What was asked before the database was back belongs to the outage that is over."""
        if self._since is not None:
            self._unanswered += unanswered
        elif moment >= self._over:
            self._since, self._unanswered = self._time(), unanswered
            _log.error("the database does not answer, so nothing is answered: %s", error)

    def works(self) -> None:
        """See Told."""
        if self._since is None:
            return
        self._over = self._time()
        _log.warning(
            "the database is back after %.1f s; %d messages were not answered",
            self._over - self._since,
            self._unanswered,
        )
        self._since = None


class OutageOfWorker:
    """Passes on to the parent what a worker tells; `say` gives whether the parent could be told right now."""

    def __init__(self, say: Callable[..., bool]) -> None:
        self._say = say
        self._failing = False
        self._unanswered = 0
        """What the parent has not been told yet."""

    def fails(self, moment: float, error: str, unanswered: int) -> None:
        """See Told."""
        self._failing = True
        self._unanswered += unanswered
        if self._say("fails", moment, error, self._unanswered):
            self._unanswered = 0

    def works(self) -> None:
        """See Told. The parent hears it from who has told it of an outage."""
        if self._failing:
            self._failing = not self._say("works")
