"""The private PostgreSQL: reachable by its socket alone, for other users too, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from sqlalchemy import make_url

from lab import postgres
from lab.netns import LabError
from lab.postgres import Postgres, private

pytestmark = pytest.mark.needs("postgres")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not tmp_path, which other users cannot enter."""
    with TemporaryDirectory(prefix="lab-") as name:
        yield Path(name)


def connect(server: Postgres, database: str) -> psycopg.Connection[tuple[object, ...]]:
    url = make_url(server.url(database))
    return psycopg.connect(
        dbname=url.database, host=str(url.query["host"]), user=str(url.query["user"])
    )


def answer(server: Postgres, sql: str, database: str = "template1") -> object:
    with connect(server, database) as connection:
        row = connection.execute(sql.encode()).fetchone()
    return None if row is None else row[0]


def processes(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if str(folder) in line]


@pytest.mark.needs("ps")
def test_it_lives_as_long_as_the_with(folder: Path) -> None:
    with private(folder, fsync="off") as server:
        assert answer(server, "SHOW synchronous_commit") == "on"
        assert answer(server, "SHOW fsync") == "off"
        assert answer(server, "SHOW listen_addresses") == ""
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
        assert (folder / ".s.PGSQL.5432").is_socket()
        assert processes(folder)
    assert processes(folder) == []
    assert [path.name for path in folder.iterdir()] == ["postgres.log"]


def test_databases_come_and_go(folder: Path) -> None:
    with private(folder, fsync="off") as server:
        server.create("one")
        with connect(server, "one") as connection:
            connection.execute("CREATE TABLE here (x integer)")
        server.create("two", template="one")
        assert answer(server, "SELECT count(*) FROM here", "two") == 0
        held = connect(server, "two")
        server.drop("two")
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT 1")
        held.close()
        server.drop("two")
        with pytest.raises(LabError, match="already exists"):
            server.create("one")


def test_what_was_committed_survives_kill(folder: Path) -> None:
    with private(folder) as server:
        server.create("one")
        with connect(server, "one") as connection:
            connection.execute("CREATE TABLE here AS SELECT 7 AS x")
        held = connect(server, "one")
        first = server.pid
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT 1")
        held.close()
        with pytest.raises(LabError, match="not running"):
            _ = server.pid
        server.start()
        assert server.pid != first
        assert answer(server, "SELECT x FROM here", "one") == 7
        server.stop()
        server.stop()
        server.start()
        assert answer(server, "SELECT x FROM here", "one") == 7
        server.kill()  # and left so


_AS_ANOTHER = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")


@pytest.mark.root
def test_another_user_reaches_it(folder: Path) -> None:
    with private(folder, fsync="off"):
        psql = [f"{postgres.binaries()}/psql", "-h", str(folder), "-U", postgres.ROLE]
        done = subprocess.run(
            [*_AS_ANOTHER, *psql, "-Atc", "SELECT 7", "template1"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": os.environ["PATH"]},
        )
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_what_cannot_start_says_why(folder: Path) -> None:
    with (
        pytest.raises(LabError, match=r"does not start: .*shared_buffers"),
        private(folder, shared_buffers="nonsense"),
    ):
        pass
    with pytest.raises(LabError, match="too long"), private(folder / ("x" * 100)):
        pass
