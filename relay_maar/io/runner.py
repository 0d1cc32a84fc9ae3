"""Runs what the core wants, of many events at once: one write of the session file, one batch for the kernel, and then
what is said to others.

The order is that of :mod:`relay_maar.core.actions`, for each event and for all of them together: what must survive a
kill is written before the kernel is changed, and nothing is said before the kernel has answered.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.batch import merged
from relay_maar.core.cache import Then
from relay_maar.core.items import Change, Key
from relay_maar.io.links import Links
from relay_maar.southbound.api import Southbound, SouthboundError

log = logging.getLogger("relay-maar")

_Message: TypeAlias = (
    act.SendToServers
    | act.SendToClient
    | act.SendMobility
    | act.SendRouterAdvertisement
    | act.SendNeighborSolicitation
    | act.WatchPackets
)

_FIRST: Final = (act.SendMobility, act.SendToServers)
"""Messages of which another machine does its part of a handover meanwhile: they go out before those that a link, or a
host's IPv6 stack, may take its time for."""

_WHAT: dict[type[_Message], str] = {
    act.SendToServers: "server",
    act.SendToClient: "client",
    act.SendMobility: "peer",
    act.SendRouterAdvertisement: "ra",
    act.SendNeighborSolicitation: "ns",
    act.WatchPackets: "watch",
}
"""What a message that cannot be sent is counted as."""


class Runner:
    """The actions that wait, and those who carry them out. A fault of ours costs the one action it met, not the
    service: it is counted and told."""

    def __init__(
        self,
        agent: Agent,
        southbound: Southbound,
        save: Callable[[Mapping[str, dict[str, Any] | None]], None],
        links: Links,
        servers: Sequence[bytes],
        counters: Counter[str],
        clock: Callable[[], float],
    ) -> None:
        self._agent = agent
        self._southbound = southbound
        self._write = save
        self._links = links
        self._servers = servers
        self._counters = counters
        self._clock = clock
        self._records: dict[str, dict[str, Any] | None] = {}
        self._applies: list[act.Apply] = []
        self._messages: list[_Message] = []
        self._lines: list[act.Log] = []
        self._aside: list[Then] = []
        agent.aside = self._aside.append

    def add(self, actions: Iterable[act.Action]) -> None:
        """These are to be run, after those that wait already."""
        for action in actions:
            match action:
                case act.SendToServers() | act.SendToClient():
                    self._messages.append(action)
                case act.Apply():
                    self._applies.append(action)
                case act.SaveSession(identity, record):
                    self._records[str(identity)] = record
                case act.ForgetSession(identity):
                    self._records[str(identity)] = None
                case act.Log():
                    self._lines.append(action)
                case _:
                    self._messages.append(action)

    def run(self) -> None:
        """Run what waits, and what comes of it; what can wait is not even composed before other machines have their
        messages. Nobody waits for the log: it is told last."""
        self._run()
        while self._aside:
            aside = self._aside.copy()
            self._aside.clear()
            for then in aside:
                try:
                    self.add(then(self._clock()))
                except Exception as error:
                    self.fault(error)
            self._run()
        lines, self._lines = self._lines, []
        for each in lines:
            with self.survive():
                log.log(logging.getLevelNamesMapping()[each.level.upper()], "%s", each.line)

    def _run(self) -> None:
        while self._records or self._applies:
            try:
                self._save()
            except Exception as error:
                self.fault(error)
            try:
                self._apply()
            except Exception as error:
                self.fault(error)
        messages, self._messages = self._messages, []
        for message in sorted(messages, key=_goes_later):
            try:
                self._send(message)
            except Exception as error:
                self.fault(error)

    @contextlib.contextmanager
    def survive(self) -> Iterator[None]:
        """Count and tell what is raised. What is done for each packet has the same written out: it costs less."""
        try:
            yield
        except Exception as error:
            self.fault(error)

    def fault(self, error: Exception) -> None:
        """Count and tell it."""
        self._counters["internal-error"] += 1
        log.error("internal error; the service goes on without what it met", exc_info=error)

    def _save(self) -> None:
        records, self._records = self._records, {}
        if records:
            self._write(records)

    def _apply(self) -> None:
        applies, self._applies = self._applies, []
        if not applies:
            return
        changes = applies[0].changes if len(applies) == 1 else merged(applies)
        failures = self._change(changes)
        tokens = [apply.token for apply in applies]
        self.add(self._agent.applied(tokens, failures, now=self._clock()))

    def _change(self, changes: Sequence[Change]) -> Mapping[Key, str]:
        """Returns what the kernel refused, and why. The core needs an answer, or what waits for it waits for ever."""
        try:
            self._southbound.apply(changes)
        except SouthboundError as error:
            return {change.item.key: reason for change, reason in error.failures}
        except Exception as error:
            self.fault(error)
            # Nobody knows what was done, so all of it is to be done again.
            return {change.item.key: "internal error" for change in changes}
        return {}

    def _send(self, message: _Message) -> None:
        links = self._links
        try:
            match message:
                case act.SendToServers(data):
                    for server in self._servers:
                        try:
                            links.core.server.send(server, data)
                        except OSError as error:
                            self._unsent(message, error)
                case act.SendToClient(interface, destination, port, data):
                    links.access(interface).client.send(destination, port, data)
                case act.SendMobility(destination):
                    header = self._agent.mobility_header(message, now=self._clock())
                    links.core.mobility.send(destination, header)
                case act.SendRouterAdvertisement() | act.SendNeighborSolicitation():
                    self._discover(message)
                case act.WatchPackets(interface, quiet):
                    links.watch(interface, quiet)
        except OSError as error:
            self._unsent(message, error)

    def _discover(
        self, message: act.SendRouterAdvertisement | act.SendNeighborSolicitation
    ) -> None:
        access = self._links.access(message.interface)
        match message:
            case act.SendRouterAdvertisement(_, to, data, bytes(link_layer), sender):
                access.frames.send(link_layer, to, data, sender)
            case act.SendNeighborSolicitation(_, to, data, bytes(link_layer)):
                access.frames.send(link_layer, to, data)
            case _:
                access.router.send(message.destination, message.data)

    def _unsent(self, message: _Message, error: OSError) -> None:
        """As good as lost on the way: whoever waits for it asks again."""
        self._counters[
            f"send-{_WHAT[type(message)]}-{errno.errorcode.get(error.errno or 0, 'error')}"
        ] += 1


def _goes_later(message: _Message) -> bool:
    return not isinstance(message, _FIRST)
