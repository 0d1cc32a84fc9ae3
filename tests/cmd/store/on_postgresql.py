"""What the tests of PostgreSQL share: a database, another CMD on it, and what it is to wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from dhcp_cmd.core.model import (
    MICROS,
    EventType,
    PutBinding,
    PutNode,
    Record,
)
from dhcp_cmd.store import (
    SqlStore,
    open_store,
    tables,
)
from dhcp_cmd.store.engine import reading
from tests.cmd.store import databases
from tests.cmd.store.domain import (
    a_binding,
    a_node,
    event,
    opened,
    the_pool,
    url_of,
)

DAY = 86_400 * MICROS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    with opened("postgresql", tmp_path) as made:
        yield made


@pytest.fixture
def other(store: SqlStore, tmp_path: Path) -> Iterator[SqlStore]:
    """Another CMD on the same database."""
    made = open_store(url_of(store, tmp_path), busy_timeout=30)
    yield made
    made.close()


@pytest.fixture
def empty() -> Iterator[str]:
    """The URL of a database without tables."""
    with databases.new("empty", lambda url: None) as url:
        yield url


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def a_new_node(store: SqlStore, number: int) -> None:
    with store.transaction() as transaction:
        binding = a_binding(the_pool(transaction.domain()), number, number)
        transaction.write(
            [
                PutNode(a_node(number), True),
                PutBinding(binding, True),
                Record(event(EventType.ASSIGNED, binding)),
            ]
        )
        transaction.commit()


def nodes_in(store: SqlStore) -> set[int]:
    with reading(store.engine) as connection:
        return set(connection.scalars(select(tables.mobile_node.c.id)))


def waits(store: SqlStore, count: int = 1) -> None:
    """Until so many sessions of the store's database wait for a lock."""
    done = threading.Event()
    while True:
        with reading(store.engine) as connection:
            waiting = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).scalar_one()
        if waiting == count:
            return
        done.wait(0.005)


def executed(store: SqlStore, sql: str) -> None:
    with store.administration() as connection:
        connection.exec_driver_sql(sql)
