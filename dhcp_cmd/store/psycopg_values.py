"""Values between psycopg and us, without an object for each: addresses are 16 octets, times are microseconds.

All of it is PostgreSQL's binary format. What a batch writes goes as one array for each column, put together here:
psycopg would call a function of Python for every element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any

import psycopg
from psycopg import Cursor, ServerCursor
from psycopg.abc import Buffer
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format

_EPOCH = 946_684_800_000_000
"""PostgreSQL counts from 2000-01-01, we from 1970-01-01, both in microseconds."""
_INET = b"\x03\x80\x00\x10"
"""What a single IPv6 address begins with: family, 128 bits, no cidr, 16 octets."""

_INT64 = Struct(">q")
_pack_int64, _unpack_int64 = _INT64.pack, _INT64.unpack


class Inet(bytes):
    """An address as a parameter of a statement of SQLAlchemy's."""


class Instant(int):
    """A time as such a parameter."""


class Array(bytes):
    """A whole array, packed by `arrays`. Its type is that of the place where it stands."""


class _InetDumper(Dumper):
    format = Format.BINARY
    oid = 869

    def dump(self, obj: Inet) -> Buffer:
        return _INET + obj


class _InstantDumper(Dumper):
    format = Format.BINARY
    oid = 1184

    def dump(self, obj: Instant) -> Buffer:
        return _pack_int64(obj - _EPOCH)


class _ArrayDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: Array) -> Buffer:
        return obj


class _InetLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data[4:])


class _InstantLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        micros: int = _unpack_int64(data)[0]
        return micros + _EPOCH


class _BinaryCursor(Cursor[Any]):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.format = Format.BINARY


class _BinaryServerCursor(ServerCursor[Any]):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.format = Format.BINARY


def adapt(connection: Any) -> None:
    """Teach a connection to speak so."""
    assert isinstance(connection, psycopg.Connection)
    adapters = connection.adapters
    adapters.register_dumper(Inet, _InetDumper)
    adapters.register_dumper(Instant, _InstantDumper)
    adapters.register_dumper(Array, _ArrayDumper)
    adapters.register_loader("inet", _InetLoader)
    adapters.register_loader("timestamptz", _InstantLoader)
    connection.cursor_factory = _BinaryCursor
    connection.server_cursor_factory = _BinaryServerCursor


# --- arrays ---

_HEAD = Struct(">iiIii").pack
_NULL = b"\xff\xff\xff\xff"
_pack_size = Struct(">i").pack
_pack_int16 = Struct(">ih").pack
_pack_int32 = Struct(">ii").pack
_pack_sized_int64 = Struct(">iq").pack
_SIZED_INET = _pack_size(20) + _INET

Encode = Callable[[Sequence[Any]], list[bytes]]


def _int16(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if value is None else _pack_int16(2, value) for value in values]


def _int32(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if value is None else _pack_int32(4, value) for value in values]


def _int64(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if value is None else _pack_sized_int64(8, value) for value in values]


def _times(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if value is None else _pack_sized_int64(8, value - _EPOCH) for value in values]


def _inets(values: Sequence[bytes | None]) -> list[bytes]:
    return [_NULL if value is None else _SIZED_INET + value for value in values]


def _byteas(values: Sequence[bytes | None]) -> list[bytes]:
    return [_NULL if value is None else _pack_size(len(value)) + value for value in values]


def _texts(values: Sequence[str | None]) -> list[bytes]:
    return _byteas([None if value is None else value.encode() for value in values])


_ENCODERS: dict[str, tuple[int, Encode]] = {
    "smallint": (21, _int16),
    "integer": (23, _int32),
    "bigint": (20, _int64),
    "timestamp with time zone": (1184, _times),
    "inet": (869, _inets),
    "bytea": (17, _byteas),
    "text": (25, _texts),
}


def array(kind: str, values: Sequence[Any]) -> Array:
    """An array of the type named `kind`."""
    oid, encode = _ENCODERS[kind]
    return Array(_HEAD(1, 1, oid, len(values), 1) + b"".join(encode(values)))


def arrays(kinds: Iterable[str | None], rows: Iterable[Sequence[Any]]) -> list[Array]:
    """The columns of `rows`, an array for each; None for a kind leaves a column out."""
    columns = zip(*rows, strict=True)
    return [array(kind, values) for kind, values in zip(kinds, columns, strict=True) if kind]
