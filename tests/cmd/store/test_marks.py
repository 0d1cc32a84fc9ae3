"""The marks that make replay impossible over restarts: one contract, in every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest

from dhcp_cmd.core.model import Micros
from dhcp_cmd.pmip.authenticated import Marks
from dhcp_cmd.store import SCHEMA_VERSION, SqlStore, StoreError, maintenance, open_store, upgrade
from dhcp_cmd.store.marks import SqlMarks
from dhcp_cmd.store.prune import prune
from dmm_wire.address import parse_address
from dmm_wire.mobility.replay import SECOND, from_microseconds, microseconds, timestamp
from tests.cmd.memory_store import MemoryMarks
from tests.cmd.store.domain import ENGINES, T0, opened, url_of, without_routers

ONE, TWO = (parse_address(f"2001:db8:ff::{n}") for n in (1, 2))
HERE, THERE = "2001:db8::53", "2001:db8::54"

Restarted = Callable[[], Marks]
"""The same marks, as the next process has them."""


@pytest.fixture(params=["memory", *ENGINES])
def marks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restarted]:
    if request.param == "memory":
        kept = MemoryMarks()
        yield lambda: kept
        return
    with opened(request.param, tmp_path) as store:
        others: list[SqlStore] = []

        def restarted() -> Marks:
            others.append(open_store(url_of(store, tmp_path)))
            return SqlMarks(others[-1], HERE)

        yield restarted
        for each in others:
            each.close()


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    with opened(request.param, tmp_path) as made:
        yield made


def test_there_are_none_at_first(marks: Restarted) -> None:
    assert marks().read() == {}


def test_what_was_written_is_there_after_a_restart(marks: Restarted) -> None:
    marks().write({ONE: T0, TWO: T0 + 1})
    assert marks().read() == {ONE: T0, TWO: T0 + 1}
    marks().write({TWO: T0 + 7})
    assert marks().read() == {ONE: T0, TWO: T0 + 7}


def test_none_goes_back(marks: Restarted) -> None:
    marks().write({ONE: T0, TWO: T0})
    marks().write({ONE: T0 - 1, TWO: T0 + 1})
    marks().write({ONE: T0 - 1})
    assert marks().read() == {ONE: T0, TWO: T0 + 1}


def test_nothing_to_write_is_no_error(marks: Restarted) -> None:
    marks().write({})
    assert marks().read() == {}


@pytest.mark.parametrize("micros", [0, 1, T0, T0 + 999_999, 4_102_444_800 * 1_000_000])
def test_a_time_is_what_it_was(marks: Restarted, micros: Micros) -> None:
    marks().write({ONE: micros})
    assert marks().read() == {ONE: micros}


def test_each_cmd_has_its_own(store: SqlStore) -> None:
    here, there = SqlMarks(store, HERE), SqlMarks(store, THERE)
    here.write({ONE: T0})
    assert there.read() == {}
    there.write({ONE: T0 - 5})
    assert (here.read(), there.read()) == ({ONE: T0}, {ONE: T0 - 5})


def test_two_processes_at_one_address_leave_the_later(store: SqlStore, tmp_path: Path) -> None:
    """An old one that is not gone yet, and a new one."""
    barrier = Barrier(2)
    failed: list[Exception] = []

    def write(first: int) -> None:
        other = open_store(url_of(store, tmp_path), busy_timeout=10.0)
        try:
            barrier.wait()
            for number in range(first, 40, 2):
                SqlMarks(other, HERE).write({ONE: T0 + number, TWO: T0 + 40 - number})
        except Exception as error:
            failed.append(error)
        finally:
            other.close()

    threads = [Thread(target=write, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert SqlMarks(store, HERE).read() == {ONE: T0 + 39, TWO: T0 + 40}


def test_what_cannot_be_written_is_said(store: SqlStore) -> None:
    with store.administration() as connection:
        connection.exec_driver_sql("ALTER TABLE replay_mark RENAME TO gone")
    with pytest.raises(StoreError):
        SqlMarks(store, HERE).write({ONE: T0})
    with pytest.raises(StoreError):
        SqlMarks(store, HERE).read()


def test_they_are_nobodys_and_stay(store: SqlStore) -> None:
    """A prune forgets nodes; the marks are about MAARs."""
    SqlMarks(store, HERE).write({ONE: T0})
    prune(store, T0 + 1, T0 + 2, lambda _: None)
    assert SqlMarks(store, HERE).read() == {ONE: T0}
    assert maintenance.check(store) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_database_gets_its_marks(engine: str, tmp_path: Path) -> None:
    with opened(engine, tmp_path) as store:
        url = url_of(store, tmp_path)
        with store.administration() as connection:
            without_routers(connection)
            connection.exec_driver_sql("DROP TABLE replay_mark")
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0004'")
        with pytest.raises(StoreError, match="run `dhcp-cmd db upgrade`"):
            open_store(url)
        assert upgrade(url) == ("0004", SCHEMA_VERSION)
        assert SqlMarks(store, HERE).read() == {}
        SqlMarks(store, HERE).write({ONE: T0})


def test_a_mark_in_microseconds_is_never_before_what_it_was_made_of() -> None:
    start = timestamp(1_800_000_000.0)
    for stamp in [start + n for n in (0, 1, 2, SECOND // 3, SECOND - 1, SECOND)]:
        again = from_microseconds(microseconds(stamp))
        assert stamp <= again < stamp + SECOND // 1_000_000 + 1
        assert microseconds(again) == microseconds(stamp)
    assert microseconds(timestamp(7.0)) == 7_000_000
