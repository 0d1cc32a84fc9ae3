"""Our own load: datagrams made before the clock starts, sent at an even pace, answers matched by transaction id.

It shares two cores with the server. So nothing is parsed while it runs: where the transaction id is in an answer is the
same for all answers of a server, and is learnt from the first.
"""

from __future__ import annotations

import gc
import select
import socket
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from bench.domain import SERVER
from bench.search import Trial
from dmm_wire.dhcpv6.codes import SERVER_PORT, MessageType
from dmm_wire.dhcpv6.message import unwrap
from dmm_wire.errors import WireError
from lab import netns

PATIENCE = 1.0
"""Seconds to wait for answers after the last datagram."""
ALL_SERVERS = "ff02::1:2"
SAMPLED = 16
"""One answer in so many is kept, to be looked at afterwards."""

_BURST: Final = 32
"""Datagrams sent, or received, before it is the other's turn."""
_LEAD = 0.02
"""Seconds between the call and the first datagram."""
_SHORTEST: Final = 0.0005
"""Seconds to sleep at least: what is due meanwhile goes together."""
_LARGEST: Final = 8192
_REPLY: Final = int(MessageType.REPLY)
_BUFFERS: Final = (32, 33)
"""SO_SNDBUFFORCE and SO_RCVBUFFORCE (linux/asm-generic/socket.h), lest the generator's queues be what is measured."""

Send = Callable[[bytes], int]


@dataclass(slots=True)
class Outcome:
    """What became of the datagrams: when each was sent and how long its Reply took (seconds; negative: none came)."""

    seconds: float
    latencies: array[float]
    strays: int = 0
    """Datagrams received that were no Reply to any that was waited for."""
    samples: list[tuple[int, bytes]] = field(default_factory=list)
    """Some answers, with the index of the datagram that each is for."""

    def trial(self, wanted: float) -> Trial:
        """For the search: `wanted` is how many seconds it should have taken."""
        answered = sorted(latency for latency in self.latencies if latency >= 0)
        return Trial(
            seconds=max(self.seconds, wanted),
            begun=len(self.latencies),
            completed=len(answered),
            latencies=tuple(answered),
            mean_latency=sum(answered) / len(answered) if answered else None,
        )


class Generator:
    """Sockets in a namespace, one for each source that messages come from. Close it."""

    def __init__(self, sockets: Sequence[socket.socket], sends: Sequence[Send]) -> None:
        self._sockets = sockets
        self._sends = sends

    def close(self) -> None:
        """Close the sockets."""
        for each in self._sockets:
            each.close()

    def run(self, datagrams: Sequence[tuple[int, bytes, bytes]], rate: float) -> Outcome:
        """Send the datagrams, each given with the number of its source and its transaction id, `rate` a second.

        Transaction ids must differ. Raises LabError when the network refuses.
        """
        total = len(datagrams)
        sent_at = array("d", bytes(8 * total))
        outcome = Outcome(0.0, array("d", [-1.0]) * total)
        matcher = _Matcher({xid: i for i, (_, xid, _) in enumerate(datagrams)}, outcome, sent_at)
        sent, sends = 0, self._sends
        gc.disable()
        try:
            begin = perf_counter() + _LEAD
            while True:
                now = perf_counter()
                due = min(
                    int((now - begin) * rate) + 1 if now >= begin else 0, total, sent + _BURST
                )
                while sent < due:
                    source, _, datagram = datagrams[sent]
                    sent_at[sent] = perf_counter()
                    sends[source](datagram)
                    sent += 1
                matcher.receive(self._sockets)
                if sent < total:
                    pause = begin + sent / rate - perf_counter()
                elif matcher.unanswered:
                    pause = sent_at[-1] + PATIENCE - perf_counter()
                    if pause <= 0:
                        break
                else:
                    break
                if pause > 0:
                    select.select(self._sockets, (), (), max(pause, _SHORTEST))
        except OSError as error:
            raise netns.LabError(f"the generator cannot send: {error.strerror}") from error
        finally:
            gc.enable()
        outcome.seconds = sent_at[-1] - begin if total else 0.0
        return outcome


class _Matcher:
    """Finds for each answer the datagram that it is for."""

    def __init__(self, waiting: dict[bytes, int], outcome: Outcome, sent_at: array[float]) -> None:
        self.unanswered = len(waiting)
        self._waiting = waiting
        self._outcome = outcome
        self._sent_at = sent_at
        self._offset = 0

    def receive(self, sockets: Sequence[socket.socket]) -> None:
        """Take what has arrived, some of it."""
        for each in sockets:
            try:
                for _ in range(_BURST):
                    self._match(each.recv(_LARGEST), perf_counter())
            except BlockingIOError:
                pass

    def _match(self, data: bytes, now: float) -> None:
        offset = self._offset
        index = None
        if data[offset : offset + 1] == b"\x07":
            index = self._waiting.pop(data[offset + 1 : offset + 4], None)
        if index is None:
            index = self._look_for(data)
            if index is None:
                self._outcome.strays += 1
                return
        self.unanswered -= 1
        self._outcome.latencies[index] = now - self._sent_at[index]
        if not index % SAMPLED:
            self._outcome.samples.append((index, data))

    def _look_for(self, data: bytes) -> int | None:
        """Where the position is not the one known: learn it."""
        try:
            inner = unwrap(data).client_bytes
        except WireError:
            return None
        if inner[0] != _REPLY:
            return None
        self._offset = data.index(inner)
        return self._waiting.pop(inner[1:4], None)


def relays(namespace: str, addresses: Sequence[str]) -> Generator:
    """Relay agents with these addresses, that send to the server's."""

    def open_them() -> list[socket.socket]:
        opened = []
        for address in addresses:
            each = _socket(address, SERVER_PORT)
            each.connect((SERVER, SERVER_PORT))
            opened.append(each)
        return opened

    sockets = netns.inside(namespace, open_them)
    return Generator(sockets, [each.send for each in sockets])


def clients(namespace: str, interface: str, address: str, port: int) -> Generator:
    """Clients on the server's link, all behind one address, that send to All_DHCP_Relay_Agents_and_Servers."""

    def open_it() -> tuple[socket.socket, int]:
        return _socket(address, port), socket.if_nametoindex(interface)

    each, index = netns.inside(namespace, open_it)
    group = (ALL_SERVERS, SERVER_PORT, 0, index)
    return Generator([each], [lambda data: each.sendto(data, group)])


def _socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setblocking(False)
    for option in _BUFFERS:
        made.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
    made.bind((address, port))
    return made
