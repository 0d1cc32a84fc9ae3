"""What the MAAR is told at its relay level (DESIGN 3.1): always the full set, what is absent has ended."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.identity import mobile_node
from dhcp_cmd.core.model import Decision, Domain, Kind
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED
from dmm_wire.dmm import DmmStatus, SubOption
from dmm_wire.errors import WireError

# Looking a member up in its class costs as much as a call.
_SUCCESS: Final = DmmStatus.SUCCESS
_ADDRESS: Final = Kind.ADDRESS
_DELEGATED: Final = Kind.DELEGATED

MAX_ANSWER = 60_000
"""Octets of the options that the CMD decides. A UDP datagram holds 65,527, and the host adds to these."""

_LARGEST = 300
"""No sub-option but DOMAIN has more octets (STATUS texts are our own, an NAI has 253 at most)."""


def status(code: DmmStatus, text: str = "") -> SubOption:
    """STATUS."""
    return dmm.Status(int(code), text)


def peers(domain: Domain) -> SubOption:
    """DOMAIN: the endpoints of all MAARs, in the order of their ids."""
    return dmm.Domain(tuple(maar.endpoint for _, maar in sorted(domain.maars.items())))


def fits(decision: Decision, enterprise: int) -> bool:
    """Whether the answer is no larger than an option and a datagram can be. A DOMAIN names 3,749 MAARs at most."""
    options = () if decision.reply is None else decision.reply.options
    said = sum(len(body) for _, body in options)
    if len(decision.relay) * _LARGEST + said <= MAX_ANSWER and not any(
        isinstance(each, dmm.Domain) for each in decision.relay
    ):
        return True  # nearly always, and at the cost of no encoding
    try:
        _, ours = dmm.to_option(enterprise, decision.relay)
    except WireError:  # one sub-option alone is too large
        return False
    return len(ours) + said <= MAX_ANSWER


def visit_options(draft: Draft) -> tuple[SubOption, ...]:
    """STATUS 0, the node, its visit, the prefixes anchored at the MAAR addressed and those anchored elsewhere.

    Prefixes, not addresses: the unit of mobility is the prefix. Both lists are sorted, so that the same state is the
    same bytes.
    """
    node, here = draft.node, draft.here
    options: list[SubOption] = [status(_SUCCESS)]
    if node is None or here is None or not draft.bindings:
        return tuple(options)  # who holds nothing is on no visit
    identity = mobile_node(node)
    if identity is not None:
        options.append(dmm.MobileNode(identity))
    maars = draft.domain.maars
    previous = maars.get(node.previous) if node.previous is not None else None
    options.append(
        dmm.Visit(node.generation, previous.endpoint if previous is not None else UNSPECIFIED)
    )
    anchored: list[SubOption] = []
    elsewhere: list[SubOption] = []
    for binding in sorted(draft.live(), key=lambda b: b.prefix):
        if binding.kind is _ADDRESS:
            continue
        preferred, valid = draft.lifetimes(binding)
        if not valid:
            continue  # in its last second
        delegated = binding.kind is _DELEGATED
        if binding.anchor == here.id:
            anchored.append(dmm.AnchoredPrefix(binding.prefix, preferred, valid, delegated))
        elif binding.anchor in maars:
            endpoint = maars[binding.anchor].endpoint
            elsewhere.append(
                dmm.PreviousMaar(binding.prefix, preferred, valid, delegated, endpoint)
            )
    return (*options, *anchored, *elsewhere)
