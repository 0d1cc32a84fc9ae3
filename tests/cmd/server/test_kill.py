"""kill -9 of `dhcp-cmd serve` under load, many times, on either engine."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dhcp_cmd.store.engine import make_engine
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import Relay
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import (
    ENDPOINTS,
    Ledger,
    Load,
    a_database,
    configured,
    holders_in,
    load,
    log_lines,
    node,
    serving,
    wide,
)
from tests.cmd.store.domain import ENGINES

pytestmark = pytest.mark.root

KILLS = 15


@contextmanager
def log_of(url: str, state: Path) -> Iterator[Callable[[], object]]:
    """Gives how far the database's write-ahead log is: it is another one as soon as a transaction begins to write."""
    engine = make_engine(url)
    if engine.dialect.name == "sqlite":
        yield lambda: (state / "cmd.sqlite-wal").stat().st_mtime_ns
        return
    with engine.connect() as connection:
        connection.commit()
        yield lambda: connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn()").scalar()
    engine.dispose()


def spin(condition: Callable[[], object]) -> None:
    """Until then, without a pause: what comes next is to hit the very instant."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_client_was_promised_outlives_kill_9(engine: str, state: Path, link: None) -> None:
    """At 15 instants, each chosen by what was seen: so many answers had come, one just came, a commit had begun."""
    chance = random.Random(time.time_ns())
    ledger = Ledger()
    sent = 0

    def seen(clients: Load, instant: int, log: Callable[[], object]) -> None:
        if instant == 0:
            clients.grown(chance.randrange(1, 60))
            return
        if instant == 1 or chance.random() < 0.5:
            clients.grown(chance.randrange(1, 40))
        else:
            wait_for(lambda: clients.sent)  # the very first batch
        before = log() if instant == 1 else ledger.replies
        spin(lambda: (log() if instant == 1 else ledger.replies) != before)

    with a_database(engine, state, [wide()]) as url:
        configuration = configured(state, url)
        for kill in range(KILLS):
            with (
                serving(configuration) as server,
                log_of(url, state) as log,
                load(ledger, sent + 1) as clients,
            ):
                seen(clients, kill % 3, log)
                os.kill(server.process.pid, signal.SIGKILL)
                server.process.wait()
                clients.stop()
                clients.drain()
                sent += clients.sent
            if kill % 2:  # else the server is the first to open what it left
                ledger.verify(url)
        ledger.verify(url)
        holders = holders_in(url)
        unheard = [who for prefix, who in holders.items() if prefix not in ledger.promises]
        held = len(holders)
        print(
            f"\n{engine}: {KILLS} kills, {sent} asked, {ledger.replies} answered, {held} committed:"
            f" {held - ledger.replies} were killed between commit and answer"
        )
        assert ledger.replies >= KILLS
        assert ledger.replies <= held <= sent
        with serving(configuration) as server, load(ledger, sent + 1) as clients:
            clients.grown(100)
            clients.settle(server)
            clients.close()
            relay = Relay(ENDPOINTS["maar1"])
            for who in unheard:  # they ask again, and are told what is written
                number = int.from_bytes(who[-4:], "big")
                since = time.time_ns() // 1000
                ledger.note(relay.ask(node(number, m.RAPID_COMMIT, m.ia_pd())), since)
            relay.close()
            assert holders.items() <= holders_in(url).items()
            assert holders.keys() <= ledger.promises.keys()
            assert server.stop() == 0
            assert "Traceback" not in server.log.read_text()
            assert log_lines(server, "does not answer") == []
        ledger.verify(url)
