"""`dhcp-cmd serve`: start, reload, stop."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dhcp_cmd.build import build
from dhcp_cmd.core.inquire import LANES
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.plugin import counters
from dhcp_cmd.plugin.compile import read_plan
from dhcp_cmd.plugin.config import ConfigError
from dhcp_cmd.pmip.sockets import MobilitySocket
from dhcp_cmd.server.loop import Limits, Loop, drain_pipe
from dhcp_cmd.server.notify import notify, reloading
from dhcp_cmd.server.plan import Account, Plan
from dhcp_cmd.server.responder import Responder
from dhcp_cmd.server.signalling import Signalling
from dhcp_cmd.server.sockets import ListenerError, open_listeners
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, open_store

_log = logging.getLogger(__name__)


class Server:
    """A running server: its plan, its store, its loop.

    Raises ConfigError, ListenerError or StoreError when it cannot start.
    """

    def __init__(self, path: str, limits: Limits, log_level: int | None = None) -> None:
        self.path = os.path.realpath(path)
        self.log_level = log_level
        self.lane = secrets.randbelow(LANES)
        os.chdir(
            os.path.dirname(self.path)
        )  # as ipv6-dhcpd does: paths in the file may be relative
        self.plan = read_plan(self.path, starting=True)
        listeners, _ = open_listeners(self.plan.listeners)
        socket = mobility_socket(self.plan)
        become(self.plan.account)
        self.plan.configure_logging(log_level)
        self.store: SqlStore = open_store(self.plan.database, serving=True)
        cmd = Cmd(self.store, self.plan.settings, self.lane)
        signalling = None
        if socket is not None and self.plan.pmip is not None:
            mode = self.plan.settings.mode
            signalling = Signalling(socket, self.plan.pmip, mode, cmd, self.store)
        self.loop = Loop(
            Responder(cmd, self.plan), listeners, limits, counters.count_all, signalling=signalling
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
        with _signals(self.loop, {signal.SIGHUP: self.reload}):
            # What is there now stays, and what a batch makes has no cycles to speak of: looking for them again and
            # again would only cost answers their time.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 10, 10)
            _log.info("dhcp-cmd serve (%s) is ready to handle requests", build())
            notify("READY=1")
            self.loop.run()
            notify("STOPPING=1")
        _log.info("dhcp-cmd serve stops")

    def reload(self) -> None:
        """Read the configuration again and go on with it; with the old one where it cannot be used."""
        reloading()
        try:
            self._take_over(read_plan(self.path, starting=False))
        except (ConfigError, ListenerError, StoreError) as error:
            _log.error("not reloading: %s", error)
        else:
            _log.info("the configuration was read again")
        notify("READY=1")

    def _take_over(self, plan: Plan) -> None:
        before = self.plan
        if plan.status_directory != before.status_directory:
            raise ConfigError(f"{self.path}: status-directory: a new one needs a restart")
        if plan.account != before.account:
            raise ConfigError(f"{self.path}: user, group: new ones need a restart")
        if (plan.settings.mode, plan.pmip) != (before.settings.mode, before.pmip):
            raise ConfigError(f"{self.path}: mode, endpoint, pacing: new ones need a restart")
        listeners, unused = open_listeners(plan.listeners, self.loop.listeners)
        try:
            store = self.store
            if plan.database != before.database:
                store = open_store(plan.database, serving=True)
        except StoreError:
            for listener in listeners:
                if listener not in self.loop.listeners:
                    listener.close()
            raise
        self.loop.listen(listeners)
        for listener in unused:
            listener.close()
        outcomes = self.loop.responder.outcomes
        cmd = Cmd(store, plan.settings, self.lane)
        cmd.signalled.update(self.loop.responder.cmd.signalled)
        self.loop.responder = Responder(cmd, plan)
        if self.loop.signalling is not None:
            self.loop.signalling.take_over(cmd, store)
        self.loop.responder.outcomes.update(outcomes)
        if store is not self.store:
            self.store.close()
        self.store, self.plan = store, plan
        plan.configure_logging(self.log_level)

    def close(self) -> None:
        """Close sockets and database."""
        self.loop.close()
        self.store.close()


def mobility_socket(plan: Plan) -> MobilitySocket | None:
    """The socket for PMIPv6 where the CMD signals. Raises ListenerError: it takes CAP_NET_RAW and an address that is
    there."""
    if plan.pmip is None:
        return None
    try:
        return MobilitySocket(plan.pmip.endpoint)
    except OSError as error:
        raise ListenerError(f"endpoint {plan.pmip.owner}: {error.strerror or error}") from error


def become(account: Account) -> None:
    """Give up root for good; does nothing for who is not root. Raises ConfigError."""
    os.umask(0o077)
    if os.geteuid() != 0 or account.uid == 0:
        return
    try:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)
    except OSError as error:
        raise ConfigError(f"user: cannot become {account.name}: {error.strerror}") from error


@contextmanager
def _signals(loop: Loop, handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Signals wake the loop, which acts on them between two batches. That it is to stop it knows at once: it does not
    begin anything else that a database that is silent would make it wait for.
    """
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def act() -> None:
        for number in dict.fromkeys(drain_pipe(read)):
            if number in handlers:
                handlers[signal.Signals(number)]()

    def stop(*_: object) -> None:
        loop.stopping = True

    before = {number: signal.signal(number, lambda *_: None) for number in handlers}
    before |= {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    loop.wake_on(read, act)
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)
        os.close(read)
