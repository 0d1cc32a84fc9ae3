"""The CN's end of a crowd's flows: a datagram to each node again and again, until it comes back.

So many a second in all that the machine, which has to forward them, has time for what is measured. Flows that are open
are left alone, and the others have their turns the oftener: the fewer are left, the finer is what is seen of them.
"""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Final, Self

from bench.crowd_clock import Flows
from bench.crowd_frames import HOP_LIMIT, PORT, Probe
from bench.stamped import arrivals, datagrams
from dmm_wire.address import format_address
from lab import netns
from lab.topology import CoreNode, Topology

RATE: Final = 10_000
"""Probes per second, of all flows."""
LEAST: Final = 0.001
"""Seconds between two of one flow."""
_PAUSE: Final = LEAST / 2
"""Seconds at least between two times of sending."""


def interval(flows: int) -> float:
    """Seconds between two probes of a flow, of so many that are not open."""
    return max(LEAST, flows / RATE)


class Turns:
    """Whose turn it is: of these, in a circle, beginning at `now` (seconds, as all times here)."""

    def __init__(self, nodes: Iterable[int], now: float) -> None:
        self._left = deque(nodes)
        self._owed = 0.0
        self._last = now
        self.next: float | None = now if self._left else None
        """When there is something to do; None when nobody is left."""

    def due(self, now: float, is_done: Callable[[int], bool]) -> list[int]:
        """Those whose turn it is by now, each but once however late it is. Who is done has no more turns."""
        self._owed += (now - self._last) / interval(len(self._left)) * len(self._left)
        self._last = now
        found: list[int] = []
        for _ in range(len(self._left)):
            if self._owed < 1:
                break
            node = self._left.popleft()
            if not is_done(node):
                self._left.append(node)
                found.append(node)
                self._owed -= 1
        self._owed = min(self._owed, 1)
        step = interval(len(self._left)) / max(len(self._left), 1)
        self.next = now + max(step, _PAUSE) if self._left else None
        return found


class Prober:
    """The CN, between `with` and its end. Who uses it calls `read` when its socket can be read, and `due` in time."""

    def __init__(self, topology: Topology, peer: CoreNode) -> None:
        self._namespace = topology.namespace(peer.node)
        self._peer = peer
        self.socket: socket.socket | None = None
        self.sent = 0
        """How many probes, in all."""
        self._flows = Flows(0)
        self._turns = Turns((), 0.0)
        self._probes: dict[int, tuple[bytes, tuple[str, int]]] = {}

    def __enter__(self) -> Self:
        opened = partial(datagrams, self._peer.address, PORT, HOP_LIMIT)
        self.socket = netns.inside(self._namespace, opened)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def begin(self, flows: Flows, addresses: Mapping[int, bytes], now: float) -> None:
        """Send to these, by node, from now on (time.monotonic())."""
        self._flows = flows
        self._turns = Turns(addresses, now)
        self._probes = {
            node: (Probe(flows.move, node).encode(), (format_address(address), PORT))
            for node, address in addresses.items()
        }

    def end(self) -> None:
        """Send no more."""
        self._turns = Turns((), 0.0)

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        return self._turns.next

    def due(self, now: float) -> None:
        """Send to each flow whose turn it is by now."""
        if self._turns.next is None or self._turns.next > now or self.socket is None:
            return
        for node in self._turns.due(now, lambda node: node in self._flows.up):
            data, address = self._probes[node]
            self.sent += 1
            with contextlib.suppress(OSError):  # as good as lost on its way
                self.socket.sendto(data, address)

    def read(self) -> None:
        """What has come back."""
        assert self.socket is not None
        for data, at, hop_limit in arrivals(self.socket):
            self._flows.returned(Probe.decode(data), hop_limit, at)
