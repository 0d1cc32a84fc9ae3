"""Which prefix and which address: no table of offers, a keyed hash finds the same one again.

A node gets, in this order: its own ended prefix that nobody else could have had; the one it names, or that the
history says it had last, if free; one of a few candidates hashed from its identity (`inquire`); the first gap in the
pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Final

from dhcp_cmd.core.draft import DECLINED, Draft
from dhcp_cmd.core.inquire import pools_for, wanted_units
from dhcp_cmd.core.lifetime import until
from dhcp_cmd.core.model import (
    Binding,
    Domain,
    IaRequest,
    Kind,
    Maar,
    MaarState,
    Need,
    Node,
    Pool,
    PoolId,
    State,
)
from dmm_wire.address import Prefix

# Looking a member up in its class costs as much as a call.
_ADDRESS: Final = Kind.ADDRESS
_DELEGATED: Final = Kind.DELEGATED
_LINK: Final = Kind.LINK
_MAAR_ACTIVE: Final = MaarState.ACTIVE
_ACTIVE: Final = State.ACTIVE
_ENDED: Final = State.ENDED

ADDRESS_ATTEMPTS = 256
"""Interface identifiers tried for one address, as many as its counter's octet has; a reserved or declined one is passed
over."""


class Missing(Exception):
    """The decision cannot go on: `need` is to be read first."""

    def __init__(self, need: Need) -> None:
        super().__init__(need)
        self.need = need


# --- prefixes out of a pool ---


def allocate(
    draft: Draft, node: Node, maar: Maar, ia: IaRequest | None, named: Sequence[Prefix]
) -> Binding | None:
    """Assign a LINK prefix (`ia` None) or the prefix of an IA_PD at `maar`; None when there is none to be had.

    Raises Missing when the database is to be asked first.
    """
    if maar.state is not _MAAR_ACTIVE:
        return None
    pools = pools_for(draft.domain, maar, ia)
    if not pools:
        return None
    kind = _LINK if ia is None else _DELEGATED
    iaid = None if ia is None else ia.iaid
    revived = _revive(draft, maar, kind, iaid, pools) if draft.bindings else None
    if revived is not None:
        return revived
    found = (
        (_wanted(draft, pools, named) if named else None)
        or _last_held(draft, node, pools, iaid)
        or _hashed(draft, pools, iaid)
    )
    if found is None:
        return None
    return _assign(draft, node, *found, iaid)


def _assign(draft: Draft, node: Node, pool: Pool, prefix: Prefix, iaid: int | None) -> Binding:
    now = draft.now
    valid_until = until(now, pool.valid)
    preferred_until = min(until(now, pool.preferred), valid_until)
    return draft.assign(
        Binding(
            prefix,
            pool.kind,
            node.id,
            iaid,
            pool.maar,
            pool.id,
            _ACTIVE,
            now,
            preferred_until,
            valid_until,
        )
    )


def take(draft: Draft, node: Node, maar: Maar, prefix: Prefix) -> Binding | None:
    """Assign this very LINK prefix, which the MAAR chose out of its own pools; None where that may not be."""
    if maar.state is not _MAAR_ACTIVE:
        return None
    for pool in draft.domain.pools_of(maar.id, _LINK):
        if pool.slot(prefix) is None:
            continue
        own = draft.bindings.get(prefix.address)
        if own is not None:
            may = own.pool == pool.id and _revivable(own, maar, _LINK, None)
            return revive(draft, own, pool) if may else None
        return _assign(draft, node, pool, prefix, None) if _is_free(draft, prefix) else None
    return None


def _revive(
    draft: Draft, maar: Maar, kind: Kind, iaid: int | None, pools: Sequence[Pool]
) -> Binding | None:
    """The node's own ended row, if its length is what the client would get now (RFC 8168 section 3.2)."""
    best: tuple[Binding, Pool] | None = None
    for binding in draft.bindings.values():
        if not _revivable(binding, maar, kind, iaid):
            continue
        for pool in pools:
            if (
                pool.id == binding.pool
                and pool.unit_length == pools[0].unit_length
                and pool.slot(binding.prefix) is not None
                and (best is None or (binding.ended_at or 0) > (best[0].ended_at or 0))
            ):
                best = binding, pool
    return None if best is None else revive(draft, *best)


