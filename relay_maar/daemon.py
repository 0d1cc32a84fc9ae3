"""The shell around the core: it reads sockets, asks the agent, and has run what comes out.

Nothing is decided here. All that waits on a socket is read, then all that it leads to is done: see
:mod:`relay_maar.io.runner`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dmm_wire.address import parse_mac
from dmm_wire.errors import WireError
from dmm_wire.timestamp import from_micros
from relay_maar import host
from relay_maar.config import Config, ConfigError, load
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.noticed import may_be_a_nodes
from relay_maar.io.control import ControlServer
from relay_maar.io.errors import ErrorRelay
from relay_maar.io.frames import LinkLayers
from relay_maar.io.links import Access, Core, Link, Links, Readers
from relay_maar.io.runner import Runner
from relay_maar.io.storage import Storage
from relay_maar.io.watch import KernelWatch
from relay_maar.southbound.api import AccessDevice, DriverUnavailable, Southbound
from relay_maar.southbound.registry import open_driver

log = logging.getLogger("relay-maar")

_T_co = TypeVar("_T_co", covariant=True)

_BURST = 256
"""Datagrams read from one socket, and done with, before the others get their turn."""
_ALL_FRAMES = 65_536
"""More frames than wait on a socket."""
_COLLECT = 50_000
"""New objects until Python looks for cycles among them."""
_FEW = 32
_BREATH = 0.01
"""Packets of unknown hosts that are read from one link at once, and seconds until the next ones: at most some thousand
a second, whatever a host sends."""
SESSION_FILE = "sessions.jsonl"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def now() -> float:
    """Seconds that never jump and count while the machine sleeps: lifetimes do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def timestamp(_: float) -> int:
    """The time of day as PMIPv6 has it (RFC 5213 section 8.8)."""
    return from_micros(time.time_ns() // 1000)


class _Source(Protocol[_T_co]):
    """A socket that is read until it is empty."""

    def receive(self) -> _T_co | None: ...

    def holds_more(self) -> bool: ...


def _waiting(source: _Source[_T_co], most: int = _BURST) -> list[_T_co]:
    """What is there already, up to so many."""
    found: list[_T_co] = []
    while len(found) < most and (each := source.receive()) is not None:
        found.append(each)
        if not source.holds_more():
            break
    return found


class Daemon:
    """One MAAR, from start to stop. `run` returns True when it wants to be started anew in place (SIGHUP)."""

    def __init__(self, config: Config, config_path: Path, driver: Southbound | None = None) -> None:
        self._config = config
        self._config_path = config_path
        self._runtime = Path(config.runtime_directory)
        self._southbound = driver
        self._link_layers = LinkLayers()
        self._counters: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._finished: asyncio.Future[tuple[bool, bool]] | None = None
        self._links = Links(config, self._counters, self._readers)

    async def run(self) -> bool:
        """Start, serve until told to stop, stop. At the start, raises StartError or DriverUnavailable, and ConfigError
        for keys that cannot be read."""
        self._config.authentication()
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
            # Before the kernel is read: what is lost from here on is noticed.
            driver.watch()
            closing.callback(self._links.close)
            self._open_sockets(devices)
            self._storage = Storage(
                Path(self._config.state_directory) / SESSION_FILE, self._counters
            )
            closing.callback(self._storage.close)
            records = self._load_sessions()
            settings = self._config.agent(
                {device.interface: device.link_layer for device in devices},
                host.advertised_mtus(self._config),
            )
            agent = Agent(
                settings, jitter=random.random, epoch=time.time() - now(), clock=timestamp
            )
            self._work_for(agent, driver)
            # What a session is made of makes no cycles: few are worth looking for among thousands of objects.
            gc.set_threshold(_COLLECT)
            control = ControlServer(self._runtime, self._control)
            closing.callback(control.close)
            try:
                control.open()
            except OSError as error:
                raise host.StartError(f"control socket in {self._runtime}: {error}") from None
            self._call(self._agent.start, driver.dump(), records)
            self._links.listen()
            closing.callback(KernelWatch(loop, driver, self._compare).close)
            closing.callback(ErrorRelay(loop, driver, self._counters).close)
            log.info(
                "%s serves %s with driver %s",
                settings.name,
                ", ".join(sorted(link.interface for link in settings.access)),
                driver.name,
            )
            host.notify("READY=1")
            keep, again = await self._finished
            host.notify("RELOADING=1" if again else "STOPPING=1")
            self._call(functools.partial(self._agent.stop, keep=keep))
            if self._timer is not None:
                self._timer.cancel()
            if again:
                # Until the process that takes our place handles them: a stop must not find nobody who cleans up.
                signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        log.info("stopped%s", ", kernel state kept" if keep else "")
        return again

    def _work_for(self, agent: Agent, driver: Southbound) -> None:
        self._agent = agent
        servers = self._config.servers
        self._runner = Runner(
            agent, driver, self._storage.write, self._links, servers, self._counters, now
        )

    # --- sockets in ---

    def _open_sockets(self, devices: Iterable[AccessDevice]) -> None:
        try:
            self._links.open(devices)
        except OSError as error:
            hint = (
                " (another relay agent or DHCPv6 server?)"
                if error.errno == errno.EADDRINUSE
                else ""
            )
            raise host.StartError(f"cannot open the sockets: {error.strerror}{hint}") from None

    def _load_sessions(self) -> list[dict[str, Any]]:
        try:
            return self._storage.load()
        except OSError as error:
            raise host.StartError(
                f"session file in {self._config.state_directory}: {error.strerror}"
            ) from None

    def _readers(self, link: Link) -> Readers:
        match link:
            case Core():
                return {
                    link.server: functools.partial(self._read_server, link),
                    link.mobility: functools.partial(self._read_mobility, link),
                }
            case Access():
                return {
                    link.frames: functools.partial(self._read_frames, link),
                    link.strangers: functools.partial(self._read_strangers, link),
                    link.client: functools.partial(self._read_client, link),
                    link.router: functools.partial(self._read_router, link),
                }

    def _read_server(self, core: Core) -> None:
        for received in _waiting(core.server):
            self._ask(self._agent.server_datagram, received.source, received.data)
        self._settle()

    def _read_mobility(self, core: Core) -> None:
        for received in _waiting(core.mobility):
            self._ask(self._agent.mobility_datagram, received.source, received.data)
        self._settle()

    def _read_frames(self, access: Access) -> None:
        self._take_frames(access, _BURST)
        self._settle()

    def _take_frames(self, access: Access, most: int) -> None:
        for frame in _waiting(access.frames, most):
            self._link_layers.learn(access.interface, frame)
            # Of these the message tells who it was, too; a solicitation of one that has no address yet does not.
            told = frame.trigger == "dhcpv6" or (frame.trigger == "rs" and any(frame.source))
            if not told:
                self._ask(
                    functools.partial(self._agent.seen, target=frame.target),
                    access.interface,
                    frame.source,
                    frame.link_layer,
                    frame.trigger,
                )

    def _read_strangers(self, access: Access) -> None:
        frames = _waiting(access.strangers, _FEW)
        for frame in frames:
            self._ask(
                self._agent.seen, access.interface, frame.source, frame.link_layer, frame.trigger
            )
        self._settle()
        if len(frames) < _FEW:
            return
        # Who sends so many is either known by now or makes addresses up: the rest can wait, and be lost.
        self._counters["attach.packets-paused"] += 1
        self._links.rest(access, access.strangers, _BREATH)

    def _read_client(self, access: Access) -> None:
        # The frame of each datagram is on the frame socket before the datagram is here: who sent it is learnt first.
        datagrams = _waiting(access.client)
        self._take_frames(access, _ALL_FRAMES)
        for received in datagrams:
            transaction = received.data[1:4]
            link_layer = self._link_layers.of(access.interface, received.source, transaction)
            self._ask(
                self._agent.client_datagram,
                access.interface,
                received.source,
                link_layer,
                received.data,
            )
        self._settle()

    def _read_router(self, access: Access) -> None:
        solicitations = _waiting(access.router)
        self._take_frames(access, _ALL_FRAMES)
        for received in solicitations:
            if received.hop_limit != 255:
                # From elsewhere than this link (RFC 4861 section 6.1.1).
                self._counters["rs.hop-limit"] += 1
                continue
            link_layer = self._link_layers.of(access.interface, received.source)
            self._ask(
                self._agent.router_solicitation,
                access.interface,
                received.source,
                link_layer,
                received.data,
            )
        self._settle()

    # --- the core, and what it wants done ---

    def _ask(self, method: Callable[..., list[act.Action]], *arguments: object) -> None:
        """Ask the core; what comes out waits for `_settle`. A fault of ours costs the one event it met."""
        try:
            self._runner.add(method(*arguments, now=now()))
        except Exception as error:
            self._runner.fault(error)

    def _settle(self) -> None:
        """Run what waits: of all that was read in one go, in one go."""
        self._runner.run()
        self._set_timer()

    def _call(self, method: Callable[..., list[act.Action]], *arguments: object) -> None:
        self._ask(method, *arguments)
        self._settle()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._agent.deadline()
        if deadline is not None and self._finished is not None and not self._finished.done():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, deadline - now()), self._call, self._agent.tick)

    # --- what others do to the kernel ---

    def _compare(self) -> bool:
        """Whether all is as it should be now, as far as this can do something about it."""
        good = False
        with self._runner.survive():
            good = self._follow_kernel()
        return good

    def _follow_kernel(self) -> bool:
        """Find out what the kernel holds, follow the links that come and go, and tell the core."""
        assert self._southbound is not None
        try:
            state = self._southbound.restore()
        except DriverUnavailable as unavailable:
            self._counters["kernel.unread"] += 1
            log.error("the kernel's state cannot be read: %s", unavailable)
            return False
        if state.repaired:
            self._counters["kernel.repaired"] += state.repaired
            log.warning("%d of our own routes and rules were put again", state.repaired)
        good = self._links.follow(state)
        self._call(self._agent.kernel_changed, state.items)
        return good

    # --- control ---

    def _control(self, command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        match command:
            case "status":
                status = self._agent.status(now=now())
                counters = Counter(status.get("counters", {}))
                counters.update(self._counters)
                assert self._southbound is not None
                for reason, count in self._southbound.drops().items():
                    counters[f"filter.{reason}"] += count
                return {
                    **status,
                    "driver": self._southbound.name,
                    "links": self._links.status(),
                    "counters": dict(sorted(counters.items())),
                }
            case "attach" | "detach":
                if (fault := self._hook(command, arguments)) is not None:
                    return {"error": fault}
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

    def _hook(self, command: str, arguments: Mapping[str, Any]) -> str | None:
        """What an access point says of a node. Returns what is wrong with it."""
        interface, text = str(arguments.get("interface")), str(arguments.get("link-layer"))
        if interface not in [link.interface for link in self._config.access]:
            return f"{interface!r} is no access interface of this MAAR"
        try:
            link_layer = parse_mac(text)
        except WireError:
            return f"not a link-layer address: {text!r}"
        if not may_be_a_nodes(link_layer):
            return f"not the link-layer address of one node: {text!r}"
        hook = self._agent.attached if command == "attach" else self._agent.detached
        self._call(hook, interface, link_layer)
        return None

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
