"""Traffic between the mobile node and the correspondent nodes, and what it says about a move."""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from types import TracebackType
from typing import Self

from dmm_wire.address import format_address, parse_address
from lab import netns
from lab.ping import INTERVAL
from lab.program import ROOT, Program
from lab.topology import CoreNode, Topology

__all__ = ["ROOT", "Counts", "Interruption", "PingStream", "Stream"]
_PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Octets of a TCP flow, counted by the programs at its two ends; `intact`: each end got what the other one sent, in
    order, as far as it got."""

    mn_sent: int
    cn_received: int
    cn_sent: int
    mn_received: int
    intact: bool

    @property
    def complete(self) -> bool:
        """All that was sent has arrived unchanged, in both directions, and there was some."""
        return (
            self.intact
            and 0 < self.mn_sent == self.cn_received
            and 0 < self.cn_sent == self.mn_received
        )

    def is_beyond(self, before: Counts) -> bool:
        """Whether data has arrived at both ends since `before`."""
        return self.cn_received > before.cn_received and self.mn_received > before.mn_received


class Stream:
    """A TCP flow from the mobile node to a correspondent node, between `with` and its end.

    Both ends send all the time. `source` binds it; without one the kernel of the mobile node chooses (RFC 6724).
    """

    def __init__(
        self, topology: Topology, peer: CoreNode, port: int, source: bytes | None = None
    ) -> None:
        self.peer = peer
        self.port = port
        self._topology = topology
        self._source = source
        self._near: Program | None = None
        self._far: Program | None = None
        self.address = b""
        """The mobile node's address in this flow."""

    def __enter__(self) -> Self:
        to = [self.peer.address, str(self.port)]
        bound = [_text(self._source)] if self._source else []
        try:
            self._far = Program(
                self._topology.namespace(self.peer.node), "lab.stream", "serve", *to
            )
            self._far.line("ready")
            self._near = Program(
                self._topology.namespace("mn"), "lab.stream", "connect", *to, *bound
            )
            self.address = parse_address(self._near.line("ready")["ready"])
            self._far.line("peer")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for program in (self._near, self._far):
            if program is not None:
                program.close()

    def counts(self) -> Counts:
        """As of now; what is on the way has been sent and not received."""
        return self._ask("report")

    def finish(self) -> Counts:
        """End both directions after all that was sent has arrived, and count."""
        return self._ask("finish", final=True)

    def _ask(self, question: str, *, final: bool = False) -> Counts:
        assert self._near is not None
        assert self._far is not None
        self._near.ask(question)
        if not final:
            self._far.ask(question)
        near = self._near.line("received", final=final)
        far = self._far.line("received", final=final)
        return Counts(
            mn_sent=near["sent"],
            cn_received=far["received"],
            cn_sent=far["sent"],
            mn_received=near["received"],
            intact=near["intact"] and far["intact"],
        )


@dataclass(frozen=True, slots=True)
class Interruption:
    """The longest silence of a ping stream in a window. `milliseconds`: from the last reply before it to the first one
    after it, less the sending interval; `lost`: requests of that time that nobody ever answered."""

    milliseconds: float
    lost: int
    began: int
    ended: int


class PingStream:
    """100 echo requests a second from an address of the mobile node, between `with` and its end."""

    def __init__(self, topology: Topology, source: bytes, peer: CoreNode) -> None:
        self.source = source
        self.peer = peer
        self._topology = topology
        self._program: Program | None = None
        self._replies: list[tuple[int, int, int]] = []
        self._reader = threading.Thread(target=self._read, name="ping", daemon=True)

    def __enter__(self) -> Self:
        self._program = Program(
            self._topology.namespace("mn"), "lab.ping", _text(self.source), self.peer.address
        )
        try:
            self._program.text()
        except BaseException:
            self._program.close()
            raise
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._program is not None
        self._program.end_input()
        self._reader.join(_PATIENCE)
        self._program.close()

    def replies(self, since: int = 0) -> list[tuple[int, int, int]]:
        """Sequence number, time sent, time received of each reply received from `since` on (nanoseconds)."""
        return [reply for reply in self._replies if reply[2] >= since]

    def answered(self, since: int, count: int = 20) -> bool:
        """Whether so many of the requests that were sent after `since` have been answered."""
        return sum(1 for reply in self._replies[-2 * count :] if reply[1] >= since) >= count

    def interruption(self, since: int, until: int) -> Interruption:
        """The longest silence between the last reply before `since` and the last one before `until`.

        Raises LabError when nothing was answered.
        """
        by_time = sorted(self._replies, key=itemgetter(2))
        first = max(0, bisect_right(by_time, since, key=itemgetter(2)) - 1)
        window = by_time[first : bisect_right(by_time, until, key=itemgetter(2))]
        if len(window) < 2:
            raise netns.LabError("no pings answered")
        before, after = max(pairwise(window), key=lambda pair: pair[1][2] - pair[0][2])
        # Some requests of the silence wait for the neighbour and are answered after it, in a burst.
        answered = {reply[0] for reply in by_time}
        last = max(reply[0] for reply in window)
        lost = sum(1 for number in range(before[0] + 1, last) if number not in answered)
        silence = (after[2] - before[2]) / 1e6 - 1000 * INTERVAL
        return Interruption(max(0.0, silence), lost, before[2], after[2])

    def _read(self) -> None:
        assert self._program is not None
        while line := self._program.text(timeout=None):
            sequence, sent, received = line.split()
            self._replies.append((int(sequence), int(sent), int(received)))


def _text(address: bytes | None) -> str:
    return format_address(address) if address else ""
