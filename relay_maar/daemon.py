"""The shell around the core: it reads sockets, calls the agent, runs the actions that come out, in order.

Nothing is decided here. What must survive a kill is written before it is said; what the kernel refused goes back to
the core.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import os
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmm_wire.mobility import encode as encode_mobility
from relay_maar import host
from relay_maar.config import Config, ConfigError, load
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import Change, Key
from relay_maar.io.control import ControlServer
from relay_maar.io.session_file import SessionFile
from relay_maar.io.sockets import (
    ClientSocket,
    FrameSocket,
    LinkLayers,
    MobilitySocket,
    RouterSocket,
    ServerSocket,
)
from relay_maar.southbound.api import (
    AccessDevice,
    DriverUnavailable,
    Southbound,
    SouthboundError,
)
from relay_maar.southbound.registry import open_driver

log = logging.getLogger("relay-maar")

_BURST = 256
"""Datagrams read from one socket before the others get their turn."""
_ALL_FRAMES = 65_536
"""More frames than wait on a socket."""
SESSION_FILE = "sessions.jsonl"
_REPAIR_PAUSE = 2.0
"""Seconds until a session file that could not be written is tried again; the next change of a session tries it too."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def now() -> float:
    """Seconds that never jump and count while the machine sleeps: lifetimes do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Access:
    """The sockets of one access link."""

    def __init__(self, device: AccessDevice) -> None:
        self.interface = device.interface
        with contextlib.ExitStack() as undo:
            self.frames = FrameSocket(device.device)
            undo.callback(self.frames.close)
            self.client = ClientSocket(device.device, device.index)
            undo.callback(self.client.close)
            self.router = RouterSocket(device.device, device.index, device.link_local)
            undo.pop_all()

    def close(self) -> None:
        for sock in (self.frames, self.client, self.router):
            sock.close()


class Daemon:
    """One MAAR, from start to stop. `run` returns True when it wants to be started anew in place (SIGHUP)."""

    def __init__(self, config: Config, config_path: Path, driver: Southbound | None = None) -> None:
        self._config = config
        self._config_path = config_path
        self._runtime = Path(config.runtime_directory)
        self._southbound = driver
        self._link_layers = LinkLayers()
        self._counters: Counter[str] = Counter()
        self._queue: deque[act.Action] = deque()
        self._disk_failed = False
        self._repair: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._finished: asyncio.Future[tuple[bool, bool]] | None = None
        self._access: dict[str, Access] = {}

    async def run(self) -> bool:
        """Start, serve until told to stop, stop. Raises StartError or DriverUnavailable at start."""
        loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._finish, False, False)
        loop.add_signal_handler(signal.SIGHUP, self._restart)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        with contextlib.ExitStack() as closing:
            closing.enter_context(host.hold(self._runtime))
            driver = self._southbound or open_driver(self._config.driver, self._config.southbound())
            self._southbound = driver
            # A start that fails leaves the kernel as it found it: clean, or with what an earlier process left there.
            keep = bool(driver.dump())
            closing.callback(lambda: driver.close(keep=keep))
            devices = driver.open()
            self._open_sockets(devices, closing)
            self._sessions = SessionFile(
                Path(self._config.state_directory) / SESSION_FILE, time.time
            )
            records = self._load_sessions()
            closing.callback(self._sessions.close)
            settings = self._config.agent(
                {device.interface: device.link_layer for device in devices}
            )
            self._agent = Agent(settings, jitter=random.random)
            control = ControlServer(self._runtime, self._control)
            closing.callback(control.close)
            try:
                await control.open()
            except OSError as error:
                raise host.StartError(f"control socket in {self._runtime}: {error}") from None
            self._call(self._agent.start, driver.dump(), records)
            self._watch(loop, closing)
            log.info(
                "%s serves %s with driver %s",
                settings.name,
                ", ".join(sorted(self._access)),
                driver.name,
            )
            host.notify("READY=1")
            keep, again = await self._finished
            host.notify("RELOADING=1" if again else "STOPPING=1")
            self._call(functools.partial(self._agent.stop, keep=keep))
            for timer in (self._timer, self._repair):
                if timer is not None:
                    timer.cancel()
            if again:
                # Until the process that takes our place handles them: a stop must not find nobody who cleans up.
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        log.info("stopped%s", ", kernel state kept" if keep else "")
        return again

    # --- sockets in ---

    def _open_sockets(self, devices: Iterable[AccessDevice], closing: contextlib.ExitStack) -> None:
        try:
            self._server = ServerSocket(self._config.endpoint, self._config.core_interface)
            closing.callback(self._server.close)
            self._mobility = MobilitySocket(self._config.endpoint, self._config.core_interface)
            closing.callback(self._mobility.close)
            for device in devices:
                self._access[device.interface] = Access(device)
                closing.callback(self._access[device.interface].close)
        except OSError as error:
            hint = (
                " (another relay agent or DHCPv6 server?)"
                if error.errno == errno.EADDRINUSE
                else ""
            )
            raise host.StartError(f"cannot open the sockets: {error.strerror}{hint}") from None

    def _load_sessions(self) -> list[dict[str, Any]]:
        try:
            return [{**record, "age": age} for record, age in self._sessions.load()]
        except OSError as error:
            raise host.StartError(
                f"session file in {self._config.state_directory}: {error.strerror}"
            ) from None

    def _watch(self, loop: asyncio.AbstractEventLoop, closing: contextlib.ExitStack) -> None:
        readers: list[tuple[int, Callable[[], None]]] = [
            (self._server.fileno(), self._read_server),
            (self._mobility.fileno(), self._read_mobility),
        ]
        for access in self._access.values():
            readers.append((access.frames.fileno(), functools.partial(self._read_frames, access)))
            readers.append((access.client.fileno(), functools.partial(self._read_client, access)))
            readers.append((access.router.fileno(), functools.partial(self._read_router, access)))
        for descriptor, reader in readers:
            loop.add_reader(descriptor, reader)
            closing.callback(loop.remove_reader, descriptor)

    def _read_server(self) -> None:
        for _ in range(_BURST):
            if (received := self._server.receive()) is None:
                return
            self._call(self._agent.server_datagram, received.source, received.data)

    def _read_mobility(self) -> None:
        for _ in range(_BURST):
            if (received := self._mobility.receive()) is None:
                return
            self._call(self._agent.mobility_datagram, received.source, received.data)

    def _read_frames(self, access: Access, most: int = _BURST) -> None:
        for _ in range(most):
            if (frame := access.frames.receive()) is None:
                return
            self._link_layers.learn(access.interface, frame.source, frame.link_layer)
            if frame.trigger != "dhcpv6" and frame.trigger != "rs":
                self._call(
                    self._agent.seen,
                    access.interface,
                    frame.source,
                    frame.link_layer,
                    frame.trigger,
                )

    def _read_client(self, access: Access) -> None:
        # The frame of each datagram is on the frame socket before the datagram is here: learn who sent it first.
        self._read_frames(access, _ALL_FRAMES)
        for _ in range(_BURST):
            if (received := access.client.receive()) is None:
                return
            link_layer = self._link_layers.of(access.interface, received.source)
            self._call(
                self._agent.client_datagram,
                access.interface,
                received.source,
                link_layer,
                received.data,
            )

    def _read_router(self, access: Access) -> None:
        self._read_frames(access)
        for _ in range(_BURST):
            if (received := access.router.receive()) is None:
                return
            link_layer = self._link_layers.of(access.interface, received.source)
            self._call(
                self._agent.router_solicitation, access.interface, received.source, link_layer
            )

    # --- the core, and what it wants done ---

    def _call(self, method: Callable[..., list[act.Action]], *arguments: object) -> None:
        """Ask the core, run what comes out. A fault of ours costs the one event or action it met, not the service."""
        with self._survive():
            self._queue.extend(method(*arguments, now=now()))
        while self._queue:
            with self._survive():
                self._perform(self._queue.popleft())
        self._set_timer()

    @contextlib.contextmanager
    def _survive(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._counters["internal-error"] += 1
            log.exception("internal error; the service goes on without what it met")

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.Apply(token, changes):
                failures = self._apply(changes)
                # What waited for the kernel comes before what the core listed after it.
                self._queue.extendleft(reversed(self._agent.applied(token, failures, now=now())))
            case act.SaveSession(identity, record):
                self._store(lambda: self._sessions.save(str(identity), record))
            case act.ForgetSession(identity):
                self._store(lambda: self._sessions.forget(str(identity)))
            case act.SendToServers(data):
                for server in self._config.servers:
                    self._send("server", lambda to=server: self._server.send(to, data))  # type: ignore[misc]
            case act.SendToClient(interface, destination, port, data):
                self._send(
                    "client", lambda: self._access[interface].client.send(destination, port, data)
                )
            case act.SendMobility(destination, message):
                header = encode_mobility(message, self._config.endpoint, destination)
                self._send("peer", lambda: self._mobility.send(destination, header))
            case act.SendRouterAdvertisement(interface, destination, data):
                self._send("ra", lambda: self._access[interface].router.send(destination, data))
            case act.Log(level, line):
                log.log(logging.getLevelNamesMapping()[level.upper()], "%s", line)

    def _apply(self, changes: Sequence[Change]) -> Mapping[Key, str]:
        """Returns what the kernel refused, and why. The core needs an answer, or what waits for it waits for ever."""
        assert self._southbound is not None
        # Unless the driver says which: nobody knows what was done, so all of it is to be done again.
        failures = {change.item.key: "internal error" for change in changes}
        with self._survive():
            try:
                self._southbound.apply(changes)
                failures = {}
            except SouthboundError as error:
                failures = {change.item.key: reason for change, reason in error.failures}
        return failures

    def _send(self, what: str, send: Callable[[], None]) -> None:
        try:
            send()
        except OSError as error:
            # As good as lost on the way: whoever waits for it asks again.
            self._counters[f"send-{what}-{errno.errorcode.get(error.errno or 0, 'error')}"] += 1

    def _store(self, write: Callable[[], None]) -> None:
        """A full disk must not stop a router: the fault is logged once and counted, the service goes on, and the file
        is written whole as soon as the disk lets it."""
        try:
            write()
        except OSError as error:
            self._counters["session-file-error"] += 1
            if not self._disk_failed:
                log.error(
                    "session file: %s; a restart now would forget what is not in it", error.strerror
                )
            self._disk_failed = True
            if self._repair is None:
                self._repair = asyncio.get_running_loop().call_later(_REPAIR_PAUSE, self._mend_file)
        else:
            if self._disk_failed:
                log.warning("session file: written again, nothing is missing")
            self._disk_failed = False

    def _mend_file(self) -> None:
        self._repair = None
        self._store(self._sessions.mend)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._agent.deadline()
        if deadline is not None and self._finished is not None and not self._finished.done():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, deadline - now()), self._call, self._agent.tick)

    # --- control ---

    def _control(self, command: str) -> dict[str, Any]:
        match command:
            case "status":
                status = self._agent.status(now=now())
                counters = Counter(status.get("counters", {}))
                counters.update(self._counters)
                assert self._southbound is not None
                return {
                    **status,
                    "driver": self._southbound.name,
                    "counters": dict(sorted(counters.items())),
                }
            case "stop":
                self._finish(False, False)
            case "stop-keep":
                self._finish(True, False)
            case "restart":
                if (fault := self._restart()) is not None:
                    return {"error": fault}
            case _:
                return {"error": f"unknown command {command!r}"}
        return {"pid": os.getpid()}

    def _restart(self) -> str | None:
        """Restart in place, with the kernel's state kept; a bad configuration leaves the running daemon alone."""
        try:
            config = load(self._config_path)
            host.check(config)
        except ConfigError as error:
            lines = error.lines
        except (host.StartError, DriverUnavailable) as error:
            lines = [str(error)]
        else:
            self._finish(True, True)
            return None
        for line in lines:
            log.error("not restarted: %s", line)
        return lines[0]

    def _finish(self, keep: bool, again: bool) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_result((keep, again))
