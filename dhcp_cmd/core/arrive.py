"""A message shows a node at a MAAR: who it is, whether that may be, and its visit (DESIGN 3.3 and 4)."""

from __future__ import annotations

from dataclasses import replace

from dhcp_cmd.core.attach import attach, flaps_after, settle
from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.identity import Claim, Finding, Verdict, identify, new_node_id
from dhcp_cmd.core.model import ConflictPolicy, Event, EventType, Node


def arrive(draft: Draft, claim: Claim, salt: int) -> Event | None:
    """Put the draft to work on the node that the claim shows, on a visit to the MAAR if it came through one.

    Returns the conflict where the claim is denied: then nothing was done. An accepted conflict is only recorded.
    """
    finding = identify(claim, draft.snapshot, draft.now)
    conflict = _conflict(draft, claim, finding)
    if conflict is not None:
        if draft.settings.conflict_policy is ConflictPolicy.DENY:
            return conflict
        draft.events.append(conflict)
        finding = identify(claim, draft.snapshot, draft.now, accept=True)
    node = _adopt(draft, claim, finding, salt)
    settle(draft)
    if draft.place.level is not None and draft.here is not None:
        attach(draft, node, draft.here)
    return None


def _adopt(draft: Draft, claim: Claim, finding: Finding, salt: int) -> Node:
    node = finding.node
    if node is None:
        node = Node(
            id=new_node_id(claim, draft.snapshot, salt),
            serving=None,
            previous=None,
            generation=0,
            visit_since=draft.now,
            flaps=0,
            identities=finding.learn,
        )
        draft.adopt(node, claim.key, new=True)
        return node
    draft.adopt(node, claim.key)
    if finding.other is not None:
        draft.absorb(finding.other)
    elif finding.learn:
        draft.node = replace(node, identities=node.identities + finding.learn)
    return draft.node or node


def _conflict(draft: Draft, claim: Claim, finding: Finding) -> Event | None:
    node, here, settings = finding.node, draft.here, draft.settings
    if node is None or here is None:
        return None
    why = finding.why
    if finding.verdict is not Verdict.CONFLICT:
        flaps = flaps_after(node, here, draft.now, settings.flap_interval)
        if draft.place.level is None or flaps <= settings.flap_limit or node.serving == here.id:
            return None
        why = "flapping"
    return Event(
        at=draft.now,
        recorded_at=draft.now,
        type=EventType.CONFLICT,
        node=node.id,
        cause=draft.cause,
        from_maar=node.serving,
        to_maar=here.id,
        generation=node.generation,
        transaction_id=draft.request.transaction_id,
        detail=f"{why}: {claim}",
    )
