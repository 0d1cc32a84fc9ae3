"""`dhcp-cmd serve` on either engine: full pools, another schema, poison, overload, and from one to the other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dhcp_cmd.core.model import Kind
from dhcp_cmd.store import maintenance, open_store
from dhcp_cmd.store.admin import PoolSpec
from dhcp_cmd.store.engine import make_engine
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import ClientMessage, every, unwrap
from dmm_wire.dhcpv6.options import IaNa, IaPd, StatusOption
from dmm_wire.identity import Identity, IdentitySubtype
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import Relay
from tests.cmd.plugin.server import MAARS, Server
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import (
    a_database,
    configured,
    duid,
    has_counted,
    has_lines,
    log_lines,
    node,
    refused,
    serving,
    wide,
)
from tests.cmd.store import poison
from tests.cmd.store.domain import ENGINES

pytestmark = pytest.mark.root

NO_ADDRESS, NO_PREFIX = int(StatusCode.NO_ADDRS_AVAIL), int(StatusCode.NO_PREFIX_AVAIL)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(engine: str, state: Path, link: None) -> Iterator[str]:
    """A database with more prefixes than are asked for."""
    with a_database(engine, state, [wide()]) as made:
        yield made


def executed(url: str, sql: str) -> None:
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(sql)
    engine.dispose()


def told(message: ClientMessage) -> tuple[dict[int, int], dict[int, int]]:
    """The status of each IA without a lease: of the IA_NAs, and of the IA_PDs."""
    found: tuple[dict[int, int], dict[int, int]] = {}, {}
    for kind, place in ((IaNa, 0), (IaPd, 1)):
        code = OptionCode.IA_PD if place else OptionCode.IA_NA
        for body in every(message.options, code):
            ia = kind.decode(body)
            assert (ia.t1, ia.t2) == (0, 0)
            [status] = every(ia.options, OptionCode.STATUS_CODE)
            assert len(ia.options) == 1
            found[place][ia.iaid] = StatusOption.decode(status).code
    return found


def test_a_full_pool(engine: str, state: Path, link: None, maar1: Relay) -> None:
    """RFC 9915 sections 18.3.1 to 18.3.5 and 18.3.9: said in each IA that gets nothing; who has something keeps it."""
    small = replace(
        MAARS["maar1"],
        pools=(
            PoolSpec(Kind.LINK, Prefix.parse("2001:db8:1::/62"), 64, 1000, 2000),
            PoolSpec(Kind.DELEGATED, Prefix.parse("2001:db8:1:8000::/58"), 60, 1000, 2000),
        ),
    )
    both = m.ia_na(3), m.ia_pd(4)
    with (
        a_database(engine, state, [small]) as url,
        serving(configured(state, url), "--age", "60") as server,
    ):
        # Nine at once for four of each kind: one transaction, and exactly four get them.
        server.process.send_signal(signal.SIGSTOP)
        for number in range(1, 10):
            maar1.send(node(number, m.RAPID_COMMIT, *both))
        server.process.send_signal(signal.SIGCONT)
        answers = [unwrap(maar1.receive()).client for _ in range(9)]
        held = {m.option(each.options, OptionCode.CLIENTID): m.leases(each) for each in answers}
        lucky = {who for who, leases in held.items() if leases}
        assert sorted(len(leases) for leases in held.values()) == [0] * 5 + [2] * 4
        assert len({lease for leases in held.values() for lease in leases}) == 8

        late = next(number for number in range(1, 10) if duid(number) not in lucky)
        nothing = {3: NO_ADDRESS}, {4: NO_PREFIX}
        for kind, options, answer in (
            (MessageType.SOLICIT, (), MessageType.ADVERTISE),
            (MessageType.SOLICIT, (m.RAPID_COMMIT,), MessageType.REPLY),
            (MessageType.REQUEST, (m.SERVER_ID,), MessageType.REPLY),
            (MessageType.RENEW, (m.SERVER_ID,), MessageType.REPLY),
            (MessageType.REBIND, (), MessageType.REPLY),
        ):
            client = unwrap(maar1.ask(node(late, *options, *both, kind=kind))).client
            assert (client.type, told(client), m.leases(client)) == (answer, nothing, {})

        early = next(number for number in range(1, 10) if duid(number) in lucky)
        for kind, options in ((MessageType.RENEW, (m.SERVER_ID,)), (MessageType.REBIND, ())):
            client = unwrap(maar1.ask(node(early, *options, *both, kind=kind))).client
            assert m.leases(client).keys() == held[duid(early)].keys()
        # A second IA of who has one: the address comes out of its own prefix, another prefix there is not.
        client = unwrap(
            maar1.ask(node(early, m.SERVER_ID, m.ia_pd(5), kind=MessageType.REQUEST))
        ).client
        assert told(client) == ({}, {5: NO_PREFIX})
        with closing(open_store(url)) as store:
            assert maintenance.check(store) == []


def test_a_database_of_another_schema_is_refused(url: str, state: Path) -> None:
    executed(url, "UPDATE alembic_version SET version_num = '9999'")
    configuration = configured(state, url)
    line = refused(configuration)
    assert line.startswith(f"dhcp-cmd: {configuration}: database: {url.partition(':')[0]}")
    assert "schema version 9999 is newer than this program's" in line


def test_it_is_refused_at_a_reload_too(url: str, state: Path, maar1: Relay) -> None:
    other = state / "other"
    other.mkdir()
    configuration = configured(state, url)
    good = configuration.read_text()
    with a_database("sqlite", other, [wide()]) as foreign, serving(configuration) as server:
        executed(foreign, "UPDATE alembic_version SET version_num = '9999'")
        executed(url, "UPDATE alembic_version SET version_num = '9999'")
        for count, text in enumerate((good, good.replace(url, foreign)), 1):
            configuration.write_text(text)
            before = len(server.log.read_text().splitlines())
            server.process.send_signal(signal.SIGHUP)
            has_lines(server, "not reloading", count)
            assert "9999 is newer" in log_lines(server, "not reloading")[-1]
            assert len(server.log.read_text().splitlines()) == before + 1
            assert maar1.ask(node(count, m.ia_pd()))  # it goes on with what it has


def test_a_poisonous_message_costs_itself(url: str, state: Path, maar1: Relay) -> None:
    """One of forty that arrive at once is refused by the database; it comes again, alone and among others."""
    with closing(open_store(url)) as store:
        poison.refuse(store, Identity(IdentitySubtype.DUID, duid(13)))
    with serving(configured(state, url), "--age", "60") as server:
        server.process.send_signal(signal.SIGSTOP)
        for number in range(1, 41):
            maar1.send(node(number, m.RAPID_COMMIT, m.ia_pd()))
        server.process.send_signal(signal.SIGCONT)
        answers = {unwrap(maar1.receive()).client.transaction_id for _ in range(39)}
        assert answers == {n.to_bytes(3, "big") for n in range(1, 41) if n != 13}
        maar1.send(node(13, m.RAPID_COMMIT, m.ia_pd()))
        maar1.send(node(41, m.RAPID_COMMIT, m.ia_pd()))
        assert unwrap(maar1.receive()).client.transaction_id == (41).to_bytes(3, "big")
        wait_for(lambda: server.counters() == {"reply": 40, "internal-error": 2})
        assert not maar1.has_answer()
        [line] = log_lines(server, "could not be decided")
        assert poison.MESSAGE in line
        assert log_lines(server, "does not answer") == []
        assert "Traceback" not in server.log.read_text()
        with closing(open_store(url)) as store:
            assert maintenance.check(store) == []
            assert maintenance.status(store)["nodes"] == 40


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_nothing_is_answered_late(url: str, state: Path, maar1: Relay) -> None:
    """What was in the kernel for longer than a datagram may wait is dropped when the server comes to it."""
    age = 0.3
    with serving(configured(state, url), "--age", str(age)) as server:
        server.process.send_signal(signal.SIGSTOP)
        for number in range(1, 101):
            maar1.send(node(number, m.RAPID_COMMIT, m.ia_pd()))
        sent = time.monotonic()
        wait_for(lambda: time.monotonic() > sent + age)  # their time passes
        maar1.send(node(101, m.RAPID_COMMIT, m.ia_pd()))
        server.process.send_signal(signal.SIGCONT)
        assert unwrap(maar1.receive()).client.transaction_id == (101).to_bytes(3, "big")
        wait_for(lambda: server.counters() == {"reply": 1, "overload": 100})
        assert not maar1.has_answer()
        with closing(open_store(url)) as store:
            assert maintenance.status(store)["nodes"] == 1


# --- from one engine to the other ---

RELOADS = 50


def resources(server: Server) -> tuple[list[str], int]:
    """What the server's process has open, and how many threads it has."""
    process = Path(f"/proc/{server.process.pid}")
    opened = [os.readlink(each) for each in (process / "fd").iterdir()]
    numbered = ("socket:", "pipe:", "anon_inode:")
    kinds = [next((kind for kind in numbered if name.startswith(kind)), name) for name in opened]
    return sorted(kinds), len(list((process / "task").iterdir()))


