"""Which MAARs are owed a Proxy Binding Update, where the CMD sends them (RFC 8885 sections 3.2 to 3.4).

A signal says only that a MAAR has still to hear of the latest state; what the PBU says is made of the node's rows
when it is sent. So however often something changes, there is one signal for each node and MAAR, and it is never old.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dhcp_cmd.core.lifetime import end_of, ended_binding
from dhcp_cmd.core.model import (
    MICROS,
    Binding,
    Change,
    DropSignal,
    Event,
    EventType,
    Kind,
    MaarId,
    Micros,
    Node,
    PutBinding,
    PutSignal,
    Record,
    Settings,
    Signal,
    State,
)
from dmm_wire.address import Prefix
from dmm_wire.timestamp import from_micros

REFRESH_MARGIN: Micros = 10 * MICROS
"""What is anchored away is not promised for longer unless by more than this: each longer promise is a PBU, and the
messages of one DHCPv6 exchange would make it one or two seconds."""

MOST_AHEAD: Micros = 86_400 * MICROS
"""A visit that a MAAR knows may be so far ahead of our clock: more than a clock is likely to be set back by."""

RAISED, TOO_FAR = "visit-raised", "visit-too-far"
"""What becomes of a later visit than ours that a MAAR says it knows."""

Ends = dict[MaarId, dict[Prefix, Micros]]
"""What a node holds at each MAAR, and until when."""


def owed(
    waiting: Mapping[MaarId, Signal],
    before: Node | None,
    node: Node,
    known: Iterable[Binding],
    bindings: Iterable[Binding],
    now: Micros,
    *,
    left: Iterable[MaarId | None] = (),
) -> dict[MaarId, Signal]:
    """The node's signals after a decision, by MAAR; the caller leaves out MAARs that are none of the domain any more.

    `waiting` were owed before it. `before` and `known` are the node and its bindings as they were read, `node` and
    `bindings` as they are now. `left`: where else it was known to be, under the names of nodes that became this one.
    """
    serving = node.serving
    if serving is None:
        return {}
    held, holds = _ends(known), _ends(bindings)
    found = dict(waiting)
    moved = before is not None and before.generation != node.generation
    if moved or any(each is not None for each in left):
        # All that may still send packets to where the node was: anchors, the MAAR just left, and who has not heard of
        # the visit before either.
        for maar in (*held, *holds, *found, node.previous, *left):
            if maar is not None:
                found[maar] = _anew(Signal(node.id, maar, True, now), waiting.get(maar))
    else:
        for maar in (*held, *holds):
            if held.get(maar) != holds.get(maar):
                kept = waiting.get(maar)
                visit = kept is not None and kept.visit
                found[maar] = _anew(Signal(node.id, maar, visit, now), kept)
    found.pop(serving, None)
    return found


def _anew(signal: Signal, waiting: Signal | None) -> Signal:
    """Another one than is waiting, so that it is written: a PBU about that one may be on its way, and what answers it
    must not finish this one. Time stands still for a node while the clock is behind its visit (`Draft.adopt`)."""
    if waiting is None or signal.put_at > waiting.put_at:
        return signal
    return signal._replace(put_at=waiting.put_at + 1)


def difference(waiting: Mapping[MaarId, Signal], now_owed: Mapping[MaarId, Signal]) -> list[Change]:
    """The changes that make `now_owed` of what was `waiting`."""
    changes: list[Change] = [PutSignal(s) for m, s in now_owed.items() if waiting.get(m) != s]
    changes += [DropSignal(s.node, m) for m, s in waiting.items() if m not in now_owed]
    return changes


def refused(
    node: Node,
    bindings: Mapping[bytes, Binding],
    anchor: MaarId,
    prefixes: Iterable[Prefix],
    now: Micros,
    settings: Settings,
) -> tuple[Change, ...]:
    """The changes when the anchor says that it does not serve these prefixes (status 155): as an ANCHOR_FAILED of the
    S-MAAR, they end. Where the node has moved back to that MAAR meanwhile, nothing does. Of what is left there the
    anchor has still to hear: it has refused the PBU as a whole."""
    changes: list[Change] = []
    gone: set[bytes] = set()
    for prefix in dict.fromkeys(prefixes):
        binding = bindings.get(prefix.address)
        if binding is None or binding.prefix != prefix or binding.kind is Kind.ADDRESS:
            continue
        if binding.anchor != anchor or binding.state is not State.DEPRECATED:
            continue
        ends = [binding]
        if binding.kind is Kind.LINK:
            ends = [b for b in bindings.values() if _is_address_in(b, prefix)] + ends
        for each in ends:
            ended = ended_binding(each, now, settings)
            gone.add(each.prefix.address)
            changes += [PutBinding(ended, False), Record(_released(ended, node, now))]
    left = [b for b in bindings.values() if b.prefix.address not in gone]
    if gone and anchor in _ends(left):
        changes.append(PutSignal(Signal(node.id, anchor, True, now)))
    return tuple(changes)


def later_visit(node: Node, known: int, now: Micros) -> Node | str | None:
    """A MAAR refuses what we say of the node, because it knows of a visit with the generation `known`. Where that is
    none of ours (we have lost visits, or somebody made it up), the node's visit is to be the later one: the node is
    where we say that it is. Gives the node as it is to be, TOO_FAR, or None where we know as late a visit: then
    something was overtaken, and nothing is wrong."""
    if node.serving is None or known <= node.generation:
        return None
    if known >= from_micros(now + MOST_AHEAD):
        return TOO_FAR
    return node._replace(generation=known + 1)


def _ends(bindings: Iterable[Binding]) -> Ends:
    found: Ends = {}
    for binding in bindings:
        if binding.state is not State.ENDED and binding.kind is not Kind.ADDRESS:
            found.setdefault(binding.anchor, {})[binding.prefix] = end_of(binding)[0]
    return found


def _is_address_in(binding: Binding, link: Prefix) -> bool:
    is_live = binding.kind is Kind.ADDRESS and binding.state is not State.ENDED
    return is_live and link.contains(binding.prefix.address)


def _released(binding: Binding, node: Node, now: Micros) -> Event:
    return Event(
        now,
        now,
        EventType.RELEASED,
        node.id,
        "anchor-failed",
        binding.prefix,
        binding.kind,
        binding.iaid,
        binding.anchor,
        generation=node.generation,
    )
