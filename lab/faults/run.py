"""One fault run: build the lab, let the nodes move, wait until all is quiet, compare; then let them go, and compare."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import product
from random import Random

from dmm_wire.address import Prefix
from lab import kernel
from lab.daemons import DIRECT, Daemons
from lab.faults.air import Air, Node, make_nodes
from lab.faults.loop import Loop
from lab.faults.oracle import Truth, anchor, differences
from lab.faults.probes import Probes
from lab.faults.storm import Storm
from lab.faults.view import view
from lab.faults.weather import FAIR, Fates, Weather
from lab.netns import LabError
from lab.topology import MAAR_PLANS, Topology

_ANSWERS = 60.0
"""Seconds for a client to get an answer. Its messages are not among those that are lost."""
_QUIET = 240.0
"""Seconds until all is quiet: PBUs are repeated every 32 s in the end, and each time 36 % of the exchanges fail."""
_DAWDLE = 5.0
"""Seconds that a move may take on an average, at most."""
_LOOK = 0.5
"""Seconds between two looks at the kernels."""
_PROBE = 0.05
"""Seconds between two probe packets while nodes move."""

_CONFIGURATION = "    flap-interval 0\n"
"""Else the CMD takes nodes that are so restless for two that use the same identifier."""

MODES = (DIRECT, "proxy", "locator", "relay")


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run. `stock`: the CMD on ipv6-dhcpd, with `dhcp-cmd signal` beside it. `patient`: wait in the end until
    also the last trace of what has ended is gone, which takes a minute. `clears`: nothing is lost any more when all
    nodes stay, so that it ends sooner. `registers`: the MAARs speak only PMIPv6, and the nodes are hosts without a
    client."""

    mode: str
    moves: int
    nodes: int
    seed: int
    weather: Weather = field(default_factory=Weather)
    stock: bool = False
    patient: bool = True
    clears: bool = False
    registers: bool = False

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.mode}, PMIPv6" if self.registers else self.mode


