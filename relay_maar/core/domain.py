"""What a MAAR asks the CMD for itself: who belongs to the domain; which anchors of a node have
acknowledged; and, telling it, that an anchor refused or knows a later visit (DESIGN 3.1).

Each question is an Information-request of our own, repeated with a growing interval until the CMD
answers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity
from dmm_wire.timers import Timers
from relay_maar.core.session import MAX_SESSIONS

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 30.0
"""Seconds between repetitions: INF_TIMEOUT of RFC 9915 section 7.6, and a bound that finds a CMD
soon after it is back."""

REFRESH_PAUSE: Final = 5.0
"""Seconds between two questions that strangers' PBUs make us ask."""

_PATIENCE: Final = 1.0
_LONGEST_PATIENCE: Final = 32.0
"""Seconds until the CMD is asked about anchors that have not been heard of, doubling (as PBUs are
sent again, RFC 8885 section 3.6)."""

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


@dataclass(frozen=True, slots=True)
class Later:
    """A MAAR, at `anchor`, knows of a visit with this generation, which is later than the one that
    the CMD told."""

    identity: Identity
    generation: int
    anchor: bytes


_Name: TypeAlias = Report | Later | Identity | None
"""What a question is about; None: the domain."""


@dataclass(slots=True)
class _Question:
    transaction_id: bytes
    wait: float
    times: int


class Domain:
    """The endpoints of the domain's other MAARs, and the questions to the CMD that are open.

    `ask(transaction_id, suboptions)` makes the datagram; `jitter` gives numbers from 0 to 1;
    `awaits` says whether anchors of a node have still to be heard of.
    """

    def __init__(
        self,
        endpoint: bytes,
        refresh: float,
        ask: Callable[[bytes, tuple[dmm.SubOption, ...]], bytes],
        jitter: Callable[[], float],
        awaits: Callable[[Identity], bool] = lambda identity: True,
    ) -> None:
        self._endpoint = endpoint
        self._refresh = refresh
        self._ask = ask
        self._jitter = jitter
        self._awaits = awaits
        self._timers: Timers[_Name] = Timers()
        self._questions: dict[_Name, _Question] = {}
        self._patience: dict[Identity, tuple[int, float]] = {}
        """Of nodes whose anchors are waited for: the visit, and how long the CMD was not asked."""
        self._asked = float("-inf")
        self._last_id = int(jitter() * 0xFFFFFF)
        self.peers: frozenset[bytes] = frozenset()
        self.mode = int(dmm.SignallingMode.DIRECT)
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

    def report(self, report: Report | Later, now: float) -> None:
        """Tell the CMD that an anchor refused, or knows more. What does not fit a bounded number of open reports
        is dropped."""
        if report not in self._questions and len(self._questions) <= _MAX_REPORTS:
            self._timers.set(report, now)

    def wait_for(self, identity: Identity, generation: int, now: float) -> None:
        """Some anchors of this node are to be heard of on this visit: ask for them if they are not,
        1 s from now; later each time that the answer leaves some open."""
        known, _ = self._patience.get(identity, (None, 0.0))
        if known != generation and len(self._patience) < MAX_SESSIONS:
            self._questions.pop(identity, None)
            self._patience[identity] = (generation, _PATIENCE)
            self._timers.set(identity, now + _PATIENCE)

    def learn(self, endpoints: Iterable[bytes], mode: int = int(dmm.SignallingMode.DIRECT)) -> bool:
        """Take a DOMAIN and the domain's mode. Returns whether they differ from what was known."""
        peers = frozenset(endpoints) - {self._endpoint}
        changed = (peers, mode) != (self.peers, self.mode)
        self.peers, self.mode, self.known = peers, mode, True
        return changed

    def restore(self, peers: frozenset[bytes], mode: int) -> None:
        """Believe what an earlier process knew, until the CMD answers."""
        self.peers, self.mode = peers - {self._endpoint}, mode

    def deadline(self) -> float | None:
        """When :meth:`due` has something to send."""
        return self._timers.deadline()

    def due(self, now: float) -> list[bytes]:
        """The datagrams to send to the servers now."""
        datagrams: list[bytes] = []
        for name in self._timers.due(now):
            if isinstance(name, Identity) and not self._awaits(name):
                self._questions.pop(name, None)
                self._patience.pop(name, None)
                continue
            question = self._questions.get(name)
            if question is None:
                question = _Question(self.transaction_id(), FIRST_WAIT, 0)
                self._questions[name] = question
            if name is None:
                self._asked = now
            elif isinstance(name, Report | Later) and question.times == _REPORT_PATIENCE:
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
                elif isinstance(name, Identity):
                    generation, wait = self._patience[name]
                    wait = min(2 * wait, _LONGEST_PATIENCE)
                    self._patience[name] = (generation, wait)
                    self._timers.set(name, now + wait)
                return True
        return False

    def transaction_id(self) -> bytes:
        """One for a question of our own that is not open yet."""
        self._last_id = (self._last_id + 1) & 0xFFFFFF
        return self._last_id.to_bytes(3, "big")


def _suboptions(name: _Name) -> tuple[dmm.SubOption, ...]:
    if name is None:
        return ()
    if isinstance(name, Identity):
        return (dmm.MobileNode(name),)
    if isinstance(name, Later):
        return (dmm.MobileNode(name.identity), dmm.Visit(name.generation, name.anchor))
    return (dmm.MobileNode(name.identity), dmm.AnchorFailed(name.prefix, name.anchor))
