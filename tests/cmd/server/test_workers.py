"""`dhcp-cmd serve` with several workers on one PostgreSQL: they share the load, and each of them may go."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Engine, create_engine, update

from dhcp_cmd.plugin.counters import PREFIX
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import make_engine
from dmm_wire.dhcpv6.codes import SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import unwrap
from lab.postgres import private
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import SERVER, SERVER_NAMESPACE, Relay, inside
from tests.cmd.plugin.server import Server, environment
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import (
    COMMAND,
    a_database,
    configured,
    fill,
    has_counted,
    has_lines,
    load,
    log_lines,
    node,
    serving,
    unanswered,
    wide,
)

pytestmark = [pytest.mark.root, pytest.mark.needs("postgres")]

WORKERS = 3
SECOND = "2001:db8:ffff::2"
"""Another address of the server."""
LISTENER = f"<listen-unicast {SERVER}/>"
EPOLL_WAITS = {"232", "281", "22"}
"""The numbers of epoll_wait and epoll_pwait on x86-64, and of the latter on arm64."""
READY, AGAIN, REFUSED = "is ready to handle requests", "was read again", "not reloading"


@pytest.fixture
def url(link: None, state: Path) -> Iterator[str]:
    with a_database("postgresql", state, [wide()]) as made:
        yield made


@pytest.fixture
def configuration(state: Path, url: str) -> Path:
    return configured(state, url, workers=WORKERS)


def workers(server: Server) -> set[int]:
    """The pids of the workers."""
    pid = server.process.pid
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def is_idle(pid: int) -> bool:
    """Whether a process waits for something to come (proc(5), `syscall`), and not for the database."""
    return Path(f"/proc/{pid}/syscall").read_text().partition(" ")[0] in EPOLL_WAITS


def counted(server: Server) -> dict[int, Counter[str]]:
    """What each worker that ever was has counted."""
    files = server.status.glob(f"{PREFIX}{server.process.pid}-*.json")
    return {
        int(path.stem.rpartition("-")[2]): Counter(json.loads(path.read_text())) for path in files
    }


def waiting_are(admin: Engine, number: int) -> bool:
    """Whether so many of our sessions wait for a lock."""
    with admin.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dhcp-cmd'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        ).scalar()
    return found == number


def held_up(admin: Engine, maar: Relay, datagrams: list[bytes]) -> None:
    """Send each one when one worker more waits for a lock; then all of them go on."""
    with admin.connect().execution_options(isolation_level="READ COMMITTED") as other:
        other.exec_driver_sql("LOCK TABLE domain IN EXCLUSIVE MODE")
        for number, datagram in enumerate(datagrams, 1):
            maar.send(datagram)
            wait_for(partial(waiting_are, admin, number))


@pytest.fixture
def admin(url: str) -> Iterator[Engine]:
    engine = create_engine(
        url, isolation_level="AUTOCOMMIT", connect_args={"application_name": "admin"}
    )
    yield engine
    engine.dispose()


def test_who_is_idle_takes_what_comes(configuration: Path, maar1: Relay, admin: Engine) -> None:
    """While the others wait for the database. The counters say who did what, and `status` has the sum."""
    with serving(configuration) as server:
        assert f"{WORKERS} workers" in log_lines(server, READY)[0]
        pids = workers(server)
        assert len(pids) == WORKERS
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert "\nThreads:\t1\n" in status
        held_up(
            admin,
            maar1,
            [node(number, m.RAPID_COMMIT, m.ia_pd()) for number in range(1, WORKERS + 1)],
        )
        answers = [unwrap(maar1.receive()).client for _ in range(WORKERS)]
        assert {answer.type for answer in answers} == {MessageType.REPLY}
        assert len({lease for answer in answers for lease in m.leases(answer)}) == WORKERS
        wait_for(lambda: server.counters() == {"reply": WORKERS})
        assert counted(server) == {pid: Counter(reply=1) for pid in pids}
        shown = subprocess.run(
            [*COMMAND, "--config", configuration, "status"],
            env=environment(configuration.parent),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"counters.reply  {WORKERS}" in shown
        assert f"processes       {WORKERS}" in shown
        assert server.stop() == 0


def test_a_message_that_two_of_them_have_is_answered_alike(
    configuration: Path, maar1: Relay, admin: Engine
) -> None:
    with serving(configuration) as server:
        held_up(admin, maar1, [node(1, m.RAPID_COMMIT, m.ia_pd())] * WORKERS)
        answers = [m.leases(unwrap(maar1.receive()).client) for _ in range(WORKERS)]
        assert len(answers[0]) == 1
        assert answers[1:] == [answers[0]] * (WORKERS - 1)
        wait_for(lambda: server.counters().get("reply") == WORKERS)
        assert "collision" not in server.counters()


def test_a_small_load_is_not_split(configuration: Path, maar1: Relay) -> None:
    """The first one that is idle takes it, and nobody else is woken; another one does while it reaps."""
    with serving(configuration) as server:
        pids = workers(server)
        for number in range(50):
            # Who has answered is not idle yet; on a busy machine that takes its time.
            wait_for(lambda: all(map(is_idle, pids)))
            assert maar1.ask(node(number, m.RAPID_COMMIT, m.ia_pd()))
        wait_for(lambda: server.counters() == {"reply": 50})
        # Split among all who wake, the first one has 23.
        assert max(each["reply"] for each in counted(server).values()) >= 40


def test_kill_9_of_one_costs_what_it_had(configuration: Path, url: str) -> None:
    """Each of them, one after the other, under load: the others go on, and another one takes its place."""
    with serving(configuration) as server, load() as clients:
        first = workers(server)
        for number, pid in enumerate(sorted(first), 1):
            clients.grown(40)
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            clients.answered_after(killed)
            has_lines(server, "another one takes its place", number)
            wait_for(lambda: len(workers(server)) == WORKERS)
        assert not workers(server) & first
        assert len(log_lines(server, "was killed by signal 9")) == WORKERS
        clients.grown(100)
        clients.stop()
        assert server.stop() == 0
        clients.drain()
        assert clients.answered > 40 * WORKERS
        assert "Traceback" not in server.log.read_text()
        clients.ledger.verify(url)


def test_a_reload_loses_nothing(configuration: Path, url: str) -> None:
    """Again and again under load: the workers are others afterwards, and each message was answered."""
    with serving(configuration) as server, load() as clients:
        for number in range(1, 4):
            before = workers(server)
            clients.grown(40)
            server.process.send_signal(signal.SIGHUP)
            has_lines(server, AGAIN, number)
            assert len(workers(server)) == WORKERS
            assert not workers(server) & before
        counters = clients.settle(server)
        assert counters == {"reply": clients.sent}
        clients.ledger.verify(url)
        assert server.stop() == 0
        lines = server.log.read_text().splitlines()
        assert len(lines) == 5, lines  # ready, three times read again, stops


@contextmanager
def second_address() -> Iterator[None]:
    """The server's host has it, and does not need root for the port."""

    def permit() -> None:
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")

    command = ["ip", "-n", SERVER_NAMESPACE, "addr"]
    inside(SERVER_NAMESPACE, permit)
    subprocess.run([*command, "add", f"{SECOND}/64", "dev", "core", "nodad"], check=True)
    try:
        yield
    finally:
        subprocess.run([*command, "del", f"{SECOND}/64", "dev", "core"], check=True)


