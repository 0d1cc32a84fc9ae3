"""The links of the MAAR: the sockets on each of them, and what becomes of these as interfaces come and go."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias

from dmm_wire.router_identity import RouterIdentity
from relay_maar.config import Config
from relay_maar.io.frames import FrameSocket, StrangerSocket
from relay_maar.io.sockets import (
    ClientSocket,
    MobilitySocket,
    RouterSocket,
    ServerSocket,
    Socket,
)
from relay_maar.southbound.api import AccessDevice, State

log = logging.getLogger("relay-maar")

_SIOCGIFFLAGS = 0x8913
_SIOCGIFMTU = 0x8921
_IFREQ = struct.Struct("=16sI20x")
_IFF_RUNNING = 0x40


class Core:
    """The sockets on the core interface. Raises OSError where they cannot be opened."""

    def __init__(self, endpoint: bytes, interface: str) -> None:
        # First: if it is another interface before the sockets are open, they are opened once more.
        self.index = socket.if_nametoindex(interface)
        self.server = ServerSocket(endpoint, interface)
        try:
            self.mobility = MobilitySocket(endpoint, interface)
        except OSError:
            self.server.close()
            raise
        self.sockets: tuple[Socket, ...] = (self.server, self.mobility)


class Access:
    """The sockets of one access link. Raises OSError where they cannot be opened."""

    def __init__(self, device: AccessDevice, *, dlif: bool = False) -> None:
        self.device = device
        self.interface = device.interface
        router = RouterIdentity(device.link_local, device.link_layer)
        # A node that comes sends to the routers that it knows, which are not here yet.
        heard = device.interface if dlif else device.device
        with contextlib.ExitStack() as undo:
            self.frames = FrameSocket(heard, router, whole=dlif)
            undo.callback(self.frames.close)
            self.strangers = StrangerSocket(heard, whole=dlif)
            undo.callback(self.strangers.close)
            self.client = ClientSocket(device.device, device.index)
            undo.callback(self.client.close)
            self.router = RouterSocket(device.device, device.index, device.link_local)
            undo.pop_all()
        self.sockets: tuple[Socket, ...] = (self.frames, self.strangers, self.client, self.router)


Link: TypeAlias = Core | Access
Readers: TypeAlias = Mapping[Socket, Callable[[], None]]


class Links:
    """The MAAR's links, as their interfaces come and go. `readers` says who reads a link's sockets."""

    def __init__(
        self, config: Config, counters: Counter[str], readers: Callable[[Link], Readers]
    ) -> None:
        self._config = config
        self._counters = counters
        self._readers = readers
        self._core: Core | None = None
        self._access: dict[str, Access] = {}
        self._quiet: dict[str, frozenset[bytes] | None] = {}
        self._faults: tuple[str, ...] = ()

    def open(self, devices: Iterable[AccessDevice]) -> None:
        """Raises OSError; what was opened by then is for `close`."""
        self._core = Core(self._config.endpoint, self._config.core_interface)
        for device in devices:
            self._access[device.interface] = Access(device, dlif=self._config.identity is not None)

    def listen(self) -> None:
        """Read what arrives, from now on."""
        for link in self._all():
            self._listen(link)

    def close(self) -> None:
        """Idempotent."""
        for link in self._all():
            _close(link)
        self._core = None
        self._access.clear()

    @property
    def core(self) -> Core:
        """Raises OSError where there is none."""
        if self._core is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return self._core

    def access(self, interface: str) -> Access:
        """Raises OSError where it is gone."""
        if interface not in self._access:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return self._access[interface]

    def watch(self, interface: str, quiet: frozenset[bytes] | None) -> None:
        """See packets on this link of all but the `quiet`, also when it has gone and come back; None: of nobody."""
        self._quiet[interface] = quiet
        access = self._access.get(interface)
        if access is not None:
            self._watch(access)

    def _watch(self, access: Access) -> None:
        quiet = self._quiet.get(access.interface)
        if not access.strangers.watch(quiet, self._config.attach.sources):
            self._counters["attach.filter-refused"] += 1

    def rest(self, link: Link, sock: Socket, seconds: float) -> None:
        """Read this socket of a link again after so many seconds."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock.fileno())
        loop.call_later(seconds, self._resume, link, sock)

    def _resume(self, link: Link, sock: Socket) -> None:
        if any(each is link for each in self._all()):
            asyncio.get_running_loop().add_reader(sock.fileno(), self._readers(link)[sock])

    def status(self) -> dict[str, str]:
        """How each interface is: "up", "down" or "gone"."""
        core = self._config.core_interface
        states: dict[str, str] = {core: _link_state(core)}
        for table in self._config.access:
            access = self._access.get(table.interface)
            states[table.interface] = (
                "gone" if access is None else _link_state(access.device.device)
            )
        return states

    def follow(self, state: State) -> bool:
        """Let go of what is gone, open what is back. Returns whether that went well."""
        for interface, access in list(self._access.items()):
            if access.device not in state.access:
                _close(self._access.pop(interface))
                self._tell("access.lost", f"access link {interface} is gone")
        core = self._config.core_interface
        if self._core is not None and self._core.index != state.core_index:
            _close(self._core)
            self._core = None
            self._tell("core.lost", f"core interface {core} is gone")
        good = not state.faults
        if self._core is None and state.core_index:
            good = self._reopen("core", f"core interface {core}", self._open_core) and good
        for device in state.access:
            if device.interface not in self._access:
                what = f"access link {device.interface}"
                opened = self._reopen("access", what, functools.partial(self._open_access, device))
                good = opened and good
        if state.faults != self._faults:
            for fault in state.faults:
                log.error("%s", fault)
        self._faults = state.faults
        return good

    def _open_core(self) -> Link:
        self._core = Core(self._config.endpoint, self._config.core_interface)
        return self._core

    def _open_access(self, device: AccessDevice) -> Link:
        access = self._access[device.interface] = Access(
            device, dlif=self._config.identity is not None
        )
        self._watch(access)
        return access

    def _reopen(self, kind: str, what: str, opened: Callable[[], Link]) -> bool:
        try:
            self._listen(opened())
        except OSError as error:
            self._tell(f"{kind}.unopened", f"{what}: cannot open the sockets: {error.strerror}")
            return False
        self._tell(f"{kind}.back", f"{what} is back")
        return True

    def _tell(self, counter: str, line: str) -> None:
        self._counters[counter] += 1
        log.warning("%s", line)

    def _all(self) -> list[Link]:
        core = [] if self._core is None else [self._core]
        return [*core, *self._access.values()]

    def _listen(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        for sock, reader in self._readers(link).items():
            loop.add_reader(sock.fileno(), reader)


def _close(link: Link) -> None:
    loop = asyncio.get_running_loop()
    for sock in link.sockets:
        loop.remove_reader(sock.fileno())
        sock.close()


def _link_state(interface: str) -> Literal["up", "down", "gone"]:
    """Whether packets can pass an interface: "down" without carrier too."""
    try:
        flags = _ask(interface, _SIOCGIFFLAGS) & 0xFFFF
    except OSError:
        return "gone"
    return "up" if flags & _IFF_RUNNING else "down"


def mtu(interface: str) -> int:
    """The MTU of an interface, octets. Raises OSError where there is none of that name."""
    return _ask(interface, _SIOCGIFMTU)


def _ask(interface: str, request: int) -> int:
    """An ioctl of netdevice(7): the first word of the answer."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        answer = fcntl.ioctl(sock, request, _IFREQ.pack(interface.encode(), 0) + bytes(8))
    return int(_IFREQ.unpack_from(answer)[1])
