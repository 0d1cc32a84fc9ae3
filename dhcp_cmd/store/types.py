"""How a value looks in each engine: the one place where SQLite and PostgreSQL differ by type.

On SQLite all of these pass through untouched (integers and bytes are what it stores), which keeps the hot path
free of per-value calls.
"""

from __future__ import annotations

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


class _PerEngine(TypeDecorator[Any]):
    """A type with a native form on PostgreSQL and the plain value elsewhere.

    What comes from PostgreSQL is a plain value too (`psycopg_values.adapt`): only parameters are converted here.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = LargeBinary
    cache_ok = True

    def _native(self) -> TypeEngine[Any]:
        raise NotImplementedError

    def _parameter(self) -> type[Any] | None:
        """What PostgreSQL's driver knows the value by; None: by what it is."""
        return None

    def _plain(self) -> TypeEngine[Any]:
        return _Blob()

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The engine's own type."""
        is_native = dialect.name == "postgresql"
        return dialect.type_descriptor(self._native() if is_native else self._plain())

    def bind_processor(self, dialect: Dialect) -> _Processor | None:
        """What a parameter goes through; None: nothing."""
        convert = self._parameter() if dialect.name == "postgresql" else None
        return None if convert is None else lambda value: None if value is None else convert(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> _Processor | None:
        """A column's value goes through nothing."""
        return None


class Bytes(_PerEngine):
    """Octets: BLOB on SQLite, bytea on PostgreSQL."""

    cache_ok = True

    def _native(self) -> TypeEngine[Any]:
        return postgresql.BYTEA()


class Address(_PerEngine):
    """An IPv6 address, 16 octets: BLOB on SQLite (sorts as addresses do), inet on PostgreSQL."""

    cache_ok = True

    def _native(self) -> TypeEngine[Any]:
        return postgresql.INET()

    def _parameter(self) -> type[Any]:
        from dhcp_cmd.store.psycopg_values import Inet

        return Inet


class Time(_PerEngine):
    """Microseconds since the epoch: INTEGER on SQLite, timestamptz on PostgreSQL."""

    impl = BigInteger
    cache_ok = True

    def _native(self) -> TypeEngine[Any]:
        return postgresql.TIMESTAMP(timezone=True)

    def _parameter(self) -> type[Any]:
        from dhcp_cmd.store.psycopg_values import Instant

        return Instant

    def _plain(self) -> TypeEngine[Any]:
        return BigInteger()
