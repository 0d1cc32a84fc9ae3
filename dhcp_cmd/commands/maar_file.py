"""MAARs as an operator writes them: the pool option, and the TOML file of `dhcp-cmd maar import`.

[[maar]]
name = "maar1"
endpoint = "2001:db8:ffff::1"
links = ["2001:db8:1::/64"]
# relay-id = "00020000..."        (hexadecimal DUID; made of the name if not given)
# relay-address = "2001:db8::1"   (the endpoint if not given)
# router-link-local = "fe80::1"   (as which router hosts see it with router-identity dlif;
# router-link-layer = "02:00:5e:00:53:01"      made of the endpoint if not given)

[[maar.pool]]
kind = "link"                     # or "delegated"
prefix = "2001:db8:100::/40"
unit = 64                         # length of what a node gets
preferred = "1h"                  # or seconds
valid = "2h"
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dhcp_cmd.audit import parse_duration
from dhcp_cmd.commands.context import Mistake
from dhcp_cmd.core.model import Kind
from dhcp_cmd.store.admin import MaarSpec, PoolSpec
from dmm_wire.address import Prefix, parse_address, parse_mac
from dmm_wire.dhcpv6.codes import INFINITY

T = TypeVar("T")

UNIT_LENGTH = 64
PREFERRED = 3_600
VALID = 7_200

_POOL_KEYS = ("kind", "prefix", "unit", "preferred", "valid")
_ROUTER_KEYS = ("router-link-local", "router-link-layer")
_MAAR_KEYS = ("name", "endpoint", "links", "relay-id", "relay-address", *_ROUTER_KEYS, "pool")


def hex_octets(text: str) -> bytes:
    """Octets in hexadecimal, colons allowed. Raises Mistake."""
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise Mistake(f"{text!r} is not hexadecimal") from None


def parse_pool(text: str) -> PoolSpec:
    """`link=2001:db8:100::/40,unit=64,preferred=1h,valid=2h`; the first part is a must. Raises Mistake."""
    where = f"pool {text!r}"
    parts = [part.strip().partition("=") for part in text.split(",")]
    kind, equals, prefix = parts[0]
    if not equals:
        raise Mistake(f"{where}: does not begin with link=PREFIX or delegated=PREFIX")
    table: dict[str, Any] = {"kind": kind, "prefix": prefix}
    for key, equals, value in parts[1:]:
        if key not in ("unit", "preferred", "valid") or not equals:
            raise Mistake(f"{where}: {key!r} is none of unit=, preferred=, valid=")
        if key in table:
            raise Mistake(f"{where}: {key} twice")
        table[key] = int(value) if key == "unit" and value.isascii() and value.isdigit() else value
    return _pool(where, table)


def read_maars(path: Path) -> list[MaarSpec]:
    """The MAARs of a TOML file. Raises Mistake, one line with file, table and key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from error
    except ValueError as error:  # TOML or UTF-8
        raise Mistake(f"{path}: {error}") from error
    tables = document.get("maar")
    if set(document) != {"maar"} or not isinstance(tables, list):
        raise Mistake(f"{path}: has to hold tables [[maar]] and nothing else")
    return [_maar(f"{path}: maar {number}", table) for number, table in enumerate(tables, 1)]


def _maar(where: str, table: object) -> MaarSpec:
    values = _table(where, table, _MAAR_KEYS)
    name = _get(where, values, "name", str)
    where = f"{where} ({name})"
    links = _get(where, values, "links", list)
    pools = _get(where, values, "pool", list, [])
    relay_id = _get(where, values, "relay-id", str, "")
    relay_address = _get(where, values, "relay-address", str, "")
    link_local, link_layer = (_get(where, values, key, str, "") for key in _ROUTER_KEYS)
    return MaarSpec(
        name=name,
        endpoint=_read(where, "endpoint", parse_address, _get(where, values, "endpoint", str)),
        links=tuple(_read(where, "links", Prefix.parse, link) for link in links),
        pools=tuple(_pool(f"{where}: pool {n}", pool) for n, pool in enumerate(pools, 1)),
        relay_id=_read(where, "relay-id", hex_octets, relay_id) if relay_id else None,
        relay_address=_read(where, "relay-address", parse_address, relay_address)
        if relay_address
        else None,
        router_link_local=_read(where, _ROUTER_KEYS[0], parse_address, link_local)
        if link_local
        else None,
        router_link_layer=_read(where, _ROUTER_KEYS[1], parse_mac, link_layer)
        if link_layer
        else None,
    )


def _pool(where: str, table: object) -> PoolSpec:
    values = _table(where, table, _POOL_KEYS)
    kind = _get(where, values, "kind", str)
    if kind not in (Kind.LINK.value, Kind.DELEGATED.value):
        raise Mistake(f"{where}: kind {kind!r} is neither link nor delegated")
    preferred = values.get("preferred")
    valid = values.get("valid")
    return PoolSpec(
        kind=Kind(kind),
        prefix=_read(where, "prefix", Prefix.parse, _get(where, values, "prefix", str)),
        unit_length=_get(where, values, "unit", int, UNIT_LENGTH),
        preferred=PREFERRED if preferred is None else _lifetime(where, "preferred", preferred),
        valid=VALID if valid is None else _lifetime(where, "valid", valid),
    )


def _lifetime(where: str, key: str, value: object) -> int:
    if value == "infinite":
        return INFINITY
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return _read(where, key, parse_duration, str(value))


def _table(where: str, table: object, keys: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(table, dict):
        raise Mistake(f"{where}: is not a table")
    for key in table:
        if key not in keys:
            raise Mistake(f"{where}: unknown key {key!r} (known: {', '.join(keys)})")
    return table


def _get(
    where: str, table: Mapping[str, Any], key: str, kind: type[T], default: T | None = None
) -> T:
    value = table.get(key, default)
    if value is None:
        raise Mistake(f"{where}: {key} is missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Mistake(f"{where}: {key} is not a {_TYPES[kind]}")
    return value


_TYPES: Mapping[type[Any], str] = {str: "text", int: "number", list: "list"}


def _read(where: str, key: str, read: Callable[[str], T], value: object) -> T:
    if not isinstance(value, str):
        raise Mistake(f"{where}: {key}: {value!r} is not text")
    try:
        return read(value)
    except ValueError as error:
        raise Mistake(f"{where}: {key}: {error}") from error
