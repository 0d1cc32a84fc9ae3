"""A cable that takes a while: `python -m lab.delay INTERFACE INTERFACE`, until standard input ends.

Every frame that comes in at one of the two interfaces goes out at the other one after the same time, in the order in
which it came. The time is counted from the kernel's time of its arrival. It is 0 at first; a line with a number of
microseconds on standard input sets it for what comes from then on. That is answered with the same line; `ready` comes
first.

For kernels without netem. How well it keeps the time is not for it to say: captures before and behind it do.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from lab import netns
from lab.program import Program
from lab.topology import CMD, DELAY, Topology

_Item = TypeVar("_Item")

_ETH_P_ALL: Final = 0x0003
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_TIMESTAMPNS: Final = 35
_PR_SET_TIMERSLACK: Final = 29
_TIMESPEC: Final = struct.Struct("@ll")
_ANCILLARY: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_MAX_FRAME: Final = 65536 + 10
_PRIORITY: Final = 20
_EARLY: Final = 30_000
"""Nanoseconds before the time is up at which the rest is not slept but looked at."""


class DelayQueue(Generic[_Item]):
    """What waits until its time. Times are nanoseconds; `delay` may be set at any time and counts for what comes then.

    First in, first out: what comes later does not overtake, even if the delay was made shorter meanwhile.
    """

    def __init__(self, delay: int = 0) -> None:
        self.delay = delay
        self._waiting: deque[tuple[int, _Item]] = deque()
        self._last = 0

    def put(self, at: int, item: _Item) -> None:
        """It came at `at`."""
        self._last = max(self._last, at + self.delay)
        self._waiting.append((self._last, item))

    @property
    def deadline(self) -> int | None:
        """When the next one is due; None when nothing waits."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, now: int) -> list[_Item]:
        """What is due by now, in the order in which it came."""
        found = []
        while self._waiting and self._waiting[0][0] <= now:
            found.append(self._waiting.popleft()[1])
        return found


class Delay:
    """The delay of a delayed lab, between `with` and its end; 0 at first."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._program: Program | None = None

    def __enter__(self) -> Self:
        namespace = self._topology.namespace(DELAY)
        self._program = Program(namespace, "lab.delay", "core", CMD.node)
        try:
            self._answer("ready")
        except BaseException:
            self._program.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._program is not None:
            self._program.close()

    def set(self, seconds: float) -> None:
        """Hold each frame for so long, one way, from now on. Raises LabError when the program has ended."""
        assert self._program is not None
        line = str(round(seconds * 1e6))
        self._program.ask(line)
        self._answer(line)

    def _answer(self, wanted: str) -> None:
        assert self._program is not None
        if (said := self._program.text()) != wanted:
            raise netns.LabError(f"lab.delay says {said!r}, not {wanted!r}")


class _End:
    """One of the two interfaces. The header of virtio goes with each frame, so that a checksum that the sender left to
    its interface is still nobody's to miss."""

    def __init__(self, interface: str) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.socket.bind((interface, _ETH_P_ALL))
        self.waiting: DelayQueue[bytes] = DelayQueue()

    def receive(self) -> None:
        """All that has come."""
        while True:
            try:
                frame, ancillary, _, _ = self.socket.recvmsg(_MAX_FRAME, _ANCILLARY)
            except BlockingIOError:
                return
            seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
            self.waiting.put(seconds * 1_000_000_000 + nanoseconds, frame)


def main(one: str, other: str) -> None:
    """The program."""
    _hurry()
    ends = _End(one), _End(other)
    ways = (ends[0], ends[1].socket), (ends[1], ends[0].socket)
    commands = sys.stdin.fileno()
    readers = [commands, *(end.socket for end in ends)]
    print("ready", flush=True)
    while True:
        deadlines = [end.waiting.deadline for end in ends]
        soonest = min((each for each in deadlines if each is not None), default=None)
        pause = None if soonest is None else max(0, soonest - _EARLY - time.time_ns()) / 1e9
        readable, _, _ = select.select(readers, (), (), pause)
        for end in ends:
            end.receive()
        for end, out in ways:
            for frame in end.waiting.due(time.time_ns()):
                out.send(frame)
        if commands in readable:
            line = os.read(commands, 64)
            if not line:
                return
            for end in ends:
                end.waiting.delay = int(line) * 1000
            sys.stdout.buffer.write(line)
            sys.stdout.flush()


def _hurry() -> None:
    """Wake when the time is up, not when somebody else has done with the processor."""
    gc.disable()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    except PermissionError:
        pass  # late more often, and the captures will tell


if __name__ == "__main__":
    main(*sys.argv[1:])
