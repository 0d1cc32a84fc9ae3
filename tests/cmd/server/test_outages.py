"""`dhcp-cmd serve` on a PostgreSQL that goes, is killed, is cut off or is silent: under load, and back by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError

from dmm_wire.dhcpv6.message import unwrap
from lab.netns import LabError
from lab.postgres import Postgres, private
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import Relay
from tests.cmd.plugin.server import Server
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import (
    Ledger,
    a_database,
    configured,
    fill,
    has_counted,
    has_lines,
    held_by,
    load,
    log_lines,
    node,
    refused,
    serving,
    unanswered,
    wide,
)
from tests.cmd.server.severed import Severed
from tests.cmd.store import databases
from tests.cmd.store.domain import ENGINES

pytestmark = [pytest.mark.root, pytest.mark.needs("postgres")]

BACK = 2.0
"""Seconds from the database's return to the next answer, at most."""
AWAY, RETURNED = "the database does not answer", "the database is back"
BESIDE = ("not reloading", "was read again", "the write-ahead log cannot be copied")
"""What else may be told, by those who are asked to do something else."""


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A server of the test's own, with durable commits, with the database `cmd`."""
    with TemporaryDirectory(prefix="dmm-") as folder, private(Path(folder)) as server:
        server.create("cmd")
        fill(server.url("cmd"), [wide()])
        yield server


def sessions(admin: Engine) -> list[int]:
    """The server's backends."""
    with admin.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'dhcp-cmd'"
        )
        return [row[0] for row in rows]


def harmless(admin: Engine, state: str) -> list[int]:
    """Those of the server's backends in this state that hold no node's row, for which all others would wait."""
    with admin.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT pid FROM pg_stat_activity AS session"
            " WHERE application_name = 'dhcp-cmd' AND state = %s AND NOT EXISTS ("
            " SELECT FROM pg_locks WHERE pg_locks.pid = session.pid"
            " AND relation = 'mobile_node'::regclass AND mode <> 'AccessShareLock')",
            (state,),
        )
        return [row[0] for row in rows]


@contextmanager
def administrator(url: str) -> Iterator[Engine]:
    """Connections of somebody else's, which nothing here cuts."""
    engine = create_engine(
        url, isolation_level="AUTOCOMMIT", connect_args={"application_name": "admin"}
    )
    try:
        yield engine
    finally:
        engine.dispose()


def dies(postgres: Postgres) -> None:
    """Only the postmaster is killed; its children find out."""
    os.kill(postgres.pid, signal.SIGKILL)
    postgres.kill()


def starts(postgres: Postgres) -> None:
    """Start it; what is left of one whose postmaster alone was killed may be in the way for a moment."""

    def has_started() -> bool:
        with suppress(LabError):
            postgres.start()
            return True
        return False

    wait_for(has_started)


def is_told_once(server: Server, outages: int) -> None:
    """Each outage has one line for its beginning and one for its end, and nothing else has a line."""
    lines = server.log.read_text().splitlines()
    told = [line for line in lines if AWAY in line or RETURNED in line]
    assert [AWAY in line for line in told] == [True, False] * outages
    other = [line for line in lines if line not in told and "ready to handle" not in line]
    assert [line for line in other if not any(text in line for text in BESIDE)] == []


def test_it_goes_and_comes_back(postgres: Postgres, state: Path, link: None) -> None:
    """Away at the start; then stopped, killed, its postmaster alone killed, while the load goes on."""
    url = postgres.url("cmd")
    configuration = configured(state, url)
    postgres.stop()
    line = refused(configuration)
    assert line.startswith(f"dhcp-cmd: {configuration}: database: postgresql")
    assert "No such file" in line
    postgres.start()
    kinds: list[Callable[[], None]] = [postgres.stop, postgres.kill, lambda: dies(postgres)]
    with serving(configuration, "--age", "60") as server, load() as clients:
        for number, end in enumerate(kinds, 1):
            clients.grown(40)
            end()
            has_lines(server, AWAY, number)
            lost = server.counters().get("store-error", 0)
            has_counted(server, "store-error", lost + 100)
            server.process.send_signal(signal.SIGHUP)
            asked = time.monotonic()
            has_lines(server, "not reloading", number)
            assert time.monotonic() - asked < BACK
            starts(postgres)
            returned = time.monotonic()
            took = clients.answered_after(returned) - returned
            print(f"\n{number}: answered {took * 1000:.0f} ms after PostgreSQL was back")
            assert took < BACK
            has_lines(server, RETURNED, number)
        counters = clients.settle(server)
        told = sum(map(unanswered, log_lines(server, RETURNED)))
        assert counters == {"reply": clients.answered, "store-error": told}
        is_told_once(server, 3)
        assert "connection" in log_lines(server, AWAY)[1]
        clients.ledger.verify(url)

        postgres.stop()
        asked = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - asked < BACK


