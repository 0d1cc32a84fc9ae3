"""When which PBU goes out: at once, after 1 s doubling to 32 s, and on at that rate (RFC 8885 section 3.6).

The database says that a MAAR is owed a PBU about a node; this is the memory of one process about the exchanges that
come of it. Losing it loses nothing: backoff and sequence numbers begin anew, and a PBU that repeats another one is a
refresh.
Times are seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from dhcp_cmd.core.model import MaarId, NodeId
from dmm_wire.mobility import (
    INITIAL_BINDACK_TIMEOUT,
    MAX_BINDACK_TIMEOUT,
    MAX_UPDATE_RATE,
    BindingAcknowledgement,
    BindingUpdate,
    Status,
)
from dmm_wire.mobility.serving import FINAL, Notice, echoes
from dmm_wire.timers import Timers

Key: TypeAlias = tuple[NodeId, MaarId]

BURST: Final = 4
"""PBUs that may go at once; after them, one at a time at the configured rate (RFC 8885 section 3.2: bursts on the
outgoing link are to be avoided)."""

_SEQUENCES: Final = 8
"""Sequence numbers of one exchange that a PBA may answer."""


class Sent(NamedTuple):
    """A PBU that went out. `serial` is the signal's, when the PBU was made."""

    key: Key
    peer: bytes
    serial: int
    notice: Notice


class Outcome(NamedTuple):
    """A PBA that answers one. `is_latest`: nothing newer was sent, or is to be; `is_over`: the peer has said its last
    word on it."""

    sent: Sent
    is_latest: bool
    accepted: bool
    status: int
    lifetime: int
    is_over: bool


@dataclass(slots=True)
class _Exchange:
    """`latest` is the serial of what was sent last; `is_news`: something newer was put and has not been sent yet."""

    sent: deque[float]
    wait: float = float(INITIAL_BINDACK_TIMEOUT)
    adjusted: bool = False
    """A wrong timestamp was already made good at once."""
    sequences: deque[tuple[bytes, int]] = field(default_factory=deque)
    latest: int | None = None
    is_news: bool = True


