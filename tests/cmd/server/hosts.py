"""The two hosts of the CMD in this process, on databases of their own: dhcpkit's chain with our plugin, the server."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from dhcpkit.ipv6.options import InterfaceIdOption
from dhcpkit.ipv6.server import config_parser, worker
from dhcpkit.ipv6.server.listeners import IncomingPacketBundle, Replier
from dhcpkit.ipv6.server.statistics import ServerStatistics

from dhcp_cmd.plugin import counters, handler, mends
from dhcp_cmd.plugin.compile import read_plan
from dhcp_cmd.plugin.handler import MobilityHandler
from dhcp_cmd.server.plan import ListenerPlan, Plan
from dhcp_cmd.server.responder import Arrival, Later, Responder
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore
from dmm_wire.address import format_address, parse_address
from tests.cmd.store.domain import sqlite_store

HEAD = """
user {user}
group {group}
allow-rapid-commit yes
<duid-en server-id>
    enterprise-number 32473
    identifier 636d64
</duid-en>
<logging>
    <console>
        level error
    </console>
</logging>
<listen-unicast ::1>
    mark {mark}
</listen-unicast>
"""
MOBILITY = """
<central-mobility-database>
    database cmd.sqlite
    status-directory status
</central-mobility-database>
"""

MULTICAST = ListenerPlan(
    parse_address("ff02::1:2"),
    parse_address("2001:db8:aaaa:3::1"),
    frozenset({"unmarked"}),
    "eth0",
    parse_address("fe80::1"),
)
UNICAST = ListenerPlan(
    parse_address("2001:db8:ffff::53"),
    parse_address("2001:db8:ffff::53"),
    frozenset({"relays"}),
)


def write_configuration(
    folder: Path, sections: str, *, mobility: str = MOBILITY, change: tuple[str, str] = ("", "")
) -> Path:
    """A configuration with these sections after the CMD's, whose user is the one who runs this."""
    account = pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(os.getegid()).gr_name
    head = HEAD.format(user=account.pw_name, group=group, mark="unmarked")
    path = folder / "cmd.conf"
    path.write_text((head + mobility + sections).replace(*change))
    return path


class Clock:
    """The time for both hosts, in microseconds."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


class FastHost:
    """`dhcp-cmd serve` without its sockets."""

    def __init__(self, plan: Plan, store: SqlStore, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.responder = Responder(Cmd(store, plan.settings), plan)

    def answer(self, arrivals: Sequence[Arrival]) -> list[bytes | None]:
        answers = self.responder.answer(arrivals, self.clock)
        assert not any(isinstance(answer, Later) for answer in answers)
        return [answer for answer in answers if not isinstance(answer, Later)]

    @property
    def outcomes(self) -> Counter[str]:
        return self.responder.outcomes


class PluginHost:
    """A worker of `ipv6-dhcpd`, without its processes and sockets."""

    def __init__(self, path: Path, store: SqlStore, clock: Clock) -> None:
        self.store = store
        loader = config_parser.get_config_loader()
        loader.importSchemaComponent("dhcp_cmd.plugin")
        main, _ = loader.loadURL(str(path))
        # The server's main process applies this one; it is about reading from a socket.
        self.chain = main.create_message_handler()
        [self.handler] = [h for h in self.chain.sub_handlers if isinstance(h, MobilityHandler)]
        self.handler._cmd = Cmd(store, self.handler.configuration.settings)
        self.clock = clock
        self._sent: list[bytes] = []

    def answer(self, arrivals: Sequence[Arrival]) -> list[bytes | None]:
        return [self._answer(arrival) for arrival in arrivals]

    def _answer(self, arrival: Arrival) -> bytes | None:
        listener = arrival.listener
        packet = IncomingPacketBundle(
            data=arrival.data,
            source_address=IPv6Address(arrival.source),
            link_address=IPv6Address(listener.link_address),
            received_over_multicast=bool(listener.interface),
            marks=sorted(listener.marks),
            relay_options=[InterfaceIdOption(interface_id=b"eth0")],
        )
        mends.apply_in_worker(self.handler.read)
        worker.current_message_handler = self.chain
        handler._now = self.clock
        before = len(self._sent)
        worker.handle_message(packet, _Replier(self._sent))
        assert len(self._sent) <= before + 1
        return self._sent[-1] if len(self._sent) > before else None


class _Replier(Replier):  # type: ignore[misc]
    def __init__(self, sent: list[bytes]) -> None:
        self.sent = sent

    def send_reply(self, outgoing_message: Any) -> bool:
        self.sent.append(bytes(outgoing_message.relayed_message.save()))
        return True


def prepare_worker(monkeypatch: Any) -> None:
    """Make dhcpkit's worker module ready to be used in this process, quietly."""
    logging.getLogger("dhcpkit").setLevel(logging.CRITICAL + 1)
    monkeypatch.setattr(worker, "logger", logging.getLogger("dhcpkit.worker"))
    monkeypatch.setattr(worker, "logging_handler", logging.NullHandler())
    monkeypatch.setattr(worker, "shared_statistics", ServerStatistics())
    monkeypatch.setattr(worker, "current_message_handler", None)
    monkeypatch.setattr(counters, "count", lambda outcome: None)
    monkeypatch.setattr(handler, "_now", handler._now)


def two_hosts(folder: Path, path: Path, plan: Plan, now: int) -> tuple[FastHost, PluginHost]:
    """Both hosts, each on a new database with the same hash key."""
    clock = Clock(now)
    stores = []
    for name in ("fast", "plugin"):
        (folder / name).mkdir()
        stores.append(sqlite_store(folder / name))
    return FastHost(plan, stores[0], clock), PluginHost(path, stores[1], clock)


def plan_of(path: Path) -> Plan:
    """The plan of a configuration file, whose database and status directory are made."""
    sqlite_store(path.parent).close()
    return read_plan(str(path), starting=True)


_UNORDERED = {"node_identity": "id"}
"""Surrogate keys that say nothing but the order in which one transaction wrote its rows."""


def rows(store: SqlStore) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    found: dict[str, list[tuple[object, ...]]] = {}
    with store.administration() as connection:
        tables = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        for (table,) in tables.all():
            result = connection.exec_driver_sql(f'SELECT * FROM "{table}"')
            columns = [name for name in tuple(result.keys()) if name != _UNORDERED.get(table)]
            found[table] = sorted(
                (tuple(row[name] for name in columns) for row in result.mappings()), key=repr
            )
    return found


def describe(arrivals: Iterable[Arrival]) -> str:
    """For a failed test."""
    return "\n".join(
        f"{format_address(a.source)} at {a.listener.interface or 'unicast'}: {a.data.hex()}"
        for a in arrivals
    )
