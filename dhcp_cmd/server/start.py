"""`dhcp-cmd serve`: start, reload, stop."""

from __future__ import annotations

import logging
import os
import secrets
import signal

from dhcp_cmd.build import build
from dhcp_cmd.core.inquire import LANES
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.plugin import counters
from dhcp_cmd.plugin.compile import read_plan
from dhcp_cmd.plugin.config import ConfigError
from dhcp_cmd.pmip.sockets import MobilitySocket
from dhcp_cmd.server.configuration import become, reread, settle
from dhcp_cmd.server.loop import Limits, Loop
from dhcp_cmd.server.notify import notify, reloading
from dhcp_cmd.server.plan import Plan
from dhcp_cmd.server.responder import Responder
from dhcp_cmd.server.signalling import Signalling
from dhcp_cmd.server.signals import signals
from dhcp_cmd.server.sockets import Listener, ListenerError, open_listeners
from dhcp_cmd.server.workers import Workers
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, open_store

_log = logging.getLogger(__name__)


def start(path: str, limits: Limits, log_level: int | None = None) -> Server | Workers:
    """A server that is ready to `run`: one process, or several. Raises ConfigError, ListenerError or StoreError."""
    path = os.path.realpath(path)
    os.chdir(os.path.dirname(path))  # as ipv6-dhcpd does: paths in the file may be relative
    plan = read_plan(path, starting=True)
    listeners, _ = open_listeners(plan.listeners)
    socket = _mobility_socket(plan)
    become(plan.account)
    plan.configure_logging(log_level)
    number = plan.processes()
    if number > 1:
        return Workers(path, plan, listeners, limits, log_level)
    if plan.workers is not None and plan.workers > 1:
        why = "SQLite has one writer at a time" if plan.pmip is None else "the CMD speaks PMIPv6"
        _log.info("%s: one process serves, not %d", why, plan.workers)
    return Server(path, plan, listeners, limits, log_level, socket)


class Server:
    """One process that serves: its plan, its store, its loop. Raises StoreError."""

    def __init__(
        self,
        path: str,
        plan: Plan,
        listeners: list[Listener],
        limits: Limits,
        log_level: int | None,
        socket: MobilitySocket | None = None,
    ) -> None:
        self.path = path
        self.plan = plan
        self.log_level = log_level
        self.lane = secrets.randbelow(LANES)
        self.store: SqlStore = open_store(plan.database, serving=True)
        cmd = Cmd(self.store, plan.settings, self.lane)
        signalling = None
        if socket is not None and plan.pmip is not None:
            signalling = Signalling(
                socket, plan.pmip, plan.settings.mode, cmd, self.store, plan.security
            )
        self.loop = Loop(
            Responder(cmd, plan),
            listeners,
            limits,
            counters.count_all,
            signalling=signalling,
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
        with signals(self.loop, {signal.SIGHUP: self.reload}):
            settle()
            _log.info("dhcp-cmd serve (%s) is ready to handle requests", build())
            notify("READY=1")
            self.loop.run()
            notify("STOPPING=1")
        _log.info("dhcp-cmd serve stops")

    def reload(self) -> None:
        """Read the configuration again and go on with it; with the old one where it cannot be used."""
        reloading()
        try:
            self._take_over(reread(self.path, self.plan))
        except (ConfigError, ListenerError, StoreError) as error:
            _log.error("not reloading: %s", error)
        else:
            _log.info("the configuration was read again")
        notify("READY=1")

    def _take_over(self, plan: Plan) -> None:
        listeners, unused = open_listeners(plan.listeners, self.loop.listeners)
        try:
            store = self._store_of(plan)
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
            self.loop.signalling.take_over(cmd, store, plan.security)
        self.loop.responder.outcomes.update(outcomes)
        if store is not self.store:
            self.store.close()
        self.store, self.plan = store, plan
        plan.configure_logging(self.log_level)

    def _store_of(self, plan: Plan) -> SqlStore:
        if plan.database == self.plan.database:
            return self.store
        store = open_store(plan.database, serving=True)
        try:
            if self.loop.signalling is not None:
                self.loop.signalling.move(store)
        except StoreError:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Close sockets and database."""
        self.loop.close()
        self.store.close()


def _mobility_socket(plan: Plan) -> MobilitySocket | None:
    """The socket for PMIPv6, where the CMD speaks it. Raises ListenerError: it takes CAP_NET_RAW and an address that is
    there."""
    if plan.pmip is None:
        return None
    try:
        return MobilitySocket(plan.pmip.endpoint)
    except OSError as error:
        raise ListenerError(f"endpoint {plan.pmip.owner}: {error.strerror or error}") from error
