"""Values as each engine has them."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv6Address

import pytest
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.types import TypeDecorator

from dhcp_cmd.core.lifetime import NEVER
from dhcp_cmd.store.types import Address, Bytes, Time, from_datetime, to_datetime
from dmm_wire.address import parse_address

ON_SQLITE, ON_POSTGRESQL = SQLiteDialect(), PGDialect()  # type: ignore[no-untyped-call]


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