@pytest.mark.needs("postgres")
def test_a_reload_changes_the_engine_and_leaves_nothing(
    state: Path, link: None, maar1: Relay
) -> None:
    with (
        a_database("sqlite", state, [wide()]) as here,
        a_database("postgresql", state, [wide()]) as there,
    ):
        configuration = configured(state, here)
        texts = [configuration.read_text(), configuration.read_text().replace(here, there)]
        watching = make_engine(there)

        def sessions() -> int:
            with watching.begin() as connection:
                count: int = connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                ).scalar_one()
                return count

        def until_sessions(number: int) -> None:
            wait_for(lambda: sessions() == number)

        with serving(configuration, "--age", "60") as server:
            first: list[tuple[list[str], int]] = []
            for count in range(1, RELOADS + 3):
                configuration.write_text(texts[count % 2])
                server.process.send_signal(signal.SIGHUP)
                has_lines(server, "was read again", count)
                client = unwrap(maar1.ask(node(count, m.RAPID_COMMIT, m.ia_pd()))).client
                assert client.type == MessageType.REPLY
                until_sessions(count % 2)
                if count <= 2:
                    has_counted(server, "reply", count)
                    first.append(resources(server))
            # The thread that writes the counters comes and goes.
            wait_for(lambda: resources(server) == first[1])
            configuration.write_text(texts[1])
            server.process.send_signal(signal.SIGHUP)
            has_lines(server, "was read again", RELOADS + 3)
            assert maar1.ask(node(RELOADS + 3, m.RAPID_COMMIT, m.ia_pd()))
            wait_for(lambda: resources(server) == first[0])
            assert log_lines(server, "not reloading") == []
            assert server.stop() == 0
            assert server.counters() == {"reply": RELOADS + 3}
        watching.dispose()
        for url, nodes in ((here, RELOADS // 2 + 1), (there, RELOADS // 2 + 2)):
            with closing(open_store(url)) as store:
                assert maintenance.check(store) == []
                assert maintenance.status(store)["nodes"] == nodes