@contextmanager
def taken(address: str) -> Iterator[None]:
    """Somebody else listens there. Raises OSError where somebody does already."""

    def bind() -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            sock.bind((address, SERVER_PORT))
        except OSError:
            sock.close()
            raise
        return sock

    with inside(SERVER_NAMESPACE, bind):
        yield


def is_free(address: str) -> bool:
    """Whether nobody listens there."""
    try:
        with taken(address):
            return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False


def test_a_reload_opens_and_closes_listeners(configuration: Path, maar1: Relay) -> None:
    text = configuration.read_text()
    with second_address(), serving(configuration) as server:
        assert is_free(SECOND)
        configuration.write_text(text.replace(LISTENER, f"{LISTENER}\n<listen-unicast {SECOND}/>"))
        server.process.send_signal(signal.SIGHUP)
        has_lines(server, AGAIN, 1)
        assert maar1.ask(node(1, m.ia_pd()))
        maar1.socket.sendto(node(2, m.ia_pd()), (SECOND, SERVER_PORT))
        answer, address = maar1.socket.recvfrom(65536)
        assert (unwrap(answer).client.transaction_id, address[0]) == (b"\x00\x00\x02", SECOND)

        configuration.write_text(text.replace(SERVER, SECOND))
        server.process.send_signal(signal.SIGHUP)
        has_lines(server, AGAIN, 2)
        assert is_free(SERVER)
        maar1.socket.sendto(node(3, m.ia_pd()), (SECOND, SERVER_PORT))
        assert unwrap(maar1.receive()).client.transaction_id == b"\x00\x00\x03"
        assert server.stop() == 0


def test_a_reload_that_cannot_be_changes_nothing(configuration: Path, maar1: Relay) -> None:
    text = configuration.read_text()
    with second_address(), taken(SECOND), serving(configuration) as server:
        before = workers(server)
        for number, (old, new, told) in enumerate(
            (
                ("anchor-hold 1d", "anchor-hold never", "anchor-hold: 'never' is not a time"),
                (
                    "workers 3",
                    "workers 1",
                    "workers: from one to several, or back, needs a restart",
                ),
                ("/status", "/elsewhere", "status-directory: "),
                (SERVER, SECOND, "Address already in use"),
                ("postgresql+psycopg:///test_", "postgresql+psycopg:///no_", "does not exist"),
            ),
            1,
        ):
            assert old in text
            configuration.write_text(text.replace(old, new))
            server.process.send_signal(signal.SIGHUP)
            has_lines(server, REFUSED, number)
            assert told in log_lines(server, REFUSED)[-1]
        assert workers(server) == before
        assert len(server.log.read_text().splitlines()) == 6
        assert maar1.ask(node(1, m.ia_pd()))

        configuration.write_text(
            text.replace("workers 3", "workers 2").replace("2001:db8:0:1::1", "2001:db8:0:1::99")
        )
        server.process.send_signal(signal.SIGHUP)
        has_lines(server, AGAIN, 1)
        assert len(workers(server)) == 2
        answer = unwrap(maar1.ask(node(2, m.ia_pd()))).client
        assert m.option(answer.options, OptionCode.DNS_SERVERS).endswith(b"\x00\x99")
        assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["the parent", "all of them"])
