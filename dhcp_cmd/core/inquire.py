"""What a request says by itself, found once: where it comes from, who it shows, what to read before it is decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from dhcp_cmd.core.identity import Claim, claim_of, registered_claim
from dhcp_cmd.core.model import (
    BindingRequest,
    Domain,
    IaRequest,
    Kind,
    LeaseHint,
    Lookup,
    Maar,
    MaarState,
    Micros,
    Need,
    NodeId,
    Pool,
    PoolId,
    Registration,
    Settings,
    Snapshot,
)
from dhcp_cmd.core.place import NOWHERE, Place, locate
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType

# Looking a member up in its class costs as much as a call.
_DELEGATED: Final = Kind.DELEGATED
_LINK: Final = Kind.LINK
_ACTIVE: Final = MaarState.ACTIVE

PROBES = 2
"""Candidates per pool: with a quarter of the pool in use, fifteen of sixteen nodes need no search for a gap."""

WINDOW = 1 << 13
"""Units that nodes are spread over which come at the same time: enough that two of them seldom meet."""
WINDOW_TIME: Micros = 100_000
"""How long a window is used before the next one."""
LANES = 64
"""Windows in use at the same time, one for each CMD: those that drew the same lane only meet a little more often."""

REGISTRATION: Final = 0
DEREGISTRATION: Final = 255
"""The types of what is no DHCPv6 message (both reserved there, RFC 9915 section 7.3)."""

_LEASING = frozenset(
    map(int, (MessageType.SOLICIT, MessageType.REQUEST, MessageType.RENEW, MessageType.REBIND))
)


class Inquiry(NamedTuple):
    """A request with what follows from it and from the domain alone.

    `units` are the candidates of each pool (and IAID, None for a LINK pool) that something may come out of.
    """

    request: BindingRequest
    place: Place
    claim: Claim
    lookup: Lookup
    units: dict[tuple[PoolId, int | None], tuple[Prefix, ...]]
    window: int
    registration: Registration | None = None


def window_at(now: Micros, lane: int) -> int:
    """The number of the window that a CMD on `lane` (0 to LANES - 1) allocates out of at `now`."""
    return now // WINDOW_TIME * LANES + lane


def inquire(
    request: BindingRequest, domain: Domain, settings: Settings, window: int = 0
) -> Inquiry:
    """Find out where the request comes from, what it claims, and every prefix that `decide` may assign without
    asking again.
    """
    if request.server_id is not None and request.server_id != settings.server_duid:
        return Inquiry(request, NOWHERE, Claim(None, None), Lookup(), {}, window)
    place = locate(request, domain, settings.trusted_relays)
    if place.maar is None:
        return Inquiry(request, place, Claim(None, None), Lookup(), {}, window)
    claim = claim_of(request, place)
    return _looked_up(request, place, place.maar, claim, _assigning(request, place), domain, window)


def inquire_registration(registration: Registration, domain: Domain, window: int = 0) -> Inquiry:
    """As `inquire`, for what a MAAR registers."""
    transaction_id = b"\0" + registration.sequence.to_bytes(2, "big")
    kind = REGISTRATION if registration.lifetime else DEREGISTRATION
    request = BindingRequest(kind, transaction_id, None, None, False, (), (), registration.source)
    maar = domain.maar_at(registration.source)
    if maar is None or registration.identity is None or registration.fault is not None:
        place = NOWHERE if maar is None else Place(maar, 0)
        return Inquiry(request, place, Claim(None, None), Lookup(), {}, window, registration)
    claim = registered_claim(registration.identity, registration.link_layer)
    named = IaRequest(0, False, tuple(LeaseHint(each, 0, 0) for each in registration.prefixes))
    found = _looked_up(request, Place(maar, 0), maar, claim, [(None, (named,))], domain, window)
    return found._replace(registration=registration)


def _looked_up(
    request: BindingRequest,
    place: Place,
    maar: Maar,
    claim: Claim,
    assigning: Iterable[tuple[IaRequest | None, Sequence[IaRequest]]],
    domain: Domain,
    window: int,
) -> Inquiry:
    identities = claim.identities
    if domain.linked:
        others = (each for identity in identities for each in domain.linked.get(identity, ()))
        identities = tuple(dict.fromkeys((*identities, *others)))
    if not identities or maar.state is not _ACTIVE:
        return Inquiry(request, place, claim, Lookup(identities), {}, window)
    units: dict[tuple[PoolId, int | None], tuple[Prefix, ...]] = {}
    candidates: dict[bytes, None] = {}  # in order, each once
    for ia, naming in assigning:
        pools = pools_for(domain, maar, ia)
        named = [hint.prefix for each in naming for hint in each.hints]
        if named:
            for _, unit in wanted_units(pools, named):
                candidates[unit.address] = None
        iaid = None if ia is None else ia.iaid
        for pool in pools:
            found = units[pool.id, iaid] = hashed_units(domain, claim.key, pool, iaid, window)
            for unit in found:
                candidates[unit.address] = None
    return Inquiry(request, place, claim, Lookup(identities, tuple(candidates)), units, window)


def _assigning(
    request: BindingRequest, place: Place
) -> list[tuple[IaRequest | None, Sequence[IaRequest]]]:
    """What may be assigned: for each IA_PD a prefix, for None the LINK prefix; and the IAs that name wishes for it."""
    if place.own:
        return [(None, ())]
    if request.type not in _LEASING:
        return []
    found: list[tuple[IaRequest | None, Sequence[IaRequest]]] = []
    numbered = [ia for ia in request.ias if not ia.delegated]
    if numbered:
        found.append((None, numbered))
    found += [(ia, (ia,)) for ia in request.ias if ia.delegated]
    return found


def foresee(inquiries: Iterable[Inquiry], snapshot: Snapshot) -> Need:
    """What the decisions on a batch will ask of the history, so that it is read at once: what nodes that are known had
    last where they have nothing now.
    """
    asked: dict[tuple[NodeId, PoolId, int | None], None] = {}
    for inquiry in inquiries:
        here = inquiry.place.maar
        if here is None or not inquiry.units:
            continue
        for identity in inquiry.lookup.identities:
            node = snapshot.nodes.get(identity)
            if node is not None:
                held = snapshot.bindings.get(node.id, {}).values()
                local = {binding.iaid for binding in held if binding.anchor == here.id}
                for pool, iaid in inquiry.units:
                    if iaid not in local:
                        asked[node.id, pool, iaid] = None
                break
    return Need(last_held=tuple(asked))


def pools_for(domain: Domain, maar: Maar, ia: IaRequest | None) -> tuple[Pool, ...]:
    """The MAAR's pools for an IA_PD (or, for None, its LINK pools), the best first (RFC 8168 section 3.2).

    Best is the pool that a named prefix lies in, then the hinted length, then shorter ones (larger prefixes), the
    closest first, then longer ones.
    """
    pools = domain.pools_of(maar.id, _LINK if ia is None else _DELEGATED)
    if ia is None or len(pools) < 2 or not ia.hints:
        return pools
    named = [hint.prefix for hint in ia.hints if any(hint.prefix.address)]
    lengths = [hint.prefix.length for hint in ia.hints if not any(hint.prefix.address)]
    hinted = lengths[0] if lengths else None

    def rank(pool: Pool) -> tuple[bool, bool, int]:
        misfit = not any(pool.slot(prefix) is not None for prefix in named)
        if hinted is None:
            return misfit, False, 0
        return misfit, pool.unit_length > hinted, abs(pool.unit_length - hinted)

    return tuple(sorted(pools, key=rank))


def hashed_units(
    domain: Domain, key: bytes, pool: Pool, iaid: int | None, window: int
) -> tuple[Prefix, ...]:
    """Where in `pool` a node looks first; `key` is its identity.

    A keyed hash says where in the window. Nodes that come at the same time so get prefixes that are near each other:
    their rows share the pages of an index, and a commit writes few of them. A pool no larger than a window has one.
    """
    place = pool.id.to_bytes(8, "big") + (b"" if iaid is None else iaid.to_bytes(4, "big"))
    digest = blake2b(place + key, digest_size=8 * PROBES, key=domain.hash_key).digest()
    spread = min(pool.size, WINDOW)
    start = window * WINDOW if pool.size > WINDOW else 0
    numbers = [int.from_bytes(digest[i : i + 8], "big") for i in range(0, 8 * PROBES, 8)]
    return tuple([pool.unit((start + number % spread) % pool.size) for number in numbers])


def wanted_units(pools: Iterable[Pool], named: Iterable[Prefix]) -> Iterator[tuple[Pool, Prefix]]:
    """Units of the pools that hold what a client names: the prefix itself, or the prefix an address is in."""
    pools = tuple(pools)
    for prefix in named:
        for pool in pools:
            if prefix.length in (128, pool.unit_length):
                slot = pool.slot_of(prefix.address)
                if 0 <= slot < pool.size:
                    yield pool, pool.unit(slot)
