"""Visits: the S-MAAR of a node changes, its bindings become local or anchored away, the oldest anchors go."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.lifetime import end_of, until
from dhcp_cmd.core.model import MICROS, Event, EventType, Kind, Maar, MaarId, Micros, Node, State
from dhcp_cmd.core.signals import RAISED, later_visit
from dmm_wire.timestamp import from_micros

# Looking a member up in its class costs as much as a call.
_EXPIRED: Final = EventType.EXPIRED
_HANDOVER: Final = EventType.HANDOVER
_RELEASED: Final = EventType.RELEASED
_LINK: Final = Kind.LINK
_ACTIVE: Final = State.ACTIVE
_DEPRECATED: Final = State.DEPRECATED
_ENDED: Final = State.ENDED


def settle(draft: Draft) -> None:
    """Record what ended by itself since the node was last heard of, and what lost its anchor."""
    now, maars = draft.now, draft.domain.maars
    over = [b for b in draft.live() if b.anchor not in maars or end_of(b)[0] <= now]
    # Addresses first: each with its own end, before its LINK prefix takes along what is left.
    for binding in sorted(over, key=lambda b: b.kind is _LINK):
        end, cause = end_of(binding)
        if end <= now:
            draft.end(binding, _EXPIRED, cause=cause, at=end)
        else:
            draft.end(binding, _RELEASED, cause="anchor-removed")


def flaps_after(node: Node, maar: Maar, now: Micros, flap_interval: int) -> int:
    """How many moves in a row, one to `maar` now among them, went back faster than a person moves."""
    if node.serving == maar.id:
        return node.flaps
    went_back = node.previous == maar.id and now - node.visit_since < flap_interval * MICROS
    return node.flaps + 1 if went_back else 0


def attach(draft: Draft, node: Node, maar: Maar) -> Node:
    """The node is at `maar` now, whatever message showed it: a handover where its S-MAAR was another one.

    The visit's generation orders the PBUs of all visits (DESIGN 3.2), so it grows even when the clock does not.
    """
    if node.serving != maar.id:
        generation = max(from_micros(draft.now), node.generation + 1)
        draft.events.append(
            Event(
                at=draft.now,
                recorded_at=draft.now,
                type=_HANDOVER,
                node=node.id,
                cause=draft.cause,
                from_maar=node.serving,
                to_maar=maar.id,
                generation=generation,
                transaction_id=draft.request.transaction_id,
            )
        )
        node = node._replace(
            serving=maar.id,
            previous=node.serving,
            generation=generation,
            visit_since=draft.now,
            flaps=flaps_after(node, maar, draft.now, draft.settings.flap_interval),
            heard_before=node.heard,
        )
    node = draft.node = node._replace(heard=draft.message)
    sort_out(draft, maar)
    return node


def catch_up(draft: Draft, known: int | None) -> str | None:
    """The node's S-MAAR says that a visit with the generation `known` is known, there or at an anchor: where ours is
    earlier, ours is the later one from now on. Returns RAISED, TOO_FAR, or None where it is not earlier."""
    if draft.node is None or known is None:
        return None
    after = later_visit(draft.node, known, draft.now)
    if after is None or isinstance(after, str):
        return after
    draft.node = after
    return RAISED


def condemn(draft: Draft, at: Micros) -> None:
    """Let all that the node has end then, unless it is seen before (RFC 5213 section 5.3.5)."""
    for binding in draft.live():
        if binding.hold_until is None or binding.hold_until > at:
            draft.put(binding._replace(hold_until=at))


def _reprieve(draft: Draft) -> None:
    """It is back, if it had left."""
    if not draft.has_left:
        return
    again = until(draft.now, draft.settings.anchor_hold)
    for binding in draft.live():
        hold = None if binding.state is _ACTIVE else again
        draft.put(binding._replace(hold_until=hold))


def sort_out(draft: Draft, maar: Maar) -> None:
    """Bring the node's bindings in order for a visit to `maar`."""
    _reprieve(draft)
    _place(draft, maar)
    _limit_anchors(draft, maar)


def _place(draft: Draft, maar: Maar) -> None:
    """What is anchored here is local, everything else is anchored away: but for a LINK prefix without an address in
    use, which nothing needs a tunnel for.
    """
    for binding in draft.live():
        if binding.anchor == maar.id:
            if binding.state is _DEPRECATED:
                draft.activate(binding)
        elif binding.kind is _LINK and not draft.is_in_use(binding):
            draft.end(binding, _RELEASED, cause="unused")
        elif binding.state is _ACTIVE:
            draft.deprecate(binding)


def _limit_anchors(draft: Draft, maar: Maar) -> None:
    """No more than `max_anchors` P-MAARs: the one left longest ago goes first."""
    left_at: dict[MaarId, tuple[Micros, Micros]] = {}
    if len(draft.bindings) <= draft.settings.max_anchors:
        return
    for binding in draft.live():
        if binding.anchor != maar.id:
            age = (binding.hold_until or 0, binding.assigned_at)
            left_at[binding.anchor] = max(age, left_at.get(binding.anchor, (0, 0)))
    surplus = len(left_at) - draft.settings.max_anchors
    if surplus <= 0:
        return
    oldest = set(sorted(left_at, key=lambda anchor: (left_at[anchor], anchor))[:surplus])
    for binding in draft.live():
        # A LINK prefix takes its addresses along, so look at what became of this one.
        now = draft.bindings[binding.prefix.address]
        if binding.anchor in oldest and now.state is not _ENDED:
            draft.end(now, _EXPIRED, cause="max-anchors")
