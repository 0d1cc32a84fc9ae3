"""What a PBA says to the MAAR that registered a mobile node (RFC 8885 sections 3.1 to 3.4), to and from
the sub-options that say it in a Relay-reply: the visit, and the full set of the node's prefixes.

Home Network Prefix (22) and Delegated Mobile Network Prefix (55) name what is anchored at the MAAR,
Previous MAAR (67) what is anchored elsewhere, each with its anchor; one of these that is delegated is
in a 55, too. That is all that a MAAR of any make needs. What RFC 8885 has no field for stands beside
it in Vendor Specific Mobility options (RFC 5094), whose sub-type and data are code and data of the
sub-option: VISIT, SIGNALLING, MOBILE_NODE, and ANCHORED_PREFIX and PREVIOUS_MAAR, because a PBA has one
lifetime for all prefixes. As which router an anchor is shown, DLIF Link-Local Address (69) and DLIF
Link-Layer Address (70) say behind its first 67. What is awaited (modes relay and locator) is in a
PREVIOUS_MAAR alone: who does not know these must not serve it yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.dhcpv6.codes import INFINITY
from dmm_wire.errors import WireError
from dmm_wire.mobility.answers import first
from dmm_wire.mobility.codes import LIFETIME_INFINITY, LIFETIME_UNIT
from dmm_wire.mobility.message import BindingAcknowledgement, BindingUpdate
from dmm_wire.mobility.options import (
    DelegatedPrefix,
    HomeNetworkPrefix,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    Timestamp,
    VendorSpecific,
)
from dmm_wire.mobility.routers import router_options, routers_in
from dmm_wire.router_identity import ETHERNET, RouterIdentity

_BESIDE: Final = (dmm.Visit, dmm.Signalling, dmm.MobileNode)
_LONGEST: Final = 250
"""Octets that an option holds beside enterprise number and sub-type. A longer name is that of the PBU."""
_LIFETIMES: Final = (dmm.AnchoredPrefix, dmm.PreviousMaar)


def forgot_option(endpoint: bytes, enterprise: int) -> VendorSpecific:
    """What a PBU says beside what it registers where the MAAR at `endpoint` knows of no node, as in a
    Relay-forward: whoever was told that it anchors something for nodes elsewhere tells it again."""
    said = dmm.Maar(endpoint, dmm.NO_SESSIONS)
    return VendorSpecific(enterprise, dmm.code_of(said), said.body())


def has_forgotten(update: BindingUpdate, enterprise: int) -> bool:
    """Whether a PBU says so."""
    maar = next((s for s in _own(update, enterprise) if isinstance(s, dmm.Maar)), None)
    return maar is not None and bool(maar.capabilities & dmm.NO_SESSIONS)


def later_option(known: dmm.Visit, enterprise: int) -> VendorSpecific:
    """What a PBU says beside what it registers where a later visit of the node is known than the CMD told
    of: `known` has its generation and the endpoint of the MAAR that knows it."""
    return VendorSpecific(enterprise, dmm.code_of(known), known.body())


def later_generation(update: BindingUpdate, enterprise: int) -> int | None:
    """The generation of the visit of which a PBU says so."""
    visit = next((s for s in _own(update, enterprise) if isinstance(s, dmm.Visit)), None)
    return None if visit is None else visit.generation


def told_options(
    suboptions: Iterable[dmm.SubOption],
    enterprise: int,
    *,
    lifetimes: bool = True,
    routers: bool = True,
) -> list[MobilityOption]:
    """The options that say what `suboptions` say. Without `lifetimes` each prefix has the PBA's; without
    `routers` it is not said as which ones anchors are shown."""
    options: list[MobilityOption] = []
    beside: list[MobilityOption] = []
    shown: set[bytes] = set()
    for each in suboptions:
        is_awaited = isinstance(each, dmm.PreviousMaar) and each.awaited
        if isinstance(each, dmm.AnchoredPrefix):
            kind = DelegatedPrefix if each.delegated else HomeNetworkPrefix
            options.append(kind(each.prefix))
        elif isinstance(each, dmm.PreviousMaar) and not is_awaited:
            options.append(PreviousMaarOption(each.endpoint, each.prefix))
            if routers and each.endpoint not in shown:
                shown.add(each.endpoint)
                options += router_options(_router(each))
            if each.delegated:
                options.append(DelegatedPrefix(each.prefix))
        is_beside = isinstance(each, _BESIDE) or is_awaited
        if is_beside or (lifetimes and isinstance(each, _LIFETIMES)):
            body = _plain(each).body()
            if len(body) <= _LONGEST:
                beside.append(VendorSpecific(enterprise, dmm.code_of(each), body))
    return options + beside


def _plain(suboption: dmm.SubOption) -> dmm.SubOption:
    """Without what options of RFC 8885 say."""
    if not isinstance(suboption, dmm.PreviousMaar) or suboption.dlif_link_local is None:
        return suboption
    return replace(suboption, dlif_link_local=None, dlif_link_layer=None)


def _router(named: dmm.PreviousMaar) -> RouterIdentity | None:
    if named.dlif_link_local is None or named.dlif_link_layer is None:
        return None
    return RouterIdentity(named.dlif_link_local, named.dlif_link_layer[1])


def shortest(suboptions: Iterable[dmm.SubOption], asked: int) -> int:
    """The lifetime in seconds of a PBA that says what `suboptions` say, `asked` at most.

    It is that of the prefix that ends first, so that a MAAR that knows of no other keeps none for
    longer, and registers again in time to hear what is left. One in its last four seconds does not
    count: 0 would be a de-registration.
    """
    for each in suboptions:
        if isinstance(each, _LIFETIMES) and LIFETIME_UNIT <= each.valid < INFINITY:
            asked = min(asked, each.valid)
    return min(asked, LIFETIME_INFINITY)


def told(answer: BindingAcknowledgement, enterprise: int) -> tuple[dmm.SubOption, ...]:
    """What an accepted PBA says, as sub-options; VISIT, SIGNALLING and MOBILE_NODE are there.

    Of a sender that says nothing in options of `enterprise`, the visit's generation is the
    timestamp, all lifetimes are the PBA's, and it tells the P-MAARs itself. Such an option that
    cannot be read counts as absent.
    """
    own = _own(answer, enterprise)
    known = {each.prefix: each for each in own if isinstance(each, _LIFETIMES)}
    found: dict[type[dmm.SubOption], dmm.SubOption] = {}
    for each in own:
        if isinstance(each, _BESIDE):
            found.setdefault(type(each), each)
    identifier, timestamp = first(answer, MobileNodeIdentifier), first(answer, Timestamp)
    if identifier is not None:
        found.setdefault(dmm.MobileNode, dmm.MobileNode(identifier.identity))
    generation = 0 if timestamp is None else timestamp.value
    found.setdefault(dmm.Visit, dmm.Visit(generation, UNSPECIFIED))
    found.setdefault(dmm.Signalling, dmm.Signalling(dmm.SignallingMode.PROXY))
    delegated = {o.prefix for o in answer.options if isinstance(o, DelegatedPrefix)}
    elsewhere = {o.prefix: o.endpoint for o in answer.options if isinstance(o, PreviousMaarOption)}
    routers = routers_in(answer.options)
    lifetime = INFINITY if answer.lifetime >= LIFETIME_INFINITY else answer.lifetime
    prefixes: list[dmm.SubOption] = []
    named = _named(answer)
    for prefix in named:
        times = known.get(prefix)
        preferred, valid = (lifetime, lifetime) if times is None else (times.preferred, times.valid)
        if prefix in elsewhere:
            at = elsewhere[prefix]
            link_local, link_layer = routers.get(at, (None, None))
            mac = None if link_layer is None else (ETHERNET, link_layer)
            prefixes.append(
                dmm.PreviousMaar(prefix, 0, valid, prefix in delegated, at, link_local, mac)
            )
        else:
            prefixes.append(dmm.AnchoredPrefix(prefix, preferred, valid, prefix in delegated))
    awaited = (o for o in own if isinstance(o, dmm.PreviousMaar) and o.awaited)
    prefixes += (each for each in awaited if each.prefix not in named)
    return (*found.values(), *prefixes)


def _own(message: BindingUpdate | BindingAcknowledgement, enterprise: int) -> list[dmm.SubOption]:
    found: list[dmm.SubOption] = []
    for option in message.options:
        if isinstance(option, VendorSpecific) and option.enterprise == enterprise:
            kind = dmm.REGISTRY.get(option.subtype)
            try:
                found += [] if kind is None else [kind.decode(option.data)]
            except WireError:
                continue
    return found


def _named(answer: BindingAcknowledgement) -> list[Prefix]:
    kinds = (HomeNetworkPrefix, DelegatedPrefix, PreviousMaarOption)
    named = (option.prefix for option in answer.options if isinstance(option, kinds))
    return [prefix for prefix in dict.fromkeys(named) if prefix.length]
