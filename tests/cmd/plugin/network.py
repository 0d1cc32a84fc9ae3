"""Two network namespaces joined by a veth pair: the server in one, the MAARs' addresses in the other."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from pyroute2 import netns

from dmm_wire.dhcpv6.codes import SERVER_PORT

T = TypeVar("T")
SERVER = "2001:db8:ffff::1"
SERVER_NAMESPACE = f"cmdt{os.getpid()}s"
MAAR_NAMESPACE = f"cmdt{os.getpid()}m"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@contextmanager
def network(*maars: str) -> Iterator[None]:
    """The two namespaces, with these MAAR addresses; they are gone afterwards."""
    made = []
    try:
        for namespace in (SERVER_NAMESPACE, MAAR_NAMESPACE):
            _ip("netns", "add", namespace)
            made.append(namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        _ip(
            *("link", "add", "core", "netns", SERVER_NAMESPACE, "type", "veth"),
            *("peer", "name", "core", "netns", MAAR_NAMESPACE),
        )
        for namespace, addresses in ((SERVER_NAMESPACE, [SERVER]), (MAAR_NAMESPACE, maars)):
            _ip("-n", namespace, "link", "set", "core", "addrgenmode", "none")
            for address in addresses:
                _ip("-n", namespace, "addr", "add", f"{address}/64", "dev", "core", "nodad")
            _ip("-n", namespace, "link", "set", "core", "up")
        yield
    finally:
        for namespace in made:
            _ip("netns", "del", namespace)


def inside(namespace: str, make: Callable[[], T]) -> T:
    """Make something in a namespace: in a thread, which alone enters it."""

    def enter() -> T:
        netns.setns(namespace)
        return make()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(enter).result()


class Relay:
    """A MAAR's socket towards the server."""

    def __init__(self, address: str) -> None:
        self.socket = inside(MAAR_NAMESPACE, lambda: self._open(address))
        self.socket.settimeout(10)

    @staticmethod
    def _open(address: str) -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind((address, SERVER_PORT))
        return made

    def send(self, datagram: bytes) -> None:
        self.socket.sendto(datagram, (SERVER, SERVER_PORT))

    def receive(self) -> bytes:
        return self.socket.recv(65536)

    def ask(self, datagram: bytes) -> bytes:
        """Send a datagram and wait for the answer."""
        self.send(datagram)
        return self.receive()

    def has_answer(self) -> bool:
        """Whether something has arrived; it is left where it is."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def drain(self) -> list[bytes]:
        """Take everything that has arrived."""
        waiting = []
        while self.has_answer():
            waiting.append(self.receive())
        return waiting

    def close(self) -> None:
        self.socket.close()
