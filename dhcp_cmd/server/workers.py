"""The parent of several workers: it opens the listeners, reads the configuration, forks and watches; it serves nothing
itself, and has no database and no threads."""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from dhcp_cmd.build import build
from dhcp_cmd.core.inquire import LANES
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.plugin import counters
from dhcp_cmd.plugin.config import ConfigError
from dhcp_cmd.server.configuration import reread, settle
from dhcp_cmd.server.loop import Limits, Share
from dhcp_cmd.server.notify import notify, reloading
from dhcp_cmd.server.outage import Outage
from dhcp_cmd.server.plan import Plan
from dhcp_cmd.server.signals import signals
from dhcp_cmd.server.sockets import Listener, ListenerError, open_listeners
from dhcp_cmd.server.supervision import (
    Action,
    Complete,
    End,
    Fork,
    Kill,
    Leave,
    Report,
    Stop,
    Supervision,
)
from dhcp_cmd.server.worker import (
    FAILS,
    GAVE_UP,
    LOG,
    OURS,
    SERVES,
    WORKS,
    Channel,
    channel,
    record,
    work,
)

_log = logging.getLogger(__name__)


class WorkersFailed(Exception):
    """The workers could not start: one line."""


@dataclass(slots=True)
class _Child:
    pid: int
    channel: Channel
    reason: str | None = None
    """Why it gave up."""


class Workers:
    """Several processes that serve one plan's listeners, which are open already."""

    def __init__(
        self,
        path: str,
        plan: Plan,
        listeners: list[Listener],
        limits: Limits,
        log_level: int | None,
    ) -> None:
        self.path = path
        self.plan = plan
        self.stopping = False
        self._listeners = listeners
        self._limits = limits
        self._log_level = log_level
        self._lane = secrets.randbelow(LANES)
        self._outage = Outage()
        self._supervision = Supervision(plan.processes())
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Child] = {}
        self._ended: End | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again. Raises WorkersFailed."""
        with signals(self, {signal.SIGHUP: self._reload}):
            settle()
            self._do(self._supervision.proceed(time.monotonic()))
            while self._ended is None:
                self._turn()
        if self._ended.error is not None:
            raise WorkersFailed(self._ended.error)
        _log.info("dhcp-cmd serve stops")

    def wake_on(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call `call` when there is something to read from `descriptor`."""
        self._selector.register(descriptor, selectors.EVENT_READ, call)

    def close(self) -> None:
        """Close the sockets. A worker that is there yet leaves."""
        self._selector.close()
        for child in self._children.values():
            child.channel.close()
        for listener in self._listeners:
            listener.close()

    def _turn(self) -> None:
        now = time.monotonic()
        wake = self._supervision.wake(now)
        idle = None if wake is None else max(0.0, wake - now)
        ready = self._selector.select(idle)
        if self.stopping:  # before anything else: the workers may have been told, too
            self.stopping = False
            notify("STOPPING=1")
            self._do(self._supervision.stop(time.monotonic()))
        for key, _ in ready:
            key.data()
        self._do(self._supervision.proceed(time.monotonic()))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Fork(seat):
                    self._fork(seat)
                case Leave(pid):
                    self._children[pid].channel.leave()
                case Stop(pid):
                    os.kill(pid, signal.SIGTERM)
                case Kill(pid):
                    os.kill(pid, signal.SIGKILL)
                case Report(text):
                    _log.error("%s", text)
                case Complete(first):
                    self._complete(first)
                case End():
                    self._ended = action

    def _complete(self, first: bool) -> None:
        if first:
            _log.info(
                "dhcp-cmd serve (%s, %d workers) is ready to handle requests",
                build(),
                self._supervision.number,
            )
        else:
            _log.info("the configuration was read again")
        notify("READY=1")

    # --- workers ---

    def _fork(self, seat: int) -> None:
        try:
            ours, its = channel()
        except OSError as error:
            self._do(self._supervision.unforked(seat, str(error), time.monotonic()))
            return
        # A signal that comes before the worker has handlers of its own would be the parent's to it.
        signal.pthread_sigmask(signal.SIG_BLOCK, OURS)
        try:
            server = os.getpid()
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._be_worker(seat, server, its)
        except OSError as error:
            ours.close()
            self._do(self._supervision.unforked(seat, str(error), time.monotonic()))
            return
        finally:
            its.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)
        child = _Child(pid, ours)
        self._children[pid] = child
        self.wake_on(ours.fileno(), lambda: self._hear(child))
        self._do(self._supervision.forked(seat, pid, time.monotonic()))

    def _be_worker(self, seat: int, server: int, parent: Channel) -> NoReturn:
        """The rest of a worker's life. It never returns: what is above it on the stack is the parent's."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            for child in self._children.values():
                child.channel.close()
            multiprocessing.current_process().name = f"Worker-{seat}"  # for the log's format
            counters.start(self.plan.status_directory, server)
            share = Share(seat, self._supervision.number)
            status = work(self.plan, self._listeners, self._limits, share, self._lane, parent)
        except BaseException as error:
            _log.critical("a worker ends by a fault of ours: %r", error, exc_info=error)
        finally:
            try:
                counters.stop()
            finally:
                os._exit(status)

    def _hear(self, child: _Child) -> None:
        while said := child.channel.hear():
            match said:
                case [str(what)] if what == SERVES:
                    self._do(self._supervision.serves(child.pid, time.monotonic()))
                case [str(what), str(reason)] if what == GAVE_UP:
                    child.reason = reason
                case [str(what), float(moment), str(error), int(unanswered)] if what == FAILS:
                    self._outage.fails(moment, error, unanswered)
                case [str(what)] if what == WORKS:
                    self._outage.works()
                case [str(what), *words] if what == LOG:
                    heard = record(*words)
                    logging.getLogger(heard.name).handle(heard)
        if said is None:
            self._bury(child)

    def _bury(self, child: _Child) -> None:
        self._selector.unregister(child.channel)
        child.channel.close()
        del self._children[child.pid]
        _, waited = os.waitpid(child.pid, 0)
        status = os.waitstatus_to_exitcode(waited)
        self._do(self._supervision.died(child.pid, status, child.reason, time.monotonic()))

    # --- the configuration ---

    def _reload(self) -> None:
        """Read the configuration again, and replace the workers; nothing changes where it cannot be used."""
        reloading()
        try:
            plan = reread(self.path, self.plan)
            listeners, unused = open_listeners(plan.listeners, self._listeners)
        except (ConfigError, ListenerError, StoreError) as error:
            _log.error("not reloading: %s", error)
            notify("READY=1")
            return
        for listener in unused:
            listener.close()  # here; who still serves it has it open
        self.plan, self._listeners = plan, listeners
        plan.configure_logging(self._log_level)
        settle()
        self._do(self._supervision.reload(plan.processes(), time.monotonic()))
