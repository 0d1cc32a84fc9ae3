"""The decision: a request and what the database says about it in, what to write and to answer out."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.allocate import Missing
from dhcp_cmd.core.answers import BEHAVIOURS, Behaviour
from dhcp_cmd.core.arrive import arrive, find, is_late, recorded
from dhcp_cmd.core.attach import catch_up, settle
from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.identity import Claim, Finding, Verdict
from dhcp_cmd.core.inquire import Inquiry
from dhcp_cmd.core.lease import extend, extend_own_addresses, hold_link
from dhcp_cmd.core.model import (
    ClientReply,
    Decision,
    Event,
    Micros,
    Need,
    Node,
    Settings,
    Snapshot,
)
from dhcp_cmd.core.place import Place
from dhcp_cmd.core.register import CAUSE, register
from dhcp_cmd.core.relay_options import fits, hold, peers, signalling, status, visit_options
from dhcp_cmd.core.reply import reply
from dmm_wire import dmm
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import DmmStatus, SubOption

# Looking a member up in its class costs as much as a call.
_IDENTITY_CONFLICT: Final = DmmStatus.IDENTITY_CONFLICT
_STALE: Final = DmmStatus.STALE
_SUCCESS: Final = DmmStatus.SUCCESS
_UNAVAILABLE: Final = DmmStatus.UNAVAILABLE
_UNKNOWN_NODE: Final = DmmStatus.UNKNOWN_NODE
_ADVERTISE: Final = MessageType.ADVERTISE
_UNKNOWN: Final = Verdict.UNKNOWN

QUERY = "query"
"""The cause, in the history, of what a MAAR asked for itself."""


def decide(
    inquiry: Inquiry, snapshot: Snapshot, settings: Settings, now: Micros, salt: int = 0
) -> Decision | Need:
    """Decide one request; the snapshot is only read. `salt` changes the id of a new node after a collision.

    A Need comes back when something must be read first: add it to the snapshot and ask again.
    """
    if inquiry.registration is not None:
        draft = Draft(inquiry, snapshot, settings, now, CAUSE)
        try:
            return register(draft, inquiry.registration, salt)
        except Missing as missing:
            return missing.need
    request, place = inquiry.request, inquiry.place
    if request.server_id is not None and request.server_id != settings.server_duid:
        return Decision(None, None, (), (), "other-server")
    if place.refusal is not None:
        return _not_believed(place, place.refusal)
    behaviour = BEHAVIOURS[request.type]
    cause = QUERY if place.own else behaviour.cause
    draft = Draft(inquiry, snapshot, settings, now, cause)
    try:
        decision = _own(draft, salt) if place.own else _client(draft, behaviour, salt)
    except Missing as missing:
        return missing.need
    return decision if fits(decision, settings.enterprise) else _too_large(place)


def _not_believed(place: Place, refusal: DmmStatus) -> Decision:
    """A relay that is not what it claims to be: told to a MAAR that asks for itself, no service else."""
    if not place.own:
        return Decision(None, None, (), (), place.why)
    text = place.why.replace("-", " ")
    return Decision(reply(), place.level, (status(refusal, text),), (), place.why)


def _too_large(place: Place) -> Decision:
    """More than a message can hold is not decided: a MAAR that asks for itself goes on with what it knows."""
    if not place.own:
        return Decision(None, place.level, (), (), "too-large")
    told = status(_UNAVAILABLE, "more than a message can hold")
    return Decision(reply(), place.level, (told,), (), "too-large")


def _client(draft: Draft, behaviour: Behaviour, salt: int) -> Decision:
    place, claim = draft.place, draft.inquiry.claim
    if place.maar is not None and claim.identities:
        finding = find(draft, claim)
        late = None if finding.node is None else is_late(draft, finding.node)
        if late is not None:
            return Decision(None, place.level, (), (), late)
        conflict = arrive(draft, claim, finding, salt)
        if conflict is not None:
            return _denied(draft, behaviour.denied(draft.request), conflict, finding)
    if place.level is not None:
        draft.fail(place.every(dmm.AnchorFailed))
    answer = behaviour.answer(draft)
    if place.level is None:
        return Decision(answer, None, (), draft.changes(), _outcome(answer))
    relay = visit_options(draft)
    waits = None if answer is None else hold(draft)
    return Decision(answer, place.level, relay, draft.changes(), _outcome(answer), waits)


def _outcome(answer: ClientReply | None) -> str:
    if answer is None:
        return "silent"
    return "advertise" if answer.type == _ADVERTISE else "reply"


def _denied(
    draft: Draft, answer: ClientReply | None, conflict: Event, finding: Finding
) -> Decision:
    why = (conflict.detail or "").partition(":")[0]
    level = draft.place.level
    relay = () if level is None else (status(_IDENTITY_CONFLICT, why),)
    changes = recorded(conflict, finding.node)
    return Decision(answer, level, relay, changes, "identity-conflict")


# --- what a MAAR asks for itself ---


def _own(draft: Draft, salt: int) -> Decision:
    """Start-up and refresh, a first frame, a failed anchor."""
    claim = draft.inquiry.claim
    if not claim.identities:
        told: tuple[SubOption, ...] = (status(_SUCCESS), peers(draft.domain))
        if not draft.signals_itself:
            return _told(draft, told, "refresh")
        told = (*told, signalling(draft.settings.mode))
        maar, here = draft.place.first(dmm.Maar), draft.here
        forgot = maar is not None and maar.capabilities & dmm.NO_SESSIONS and here is not None
        return _told(draft, told, "refresh")._replace(forgot=here.id if forgot and here else None)
    finding = find(draft, claim)
    attachment = draft.place.first(dmm.Attachment)
    makes_addresses = _makes_addresses(draft)
    if finding.verdict is _UNKNOWN and (
        claim.name is not None or attachment is None or not makes_addresses
    ):
        # Anybody can make an address up. Of a node that asks by DHCPv6 nothing is stored before it is given anything.
        return _told(draft, (status(_UNKNOWN_NODE),), "unknown-node")
    late = None if finding.node is None else is_late(draft, finding.node)
    if late == "stale":
        return _told(draft, (status(_STALE),), late)
    if late is not None:
        return Decision(None, draft.place.level, (), (), late)
    failed = draft.place.every(dmm.AnchorFailed)
    if attachment is None and finding.node is not None:
        return _report(draft, claim, finding.node, failed)
    conflict = arrive(draft, claim, finding, salt)
    if conflict is not None:
        return _denied(draft, reply(), conflict, finding)
    draft.fail(failed)
    link = hold_link(draft)
    if link is not None:
        if makes_addresses and not link.autoconf:
            link = draft.put(link._replace(autoconf=True))
        extend(draft, link)
    if makes_addresses:
        extend_own_addresses(draft)
    return _told(draft, visit_options(draft), QUERY)._replace(hold=hold(draft))


def _makes_addresses(draft: Draft) -> bool:
    """Whether the MAAR advertises the LINK prefix for SLAAC: it is in use then, though no address has a row."""
    maar = draft.place.first(dmm.Maar)
    return maar is not None and bool(maar.capabilities & dmm.CAP_SLAAC)


def _report(draft: Draft, claim: Claim, node: Node, failed: list[dmm.AnchorFailed]) -> Decision:
    """ANCHOR_FAILED, VISIT (an anchor knows a later one than we), or a question about a node: no sign that the node is
    there, so only its S-MAAR comes as far as this, and nothing is promised for longer."""
    draft.adopt(node, claim.key)
    settle(draft)
    draft.fail(failed)
    later = draft.place.first(dmm.Visit)
    caught_up = catch_up(draft, None if later is None else later.generation)
    outcome = caught_up or ("anchor-failed" if failed else QUERY)
    return _told(draft, visit_options(draft), outcome)


def _told(draft: Draft, relay: tuple[SubOption, ...], outcome: str) -> Decision:
    return Decision(reply(), draft.place.level, relay, draft.changes(), outcome)
