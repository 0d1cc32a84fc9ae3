"""One end of a TCP flow: sends octets that follow from their position, and checks those of the other end.

Run in a namespace: `python -m lab.stream serve ADDRESS PORT` or `... connect ADDRESS PORT [SOURCE]`. Writes JSON lines
to standard output: `{"ready": ...}` once, then a report for every line read from standard input. The line "finish" (or
the end of standard input) ends our direction; the last report comes when the other end has ended its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import socket
import sys
import time

BLOCK = 1000
INTERVAL = 0.05
"""So 20 kB/s in each direction, whatever the path does."""

_PATTERN_LENGTH = 65521
"""A prime: octets lost or repeated never fall on the same place of the pattern."""


class Pattern:
    """The octets that one end sends: the same for the same name, known at every position."""

    def __init__(self, name: str) -> None:
        stream = hashlib.shake_256(name.encode()).digest(_PATTERN_LENGTH)
        self._octets = stream + stream[: 1 << 16]

    def at(self, position: int, length: int) -> bytes:
        """`length` octets (at most 65536) from `position` of the endless pattern."""
        start = position % _PATTERN_LENGTH
        return self._octets[start : start + length]


class End:
    """One end of the connection: what it sent, what it received, and whether that was what the other end sends."""

    def __init__(self, connection: socket.socket, ours: str, theirs: str) -> None:
        self.connection = connection
        self.sent = 0
        self.received = 0
        self.intact = True
        self.finished = False
        self._ours = Pattern(ours)
        self._theirs = Pattern(theirs)
        self._due = 0

    def run(self) -> None:
        """Until both directions have ended."""
        self.connection.setblocking(False)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ)
            selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
            next_block = time.monotonic()
            ended = False
            while not (ended and self.finished):
                pause = max(0.0, next_block - time.monotonic())
                for key, _ in selector.select(None if self.finished else pause):
                    if key.fileobj is self.connection:
                        ended = self._receive()
                        if ended:
                            selector.unregister(self.connection)
                            self._finish()
                    elif self._command():
                        selector.unregister(sys.stdin.fileno())
                if not self.finished and time.monotonic() >= next_block:
                    next_block += INTERVAL
                    self._due += BLOCK
                    self._send()
        self.report(final=True)

    def report(self, *, final: bool = False) -> None:
        """One JSON line."""
        say(sent=self.sent, received=self.received, intact=self.intact, final=final)

    def _send(self) -> None:
        while self.sent < self._due:
            block = self._ours.at(self.sent, min(1 << 16, self._due - self.sent))
            try:
                self.sent += self.connection.send(block)
            except BlockingIOError:
                return

    def _receive(self) -> bool:
        """True at the end of the other direction."""
        data = self.connection.recv(1 << 16)
        self.intact &= data == self._theirs.at(self.received, len(data))
        self.received += len(data)
        return not data

    def _command(self) -> bool:
        """True when standard input asks for nothing more."""
        line = os.read(sys.stdin.fileno(), 4096)
        if not line or b"finish" in line:
            self._finish()
            return True
        self.report()
        return False

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            self.connection.shutdown(socket.SHUT_WR)


def say(**values: object) -> None:
    """One JSON line on standard output."""
    print(json.dumps(values), flush=True)


def serve(address: str, port: int) -> None:
    """Wait for one connection and be its far end."""
    with socket.create_server((address, port), family=socket.AF_INET6) as listener:
        say(ready=address)
        connection, peer = listener.accept()
    with connection:
        say(peer=peer[0])
        End(connection, "down", "up").run()


def connect(address: str, port: int, source: str | None) -> None:
    """Be the near end; without `source` the kernel chooses one (RFC 6724)."""
    bound = (source, 0) if source else None
    with socket.create_connection((address, port), timeout=10, source_address=bound) as connection:
        say(ready=connection.getsockname()[0])
        End(connection, "up", "down").run()


def main(arguments: list[str]) -> None:
    """The program."""
    match arguments:
        case ["serve", address, port]:
            serve(address, int(port))
        case ["connect", address, port, *source]:
            connect(address, int(port), source[0] if source else None)
        case _:
            sys.exit("usage: python -m lab.stream serve|connect ADDRESS PORT [SOURCE]")


if __name__ == "__main__":
    main(sys.argv[1:])
