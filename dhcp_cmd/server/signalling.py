"""What the server's loop has to do in the modes in which the CMD signals: send PBUs right after the commit, and hold
answers until they are acknowledged (mode relay).
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

from dhcp_cmd.core.model import Hold, Micros
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.pmip.authenticated import Authenticated
from dhcp_cmd.pmip.front import Asked, Front, Late
from dhcp_cmd.pmip.holding import Holding, Released
from dhcp_cmd.pmip.outbox import Key
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.pmip.signaller import Signaller
from dhcp_cmd.pmip.sockets import MobilitySocket
from dhcp_cmd.server.datagrams import Address
from dhcp_cmd.server.responder import Later, Responder
from dhcp_cmd.server.sockets import Listener
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore
from dhcp_cmd.store.marks import SqlMarks
from dhcp_cmd.store.outbox import SqlOutbox
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility.security import Security

Answering: TypeAlias = Callable[[Sequence[bytes]], None]
"""Sends an answer, without what is anchored at these endpoints."""


class Signalling:
    """The sender of a server, and the answers that it holds. Raises StoreError."""

    def __init__(
        self,
        socket: MobilitySocket,
        settings: PmipSettings,
        mode: SignallingMode,
        cmd: Cmd,
        store: SqlStore,
        security: Security,
    ) -> None:
        self._socket = socket
        self._owner = settings.owner
        self._holding: Holding[Answering] = Holding()
        self._late = 0
        store.sender = self._owner
        outcomes: Counter[str] = Counter()
        self._authenticated = Authenticated(
            settings.endpoint,
            security,
            SqlMarks(store, self._owner),
            outcomes,
            clock=_now,
            monotonic=time.monotonic,
        )
        self._outbox = SqlOutbox(store, self._owner)
        self._signaller = Signaller(
            self._outbox,
            socket,
            settings,
            mode,
            self._authenticated,
            outcomes,
            refused=cmd.anchor_refused,
            knows_later=cmd.anchor_knows_later,
            enterprise=cmd.settings.enterprise,
            clock=_now,
            monotonic=time.monotonic,
            sequence=secrets.randbelow(1 << 16),
            heard=self._heard,
            ended=self._ended,
            registers=self._register,
        )
        self._front = Front(cmd, self._authenticated.outgoing, outcomes)

    def move(self, store: SqlStore) -> None:
        """Have in this database what has to be there before it is gone on with. Raises StoreError."""
        self._authenticated.move(SqlMarks(store, self._owner))

    def take_over(self, cmd: Cmd, store: SqlStore, security: Security) -> None:
        """Go on with these, after the configuration was read again."""
        store.sender = self._owner
        self._signaller.signals = self._outbox = SqlOutbox(store, self._owner)
        self._signaller.refused = cmd.anchor_refused
        self._signaller.knows_later = cmd.anchor_knows_later
        self._signaller.enterprise = cmd.settings.enterprise
        self._signaller.change(security)
        self._front.cmd = cmd

    def fileno(self) -> int:
        """What to wait for."""
        return self._socket.fileno()

    def deadline(self) -> float:
        """When :meth:`work` has something to do, in seconds of the monotonic clock."""
        parts = (self._signaller.deadline(), self._holding.deadline())
        return min((each for each in parts if each is not None), default=float("inf"))

    def hold(self, later: Later, listener: Listener, address: Address) -> None:
        """Keep an answer until its anchors have acknowledged, or its time is over."""

        def answer(unheard: Sequence[bytes]) -> None:
            octets = later.answer(unheard)
            if octets is not None:
                self._signaller.outcomes["send-error"] += listener.send([(octets, address)])

        self._keep(later.message, answer, later.hold)

    def _register(self, asked: Sequence[Asked]) -> None:
        for source, reply in self._front.replies(asked, _now(), _now):
            if isinstance(reply, Late):
                self._keep(reply.message, partial(self._acknowledge, source, reply), reply.hold)
            else:
                self._signaller.emit(source, reply, "pba-sent")

    def _acknowledge(self, source: bytes, late: Late, unheard: Sequence[bytes]) -> None:
        octets = late.answer(unheard)
        if octets is not None:
            self._signaller.emit(source, octets, "pba-sent")

    def _keep(self, message: Hashable, answer: Answering, hold: Hold) -> None:
        until = time.monotonic() + hold.patience / 1e6
        self._send(self._holding.hold(message, answer, hold, until))

    def work(self, responder: Responder) -> None:
        """Send what was committed, and what else is due."""
        signalled = responder.cmd.signalled
        if signalled:
            self._signaller.put(signalled)
            signalled.clear()
        self._signaller.work()
        over = self._overdue(time.monotonic())
        self._signaller.outcomes["relay-timeout"] += len(over)
        self._send(over)
        responder.outcomes.update(+self._signaller.outcomes)
        self._signaller.outcomes.clear()

    def _overdue(self, now: float) -> list[Released[Answering]]:
        """The answers that have waited long enough. To another CMD on this database, which the same message may have
        reached first, a P-MAAR may have acknowledged meanwhile: the rows say so."""
        keys = self._holding.overdue(now)
        if keys:
            with suppress(StoreError):  # else it has not
                for key in self._outbox.heard(keys):
                    self._send(self._holding.acknowledged(*key))
        return self._holding.due(now)

    def receive(self) -> None:
        """Take in acknowledgements, and what MAARs register."""
        self._signaller.receive()

    def close(self) -> None:
        """Close the socket. What is held is not answered: its senders will ask again."""
        self._socket.close()

    def _heard(self, key: Key) -> bool:
        if not self._holding.is_waited_for(*key):
            return False
        self._send(self._holding.acknowledged(*key))
        return True

    def _ended(self, key: Key) -> None:
        self._send(self._holding.refused(*key))

    def _send(self, released: list[Released[Answering]]) -> None:
        for answer, unheard in released:
            answer(unheard)


def _now() -> Micros:
    return time.time_ns() // 1000
