"""What the tables of a MAAR's TOML file have in common: addresses, tables, and how a fault is told."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from dmm_wire.address import parse_address, parse_mac


class ConfigError(Exception):
    """The configuration cannot be used. `lines` holds one clear line for each fault."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _address(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be an IPv6 address in quotes")
    try:
        return parse_address(value)
    except ValueError:
        raise ValueError(f"not an IPv6 address: {value!r}") from None


def _unicast(value: bytes) -> bytes:
    address = ipaddress.IPv6Address(value)
    if (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
    ):
        raise ValueError(f"must be a global unicast address, not {address}")
    return value


_Some = TypeVar("_Some", bound=tuple[object, ...])


def not_empty(value: _Some) -> _Some:
    """Refuses an empty list."""
    if not value:
        raise ValueError("at least one is needed")
    return value


def _link_layer(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be a link-layer address in quotes")
    try:
        return parse_mac(value)
    except ValueError:
        raise ValueError(f"not a link-layer address: {value!r}") from None


Address = Annotated[bytes, BeforeValidator(_address)]
Unicast = Annotated[Address, AfterValidator(_unicast)]
LinkLayer = Annotated[bytes, BeforeValidator(_link_layer)]


class Table(BaseModel):
    """A table: keys with hyphens, strict types, nothing unknown."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=lambda name: name.replace("_", "-"),
        arbitrary_types_allowed=True,
    )


def fault_line(source: str, text: str, fault: dict[str, Any]) -> str:
    """The line that tells of a fault which pydantic found in `text`, the content of `source`."""
    location = fault["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(
        "."
    )
    message = {
        "missing": "is missing",
        "extra_forbidden": "is not a key of this file",
    }.get(fault["type"]) or str(fault["msg"]).removeprefix("Value error, ")
    # What is missing has no line of its own: name the table it is missing from.
    line = _line_number(text, location[:-1] if fault["type"] == "missing" else location)
    place = f"{source}:{line}" if line else source
    return f"{place}: {key}: {message}" if key else f"{place}: {message}"


def _line_number(text: str, location: tuple[int | str, ...]) -> int | None:
    """The line of the key at `location`, by a walk over table headers; None where the key is not written out."""
    names = [part for part in location if isinstance(part, str)]
    if not names:
        return None
    wanted_index = next((part for part in location if isinstance(part, int)), 0)
    *tables, name = names
    table, index = "", -1
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if header := re.match(r"\[\[?\s*([^\]\s]+)\s*\]\]?", stripped):
            if header[1] != table:
                table, index = header[1], -1
            index += 1
            if table == ".".join(names) and index == wanted_index:
                return number
            continue
        key = stripped.split("=", 1)[0].strip().strip("\"'")
        if key == name and table == ".".join(tables) and (not table or index == wanted_index):
            return number
    return None