class Outbox:
    """All exchanges of a sender. `pacing`: PBUs per second at most, to all peers together. `sequence` is where the
    numbers begin."""

    def __init__(self, pacing: float, sequence: int = 0) -> None:
        self._pacing = pacing
        self._exchanges: dict[Key, _Exchange] = {}
        self._recent: dict[Key, deque[float]] = {}
        """Of exchanges that are over, when they sent: the rate is that of a MAAR and node, not of an exchange."""
        self._timers: Timers[Key] = Timers()
        self._ready: dict[Key, None] = {}
        """Due, and waiting for their turn."""
        self._tokens = float(BURST)
        self._filled = float("-inf")
        self._begin = sequence & 0xFFFF
        self._numbers: dict[bytes, int] = {}
        self._matches: dict[tuple[bytes, int], Sent] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def put(self, key: Key, now: float, *, news: bool = True) -> bool:
        """A MAAR is owed a PBU: it is due, no more than MAX_UPDATE_RATE in a second. Where an exchange goes on about
        it, `news` begins its waits anew; else nothing changes. Gives whether that rate holds it back."""
        exchange = self._exchanges.get(key)
        if exchange is not None and not news:
            return False
        if exchange is None:
            exchange = self._exchanges[key] = _Exchange(self._sent_by(key, now))
        exchange.wait, exchange.adjusted = float(INITIAL_BINDACK_TIMEOUT), False
        exchange.is_news = True
        when = _allowed(exchange, now)
        self._timers.set(key, when)
        return when > now

    def drop(self, key: Key) -> None:
        """Nothing is owed any more. No error where nothing was."""
        exchange = self._exchanges.pop(key, None)
        self._ready.pop(key, None)
        self._timers.cancel(key)
        if exchange is not None:
            for match in exchange.sequences:
                self._unmatch(key, match)
            if exchange.sent:
                self._recent[key] = exchange.sent

    def deadline(self, now: float) -> float | None:
        """When :meth:`due` has something."""
        if self._ready:
            self._fill(now)
            return now + max(0.0, 1.0 - self._tokens) / self._pacing
        return self._timers.deadline()

    def due(self, now: float) -> list[Key]:
        """What is to be sent now, and no more of it than may go at once: each is to be sent, put off or dropped."""
        for key in self._timers.due(now):
            self._ready[key] = None
        self._fill(now)
        # What is missing of a token by rounding is not waited for.
        taken = list(islice(self._ready, int(self._tokens + 1e-6)))
        for key in taken:
            del self._ready[key]
        self._tokens -= len(taken)
        return taken

    def put_off(self, key: Key, until: float) -> None:
        """It could not be sent now."""
        if key in self._exchanges:
            self._timers.set(key, until)

    def send(self, key: Key, peer: bytes, serial: int, notice: Notice, now: float) -> BindingUpdate:
        """The message that goes out now; it will be due again when it is not answered."""
        exchange = self._exchanges[key]
        # Numbers count per peer: an answer is known by its peer and number. Each transmission has the next one (RFC
        # 6275 section 11.8).
        sequence = (self._numbers.get(peer, self._begin) + 1) & 0xFFFF
        self._numbers[peer] = sequence
        if len(exchange.sequences) == _SEQUENCES:
            self._unmatch(key, exchange.sequences.popleft())
        exchange.sequences.append((peer, sequence))
        self._matches[peer, sequence] = Sent(key, peer, serial, notice)
        exchange.latest, exchange.is_news = serial, False
        exchange.sent.append(now)
        self._timers.set(key, _allowed(exchange, now + exchange.wait))
        exchange.wait = min(2 * exchange.wait, float(MAX_BINDACK_TIMEOUT))
        return notice.update(sequence)

    def answered(self, peer: bytes, answer: BindingAcknowledgement, now: float) -> Outcome | None:
        """Take in a PBA; None where it answers no PBU of ours (RFC 5213 section 6.9.1.2: ignored).

        Of one that `is_over`, the signal with that serial is to be finished. Where something was put meanwhile, the
        exchange goes on about it.
        """
        sent = self._matches.get((peer, answer.sequence))
        if sent is None or not answer.proxy:
            return None
        if not echoes(answer, sent.notice.identity, sent.notice.generation):
            return None
        exchange = self._exchanges[sent.key]
        is_latest = exchange.latest == sent.serial and not exchange.is_news
        is_over = answer.accepted or answer.status in FINAL
        if is_over and is_latest:
            self.drop(sent.key)
        elif answer.status == Status.MIPV6_ID_MISMATCH and not exchange.adjusted:
            # The guard has learnt the time at the peer from it: no reason to wait (RFC 4285 section 6).
            exchange.adjusted = True
            self._timers.set(sent.key, _allowed(exchange, now))
        return Outcome(sent, is_latest, answer.accepted, answer.status, answer.lifetime, is_over)

    def _sent_by(self, key: Key, now: float) -> deque[float]:
        """When it was sent in the last second; what is older is forgotten, of all keys."""
        while self._recent:
            oldest = next(iter(self._recent))
            if now < self._recent[oldest][-1] + 1.0:
                break
            del self._recent[oldest]
        return self._recent.pop(key, None) or deque(maxlen=MAX_UPDATE_RATE)

    def _unmatch(self, key: Key, match: tuple[bytes, int]) -> None:
        """No PBA of this number answers `key` any more. Numbers come again: by now it may be another one's."""
        sent = self._matches.get(match)
        if sent is not None and sent.key == key:
            del self._matches[match]

    def _fill(self, now: float) -> None:
        if now > self._filled:
            since = min(now - self._filled, float(BURST))
            self._tokens = min(float(BURST), self._tokens + since * self._pacing)
            self._filled = now


def _allowed(exchange: _Exchange, when: float) -> float:
    """`when`, or later so that no second sees more than MAX_UPDATE_RATE transmissions."""
    if len(exchange.sent) < MAX_UPDATE_RATE:
        return when
    return max(when, exchange.sent[0] + 1.0)