def _revivable(binding: Binding, maar: Maar, kind: Kind, iaid: int | None) -> bool:
    return (
        binding.state is _ENDED
        and binding.kind is kind
        and binding.iaid == iaid
        and binding.anchor == maar.id
        and binding.preferred_until != DECLINED
    )


def revive(draft: Draft, binding: Binding, pool: Pool) -> Binding:
    """Give an ended binding back to its node, with fresh lifetimes and what older promises it still has."""
    promised = until(draft.now, pool.valid)
    quarantined = [b.reusable_at or 0 for b in draft.within(binding) if is_declined(b)]
    return draft.assign(
        binding._replace(
            state=_ACTIVE,
            assigned_at=draft.now,
            preferred_until=min(until(draft.now, pool.preferred), promised),
            valid_until=max(binding.valid_until, promised),
            hold_until=None,
            ended_at=None,
            reusable_at=max(quarantined) if binding.kind is _LINK and quarantined else None,
            autoconf=False,
        )
    )


def is_declined(binding: Binding) -> bool:
    """Whether the binding ended because somebody else was seen to use it."""
    return binding.state is _ENDED and binding.preferred_until == DECLINED


def _is_free(draft: Draft, prefix: Prefix) -> bool:
    address = prefix.address
    return address not in draft.snapshot.taken and address not in draft.bindings


def _wanted(
    draft: Draft, pools: Sequence[Pool], named: Sequence[Prefix]
) -> tuple[Pool, Prefix] | None:
    # `lookup` made candidates of these, so that `taken` knows them.
    return next((each for each in wanted_units(pools, named) if _is_free(draft, each[1])), None)


def _last_held(
    draft: Draft, node: Node, pools: Sequence[Pool], iaid: int | None
) -> tuple[Pool, Prefix] | None:
    """What the history says the node had last. A stranger has none."""
    if not draft.is_known:
        return None
    snapshot = draft.snapshot
    asked = [(node.id, pool.id, iaid) for pool in pools]
    if any(each not in snapshot.last_held for each in asked):
        raise Missing(Need(last_held=_questions(draft, node, asked)))
    for pool, question in zip(pools, asked, strict=True):
        prefix = snapshot.last_held[question]
        slot = None if prefix is None else pool.slot(prefix)
        if prefix is None or slot is None or not _is_free(draft, prefix):
            continue
        # Free for all we have seen; whether it has a row is answered by the first gap from there.
        if _answer(draft, pool.id, slot) == prefix:
            return pool, prefix
    return None


def _questions(
    draft: Draft, node: Node, first: Iterable[tuple[int, int, int | None]]
) -> tuple[tuple[int, int, int | None], ...]:
    """Everything this request may come to ask of the history, so that it costs one read and not one for each IA."""
    asked = dict.fromkeys(first)
    for pool, iaid in _places(draft):
        asked[node.id, pool.id, iaid] = None
    return tuple(each for each in asked if each not in draft.snapshot.last_held)


def _places(draft: Draft) -> Iterator[tuple[Pool, int | None]]:
    """Every pool that something may come from for this request, with the IAID that it would be for."""
    pools = () if draft.here is None else draft.domain.pools.get(draft.here.id, ())
    for ia in draft.request.ias:
        for pool in pools:
            if (pool.kind is _DELEGATED) is ia.delegated:
                yield pool, ia.iaid if ia.delegated else None


def _hashed(draft: Draft, pools: Sequence[Pool], iaid: int | None) -> tuple[Pool, Prefix] | None:
    """Every pool of the best length, to its last unit, before one of another length."""
    if len(pools) == 1:
        return _candidate(draft, pools, iaid) or _gap(draft, pools, iaid)
    for _, same in groupby(pools, key=lambda pool: pool.unit_length):
        group = tuple(same)
        found = _candidate(draft, group, iaid) or _gap(draft, group, iaid)
        if found is not None:
            return found
    return None


def _candidate(draft: Draft, pools: Sequence[Pool], iaid: int | None) -> tuple[Pool, Prefix] | None:
    for pool in pools:
        for prefix in draft.units(pool, iaid):
            if _is_free(draft, prefix):
                return pool, prefix
    return None


