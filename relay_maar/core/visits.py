"""What the CMD says of a visit: whether it is news, where the node is, and which prefixes it has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, is_routable
from dmm_wire.dhcpv6.codes import INFINITY
from dmm_wire.identity import Identity, is_link_layer, of_link_layer
from dmm_wire.router_identity import RouterIdentity
from relay_maar.core.actions import Action, Log
from relay_maar.core.cache import BindingCache
from relay_maar.core.identities import Identities, ethernet
from relay_maar.core.noticed import made_link_local
from relay_maar.core.session import (
    MAX_PREFIXES,
    Attachment,
    Named,
    Role,
    Session,
    Signalled,
    arrive,
)
from relay_maar.core.telling import came, changed_place, conflict

_LOG_PAUSE: Final = 10.0
"""Seconds between two log lines about a conflict, which any host can cause at will."""


class Visits:
    """Takes in VISITs. Those that are passed over are counted in `counters`."""

    def __init__(
        self,
        endpoint: bytes,
        cache: BindingCache,
        identities: Identities,
        counters: Counter[str],
    ) -> None:
        self._endpoint = endpoint
        self._cache = cache
        self._identities = identities
        self._counters = counters
        self._logged = -math.inf

    def accept(
        self,
        identity: Identity,
        told: Attachment,
        visit: dmm.Visit,
        suboptions: Collection[dmm.SubOption],
        now: float,
    ) -> tuple[list[Action], Session | None]:
        """The node is at `told` and has the prefixes that `suboptions` name, all of them. The
        session is None where the VISIT is passed over."""
        renamed = self._known_as(identity, told, now)
        actions, session = self._accept(identity, told, visit, suboptions, now)
        return renamed + actions, session

    def _known_as(self, identity: Identity, told: Attachment, now: float) -> list[Action]:
        """Of a node that came by its first frame nothing was known but its link-layer address, and
        its session was called so. When the CMD has learned its DUID it is called by that."""
        if told.link_layer is None or len(told.link_layer) not in (6, 8) or is_link_layer(identity):
            return []
        known = self._cache.get(of_link_layer(told.link_layer))
        return [] if known is None else self._cache.rename(known, identity, now)

    def _accept(
        self,
        identity: Identity,
        told: Attachment,
        visit: dmm.Visit,
        suboptions: Collection[dmm.SubOption],
        now: float,
    ) -> tuple[list[Action], Session | None]:
        before = self._cache.get(identity)
        if not self._cache.has_room(identity):
            return self._pass_over("session-limit")
        if before is not None and is_stale(visit, before):
            return self._pass_over("stale")
        attachment = _latest(before, told)
        if (holder := self._holder(identity, attachment)) is not None:
            actions, _ = self._pass_over("link-local-conflict")
            if now >= self._logged + _LOG_PAUSE:
                self._logged = now
                actions.append(Log("warning", conflict(identity, attachment, holder)))
            return actions, None
        self._counters["visit.accepted"] += 1
        session = arrive(
            before,
            identity,
            visit.generation,
            visit.previous if is_routable(visit.previous) else UNSPECIFIED,
            attachment,
            full_set(suboptions, self._endpoint, self._identities, self._counters),
            self._endpoint,
            now,
            signalled(suboptions),
        )
        moved = before is None or before.generation != visit.generation
        actions = self._cache.serve(session, moved=moved, now=now)
        if moved:
            actions.append(Log("info", partial(came, session, self._cache.told(identity))))
        elif before is not None and before.attachment not in (None, attachment):
            actions.append(Log("info", changed_place(before, session)))
        return actions, session

    def _pass_over(self, reason: str) -> tuple[list[Action], None]:
        self._counters[f"visit.{reason}"] += 1
        return [], None

    def _holder(self, identity: Identity, attachment: Attachment) -> Session | None:
        """Another node that has this place, and prefixes that lead there: a host that takes the
        link-local address of another must not get its packets. One that has the same link-layer
        address is the same host under another name."""
        holder = self._cache.at(attachment.interface, attachment.link_local)
        if holder is None or holder.identity == identity or holder.attachment is None:
            return None
        known = holder.attachment.link_layer
        if known is not None and known == attachment.link_layer:
            return None
        return holder if holder.having(Role.LOCAL, Role.SERVED) else None


def _latest(before: Session | None, told: Attachment) -> Attachment:
    """Where the node is, if a reply says that it is at `told`: there, unless the message behind the
    reply is older than the one that brought the node where it is. A place that it keeps does not
    lose the link-layer address."""
    if before is None or before.attachment is None:
        return told
    known = before.attachment
    if told.heard < known.heard:
        return known
    if told.link_layer is None and told.place == known.place:
        return replace(told, link_layer=known.link_layer)
    same_node = (told.interface, told.link_layer) == (known.interface, known.link_layer)
    if same_node and told.link_layer and told.link_local == made_link_local(told.link_layer):
        return replace(told, link_local=known.link_local)
    return told


def is_stale(visit: dmm.Visit, session: Session) -> bool:
    """Whether a later visit is known. Of a visit elsewhere, which a PBU told us, the generation is
    not ours."""
    if session.here:
        return visit.generation < session.generation
    return visit.generation <= session.generation


def full_set(
    suboptions: Iterable[dmm.SubOption],
    endpoint: bytes,
    identities: Identities,
    counters: Counter[str],
) -> list[Named]:
    """The prefixes that the CMD names for a node at `endpoint`, ours, without those that have ended
    (lifetime 0) or cannot be routed; the latter are counted. What it says of anchors as routers goes
    to `identities`."""
    found: dict[Prefix, Named] = {}
    for each in suboptions:
        if not isinstance(each, dmm.AnchoredPrefix | dmm.PreviousMaar) or not each.valid:
            continue
        anchor = each.endpoint if isinstance(each, dmm.PreviousMaar) else endpoint
        if not may_be_had(each.prefix) or not is_routable(anchor):
            counters["visit.bad-prefix"] += 1
        elif len(found) == MAX_PREFIXES:
            counters["visit.prefix-limit"] += 1
        else:
            lifetime = math.inf if each.valid == INFINITY else float(each.valid)
            router = _router(each, endpoint, identities)
            is_awaited = isinstance(each, dmm.PreviousMaar) and each.awaited
            named = Named(each.prefix, anchor, lifetime, each.delegated, router, is_awaited)
            found.setdefault(each.prefix, named)
    return list(found.values())


def _router(
    named: dmm.AnchoredPrefix | dmm.PreviousMaar, endpoint: bytes, identities: Identities
) -> RouterIdentity | None:
    if isinstance(named, dmm.AnchoredPrefix) or named.endpoint == endpoint:
        return None
    said = (named.dlif_link_local, ethernet(named.dlif_link_layer))
    return identities.told(named.endpoint, said)


def signalled(suboptions: Iterable[dmm.SubOption]) -> Signalled | None:
    """How the CMD signals a visit, None where it does not."""
    for each in suboptions:
        if isinstance(each, dmm.Signalling) and each.mode != dmm.SignallingMode.DIRECT:
            return Signalled()
    return None


def may_be_had(prefix: Prefix) -> bool:
    """Whether a node could have this prefix: a unicast one, and not half of the Internet."""
    return prefix.length >= 16 and is_routable(prefix.address)
