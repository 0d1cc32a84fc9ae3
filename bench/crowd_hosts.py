"""The nodes of a crowd, which are no hosts of their own: one process, with a packet socket on each access link.

Each has a link-layer address, a link-local address and those that DHCPv6 gave it. They say what hosts say when they
come, an MLDv2 report, and once more within a second (RFC 3810 sections 6 and 9.1). They answer Neighbor Solicitations
where they are, and only there; and each probe that the CN sends them.
"""

from __future__ import annotations

import heapq
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from random import Random
from types import TracebackType
from typing import Final, Self

from bench.crowd_clock import Flows
from bench.crowd_frames import LISTENING, PORT, QUIET, carried, hop_limit, sent_back
from bench.scripted_client import Node, leases, rebind, solicit
from bench.stamped import arrivals, lost, packets
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT
from lab import netns
from lab.faults import frames
from lab.faults.oracle import Truth
from lab.packets import ICMPV6
from lab.topology import MaarPlan, Topology
from relay_maar.io import bpf

REPEATED_WITHIN: Final = 1.0
"""Seconds (Unsolicited Report Interval, RFC 3810 section 9.11)."""
_LINK: Final = 64


class Hosts:
    """Nodes 1 to `count` on the access links, between `with` and its end. Who uses it hands it the sockets that can be
    read (`read`) and calls `due` in time."""

    def __init__(self, topology: Topology, count: int) -> None:
        self.nodes = tuple(Node(number) for number in range(1, count + 1))
        self.at: dict[int, MaarPlan] = {}
        """Where each node is."""
        self.sockets: dict[MaarPlan, socket.socket] = {}
        self.flows = Flows(0)
        """What probes are counted for."""
        self._topology = topology
        self._addresses = {parse_address(node.link_local): node for node in self.nodes}
        self._again: list[tuple[float, int, bytes]] = []
        """The second reports: when, whose, and what."""
        self._draws = Random(count)
        self._asked: dict[int, bytes] = {}
        self._transaction = 0
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        namespace = self._topology.namespace("air")
        with ExitStack() as undo:
            for plan in self._topology.plans:
                # No bridge: the cable of the MAAR ends here.
                netns.ip("link", "set", plan.node, "nomaster", namespace=namespace)
                opened = netns.inside(namespace, partial(packets, plan.node, QUIET))
                self.sockets[plan] = undo.enter_context(opened)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    # --- moves ---

    def go(self, nodes: Sequence[Node], plan: MaarPlan, flows: Flows) -> None:
        """These leave for the link of a MAAR, all at once, and say so. Probes count for `flows` from now on."""
        reports = [self._report(node) for node in nodes]
        self.flows = flows
        for each, sock in self.sockets.items():
            bpf.attach(sock, LISTENING if each == plan else QUIET)
        self.at |= dict.fromkeys((node.number for node in nodes), plan)
        for node, report in zip(nodes, reports, strict=True):
            flows.said[node.number] = time.time_ns()
            self._send(plan, report)
        now = time.monotonic()
        for node, report in zip(nodes, reports, strict=True):
            when = now + REPEATED_WITHIN * self._draws.random()
            heapq.heappush(self._again, (when, node.number, report))

    def deadline(self) -> float | None:
        """When `due` has something to do (time.monotonic())."""
        return self._again[0][0] if self._again else None

    def due(self, now: float) -> None:
        """Send the second reports."""
        while self._again and self._again[0][0] <= now:
            _, number, report = heapq.heappop(self._again)
            self._send(self.at[number], report)

    def lost(self) -> int:
        """Frames that this process was too slow for, since this was last asked."""
        return sum(map(lost, self.sockets.values()))

    def truths(self) -> list[Truth]:
        """Where each node is and what it has, for who compares the kernels with it."""
        return [
            Truth(
                f"node {node.number}",
                node.link_layer,
                parse_address(node.link_local),
                self.at[node.number],
                frozenset(Prefix.of(address, _LINK) for address in node.addresses.values()),
            )
            for node in self.nodes
        ]

    # --- DHCPv6, before anything is measured ---

    def ask(self, nodes: Iterable[Node], plan: MaarPlan) -> None:
        """These are on the link of a MAAR, and ask for what they are given there: who has no answer yet, the same again
        (RFC 9915 section 15)."""
        for node in nodes:
            self.at[node.number] = plan
            if node.number not in self._asked:
                self._transaction += 1
                self._asked[node.number] = self._transaction.to_bytes(3, "big")
            transaction = self._asked[node.number]
            message = (rebind if node.addresses else solicit)(node, transaction)
            source, ports = parse_address(node.link_local), (CLIENT_PORT, SERVER_PORT)
            frame = frames.udp(node.link_layer, source, frames.ALL_AGENTS, ports, message)
            self._send(plan, frame)

    def unanswered(self) -> list[Node]:
        """Who has no Reply yet."""
        return [self.nodes[number - 1] for number in self._asked]

    def _take(self, node: Node, plan: MaarPlan, data: bytes) -> None:
        transaction = self._asked.get(node.number)
        found = None if transaction is None else leases(data, transaction)
        if found is None:
            return
        if len(found) != 1 or not plan.anchors(found[0]):
            raise netns.LabError(f"a Reply at {plan.name} with {len(found)} preferred addresses")
        del self._asked[node.number]
        node.addresses[plan] = found[0]
        self._addresses[found[0]] = node

    # --- frames ---

    def read(self, plan: MaarPlan) -> None:
        """What has come on the link of a MAAR. Raises LabError for a Reply that cannot be."""
        for data, at, _ in arrivals(self.sockets[plan]):
            if data[20] == ICMPV6:
                self._solicited(plan, data)
                continue
            node = self.nodes[int.from_bytes(data[2:6], "big") - 1]
            if self.at.get(node.number) != plan:
                continue
            if int.from_bytes(data[56:58], "big") != PORT:
                self._take(node, plan, data[62:])
            elif self.flows.arrived(carried(data), hop_limit(data), at):
                self._send(plan, sent_back(data))

    def _solicited(self, plan: MaarPlan, data: bytes) -> None:
        """A Neighbor Solicitation (RFC 4861 section 7.2.3)."""
        target = data[62:78]
        node = self._addresses.get(target)
        if node is not None and self.at.get(node.number) == plan:
            asker = data[22:38]
            self._send(plan, frames.neighbour_advertisement(node.link_layer, target, asker))

    def _report(self, node: Node) -> bytes:
        own = parse_address(node.link_local)
        return frames.multicast_report(node.link_layer, own, (own, *node.addresses.values()))

    def _send(self, plan: MaarPlan, frame: bytes) -> None:
        while True:
            try:
                self.sockets[plan].send(frame)
            except BlockingIOError:
                time.sleep(0.0002)  # its own queue is full: that it goes on is not up to us
            else:
                return
