"""The server's one loop: drain the sockets, answer a batch, reap now and then."""

from __future__ import annotations

import logging
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from dhcp_cmd.core.model import Micros
from dhcp_cmd.core.ports import Refused, StoreError
from dhcp_cmd.server.datagrams import Address
from dhcp_cmd.server.outage import Outage, Told
from dhcp_cmd.server.responder import Later, Responder
from dhcp_cmd.server.signalling import Signalling
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
_LASTING: Final = frozenset(
    map(int, (MessageType.RENEW, MessageType.REBIND, MessageType.INFORMATION_REQUEST))
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the server takes upon itself."""

    batch: int = 128
    """Datagrams answered from one transaction."""
    waiting: int = 8192
    """Datagrams of one listener that may wait, beside those in the kernel."""
    age: float = 0.5
    """Seconds that a datagram may wait, in the kernel or here; a client asks again after about one (RFC 9915 section
    7.6)."""


class Share(NamedTuple):
    """Several loops, each in a process of its own, share the listeners and the database: this is number `seat`, from 0,
    of so many."""

    seat: int
    of: int


ALONE = Share(0, 1)


class Loop:
    """Serves listeners until told to stop. `count` takes outcomes, now and then; `database` hears how that one is.

    `monotonic` is the clock, in seconds; those that share listeners have the same. Where they are shared, a datagram
    wakes one loop that has nothing to do, and the one that is woken takes a batch: the rest is for others.
    """

    def __init__(
        self,
        responder: Responder,
        listeners: Iterable[Listener],
        limits: Limits,
        count: Callable[[Counter[str]], None],
        monotonic: Callable[[], float] = time.monotonic,
        share: Share = ALONE,
        database: Told | None = None,
        signalling: Signalling | None = None,
    ) -> None:
        self.responder = responder
        self.signalling = signalling
        self.listeners: list[Listener] = []
        self.limits = limits
        self.stopping = False
        self._count = count
        self._time = monotonic
        self._room: WaitingRoom[Listener, Waiting] = WaitingRoom(
            limits.waiting, limits.age, _opens, _lasts
        )
        self._share = share
        self._long = limits.age / 4
        self._database = database or Outage(monotonic)
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._leaving = False
        self._next_reap = self._time() if share.of == 1 else next_turn(self._time(), share)
        self._refused = ""
        self.listen(listeners)
        if signalling is not None:
            self.wake_on(signalling.fileno(), signalling.receive)

    def listen(self, listeners: Iterable[Listener]) -> None:
        """Serve these listeners from now on; the caller closes those that are no longer among them."""
        listeners = list(listeners)
        for listener in self.listeners:
            if listener not in listeners:
                self._forget(listener)
                self._dropped("overload", self._room.forget(listener))
        for listener in listeners:
            if listener not in self.listeners:
                self._calls[listener.fileno()] = partial(self._take, listener)
                # It wakes the first one that is idle, always in the same order: a small load is not split.
                shared = select.EPOLLEXCLUSIVE if self._share.of > 1 else 0
                self._poll.register(listener, select.EPOLLIN | shared)
        self.listeners = listeners

    def wake_on(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call `call` when there is something to read from `descriptor`."""
        self._calls[descriptor] = call
        self._poll.register(descriptor, select.EPOLLIN)

    def leave(self) -> None:
        """Take what there is once more, and stop when all that was taken is answered: others go on."""
        if not self._leaving:
            self._leaving = True
            for listener in self.listeners:
                self._forget(listener)
                self._take(listener)  # a datagram wakes one loop: of this one nobody else may know

    def run(self) -> None:
        """Serve until `stopping` is set; what waits then is not answered: its senders will ask again."""
        while not self.stopping:
            self.turn()
        self._report()

    def turn(self) -> None:
        """One round: wait for something to do, and do it."""
        busy = len(self._room) > 0
        wake = self._next_reap
        if self.signalling is not None:
            wake = min(wake, self.signalling.deadline())
        idle = max(0.0, wake - self._time())
        for descriptor, _ in self._poll.poll(0 if busy else idle):
            if call := self._calls.get(descriptor):  # one before may have removed it
                call()
        if self.stopping:
            return
        self._dropped("overload", self._room.drop_old(self._time()))
        batch = self._room.take(self.limits.batch)
        if batch:
            self._answer(batch)
        if self._time() >= self._next_reap and not self.stopping:
            self._reap()
        if self.signalling is not None:
            self.signalling.work(self.responder)
        self._report()
        if self._leaving and not len(self._room):
            self.stopping = True

    def close(self) -> None:
        """Close listeners, and what waits for them."""
        self._poll.close()
        if self.signalling is not None:
            self.signalling.close()
        for listener in self.listeners:
            listener.close()

    def _take(self, listener: Listener) -> None:
        """Read from a listener what there is; where others share it, a batch, and more only under overload. What has
        waited for long shows it: nobody was idle. To choose what goes first, a loop then has to see what there is.
        """
        most = self.limits.batch - self._room.waiting(listener)
        if self._leaving:
            most = max(most, 0)
        elif self._share.of == 1 or most <= 0:
            most = MOST_DRAINED
        found = listener.drain(most)
        if self._share.of > 1 and not self._leaving and found and found[0][0] > self._long:
            found += listener.drain(MOST_DRAINED)
        now = self._time()
        items = [(now - age, item) for age, item in found]
        self._dropped("overload", self._room.add(listener, items))

    def _forget(self, listener: Listener) -> None:
        if self._calls.pop(listener.fileno(), None):
            self._poll.unregister(listener)

    def _answer(self, batch: list[tuple[Listener, Waiting]]) -> None:
        began, before = self._time(), self.responder.cmd.commits
        try:
            answers = self.responder.answer([arrival for _, (arrival, _) in batch], _now)
        except StoreError as error:
            self._dropped("store-error", len(batch))
            self._database.fails(began, str(error), len(batch))
            return
        self._works(before)
        outgoing: dict[Listener, list[tuple[bytes, Address]]] = {}
        for (listener, (_, address)), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Later):
                if self.signalling is not None:
                    self.signalling.hold(answer, listener, address)
            elif answer is not None:
                outgoing.setdefault(listener, []).append((answer, address))
        for listener, ready in outgoing.items():
            self._dropped("send-error", listener.send(ready))

    def _reap(self) -> None:
        """Record what has ended. Where more has than one batch of it, the rest comes after the next datagrams."""
        began, before = self._time(), self.responder.cmd.commits
        try:
            more = self.responder.cmd.reap(_now(), REAP_BATCH) == REAP_BATCH
        except Refused as error:  # it is there; the messages are answered
            more = False
            if str(error) != self._refused:
                self._refused = str(error)
                _log.error("the database refuses to have it recorded what has ended: %s", error)
        except StoreError as error:
            self._database.fails(began, str(error), 0)
            more = False
        else:
            self._works(before)
        self._next_reap = self._time() if more else next_turn(self._time(), self._share)

    def _works(self, before: int) -> None:
        """The database did it. Where that took no commit since `before`, it says nothing: a full disk still reads."""
        if self.responder.cmd.commits > before:
            self._database.works()

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


def _lasts(waiting: Waiting) -> bool:
    """Whether its sender waits for long: a client for what it has, and a MAAR that asks about a node, which does not
    repeat what waits for its turn here."""
    return peek_type(waiting[0].data) in _LASTING


def _now() -> Micros:
    return time.time_ns() // 1000


def next_turn(now: float, share: Share) -> float:
    """When this loop reaps next: every REAP_INTERVAL one of those that share the database does."""
    period = share.of * REAP_INTERVAL
    turn = now - now % period + share.seat * REAP_INTERVAL
    return turn if turn > now else turn + period
