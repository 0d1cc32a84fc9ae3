"""Values as each engine has them."""

from __future__ import annotations

import pytest
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.types import TypeDecorator

from dhcp_cmd.core.lifetime import NEVER
from dhcp_cmd.store import statements
from dhcp_cmd.store.psycopg_values import Inet, Instant
from dhcp_cmd.store.statements import Many
from dhcp_cmd.store.types import Address, Bytes, Time, from_datetime, to_datetime
from dmm_wire.address import parse_address

ON_SQLITE, ON_POSTGRESQL = SQLiteDialect(), PGDialect()  # type: ignore[no-untyped-call]


MANY = {name: each for name, each in vars(statements).items() if isinstance(each, Many)}


@pytest.mark.parametrize("name", MANY)
def test_sqlite_takes_rows_as_they_are(name: str) -> None:
    """What is written for each row of a batch spares the way through SQLAlchemy."""
    text = MANY[name].driver_text(ON_SQLITE)
    assert text.count("?") == len(MANY[name].columns)


def test_the_order_of_a_row_is_that_of_its_statement() -> None:
    right = statements.EXTEND_BINDING
    wrong = Many(right.statement, right.columns[::-1], right.keys)
    with pytest.raises(ValueError, match="takes"):
        wrong.driver_text(ON_SQLITE)


@pytest.mark.parametrize(
    ("kind", "value", "native"),
    [
        (Address(), parse_address("2001:db8::1"), Inet),
        (Time(), 1_800_000_000_000_001, Instant),
        (Time(), NEVER, Instant),
    ],
)
def test_postgresql_has_native_values(
    kind: TypeDecorator[object], value: object, native: type[object]
) -> None:
    bind = kind.bind_processor(ON_POSTGRESQL)
    assert bind is not None
    assert type(bind(value)) is native
    assert bind(value) == value
    assert bind(None) is None


@pytest.mark.parametrize(
    ("kind", "on_sqlite", "on_postgresql"),
    [
        (Address(), "BLOB", "INET"),
        (Time(), "BIGINT", "TIMESTAMP WITH TIME ZONE"),
        (Bytes(), "BLOB", "BYTEA"),
    ],
)
def test_types(kind: TypeDecorator[object], on_sqlite: str, on_postgresql: str) -> None:
    assert kind.compile(ON_SQLITE) == on_sqlite
    assert kind.compile(ON_POSTGRESQL) == on_postgresql
    # On SQLite nothing is called for a value.
    assert kind.bind_processor(ON_SQLITE) is kind.result_processor(ON_SQLITE, None) is None


def test_times_are_exact() -> None:
    for micros in (0, 1, 999_999, 1_800_000_000_123_457, NEVER):
        assert from_datetime(to_datetime(micros)) == micros
