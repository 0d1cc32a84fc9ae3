"""What a MAAR asks the CMD for itself: who belongs to the domain, and that an anchor refused
(DESIGN 3.1).

Each question is an Information-request of our own, repeated with a growing interval until the CMD
answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity
from dmm_wire.timers import Timers

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0
"""Seconds between repetitions: INF_TIMEOUT of RFC 9915 section 7.6, and a bound that finds a CMD
soon after it is back."""

REFRESH_PAUSE: Final = 5.0
"""Seconds between two questions that strangers' PBUs make us ask."""

_MAX_REPORTS: Final = 256
_REPORT_PATIENCE: Final = 8
"""Times that a report is sent; the next exchange of the node makes the same PBU and the same
refusal."""


@dataclass(frozen=True, slots=True)
class Report:
    """A P-MAAR refused to serve `prefix`."""

    identity: Identity
    prefix: Prefix
    anchor: bytes


@dataclass(slots=True)
class _Question:
    transaction_id: bytes
    wait: float
    times: int


class Domain:
    """The endpoints of the domain's other MAARs, and the questions to the CMD that are open.

    `ask(transaction_id, suboptions)` makes the datagram; `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        endpoint: bytes,
        refresh: float,
        ask: Callable[[bytes, tuple[dmm.SubOption, ...]], bytes],
        jitter: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._refresh = refresh
        self._ask = ask
        self._jitter = jitter
        self._timers: Timers[Report | None] = Timers()
        self._questions: dict[Report | None, _Question] = {}
        self._asked = float("-inf")
        self._last_id = int(jitter() * 0xFFFFFF)
        self.peers: frozenset[bytes] = frozenset()
        self.known = False
        """Whether the CMD has answered since the start."""

    def start(self, now: float) -> None:
        """Ask for the domain at once."""
        self._timers.set(None, now)

    def suspect(self, now: float) -> None:
        """Somebody unknown claims to be a MAAR: ask again soon, not more often than every 5 s."""
        when = max(now, self._asked + REFRESH_PAUSE)
        due = self._timers.when(None)
        if due is None or due > when:
            self._questions.pop(None, None)
            self._timers.set(None, when)

    def report(self, report: Report, now: float) -> None:
        """Tell the CMD that an anchor refused. What does not fit a bounded number of open reports
        is dropped."""
        if report not in self._questions and len(self._questions) <= _MAX_REPORTS:
            self._timers.set(report, now)

    def learn(self, endpoints: Iterable[bytes]) -> bool:
        """Take a DOMAIN. Returns whether it differs from what was known."""
        peers = frozenset(endpoints) - {self._endpoint}
        changed = peers != self.peers
        self.peers, self.known = peers, True
        return changed

    def restore(self, peers: frozenset[bytes]) -> None:
        """Believe what an earlier process knew, until the CMD answers."""
        self.peers = peers - {self._endpoint}

    def deadline(self) -> float | None:
        """When :meth:`due` has something to send."""
        return self._timers.deadline()

    def due(self, now: float) -> list[bytes]:
        """The datagrams to send to the servers now."""
        datagrams: list[bytes] = []
        for name in self._timers.due(now):
            question = self._questions.get(name)
            if question is None:
                question = _Question(self._transaction_id(), FIRST_WAIT, 0)
                self._questions[name] = question
            if name is None:
                self._asked = now
            elif question.times == _REPORT_PATIENCE:
                del self._questions[name]
                continue
            question.times += 1
            # RFC 9915 section 15: each wait is randomised by a tenth.
            self._timers.set(name, now + question.wait * (0.9 + 0.2 * self._jitter()))
            question.wait = min(2 * question.wait, LONGEST_WAIT)
            datagrams.append(self._ask(question.transaction_id, _suboptions(name)))
        return datagrams

    def answered(self, transaction_id: bytes, now: float) -> bool:
        """The CMD answered this question. Returns whether it was one of ours."""
        for name, question in self._questions.items():
            if question.transaction_id == transaction_id:
                del self._questions[name]
                self._timers.cancel(name)
                if name is None:
                    self._timers.set(None, now + self._refresh)
                return True
        return False

    def _transaction_id(self) -> bytes:
        self._last_id = (self._last_id + 1) & 0xFFFFFF
        return self._last_id.to_bytes(3, "big")


def _suboptions(report: Report | None) -> tuple[dmm.SubOption, ...]:
    if report is None:
        return ()
    return (dmm.MobileNode(report.identity), dmm.AnchorFailed(report.prefix, report.anchor))
