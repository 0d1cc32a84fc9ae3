"""`dhcp-cmd serve` as a process on a database of either engine, under load, and what its clients saw of it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select

from dhcp_cmd.core.model import MICROS, Kind, Micros, State
from dhcp_cmd.store import maintenance, open_store
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.admin import MaarSpec, PoolSpec, add_maars
from dhcp_cmd.store.engine import reading
from dmm_wire.address import Prefix, format_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, unwrap
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import SERVER, SERVER_NAMESPACE, Relay
from tests.cmd.plugin.server import (
    MAARS,
    RELAY_IDS,
    Server,
    environment,
    make_configuration,
    make_database,
)
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.store import databases

COMMAND = [sys.executable, "-W", "ignore", "-m", "dhcp_cmd.cli"]
ENDPOINTS = {name: format_address(maar.endpoint) for name, maar in MAARS.items()}
LIFETIME = 2000
"""Seconds that a prefix is valid."""


def wide(bits: int = 24) -> MaarSpec:
    """maar1 with one pool of delegated prefixes, two to the power of `bits` of them."""
    pool = Prefix.of(bytes.fromhex("20010db8400000000000000000000000"), 60 - bits)
    return replace(MAARS["maar1"], pools=(PoolSpec(Kind.DELEGATED, pool, 60, 1000, LIFETIME),))


def fill(url: str, maars: Sequence[MaarSpec]) -> None:
    """Make our tables, with these MAARs."""
    with closing(open_store(url, create=True)) as store:
        add_maars(store, maars)


@contextmanager
def a_database(engine: str, state: Path, maars: Sequence[MaarSpec]) -> Iterator[str]:
    """The URL of a new database with these MAARs; on SQLite it is in `state`."""
    if engine == "sqlite":
        yield f"sqlite:///{make_database(state, maars)}"
    else:
        with databases.new(
            f"serving_{hash(tuple(maars)) & 0xFFFFFFFF:x}", lambda u: fill(u, maars)
        ) as url:
            yield url


def configured(
    state: Path, url: str, changes: Sequence[tuple[str, str]] = (), *, workers: int = 1
) -> Path:
    """A configuration for relay agents, with that database."""
    there = (f"sqlite:///{state}/cmd.sqlite", url), ("\nworkers 2\n", f"\nworkers {workers}\n")
    return make_configuration(state, address=SERVER, changes=[*there, *changes])


@contextmanager
def serving(configuration: Path, *options: str) -> Iterator[Server]:
    """A server for the length of a test."""
    enter = ["ip", "netns", "exec", SERVER_NAMESPACE]
    server = Server(configuration, [*enter, *COMMAND, "serve", *options])
    try:
        yield server
    finally:
        if server.processes():
            server.kill()


def refused(configuration: Path) -> str:
    """The one line with which the server refuses to start; its exit status is that of an operator's mistake."""
    done = subprocess.run(
        ["ip", "netns", "exec", SERVER_NAMESPACE, *COMMAND, "serve", str(configuration)],
        env=environment(configuration.parent),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line


def holders_in(url: str) -> dict[Prefix, bytes]:
    """The DUID of whom each prefix is, in the database."""
    b, i = t.binding.c, t.node_identity.c
    query = (
        select(b.prefix, b.prefix_length, i.value)
        .join(t.node_identity, i.node_id == b.node_id)
        .where(b.state == State.ACTIVE.value)
    )
    with closing(open_store(url)) as store, reading(store.engine) as connection:
        return {Prefix(prefix, length): who for prefix, length, who in connection.execute(query)}


def held_by(url: str, number: int) -> set[str]:
    """The prefixes of client `number` in the database."""
    return {str(prefix) for prefix, who in holders_in(url).items() if who == duid(number)}


def duid(number: int) -> bytes:
    """The DUID of client `number`."""
    return m.CLIENT_DUID[:-4] + number.to_bytes(4, "big")


def node(number: int, *options: tuple[int, bytes], kind: int = MessageType.SOLICIT) -> bytes:
    """A message of client `number`, through maar1."""
    xid = (number & 0xFFFFFF).to_bytes(3, "big")
    message = m.client(
        kind,
        (int(OptionCode.CLIENTID), duid(number)),
        m.ELAPSED,
        *options,
        xid=xid,
        client_id=False,
    )
    return through_maar1(message)


def through_maar1(message: bytes) -> bytes:
    return m.relayed(
        message,
        link="2001:db8:a1::1",
        endpoint=ENDPOINTS["maar1"],
        relay_id=RELAY_IDS["maar1"],
        link_layer=None,
    )


def log_lines(server: Server, text: str) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if text in line]


def has_lines(server: Server, text: str, number: int) -> None:
    """Wait until so many lines of the log have the text."""
    wait_for(lambda: len(log_lines(server, text)) == number)


def has_counted(server: Server, outcome: str, least: int) -> None:
    """Wait until the server has counted so many of the outcome."""
    wait_for(lambda: server.counters().get(outcome, 0) >= least)


class Promise(NamedTuple):
    """What a client was told in a Reply."""

    duid: bytes
    until: Micros
    """It was told that the prefix is its own at least until then."""


