"""The main job: one mobile node, three moves, its flows go on. What is done, and what must be true after each step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from types import TracebackType
from typing import Self

from dmm_wire import dmm
from dmm_wire.address import Prefix
from lab import expect, expect_routers, kernel, messages, netns, paths
from lab.checks import Checks
from lab.flows import Counts, Interruption, PingStream, Stream
from lab.lab import Lab
from lab.messages import Message
from lab.names import MN, Names
from lab.packets import Packet
from lab.paths import Way
from lab.topology import CN1, CN2, MAAR_PLANS, CoreNode, MaarPlan

WINDOW = 1.2
"""How long the flows are watched after each step, seconds."""

MOVES = 3

_TRAVEL = 0.2
_PATIENCE = 40.0
_FLOW_1_PORT = 5001
_FLOW_2_PORT = 5002


@dataclass(slots=True)
class Flow:
    """A flow of the scenario and the MAAR that anchors its address."""

    name: str
    stream: Stream
    peer: CoreNode
    anchor: MaarPlan


@dataclass(frozen=True, slots=True)
class Shares:
    """What an interruption was made of, in milliseconds: no carrier; until the MAAR has seen the node and asks the CMD;
    the network, from that to the last PBA (or the answer); the node itself, until its addresses are usable.
    """

    carrier: float
    unseen: float
    network: float
    node: float


@dataclass(slots=True)
class Step:
    """One step and what was seen of it. Times are nanoseconds since the epoch."""

    number: int
    title: str
    plan: MaarPlan
    left: MaarPlan | None
    began: int = 0
    """The link to the MAAR left went down (or, in the first step, the first link came up)."""
    plugged: int = 0
    ready: int = 0
    """DHCPv6 had done its part and pings were answered."""
    interruption: Interruption | None = None
    messages: list[Message] = field(default_factory=list)
    ways: dict[tuple[str, str], Counter[Way]] = field(default_factory=dict)
    """By flow name and direction ("up": from the mobile node)."""
    extensions: set[int] = field(default_factory=set)
    """Extension headers between the outer and the inner header of encapsulated packets."""
    decisions: dict[tuple[MaarPlan, Prefix, str], kernel.Decision] = field(default_factory=dict)
    """By MAAR, prefix of the node and direction; see `kernel`."""

    @property
    def shares(self) -> Shares | None:
        """The parts of the interruption, from the captured packets; None for the first step."""
        serving = self.plan.name.upper()
        asked = next((m.at for m in self.messages if _asks(m, serving)), None)
        if self.interruption is None or asked is None:
            return None
        answers = [m.at for m in self.messages if m.at > asked and _answers(m, serving)]
        answered = min(answers, default=asked)
        # What the node asks for later, when the network has done its part, is not the network's time.
        later = (m.at for m in self.messages if m.at > answered and m.sender == MN and m.dhcpv6)
        until = next(later, self.ready)
        agreed = [m.at for m in self.messages if m.name == "PBA" and asked < m.at < until]
        done = max([answered, *agreed])
        times = accumulate((self.began, self.plugged, asked, done, self.interruption.ended), max)
        return Shares(*((b - a) / 1e6 for a, b in pairwise(times)))


def _asks(message: Message, serving: str) -> bool:
    """Whether the S-MAAR tells the CMD that the node is there."""
    attached = any(isinstance(each, dmm.Attachment) for each in message.suboptions)
    return message.sender == serving and (message.name == "PBU" or attached)


def _answers(message: Message, serving: str) -> bool:
    return message.receiver == serving and message.name in ("Relay-reply", "PBA")


class Listener:
    """Hears of the scenario as it happens; this one keeps it to itself."""

    def began(self, step: Step) -> None:
        """A step begins."""

    def message(self, found: list[Message]) -> None:
        """Messages were seen on the wire, in the order of time."""

    def settled(self, step: Step) -> None:
        """The step is done and all of it is known; its assertions come next."""


class MainJob:
    """The scenario in a lab, between `with` and its end. Raises LabError when it cannot go on.

    `counts_messages`: assert also which messages there were; off where daemons are killed, for then some are sent
    again and some never, and only the outcome has to be the same.
    """

    def __init__(
        self,
        lab: Lab,
        checks: Checks,
        listener: Listener | None = None,
        *,
        counts_messages: bool = True,
    ) -> None:
        self.lab = lab
        self.checks = checks
        self.counts_messages = counts_messages
        self.names = Names()
        self.steps: list[Step] = []
        self.visited: list[MaarPlan] = []
        self.flows: dict[str, Flow] = {}
        self.prefixes: dict[MaarPlan, tuple[Prefix, ...]] = {}
        """What each visited MAAR gave to the node: the on-link prefix and, by DHCPv6, the delegated one."""
        self.pings: PingStream
        self._listener = listener or Listener()
        self._undo = ExitStack()
        self._told = 0
        self._client = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.__exit__(kind, problem, trace)

    # --- the story ---

    def run(self, moves: int = MOVES) -> None:
        """The node attaches, and so many of its moves."""
        one, two, three = MAAR_PLANS
        self.attach(one, "the node attaches at MAAR1; flow 1 to CN1 begins")
        story = (
            (two, "to MAAR2: flow 1 through the tunnel; flow 2 to CN2 begins"),
            (three, "to MAAR3: two anchors now"),
            (one, "back to MAAR1: Pref1 is local again, its tunnel gone"),
        )
        for plan, title in story[:moves]:
            self.move(plan, title)

    def attach(self, plan: MaarPlan, title: str) -> Step:
        """The first step: the cable is plugged in for the first time."""
        step = self._begin(plan, None, title)
        self._client = 0 if self.lab.registers else self.lab.mn.pid
        self.lab.topology.plug(plan)
        step.plugged = time.time_ns()
        self._wait(lambda: self.lab.node.is_at(plan), "the node to get its first address")
        address = self.lab.node.address_of(plan)
        assert address is not None
        self._start_flow("flow 1", CN1, _FLOW_1_PORT, plan, address.address)
        self.pings = self._undo.enter_context(PingStream(self.lab.topology, address.address, CN1))
        self._wait(lambda: self.pings.answered(step.plugged), "pings to be answered")
        self._settle(step)
        return step

    def move(
        self, plan: MaarPlan, title: str, meanwhile: Callable[[Step], None] | None = None
    ) -> Step:
        """A move: carrier lost, another MAAR's link, and nobody tells the node. `meanwhile` is called right after."""
        left = self.lab.topology.attached
        step = self._begin(plan, left, title)
        self.lab.topology.move(plan)
        step.plugged = time.time_ns()
        counted = {name: flow.stream.counts() for name, flow in self.flows.items()}
        if meanwhile is not None:
            meanwhile(step)
        self._wait(
            lambda: self.pings.answered(step.plugged), f"flow 1 to go on at {plan.name.upper()}"
        )
        self._wait(
            lambda: self.lab.node.is_at(plan), f"an address of {plan.name.upper()} to be preferred"
        )
        # TCP's retransmission timer has backed off while nothing arrived: some time passes until it tries again.
        for name, before in counted.items():
            self._wait(
                partial(self._goes_on, self.flows[name], before),
                f"the TCP of {name} to go on at {plan.name.upper()}",
            )
        if "flow 2" not in self.flows:
            # Nobody says which address: the node's own rules must choose the one that is not deprecated.
            self._start_flow("flow 2", CN2, _FLOW_2_PORT, plan, None)
            self._settle(step)
            expect.source_is_local(self, self.flows["flow 2"])
        else:
            self._settle(step)
        return step

    def finish(self) -> dict[str, Counts]:
        """End the flows and count their octets."""
        counts = {name: flow.stream.finish() for name, flow in self.flows.items()}
        expect.flows_are_whole(self.checks, counts)
        return counts

    @property
    def client_still_runs(self) -> bool:
        """Whether dhcpcd is the process that was started in the beginning."""
        return self.lab.mn.runs and self.lab.mn.pid == self._client

    # --- the parts ---

    def _begin(self, plan: MaarPlan, left: MaarPlan | None, title: str) -> Step:
        step = Step(len(self.steps) + 1, title, plan, left, began=time.time_ns())
        self._told = step.began
        self._listener.began(step)
        return step

    def _start_flow(
        self, name: str, peer: CoreNode, port: int, anchor: MaarPlan, source: bytes | None
    ) -> None:
        stream = self._undo.enter_context(Stream(self.lab.topology, peer, port, source))
        self.flows[name] = Flow(name, stream, peer, anchor)

    def _goes_on(self, flow: Flow, before: Counts) -> bool:
        return flow.stream.counts().is_beyond(before)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        def ask() -> bool:
            for daemon in self.lab.daemons:
                daemon.check()
            self._tell()
            return condition()

        netns.wait_for(ask, timeout=_PATIENCE, what=what, interval=0.05)

    def _tell(self, *, until: int | None = None) -> None:
        """Hand on the messages seen; those of the last moment wait, another socket may still have an older one."""
        until = until or time.time_ns() - 100_000_000
        found = self._messages(self.lab.capture.packets(self._told, until))
        self._told = max(self._told, until)
        if found:
            self._listener.message(found)

    def _messages(self, packets: list[Packet]) -> list[Message]:
        """The signalling, without what the MAARs say on access links where the node is not."""
        here = self.lab.topology.attached
        link = here.access_link if here else ""
        return [
            message
            for message in messages.read(packets, self.names)
            if message.receiver != MN or message.link == link
        ]

    def _settle(self, step: Step) -> None:
        """Watch the flows for a while, then note all that can be known of the step, and make its assertions."""
        if step.plan not in self.visited:
            self.visited.append(step.plan)
        self._wait(
            lambda: expect_routers.knows_its_routers(self.lab, self.visited),
            f"the node to know its routers at {step.plan.name.upper()}",
        )
        step.ready = time.time_ns()
        seconds = WINDOW + _TRAVEL
        end = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() >= end, "time to pass")
        now = time.time_ns()
        self._tell(until=now)
        packets = self.lab.capture.packets(step.began, now)
        step.messages = self._messages(packets)
        if step.left is not None:
            step.interruption = self.pings.interruption(step.began, step.ready)
        window = {"since": step.ready, "until": now - int(_TRAVEL * 1e9)}
        for flow in self.flows.values():
            mn, cn = flow.stream.address, flow.peer.packed
            step.ways[flow.name, "up"] = paths.of_flow(packets, mn, cn, **window)
            step.ways[flow.name, "down"] = paths.of_flow(packets, cn, mn, **window)
        encapsulated = (packet for packet in packets if packet.tunnel)
        step.extensions = {number for packet in encapsulated for number in packet.extensions}
        self._learn_prefixes()
        self._ask_kernels(step)
        self.steps.append(step)
        self._listener.settled(step)
        expect.step(self, step)

    def _learn_prefixes(self) -> None:
        """The names of the node's prefixes, from what was on the wire."""
        given = self.names.given.values()
        for plan in self.visited:
            on_link = next((p for p in given if plan.link_pool.contains(p)), None)
            delegated = next((p for p in given if plan.delegated_pool.contains(p)), None)
            wanted = (on_link,) if self.lab.registers else (on_link, delegated)
            found = tuple(prefix for prefix in wanted if prefix is not None)
            if len(found) < len(wanted):
                raise netns.LabError(f"{plan.name} gave no on-link or no delegated prefix")
            self.prefixes[plan] = found

    def _ask_kernels(self, step: Step) -> None:
        topology = self.lab.topology
        for anchor, prefixes in self.prefixes.items():
            for prefix in prefixes:
                for plan in MAAR_PLANS:
                    decision = kernel.down(topology, plan, prefix, CN1.address)
                    step.decisions[plan, prefix, "down"] = decision
                device = step.decisions[step.plan, prefix, "down"].device
                if device and device != step.plan.core_interface:
                    peer = CN1.address if anchor == MAAR_PLANS[0] else CN2.address
                    decision = kernel.up(topology, step.plan, prefix, peer, device)
                    step.decisions[step.plan, prefix, "up"] = decision
