"""What people read: one log line for each move of a node, its part of the status, and the names of
what is in the kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from dmm_wire.address import format_address, format_mac
from dmm_wire.identity import Identity
from dmm_wire.router_identity import FIXED, RouterIdentity
from relay_maar.core.items import AcceptFrom, Dlif, Item, Neighbour, Route, SourceRule, Tunnel
from relay_maar.core.session import Attachment, Role, Session
from relay_maar.core.settings import AgentSettings


def came(session: Session, peers: int) -> str:
    """The log line of a node's arrival here; `peers` are told."""
    place = session.attachment.interface if session.attachment is not None else "nowhere"
    told = f"PBU to {peers} {'peer' if peers == 1 else 'peers'}"
    if session.signalled is not None:
        anchors = {entry.anchor for entry in session.signalled.awaited}
        told = f"the CMD signals, {len(anchors)} anchors to come"
    previous = f" from maar {format_address(session.previous)}" if any(session.previous) else ""
    return (
        f"{session.identity} came{previous} to {place}: "
        f"{len(session.having(Role.LOCAL))} local, {len(session.having(Role.SERVED))} served "
        f"prefixes, generation {session.generation}, {told}"
    )


def changed_place(before: Session, session: Session) -> str:
    """The log line of a node's move from one of our access links to another, or on one."""
    return (
        f"{session.identity} moved from {_where(before.attachment)} to {_where(session.attachment)}"
    )


def conflict(identity: Identity, attachment: Attachment, holder: Session) -> str:
    """The log line of a node that comes to where the packets of another go."""
    return (
        f"{identity} is not served at {_where(attachment)}: that is the place of "
        f"{holder.identity}, {_where(holder.attachment)}"
    )


def _where(attachment: Attachment | None) -> str:
    if attachment is None:
        return "nowhere"
    link_layer = attachment.link_layer
    by = f" ({format_mac(link_layer)})" if link_layer is not None else ""
    return f"{attachment.interface} {format_address(attachment.link_local)}{by}"


def went(session: Session) -> str:
    """The log line of a node's move to another MAAR."""
    anchored, forwarded = session.having(Role.ANCHORED), session.having(Role.FORWARDED)
    return (
        f"{session.identity} went to maar {format_address(session.serving)}: "
        f"{len(anchored)} anchored, {len(forwarded)} forwarded prefixes, "
        f"generation {session.generation}"
    )


def stays_away(session: Session) -> str:
    """The log line of a node that does not answer and is still served."""
    return f"{session.identity} is silent at {_where(session.attachment)}; its prefixes stay"


def was_lost(session: Session, prefixes: int) -> str:
    """The log line of a node that does not answer any more, and was de-registered or is elsewhere."""
    return f"{session.identity} is gone from {_where(session.attachment)}: {prefixes} prefixes end"


def named(item: Item) -> str:
    """What an item of the kernel is called in a log line."""
    match item:
        case Route(prefix):
            return f"route {prefix}"
        case SourceRule(prefix):
            return f"route from {prefix}"
        case Neighbour(interface, address):
            return f"neighbour {format_address(address)} on {interface}"
        case Dlif(interface, identity):
            return f"router {format_address(identity.link_local)} on {interface}"
        case Tunnel(peer):
            return f"tunnel to maar {format_address(peer)}"
        case AcceptFrom(peer):
            return f"tunnel from maar {format_address(peer)}"


def routers_status(settings: AgentSettings, sessions: Iterable[Session]) -> list[dict[str, Any]]:
    """As which routers hosts see us on which link: first as ourselves, and then as the anchors of nodes that are there,
    each with the number of its nodes."""
    own = FIXED if settings.identity is None else settings.identity
    shown: Counter[tuple[str, bytes, RouterIdentity]] = Counter()
    for link in settings.access:
        shown[link.interface, settings.endpoint, own._replace(link_layer=link.link_layer)] = 0
    ours = dict(shown)
    for session in sessions:
        if session.attachment is not None:
            interface = session.attachment.interface
            shown.update(key for key in ours if key[0] == interface)
            served = session.having(Role.SERVED)
            anchors = ((interface, e.anchor, e.router) for e in served if e.router is not None)
            shown.update(dict.fromkeys(anchors, 1))
    return [
        {
            "interface": interface,
            "link_local": format_address(router.link_local),
            "link_layer": format_mac(router.link_layer),
            "anchor": format_address(anchor),
            "nodes": nodes,
        }
        for (interface, anchor, router), nodes in shown.items()
    ]


def session_status(record: dict[str, Any], session: Session, present: bool) -> dict[str, Any]:
    """The session's record, made for people and for programs that watch. `present`: the node is here,
    and has not left without a word."""
    status = {key: value for key, value in record.items() if key != "kind"}
    status["here"] = session.here
    status["present"] = present
    for peer in status["peers"]:
        del peer["link_layer"], peer["served"]
    if session.attachment is not None and session.attachment.link_layer is not None:
        status["attachment"]["link_layer"] = format_mac(session.attachment.link_layer)
    return status
