"""A domain in which nodes leave their anchor for another MAAR, which hears of each in one way or another.

Real daemons, real kernels, our mode direct. Each node has an address of MAAR1, which it keeps, and the CN sends a
datagram to it every millisecond. It answers each one that it gets: before the handover is over it says nothing but what
it is to be noticed by. Afterwards it goes back, and rests until it may leave again.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Final

from bench.attach_clock import Step, Watched, steps
from bench.attach_domain import AttachDomain
from bench.attaching import Attach, Trigger
from bench.kernel_watch import KernelWatch
from bench.packet_stream import Flow, PacketStream
from bench.phase_clock import Move
from bench.scripted_client import Node
from dmm_wire.address import UNSPECIFIED, format_mac
from lab import netns
from lab.capture import Capture
from lab.program import ROOT
from lab.topology import CN1, MN_INTERFACE, MaarPlan
from relay_maar.io.client import NotRunning, ask

NODES: Final = 32
"""That take turns, which is what they rest by."""

_SETTLE: Final = 0.06
"""Seconds in which a kernel that has been given an address reports its group: over, before it moves."""
_AT_ONCE: Final = 0.02
_AFTER_CARRIER: Final = 0.05
"""Seconds after which it is first looked whether all is done, and the same after the loss of the carrier, where a
host's first frame is some 10 ms late: who looks earlier takes processor time from what is looked at."""
_GATHER: Final = 5.0
"""Seconds that packets wait in the kernel if nobody asks for them, for the same reason: longer than a move."""
_AGAIN: Final = 0.015
_PATIENCE: Final = 4.0
_ALL_ROUTERS: Final = "ff02::2"
_SOLICITATION: Final = struct.Struct("!BBHIBB6s")
_ROUTER_SOLICITATION, _SOURCE_LINK_LAYER = 133, 1


class AttachLab(AttachDomain):
    """The domain, listened to, between `with` and its end. Raises LabError."""

    def __init__(self, prefix: str, nodes: int = NODES) -> None:
        super().__init__(prefix, nodes)
        self._capture = Capture(self.topology, gather=_GATHER)
        self._watch = KernelWatch(self.topology)
        self._from_cn = PacketStream(self.topology.namespace(CN1.node))
        self._from_node = PacketStream(self.topology.namespace("mn"))
        self._solicitor: socket.socket | None = None

    def _build(self, undo: ExitStack) -> None:
        super()._build(undo)
        for part in (self._capture, self._watch, self._from_cn, self._from_node):
            undo.enter_context(part)
        namespace = self.topology.namespace("mn")
        self._solicitor = undo.enter_context(netns.inside(namespace, _solicitor))

    def move(self, trigger: Trigger) -> Attach:
        """The next node goes away, and is noticed by this; then it goes home. Raises LabError."""
        node = self.come(talks=trigger is Trigger.MLD)
        address = node.addresses[self.home]
        down, up = Flow(UNSPECIFIED, address), Flow(address, CN1.packed)
        self._from_cn.begin([down])
        if trigger is Trigger.DATA:
            self._from_node.begin([up])
        else:
            self._from_node.answer()
        time.sleep(_SETTLE)
        self._capture.forget(time.time_ns())
        self._watch.forget()
        start, hook = self._leave(trigger, node)
        none = b"\x00\x00\x00"
        move = Move(self.away, (self.home,), none, frozenset({self.away.name}), (down,))
        time.sleep(_AFTER_CARRIER if trigger is Trigger.MLD else _AT_ONCE)
        found = self._measure(Watched(move, start, hook))
        self._from_node.end()
        self._from_cn.end()
        self.back()
        return Attach(trigger, node.number, {step: at / 1e9 for step, at in found.items()})

    def hook_program(self) -> float:
        """Seconds that the program `relay-maar attach` takes, for a node that is where it is said to be: its start, for
        the most part. Raises LabError."""
        node = self.come()
        configuration = self.topology.directory / self.home.name / "maar.toml"
        command = [sys.executable, "-m", "relay_maar", "attach", str(configuration)]
        command += [self.home.access_interface, format_mac(node.link_layer)]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        took = time.perf_counter() - began
        self.rest(node)
        if done.returncode:
            raise netns.LabError(f"relay-maar attach: {done.stderr.strip()}")
        return took

    # --- the parts of a move ---

    def _leave(self, trigger: Trigger, node: Node) -> tuple[int, int | None]:
        """When it left, and when a hook said so."""
        if trigger is Trigger.MLD:
            return self.air.lose(self.away), None
        start, hook = self.air.roam(self.away), None
        if trigger is Trigger.RS:
            self._solicit(node)
        elif trigger is Trigger.DHCP:
            self.client.ask()
        elif trigger is Trigger.HOOK:
            hook = time.time_ns()
            self._tell(self.away, node)
        return start, hook

    def _solicit(self, node: Node) -> None:
        """A Router Solicitation (RFC 4861 section 4.1), with its source link-layer address."""
        message = _SOLICITATION.pack(
            _ROUTER_SOLICITATION, 0, 0, 0, _SOURCE_LINK_LAYER, 1, node.link_layer
        )
        assert self._solicitor is not None
        self._solicitor.sendto(message, (_ALL_ROUTERS, 0))

    def _tell(self, plan: MaarPlan, node: Node) -> None:
        directory = self.topology.directory / plan.name / "run"
        where = {"interface": plan.access_interface, "link-layer": format_mac(node.link_layer)}
        try:
            ask(directory, "attach", where)
        except (NotRunning, OSError) as problem:
            raise netns.LabError(f"{plan.name}: {problem}") from problem

    def _measure(self, watched: Watched) -> dict[Step, int]:
        """Until all is done, or patience is at its end."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = steps(self._capture.packets(watched.start), self._watch.said(), watched)
            if len(found) == len(Step) or time.monotonic() > deadline:
                return found
            time.sleep(_AGAIN)


def _solicitor() -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    index = socket.if_nametoindex(MN_INTERFACE)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    return made
