"""Network namespaces for the tests: made, entered by the calling thread, and removed."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CLONE_NEWNET = 0x40000000
_EVERY_PROTOCOL = 0x0003
_IPV6 = 0x86DD
_SO_RCVBUFFORCE = 33
_libc = ctypes.CDLL(None, use_errno=True)
_SYSCTLS = Path("/proc/sys/net/ipv6/conf")


class Namespace:
    """One network namespace with its loopback up and no address but `::1`."""

    def __init__(self, suffix: str) -> None:
        self.name = f"sbt{os.getpid()}{suffix}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link set lo up")
        # Nobody looks for a router: whoever is asked has the one who asks among its neighbours from then on.
        with self.inside():
            (_SYSCTLS / "default/router_solicitations").write_text("0")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def ip(self, command: str) -> str:
        """`ip COMMAND` in the namespace."""
        done = subprocess.run(
            ["ip", "-n", self.name, *command.split()], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"ip {command}: {done.stderr}")
        return done.stdout

    def link(self, name: str, other: Namespace, other_name: str) -> None:
        """A cable, with fixed link-local addresses: nothing changes behind a test's back."""
        self.ip(f"link add {name} type veth peer name {other_name} netns {other.name}")
        for number, (namespace, device) in enumerate(((self, name), (other, other_name)), 1):
            namespace.ip(f"link set {device} addrgenmode none")
            namespace.ip(f"link set {device} up")
            namespace.ip(f"addr add fe80::{number}/64 dev {device} nodad")
        # The kernel is late with it, and routes change with it.
        wait(lambda: "state UP" in self.ip(f"link show {name}"))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread, its sockets and child processes are in the namespace meanwhile."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            inside = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
            try:
                _enter(inside)
            finally:
                os.close(inside)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def snapshot(self) -> dict[str, Any]:
        """All there is to restore, in a form that compares."""
        views = {
            view: json.loads(self.ip(f"-j {view}") or "[]")
            for view in (
                "-6 route show table all",
                "-6 rule show",
                "-d link show",
                "-d addr show",
                "-d neigh show",
                "maddr show",
            )
        }
        views["tunnel source"] = self.ip("sr tunsrc show")
        with self.inside():
            views["filter"] = nft("list", "ruleset")
            views["sysctls"] = {
                str(path.relative_to(_SYSCTLS)): path.read_text()
                for path in sorted(_SYSCTLS.glob("*/*"))
                if path.name != "stable_secret" and path.stat().st_mode & 0o400
            }
        return views


def nft(*arguments: str) -> str:
    """`nft ARGUMENTS` in the namespace of the calling thread; what counters say is left out."""
    return subprocess.run(
        ["nft", "-s", *arguments], capture_output=True, text=True, check=True
    ).stdout


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Capture:
    """The IPv6 packets that pass an interface, both ways, from now on."""

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with namespace.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
            self._socket.bind((interface, _EVERY_PROTOCOL))  # what goes out, too
        self._socket.setblocking(False)
        self.packets: list[bytes] = []

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read(self) -> list[bytes]:
        """All packets so far, IPv6 header first."""
        while True:
            try:
                packet, address = self._socket.recvfrom(65535)
            except BlockingIOError:
                return self.packets
            if address[1] == _IPV6:
                self.packets.append(packet)

    def until(self, wanted: Callable[[bytes], bool]) -> bytes:
        """The first packet of that kind, waited for up to 10 seconds."""
        found: list[bytes] = []

        def arrived() -> bool:
            found[:] = [packet for packet in self.read() if wanted(packet)]
            return bool(found)

        wait(arrived)
        return found[0]


def wait(condition: Callable[[], bool]) -> None:
    """Until the condition holds, up to 10 seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