def _gap(draft: Draft, pools: Sequence[Pool], iaid: int | None) -> tuple[Pool, Prefix] | None:
    for pool in pools:
        slot = _start(draft, pool, iaid)
        seen: set[int] = set()
        while slot not in seen:
            seen.add(slot)
            prefix = _answer(draft, pool.id, slot)
            found = None if prefix is None else pool.slot(prefix)
            if prefix is None or found is None:
                break
            if _is_free(draft, prefix):
                return pool, prefix
            slot = (found + 1) % pool.size  # an earlier request of this batch took it
    return None


def _start(draft: Draft, pool: Pool, iaid: int | None) -> int:
    """Where a search for a gap begins."""
    return pool.slot_of(draft.units(pool, iaid)[0].address)


def _answer(draft: Draft, pool: PoolId, slot: int) -> Prefix | None:
    """The first gap from that slot. Where it must be read, so are those that the request's other IAs begin with: one
    read, and not one for each IA.
    """
    gaps, question = draft.snapshot.gaps, (pool, slot)
    if question in gaps:
        return gaps[question]
    asked = dict.fromkeys([question])
    for each, iaid in _places(draft):
        asked[each.id, _start(draft, each, iaid)] = None
    raise Missing(Need(gaps=tuple(each for each in asked if each not in gaps)))


# --- addresses out of a node's LINK prefix ---


def address(
    draft: Draft, node: Node, link: Binding, pool: Pool, ia: IaRequest, named: Sequence[Prefix]
) -> Binding | None:
    """Assign an address of an IA_NA out of the node's LINK prefix; nobody else has any there, so nothing is read."""
    anchor = draft.domain.maars[link.anchor]
    for binding in draft.within(link):
        if _revivable(binding, anchor, _ADDRESS, ia.iaid):
            return revive(draft, binding, pool)
    for found in _addresses(draft, link, ia.iaid, named):
        if found not in draft.bindings:
            return draft.assign(
                Binding(
                    prefix=Prefix(found, 128),
                    kind=_ADDRESS,
                    node=node.id,
                    iaid=ia.iaid,
                    anchor=link.anchor,
                    pool=None,
                    state=_ACTIVE,
                    assigned_at=draft.now,
                    preferred_until=link.preferred_until,
                    valid_until=link.valid_until,
                )
            )
    return None


def _addresses(draft: Draft, link: Binding, iaid: int, named: Sequence[Prefix]) -> Iterator[bytes]:
    bits = min(64, 128 - link.prefix.length)
    first = int.from_bytes(link.prefix.address, "big")
    for prefix in named:
        offset = int.from_bytes(prefix.address, "big") - first
        if 0 <= offset < 1 << bits and not is_reserved(offset, bits):
            yield prefix.address
    for attempt in range(ADDRESS_ATTEMPTS):
        identifier = interface_identifier(draft.domain, draft.key, link.prefix, iaid, attempt)
        if not is_reserved(identifier, bits):
            yield (first + identifier).to_bytes(16, "big")


def interface_identifier(domain: Domain, key: bytes, link: Prefix, iaid: int, attempt: int) -> int:
    """A semantically opaque interface identifier (RFC 7943 section 3): F(prefix, DUID, IAID, counter, secret)."""
    place = link.address + iaid.to_bytes(4, "big") + bytes((attempt,))
    digest = blake2b(place + key, digest_size=8, key=domain.hash_key).digest()
    return int.from_bytes(digest, "big") & ((1 << min(64, 128 - link.length)) - 1)


def is_reserved(identifier: int, bits: int) -> bool:
    """Whether no host may have this interface identifier of so many bits (RFC 5453, RFC 2526).

    Reserved are the subnet-router anycast address, the highest 128 (subnet anycast) and, with 64 bits, IANA's
    Ethernet block, which has Proxy Mobile IPv6's own (RFC 6543), and the anycast identifiers of EUI-64 format.
    """
    if identifier == 0 or identifier >= (1 << bits) - 128:
        return True
    if bits != 64:
        return False
    return (
        0x0200_5EFF_FE00_0000 <= identifier <= 0x0200_5EFF_FEFF_FFFF
        or 0xFDFF_FFFF_FFFF_FF80 <= identifier <= 0xFDFF_FFFF_FFFF_FFFF
    )