class Ledger:
    """Every Reply that came, as the clients saw it."""

    def __init__(self) -> None:
        self.promises: dict[Prefix, Promise] = {}
        self.replies = 0

    def note(self, datagram: bytes, since: Micros) -> ClientMessage:
        """Write down a Reply to a message that was not sent before `since`. Fails for one that is wrong by itself."""
        client = unwrap(datagram).client
        assert client.type == MessageType.REPLY
        holder = m.option(client.options, OptionCode.CLIENTID)
        [(text, (_, valid))] = m.leases(client).items()
        prefix, until = Prefix.parse(text), since + valid * MICROS
        before = self.promises.get(prefix)
        assert before is None or before.duid == holder, f"{prefix} was given out twice"
        self.promises[prefix] = Promise(holder, max(until, before.until if before else 0))
        self.replies += 1
        return client

    def verify(self, url: str) -> None:
        """All of it is in the database, which is sound."""
        with closing(open_store(url)) as store:
            with reading(store.engine) as connection:
                b, i = t.binding.c, t.node_identity.c
                query = (
                    select(b.prefix, b.prefix_length, i.value, b.valid_until)
                    .join(t.node_identity, i.node_id == b.node_id)
                    .where(b.state == State.ACTIVE.value)
                )
                held = {
                    Prefix(row.prefix, row.prefix_length): (row.value, row.valid_until)
                    for row in connection.execute(query)
                }
            assert maintenance.check(store) == []
        for prefix, promise in self.promises.items():
            assert prefix in held, f"{prefix} was promised and is not there"
            holder, until = held[prefix]
            assert holder == promise.duid
            assert until >= promise.until


class Load:
    """Clients that ask for a prefix, each once, at a steady rate, until stopped: at a lower one while many are not
    answered, or a server that has few of the machine's seconds would have more and more of them before the next one."""

    INTERVAL = 0.01
    """Seconds between two handfuls."""
    HANDFUL = 4
    MOST, WAITS = 100, 2.0
    """So many may wait for an answer, each for so many seconds: then it is taken for lost."""

    def __init__(self, ledger: Ledger, first: int) -> None:
        self.ledger = ledger
        self.sent = self.answered = 0
        self.latest = 0.0
        """When the last message was sent that was answered (monotonic)."""
        self._relay = Relay(ENDPOINTS["maar1"])
        self._first = first
        self._times: dict[int, tuple[float, Micros]] = {}
        self._waiting: dict[int, float] = {}
        """When those were sent that are not taken for lost yet."""
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def answered_after(self, moment: float, timeout: float = 20.0) -> float:
        """Wait for the answer to a message sent at `moment` (monotonic) or later; when it had come."""

        def is_there() -> bool:
            self._check()
            return self.latest >= moment

        wait_for(is_there, timeout)
        return time.monotonic()

    def grown(self, by: int) -> None:
        """Wait for so many more answers."""
        enough = self.answered + by

        def are_there() -> bool:
            self._check()
            return self.answered >= enough

        wait_for(are_there)

    def stop(self) -> None:
        """Send no more. What is on its way still is noted by `drain`."""
        self._stopping.set()
        self._thread.join()
        self._check()

    def settle(self, server: Server) -> dict[str, int]:
        """Stop, wait until the server has counted every message sent, and note the last answers; its counters."""
        self.stop()
        wait_for(lambda: _counted(server) >= self.sent)
        self.drain()
        counters: dict[str, int] = server.counters()
        assert sum(counters.values()) == self.sent
        assert counters["reply"] == self.answered
        return counters

    def drain(self) -> None:
        """Note what has arrived."""
        for datagram in self._relay.drain():
            number = int.from_bytes(unwrap(datagram).client.transaction_id, "big")
            sent, since = self._times.pop(number)
            self._waiting.pop(number, None)
            client = self.ledger.note(datagram, since)
            assert m.option(client.options, OptionCode.CLIENTID) == duid(number)
            self.answered += 1
            self.latest = max(self.latest, sent)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._relay.close()

    def _check(self) -> None:
        if self._error is not None:
            raise AssertionError("the load found something") from self._error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self.INTERVAL):
                if self._are_waiting() < self.MOST:
                    for _ in range(self.HANDFUL):
                        number = self._first + self.sent
                        now = self._waiting[number] = time.monotonic()
                        self._times[number] = now, time.time_ns() // 1000
                        self._relay.send(node(number, m.RAPID_COMMIT, m.ia_pd()))
                        self.sent += 1
                self.drain()
        except BaseException as error:
            self._error = error

    def _are_waiting(self) -> int:
        before = time.monotonic() - self.WAITS
        while self._waiting and self._waiting[oldest := next(iter(self._waiting))] < before:
            del self._waiting[oldest]
        return len(self._waiting)


def _counted(server: Server) -> int:
    return sum(server.counters().values())


@contextmanager
def load(ledger: Ledger | None = None, first: int = 1) -> Iterator[Load]:
    """A load that ends with the `with`; its clients are `first` and those after it."""
    made = Load(ledger or Ledger(), first)
    try:
        yield made
    finally:
        made.close()


def unanswered(line: str) -> int:
    """What the line says that tells of a database's return."""
    found = re.search(r"; (\d+) messages were not answered", line)
    assert found is not None, line
    return int(found[1])
