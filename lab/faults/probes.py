"""Packets between CN1 and nodes, and between nodes: what the kernels really do with them, and whether any goes round.

Whether one does is seen in the core, which all that goes from one MAAR to another crosses. An ICMPv6 Time Exceeded does
not tell: that of a packet in a tunnel goes to the MAAR that encapsulated it, and ends there.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from dmm_wire.address import Prefix, format_address, parse_address
from lab import netns
from lab.faults import frames
from lab.faults.air import PROBED, Air, Node
from lab.kernel import host_in
from lab.packets import UDP, parse_frame
from lab.topology import CN1, Topology

CORE = "core"
_ETH_P_IPV6 = 0x86DD
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20
_LARGEST = 2048
_UDP_HEADER = 8
_BETWEEN_NODES = 2
"""So often may the same MAAR send a packet into the core that one node sends to another: where it has the one, and
anchors what the other has elsewhere. In between the packet was at the anchor of where it is from."""


class Probes:
    """Sends and counts, between `with` and its end; a part of the loop. No two probes between the same two hosts may
    begin with the same 16 octets."""

    def __init__(self, topology: Topology, air: Air) -> None:
        self.arrivals: Counter[bytes] = Counter()
        """What came up to CN1."""
        self.sent = 0
        self.circled: Counter[str] = Counter()
        """Probes that went round: how often the same MAAR sent them into the core, where that was more than once, or
        between nodes more than twice. By what a person would call them: "7 from 2001:db8::1 to 2001:db8::2"."""
        self._namespace = topology.namespace(CN1.node)
        self._core = topology.namespace(CORE)
        self._links = {plan.node for plan in topology.plans}
        self._passed: Counter[tuple[str, bytes, bytes, bytes]] = Counter()
        self._air = air

    def __enter__(self) -> Self:
        self._udp = netns.inside(self._namespace, _open)
        self._wire = netns.inside(self._core, _listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._udp.close()
        self._wire.close()

    def down(self, prefix: Prefix, text: bytes) -> None:
        """From CN1 to a host in the prefix."""
        self.sent += 1
        with contextlib.suppress(OSError):  # an ICMPv6 error for an earlier one
            self._udp.sendto(text, (host_in(prefix), PROBED))

    def up(self, node: Node, prefix: Prefix, text: bytes) -> None:
        """From a host in the prefix, which is at or behind the node, to CN1."""
        self._send(node, prefix, CN1.packed, text)

    def across(self, node: Node, prefix: Prefix, to: Prefix, text: bytes) -> None:
        """From a host in the prefix, which is at or behind the node, to one in another node's."""
        self._send(node, prefix, parse_address(host_in(to)), text)

    def _send(self, node: Node, prefix: Prefix, destination: bytes, text: bytes) -> None:
        self.sent += 1
        source = parse_address(host_in(prefix))
        frame = frames.udp(node.mac, source, destination, (PROBED, PROBED), text)
        self._air.send(node, [frame])

    def problems(self) -> list[str]:
        """A line for each probe that went round."""
        said = "went round in a circle: one MAAR sent it on {} times"
        return [f"probe {name} {said.format(times)}" for name, times in self.circled.items()]

    # --- a part of the loop ---

    def descriptors(self) -> Iterable[int]:
        return self._udp.fileno(), self._wire.fileno()

    def readable(self, descriptor: int, now: float) -> None:
        is_wire = descriptor == self._wire.fileno()
        sock = self._wire if is_wire else self._udp
        while True:
            try:
                data, address = sock.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMPv6 error for a probe
            if is_wire:
                self._crosses(address[0], data)
            else:
                self.arrivals[data] += 1

    def deadline(self) -> float | None:
        return None

    def due(self, now: float) -> None:
        return None

    def _crosses(self, link: str, frame: bytes) -> None:
        """A frame that the core gets by this link."""
        packet = parse_frame(frame, 0, link, link, CORE) if link in self._links else None
        if packet is None or packet.protocol != UDP or PROBED not in packet.ports:
            return
        text = packet.payload[_UDP_HEADER:]
        passed = (link, packet.source, packet.destination, text)
        self._passed[passed] += 1
        between_nodes = CN1.packed not in (packet.source, packet.destination)
        if (times := self._passed[passed]) > (_BETWEEN_NODES if between_nodes else 1):
            ends = map(format_address, (packet.source, packet.destination))
            name = f"{text.decode(errors='replace')} from {' to '.join(ends)}"
            self.circled[name] = max(self.circled[name], times)


def _open() -> socket.socket:
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.bind((format_address(CN1.packed), PROBED))
    return udp


def _listen() -> socket.socket:
    """Whatever comes in by any interface. What leaves, a socket for one protocol does not see."""
    protocol = socket.htons(_ETH_P_IPV6)
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    return sock
