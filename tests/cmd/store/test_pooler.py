"""What a pooler needs that hands connections on after each transaction, and knows no prepared statements."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhcp_cmd.core.model import Lookup
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store import SqlStore, maintenance, open_store, parse_url
from tests.cmd.store.domain import duid, url_of
from tests.cmd.store.on_postgresql import a_new_node, nodes_in, store

__all__ = ["store"]

pytestmark = pytest.mark.needs("postgres")

NONE = "&prepare_threshold=None"


def prepared(store: SqlStore) -> int:
    """Statements that the session keeps after a batch."""
    a_new_node(store, 1 + len(nodes_in(store)))
    with store.transaction() as transaction:
        transaction.read([Lookup((duid(1),), ())])
        query = "SELECT count(*) FROM pg_prepared_statements"
        return int(transaction.connection.exec_driver_sql(query).scalar_one())


def test_nothing_is_prepared_where_the_url_says_so(store: SqlStore, tmp_path: Path) -> None:
    pooled = open_store(url_of(store, tmp_path) + NONE)
    try:
        assert prepared(pooled) == 0
    finally:
        pooled.close()
    assert prepared(store) > 3
    assert nodes_in(store) == {1, 2}


def test_a_transaction_leaves_nothing_in_the_session(store: SqlStore, tmp_path: Path) -> None:
    """Each setting that it makes is its own."""
    query = "SELECT name || '=' || setting FROM pg_settings WHERE source = 'session'"
    pooled = open_store(url_of(store, tmp_path) + NONE)
    try:
        with pooled.transaction() as transaction:
            inside = set(transaction.connection.exec_driver_sql(query).scalars())
            transaction.commit()
            driver = transaction.connection.connection.driver_connection
            assert driver is not None
            after = {row[0] for row in driver.execute(query.encode())}
        assert "lock_timeout=2000" in inside
        assert not after & inside
    finally:
        pooled.close()


@pytest.mark.needs("pg_dump")
def test_a_backup_goes_by_the_same_url(store: SqlStore, tmp_path: Path) -> None:
    pooled = open_store(url_of(store, tmp_path) + NONE)
    try:
        maintenance.backup(pooled, tmp_path / "backup")
    finally:
        pooled.close()
    assert (tmp_path / "backup").read_bytes().startswith(b"PGDMP")


def test_another_threshold_is_refused() -> None:
    with pytest.raises(StoreError, match="prepare_threshold"):
        parse_url("postgresql:///cmd?prepare_threshold=5")
