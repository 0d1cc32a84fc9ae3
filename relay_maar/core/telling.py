"""What people read of a session: one log line for each move, and its part of the status."""

from __future__ import annotations

from typing import Any

from dmm_wire.address import format_address, format_mac
from relay_maar.core.session import Role, Session


def came(session: Session, peers: int) -> str:
    """The log line of a node's arrival here; `peers` are told."""
    place = session.attachment.interface if session.attachment is not None else "nowhere"
    previous = f" from maar {format_address(session.previous)}" if any(session.previous) else ""
    return (
        f"{session.identity} came{previous} to {place}: "
        f"{len(session.having(Role.LOCAL))} local, {len(session.having(Role.SERVED))} served "
        f"prefixes, generation {session.generation}, "
        f"PBU to {peers} {'peer' if peers == 1 else 'peers'}"
    )


def went(session: Session) -> str:
    """The log line of a node's move to another MAAR."""
    anchored, forwarded = session.having(Role.ANCHORED), session.having(Role.FORWARDED)
    return (
        f"{session.identity} went to maar {format_address(session.serving)}: "
        f"{len(anchored)} anchored, {len(forwarded)} forwarded prefixes, "
        f"generation {session.generation}"
    )


def session_status(record: dict[str, Any], session: Session) -> dict[str, Any]:
    """The session's record, made for people and for programs that watch."""
    status = {key: value for key, value in record.items() if key != "kind"}
    status["here"] = session.here
    for peer in status["peers"]:
        del peer["link_layer"], peer["served"]
    if session.attachment is not None and session.attachment.link_layer is not None:
        status["attachment"]["link_layer"] = format_mac(session.attachment.link_layer)
    return status
