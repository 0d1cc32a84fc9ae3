"""What is measured with: perfdhcp, and our own generator for what perfdhcp cannot send.

perfdhcp has no options at the relay level, so no handovers; and its `-c`, a Solicit with Rapid Commit, ends it with an
error when the Reply comes (2.2).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from bench import generator, packets, perfdhcp, verify
from bench.domain import CLIENT, LIFETIMES, MAARS, SERVER
from bench.network import INTERFACE, Network
from bench.search import Trial
from bench.servers import Server
from dhcp_cmd.store import open_store
from dmm_wire.dhcpv6.codes import CLIENT_PORT, OptionCode
from dmm_wire.dhcpv6.message import every, unwrap
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix
from lab.netns import LabError

FEWEST_NODES = 1000
"""Nodes that move: with fewer, one would have to move while its last move is still on its way."""
_NEW_CLIENTS = 1 << 31
"""The first node number of clients that nobody knows yet."""
_LOOKED_AT = 500


@dataclass(slots=True)
class Workload(ABC):
    """Traffic. `name` is for the command line, `title` for tables, `start` the exchanges per second of the first
    trial.
    """

    name: str
    title: str
    start: float

    @property
    def mobile(self) -> bool:
        """Whether only a CMD can answer it."""
        return False

    def fresh(self, server: Server, size: int) -> None:
        """The server, which runs, has a fresh state."""
        return None

    @abstractmethod
    def run(self, network: Network, rate: float, seconds: int, timings: bool = False) -> Trial:
        """Offer so many exchanges per second. Raises LabError."""

    def settle(self, server: Server) -> verify.Verdict | None:
        """The server is stopped and its state about to go: check what is in it."""
        return None


@dataclass(slots=True)
class Perfdhcp(Workload):
    """Traffic by perfdhcp."""

    options: perfdhcp.Options

    def run(self, network: Network, rate: float, seconds: int, timings: bool = False) -> Trial:
        """One run of it."""
        return perfdhcp.run(
            self.options,
            namespace=network.client,
            interface=INTERFACE,
            server=SERVER,
            rate=rate,
            seconds=seconds,
            timings=timings,
        )


@dataclass(slots=True)
class RapidCommit(Workload):
    """Clients that nobody knows, each with one Solicit and its Reply."""

    delegated: bool
    relayed: bool
    _clients: int = 0

    def fresh(self, server: Server, size: int) -> None:
        """All clients are unknown again."""
        self._clients = 0

    def run(self, network: Network, rate: float, seconds: int, timings: bool = False) -> Trial:
        """New clients in each run."""
        template = packets.rapid_solicit(self.delegated, self.relayed)
        first = self._clients
        self._clients += max(1, round(rate * seconds))
        datagrams = []
        for number in range(first, self._clients):
            xid = packets.transaction_id(number)
            datagram = template.fill(xid, packets.mac(_NEW_CLIENTS + number))
            datagrams.append((0, xid, datagram))
        if self.relayed:
            load = generator.relays(network.client, [CLIENT])
        else:
            load = generator.clients(network.client, INTERFACE, CLIENT, CLIENT_PORT)
        try:
            outcome = load.run(datagrams, rate)
        finally:
            load.close()
        if any(not leases(answer) for _, answer in outcome.samples[:_LOOKED_AT]):
            raise LabError("some of the Replies hold no lease")
        return outcome.trial(seconds)


@dataclass(slots=True)
class Moves(Workload):
    """Bound nodes that were at one MAAR arrive with a Rebind at the next; or, with `stay`, refresh with a Renew where
    they are. Each names the prefix that it was bound to first.
    """

    stay: bool
    _size: int = 0
    _prefixes: list[bytes] = field(default_factory=list)
    _after: int = 0
    _began: int = 0
    _answered: list[bool] = field(default_factory=list)

    @property
    def mobile(self) -> bool:
        """It needs options at the relay level."""
        return True

    def fresh(self, server: Server, size: int) -> None:
        """Learn which prefixes the nodes have. Raises LabError where there are too few nodes."""
        url = server.database_url()
        if size < FEWEST_NODES or url is None:
            raise LabError(f"needs {FEWEST_NODES} bound nodes")
        store = open_store(url)
        try:
            self._prefixes, self._after = verify.read_prefixes(store, size)
        finally:
            store.close()
        self._size = size
        self._answered = []
        self._began = time.time_ns() // 1000

    def node(self, message: int) -> int:
        """Whose message it is: all nodes in turn, again and again."""
        return message % self._size

    def maar(self, message: int) -> int:
        """Through which MAAR (an index of MAARS): nodes are bound at their number modulo three."""
        node, turn = message % self._size, message // self._size
        return (node if self.stay else node + turn + 1) % len(MAARS)

    def run(self, network: Network, rate: float, seconds: int, timings: bool = False) -> Trial:
        """The next messages."""
        templates = packets.renews() if self.stay else packets.rebinds()
        first = len(self._answered)
        datagrams = []
        for message in range(first, first + max(1, round(rate * seconds))):
            node, maar = self.node(message), self.maar(message)
            xid = packets.transaction_id(message)
            datagram = templates[maar].fill(xid, packets.mac(node), self._prefixes[node])
            datagrams.append((maar, xid, datagram))
        load = generator.relays(network.client, [maar.endpoint for maar in MAARS])
        try:
            outcome = load.run(datagrams, rate)
        finally:
            load.close()
        self._answered += [latency >= 0 for latency in outcome.latencies]
        if any(not leases(answer) for _, answer in outcome.samples[:_LOOKED_AT]):
            raise LabError("some of the Replies hold no preferred lease")
        return outcome.trial(seconds)

    def settle(self, server: Server) -> verify.Verdict | None:
        """Compare the answers with the rows. Raises LabError where they do not agree."""
        url = server.database_url()
        assert url is not None
        sent = verify.Sent(self._answered, self.node, self.maar, lambda node: node % len(MAARS))
        store = open_store(url)
        try:
            if self.stay:
                valid = LIFETIMES[1] * 1_000_000
                return verify.refreshes(store, sent, self._after, self._began + valid)
            return verify.handovers(store, sent, self._after)
        finally:
            store.close()


def leases(datagram: bytes) -> list[bytes]:
    """The addresses and prefixes in an answer that are preferred."""
    options = unwrap(datagram).client.options
    found = []
    for body in every(options, OptionCode.IA_NA):
        addresses = every(IaNa.decode(body).options, OptionCode.IAADDR)
        found += [each.address for each in map(IaAddress.decode, addresses) if each.preferred]
    for body in every(options, OptionCode.IA_PD):
        prefixes = every(IaPd.decode(body).options, OptionCode.IAPREFIX)
        found += [each.prefix.address for each in map(IaPrefix.decode, prefixes) if each.preferred]
    return found


def workloads() -> list[Workload]:
    """All of them, in the order in which they are measured."""
    pd, na = "prefix-only", "address-only"
    made: list[Workload] = []
    for where, relayed in (("relayed", True), ("direct", False)):
        for short, lease in (("pd", pd), ("na", na)):
            kind = f"{short.upper()} {where}"
            options = perfdhcp.Options(lease, relayed)
            made.append(Perfdhcp(f"{short}-{where}", f"{kind}, 4-way", 6000, options))
            rapid = f"{kind}, rapid"
            made.append(RapidCommit(f"{short}-{where}-rapid", rapid, 8000, lease == pd, relayed))
    mix = perfdhcp.Options(pd, relayed=True, renew=True)
    made.append(Perfdhcp("renew-mix", "PD relayed, 4-way + Renew", 8000, mix))
    made.append(Moves("handover", "handover: Rebind", 4000, stay=False))
    made.append(Moves("refresh", "refresh: Renew", 8000, stay=True))
    return made
