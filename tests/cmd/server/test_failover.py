"""`dhcp-cmd serve` on a PostgreSQL with synchronous standbys, set up as docs/scaling.md says: a standby takes over, and
nothing is lost that a client was told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from sqlalchemy import create_engine

from dhcp_cmd import cli
from lab.postgres import ROLE, Postgres, private, standby
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import Relay
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import (
    Ledger,
    configured,
    duid,
    fill,
    has_counted,
    has_lines,
    held_by,
    load,
    log_lines,
    node,
    serving,
    unanswered,
    wide,
)

pytestmark = [pytest.mark.root, pytest.mark.needs("postgres")]

BACK = 2.0
"""Seconds from when a standby is there to the next answer, at most."""
AWAY, RETURNED = "the database does not answer", "the database is back"
NAMES = ("db1", "db2", "db3")


class Cluster(NamedTuple):
    """db1 is the primary, the others are its standbys; each may take another one's place."""

    db1: Postgres
    db2: Postgres
    db3: Postgres

    @property
    def url(self) -> str:
        """Whichever of them takes writes."""
        hosts = "&".join(f"host={server.directory}:5432" for server in self)
        return f"postgresql+psycopg:///cmd?{hosts}&user={ROLE}&target_session_attrs=read-write"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with TemporaryDirectory(prefix="dmm-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        hosts = ",".join(str(folder / each) for each in NAMES)
        settings = {
            "synchronous_standby_names": f"ANY 1 ({', '.join(NAMES)})",
            "primary_conninfo": f"host={hosts} user={ROLE} target_session_attrs=read-write",
            "wal_retrieve_retry_interval": "100ms",
        }
        db1 = stack.enter_context(private(folder / "db1", cluster_name="db1", **settings))
        db2, db3 = (
            stack.enter_context(standby(folder / each, db1, cluster_name=each, **settings))
            for each in NAMES[1:]
        )
        db1.create("cmd")
        fill(db1.url("cmd"), [wide()])
        wait_for(lambda: asked(db1, "SELECT count(*) FROM pg_stat_replication") == 2)
        wait_for(lambda: min(replayed(db2), replayed(db3)) >= written(db1))
        yield Cluster(db1, db2, db3)


def asked(server: Postgres, sql: str) -> Any:
    """The answer of one server, whatever it is. (In a database that a standby has from the beginning.)"""
    engine = create_engine(server.url("postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            return connection.exec_driver_sql(sql).scalar_one()
    finally:
        engine.dispose()


def received(server: Postgres) -> int:
    """How far the log goes that a standby has, in bytes; it may have been started again."""
    lsn = "greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
    return int(asked(server, f"SELECT {lsn} - '0/0'::pg_lsn"))


def replayed(server: Postgres) -> int:
    """How much of it can be seen in the standby."""
    return int(asked(server, "SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn"))


def written(server: Postgres) -> int:
    """How far a primary's log goes."""
    return int(asked(server, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


def answered(server: Postgres, capture: pytest.CaptureFixture[str], *command: str) -> str:
    """What an operator's command prints of that server's database."""
    capture.readouterr()
    status = cli.run(["--database", server.url("cmd"), *command])
    out, err = capture.readouterr()
    assert (status, err) == (0, "")
    return out


def test_a_standby_takes_over(
    cluster: Cluster, state: Path, link: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two standbys is enough, and answers the operator. When the primary is gone, the one that is further on
    is promoted, and the other one follows it. The CMD finds it by itself, and it has all that was ever answered.
    """
    db1, db2, db3 = cluster
    with serving(configured(state, cluster.url), "--age", "60") as server, load() as clients:
        clients.grown(40)
        wait_for(lambda: held_by(db2.url("cmd"), 1))
        [prefix] = held_by(db2.url("cmd"), 1)
        for question in (
            ("audit", "who-had", prefix),
            ("audit", "trace", duid(1).hex()),
            ("audit", "anchors", "maar1"),
        ):
            assert prefix in answered(db2, capsys, *question)
        assert "maar1" in answered(db2, capsys, "maar", "list")
        for command in (("audit", "handovers"), ("status",), ("db", "check")):
            assert answered(db2, capsys, *command)

        db3.kill()
        clients.grown(40)
        assert log_lines(server, AWAY) == []
        db1.kill()
        has_lines(server, AWAY, 1)
        db3.start()
        assert received(db2) > received(db3)
        db2.promote()
        promoted = time.monotonic()
        took = clients.answered_after(promoted) - promoted
        assert took < BACK
        clients.grown(40)
        has_lines(server, RETURNED, 1)
        counters = clients.settle(server)
        lost = unanswered(log_lines(server, RETURNED)[0])
        assert counters == {"reply": clients.answered, "store-error": lost}
        assert len(log_lines(server, AWAY)) == 1
        clients.ledger.verify(db2.url("cmd"))
        wait_for(lambda: replayed(db3) >= written(db2))
        clients.ledger.verify(db3.url("cmd"))
        print(f"\nanswered {took * 1000:.0f} ms after the standby was promoted")


def test_no_standby_is_there(cluster: Cluster, state: Path, maar1: Relay) -> None:
    """Nothing is answered. A primary that is started again shows what it has committed and no standby has: who asks
    again waits, too, until one is back.
    """
    db1, db2, db3 = cluster
    question = node(1, m.RAPID_COMMIT, m.ia_pd())
    with serving(configured(state, cluster.url)) as server:
        db2.kill()
        db3.kill()
        maar1.send(question)
        has_lines(server, "no answer within 3 s", 1)
        db1.kill()
        db1.start()
        [promised] = held_by(db1.url("cmd"), 1)
        maar1.send(question)
        has_counted(server, "store-error", 2)
        assert not maar1.has_answer()
        db2.start()
        ledger = Ledger()
        ledger.note(maar1.ask(question), 0)
        has_lines(server, RETURNED, 1)
        wait_for(lambda: replayed(db2) >= written(db1))
        assert held_by(db2.url("cmd"), 1) == {promised}
        ledger.verify(db2.url("cmd"))