@dataclass(slots=True)
class Result:
    """What was seen. `converged`, `gone` and `faded` are seconds: from the last node's last answer until every kernel
    was right and nothing was owed any more; from the last Release likewise; from then until no `unreachable` route was
    left that only speaks of what has ended."""

    settings: Settings
    moves: int = 0
    prefixes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    missed: int = 0
    probes: int = 0
    circled: int = 0
    converged: float = 0.0
    gone: float | None = None
    faded: float | None = None
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class FaultRun:
    """A run with these settings; `tell` hears what it is about to do."""

    def __init__(
        self, settings: Settings, prefix: str, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.result = Result(settings)
        self._tell = tell
        self._prefix = prefix
        self._draws = Random(f"{settings.seed} probes")

    def run(self) -> Result:
        """Do it. Raises LabError when the lab cannot be built or a program ends; all that is otherwise wrong is in the
        result."""
        started = time.monotonic()
        settings = self.settings
        with ExitStack() as undo:
            self._topology = undo.enter_context(Topology(self._prefix))
            before = self._snapshots()
            self._daemons = undo.enter_context(
                Daemons(
                    self._topology,
                    mode=settings.mode,
                    stock=settings.stock,
                    registers=self._topology.plans if settings.registers else (),
                    more={0: _CONFIGURATION},
                )
            )
            storm = Storm(self._topology, Fates(settings.seed, settings.weather))
            self._storm = undo.enter_context(storm)
            nodes = make_nodes(
                settings.nodes, settings.moves, settings.seed, dhcpv6=not settings.registers
            )
            self._air = undo.enter_context(Air(self._topology, nodes))
            self._probes = undo.enter_context(Probes(self._topology, self._air))
            loop = Loop((self._storm, self._air, self._probes))
            self._loop = undo.enter_context(loop)
            try:
                self._move()
                self._settle()
                self._probe_all()
                self._probe_each_other()
                self._compare_database()
                if not settings.registers:
                    self._leave()
                for maar in self._daemons.maars.values():
                    if status := maar.stop():
                        self._wrong(f"{maar.name} stops with status {status}")
                self._compare("after the end of relay-maar", before)
                self._wrong(*self._probes.problems())
            except LabError as problem:
                raise LabError(f"{problem}\n{self._daemons.tails()}") from None
            finally:
                self._note(started)
        return self.result

    # --- the parts of it ---

    def _move(self) -> None:
        moves = self.settings.moves
        self._tell(f"{self.settings.nodes} nodes move {moves} times")
        probe = 0.0

        def moved() -> bool:
            nonlocal probe
            now = time.monotonic()
            if now >= probe:
                probe = now + _PROBE
                self._check()
                self._probe_one()
            return all(node.arrived for node in self._air.nodes)

        timeout = _ANSWERS + moves * _DAWDLE
        self._loop.run(moved, timeout=timeout, what="all nodes to make their moves", interval=0.02)

    def _settle(self) -> None:
        """Every node asks once more for what it has; then the kernels have to become right."""
        if self.settings.clears:
            self._storm.fates = Fates(self.settings.seed, FAIR)
        for node in self._air.nodes:
            self._air.send(node, node.refresh(time.monotonic()))
        self._loop.run(self._answered, timeout=_ANSWERS, what="the last answers")
        self._tell("they stay; waiting until all is quiet")
        self.result.converged = self._quiet("where the nodes are", self._truths)
        for node in self._air.nodes:
            self._check_leases(node)
        self.result.prefixes = sum(len(node.client.prefixes) for node in self._air.nodes)

    def _leave(self) -> None:
        """Every node releases all that it has. Its on-link prefix where it is stays: that one is its for the visit."""
        self._tell("they release what they have; waiting until nothing else is left")
        left = [replace(each, prefixes=_on_link(each)) for each in self._truths()]
        for node in self._air.nodes:
            self._air.send(node, node.leave(time.monotonic()))
        self._loop.run(self._answered, timeout=_ANSWERS, what="the answers to the Releases")
        self.result.gone = self._quiet("after the Releases", lambda: left)
        if self.settings.patient:
            self.result.faded = self._quiet("in the end", lambda: left, echoes=False)

    def _answered(self) -> bool:
        return not any(node.client.busy for node in self._air.nodes)

    def _quiet(self, what: str, truths: Callable[[], list[Truth]], *, echoes: bool = True) -> float:
        """Wait until all kernels are right, and nothing is owed. Returns the seconds that took."""
        began = time.monotonic()
        wrong: list[str] = []

        def right() -> bool:
            self._check()
            views = {plan: view(self._topology, plan) for plan in MAAR_PLANS}
            wrong[:] = differences(views, truths(), echoes=echoes) or self._owed()
            return not wrong

        try:
            self._loop.run(right, timeout=_QUIET, what=what, interval=_LOOK)
        except LabError:
            self._wrong(*(f"{what}, {line}" for line in wrong))
        return time.monotonic() - began

    def _owed(self) -> list[str]:
        """PBUs that are not answered yet: in the CMD's outbox, or a MAAR's own (mode direct)."""
        owed = [
            f"owed: {row['maar']} a PBU about {row['identities']}"
            for row in self._daemons.cmd.query("SELECT * FROM signals")
        ]
        for maar in self._daemons.maars.values():
            for session in maar.status()["sessions"]:
                owed += [
                    f"owed: {each['endpoint']} a PBU of {maar.name} about {session['identity']}"
                    for each in session["peers"]
                    if each["granted"] is None
                ]
        return owed

    def _truths(self) -> list[Truth]:
        truths = []
        for node in self._air.nodes:
            assert node.at is not None
            prefixes = frozenset(node.client.prefixes)
            truths.append(
                Truth(f"node {node.number}", node.mac, node.link_local, node.at, prefixes)
            )
        return truths

    def _check_leases(self, node: Node) -> None:
        """A node has one on-link and one delegated prefix of each anchor at most; those of where it is are preferred,
        and no others."""
        name = f"node {node.number}"
        self._wrong(*(f"{name}: {problem}" for problem in node.client.problems))
        kinds = Counter((anchor(p), p.length) for p in node.client.prefixes)
        self._wrong(*(f"{name}: {n} of {plan.name}" for (plan, _), n in kinds.items() if n > 1))
        for prefix, preferred in node.client.prefixes.items():
            if preferred != (anchor(prefix) == node.at):
                self._wrong(f"{name} at {node.at and node.at.name}: {prefix} {preferred=}")
        wanted = 1 if self.settings.registers else 2
        if node.at is not None and sum(plan == node.at for plan, _ in kinds) != wanted:
            self._wrong(f"{name}: not {wanted} prefixes of {node.at.name}")

    # --- packets ---

    def _probe_one(self) -> None:
        node = self._draws.choice(self._air.nodes)
        if prefixes := sorted(node.client.prefixes):
            text = b"%d on the way" % self._probes.sent
            self._probes.down(self._draws.choice(prefixes), text)

    def _probe_all(self) -> None:
        """From CN1 to each prefix of each node, and back."""
        down: dict[tuple[bytes, int, bytes], str] = {}
        up: dict[bytes, str] = {}
        self._air.arrivals.clear()
        for node in self._air.nodes:
            for prefix in node.client.prefixes:
                assert node.at is not None
                text = str(prefix).encode()
                down[node.mac, node.at.number, text] = f"CN1 to {prefix} of node {node.number}"
                up[text] = f"{prefix} of node {node.number} to CN1"
                self._probes.down(prefix, text)
                self._probes.up(node, prefix, text)
        self._arrive(down, up)

    def _probe_each_other(self) -> None:
        """From each prefix of each node to each of the next one, who may be anywhere: also where it is itself."""
        wanted: dict[tuple[bytes, int, bytes], str] = {}
        air = self._air
        air.arrivals.clear()
        for node, other in zip(air.nodes, (*air.nodes[1:], air.nodes[0]), strict=True):
            assert other.at is not None
            for prefix, to in product(sorted(node.client.prefixes), sorted(other.client.prefixes)):
                text = b"%d to each other" % self._probes.sent
                told = f"{prefix} of node {node.number} to {to} of node {other.number}"
                wanted[other.mac, other.at.number, text] = told
                self._probes.across(node, prefix, to, text)
        self._arrive(wanted, {})

    def _arrive(
        self, at_nodes: dict[tuple[bytes, int, bytes], str], at_cn1: dict[bytes, str]
    ) -> None:
        """What was sent arrives at nodes and at CN1, each packet once; nothing else arrives at a node."""
        air, cn1 = self._air.arrivals, self._probes.arrivals

        def all_are_there() -> bool:
            return set(air) >= set(at_nodes) and set(cn1) >= set(at_cn1)

        try:
            self._loop.run(all_are_there, timeout=5, what="probes")
        except LabError:
            lost = [name for key, name in at_nodes.items() if key not in air]
            lost += [name for key, name in at_cn1.items() if key not in cn1]
            self._wrong(*(f"a packet from {name} is lost" for name in lost))
        for key, times in air.items():
            if key not in at_nodes:
                self._wrong(f"a packet reached {key} by mistake")
            elif times > 1:
                self._wrong(f"a packet from {at_nodes[key]} came {times} times")

    # --- the rest ---

    def _compare_database(self) -> None:
        cmd = self._daemons.cmd
        if (said := cmd.command("db", "check")) != "sound\n":
            self._wrong(f"dhcp-cmd db check: {said}")
        sql = "SELECT prefix, anchor, serving, identities FROM bindings WHERE state <> 'ended'"
        rows = cmd.query(f"{sql} AND kind <> 'address'")
        found = {(r["prefix"], r["anchor"], r["serving"], _mac(r["identities"])) for r in rows}
        wanted = {
            (str(prefix), anchor(prefix).name, truth.at.name, truth.mac.hex(":"))
            for truth in self._truths()
            for prefix in truth.prefixes
        }
        self._wrong(*(f"database: {row} is too much" for row in sorted(found - wanted)))
        self._wrong(*(f"database: {row} is missing" for row in sorted(wanted - found)))

    def _snapshots(self) -> dict[str, list[str]]:
        return {
            plan.name: kernel.snapshot(self._topology, plan).splitlines() for plan in MAAR_PLANS
        }

    def _compare(self, when: str, before: dict[str, list[str]]) -> None:
        for name, now in self._snapshots().items():
            self._wrong(*(f"{name} {when}: new: {line}" for line in set(now) - set(before[name])))
            self._wrong(*(f"{name} {when}: lost: {line}" for line in set(before[name]) - set(now)))

    def _check(self) -> None:
        for daemon in self._daemons:
            daemon.check()

    def _wrong(self, *problems: str) -> None:
        self.result.problems += problems

    def _note(self, started: float) -> None:
        result = self.result
        result.moves = sum(node.moved for node in self._air.nodes)
        result.counts = dict(self._storm.counts)
        result.answered, result.missed = self._air.counts["received"], self._air.counts["missed"]
        result.probes, result.circled = self._probes.sent, len(self._probes.circled)
        result.seconds = time.monotonic() - started


def _on_link(truth: Truth) -> frozenset[Prefix]:
    return frozenset(p for p in truth.prefixes if truth.at.link_pool.contains(p))


def _mac(identities: str) -> str:
    return next(t.removeprefix("eui48:") for t in identities.split() if t.startswith("eui48:"))
