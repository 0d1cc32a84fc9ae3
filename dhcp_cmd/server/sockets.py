"""Listeners: sockets on port 547, and how they are read and answered from."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from typing import Final

from dhcp_cmd.server.datagrams import (
    SLOTS,
    Address,
    Batch,
    holds_more,
    host_of,
    receive_one,
    send_one,
    stamp_arrivals,
    with_port,
)
from dhcp_cmd.server.plan import ListenerPlan
from dhcp_cmd.server.responder import Arrival
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType

RECEIVE_BUFFER = 8 << 20
"""Octets that wait in the kernel while a batch is handled; the system's limit may make it less."""

_SO_RCVBUFFORCE: Final = 33  # linux/asm-generic/socket.h; Python has no name for it
_RELAY_REPL: Final = int(MessageType.RELAY_REPL)

Waiting = tuple[Arrival, Address]
"""A datagram, and the socket address it came from."""


class ListenerError(Exception):
    """A listener cannot be opened: one line that names it."""


class Listener:
    """One listener of a plan. Non-blocking."""

    def __init__(self, plan: ListenerPlan) -> None:
        """Open it. Raises ListenerError."""
        self.plan = plan
        self._received, self._sent = Batch(stamps=True), Batch()
        self._receive = self._answer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            self._open()
        except OSError as error:
            self.close()
            raise ListenerError(f"{_name(plan)}: {error.strerror or error}") from error

    def _open(self) -> None:
        plan = self.plan
        index = socket.if_nametoindex(plan.interface) if plan.interface else 0
        self._receive.setblocking(False)
        stamp_arrivals(self._receive)
        _enlarge(self._receive)
        self._receive.bind((_text(plan.address), SERVER_PORT, 0, index))
        if plan.reply_from is None:
            return
        self._receive.setsockopt(
            socket.IPPROTO_IPV6,
            socket.IPV6_JOIN_GROUP,
            plan.address + struct.pack("@I", index),
        )
        self._answer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._answer.setblocking(False)
        # It only sends: what comes to this address is nobody's, and shall not fill a buffer that nobody empties.
        self._answer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        self._answer.bind((_text(plan.reply_from), SERVER_PORT, 0, index))

    def fileno(self) -> int:
        """For selectors."""
        return self._receive.fileno()

    def drain(self, limit: int) -> list[tuple[float, Waiting]]:
        """What has arrived, at most `limit` datagrams, with for how many seconds each has waited to be asked for. Where
        the clock was set meanwhile, that is what the clock says.
        """
        if limit <= 0 or (one := receive_one(self._receive)) is None:
            return []
        found = self._waiting([one])
        more = holds_more(self._receive)
        while more and len(found) < limit:
            received = self._received.receive(self._receive.fileno(), limit - len(found))
            found += self._waiting(received)
            more = len(received) == SLOTS
        return found

    def _waiting(
        self, received: Iterable[tuple[bytes, Address, int]]
    ) -> list[tuple[float, Waiting]]:
        plan, now = self.plan, time.time_ns()
        return [
            ((now - came) / 1e9, (Arrival(data, host_of(address), plan), address))
            for data, address, came in received
        ]

    def send(self, answers: Iterable[tuple[bytes, Address]]) -> int:
        """Send answers to where their datagrams came from: to a relay agent's port, or a client's (RFC 9915 section
        7.2). Returns how many the network or its queue did not take; their senders will ask again.
        """
        outgoing = [
            (answer, with_port(to, SERVER_PORT if answer[0] == _RELAY_REPL else CLIENT_PORT))
            for answer, to in answers
        ]
        if len(outgoing) == 1:
            return int(not send_one(self._answer, *outgoing[0]))
        return self._sent.send(self._answer.fileno(), outgoing)

    def close(self) -> None:
        """Close it."""
        self._receive.close()
        self._answer.close()


def open_listeners(
    plans: Iterable[ListenerPlan], existing: Iterable[Listener] = ()
) -> tuple[list[Listener], list[Listener]]:
    """Listeners for `plans`: those of `existing` that are the same, else new ones; and the existing ones not used.

    Raises ListenerError; then nothing has changed.
    """
    before = {listener.plan: listener for listener in existing}
    opened: list[Listener] = []
    listeners: list[Listener] = []
    try:
        for plan in plans:
            listener = before.pop(plan, None)
            if listener is None:
                listener = Listener(plan)
                opened.append(listener)
            listeners.append(listener)
    except ListenerError:
        for listener in opened:
            listener.close()
        raise
    return listeners, list(before.values())


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
    except OSError:  # without CAP_NET_ADMIN: as much as net.core.rmem_max allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET6, address)


def _name(plan: ListenerPlan) -> str:
    return (
        f"listen-interface {plan.interface}"
        if plan.interface
        else f"listen-unicast {_text(plan.address)}"
    )
