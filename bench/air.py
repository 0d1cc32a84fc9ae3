"""The mobile node's cable, put from access link to access link by the kernel's own calls: microseconds, not the
milliseconds that starting `ip` takes, so that the instant of a move is known.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from types import TracebackType
from typing import Final, Self

from lab import netns
from lab.topology import CARRIER_GAP, MaarPlan, Topology

GAP: Final = CARRIER_GAP
"""How long the node is without carrier in a move that loses it, seconds."""

_CABLE: Final = "mn"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCBRADDIF, _SIOCBRDELIF = 0x8913, 0x8914, 0x89A2, 0x89A3
_IFF_UP: Final = 1
_FLAGS: Final = struct.Struct("=16sH22x")
_INDEX: Final = struct.Struct("=16si20x")


class Air:
    """The namespace of the access links, between `with` and its end."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._socket: socket.socket | None = None
        self._index = 0

    def __enter__(self) -> Self:
        def opened() -> tuple[socket.socket, int]:
            made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            return made, socket.if_nametoindex(_CABLE)

        self._socket, self._index = netns.inside(self._topology.namespace("air"), opened)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def roam(self, plan: MaarPlan) -> int:
        """To this MAAR's link, and the carrier stays. Gives the time before it (time.time_ns())."""
        at = time.time_ns()
        self._replug(plan)
        self._set(up=True)
        return at

    def lose(self, plan: MaarPlan) -> int:
        """To this MAAR's link, with the carrier lost for `GAP` seconds. Gives the time before its return."""
        self._set(up=False)
        self._replug(plan)
        time.sleep(GAP)
        at = time.time_ns()
        self._set(up=True)
        return at

    def _replug(self, plan: MaarPlan) -> None:
        before = self._topology.attached
        if before is not None:
            self._bridge(_SIOCBRDELIF, before)
        self._bridge(_SIOCBRADDIF, plan)
        self._topology.attached = plan

    def _bridge(self, call: int, plan: MaarPlan) -> None:
        self._call(call, _INDEX.pack(f"link{plan.number}".encode(), self._index))

    def _set(self, *, up: bool) -> None:
        name = _CABLE.encode()
        _, flags = _FLAGS.unpack(self._call(_SIOCGIFFLAGS, _FLAGS.pack(name, 0)))
        flags = flags | _IFF_UP if up else flags & ~_IFF_UP
        self._call(_SIOCSIFFLAGS, _FLAGS.pack(name, flags))

    def _call(self, number: int, request: bytes) -> bytes:
        assert self._socket is not None
        try:
            return fcntl.ioctl(self._socket, number, request)
        except OSError as problem:
            raise netns.LabError(f"the mobile node's cable: {problem}") from problem
