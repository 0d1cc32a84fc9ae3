"""One mobility domain in which a node moves from MAAR to MAAR and every move is measured.

Real daemons, real kernels; the CMD behind a delay; the node scripted, its flows a datagram a millisecond each way.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from bench.packet_stream import Flow, PacketStream
from bench.phase_clock import Move, Phase, counted, held, phases, sent_back
from bench.scripted_client import ScriptedClient
from dmm_wire.address import UNSPECIFIED
from lab import netns
from lab.capture import Capture
from lab.daemons import Daemons
from lab.delay import Delay
from lab.signals import uninterrupted
from lab.topology import CMD, CN1, MaarPlan, Topology

REST: Final = 0.4
"""Seconds at least between two moves of a node, measured or not: an anchor hears of it MAX_UPDATE_RATE times a second
(RFC 8885 section 3.6), so the CMD would put off the PBU of a move that is the fourth within one."""

_AT_ONCE: Final = 0.03
"""Seconds after which it is first looked whether all is done, beside what the delay makes of it."""
_AGAIN: Final = 0.02
_PATIENCE: Final = 10.0
_ASK_AGAIN: Final = 1.0
_WAYS: Final = {"relay": 5}
_FEWER_WAYS: Final = 4
"""Times that a message of a handover crosses the delay, and one to spare: who looks earlier takes processor time."""

PBA_GOES_TO: Final[Mapping[str, tuple[bool, bool]]] = {
    "direct": (False, True),
    "proxy": (True, False),
    "locator": (True, True),
    "relay": (True, False),
}
"""Whether the P-MAARs answer the CMD, and the S-MAAR."""


@dataclass(frozen=True, slots=True)
class Handover:
    """One move: seconds for each phase that was done, messages by kind, and how long each message to or from the CMD
    was held (seconds). `sent_back`: see `phase_clock`."""

    mode: str
    delay: float
    anchors: int
    seconds: Mapping[Phase, float]
    messages: Counter[str]
    held: tuple[float, ...]
    sent_back: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all phases were done."""
        return len(self.seconds) == len(Phase)


class HandoverLab:
    """A domain in one mode with so many MAARs, between `with` and its end. Raises LabError."""

    def __init__(self, prefix: str, mode: str, maars: int) -> None:
        self.mode = mode
        self._topology = Topology(prefix, maars=maars, delayed=True)
        self._delay = Delay(self._topology)
        self._capture = Capture(self._topology)
        self._client = ScriptedClient(self._topology)
        self._from_cn = PacketStream(self._topology.namespace(CN1.node))
        self._from_node = PacketStream(self._topology.namespace("mn"))
        self._daemons: Daemons | None = None
        self._undo = ExitStack()
        self._seconds = 0.0
        self._nodes = 0
        self._moved = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._topology)
            undo.enter_context(self._delay)
            undo.enter_context(self._capture)
            daemons = Daemons(self._topology, mode=self.mode, stock=False)
            self._daemons = undo.enter_context(daemons)
            undo.enter_context(self._client)
            undo.enter_context(self._from_cn)
            undo.enter_context(self._from_node)
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

    def delay(self, seconds: float) -> None:
        """The CMD is so far away, one way, from now on."""
        self._delay.set(seconds)
        self._seconds = seconds

    def attach(self) -> None:
        """A node that nobody knows comes to the first MAAR."""
        self._nodes += 1
        self._client.become(self._nodes)
        self.hop()

    def hop(self) -> None:
        """It goes on to the next MAAR, and nothing is measured."""
        self._rest()
        self._capture.forget(time.time_ns())
        self._client.go(self._next)
        self._take(self._client.ask())
        self._moved = time.monotonic()

    def move(self) -> Handover:
        """It goes on to the next MAAR, where it was not yet; the prefix just left and its first one are watched."""
        node = self._client.node
        visited = tuple(node.addresses)
        serving = self._next
        watched = dict.fromkeys((node.addresses[visited[0]], node.addresses[visited[-1]]))
        down = tuple(Flow(UNSPECIFIED, address) for address in watched)
        up = tuple(Flow(address, CN1.packed) for address in watched)
        self._rest()
        self._capture.forget(time.time_ns())
        self._from_cn.begin(down)
        self._client.go(serving)
        began = time.time_ns()
        transaction = self._client.ask()
        self._from_node.begin(up)
        self._moved = time.monotonic()
        move = Move(serving, visited, transaction, self._told(serving), down)
        handover = self._watch(began, move)
        self._from_node.end()
        self._from_cn.end()
        self._take(transaction)
        return handover

    def held_back(self) -> int:
        """PBUs that the CMD has held back for MAX_UPDATE_RATE: with the rests between the moves, none. Those of the
        last second may be missing."""
        assert self._daemons is not None
        return self._daemons.cmd.counters().get("pbu-held-back", 0)

    def tails(self) -> str:
        """The ends of the daemons' logs."""
        return "" if self._daemons is None else self._daemons.tails()

    @property
    def _next(self) -> MaarPlan:
        return self._topology.plans[len(self._client.node.addresses)]

    def _told(self, serving: MaarPlan) -> frozenset[str]:
        names = (CMD.node, serving.name)
        return frozenset(n for n, does in zip(names, PBA_GOES_TO[self.mode], strict=True) if does)

    def _rest(self) -> None:
        time.sleep(max(0.0, self._moved + REST - time.monotonic()))

    def _watch(self, began: int, move: Move) -> Handover:
        """Until all phases are done, or patience is at its end."""
        deadline = time.monotonic() + _PATIENCE
        pause = _AT_ONCE + _WAYS.get(self.mode, _FEWER_WAYS) * self._seconds
        while True:
            time.sleep(pause)
            packets = self._capture.packets(began)
            found = phases(packets, move).all(move)
            done = all(at is not None for at in found.values())
            if done or time.monotonic() > deadline:
                break
            pause = _AGAIN
        return Handover(
            self.mode,
            self._seconds,
            len(move.anchors),
            {phase: at / 1e9 for phase, at in found.items() if at is not None},
            counted(packets, move),
            tuple(each / 1e9 for each in held(packets)),
            sent_back(packets, move),
        )

    def _take(self, transaction: bytes) -> None:
        """The Reply; asks again as clients do. (Where that was needed after a move, the move was not complete.)"""
        asked = time.monotonic()

        def taken() -> bool:
            nonlocal asked
            assert self._daemons is not None
            for daemon in self._daemons:
                daemon.check()
            if time.monotonic() > asked + _ASK_AGAIN:
                self._client.ask(transaction)
                asked = time.monotonic()
            return self._client.take(transaction)

        netns.wait_for(taken, timeout=_PATIENCE, what="a Reply", interval=0.005)
