"""Sessions as JSON-ready records, for the session file (RFC 8987 S-1).

Addresses and prefixes are text, lifetimes remaining seconds as of the call, null for infinity.
Whoever reads a record back may add `age`, the seconds since it was written. Reading raises
ValueError for what is no record of ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from dmm_wire.address import Prefix, format_address, parse_address
from dmm_wire.identity import Identity
from dmm_wire.router_identity import RouterIdentity
from relay_maar.core.session import Attachment, Entry, Role, Session, Signalled, remaining
from relay_maar.core.signalling import Binding, Exchange

DOMAIN_NAME: Final = Identity(0, b"domain")
"""Under this name the domain's MAARs are in the file; subtype 0 is reserved (RFC 4283), so no node
has it."""


# Few of them are asked for again and again: the domain's endpoints.
_text = lru_cache(maxsize=4096)(format_address)


def mark_name(peer: bytes) -> Identity:
    """Under this name a peer's mark (see `dmm_wire.mobility.guard`) is in the file."""
    return Identity(0, b"mark" + peer)


def mark_record(peer: bytes, mark: int) -> dict[str, Any]:
    """The record of the latest timestamp that was accepted from a peer."""
    return {"kind": "mark", "endpoint": _text(peer), "timestamp": mark}


def read_mark(record: Mapping[str, Any]) -> tuple[bytes, int]:
    """The peer and the timestamp in a record of kind `mark`."""
    with _Reading():
        return parse_address(record["endpoint"]), int(record["timestamp"])


class Told(NamedTuple):
    """An exchange as it was saved: what a peer is to know, and how long what it acknowledged lasts
    (None: it did not)."""

    peer: bytes
    binding: Binding
    granted: float | None


def domain_record(peers: frozenset[bytes], mode: int) -> dict[str, Any]:
    """The record of the domain's other MAARs, and of its mode (`dmm.SignallingMode`)."""
    return {"kind": "domain", "endpoints": sorted(map(_text, peers)), "mode": mode}


def read_domain(record: Mapping[str, Any]) -> tuple[frozenset[bytes], int]:
    """The endpoints, and the mode, in a record of kind `domain`."""
    with _Reading():
        peers = frozenset(parse_address(each) for each in record["endpoints"])
        return peers, int(record.get("mode", 0))


def session_record(
    session: Session, exchanges: Mapping[bytes, Exchange], now: float
) -> dict[str, Any]:
    """The record of a session and of its exchanges with peers."""
    record: dict[str, Any] = {
        "kind": "session",
        "identity": str(session.identity),
        "generation": session.generation,
        "serving": _text(session.serving),
        "previous": _text(session.previous),
        "prefixes": [_entry_record(entry, now) for entry in session.entries],
        "peers": [_told(peer, each, now) for peer, each in exchanges.items() if not each.over],
    }
    if session.signalled is not None:
        record["signalled"] = {
            "awaited": [_entry_record(entry, now) for entry in session.signalled.awaited],
            "doubted": session.signalled.doubted,
        }
    if session.speaker is not None:
        record |= {"speaker": session.speaker.hex(), "returning": session.returning}
    if session.attachment is not None:
        interface, link_layer = session.attachment.interface, session.attachment.link_layer
        record["attachment"] = {
            "interface": interface,
            "link_local": _text(session.attachment.link_local),
            "link_layer": None if link_layer is None else link_layer.hex(),
        }
    return record


def _entry_record(entry: Entry, now: float) -> dict[str, Any]:
    record: dict[str, Any] = {
        "prefix": str(entry.prefix),
        "role": entry.role.value,
        "anchor": _text(entry.anchor),
        "lifetime": _seconds(entry.expires, now),
        "delegated": entry.delegated,
    }
    if entry.fading:
        record["fading"] = True
    if entry.router is not None:
        record["router"] = _router_record(entry.router)
    return record


def _told(peer: bytes, exchange: Exchange, now: float) -> dict[str, Any]:
    binding, granted = exchange.binding, exchange.granted
    return {
        "endpoint": _text(peer),
        "acknowledged": granted is not None,
        "granted": None if granted is None else _seconds(granted, now),
        "generation": binding.generation,
        "named": [[str(prefix), delegated] for prefix, delegated in binding.named],
        "served": [[_text(at), str(prefix)] for at, prefix in binding.served],
        "lifetime": _seconds(binding.until, now),
        "ends": binding.ends,
        "link_layer": None if binding.link_layer is None else binding.link_layer.hex(),
    }


def read_session(record: Mapping[str, Any], now: float) -> tuple[Session, tuple[Told, ...]]:
    """The session and its exchanges in a record of kind `session`, with `age` taken off the
    lifetimes."""
    with _Reading():
        saved = now - float(record.get("age", 0.0))
        place = record.get("attachment")
        attachment = None
        if place is not None:
            attachment = Attachment(
                str(place["interface"]),
                parse_address(place["link_local"]),
                None if place["link_layer"] is None else bytes.fromhex(place["link_layer"]),
            )
        session = Session(
            Identity.parse(record["identity"]),
            int(record["generation"]),
            parse_address(record["serving"]),
            parse_address(record["previous"]),
            attachment,
            _read_entries(record["prefixes"], saved),
            saved,
            _read_signalled(record.get("signalled"), saved),
            speaker=bytes.fromhex(record["speaker"]) if "speaker" in record else None,
            returning=bool(record.get("returning")),
        )
        return session, tuple(_read_told(each, saved) for each in record["peers"])


def _read_entries(records: Iterable[Mapping[str, Any]], saved: float) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            Prefix.parse(each["prefix"]),
            Role(each["role"]),
            parse_address(each["anchor"]),
            _until(each["lifetime"], saved),
            bool(each["delegated"]),
            bool(each.get("fading")),
            _read_router(each.get("router")),
        )
        for each in records
    )


def _router_record(router: RouterIdentity) -> dict[str, str]:
    return {"link_local": _text(router.link_local), "link_layer": router.link_layer.hex()}


def _read_router(record: Mapping[str, Any] | None) -> RouterIdentity | None:
    if record is None:
        return None
    link_layer = bytes.fromhex(record["link_layer"])
    return RouterIdentity(parse_address(record["link_local"]), link_layer)


def _read_signalled(record: Mapping[str, Any] | None, saved: float) -> Signalled | None:
    if record is None:
        return None
    return Signalled(_read_entries(record["awaited"], saved), bool(record["doubted"]))


def _read_told(record: Mapping[str, Any], saved: float) -> Told:
    link_layer = record["link_layer"]
    binding = Binding(
        int(record["generation"]),
        tuple((Prefix.parse(prefix), bool(delegated)) for prefix, delegated in record["named"]),
        tuple((parse_address(at), Prefix.parse(prefix)) for at, prefix in record["served"]),
        _until(record["lifetime"], saved),
        bool(record["ends"]),
        None if link_layer is None else bytes.fromhex(link_layer),
    )
    granted = _until(record["granted"], saved) if record["acknowledged"] else None
    return Told(parse_address(record["endpoint"]), binding, granted)


def _seconds(until: float, now: float) -> float | None:
    left = remaining(until, now)
    return None if math.isinf(left) else round(left, 3)


def _until(seconds: Any, saved: float) -> float:
    return math.inf if seconds is None else saved + float(seconds)


class _Reading:
    """Turns whatever a damaged record makes Python raise into ValueError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KeyError | TypeError | AttributeError | OverflowError):
            raise ValueError(f"a damaged record: {error!r}") from error
