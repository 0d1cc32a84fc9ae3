"""`dhcp-cmd serve` as a process in a network namespace, from outside."""

from __future__ import annotations

import random
import signal
import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest

from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import first, unwrap
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import MAAR_NAMESPACE, SERVER, Relay, inside
from tests.cmd.plugin.server import environment, make_configuration, make_database, user
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import COMMAND, log_lines, node, serving, through_maar1

pytestmark = pytest.mark.root

INTERFACE = "<listen-unicast 2001:db8:ffff::1/>"


@pytest.fixture
def configuration(state: Path, link: None) -> Path:
    """Listens to relay agents and, on the interface, to clients."""
    make_database(state)
    return make_configuration(
        state, address=SERVER, changes=[(INTERFACE, f"{INTERFACE}\n<listen-interface core/>")]
    )


def test_a_node_behind_a_maar_gets_its_lease(configuration: Path, maar1: Relay) -> None:
    with serving(configuration) as server:
        advertise = unwrap(maar1.ask(through_maar1(m.solicit())))
        assert advertise.client.type == MessageType.ADVERTISE
        assert m.option(advertise.client.options, OptionCode.DNS_SERVERS)
        request = m.client(
            MessageType.REQUEST, m.SERVER_ID, m.ELAPSED, m.ia_na(), m.ia_pd(), xid=b"\x00\x00\x02"
        )
        reply = unwrap(maar1.ask(through_maar1(request))).client
        assert reply.type == MessageType.REPLY
        assert first(reply.options, OptionCode.DNS_SERVERS) is not None  # no ORO: all of it
        assert len(m.leases(reply)) == 2
        wait_for(lambda: server.counters() == {"advertise": 1, "reply": 1})
        shown = subprocess.run(
            [*COMMAND, "--config", configuration, "status"],
            env=environment(configuration.parent),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "counters.advertise  1" in shown
        assert server.stop() == 0


def test_it_gives_up_root_when_the_sockets_are_open(configuration: Path, maar1: Relay) -> None:
    with serving(configuration) as server:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if user() != "root":
            assert "0" not in fields["Uid"].split()  # saved and effective ones too
            assert int(fields["CapPrm"], 16) == 0
        assert maar1.ask(through_maar1(m.solicit()))


def test_a_client_on_the_link_is_answered_where_it_is(configuration: Path) -> None:
    def ask() -> tuple[bytes, tuple[str, int]]:
        index = socket.if_nametoindex("core")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.bind(("fe80::2", CLIENT_PORT, 0, index))
            client.sendto(m.solicit(), ("ff02::1:2", SERVER_PORT, 0, index))
            data, address = client.recvfrom(65536)
            return data, address[:2]

    with serving(configuration):
        answer, source = inside(MAAR_NAMESPACE, ask)
        assert unwrap(answer).client.type == MessageType.ADVERTISE
        assert source == ("fe80::1", SERVER_PORT)


def test_a_reload_takes_over_what_can_be_used(configuration: Path, maar1: Relay) -> None:
    text = configuration.read_text()
    with serving(configuration) as server:
        configuration.write_text(text.replace("anchor-hold 1d", "anchor-hold never"))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: log_lines(server, "not reloading"))
        [line] = log_lines(server, "not reloading")
        assert "anchor-hold: 'never' is not a time" in line
        assert len(server.log.read_text().splitlines()) == 3  # one process, ready, and this
        assert len(log_lines(server, "one process serves, not 2")) == 1
        answer = unwrap(maar1.ask(through_maar1(m.solicit()))).client
        before = m.option(answer.options, OptionCode.DNS_SERVERS)

        configuration.write_text(text.replace("2001:db8:0:1::1", "2001:db8:0:1::99"))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: log_lines(server, "was read again"))
        answer = unwrap(maar1.ask(through_maar1(m.solicit(xid=b"\x00\x00\x09")))).client
        assert m.option(answer.options, OptionCode.DNS_SERVERS) != before

        configuration.write_text(text.replace("/status", "/elsewhere"))
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(log_lines(server, "not reloading")) == 2)
        assert server.stop() == 0


