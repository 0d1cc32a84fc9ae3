"""Values as each engine has them."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv6Address

import pytest
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.types import TypeDecorator

from dhcp_cmd.core.lifetime import NEVER
from dhcp_cmd.store import statements
from dhcp_cmd.store.statements import Many
from dhcp_cmd.store.types import Address, Bytes, Time, from_datetime, to_datetime
from dmm_wire.address import parse_address

ON_SQLITE, ON_POSTGRESQL = SQLiteDialect(), PGDialect()  # type: ignore[no-untyped-call]


MANY = {name: each for name, each in vars(statements).items() if isinstance(each, Many)}


@pytest.mark.parametrize("name", MANY)
def test_sqlite_takes_rows_as_they_are(name: str) -> None:
    """What is written for each row of a batch spares the way through SQLAlchemy; other engines convert values."""
    text = MANY[name].driver_text(ON_SQLITE)
    assert text is not None
    assert text.count("?") == len(MANY[name].parameters)
    assert MANY[name].driver_text(ON_POSTGRESQL) is None


def test_the_order_of_a_row_is_that_of_its_statement() -> None:
    wrong = Many(statements.EXTEND_BINDING.statement, ("valid_until", "preferred_until", "key_"))
    with pytest.raises(ValueError, match="takes"):
        wrong.driver_text(ON_SQLITE)


@pytest.mark.parametrize(
    ("kind", "value", "native"),
    [
        (Address(), parse_address("2001:db8::1"), IPv6Address("2001:db8::1")),
        (Time(), 1_800_000_000_000_001, datetime(2027, 1, 15, 8, 0, 0, 1, UTC)),
        (Time(), NEVER, datetime(9999, 12, 31, 23, 59, 59, 0, UTC)),
        (Bytes(), b"\x00\x03", b"\x00\x03"),
    ],
)
def test_postgresql_has_native_values(
    kind: TypeDecorator[object], value: object, native: object
) -> None:
    bind = kind.bind_processor(ON_POSTGRESQL)
    result = kind.result_processor(ON_POSTGRESQL, None)
    assert bind is not None
    assert result is not None
    assert bind(value) == native
    assert result(native) == value
    assert bind(None) is result(None) is None


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