def test_its_connection_is_cut_again_and_again(state: Path, link: None) -> None:
    """At any instant: what is lost is the batch, and each cut that cost one has its two lines."""
    with (
        a_database("postgresql", state, [wide()]) as url,
        administrator(url) as admin,
        serving(configured(state, url), "--age", "60") as server,
        load() as clients,
    ):
        longest = 0.0
        for _ in range(30):
            clients.grown(3)
            with admin.connect() as connection:
                for pid in sessions(admin):
                    connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 5000)")
            cut = time.monotonic()
            longest = max(longest, clients.answered_after(cut) - cut)
        print(f"\n30 cuts: answered after {longest * 1000:.0f} ms at most")
        assert longest < BACK
        counters = clients.settle(server)
        ends = log_lines(server, RETURNED)
        assert counters.get("store-error", 0) == sum(map(unanswered, ends))
        assert counters.keys() <= {"reply", "store-error"}
        is_told_once(server, len(ends))
        clients.ledger.verify(url)


def stopped(admin: Engine, state: str) -> int:
    """Stop a backend in this state."""
    while True:
        for pid in harmless(admin, state):
            os.kill(pid, signal.SIGSTOP)
            if pid in harmless(admin, state):
                return pid
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("state_of_it", ["idle", "idle in transaction"])
def test_it_is_silent(state: Path, link: None, state_of_it: str) -> None:
    """A backend that is stopped is given up. What waited meanwhile is dropped by its age, in the kernel too. Between
    two transactions nothing is lost with it, and a new connection takes its place without a word.
    """
    with (
        a_database("postgresql", state, [wide()]) as url,
        administrator(url) as admin,
        serving(configured(state, url)) as server,
        load() as clients,
    ):
        clients.grown(40)
        pid = stopped(admin, state_of_it)
        try:
            since = time.monotonic()
            # An answer from before may be read late, on a busy machine: the new backend comes first.
            wait_for(lambda: set(sessions(admin)) - {pid})
            took = clients.answered_after(time.monotonic()) - since
            print(f"\na silent backend was given up, and a message answered, after {took:.1f} s")
            assert took < 3 + BACK
        finally:
            os.kill(pid, signal.SIGCONT)
        clients.grown(40)
        if state_of_it != "idle":
            assert log_lines(server, "no answer within 3 s")
            wait_for(lambda: log_lines(server, RETURNED))
        counters = clients.settle(server)
        assert counters["overload"] > 100  # 400 came in each of these seconds
        ends = log_lines(server, RETURNED)
        assert counters.get("store-error", 0) == sum(map(unanswered, ends))
        is_told_once(server, int(state_of_it != "idle"))
        clients.ledger.verify(url)


@contextmanager
def halted() -> Iterator[None]:
    """All of PostgreSQL is stopped, as on a machine that hangs."""
    pid = databases.server().pid
    os.kill(pid, signal.SIGSTOP)  # it starts no other one
    pids = [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()), pid]
    try:
        for each in pids:
            os.kill(each, signal.SIGSTOP)
        yield
    finally:
        for each in pids:
            os.kill(each, signal.SIGCONT)


def test_all_of_it_is_silent(state: Path, link: None) -> None:
    """The wait is bounded, it is used again when it goes on, and SIGTERM is obeyed meanwhile."""
    with (
        a_database("postgresql", state, [wide()]) as url,
        serving(configured(state, url)) as server,
        load() as clients,
    ):
        clients.grown(40)
        with halted():
            wait_for(lambda: log_lines(server, AWAY))
        returned = time.monotonic()
        took = clients.answered_after(returned) - returned
        print(f"\nanswered {took * 1000:.0f} ms after PostgreSQL went on")
        assert took < BACK
        clients.grown(40)
        is_told_once(server, 1)
        with halted():
            unheard = clients.sent + 40
            wait_for(lambda: clients.sent >= unheard)
            asked = time.monotonic()
            assert server.stop() == 0
            took = time.monotonic() - asked
            print(f"SIGTERM was obeyed after {took:.1f} s of silence")
            assert took < 2 * 3 + BACK  # a silent session is given up, and then a silent server
        clients.stop()
        clients.drain()
        clients.ledger.verify(url)


def test_a_reload_does_not_wait_for_a_silent_database(
    state: Path, link: None, maar1: Relay
) -> None:
    """Somebody upgrades the schema, and takes his time."""
    with (
        a_database("postgresql", state, [wide()]) as url,
        administrator(url) as admin,
        serving(configured(state, url)) as server,
    ):
        with admin.connect().execution_options(isolation_level="READ COMMITTED") as other:
            other.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
            server.process.send_signal(signal.SIGHUP)
            has_lines(server, "no answer within 3 s", 1)
            assert maar1.ask(node(1, m.RAPID_COMMIT, m.ia_pd()))
        server.process.send_signal(signal.SIGHUP)
        has_lines(server, "was read again", 1)
        assert len(log_lines(server, "not reloading")) == 1
        is_told_once(server, 0)