def test_systemd_is_told(configuration: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(str(state / "notify"))
        (state / "notify").chmod(0o777)
        told.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(state / "notify"))
        with serving(configuration) as server:
            assert told.recv(1000) == b"READY=1"
            server.process.send_signal(signal.SIGHUP)
            assert told.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert told.recv(1000) == b"READY=1"
            assert server.stop() == 0
            assert told.recv(1000) == b"STOPPING=1"


def test_under_overload_the_oldest_goes_and_it_stays_responsive(
    configuration: Path, maar1: Relay
) -> None:
    with serving(configuration, "--waiting", "20", "--batch", "5", "--age", "60") as server:
        server.process.send_signal(signal.SIGSTOP)
        for number in range(200):
            maar1.send(node(number, m.ia_pd()))
        server.process.send_signal(signal.SIGCONT)
        answered = [unwrap(maar1.receive()).client.transaction_id for _ in range(20)]
        assert answered == [number.to_bytes(3, "big") for number in range(180, 200)]
        wait_for(lambda: server.counters().get("overload") == 180)
        assert server.counters()["advertise"] == 20
        last = unwrap(maar1.ask(node(999, m.ia_pd()))).client
        assert last.transaction_id == (999).to_bytes(3, "big")


def test_an_outage_of_the_database_is_told_once_and_passes(
    configuration: Path, maar1: Relay, state: Path
) -> None:
    with serving(configuration, "--age", "60") as server:
        other = sqlite3.connect(state / "cmd.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        server.process.send_signal(signal.SIGSTOP)  # one batch: each waits for its time
        for number in range(30):
            maar1.send(node(number, m.RAPID_COMMIT, m.ia_pd()))
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: log_lines(server, "does not answer"))
        maar1.send(node(77, m.RAPID_COMMIT, m.ia_pd()))
        wait_for(lambda: server.counters().get("store-error") == 31)
        assert not maar1.has_answer()
        other.execute("ROLLBACK")
        other.close()
        # What is committed again shows that it is back: the first node that asks.
        assert unwrap(maar1.ask(node(78, m.RAPID_COMMIT, m.ia_pd()))).client.type == (
            MessageType.REPLY
        )
        wait_for(lambda: log_lines(server, "the database is back"))
        assert len(log_lines(server, "does not answer")) == 1
        assert len(log_lines(server, "the database is back")) == 1
        assert "Traceback" not in server.log.read_text()


def test_what_has_ended_is_recorded(configuration: Path, maar1: Relay, state: Path) -> None:
    with serving(configuration):
        reply = unwrap(maar1.ask(node(1, m.RAPID_COMMIT, m.ia_pd()))).client
        assert len(m.leases(reply)) == 1
        with sqlite3.connect(state / "cmd.sqlite") as database:
            database.execute("UPDATE binding SET valid_until = 1, preferred_until = 1")
        database.close()

        def recorded() -> bool:
            with sqlite3.connect(state / "cmd.sqlite") as database:
                types = database.execute("SELECT type FROM history").fetchall()
            database.close()
            return ("expired",) in types

        wait_for(recorded)


def test_noise_does_not_stop_it(configuration: Path, maar1: Relay) -> None:
    chance = random.Random(1)
    with serving(configuration) as server:
        good = node(1, m.ia_pd())
        for _ in range(500):
            noise = bytearray(good)
            for _ in range(chance.randrange(1, 20)):
                noise[chance.randrange(len(noise))] = chance.randrange(256)
            maar1.send(bytes(noise[: chance.randrange(len(noise) + 1)]))
        wait_for(lambda: sum(server.counters().values()) >= 500)
        assert "internal-error" not in server.counters()
        maar1.drain()
        assert unwrap(maar1.ask(node(2, m.ia_pd()))).client.transaction_id == b"\x00\x00\x02"
        assert "Traceback" not in server.log.read_text()
