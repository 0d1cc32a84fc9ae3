"""Every packet on every link of the lab, once per link, with the kernel's time.

One AF_PACKET socket in the core's namespace sees all links of the core, one in the namespace of the access links sees
those; each link is listened to at one end only, both directions, so that a packet counts once. Frames are kept as they
are and read when somebody asks for packets, so that a capture costs little while something is measured.

In a delayed lab the CMD's link is the one behind the delay, where a message arrives at the CMD or leaves it; the one
before it is `BEFORE_DELAY`.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import netns
from lab.packets import Packet, parse_frame
from lab.pcapng import PcapNgWriter
from lab.topology import CMD, DELAY, Topology

BEFORE_DELAY = "before-delay"
"""The link between the core and what delays."""

_ETH_P_ALL = 0x0003
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_TIMESPEC = struct.Struct("@ll")
_ANCILLARY = socket.CMSG_SPACE(_TIMESPEC.size)
_BUFFER = 32 << 20
_MAX_FRAME = 65536
_GATHER = 0.01


@dataclass(frozen=True, slots=True)
class _Port:
    """An interface that is listened to, and the nodes at the two ends of its link."""

    link: str
    number: int
    here: str
    there: str


class Capture:
    """Captures between `with` and its end. `pcap`: also write all of it to this file (pcapng, one interface per link).
    `gather`: seconds between two looks at what has come, where nobody asks for it.

    Raises LabError at the end if the kernel had to drop a packet: then no count here would be exact.
    """

    def __init__(
        self, topology: Topology, pcap: Path | None = None, *, gather: float = _GATHER
    ) -> None:
        self._topology = topology
        self._gather = gather
        self._pcap_path = pcap
        self._pcap: PcapNgWriter | None = None
        self._frames: list[tuple[bytes, int, _Port, bool]] = []
        """Frame, time, port, whether it went out of it; not read yet."""
        self._packets: list[Packet] = []
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        self._rounds = 0
        self._stopping = False
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="capture", daemon=True)
        self.dropped = 0
        """Packets that the kernel could not give us; known at the end."""

    def __enter__(self) -> Self:
        links = self._topology.core_links
        core = {link: _Port(link, i, "core", link) for i, link in enumerate(links)}
        access = {
            # Seen from the MAAR's cable, what comes in is the MAAR's and what goes out is the mobile node's.
            plan.node: _Port(plan.access_link, len(core) + i, "mn", plan.node)
            for i, plan in enumerate(self._topology.plans)
        }
        behind: dict[str, _Port] = {}
        if self._topology.delayed:
            behind = {CMD.node: core[CMD.node]}
            number = len(core) + len(access)
            core[CMD.node] = _Port(BEFORE_DELAY, number, "core", CMD.node)
        if self._pcap_path is not None:
            ports = {
                port.number: port.link for each in (core, access, behind) for port in each.values()
            }
            self._pcap = PcapNgWriter(self._pcap_path, [ports[n] for n in sorted(ports)])
        if behind:
            self._listen(DELAY, behind)
        self._listen("core", core)
        self._listen("air", access)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._wake()
        self._thread.join()
        for listener in self._sockets:
            statistics = listener.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self.dropped += struct.unpack("=II", statistics)[1]
            listener.close()
        self._selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
        if self._pcap is not None:
            self._pcap.close()
        if kind is None and self._problem is not None:
            raise netns.LabError(f"the capture failed: {self._problem}") from self._problem
        if kind is None and self.dropped:
            raise netns.LabError(
                f"the capture lost {self.dropped} packets: this machine is too busy"
            )

    def packets(self, since: int = 0, until: int | None = None) -> list[Packet]:
        """What was on the links from `since` to before `until` (time.time_ns()), in the order of time.

        Packets that are still in a socket's queue are waited for.
        """
        self._drain()
        with self._lock:
            frames, self._frames = self._frames, []
        for frame, at, port, outgoing in frames:
            ends = (port.here, port.there) if outgoing else (port.there, port.here)
            packet = parse_frame(frame, at, port.link, *ends)
            if packet is not None:
                self._packets.append(packet)
        found = [p for p in self._packets if p.at >= since and (until is None or p.at < until)]
        return sorted(found, key=lambda packet: packet.at)

    def forget(self, before: int) -> None:
        """Drop what was on the links before this time, for who measures for long."""
        self._packets = self.packets(before)

    # --- the thread ---

    def _listen(self, node: str, ports: dict[str, _Port]) -> None:
        def open_socket() -> socket.socket:
            protocol = socket.htons(_ETH_P_ALL)  # outgoing packets are given to ETH_P_ALL only
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
            listener = socket.socket(socket.AF_PACKET, kind, protocol)
            listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            listener.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            return listener

        listener = netns.inside(self._topology.namespace(node), open_socket)
        self._sockets.append(listener)
        self._selector.register(listener, selectors.EVENT_READ, ports)

    def _work(self) -> None:
        try:
            while not self._stopping:
                if not any(key.data is None for key, _ in self._selector.select()):
                    # Packets gather: whoever reads each as it comes takes the processor from what it looks at.
                    select.select([self._wake_reader], (), (), self._gather)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_reader, 4096)
                for listener in self._sockets:
                    self._read(listener, self._selector.get_key(listener).data)
                self._rounds += 1
        except Exception as problem:
            self._problem = problem

    def _read(self, listener: socket.socket, ports: dict[str, _Port]) -> None:
        """All that the socket holds now."""
        found = []
        while True:
            try:
                frame, ancillary, _, address = listener.recvmsg(_MAX_FRAME, _ANCILLARY)
            except BlockingIOError:
                break
            port = ports.get(address[0])
            if port is None:
                continue
            at = _kernel_time(ancillary)
            if self._pcap is not None:
                self._pcap.write(port.number, at, frame)
            found.append((frame, at, port, address[2] == socket.PACKET_OUTGOING))
        if found:
            with self._lock:
                self._frames += found

    def _drain(self) -> None:
        """Wait until every packet of before this call has been read: two rounds, the first may be under way."""
        goal = self._rounds + 2
        while self._rounds < goal and self._thread.is_alive():
            self._wake()
            time.sleep(0.001)

    def _wake(self) -> None:
        os.write(self._wake_writer, b"!")


def _kernel_time(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    raise netns.LabError("the kernel gives no time with a packet")
