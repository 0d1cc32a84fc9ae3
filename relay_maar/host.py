"""The daemon as a process of its host: what it needs there, one at a time, and what systemd wants to hear."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from relay_maar.config import Config
from relay_maar.core.tunnel_errors import MINIMUM_MTU, OVERHEAD
from relay_maar.io.links import mtu
from relay_maar.southbound.registry import open_driver


class StartError(Exception):
    """The host cannot carry the daemon as configured; one clear line."""


class AlreadyRunning(StartError):
    """Another daemon holds the runtime directory."""


@contextlib.contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Hold the runtime directory. The kernel lets go of the lock when the process dies, however it dies.
    Raises AlreadyRunning, and StartError where the directory cannot be used."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StartError(f"runtime directory {directory}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another relay-maar holds {directory}") from None
        yield
    finally:
        os.close(descriptor)


def advertised_mtus(config: Config) -> dict[str, int]:
    """The MTU to advertise on each access interface: what the operator said, else the largest that needs no
    fragmentation. Raises StartError for one that does not fit the link or, with the outer header on it, the core."""
    fits = _mtu(config.core_interface) - OVERHEAD
    if fits < MINIMUM_MTU:
        raise StartError(
            f"core interface {config.core_interface} has MTU {fits + OVERHEAD}: a tunnel needs "
            f"{MINIMUM_MTU + OVERHEAD} (RFC 8200 section 5, and the outer header)"
        )
    mtus = {}
    for link in config.access:
        largest = min(_mtu(link.interface), fits)
        if largest < MINIMUM_MTU:
            raise StartError(
                f"access interface {link.interface} has MTU {largest}: too small for IPv6"
            )
        if link.mtu is not None and link.mtu > largest:
            raise StartError(
                f"access interface {link.interface}: mtu = {link.mtu} does not fit, {largest} is the most: "
                f"its own MTU, or that of {config.core_interface} less {OVERHEAD} for the tunnel"
            )
        mtus[link.interface] = link.mtu or largest
    return mtus


def _mtu(interface: str) -> int:
    try:
        return mtu(interface)
    except OSError:
        raise StartError(f"interface {interface} does not exist") from None


def check(config: Config) -> None:
    """Whether this host has what `config` names, as far as that shows without a start.
    Raises StartError or DriverUnavailable, and ConfigError for keys that cannot be read."""
    config.authentication()
    open_driver(config.driver, config.southbound()).close(keep=True)
    links = [("core", config.core_interface)]
    links += [("access", link.interface) for link in config.access]
    for kind, interface in links:
        try:
            socket.if_nametoindex(interface)
        except OSError:
            raise StartError(f"{kind} interface {interface} does not exist") from None
    advertised_mtus(config)


def remove_leftovers(config: Config) -> None:
    """Put the kernel back as it was before a daemon that is no longer there (kill -9).
    Raises StartError or DriverUnavailable."""
    with hold(Path(config.runtime_directory)):
        # Not opened: an interface that has gone meanwhile must not keep the rest from being removed.
        open_driver(config.driver, config.southbound()).close(keep=False)


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), when it asked."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if state == "RELOADING=1":
        state = f"{state}\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
