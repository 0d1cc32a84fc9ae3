"""A MAAR registers a node by a Proxy Binding Update (RFC 8885 section 3.1, RFC 5213 sections 5.3 to 5.5).

What it leads to is what a DHCPv6 message leads to that shows a node at a MAAR, on the same tables, by the same steps:
the visit, its LINK prefix, the anchors. Only who may ask, and how it is answered, is PMIPv6's.
"""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.allocate import take
from dhcp_cmd.core.arrive import arrive, find, recorded
from dhcp_cmd.core.attach import catch_up, condemn, settle
from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.inquire import DEREGISTRATION, REGISTRATION
from dhcp_cmd.core.lease import extend_own_addresses, hold_link
from dhcp_cmd.core.model import (
    Binding,
    Change,
    Decision,
    DropSignal,
    Kind,
    Maar,
    Node,
    PutSignal,
    Registered,
    Registration,
)
from dhcp_cmd.core.relay_options import hold, visit_options
from dhcp_cmd.core.signals import difference
from dmm_wire.address import Prefix
from dmm_wire.identity import IdentitySubtype
from dmm_wire.mobility import (
    AccessTechnology,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HandoffIndicatorValue,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    ServingMaar,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import first
from dmm_wire.mobility.registration import has_forgotten, later_generation
from dmm_wire.timestamp import from_micros, to_micros

_DELEGATED: Final = Kind.DELEGATED
_LINK: Final = Kind.LINK
_KNOWN_SUBTYPES: Final = frozenset(
    map(
        int,
        (IdentitySubtype.NAI, IdentitySubtype.EUI48, IdentitySubtype.EUI64, IdentitySubtype.DUID),
    )
)

CAUSE: Final = "pbu"
"""In the history, what a MAAR registered."""


def read_registration(
    update: BindingUpdate, source: bytes, arrived: int, enterprise: int
) -> Registration:
    """What a PBU from `source` asks, and what it lacks, in the order of RFC 5213 section 5.3.1."""
    identifier, timestamp = first(update, MobileNodeIdentifier), first(update, Timestamp)
    handoff, link_layer = first(update, HandoffIndicator), first(update, LinkLayerIdentifier)
    named = [o.prefix for o in update.options if isinstance(o, HomeNetworkPrefix)]
    return Registration(
        source,
        update.sequence,
        None if identifier is None else identifier.identity,
        None if link_layer is None else link_layer.value,
        0 if timestamp is None else timestamp.value,
        update.lifetime,
        0 if handoff is None else handoff.value,
        tuple(dict.fromkeys(each for each in named if any(each.address))),
        tuple(o.prefix for o in update.options if isinstance(o, DelegatedPrefix)),
        arrived,
        _fault(update, identifier),
        _lacks(update),
        has_forgotten(update, enterprise),
        later_generation(update, enterprise),
    )


def _fault(update: BindingUpdate, identifier: MobileNodeIdentifier | None) -> Status | None:
    if not update.proxy:
        return Status.HOME_REGISTRATION_NOT_SUPPORTED  # a mobile node's own Binding Update
    if not update.dmm:
        return Status.NOT_LMA_FOR_THIS_MOBILE_NODE  # a MAG's, to its LMA
    if identifier is None:
        return Status.MISSING_MN_IDENTIFIER_OPTION
    if identifier.identity.subtype not in _KNOWN_SUBTYPES or first(update, ServingMaar) is not None:
        # Where a node is, the CMD says: it anchors nothing that anybody could send to another one.
        return Status.NOT_LMA_FOR_THIS_MOBILE_NODE
    if first(update, Timestamp) is None:
        # Section 5.5 falls back to sequence numbers then, which needs a way for MAARs to know each other's.
        return Status.TIMESTAMP_MISMATCH
    return None


def _lacks(update: BindingUpdate) -> Status | None:
    if first(update, HomeNetworkPrefix) is None:
        return Status.MISSING_HOME_NETWORK_PREFIX_OPTION
    if first(update, HandoffIndicator) is None:
        return Status.MISSING_HANDOFF_INDICATOR_OPTION
    if first(update, AccessTechnology) is None:
        return Status.MISSING_ACCESS_TECH_TYPE_OPTION
    return None


def register(draft: Draft, registration: Registration, salt: int) -> Decision:
    """Decide a registration. Raises Missing when the database is to be asked first."""
    here = draft.here
    if here is None:
        return refused(Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG)
    if registration.fault is not None:
        return refused(registration.fault)
    settings = draft.settings
    clock, window = from_micros(draft.now), settings.timestamp_window * 1000
    skew = to_micros(registration.timestamp) - registration.arrived
    if abs(skew) > window:
        return refused(Status.TIMESTAMP_MISMATCH, clock)
    claim = draft.inquiry.claim
    finding = find(draft, claim)
    node = finding.node
    if registration.lifetime == 0 and (node is None or node.serving != here.id):
        # Sections 5.3.5 (1) and 5.4.1.1 (6): it is not for this MAAR to end anything (RFC 8885 section 3.5).
        return Decision(None, None, (), (), "pbu-ignored")
    if node is not None and _is_late(registration, node, here, from_micros(draft.now + window)):
        return refused(Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED, clock)
    if registration.lacks is not None:
        return refused(registration.lacks)
    if registration.lifetime == 0 and node is not None:
        return _deregister(draft, registration, node)
    conflict = arrive(draft, claim, finding, salt)
    if conflict is not None:
        denied = refused(Status.ADMINISTRATIVELY_PROHIBITED, outcome="identity-conflict")
        return denied._replace(changes=recorded(conflict, finding.node))
    link = _link(draft, registration, here)
    if not isinstance(link, Status):
        if not link.autoconf:
            draft.put(link._replace(autoconf=True))
    elif link is not Status.INSUFFICIENT_RESOURCES or not draft.live():
        return refused(link)
    # Where there is no room, or the MAAR drains, what the node has elsewhere goes on all the same.
    extend_own_addresses(draft)
    _accept(draft, registration)
    outcome = catch_up(draft, registration.later) or "pbu-registered"
    accepted = Registered(Status.ACCEPTED)
    relay, changes = visit_options(draft), draft.changes()
    forgot = here.id if registration.forgot else None
    return Decision(None, 0, relay, changes, outcome, hold(draft), accepted, forgot)


def refused(status: int, clock: int | None = None, *, outcome: str | None = None) -> Decision:
    """A rejection. Nothing is changed by it."""
    outcome = outcome or f"pbu-refused-{int(status)}"
    return Decision(None, None, (), (), outcome, None, Registered(status, clock))


def _is_late(registration: Registration, node: Node, here: Maar, latest: int) -> bool:
    """Whether something later is known of the node than this (RFC 5213 section 5.5).

    A MAAR's clock is compared with that of the MAARs before; with ours where the visit is known by DHCPv6, unless it is
    this very visit: a MAAR that relays DHCPv6, too, says the same in both ways, and either may be first. The same
    message again is no later and no earlier. What is later than `latest`, the latest time that is believed, was told by
    a clock that has been set back since, and nothing on its way is older. One that only wants to go on with a visit
    that is over by now is late, whatever its clock says.
    """
    is_by_pbu = node.heard is not None and node.heard[0] in (REGISTRATION, DEREGISTRATION)
    is_here = registration.lifetime > 0 and node.serving == here.id
    known = (
        [node.registered or 0] if is_by_pbu or is_here else [node.registered or 0, node.generation]
    )
    last = max((each for each in known if each <= latest), default=0)
    if registration.timestamp <= last:
        return registration.timestamp < last or node.serving != here.id
    goes_on = registration.handoff == HandoffIndicatorValue.NOT_CHANGED
    return goes_on and node.serving is not None and node.serving != here.id


def _deregister(draft: Draft, registration: Registration, node: Node) -> Decision:
    """The S-MAAR says that the node has left the domain. All that it holds ends in a moment, unless it comes back;
    until then nobody is told, because what the P-MAARs hold must not end before that is sure."""
    draft.adopt(node, draft.inquiry.claim.key)
    settle(draft)
    # What has ended by itself meanwhile is sure.
    signals = difference(draft.snapshot.signals.get(node.id, {}), draft.signals())
    condemn(draft, draft.now + draft.settings.delete_delay * 1000)
    _accept(draft, registration)
    others = [c for c in draft.changes() if not isinstance(c, PutSignal | DropSignal)]
    changes: tuple[Change, ...] = (*signals, *others)
    return Decision(None, 0, (), changes, "pbu-deregistered", None, Registered(Status.ACCEPTED))


def _accept(draft: Draft, registration: Registration) -> None:
    if draft.node is not None:
        draft.node = draft.node._replace(registered=registration.timestamp, heard=draft.message)


def _link(draft: Draft, registration: Registration, here: Maar) -> Binding | Status:
    """The node's LINK prefix here, or why not: it has one at each MAAR, which the MAAR may name."""
    delegated = {b.prefix for b in draft.live() if b.kind is _DELEGATED}
    if not delegated.issuperset(registration.delegated):
        return Status.NOT_AUTHORIZED_FOR_DELEGATED_MNP
    named = registration.prefixes
    if not named:
        return hold_link(draft) or Status.INSUFFICIENT_RESOURCES
    link = draft.link_at(here.id)
    if link is not None:
        return link if named == (link.prefix,) else _misfit(draft, named)
    if len(named) > 1 or draft.node is None:
        return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    return take(draft, draft.node, here, named[0]) or Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def _misfit(draft: Draft, named: tuple[Prefix, ...]) -> Status:
    """RFC 5213 section 5.4.1.1, 3 and 4: another set than the node's, or not the node's at all."""
    own = {b.prefix for b in draft.live() if b.kind is _LINK}
    if own.isdisjoint(named):
        return Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    return Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH
