"""The whole lab, ready for use: network, capture, CMD, MAARs and a mobile node that is not plugged in yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import kernel
from lab.capture import Capture
from lab.daemons import DIRECT, FIXED, Daemons
from lab.host import MobileNode, SlaacNode
from lab.signals import uninterrupted
from lab.topology import MaarPlan, Topology


class Lab:
    """Everything between `with` and its end. `pcap` keeps all packets in a file, `driver` is the MAARs' tunnel driver,
    `mode` and `stock` the CMD's (see `Cmd`), `more` what a MAAR's configuration has besides, by its number, and
    the CMD's by 0. The MAARs in `registers` register nodes by PMIPv6; but for those in `relays`, they relay no DHCPv6.
    Where no MAAR does, the node has no client, as without `client`.

    Raises LabError when something cannot be made or does not get ready.
    """

    def __init__(
        self,
        prefix: str = "dmm",
        *,
        pcap: Path | None = None,
        driver: str = "auto",
        mode: str = DIRECT,
        stock: bool = True,
        registers: Collection[MaarPlan] = (),
        relays: Collection[MaarPlan] = (),
        client: bool = True,
        more: Mapping[int, str] | None = None,
        router: str = FIXED,
    ) -> None:
        self.mode = mode
        self.stock = stock
        self.topology = Topology(prefix)
        self._registers, self._relays = frozenset(registers), frozenset(relays)
        self.registers = (self._registers - self._relays).issuperset(self.topology.plans)
        """Whether no MAAR relays DHCPv6."""
        self._client = client and not self.registers
        self._pcap = pcap
        self._driver = driver
        self._more = more or {}
        self.router = router
        self._undo = ExitStack()
        self.capture: Capture
        self.daemons: Daemons
        self.node: SlaacNode
        self.mn: MobileNode
        """The same with its client, where it has one."""
        self.kernels: dict[MaarPlan, str] = {}
        """What each MAAR's kernel held before its `relay-maar` was started (see `kernel.snapshot`)."""

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self.topology)
            self.capture = undo.enter_context(Capture(self.topology, self._pcap))
            self.kernels = {
                plan: kernel.snapshot(self.topology, plan) for plan in self.topology.plans
            }
            self.daemons = undo.enter_context(
                Daemons(
                    self.topology,
                    self._driver,
                    self.mode,
                    self._more,
                    stock=self.stock,
                    registers=self._registers,
                    relays=self._relays,
                    router=self.router,
                )
            )
            if self._client:
                self.node = self.mn = undo.enter_context(MobileNode(self.topology))
            else:
                self.node = undo.enter_context(SlaacNode(self.topology))
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
