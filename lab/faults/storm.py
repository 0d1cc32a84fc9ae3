"""All Mobility Headers that cross the core take a way through this process, where things happen to them.

The core's kernel routes IP protocol 135, and nothing else, into a TUN device; what is written back into the device goes
on to where it was going.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import struct
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from dmm_wire import mobility as mh
from dmm_wire.errors import WireError
from dmm_wire.mobility.answers import first
from lab import netns
from lab.faults.weather import Fates
from lab.packets import MOBILITY
from lab.topology import Topology

_DEVICE = "storm"
_TABLE = 135
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_HEADER = 40
_NEXT_HEADER = 6
_LARGEST = 65536


class Storm:
    """The way of PBUs and PBAs through `fates`, between `with` and its end; a part of the loop."""

    def __init__(self, topology: Topology, fates: Fates) -> None:
        self.fates = fates
        """What happens to the messages that come from now on."""
        self.counts: Counter[str] = Counter()
        """"pbu", "pba", "registration": as they were sent; of these "again": about the same visit between the same two;
        "lost", "doubled", "overtaken"."""
        self._namespace = topology.namespace("core")
        self._tun = -1
        self._later: list[tuple[float, int, int, bytes]] = []
        self._sent: Counter[tuple[bytes, bytes]] = Counter()
        self._latest: dict[tuple[bytes, bytes], int] = {}
        self._number = 0
        self._known: set[tuple[object, ...]] = set()

    def __enter__(self) -> Self:
        self._tun = netns.inside(self._namespace, _open)
        for line in (
            f"link set {_DEVICE} up",
            f"-6 route add default dev {_DEVICE} table {_TABLE}",
            f"-6 rule add pref 90 iif {_DEVICE} lookup main",
            f"-6 rule add pref 91 ipproto {MOBILITY} lookup {_TABLE}",
        ):
            netns.ip(*line.split(), namespace=self._namespace)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._tun)

    # --- a part of the loop ---

    def descriptors(self) -> Iterable[int]:
        return (self._tun,)

    def readable(self, descriptor: int, now: float) -> None:
        while True:
            try:
                packet = os.read(descriptor, _LARGEST)
            except BlockingIOError:
                return
            # The kernel's own, such as Router Solicitations of the device.
            if len(packet) > _HEADER and packet[_NEXT_HEADER] == MOBILITY:
                self._take(packet, now)

    def deadline(self) -> float | None:
        return self._later[0][0] if self._later else None

    def due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, place, packet = heapq.heappop(self._later)
            self._deliver(packet, place)

    # --- the messages ---

    def _take(self, packet: bytes, now: float) -> None:
        source, destination = packet[8:24], packet[24:40]
        way = source, destination
        self._count(packet, source, destination)
        place = self._sent[way]
        self._sent[way] += 1
        delays = self.fates.next(source, destination)
        self.counts["lost"] += not delays
        self.counts["doubled"] += len(delays) > 1
        for delay in delays:
            if delay:
                self._number += 1
                heapq.heappush(self._later, (now + delay, self._number, place, packet))
            else:
                self._deliver(packet, place)

    def _deliver(self, packet: bytes, place: int) -> None:
        way = packet[8:24], packet[24:40]
        latest = self._latest.get(way, -1)
        self.counts["overtaken"] += place < latest
        self._latest[way] = max(place, latest)
        os.write(self._tun, packet)

    def _count(self, packet: bytes, source: bytes, destination: bytes) -> None:
        try:
            message = mh.decode(packet[_HEADER:], source, destination)
        except WireError:
            self.counts["unreadable"] += 1
            return
        if isinstance(message, mh.BindingAcknowledgement):
            self.counts["pba"] += 1
            self.counts["refused"] += message.status != 0
        elif isinstance(message, mh.BindingUpdate):
            serving, visit = first(message, mh.ServingMaar), first(message, mh.Timestamp)
            node = first(message, mh.MobileNodeIdentifier)
            self.counts["pbu" if serving else "registration"] += 1
            what = source, destination, node, visit
            self.counts["again"] += what in self._known
            self._known.add(what)


def _open() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(
            device,
            _TUNSETIFF,
            struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI),
        )
    except OSError as problem:
        os.close(device)
        raise netns.LabError(f"TUN: {problem}") from None
    return device
