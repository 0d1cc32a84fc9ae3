"""The decision: a request and what the database says about it in, what to write and to answer out."""

from __future__ import annotations

from dhcp_cmd.core.allocate import Missing
from dhcp_cmd.core.answers import BEHAVIOURS, Behaviour
from dhcp_cmd.core.arrive import arrive
from dhcp_cmd.core.attach import settle
from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.identity import Claim, Verdict, claim_of, identify
from dhcp_cmd.core.lease import extend, hold_link
from dhcp_cmd.core.model import (
    BindingRequest,
    ClientReply,
    Decision,
    Event,
    Micros,
    Need,
    Node,
    Record,
    Settings,
    Snapshot,
)
from dhcp_cmd.core.place import Place, locate
from dhcp_cmd.core.relay_options import peers, status, visit_options
from dhcp_cmd.core.reply import reply
from dmm_wire import dmm
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import DmmStatus, SubOption

QUERY = "query"
"""The cause, in the history, of what a MAAR asked for itself."""


def decide(
    request: BindingRequest, snapshot: Snapshot, settings: Settings, now: Micros, salt: int = 0
) -> Decision | Need:
    """Decide one request; the snapshot is only read. `salt` changes the id of a new node after a collision.

    A Need comes back when something must be read first: add it to the snapshot and ask again.
    """
    if request.server_id is not None and request.server_id != settings.server_duid:
        return Decision(None, None, (), (), "other-server")
    place = locate(request, snapshot.domain)
    if place.refusal is not None:
        return _not_believed(place, place.refusal)
    try:
        if place.own:
            return _own(Draft(request, snapshot, settings, now, place, QUERY), salt)
        behaviour = BEHAVIOURS[request.type]
        draft = Draft(request, snapshot, settings, now, place, behaviour.cause)
        return _client(draft, behaviour, salt)
    except Missing as missing:
        return missing.need


def _not_believed(place: Place, refusal: DmmStatus) -> Decision:
    """A relay level that claims to be a MAAR's and is not: told to a MAAR that asks for itself, no service else."""
    if not place.own:
        return Decision(None, None, (), (), place.why)
    text = place.why.replace("-", " ")
    return Decision(reply(), place.level, (status(refusal, text),), (), place.why)


def _client(draft: Draft, behaviour: Behaviour, salt: int) -> Decision:
    place = draft.place
    claim = claim_of(draft.request, place)
    if place.maar is not None and claim.identities:
        conflict = arrive(draft, claim, salt)
        if conflict is not None:
            return _denied(draft, behaviour.denied(draft.request), conflict)
    if place.level is not None:
        draft.fail(place.every(dmm.AnchorFailed))
    answer = behaviour.answer(draft)
    relay = visit_options(draft) if place.level is not None else ()
    return Decision(answer, place.level, relay, draft.changes(), _outcome(answer))


def _outcome(answer: ClientReply | None) -> str:
    if answer is None:
        return "silent"
    return "advertise" if answer.type == MessageType.ADVERTISE else "reply"


def _denied(draft: Draft, answer: ClientReply | None, conflict: Event) -> Decision:
    why = (conflict.detail or "").partition(":")[0]
    level = draft.place.level
    relay = () if level is None else (status(DmmStatus.IDENTITY_CONFLICT, why),)
    return Decision(answer, level, relay, (Record(conflict),), "identity-conflict")


# --- what a MAAR asks for itself ---


def _own(draft: Draft, salt: int) -> Decision:
    """Start-up and refresh, a first frame, a failed anchor."""
    claim = claim_of(draft.request, draft.place)
    if not claim.identities:
        success = status(DmmStatus.SUCCESS)
        return _told(draft, (success, peers(draft.domain)), "refresh")
    finding = identify(claim, draft.snapshot, draft.now)
    if finding.verdict is Verdict.UNKNOWN and claim.name is not None:
        return _told(draft, (status(DmmStatus.UNKNOWN_NODE),), "unknown-node")
    attachment = draft.place.first(dmm.Attachment)
    failed = draft.place.every(dmm.AnchorFailed)
    if failed and attachment is None:
        return _report(draft, claim, failed)
    if finding.node is not None and _is_stale(draft, finding.node, attachment):
        return _told(draft, (status(DmmStatus.STALE),), "stale")
    conflict = arrive(draft, claim, salt)
    if conflict is not None:
        return _denied(draft, reply(), conflict)
    draft.fail(failed)
    link = hold_link(draft)
    if link is not None:
        extend(draft, link)
    return _told(draft, visit_options(draft), QUERY)


def _is_stale(draft: Draft, node: Node, attachment: dmm.Attachment | None) -> bool:
    """Whether the attach that this query tells of is older than the visit the node is on elsewhere.

    Only a query can be late like that: a client's own message proves that the client is where it was relayed.
    """
    here = draft.here
    if attachment is None or here is None or node.serving in (None, here.id):
        return False
    return draft.now - attachment.age_ms * 1000 < node.visit_since


def _report(draft: Draft, claim: Claim, failed: list[dmm.AnchorFailed]) -> Decision:
    """ANCHOR_FAILED alone is no sign that the node is there: only its S-MAAR is listened to."""
    here = draft.here
    finding = identify(claim, draft.snapshot, draft.now, accept=True)
    if finding.node is None or here is None:
        return _told(draft, (status(DmmStatus.UNKNOWN_NODE),), "unknown-node")
    if finding.node.serving != here.id:
        return _told(draft, (status(DmmStatus.STALE),), "stale")
    draft.adopt(finding.node, claim.key)
    settle(draft)
    draft.fail(failed)
    return _told(draft, visit_options(draft), "anchor-failed")


def _told(draft: Draft, relay: tuple[SubOption, ...], outcome: str) -> Decision:
    return Decision(reply(), draft.place.level, relay, draft.changes(), outcome)
