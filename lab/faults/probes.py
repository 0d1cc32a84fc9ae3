"""Packets between CN1 and the nodes: what the kernels really do with them, and whether any goes round in circles."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from dmm_wire.address import Prefix, format_address
from lab import netns
from lab.faults import frames
from lab.faults.air import PROBED, Air, Node
from lab.kernel import host_in
from lab.topology import CN1, Topology

_TIME_EXCEEDED = 3
_LARGEST = 2048


class Probes:
    """Sends and counts, between `with` and its end; a part of the loop."""

    def __init__(self, topology: Topology, air: Air) -> None:
        self.arrivals: Counter[bytes] = Counter()
        """What came up to CN1."""
        self.sent = 0
        self.circled = 0
        """Probes that were answered with Time Exceeded: their hop limit went down to 0 on the way."""
        self._namespace = topology.namespace(CN1.node)
        self._air = air

    def __enter__(self) -> Self:
        self._udp, self._icmp = netns.inside(self._namespace, _open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._udp.close()
        self._icmp.close()

    def down(self, prefix: Prefix, text: bytes) -> None:
        """From CN1 to a host in the prefix."""
        self.sent += 1
        with contextlib.suppress(OSError):  # an ICMPv6 error for an earlier one
            self._udp.sendto(text, (host_in(prefix), PROBED))

    def up(self, node: Node, prefix: Prefix, text: bytes) -> None:
        """From a host in the prefix, which is at or behind the node, to CN1."""
        self.sent += 1
        source = socket.inet_pton(socket.AF_INET6, host_in(prefix))
        frame = frames.udp(node.mac, source, CN1.packed, (PROBED, PROBED), text)
        self._air.send(node, [frame])

    # --- a part of the loop ---

    def descriptors(self) -> Iterable[int]:
        return self._udp.fileno(), self._icmp.fileno()

    def readable(self, descriptor: int, now: float) -> None:
        is_icmp = descriptor == self._icmp.fileno()
        sock = self._icmp if is_icmp else self._udp
        while True:
            try:
                data = sock.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                continue  # the ICMPv6 error itself, which the other socket has, too
            if not is_icmp:
                self.arrivals[data] += 1
            elif data[0] == _TIME_EXCEEDED:
                self.circled += 1

    def deadline(self) -> float | None:
        return None

    def due(self, now: float) -> None:
        return None


def _open() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.bind((format_address(CN1.packed), PROBED))
    icmp = socket.socket(
        socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
    )
    return udp, icmp
