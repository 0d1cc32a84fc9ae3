"""A domain of two MAARs and the nodes that are known to it: each has an address of MAAR1, its anchor, and keeps it.

Real daemons, real kernels, our mode direct. One node after the other is in the one namespace that there is for nodes.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from bench.air import Air
from bench.scripted_client import Node, ScriptedClient
from lab import netns
from lab.daemons import Daemons
from lab.signals import uninterrupted
from lab.topology import Topology

REST: Final = 3.5
"""Seconds until a node comes again to where it left from: within `late`, 3 s, it would first be probed."""

_REPLY_PATIENCE: Final = 10.0
_ASK_AGAIN: Final = 1.0


class AttachDomain:
    """The domain with so many nodes, between `with` and its end. Raises LabError."""

    def __init__(self, prefix: str, nodes: int) -> None:
        self.topology = Topology(prefix, maars=2)
        self.home, self.away = self.topology.plans
        self.client = ScriptedClient(self.topology)
        self.air = Air(self.topology)
        self._count = nodes
        self._daemons: Daemons | None = None
        self._nodes: deque[tuple[float, Node]] = deque()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self._build(undo)
            self._undo = undo.pop_all()
        return self

    def _build(self, undo: ExitStack) -> None:
        undo.enter_context(self.topology)
        self._daemons = undo.enter_context(Daemons(self.topology, stock=False))
        undo.enter_context(self.client)
        undo.enter_context(self.air)
        for number in range(1, self._count + 1):
            self._introduce(number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with uninterrupted():
            self._undo.__exit__(kind, problem, trace)

    def come(self, *, talks: bool = False) -> Node:
        """The next node is at home, and has rested. `talks`: see `ScriptedClient.be`. Raises LabError."""
        rested, node = self._nodes.popleft()
        time.sleep(max(0.0, rested + REST - time.monotonic()))
        self.client.be(node, talks=talks)
        return node

    def leave(self) -> Node:
        """The next node goes away, asks there for what is given to it, and stays until `back`. Raises LabError."""
        node = self.come()
        self.air.roam(self.away)
        self._reply()
        return node

    def back(self) -> None:
        """The node that is away goes home. Raises LabError."""
        node = self.client.node
        self.air.roam(self.home)
        self._reply()
        self.rest(node)

    def rest(self, node: Node) -> None:
        """The node, which is at home, is the last one again whose turn it is."""
        self._nodes.append((time.monotonic(), node))

    def tails(self) -> str:
        """The ends of the daemons' logs."""
        return "" if self._daemons is None else self._daemons.tails()

    def _introduce(self, number: int) -> None:
        """A node gets its addresses at both MAARs, and goes home."""
        self.client.become(number)
        for plan in (self.home, self.away):
            self.air.roam(plan)
            self._reply()
        self.back()

    def _reply(self) -> None:
        """Ask by DHCPv6 for what is given here; asks again as clients do."""
        transaction = self.client.ask()
        asked = time.monotonic()

        def taken() -> bool:
            nonlocal asked
            assert self._daemons is not None
            for daemon in self._daemons:
                daemon.check()
            if time.monotonic() > asked + _ASK_AGAIN:
                self.client.ask(transaction)
                asked = time.monotonic()
            return self.client.take(transaction)

        netns.wait_for(taken, timeout=_REPLY_PATIENCE, what="a Reply", interval=0.003)
