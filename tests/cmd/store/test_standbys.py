"""A commit that waits for a standby which is not there, as the store meets it (tests/cmd/server/test_failover.py has
the whole of it).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Connection, create_engine

from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store import SqlStore, admin, open_store
from lab.netns import wait_for
from lab.postgres import Postgres, private
from tests.cmd.store.domain import maar_spec
from tests.cmd.store.on_postgresql import a_new_node, nodes_in, pool

__all__ = ["pool"]

pytestmark = pytest.mark.needs("postgres")


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A server with the database `cmd`."""
    with TemporaryDirectory(prefix="dmm-") as folder, private(Path(folder)) as made:
        made.create("cmd")
        with closing(open_store(made.url("cmd"), create=True)) as store:
            admin.add_maars(store, [maar_spec(1)])
        yield made


@pytest.fixture
def operator(server: Postgres) -> Iterator[Connection]:
    """Somebody's session that commits nothing."""
    engine = create_engine(server.url("cmd"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def postgres(server: Postgres, operator: Connection) -> Iterator[Postgres]:
    """It waits for a standby, and there is none."""
    waits_for(operator, "nobody")
    yield server
    waits_for(operator, "")


def waits_for(operator: Connection, names: str) -> None:
    """Set whom every commit waits for; who waits already learns of it."""
    operator.exec_driver_sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
    operator.exec_driver_sql("SELECT pg_reload_conf()")
    wait_for(
        lambda: operator.exec_driver_sql("SHOW synchronous_standby_names").scalar() == names,
        timeout=10,
        what="the setting",
        interval=0.01,
    )


def waiting(operator: Connection) -> int:
    """Sessions that wait for a standby."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    return int(operator.exec_driver_sql(query).scalar_one())


@pytest.fixture
def store(postgres: Postgres) -> Iterator[SqlStore]:
    with closing(open_store(postgres.url("cmd"))) as made:
        yield made


@pytest.mark.parametrize(
    ("number", "end", "message"),
    [
        (1, "pg_cancel_backend", "canceling wait for synchronous replication"),
        (2, "pg_terminate_backend", "closed the connection"),
    ],
)
def test_a_commit_that_waits_no_longer_is_no_commit(
    operator: Connection,
    store: SqlStore,
    pool: ThreadPoolExecutor,
    number: int,
    end: str,
    message: str,
) -> None:
    """The rows are there, and may be lost with this server: nobody may be told."""
    work = pool.submit(a_new_node, store, number)
    wait_for(lambda: waiting(operator), timeout=10, what="the commit", interval=0.01)
    ended = f"SELECT {end}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    assert operator.exec_driver_sql(ended).scalar()
    with pytest.raises(StoreError, match=message):
        work.result(10)
    assert number in nodes_in(store)


def test_a_session_that_was_given_up_goes_on_waiting(
    operator: Connection, postgres: Postgres, store: SqlStore
) -> None:
    """Neither its client's going nor a timeout of the server shows its rows to others before a standby has them."""
    with closing(open_store(postgres.url("cmd"), busy_timeout=0.1, serving=True)) as impatient:
        with pytest.raises(StoreError, match="no answer within"):
            a_new_node(impatient, 3)
        assert waiting(operator) == 1
        assert 3 not in nodes_in(store)
        waits_for(operator, "")
        wait_for(lambda: 3 in nodes_in(store), timeout=10, what="its release", interval=0.01)
