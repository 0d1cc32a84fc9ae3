"""`dhcp-cmd serve` on a PostgreSQL that is stopped and killed under it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import select

from dhcp_cmd.core.model import Kind, State
from dhcp_cmd.store import maintenance, open_store, tables
from dhcp_cmd.store.admin import PoolSpec, add_maars
from dhcp_cmd.store.engine import reading
from dhcp_cmd.store.rows import binding_of
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import unwrap
from lab.postgres import Postgres, private
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import SERVER, Relay
from tests.cmd.plugin.server import MAARS, make_configuration
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.test_serve import link, log_lines, maar1, node, serving, state

__all__ = ["link", "maar1", "state"]

pytestmark = [pytest.mark.root, pytest.mark.needs("postgres"), pytest.mark.slow]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A durable server, with a database of one MAAR."""
    with TemporaryDirectory(prefix="srvp") as folder, private(Path(folder)) as server:
        server.create("cmd")
        pool = PoolSpec(Kind.DELEGATED, Prefix.parse("2001:db8:4000::/36"), 60, 1000, 2000)
        store = open_store(server.url("cmd"), create=True)
        add_maars(store, [replace(MAARS["maar1"], pools=(pool,))])
        store.close()
        yield server


@pytest.fixture
def configuration(state: Path, link: None, postgres: Postgres) -> Path:
    change = (f"database sqlite:///{state}/cmd.sqlite", f"database {postgres.url('cmd')}")
    return make_configuration(state, address=SERVER, changes=[change])


def test_what_a_client_was_promised_outlives_the_database(
    configuration: Path, postgres: Postgres, maar1: Relay
) -> None:
    """Under load it is killed, and stopped: what a client received is there afterwards, the
    service goes on by itself, and the log says so once."""
    promised: dict[Prefix, bytes] = {}
    chance = random.Random(1)
    number = 0

    def load() -> int:
        """Some new nodes ask; how many have been promised something by now."""
        nonlocal number
        for _ in range(chance.randrange(1, 64)):
            number += 1
            maar1.send(node(number, m.RAPID_COMMIT, m.ia_pd()))
        collect()
        return len(promised)

    def collect() -> None:
        for datagram in maar1.drain():
            client = unwrap(datagram).client
            assert client.type == MessageType.REPLY
            duid = m.option(client.options, OptionCode.CLIENTID)
            for text in m.leases(client):
                promised[Prefix.parse(text)] = duid

    def outage(end: Callable[[], None], count: int) -> None:
        enough = len(promised) + 100
        wait_for(lambda: load() >= enough)
        end()
        wait_for(lambda: load() and len(log_lines(server, "does not answer")) == count)
        postgres.start()
        enough = len(promised) + 1
        wait_for(lambda: load() >= enough)
        wait_for(lambda: len(log_lines(server, "the database is back")) == count)

    with serving(configuration) as server:
        for count, end in enumerate((postgres.kill, postgres.stop) * 2, 1):
            outage(end, count)
        assert len(log_lines(server, "does not answer")) == 4
        assert server.counters()["store-error"] > 0
        assert "internal-error" not in server.counters()
        assert "Traceback" not in server.log.read_text()
        assert server.stop() == 0
        collect()
    store = open_store(postgres.url("cmd"))
    assert maintenance.check(store) == []
    identity = tables.node_identity
    with reading(store.engine) as connection:
        named = connection.execute(select(identity.c.node_id, identity.c.value)).all()
        duids = {row.node_id: row.value for row in named}
        rows = connection.execute(select(*tables.columns(tables.binding)))
        bindings = [binding_of(row) for row in rows]
    store.close()
    held = {each.prefix: duids[each.node] for each in bindings if each.state is State.ACTIVE}
    assert {prefix: held.get(prefix) for prefix in promised} == promised


def test_two_on_one_database(
    configuration: Path, postgres: Postgres, maar1: Relay, state: Path
) -> None:
    """A second CMD has the node's lease of the first."""
    with serving(configuration):
        first = unwrap(maar1.ask(node(1, m.RAPID_COMMIT, m.ia_pd()))).client
    second = state / "second"
    second.mkdir()
    again = second / "cmd.conf"
    again.write_text(configuration.read_text().replace(f"{state}/", f"{second}/"))
    with serving(again):
        reply = unwrap(maar1.ask(node(1, m.ia_pd(), kind=MessageType.REBIND))).client
    assert m.leases(reply) == m.leases(first)
