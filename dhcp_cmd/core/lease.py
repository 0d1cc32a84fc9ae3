"""What an IA gets and gives back: the local lease, longer lifetimes, Release, Decline."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.allocate import address, allocate
from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.model import Binding, EventType, IaRequest, Kind, State
from dmm_wire.address import Prefix

# Looking a member up in its class costs as much as a call.
_RELEASED: Final = EventType.RELEASED
_ADDRESS: Final = Kind.ADDRESS
_DELEGATED: Final = Kind.DELEGATED
_LINK: Final = Kind.LINK
_DEPRECATED: Final = State.DEPRECATED
_ENDED: Final = State.ENDED


def kind_of(ia: IaRequest) -> Kind:
    """What the leases of an IA are."""
    return _DELEGATED if ia.delegated else _ADDRESS


def has_pool(draft: Draft, ia: IaRequest) -> bool:
    """Whether the MAAR has anything at all to give to such an IA."""
    if draft.here is None:
        return False
    kind = _DELEGATED if ia.delegated else _LINK
    return bool(draft.domain.pools_of(draft.here.id, kind))


def hold(draft: Draft, ia: IaRequest) -> None:
    """See to the IA's local lease and promise all its leases anew, the anchored ones as long as they are held.

    One local lease per IA: a hint for another length does not replace it (RFC 8168 section 3.5, choice 1). Raises
    Missing when the database is to be asked first.
    """
    here = draft.here
    if here is None:
        return
    kind = kind_of(ia)
    live = [b for b in draft.of_ia(kind, ia.iaid) if b.state is not _ENDED]
    has_local = False
    for binding in live:
        has_local = has_local or binding.anchor == here.id
    if not has_local and (live or _may_have_another(draft)):
        # With its full lifetimes: it needs no extension below.
        if ia.delegated:
            _delegate(draft, ia)
        else:
            _number(draft, ia)
    for binding in live:
        if binding.anchor == here.id and binding.state is _DEPRECATED:
            # Only behind a relay without mobility: there the visit, if there is one, is elsewhere.
            if binding.kind is _ADDRESS:
                hold_link(draft)
            binding = draft.activate(binding)
        extend(draft, binding)


def _may_have_another(draft: Draft) -> bool:
    """Whether the node may hold leases for an IA more."""
    if len(draft.bindings) < draft.settings.max_ias:
        return True
    held = {(b.kind, b.iaid) for b in draft.live() if b.kind is not _LINK}
    return len(held) < draft.settings.max_ias


def hold_link(draft: Draft, named: tuple[Prefix, ...] = ()) -> Binding | None:
    """See to the node's LINK prefix here; None when there is none to be had. Raises Missing as `hold`."""
    here, node = draft.here, draft.node
    if here is None or node is None:
        return None
    link = draft.link_at(here.id) or allocate(draft, node, here, None, named)
    if link is not None and link.state is _DEPRECATED:
        link = draft.activate(link)
    return link


def extend(draft: Draft, binding: Binding) -> None:
    """Promise the pool's lifetimes anew. An address takes its LINK prefix along, which must outlive it."""
    pool = draft.pool_of(binding)
    if pool is None or not draft.may_extend(binding):
        return
    if binding.kind is _ADDRESS:
        link = draft.link_at(binding.anchor)
        if link is not None:
            draft.extend(link, pool)
    draft.extend(binding, pool)


def extend_own_addresses(draft: Draft) -> None:
    """Promise anew what the node makes its addresses out of: nobody but its MAAR asks for that."""
    for binding in draft.live():
        if binding.kind is _LINK and binding.autoconf:
            extend(draft, binding)


def release(draft: Draft, ia: IaRequest) -> bool:
    """End the leases that the client names in this IA (RFC 9915 section 18.3.7); False where it has none."""
    return _give_back(draft, ia, declined=False)


def decline(draft: Draft, ia: IaRequest) -> bool:
    """As `release`, and nobody gets them for the time of the quarantine (RFC 9915 section 18.3.8). Only addresses are
    declined (section 18.2.8): nobody else can be seen to use a prefix.
    """
    return _give_back(draft, ia, declined=not ia.delegated)


def _delegate(draft: Draft, ia: IaRequest) -> Binding | None:
    if draft.here is None or draft.node is None:
        return None
    return allocate(draft, draft.node, draft.here, ia, _named(ia))


def _number(draft: Draft, ia: IaRequest) -> Binding | None:
    link = hold_link(draft, _named(ia))
    pool = None if link is None else draft.pool_of(link)
    if link is None or pool is None or draft.node is None or not draft.may_extend(link):
        return None
    link = draft.extend(link, pool)
    return address(draft, draft.node, link, pool, ia, _named(ia))


def _named(ia: IaRequest) -> tuple[Prefix, ...]:
    return tuple(hint.prefix for hint in ia.hints if any(hint.prefix.address))


def _give_back(draft: Draft, ia: IaRequest, *, declined: bool) -> bool:
    if draft.is_elsewhere:
        return False  # a relay without mobility does not speak for a node that is at a MAAR
    kind = kind_of(ia)
    live = {b.prefix: b for b in draft.of_ia(kind, ia.iaid) if b.state is not _ENDED}
    for hint in ia.hints:
        binding = live.get(hint.prefix)
        if binding is not None and draft.bindings[hint.prefix.address].state is not _ENDED:
            draft.end(binding, _RELEASED, declined=declined)
            if kind is _ADDRESS:
                _after_address(draft, binding, declined=declined)
    return bool(live)


def _after_address(draft: Draft, given_back: Binding, *, declined: bool) -> None:
    """What the end of an address means for its LINK prefix.

    An anchored one that no address is left of needs no tunnel any more. The local one is the node's on-link prefix
    for the whole visit; where it holds an address in quarantine, it may not go to somebody else before that is over.
    """
    link = draft.link_at(given_back.anchor)
    if link is None:
        return
    if declined:
        quarantine = draft.bindings[given_back.prefix.address].reusable_at or 0
        floor = max(link.reusable_at or 0, quarantine)
        link = draft.put(link._replace(reusable_at=floor))
    if link.state is _DEPRECATED and not draft.is_in_use(link):
        draft.end(link, _RELEASED)
