"""What the MAAR is told at its relay level (DESIGN 3.1): always the full set, what is absent has ended."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.identity import mobile_node
from dhcp_cmd.core.model import Decision, Domain, Hold, Kind, Maar, MaarId, RouterChoice
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED
from dmm_wire.dmm import DmmStatus, SignallingMode, SubOption
from dmm_wire.errors import WireError
from dmm_wire.router_identity import ETHERNET

# Looking a member up in its class costs as much as a call.
_SUCCESS: Final = DmmStatus.SUCCESS
_ADDRESS: Final = Kind.ADDRESS
_DELEGATED: Final = Kind.DELEGATED
_DLIF: Final = RouterChoice.DLIF
_DIRECT: Final = SignallingMode.DIRECT
_PROXY: Final = SignallingMode.PROXY
_RELAY: Final = SignallingMode.RELAY

_NO_ROUTER: Final = (None, None)

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
    tells_routers = draft.settings.router_identity is _DLIF
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
            maar = maars[binding.anchor]
            local, layer = _router(maar) if tells_routers else _NO_ROUTER
            elsewhere.append(
                dmm.PreviousMaar(
                    binding.prefix, preferred, valid, delegated, maar.endpoint, local, layer
                )
            )
    if not draft.signals_itself:
        return (*options, *anchored, *elsewhere)
    told: tuple[SubOption, ...] = (*options, *anchored, *elsewhere)
    told = (*told, signalling(draft.settings.mode))
    if draft.settings.mode is _RELAY and hold(draft) is not None:
        return told  # what has not been acknowledged is marked when the answer goes
    return acknowledged(told, [maars[maar].endpoint for maar in unheard(draft)])


def _router(maar: Maar) -> tuple[bytes, tuple[int, bytes]]:
    """As which router the S-MAAR is to show the anchor (RFC 8885 section 3.7)."""
    link_local, link_layer = maar.router
    return link_local, (ETHERNET, link_layer)


def signalling(mode: SignallingMode) -> SubOption:
    """SIGNALLING."""
    return dmm.Signalling(int(mode))


def unheard(draft: Draft) -> list[MaarId]:
    """The MAARs that have not acknowledged where the node is."""
    return [maar for maar, signal in draft.signals().items() if signal.visit]


def hold(draft: Draft) -> Hold | None:
    """What the answer to a client's message, or about a first frame, waits for (mode RELAY, RFC 8885 section 3.2): the
    P-MAARs that anchor something, up to a time after they were owed the news."""
    node, settings = draft.node, draft.settings
    if settings.mode is not _RELAY or node is None:
        return None
    if draft.place.own and draft.place.first(dmm.Attachment) is None:
        return None
    anchors = {b.anchor for b in draft.live() if b.kind is not _ADDRESS}
    waiting = [s for s in draft.signals().values() if s.visit and s.maar in anchors]
    until = min((s.put_at for s in waiting), default=0) + settings.relay_timeout * 1000
    patience = until - draft.now
    if patience <= 0:
        return None
    maars = draft.domain.maars
    return Hold(node.id, tuple((s.maar, maars[s.maar].endpoint) for s in waiting), patience)


def acknowledged(
    options: Sequence[SubOption], unheard_of: Collection[bytes]
) -> tuple[SubOption, ...]:
    """`options`, where what is anchored at the endpoints `unheard_of` is awaited: these have not acknowledged where the
    node is. In mode PROXY nobody waits for that."""
    mode = next((each.mode for each in options if isinstance(each, dmm.Signalling)), _DIRECT)
    if not unheard_of or mode in (_DIRECT, _PROXY):
        return tuple(options)
    return tuple(
        replace(each, awaited=True)
        if isinstance(each, dmm.PreviousMaar) and each.endpoint in unheard_of
        else each
        for each in options
    )
