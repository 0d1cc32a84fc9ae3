"""A message shows a node at a MAAR: who it is, whether that may be, and its visit (DESIGN 3.3 and 4)."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.attach import attach, flaps_after, settle
from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.identity import Claim, Finding, Verdict, identify, known_by, new_node_id
from dhcp_cmd.core.model import (
    MICROS,
    Change,
    ConflictPolicy,
    Event,
    EventType,
    Node,
    PutNode,
    Record,
)
from dmm_wire import dmm

# Looking a member up in its class costs as much as a call.
_DENY: Final = ConflictPolicy.DENY
_EVENT_CONFLICT: Final = EventType.CONFLICT
_VERDICT_CONFLICT: Final = Verdict.CONFLICT

CONFLICT_INTERVAL = 60
"""Seconds between two conflicts of one node in the history: packets are free, rows are not."""


def find(draft: Draft, claim: Claim) -> Finding:
    """Who the claim shows; a claim to be at a MAAR is one to move there."""
    here = draft.here if draft.place.level is not None else None
    return identify(claim, draft.snapshot, draft.now, None if here is None else here.id)


def is_late(draft: Draft, node: Node) -> str | None:
    """Why the message says nothing of where the node is now, being older than its visit elsewhere: "late" where it
    repeats the last one of the visit before, "stale" where its attach is older, or it tells of none. None: it is not.
    """
    here, place = draft.here, draft.place
    if place.level is None or here is None or node.serving == here.id:
        return None
    attachment = place.first(dmm.Attachment)
    if attachment is None and place.own:
        return "stale"
    if node.serving is None:
        return None
    if node.previous == here.id and node.heard_before == draft.message:
        return "late"
    now = max(draft.now, node.visit_since)
    if attachment is not None and now - attachment.age_ms * 1000 < node.visit_since:
        return "stale"
    return None


def arrive(draft: Draft, claim: Claim, finding: Finding, salt: int) -> Event | None:
    """Put the draft to work on the node that the claim shows, on a visit to the MAAR if it came through one.

    Returns the conflict where the claim is denied: then nothing was done. An accepted conflict is only recorded.
    """
    conflict = _conflict(draft, claim, finding)
    if conflict is not None:
        if draft.settings.conflict_policy is _DENY:
            return conflict
        finding = identify(claim, draft.snapshot, draft.now, accept=True)
    node = _adopt(draft, claim, finding, salt)
    if conflict is not None and _is_news(conflict, node):
        draft.events.append(conflict)
        node = draft.node = node._replace(conflict_at=conflict.at)
    settle(draft)
    if draft.place.level is not None and draft.here is not None:
        attach(draft, node, draft.here)
    return None


def recorded(conflict: Event, node: Node | None) -> tuple[Change, ...]:
    """What is written of a conflict about this node that was denied."""
    if node is None or not _is_news(conflict, node):
        return ()
    return PutNode(node._replace(conflict_at=conflict.at), new=False), Record(conflict)


def _is_news(conflict: Event, node: Node) -> bool:
    at = node.conflict_at
    return at is None or conflict.at >= at + CONFLICT_INTERVAL * MICROS


def _adopt(draft: Draft, claim: Claim, finding: Finding, salt: int) -> Node:
    node = finding.node
    if node is None:
        node = Node(
            id=new_node_id(claim, draft.snapshot, draft.now, salt),
            serving=None,
            previous=None,
            generation=0,
            visit_since=draft.now,
            flaps=0,
            identities=finding.learn,
            link_layer=claim.link_layer,
        )
        draft.adopt(node, claim.key, new=True)
        return node
    draft.adopt(node, claim.key)
    if finding.other is not None:
        node = draft.absorb(finding.other)
    link_layer = claim.link_layer or node.link_layer
    if claim.vouched and node.link_layer is not None:
        link_layer = node.link_layer  # where it speaks for itself, it does so from there
    if finding.learn or link_layer != node.link_layer:
        identities = known_by(*node.identities, *finding.learn)
        node = draft.node = node._replace(identities=identities, link_layer=link_layer)
    return node


def _conflict(draft: Draft, claim: Claim, finding: Finding) -> Event | None:
    node, here, settings = finding.node, draft.here, draft.settings
    if node is None or here is None:
        return None
    why = finding.why
    if finding.verdict is not _VERDICT_CONFLICT:
        flaps = flaps_after(node, here, draft.now, settings.flap_interval)
        if draft.place.level is None or flaps <= settings.flap_limit or node.serving == here.id:
            return None
        why = "flapping"
    return Event(
        at=draft.now,
        recorded_at=draft.now,
        type=_EVENT_CONFLICT,
        node=node.id,
        cause=draft.cause,
        from_maar=node.serving,
        to_maar=here.id,
        generation=node.generation,
        transaction_id=draft.request.transaction_id,
        detail=f"{why}: {claim}",
    )
