"""The server's one loop: drain the sockets, answer a batch, reap now and then."""

from __future__ import annotations

import logging
import os
import selectors
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from dhcp_cmd.core.model import Micros
from dhcp_cmd.core.ports import Refused, StoreError
from dhcp_cmd.server.datagrams import Address
from dhcp_cmd.server.responder import Responder
from dhcp_cmd.server.sockets import Listener, Waiting
from dhcp_cmd.server.waiting import WaitingRoom
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import peek_type

REAP_INTERVAL = 1.0
"""Seconds between looks for what has ended."""
MOST_DRAINED = 16_384
"""Datagrams read from one socket before any is answered: a flood shall not keep the server reading."""
REAP_BATCH = 500
"""Bindings reaped between two batches."""

_SOLICIT: Final = int(MessageType.SOLICIT)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes upon itself."""

    batch: int = 128
    """Datagrams answered from one transaction."""
    waiting: int = 8192
    """Datagrams of one listener that may wait."""
    age: float = 0.5
    """Seconds that a datagram may wait, in the kernel or here; a client asks again after about one (RFC 9915 section
    7.6)."""


class Loop:
    """Serves listeners until told to stop. `count` takes outcomes, now and then.

    `monotonic` is the clock, in seconds.
    """

    def __init__(
        self,
        responder: Responder,
        listeners: Iterable[Listener],
        limits: Limits,
        count: Callable[[Counter[str]], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.responder = responder
        self.listeners: list[Listener] = []
        self.limits = limits
        self.stopping = False
        self._count = count
        self._time = monotonic
        self._room: WaitingRoom[Listener, Waiting] = WaitingRoom(limits.waiting, limits.age, _opens)
        self._selector = selectors.DefaultSelector()
        self._next_reap = self._time()
        self._outage: tuple[float, int] | None = None
        self._refused = ""
        self.listen(listeners)

    def listen(self, listeners: Iterable[Listener]) -> None:
        """Serve these listeners from now on; the caller closes those that are no longer among them."""
        listeners = list(listeners)
        for listener in self.listeners:
            if listener not in listeners:
                self._selector.unregister(listener)
                self._dropped("overload", self._room.forget(listener))
        for listener in listeners:
            if listener not in self.listeners:
                self._selector.register(listener, selectors.EVENT_READ)
        self.listeners = listeners

    def wake_on(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call `call` when there is something to read from `descriptor`."""
        self._selector.register(descriptor, selectors.EVENT_READ, call)

    def run(self) -> None:
        """Serve until `stopping` is set; what waits then is not answered: its senders will ask again."""
        while not self.stopping:
            self.turn()
        self._report()

    def turn(self) -> None:
        """One round: wait for something to do, and do it."""
        busy = len(self._room) > 0
        idle = max(0.0, self._next_reap - self._time())
        for key, _ in self._selector.select(0 if busy else idle):
            if isinstance(key.fileobj, Listener):
                found = key.fileobj.drain(MOST_DRAINED)
                now = self._time()
                items = [(now - age, item) for age, item in found]
                self._dropped("overload", self._room.add(key.fileobj, items))
            else:
                key.data()
        if self.stopping:
            return
        self._dropped("overload", self._room.drop_old(self._time()))
        batch = self._room.take(self.limits.batch)
        if batch:
            self._answer(batch)
        if self._time() >= self._next_reap and not self.stopping:
            self._reap()
        self._report()

    def close(self) -> None:
        """Close selector and listeners."""
        self._selector.close()
        for listener in self.listeners:
            listener.close()

    def _answer(self, batch: list[tuple[Listener, Waiting]]) -> None:
        before = self.responder.cmd.commits
        try:
            answers = self.responder.answer([arrival for _, (arrival, _) in batch], _now)
        except StoreError as error:
            self._fails(error, len(batch))
            return
        self._works(before)
        outgoing: dict[Listener, list[tuple[bytes, Address]]] = {}
        for (listener, (_, address)), answer in zip(batch, answers, strict=True):
            if answer is not None:
                outgoing.setdefault(listener, []).append((answer, address))
        for listener, ready in outgoing.items():
            self._dropped("send-error", listener.send(ready))

    def _reap(self) -> None:
        """Record what has ended. Where more has than one batch of it, the rest comes after the next datagrams."""
        before = self.responder.cmd.commits
        try:
            more = self.responder.cmd.reap(_now(), REAP_BATCH) == REAP_BATCH
        except Refused as error:  # it is there; the messages are answered
            more = False
            if str(error) != self._refused:
                self._refused = str(error)
                _log.error("the database refuses to have it recorded what has ended: %s", error)
        except StoreError as error:
            self._fails(error, 0)
            more = False
        else:
            self._works(before)
        self._next_reap = self._time() + (0 if more else REAP_INTERVAL)

    def _fails(self, error: StoreError, unanswered: int) -> None:
        """The database did not do it: told once for as long as it lasts."""
        self._dropped("store-error", unanswered)
        if self._outage is None:
            self._outage = (self._time(), unanswered)
            _log.error("the database does not answer, so nothing is answered: %s", error)
        else:
            since, before = self._outage
            self._outage = (since, before + unanswered)

    def _works(self, before: int) -> None:
        """The database did it. Where that took no commit since `before`, it says nothing: a full disk still reads."""
        if self._outage is not None and self.responder.cmd.commits > before:
            since, unanswered = self._outage
            self._outage = None
            _log.warning(
                "the database is back after %.1f s; %d messages were not answered",
                self._time() - since,
                unanswered,
            )

    def _dropped(self, reason: str, number: int) -> None:
        if number:
            self.responder.outcomes[reason] += number

    def _report(self) -> None:
        if self.responder.outcomes:
            self._count(self.responder.outcomes)
            self.responder.outcomes.clear()


def _opens(waiting: Waiting) -> bool:
    """Whether it begins an exchange. (What cannot be read goes on: it costs next to nothing.)"""
    return peek_type(waiting[0].data) == _SOLICIT


def _now() -> Micros:
    return time.time_ns() // 1000


def drain_pipe(descriptor: int) -> bytes:
    """Everything in a non-blocking pipe."""
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""
