"""The CN's end of a crowd's flows: a datagram to each node again and again, until it comes back.

So many a second in all that the machine, which has to forward them, has time for what is measured. So a crowd's flows
are looked at the more seldom the more there are: `interval` is the resolution.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Final, Self

from bench.crowd_clock import Flows
from bench.crowd_frames import HOP_LIMIT, PORT, Probe
from bench.stamped import arrivals, datagrams
from dmm_wire.address import format_address
from lab import netns
from lab.topology import CoreNode, Topology

RATE: Final = 20_000
"""Probes per second, of all flows."""
LEAST: Final = 0.001
"""Seconds between two of one flow."""
_PAUSE: Final = LEAST / 2
"""Seconds at least between two times of sending."""


def interval(flows: int) -> float:
    """Seconds between two probes of a flow, of so many."""
    return max(LEAST, flows / RATE)


class Prober:
    """The CN, between `with` and its end. Who uses it calls `read` when its socket can be read, and `due` in time."""

    def __init__(self, topology: Topology, peer: CoreNode) -> None:
        self._namespace = topology.namespace(peer.node)
        self._peer = peer
        self.socket: socket.socket | None = None
        self.flows = Flows(0)
        self.sent = 0
        """How many probes, in all."""
        self._probes: list[tuple[int, bytes, tuple[str, int]]] = []
        self._interval = LEAST
        self._began = self._next = 0.0
        self._turns = 0
        """How often it was some flow's turn."""

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
        self.flows = flows
        self._probes = [
            (node, Probe(flows.move, node).encode(), (format_address(address), PORT))
            for node, address in addresses.items()
        ]
        self._interval, self._turns = interval(len(addresses)), 0
        self._began = self._next = now

    def end(self) -> None:
        """Send no more."""
        self._probes = []

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        return self._next if self._probes else None

    def due(self, now: float) -> None:
        """Send to each flow whose turn it is by now; late, to each but once."""
        count = len(self._probes)
        if not count or self.socket is None:
            return
        turns = int((now - self._began) / self._interval * count)
        for turn in range(max(self._turns, turns - count), turns):
            node, data, address = self._probes[turn % count]
            if node not in self.flows.up:
                self.sent += 1
                with contextlib.suppress(OSError):  # as good as lost on its way
                    self.socket.sendto(data, address)
        self._turns = max(self._turns, turns)
        next_turn = self._began + (self._turns + 1) * self._interval / count
        self._next = max(next_turn, now + _PAUSE)

    def read(self) -> None:
        """What has come back."""
        assert self.socket is not None
        for data, at, hop_limit in arrivals(self.socket):
            self.flows.returned(Probe.decode(data), hop_limit, at)