def test_it_stops(configuration: Path, url: str, number: signal.Signals, whom: str) -> None:
    """Under load; also where a terminal (Ctrl-C) or a service manager tells every process."""
    with serving(configuration) as server, load() as clients:
        clients.grown(40)
        if whom == "the parent":
            server.process.send_signal(number)
        else:
            os.killpg(server.process.pid, number)
        assert server.process.wait(timeout=30) == 0
        assert not server.processes()
        clients.stop()
        clients.drain()
        clients.ledger.verify(url)
        assert sum(server.counters().values()) >= clients.answered
        assert "Traceback" not in server.log.read_text()
        assert log_lines(server, "worker ") == []
        assert len(log_lines(server, "serve stops")) == 1


def test_the_parent_writes_their_log(configuration: Path, maar1: Relay) -> None:
    with serving(configuration) as server:
        shutil.rmtree(server.status)
        assert maar1.ask(node(1, m.RAPID_COMMIT, m.ia_pd()))
        wait_for(lambda: log_lines(server, "Cannot write the counters"))
        assert re.search(r"Worker-\d: \[ERROR\] Cannot", log_lines(server, "Cannot")[0])
        assert server.stop() == 0


def test_without_a_parent_they_leave(configuration: Path) -> None:
    with serving(configuration) as server:
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_for(lambda: not server.processes())
        assert is_free(SERVER)


def test_systemd_is_told_by_the_parent(
    configuration: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        told.setblocking(False)
        with pytest.raises(BlockingIOError):
            told.recv(1000)


def test_what_has_ended_is_recorded_once(
    configuration: Path, maar1: Relay, url: str, admin: Engine
) -> None:
    with serving(configuration) as server:
        for number in range(20):
            assert maar1.ask(node(number, m.RAPID_COMMIT, m.ia_pd()))
        engine = make_engine(url)
        with engine.begin() as connection:
            connection.execute(update(t.binding).values(valid_until=1, preferred_until=1))
        engine.dispose()

        def recorded() -> object:
            with admin.connect() as connection:
                return connection.exec_driver_sql(
                    "SELECT count(*) FROM history WHERE type = 'expired'"
                ).scalar()

        wait_for(lambda: recorded() == 20)
        assert server.stop() == 0
        assert recorded() == 20
        assert "ERROR" not in server.log.read_text()


def test_on_sqlite_one_process_serves(state: Path, maar1: Relay) -> None:
    with (
        a_database("sqlite", state, [wide()]) as url,
        serving(configured(state, url, workers=WORKERS)) as server,
    ):
        assert server.processes() == {server.process.pid}
        assert len(log_lines(server, "one process serves, not 3")) == 1
        assert maar1.ask(node(1, m.ia_pd()))
        assert server.stop() == 0


def test_workers_that_cannot_start_are_one_line(state: Path, link: None) -> None:
    """There is a database for whoever looks, and no connection to it for all of them."""
    few = {"max_connections": "4", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    with TemporaryDirectory(prefix="dmm-") as folder, private(Path(folder), **few) as postgres:
        postgres.create("cmd")
        fill(postgres.url("cmd"), [wide()])
        path = configured(state, postgres.url("cmd"), workers=8)
        done = subprocess.run(
            ["ip", "netns", "exec", SERVER_NAMESPACE, *COMMAND, "serve", str(path)],
            env=environment(state),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("dhcp-cmd: worker ")
    assert "gave up: postgresql" in line
    assert "too many clients" in line
    assert is_free(SERVER)


def test_an_outage_is_told_once_for_all_of_them(state: Path, link: None) -> None:
    with TemporaryDirectory(prefix="dmm-") as folder, private(Path(folder)) as postgres:
        postgres.create("cmd")
        url = postgres.url("cmd")
        fill(url, [wide()])
        with (
            serving(configured(state, url, workers=WORKERS), "--age", "60") as server,
            load() as clients,
        ):
            for number in range(1, 3):
                clients.grown(40)
                postgres.stop()
                lost = server.counters().get("store-error", 0)
                has_counted(server, "store-error", lost + 100)
                postgres.start()
                clients.answered_after(time.monotonic())
                has_lines(server, "the database is back", number)
            clients.grown(40)
            counters = clients.settle(server)
            told = log_lines(server, "the database")
            assert ["is back" in line for line in told] == [False, True, False, True]
            assert sum(map(unanswered, told[1::2])) <= counters["store-error"]
            assert sum(map(unanswered, told[1::2])) >= 200
            clients.ledger.verify(url)
            assert server.stop() == 0
