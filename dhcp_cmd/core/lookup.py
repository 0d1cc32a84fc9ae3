"""What to read before a request can be decided."""

from __future__ import annotations

from dhcp_cmd.core.allocate import hashed_slots, pools_for, wanted_units
from dhcp_cmd.core.identity import Claim, claim_of
from dhcp_cmd.core.model import BindingRequest, Domain, IaRequest, Lookup, Maar, MaarState, Settings
from dhcp_cmd.core.place import Place, locate
from dmm_wire.dhcpv6.codes import MessageType

_LEASING = frozenset(
    map(int, (MessageType.SOLICIT, MessageType.REQUEST, MessageType.RENEW, MessageType.REBIND))
)


def lookup(request: BindingRequest, domain: Domain, settings: Settings) -> Lookup:
    """The identities that the request shows, and every prefix that `decide` may assign without asking again."""
    if request.server_id is not None and request.server_id != settings.server_duid:
        return Lookup((), ())
    place = locate(request, domain, settings.trusted_relays)
    if place.maar is None:
        return Lookup((), ())
    claim = claim_of(request, place)
    if not claim.identities or place.maar.state is not MaarState.ACTIVE:
        return Lookup(claim.identities, ())
    return Lookup(claim.identities, tuple(_candidates(request, domain, place, claim, place.maar)))


def _candidates(
    request: BindingRequest, domain: Domain, place: Place, claim: Claim, maar: Maar
) -> dict[bytes, None]:
    found: dict[bytes, None] = {}  # in order, each once
    if place.own:
        _add(found, domain, claim, maar, None, ())
    elif request.type in _LEASING:
        numbered = tuple(ia for ia in request.ias if not ia.delegated)
        if numbered:
            _add(found, domain, claim, maar, None, numbered)
        for ia in request.ias:
            if ia.delegated:
                _add(found, domain, claim, maar, ia, (ia,))
    return found


def _add(
    found: dict[bytes, None],
    domain: Domain,
    claim: Claim,
    maar: Maar,
    ia: IaRequest | None,
    naming: tuple[IaRequest, ...],
) -> None:
    pools = pools_for(domain, maar, ia)
    named = [hint.prefix for each in naming for hint in each.hints]
    for _, unit in wanted_units(pools, named):
        found[unit.address] = None
    iaid = None if ia is None else ia.iaid
    for pool in pools:
        for slot in hashed_slots(domain, claim.key, pool, iaid):
            found[pool.unit(slot).address] = None
