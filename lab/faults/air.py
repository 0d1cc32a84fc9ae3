"""The access links, and on them mobile nodes that are no hosts: one process with a packet socket on each link."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterable, Mapping
from random import Random
from types import TracebackType
from typing import Self

from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import CLIENT_PORT
from lab import netns
from lab.faults import frames
from lab.faults.client import Client
from lab.faults.itinerary import Deed, Stay, itinerary
from lab.faults.slaac import Host
from lab.packets import ICMPV6, UDP
from lab.topology import MAAR_PLANS, MaarPlan, Topology

_ETH_P_ALL = 0x0003
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20
_LARGEST = 65536
_PLANS = {plan.number: plan for plan in MAAR_PLANS}

PROBED = 7000
"""The UDP port that probe packets are sent to, at nodes and at CN1."""


class Node:
    """A mobile node on its way through its stays."""

    def __init__(self, number: int, client: Client | Host, stays: list[Stay]) -> None:
        self.number = number
        self.client = client
        self.at: MaarPlan | None = None
        """The MAAR on whose link it is."""
        self.moved = 0
        """How many moves it has made."""
        self._stays = stays
        self._next = 0
        self._wake: float | None = 0.0
        self._owes = Deed.NOTHING
        self._left: MaarPlan | None = None

    @property
    def mac(self) -> bytes:
        """Its link-layer address."""
        return self.client.mac

    @property
    def link_local(self) -> bytes:
        """Its link-local address."""
        return frames.link_local(self.mac)

    @property
    def arrived(self) -> bool:
        """Whether it is where it stays, and its last exchange is over."""
        return self._next == len(self._stays) and self.at is not None and not self.client.busy

    def deadline(self) -> float | None:
        """When it does something by itself."""
        times = [t for t in (self._wake, self.client.deadline()) if t is not None]
        return min(times, default=None)

    def due(self, now: float) -> list[bytes]:
        """Go on: the frames to send."""
        if self._wake is None or now < self._wake:
            return self.client.due(now)
        self._wake = None
        if self.at is None:
            return self._plug(now)
        if self._owes is not Deed.NOTHING:
            return self._do(now)
        self._unplug(now)
        return []

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """A DHCPv6 message for it, or a Router Advertisement."""
        answers = self.client.receive(data, now)
        self.settle(now)
        return answers

    def settle(self, now: float) -> None:
        """When the last exchange has ended, the rest of the stay begins."""
        if self.at is None or self.client.busy or self._wake is not None or self.arrived:
            return
        stay = self._stays[self._next - 1]
        self._wake = now + stay.seconds / (2 if stay.deed is not Deed.NOTHING else 1)

    def _plug(self, now: float) -> list[bytes]:
        stay = self._stays[self._next]
        self._next += 1
        self.at = _PLANS[stay.maar]
        self.moved += self._left is not None and self._left != self.at
        self._owes = stay.deed
        if stay.hasty:
            self._wake = now + stay.seconds
        return self.client.attach(now, afresh=stay.afresh)

    def _unplug(self, now: float) -> None:
        self.client.detach()
        self._left, self.at = self.at, None
        self._wake = now + self._stays[self._next].gap

    def _do(self, now: float) -> list[bytes]:
        deed, self._owes = self._owes, Deed.NOTHING
        leases = set(self.client.leases)
        if deed is Deed.RELEASE_SOME:
            away = [p for p in MAAR_PLANS if p != self.at and any(map(p.anchors, leases))]
            leases = {lease for lease in leases if away and away[0].anchors(lease)}
        if not leases:
            self.settle(now)
            return []
        if deed is Deed.RENEW:
            return self.client.renew(now)
        return self.client.release(now, leases)

    # --- the end ---

    def refresh(self, now: float) -> list[bytes]:
        """Ask once more for all, so that it knows what it has."""
        return self.client.attach(now, afresh=False)

    def leave(self, now: float) -> list[bytes]:
        """Release everything."""
        return self.client.release(now, set(self.client.leases)) if self.client.leases else []


class Air:
    """The access links with these nodes, between `with` and its end; a part of the loop."""

    def __init__(self, topology: Topology, nodes: Iterable[Node]) -> None:
        self.nodes = tuple(nodes)
        self.arrivals: Counter[tuple[bytes, int, bytes]] = Counter()
        """Probe packets that reached a node: its link-layer address, the MAAR of the link, what was in it."""
        self.counts: Counter[str] = Counter()
        self._by_mac: Mapping[bytes, Node] = {node.mac: node for node in self.nodes}
        self._namespace = topology.namespace("air")
        self._sockets: dict[int, socket.socket] = {}
        self._links: dict[int, MaarPlan] = {}

    def __enter__(self) -> Self:
        for plan in MAAR_PLANS:
            opened = netns.inside(self._namespace, lambda plan=plan: _open(plan.node))  # type: ignore[misc]
            self._sockets[plan.number] = opened
            self._links[opened.fileno()] = plan
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self._sockets.values():
            each.close()

    # --- a part of the loop ---

    def descriptors(self) -> Iterable[int]:
        return self._links

    def readable(self, descriptor: int, now: float) -> None:
        plan = self._links[descriptor]
        sock = self._sockets[plan.number]
        while True:
            try:
                data, address = sock.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING and (frame := frames.parse(data)):
                self._receive(plan, frame, now)

    def deadline(self) -> float | None:
        return min((t for node in self.nodes if (t := node.deadline()) is not None), default=None)

    def due(self, now: float) -> None:
        for node in self.nodes:
            when = node.deadline()
            if when is not None and when <= now:
                self.send(node, node.due(now))
                node.settle(now)

    # --- the links ---

    def send(self, node: Node, out: Iterable[bytes]) -> None:
        """What a node sends on the link that it is on."""
        for frame in out:
            if node.at is not None:
                self.counts["sent"] += 1
                with contextlib.suppress(BlockingIOError):
                    self._sockets[node.at.number].send(frame)

    def _receive(self, plan: MaarPlan, frame: frames.Frame, now: float) -> None:
        node = self._by_mac.get(frame.to)
        if node is None:
            self._solicited(plan, frame)
        elif node.at is not plan:
            self.counts["missed"] += _for_client(node, frame) is not None
        elif (told := _for_client(node, frame)) is not None:
            self.counts["received"] += 1
            self.send(node, node.receive(told, now))
        elif frame.protocol == UDP and frame.ports[1] == PROBED:
            self.arrivals[node.mac, plan.number, frame.data] += 1
        elif frame.protocol == ICMPV6:
            self._solicited(plan, frame)

    def _solicited(self, plan: MaarPlan, frame: frames.Frame) -> None:
        """The router's Neighbor Solicitation, by multicast or unicast."""
        body = frame.body
        if frame.protocol != ICMPV6 or len(body) < 24:
            return
        if body[0] != frames.NEIGHBOUR_SOLICITATION or not any(frame.source):
            return
        for node in self.nodes:
            if node.at is plan and _has(node, body[8:24]):
                answer = frames.neighbour_advertisement(node.mac, body[8:24], frame.source)
                self.send(node, [answer])


def _for_client(node: Node, frame: frames.Frame) -> bytes | None:
    if isinstance(node.client, Client):
        is_for_it = frame.protocol == UDP and frame.ports[1] == CLIENT_PORT
        return frame.data if is_for_it else None
    is_for_it = frame.protocol == ICMPV6 and frame.body[:1] == bytes((frames.ROUTER_ADVERTISEMENT,))
    return frame.body if is_for_it else None


def _has(node: Node, address: bytes) -> bool:
    return address == node.link_local or Prefix(address, 128) in node.client.leases


def _open(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        sock.bind((interface, _ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock


def make_nodes(count: int, moves: int, seed: int, *, dhcpv6: bool = True) -> list[Node]:
    """Nodes that make `moves` moves in all: DHCPv6 clients, or hosts without."""
    nodes = []
    for number in range(count):
        draws = Random(f"{seed} node {number}")
        share = moves // count + (number < moves % count)
        mac = b"\x02\x00\x5e\x00\x54" + bytes((number + 1,))
        stays = itinerary(Random(f"{seed} way {number}"), share)
        client = Client(mac, draws) if dhcpv6 else Host(mac, draws)
        nodes.append(Node(number + 1, client, stays))
    return nodes
