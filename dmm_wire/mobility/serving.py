"""The PBU with Serving MAAR, which tells a MAAR where a mobile node is (RFC 8885 section 3.2).

Whoever signals, the S-MAAR or the CMD, says the same: this node is at that S-MAAR since that
generation; of what the receiver anchors for it, the prefixes named go there; whatever else it has
of the node is withdrawn.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity
from dmm_wire.mobility.codes import (
    LIFETIME_INFINITY,
    LIFETIME_UNIT,
    HandoffIndicatorValue,
    Status,
)
from dmm_wire.mobility.message import BindingAcknowledgement, BindingUpdate
from dmm_wire.mobility.options import (
    AccessTechnology,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    ServingMaar,
    Timestamp,
    VendorSpecific,
)

MOST_REFUSED: Final = 16
"""Prefixes that a refusal says it is about: with all that has to be echoed they fit a Mobility Header."""

FINAL: Final = frozenset(
    {
        Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
        Status.NOT_LMA_FOR_THIS_MOBILE_NODE,
        Status.PROXY_REG_NOT_ENABLED,
    }
)
"""Rejections that repeating does not change (RFC 5213 section 6.9.1.2). After any other the sender
goes on trying: a peer may have to hear of it in the domain first, or to find room."""

Delegable = tuple[Prefix, bool]
"""A prefix, and whether it is a delegated one."""


class Notice(NamedTuple):
    """What a PBU says: the node is at `serving` since `generation`. `named` is anchored at the
    receiver, `served` at (endpoint, prefix) elsewhere. `lifetime` is seconds, see `lifetime_of`;
    `moved`: it is news that the node is there."""

    identity: Identity
    generation: int
    serving: bytes
    named: tuple[Delegable, ...]
    served: tuple[tuple[bytes, Prefix], ...]
    lifetime: int
    moved: bool
    access_technology: int
    link_layer: bytes | None

    def update(self, sequence: int) -> BindingUpdate:
        """The message, with the sequence number of its transmission."""
        handoff = (
            HandoffIndicatorValue.BETWEEN_GATEWAYS
            if self.moved
            else HandoffIndicatorValue.NOT_CHANGED
        )
        options: list[MobilityOption] = [MobileNodeIdentifier(self.identity)]
        options += prefix_options(self.named)
        options += [HandoffIndicator(handoff), AccessTechnology(self.access_technology)]
        if self.link_layer:
            options.append(LinkLayerIdentifier(self.link_layer))
        options.append(Timestamp(self.generation))
        options += [PreviousMaarOption(anchor, prefix) for anchor, prefix in self.served]
        options.append(ServingMaar(self.serving))
        return BindingUpdate(sequence, self.lifetime, tuple(options))


def prefix_options(named: tuple[Delegable, ...]) -> list[MobilityOption]:
    """The on-link prefixes first, then the delegated ones (RFC 7148)."""
    options: list[MobilityOption] = [
        HomeNetworkPrefix(prefix) for prefix, delegated in named if not delegated
    ]
    return options + [DelegatedPrefix(prefix) for prefix, delegated in named if delegated]


def lifetime_of(left: float, *, names: bool, ends: bool) -> int:
    """Seconds that a PBU asks for, where `left` (or infinity) is left of the longest-lived prefix.

    `ends`: the node has no prefix at all any more. A PBU that names nothing, to the MAAR just left,
    asks for the shortest lifetime there is: 0 would end what that MAAR forwards for others. The
    longest finite one stays below what means infinity.
    """
    if ends:
        return 0
    if not names:
        return LIFETIME_UNIT
    if math.isinf(left):
        return LIFETIME_INFINITY
    return max(LIFETIME_UNIT, min(int(left), LIFETIME_INFINITY - LIFETIME_UNIT))


def echoes(answer: BindingAcknowledgement, identity: Identity, generation: int) -> bool:
    """Whether this answers a PBU about this node and visit (RFC 5213 sections 5.5 and 6.9.1.2): a
    number may come again after a restart. Without the D flag nobody accepts anything: a peer that
    does not know Serving MAAR cannot have done what it says (RFC 8885 sections 4.1 and 4.2)."""
    if answer.accepted and not answer.dmm:
        return False
    for option in answer.options:
        if isinstance(option, MobileNodeIdentifier) and option.identity != identity:
            return False
        if isinstance(option, Timestamp) and answer.accepted and option.value != generation:
            return False
    return True


def refusal_options(
    prefixes: Iterable[Prefix], endpoint: bytes, enterprise: int
) -> list[MobilityOption]:
    """What the P-MAAR at `endpoint` says beside status 155: these are the prefixes that it does not
    anchor for the node. A refusal has to echo all that were named (RFC 5213 section 5.3.6), so it
    cannot say so by leaving the others out; an ANCHOR_FAILED for each, in a Vendor Specific option
    (RFC 5094), is passed over by who does not know it."""
    failed = [dmm.AnchorFailed(prefix, endpoint) for prefix in prefixes]
    return [
        VendorSpecific(enterprise, dmm.code_of(each), each.body()) for each in failed[:MOST_REFUSED]
    ]


def refused_prefixes(
    answer: BindingAcknowledgement, named: Iterable[Delegable], enterprise: int
) -> list[Prefix]:
    """Which of the prefixes that a PBU `named` its refusal (status 155) is about: those that it
    says, or all, where it does not say."""
    failed = set(_failed(answer.options, enterprise))
    prefixes = [prefix for prefix, _ in named]
    return [prefix for prefix in prefixes if prefix in failed] or prefixes


def _failed(options: Collection[MobilityOption], enterprise: int) -> Iterable[Prefix]:
    for option in options:
        if not isinstance(option, VendorSpecific) or option.enterprise != enterprise:
            continue
        if dmm.REGISTRY.get(option.subtype) is dmm.AnchorFailed:
            try:
                yield dmm.AnchorFailed.decode(option.data).prefix
            except WireError:
                continue
