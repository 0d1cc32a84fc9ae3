"""What the database says, after a run, of the messages that were sent and of those that were answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select

from bench.domain import MAARS
from bench.packets import mac
from dhcp_cmd.core.model import EventType, Kind, State
from dhcp_cmd.store import SqlStore
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import reading
from dmm_wire.address import Prefix
from dmm_wire.identity import IdentitySubtype


@dataclass(frozen=True, slots=True)
class Sent:
    """The messages sent since the state was fresh: message k is of node `node(k)` through MAAR `maar(k)` (an index of
    MAARS), with transaction id k; `answered[k]` says whether a Reply came. Node n was at MAAR `begin(n)` before.
    """

    answered: Sequence[bool]
    node: Callable[[int], int]
    maar: Callable[[int], int]
    begin: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: `answered` messages, and `written` handovers (or extended leases) in the database. Of these
    `unanswered` are of messages whose Reply never came: it was lost, or the server stopped between commit and send. Of
    those, `at_home` wrote none, because the moves before them were lost and the node was there already.
    So written = answered - at_home + unanswered.
    """

    answered: int = 0
    written: int = 0
    unanswered: int = 0
    at_home: int = 0
    problems: tuple[str, ...] = ()

    def and_also(self, other: Verdict) -> Verdict:
        """Both together."""
        return Verdict(
            self.answered + other.answered,
            self.written + other.written,
            self.unanswered + other.unanswered,
            self.at_home + other.at_home,
            (*self.problems, *other.problems),
        )


def last_event(connection: Connection) -> int:
    """The newest row of the history; 0 where there is none."""
    return int(connection.execute(select(func.max(t.history.c.id))).scalar() or 0)


def read_prefixes(store: SqlStore, size: int) -> tuple[list[bytes], int]:
    """The delegated prefix of each node, its first 8 octets, and the newest row of the history."""
    prefixes = [b""] * size
    query = (
        select(t.node_identity.c.value, t.binding.c.prefix)
        .join(t.binding, t.binding.c.node_id == t.node_identity.c.node_id)
        .where(t.node_identity.c.subtype == IdentitySubtype.DUID)
        .where(t.binding.c.kind == Kind.DELEGATED.value)
    )
    with reading(store.engine) as connection:
        for value, prefix in connection.execute(query):
            prefixes[_node_of(value)] = prefix[:8]
        return prefixes, last_event(connection)


def handovers(store: SqlStore, sent: Sent, after: int) -> Verdict:
    """Check that every message that was answered moved its node, once, unless it was there; that every handover in the
    history since row `after` is of one of the messages; that each node is where its last one put it, with a prefix of
    its own there; and that no two prefixes overlap.
    """
    problems: list[str] = []
    with reading(store.engine) as connection:
        moves, strange = _moves(connection, sent, after)
        _count(problems, len(moves) - len(set(moves)), "handovers that are in the history twice")
        _count(problems, strange, "handovers by messages that nobody sent, or to another MAAR")
        at_home, wrong, where = _follow(sent, moves)
        _count(problems, wrong, "answered messages without their handover, or out of order")
        serving = _serving(connection)
        _count(
            problems,
            sum(serving.get(node) != MAARS[maar].name for node, maar in where.items()),
            "nodes that are not where their last handover put them",
        )
        _count(problems, _nodes_without_prefix(connection), "nodes without a prefix where they are")
        _count(problems, _overlaps(connection), "prefixes that overlap another")
    return Verdict(
        answered=sum(sent.answered),
        written=len(moves),
        unanswered=sum(not sent.answered[message] for message in moves),
        at_home=at_home,
        problems=tuple(problems),
    )


def _moves(connection: Connection, sent: Sent, after: int) -> tuple[list[int], int]:
    """The messages that the handovers since row `after` are of, in their order; and how many are of none."""
    names = {row.id: row.name for row in connection.execute(select(t.maar.c.id, t.maar.c.name))}
    query = (
        select(t.node_identity.c.value, t.history.c.transaction_id, t.history.c.to_maar_id)
        .join(t.node_identity, t.node_identity.c.node_id == t.history.c.node_id)
        .where(t.node_identity.c.subtype == IdentitySubtype.DUID)
        .where(t.history.c.id > after)
        .where(t.history.c.type == EventType.HANDOVER.value)
        .order_by(t.history.c.id)
    )
    moves, strange = [], 0
    for value, xid, to in connection.execute(query):
        message = int.from_bytes(xid, "big")
        if (
            message < len(sent.answered)
            and sent.node(message) == _node_of(value)
            and MAARS[sent.maar(message)].name == names[to]
        ):
            moves.append(message)
        else:
            strange += 1
    return moves, strange


def _follow(sent: Sent, moves: Sequence[int]) -> tuple[int, int, dict[int, int]]:
    """Follow every node from message to message: how many were answered where the node was already, how many are not
    as they must be, and where (an index of MAARS) each node that was heard of is in the end.
    """
    moved = set(moves)
    where: dict[int, int] = {}
    newest: dict[int, int] = {}
    at_home, wrong = 0, 0
    for message in moves:  # in the order of the history
        node = sent.node(message)
        wrong += newest.get(node, -1) > message
        newest[node] = message
    for message, answered in enumerate(sent.answered):
        node, maar = sent.node(message), sent.maar(message)
        was = where.get(node, sent.begin(node))
        if message in moved:
            wrong += was == maar
            where[node] = maar
        elif answered:
            at_home += was == maar
            wrong += was != maar
    return at_home, wrong, where


def refreshes(store: SqlStore, sent: Sent, after: int, extended_from: int) -> Verdict:
    """Check that no answered message wrote history, and that each extended its node's lease: to `extended_from`
    (microseconds since the epoch) or later. Counted are nodes, not messages.
    """
    problems: list[str] = []
    answered = {sent.node(message) for message, was in enumerate(sent.answered) if was}
    query = (
        select(t.node_identity.c.value, func.max(t.binding.c.valid_until))
        .join(t.binding, t.binding.c.node_id == t.node_identity.c.node_id)
        .where(t.node_identity.c.subtype == IdentitySubtype.DUID)
        .where(t.binding.c.kind == Kind.DELEGATED.value)
        .where(t.binding.c.state == State.ACTIVE.value)
        .group_by(t.node_identity.c.value)
    )
    with reading(store.engine) as connection:
        _count(problems, last_event(connection) - after, "rows of history for mere refreshes")
        extended = {
            _node_of(value) for value, until in connection.execute(query) if until >= extended_from
        }
    _count(problems, len(answered - extended), "nodes with a Reply and an old lease")
    return Verdict(
        answered=len(answered),
        written=len(extended),
        unanswered=len(extended - answered),
        problems=tuple(problems),
    )


def _count(problems: list[str], number: int, what: str) -> None:
    if number:
        problems.append(f"{number} {what}")


def _node_of(value: bytes) -> int:
    """The number of the node with this DUID."""
    number = int.from_bytes(value[-4:], "big")
    assert value[-6:] == mac(number)
    return number


def _serving(connection: Connection) -> dict[int, str]:
    query = (
        select(t.node_identity.c.value, t.maar.c.name)
        .join(t.mobile_node, t.mobile_node.c.id == t.node_identity.c.node_id)
        .join(t.maar, t.maar.c.id == t.mobile_node.c.serving_id)
        .where(t.node_identity.c.subtype == IdentitySubtype.DUID)
    )
    return {_node_of(value): name for value, name in connection.execute(query)}


def _nodes_without_prefix(connection: Connection) -> int:
    held = exists().where(
        t.binding.c.node_id == t.mobile_node.c.id,
        t.binding.c.anchor_id == t.mobile_node.c.serving_id,
        t.binding.c.kind == Kind.DELEGATED.value,
        t.binding.c.state == State.ACTIVE.value,
    )
    query = select(func.count()).select_from(t.mobile_node).where(~held)
    return int(connection.execute(query).scalar_one())


def _overlaps(connection: Connection) -> int:
    """How many prefixes begin before one that begins before them has ended. Addresses lie within prefixes and do not
    count.
    """
    query = select(t.binding.c.prefix, t.binding.c.prefix_length).where(
        t.binding.c.kind != Kind.ADDRESS.value
    )
    end, overlapping = b"", 0
    for address, length in sorted((row[0], row[1]) for row in connection.execute(query)):
        overlapping += address <= end
        end = max(end, Prefix(address, length).last)
    return overlapping
