"""Questions to the history. Each is a file of schema/audit/<engine>, the same that a person runs in sqlite3 or psql."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from dhcp_cmd.core.model import MICROS, Micros
from dhcp_cmd.store.engine import reading
from dhcp_cmd.store.migrate import schema_files
from dhcp_cmd.store.sql import SqlStore
from dhcp_cmd.store.types import from_datetime, to_datetime
from dmm_wire.address import Prefix, format_address, parse_address
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype

Parameter = str | int | None
Value = str | int | None

QUESTIONS = ("who_had", "trace", "anchors", "handovers")
"""The audit queries there are."""

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_OCTETS = re.compile(r"[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2})+")
_PSQL_PARAMETER = re.compile(r":'(\w+)'")
_DURATION = re.compile(r"(\d{1,9})([smhdw])")


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows with the names of their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


def question(name: str, engine: str = "sqlite") -> str:
    """The SQL of an audit query, with parameters that its first lines explain: `:name`, in psql `:'name'`."""
    return (schema_files() / "audit" / engine / f"{name}.sql").read_text(encoding="utf-8")


def ask(store: SqlStore, name: str, **parameters: Parameter) -> Answer:
    """Run an audit query. Times are microseconds since the epoch. Raises StoreError."""
    engine = store.engine.dialect.name
    text, values = question(name, engine), dict(parameters)
    if engine == "postgresql":
        # A person says text in psql, and nothing for what is open.
        text = _PSQL_PARAMETER.sub(r"%(\1)s", text.replace("%", "%%"))
        values = {key: _psql_text(value) for key, value in values.items()}
    with reading(store.engine) as connection:
        result = connection.exec_driver_sql(text, values)
        return Answer(tuple(result.keys()), tuple(tuple(row) for row in result))


def _psql_text(value: Parameter) -> str:
    if value is None:
        return ""
    return iso(value) if isinstance(value, int) else value


def who_had(store: SqlStore, what: str, at: Micros) -> Answer:
    """Who held an address or prefix (text) at a time. Raises WireError `text`, StoreError."""
    asked = str(Prefix.parse(what)) if "/" in what else format_address(parse_address(what))
    return ask(store, "who_had", address=asked, at=at)


def trace(store: SqlStore, node: Identity) -> Answer:
    """All moves of a mobile node, and what happened to its prefixes. Raises StoreError."""
    return ask(store, "trace", node=str(node))


def anchors(store: SqlStore, maar: str | None = None) -> Answer:
    """What a MAAR anchors (None: each of them) and for whom. Raises StoreError."""
    return ask(store, "anchors", maar=maar)


def handovers(store: SqlStore, since: Micros | None = None, until: Micros | None = None) -> Answer:
    """Handovers between each pair of MAARs, from `since` and before `until`. Raises StoreError."""
    return ask(store, "handovers", since=since, until=until)


# --- What people type ---


def parse_duration(text: str) -> int:
    """`90s`, `15m`, `12h`, `7d`, `2w` in seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m, 12h, 7d or 2w")
    return int(match[1]) * _UNITS[match[2]]


def parse_time(text: str, now: Micros) -> Micros:
    """`now`, `-2h` (so long ago), or ISO 8601 with a zone, such as 2026-01-31T12:00:00Z. Raises ValueError."""
    text = text.strip()
    if text == "now":
        return now
    if text.startswith("-"):
        return now - parse_duration(text[1:]) * MICROS
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: ISO 8601 with a zone, 'now', or '-2h'") from None
    if moment.tzinfo is None:
        raise ValueError(
            f"{text!r} has no zone: end it with Z for UTC, or with an offset like +02:00"
        )
    return from_datetime(moment.astimezone(UTC))


def parse_node(text: str) -> Identity:
    """A mobile node as people write it: `duid:0003...`, `eui48:02:00:5e:00:53:01`, `nai:user@realm`, or any of these
    without its kind. Raises WireError `text` or `identifier`.
    """
    text = text.strip()
    # Octets first: the "03" of 03:00:5e:00:53:01 is not the number of a kind.
    bare = _octets(text)
    if bare is not None:
        return bare
    try:
        return Identity.parse(text)
    except WireError as error:
        if "@" in text:
            return Identity.of(IdentitySubtype.NAI, text.encode())
        raise WireError("text", f"{text!r} is no DUID, link-layer address or NAI") from error


def _octets(text: str) -> Identity | None:
    """A link-layer address or DUID in hexadecimal."""
    if not _OCTETS.fullmatch(text):
        return None
    value = bytes.fromhex(re.sub("[:-]", "", text))
    separated = ":" in text or "-" in text
    kinds = {6: IdentitySubtype.EUI48, 8: IdentitySubtype.EUI64} if separated else {}
    try:
        return Identity.of(kinds.get(len(value), IdentitySubtype.DUID), value)
    except WireError:
        return None


def iso(at: Micros) -> str:
    """A time as the audit writes it: ISO 8601, UTC, microseconds."""
    return to_datetime(at).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
