"""A domain whose nodes move all at once: real daemons, real kernels, and packets that show when each is reached again.

    CN --- core --- MAAR1 --- nodes          CMD: `dhcp-cmd serve`, SQLite, mode direct
            |  \\--- MAAR2 --- nodes
           CMD

Each node has an address of each MAAR, as one has that has been at both. When it moves, the flow is watched whose
address is anchored where it left: that one goes through the tunnel afterwards, and is the last one to go on, since two
kernels and a PBU have a part in it. A node is noticed by an MLDv2 report; its packets are answers.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Final, Self

from bench.attach_domain import REST
from bench.crowd_clock import Flows, Moved, Word, moved, word
from bench.crowd_frames import SIGNALLING
from bench.crowd_hosts import Hosts
from bench.crowd_probes import Prober
from bench.processes import run_seconds
from bench.scripted_client import Node
from bench.stamped import arrivals, lost, packets
from dmm_wire.address import format_mac
from lab import netns
from lab.daemons import Daemons
from lab.faults.oracle import differences
from lab.faults.view import view
from lab.signals import uninterrupted
from lab.topology import CMD, CN1, MaarPlan, Topology
from relay_maar.core.router import UNICAST_RATE

PATIENCE: Final = 10.0
"""Seconds for all flows of a move to be restored."""
_REPLIES: Final = 20.0
_AT_ONCE: Final = 100
"""Nodes that are introduced together."""
_ASK_AGAIN: Final = 1.0
_SETTLES: Final = 5.0
"""Seconds in which kernels must be as they have to be when nobody moves any more."""
_GATHER: Final = 0.01
"""Seconds between two looks at what was said."""

Cpu = dict[str, float]
"""Seconds of processor time by whose they are."""


class CrowdLab:
    """The domain with so many nodes, between `with` and its end. Raises LabError."""

    def __init__(self, prefix: str, nodes: int) -> None:
        self.topology = Topology(prefix, maars=2)
        self.home, self.away = self.topology.plans
        self.hosts = Hosts(self.topology, nodes)
        self._prober = Prober(self.topology, CN1)
        self._daemons: Daemons | None = None
        self._words: list[socket.socket] = []
        self._moves = 0
        self._left: dict[tuple[int, MaarPlan], float] = {}
        self._waiting = selectors.DefaultSelector()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._waiting.close)
            undo.enter_context(self.topology)
            self._daemons = undo.enter_context(Daemons(self.topology, stock=False))
            undo.enter_context(self.hosts)
            undo.enter_context(self._prober)
            core = self.topology.namespace("core")
            self._words = [
                undo.enter_context(netns.inside(core, partial(packets, device, SIGNALLING)))
                for device in (*(plan.node for plan in self.topology.plans), CMD.node)
            ]
            for plan, sock in self.hosts.sockets.items():
                reads = partial(self.hosts.read, plan)
                self._waiting.register(sock, selectors.EVENT_READ, reads)
            assert self._prober.socket is not None
            self._waiting.register(self._prober.socket, selectors.EVENT_READ, self._prober.read)
            self._introduce()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with uninterrupted():
            self._undo.__exit__(kind, problem, trace)

    # --- moves ---

    def move(self, nodes: Sequence[Node], to: MaarPlan) -> tuple[Moved, Cpu]:
        """These go to the other MAAR, all at once, when they have rested. Returns how that went, and who had the
        processor for how long until the last flow was restored: seconds, by role."""
        (left,) = (plan for plan in self.topology.plans if plan != to)
        rested = max(self._left.get((node.number, to), 0.0) for node in nodes)
        self._go_on(until=rested + self._rest(len(nodes)))
        self._moves += 1
        flows = Flows(self._moves)
        addresses = {node.number: node.addresses[left] for node in nodes}
        list(self._said())
        before = self._cpu()
        self.hosts.go(nodes, to, flows)
        now = time.monotonic()
        self._left |= dict.fromkeys(((node.number, left) for node in nodes), now)
        self._prober.begin(flows, addresses, now)
        self._go_on(until=now + PATIENCE, done=lambda: flows.are_open)
        self._prober.end()
        after = self._cpu()
        if self.hosts.lost() or sum(map(lost, self._words)):
            raise netns.LabError("this machine is too busy: frames were lost before they were read")
        roles = {"CMD": "CMD", "S-MAAR": to.name, "anchor": left.name, "generator": "generator"}
        cpu = {role: after[name] - before[name] for role, name in roles.items()}
        return moved(flows, self._acknowledged(len(nodes))), cpu

    def wrong(self) -> list[str]:
        """What is not as it must be, a line each: kernels, and what the CMD says of where nodes are. They have a moment
        for it."""
        while (reports := self.hosts.deadline()) is not None:
            self._go_on(until=reports)  # in time, or they would be news
        until = time.monotonic() + _SETTLES
        while True:
            found = [*self._kernels(), *self._cmd()]
            if not found or time.monotonic() > until:
                return found
            self._go_on(until=time.monotonic() + 0.2)

    def counters(self) -> dict[str, dict[str, int]]:
        """Of each MAAR."""
        assert self._daemons is not None
        return {plan.name: maar.status()["counters"] for plan, maar in self._daemons.maars.items()}

    def tails(self) -> str:
        """The ends of the daemons' logs."""
        return "" if self._daemons is None else self._daemons.tails()

    @staticmethod
    def _rest(crowd: int) -> float:
        """Seconds until nodes come again to where they left: `late`, and until all have had their advertisements."""
        return REST + crowd / UNICAST_RATE

    def _kernels(self) -> list[str]:
        views = {plan: view(self.topology, plan) for plan in self.topology.plans}
        return differences(views, self.hosts.truths())

    def _cmd(self) -> Iterator[str]:
        assert self._daemons is not None
        rows = self._daemons.cmd.query(
            "SELECT i.text, n.serving FROM nodes n JOIN node_identity i ON i.node_id = n.node_id"
        )
        serving = {row["text"]: row["serving"] for row in rows}
        for node in self.hosts.nodes:
            found = serving.get(f"eui48:{format_mac(node.link_layer)}")
            wanted = self.hosts.at[node.number].name
            if found != wanted:
                yield f"node {node.number} is at {wanted}, and the CMD has it at {found}"

    def _said(self) -> Iterator[tuple[Word, int]]:
        """What was said in the core since somebody asked."""
        for sock in self._words:
            for data, at, _ in arrivals(sock):
                if (what := word(data)) is not None:
                    yield what, at

    def _acknowledged(self, nodes: int) -> list[tuple[Word, int]]:
        """What was said, once the last PBA is there: for that, nobody has waited."""
        until = time.monotonic() + _SETTLES
        said = list(self._said())
        while sum(what is Word.ACKNOWLEDGED for what, _ in said) < nodes:
            if time.monotonic() > until:
                break
            self._go_on(until=time.monotonic() + _GATHER)
            said += self._said()
        return said

    def _cpu(self) -> Cpu:
        assert self._daemons is not None
        maars = {plan.name: run_seconds(maar.pid) for plan, maar in self._daemons.maars.items()}
        cmd, generator = run_seconds(self._daemons.cmd.pid), run_seconds(os.getpid())
        return {**maars, "CMD": cmd, "generator": generator}

    # --- time ---

    def _go_on(self, until: float, done: Callable[[], bool] = lambda: False) -> None:
        """Be hosts and CN until then (time.monotonic()), or until it is done; whatever is due now, in any case."""
        while True:
            now = time.monotonic()
            deadlines = (until, self._prober.deadline(), self.hosts.deadline())
            pause = min(each for each in deadlines if each is not None) - now
            for key, _ in self._waiting.select(max(pause, 0.0)):
                key.data()
            now = time.monotonic()
            self.hosts.due(now)
            self._prober.due(now)
            if now >= until or done():
                return

    def _introduce(self) -> None:
        """Every node gets an address at both MAARs, and goes home."""
        nodes = self.hosts.nodes
        for first in range(0, len(nodes), _AT_ONCE):
            for plan in (self.home, self.away, self.home):
                self._served(nodes[first : first + _AT_ONCE], plan)
        now = time.monotonic()
        self._left |= dict.fromkeys(((node.number, self.away) for node in nodes), now)

    def _served(self, nodes: Sequence[Node], plan: MaarPlan) -> None:
        self.hosts.ask(nodes, plan)
        until = time.monotonic() + _REPLIES
        while waiting := self.hosts.unanswered():
            again = time.monotonic() + _ASK_AGAIN
            self._go_on(until=again, done=lambda: not self.hosts.unanswered())
            if time.monotonic() > until:
                raise netns.LabError(f"{len(waiting)} nodes have no Reply at {plan.name}")
            self.hosts.ask(self.hosts.unanswered(), plan)