def test_the_answer_to_a_commit_is_lost(state: Path, link: None, maar1: Relay) -> None:
    """It is committed and the CMD cannot know: nobody is told, and who asks again is told what is written."""
    with (
        a_database("postgresql", state, [wide()]) as url,
        Severed(url) as between,
        serving(configured(state, between.url)) as server,
    ):
        ledger = Ledger()
        since = time.time_ns() // 1000
        ledger.note(maar1.ask(node(1, m.RAPID_COMMIT, m.ia_pd())), since)
        between.sever_after_commit()
        question = node(2, m.RAPID_COMMIT, m.ia_pd())
        maar1.send(question)
        has_counted(server, "store-error", 1)
        assert between.severed == 1
        assert not maar1.has_answer()
        before = held_by(url, 2)
        assert len(before) == 1  # it was committed
        answer = maar1.ask(question)
        ledger.note(answer, since)
        assert set(m.leases(unwrap(answer).client)) == before == held_by(url, 2)
        wait_for(lambda: server.counters() == {"reply": 2, "store-error": 1})
        has_lines(server, RETURNED, 1)
        is_told_once(server, 1)
        ledger.verify(url)


# --- a full disk ---


@pytest.fixture
def disk(state: Path) -> Iterator[Path]:
    """A file system of 120 MB in the test's directory."""
    directory = state / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def fill_up(filler: Path) -> None:
    """Write until the disk is full."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(filler).f_bavail == 0


@contextmanager
def a_database_there(engine: str, disk: Path) -> Iterator[str]:
    """A database on that disk."""
    if engine == "sqlite":
        with a_database(engine, disk, [wide()]) as url:
            yield url
        return
    with private(disk / "postgres") as server:
        server.create("cmd")
        fill(server.url("cmd"), [wide()])
        with administrator(server.url("cmd")) as admin, admin.connect() as connection:
            # A log file that is new, so that the disk is full for tables before it is for the log.
            connection.exec_driver_sql("SELECT pg_switch_wal()")
            connection.exec_driver_sql("CHECKPOINT")
        yield server.url("cmd")


@pytest.mark.parametrize("engine", ENGINES)
def test_the_disk_is_full(engine: str, disk: Path, state: Path, link: None) -> None:
    """Only answers are lost, and only while it is full."""
    with (
        a_database_there(engine, disk) as url,
        serving(configured(state, url), "--age", "60") as server,
        load() as clients,
    ):
        clients.grown(40)
        fill_up(disk / "filler")
        wait_for(lambda: log_lines(server, AWAY))
        has_counted(server, "store-error", 100)
        (disk / "filler").unlink()
        room = time.monotonic()
        took = clients.answered_after(room) - room
        print(f"\n{engine}: answered {took * 1000:.0f} ms after there was room")
        assert took < BACK
        # A log of SQLite's that begins anew has some room on a full disk, too: it is back then, and away once more.
        wait_for(lambda: len(log_lines(server, RETURNED)) == len(log_lines(server, AWAY)))
        counters = clients.settle(server)
        ends = log_lines(server, RETURNED)
        told = sum(map(unanswered, ends))
        assert counters == {"reply": clients.answered, "store-error": told}
        is_told_once(server, len(ends))
        assert len(log_lines(server, "cannot be copied")) <= len(ends)
        clients.ledger.verify(url)


def test_there_is_no_room_for_the_log(
    disk: Path, postgres: Postgres, state: Path, link: None
) -> None:
    """PostgreSQL panics, and does not come back before it has room: an outage like the others."""
    url = postgres.url("cmd")
    postgres.stop()
    log, moved = postgres.directory / "data/pg_wal", disk / "pg_wal"
    subprocess.run(["cp", "-a", str(log), str(moved)], check=True)
    shutil.rmtree(log)
    log.symlink_to(moved)
    postgres.start()
    with (
        administrator(url) as admin,
        serving(configured(state, url), "--age", "60") as server,
        load() as clients,
    ):
        clients.grown(40)
        fill_up(disk / "filler")
        with suppress(OperationalError), admin.connect() as connection:
            while not log_lines(server, AWAY):  # files that are there already are used first
                connection.exec_driver_sql("SELECT pg_switch_wal()")
        has_lines(server, AWAY, 1)
        assert "PANIC" in (postgres.directory / "postgres.log").read_text()
        lost = server.counters().get("store-error", 0)
        has_counted(server, "store-error", lost + 100)
        postgres.kill()  # what is left of it
        (disk / "filler").unlink()
        starts(postgres)
        returned = time.monotonic()
        took = clients.answered_after(returned) - returned
        print(f"\nanswered {took * 1000:.0f} ms after PostgreSQL was started again")
        assert took < BACK
        has_lines(server, RETURNED, 1)
        counters = clients.settle(server)
        told = unanswered(log_lines(server, RETURNED)[0])
        assert counters == {"reply": clients.answered, "store-error": told}
        is_told_once(server, 1)
        clients.ledger.verify(url)
