"""A UDP datagram every millisecond in one direction, so that captures show from when on a way is open.

`python -m bench.packet_stream INTERVAL`, microseconds, until standard input ends. A line `SOURCE>DESTINATION ...` on
standard input begins as many flows, the line `stop` ends them. Each is answered with the same line, after a `ready`.
`SOURCE` may be `::`, for whatever address the kernel takes. A datagram holds its number, so that each is another one.
Nobody answers: the program at the other end never reads, and its kernel throws away what arrives. But after a line
`answer` it sends back what comes from then on, each once, and nothing else, until the next line.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self

from dmm_wire.address import UNSPECIFIED, format_address, parse_address
from lab import netns
from lab.program import Program

PORT: Final = 5010
"""Of both ends."""
INTERVAL: Final = 0.001
"""Seconds between two datagrams of a flow."""

_STOP: Final = "stop"
_ANSWER: Final = "answer"
_NUMBER: Final = struct.Struct("!I12x")
_SOURCE: Final = struct.Struct("@16sI")


class Flow(NamedTuple):
    """Addresses of a flow's datagrams."""

    source: bytes
    destination: bytes


class PacketStream:
    """The program in a namespace, between `with` and its end: the sending end, and a receiving one for others."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._program: Program | None = None

    def __enter__(self) -> Self:
        interval = str(round(INTERVAL * 1e6))
        self._program = Program(self._namespace, "bench.packet_stream", interval)
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

    def begin(self, flows: Sequence[Flow]) -> None:
        """Send these, and no others, from now on: the first datagram of each has been sent when this returns.

        Raises LabError when the program has ended."""
        self._say(" ".join(f"{format_address(a)}>{format_address(b)}" for a, b in flows))

    def answer(self) -> None:
        """Send back what comes from now on, and nothing else. Raises LabError when the program has ended."""
        self._say(_ANSWER)

    def end(self) -> None:
        """Send nothing any more. Raises LabError when the program has ended."""
        self._say(_STOP)

    def _say(self, line: str) -> None:
        assert self._program is not None
        self._program.ask(line)
        self._answer(line)

    def _answer(self, wanted: str) -> None:
        assert self._program is not None
        if (said := self._program.text()) != wanted:
            raise netns.LabError(f"bench.packet_stream says {said!r}, not {wanted!r}")


def read_flows(line: str) -> list[Flow]:
    """The flows that a line names. Raises ValueError."""
    found: list[Flow] = []
    for word in line.split() if line.strip() not in (_STOP, _ANSWER) else ():
        source, _, destination = word.partition(">")
        found.append(Flow(parse_address(source), parse_address(destination)))
    return found


class _Sender:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.bind(("::", PORT))
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._number = 0
        self.flows: list[tuple[list[tuple[int, int, bytes]], str]] = []

    def take(self, flows: Sequence[Flow]) -> None:
        self.flows = []
        for flow in flows:
            chosen = _SOURCE.pack(flow.source, 0)
            ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, chosen)]
            self.flows.append(
                (ancillary if flow.source != UNSPECIFIED else [], format_address(flow.destination))
            )

    def send(self) -> None:
        for ancillary, destination in self.flows:
            self._number += 1
            data = [_NUMBER.pack(self._number & 0xFFFFFFFF)]
            try:
                self._socket.sendmsg(data, ancillary, 0, (destination, PORT))
            except OSError:
                pass  # no carrier, no route: this one is lost like any other on its way

    def listens(self) -> list[socket.socket]:
        """What there is to be read from, beginning with what comes from now on."""
        self._read()
        return [self._socket]

    def send_back(self) -> None:
        """What has come."""
        for data, address, ancillary in self._read():
            try:
                self._socket.sendmsg([data], ancillary, 0, address)
            except OSError:
                pass

    def _read(self) -> list[tuple[bytes, tuple[object, ...], list[tuple[int, int, bytes]]]]:
        found: list[tuple[bytes, tuple[object, ...], list[tuple[int, int, bytes]]]] = []
        while True:
            try:
                data, ancillary, _, address = self._socket.recvmsg(
                    2048, socket.CMSG_SPACE(_SOURCE.size), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return found
            # IPV6_PKTINFO of what came names our address: of what goes it is the source.
            chosen = [(a, b, _SOURCE.pack(c[:16], 0)) for a, b, c in ancillary]
            found.append((data, address, chosen))


def main(interval: str) -> None:
    """The program."""
    pause = int(interval) / 1e6
    sender = _Sender()
    print("ready", flush=True)
    due = 0.0
    heard: list[socket.socket] = []
    while True:
        left = max(0.0, due - time.monotonic()) if sender.flows else None
        readable, _, _ = select.select([sys.stdin.fileno(), *heard], (), (), left)
        if sys.stdin.fileno() in readable:
            data = os.read(sys.stdin.fileno(), 65536)
            if not data:
                return
            line = data.decode()
            heard = sender.listens() if line.strip() == _ANSWER else []
            sender.take(read_flows(line))
            sender.send()
            due = time.monotonic() + pause
            print(line, end="", flush=True)
        elif readable:
            sender.send_back()
        elif time.monotonic() >= due:
            sender.send()
            due = max(due + pause, time.monotonic())


if __name__ == "__main__":
    main(*sys.argv[1:])
