"""How a value looks in each engine: the one place where SQLite and PostgreSQL differ by type.

On SQLite all of these pass through untouched (integers and bytes are what it stores), which keeps the hot path
free of per-value calls.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, LargeBinary
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_Processor = Callable[[Any], Any]


class _Blob(UserDefinedType[bytes]):
    """A SQLite BLOB: unlike SQLAlchemy's own, it hands bytes to the driver as they are."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return "BLOB"


def to_datetime(micros: int) -> datetime:
    """Microseconds since the epoch as an aware datetime. Exact; OverflowError after the year 9999."""
    return _EPOCH + micros * _MICROSECOND


def from_datetime(value: datetime) -> int:
    """An aware datetime as microseconds since the epoch. Exact."""
    return (value - _EPOCH) // _MICROSECOND


def _to_address(packed: bytes) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(packed)


def _from_address(value: ipaddress.IPv6Address | ipaddress.IPv6Interface) -> bytes:
    return value.packed


class _PerEngine(TypeDecorator[Any]):
    """A type with a native form on PostgreSQL and the plain value elsewhere."""

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = LargeBinary
    cache_ok = True

    def _native(self) -> tuple[TypeEngine[Any], _Processor, _Processor] | None:
        """PostgreSQL's type, and what turns a value to and from it."""
        return None

    def _plain(self) -> TypeEngine[Any]:
        return _Blob()

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The engine's own type."""
        native = self._native() if dialect.name == "postgresql" else None
        return dialect.type_descriptor(native[0] if native else self._plain())

    def bind_processor(self, dialect: Dialect) -> _Processor | None:
        """What a parameter goes through; None: nothing."""
        return self._processor(dialect, 1)

    def result_processor(self, dialect: Dialect, coltype: object) -> _Processor | None:
        """What a column's value goes through; None: nothing."""
        return self._processor(dialect, 2)

    def _processor(self, dialect: Dialect, which: int) -> _Processor | None:
        native = self._native() if dialect.name == "postgresql" else None
        if native is None:
            return None
        convert: _Processor = native[1] if which == 1 else native[2]
        return lambda value: None if value is None else convert(value)


class Bytes(_PerEngine):
    """Octets: BLOB on SQLite, bytea on PostgreSQL."""

    cache_ok = True

    def _native(self) -> tuple[TypeEngine[Any], _Processor, _Processor]:
        return postgresql.BYTEA(), bytes, bytes


class Address(_PerEngine):
    """An IPv6 address, 16 octets: BLOB on SQLite (sorts as addresses do), inet on PostgreSQL."""

    cache_ok = True

    def _native(self) -> tuple[TypeEngine[Any], _Processor, _Processor]:
        return postgresql.INET(), _to_address, _from_address


class Time(_PerEngine):
    """Microseconds since the epoch: INTEGER on SQLite, timestamptz on PostgreSQL."""

    impl = BigInteger
    cache_ok = True

    def _native(self) -> tuple[TypeEngine[Any], _Processor, _Processor]:
        return postgresql.TIMESTAMP(timezone=True), to_datetime, from_datetime

    def _plain(self) -> TypeEngine[Any]:
        return BigInteger()
