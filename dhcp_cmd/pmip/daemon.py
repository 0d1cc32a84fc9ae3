"""`dhcp-cmd signal`: the sender of Proxy Binding Updates beside `ipv6-dhcpd`, whose workers only write what is owed."""

from __future__ import annotations

import logging
import os
import secrets
import selectors
import signal
import time
from collections import Counter
from collections.abc import Sequence

from dhcp_cmd.core.model import Micros
from dhcp_cmd.plugin import config, counters
from dhcp_cmd.plugin.config import ConfigError, Configuration
from dhcp_cmd.pmip.authenticated import Authenticated
from dhcp_cmd.pmip.front import Asked, Front, Late
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.pmip.signaller import Signaller
from dhcp_cmd.pmip.sockets import MobilitySocket
from dhcp_cmd.server.notify import notify, reloading
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import open_store
from dhcp_cmd.store.marks import SqlMarks
from dhcp_cmd.store.outbox import SqlOutbox, watch
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility.security import Security

_log = logging.getLogger(__name__)


class Daemon:
    """A sender on its own. Raises ConfigError, StoreError, or OSError where it gets no socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        configuration, pmip, security = _read(path)
        self._configuration = configuration
        try:
            self._socket = MobilitySocket(pmip.endpoint)
        except OSError as error:
            raise OSError(f"endpoint {pmip.owner}: {error.strerror or error}") from error
        try:
            self._store = open_store(configuration.database, serving=True)
        except BaseException:
            self._socket.close()
            raise
        try:
            self._begin(configuration, pmip, security)
        except BaseException:
            self._store.close()
            self._socket.close()
            raise

    def _begin(self, configuration: Configuration, pmip: PmipSettings, security: Security) -> None:
        self._watch = watch(self._store)
        self._name = pmip.owner
        self._stopping = self._reloading = False
        self._is_out = False
        self._counts = os.access(configuration.status_directory, os.W_OK | os.X_OK)
        if self._counts:
            counters.start(configuration.status_directory, os.getpid())
        cmd = Cmd(self._store, configuration.settings)
        outcomes: Counter[str] = Counter()
        authenticated = Authenticated(
            pmip.endpoint,
            security,
            SqlMarks(self._store, pmip.owner),
            outcomes,
            clock=_now,
            monotonic=time.monotonic,
        )
        self._signaller = Signaller(
            SqlOutbox(self._store, pmip.owner),
            self._socket,
            pmip,
            configuration.settings.mode,
            authenticated,
            outcomes,
            refused=cmd.anchor_refused,
            knows_later=cmd.anchor_knows_later,
            enterprise=cmd.settings.enterprise,
            clock=_now,
            monotonic=time.monotonic,
            sequence=secrets.randbelow(1 << 16),
            registers=self._register,
        )
        self._front = Front(cmd, authenticated.outgoing, outcomes)

    def run(self) -> None:
        """Send until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload_soon)
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            _log.info("dhcp-cmd signal is ready, as %s", self._name)
            notify("READY=1")
            while not self._stopping:
                if self._reloading:
                    self._reload()
                self._turn(selector)
        notify("STOPPING=1")

    def _reload(self) -> None:
        """Go on with settings and keys as they are in the file now; with the old ones where they cannot be used."""
        self._reloading = False
        reloading()
        before = self._configuration
        try:
            after, _, security = _read(self._path)
            for what, changes in (
                ("database", after.database != before.database),
                ("mode", after.settings.mode is not before.settings.mode),
                ("endpoint, pacing", after.pmip != before.pmip),
            ):
                if changes:
                    raise ConfigError(f"{self._path}: {what}: new ones need a restart")
        except ConfigError as error:
            _log.error("not reloading: %s", error)
        else:
            self._configuration = after
            cmd = Cmd(self._store, after.settings)
            self._signaller.refused = cmd.anchor_refused
            self._signaller.knows_later = cmd.anchor_knows_later
            self._signaller.enterprise = cmd.settings.enterprise
            self._signaller.change(security)
            self._front.cmd = cmd
            _log.info("the configuration was read again")
        notify("READY=1")

    def _turn(self, selector: selectors.BaseSelector) -> None:
        wake = self._signaller.deadline()
        idle = self._watch.interval if wake is None else wake - time.monotonic()
        if selector.select(max(0.0, min(idle, self._watch.interval))):
            self._signaller.receive()
        if self._watch.may_have_news():
            self._signaller.look_now()
        self._signaller.work()
        self._tell_outage()
        self._count(self._signaller.outcomes)

    def _register(self, asked: Sequence[Asked]) -> None:
        signalled = self._front.cmd.signalled
        for source, reply in self._front.replies(asked, _now(), _now):
            if not isinstance(reply, Late):  # nothing waits but in mode relay
                self._signaller.emit(source, reply, "pba-sent")
        self._signaller.put(signalled)
        signalled.clear()

    def _tell_outage(self) -> None:
        """An outage of the database, once when it begins and once when it is over."""
        failure = self._signaller.failure
        if failure is not None and not self._is_out:
            _log.error("the database does not answer, so nothing is signalled: %s", failure)
        elif failure is None and self._is_out:
            _log.warning("the database is back")
        self._is_out = failure is not None

    def _count(self, outcomes: Counter[str]) -> None:
        if outcomes and self._counts:
            counters.count_all(outcomes)
        outcomes.clear()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _reload_soon(self, *_: object) -> None:
        self._reloading = True

    def close(self) -> None:
        """Close socket and database."""
        self._watch.close()
        self._socket.close()
        self._store.close()


def _read(path: str) -> tuple[Configuration, PmipSettings, Security]:
    configuration = config.read(path)
    if configuration.pmip is None:
        raise ConfigError(f"{path}: mode: direct: the MAARs signal themselves")
    if configuration.settings.mode is SignallingMode.RELAY:
        raise ConfigError(f"{path}: mode: relay: dhcp-cmd serve signals by itself")
    return configuration, configuration.pmip, config.security(configuration)


def _now() -> Micros:
    return time.time_ns() // 1000
