"""The prefixes that a MAAR anchors for nodes elsewhere: PBUs come in, and a PBA goes out when the
kernel has what it promises (RFC 5213 section 5.3, RFC 8885 section 3.2).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dmm_wire.address import Prefix
from dmm_wire.dmm import SignallingMode
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, is_link_layer, of_link_layer
from dmm_wire.mobility import (
    LIFETIME_INFINITY,
    BindingAcknowledgement,
    BindingUpdate,
    DelegatedPrefix,
    Guard,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    ReplayProtection,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import acknowledge, first
from dmm_wire.mobility.routers import router_options
from dmm_wire.mobility.serving import refusal_options
from relay_maar.core.actions import Action, Log, SendMobility
from relay_maar.core.binding_updates import Refusal, Request, judge, same
from relay_maar.core.cache import BindingCache
from relay_maar.core.domain import Domain
from relay_maar.core.order import Order
from relay_maar.core.session import Role, Session, Signalled, depart
from relay_maar.core.settings import AgentSettings
from relay_maar.core.telling import went


@dataclass(slots=True)
class _Pending:
    """A PBU whose PBA waits for the kernel; a retransmission takes the place of the one before."""

    update: BindingUpdate


class Registrations:
    """Takes in PBUs. What becomes of each is counted in `counters`."""

    def __init__(
        self,
        settings: AgentSettings,
        cache: BindingCache,
        domain: Domain,
        guard: Guard,
        counters: Counter[str],
        left: Callable[[Session, float], None],
    ) -> None:
        """`left` is told of nodes that were here and have gone to another MAAR."""
        self._settings = settings
        self._left = left
        self._guard = guard
        self._cache = cache
        self._domain = domain
        self._counters = counters
        self._pending: dict[tuple[bytes, Identity], _Pending] = {}
        self._order = Order()

    def received(self, source: bytes, update: BindingUpdate, now: float) -> list[Action]:
        """A PBU from `source`."""
        return self._known_as(source, update, now) + self._judged(source, update, now)

    def _known_as(self, source: bytes, update: BindingUpdate, now: float) -> list[Action]:
        """The CMD may know a node by another name than we, who may have seen nothing of it but its
        link-layer address: what we anchor for it tells which one it is. A MAAR is believed that only
        of a node that we know by nothing else."""
        is_cmd = source in self._settings.cmds
        identifier = first(update, MobileNodeIdentifier)
        if identifier is None or self._cache.get(identifier.identity) is not None:
            return []
        if not is_cmd and source not in self._signallers(update):
            return []
        speaker = first(update, LinkLayerIdentifier)
        if speaker is not None and len(speaker.value) in (6, 8):
            known = self._cache.get(of_link_layer(speaker.value))
            if known is not None:
                return self._cache.rename(known, identifier.identity, now)
        for option in update.options:
            if isinstance(option, HomeNetworkPrefix | DelegatedPrefix):
                holder = self._cache.holder(option.prefix)
                if holder is not None and (is_cmd or is_link_layer(holder.identity)):
                    return self._cache.rename(holder, identifier.identity, now)
        return []

    def _signallers(self, update: BindingUpdate) -> frozenset[bytes]:
        """The MAARs that may say this, besides the CMD: in mode direct those of the domain; in any
        other, and where nodes are registered, none. Only the S-MAAR of a visit that it signalled
        when the mode was direct still speaks for that one: it moves nothing, until the CMD speaks."""
        if self._settings.registers:
            return frozenset()
        if self._domain.mode == SignallingMode.DIRECT:
            return self._domain.peers
        identifier, timestamp = first(update, MobileNodeIdentifier), first(update, Timestamp)
        session = None if identifier is None else self._cache.get(identifier.identity)
        if session is None or session.signalled is not None or timestamp is None:
            return frozenset()
        if timestamp.value != session.generation:
            return frozenset()
        return self._domain.peers & {session.serving}

    def _judged(self, source: bytes, update: BindingUpdate, now: float) -> list[Action]:
        peers = self._signallers(update)
        timestamp = first(update, Timestamp)
        told = 0 if timestamp is None else timestamp.value
        verdict = judge(
            update,
            source,
            endpoint=self._settings.endpoint,
            peers=peers,
            cmds=self._settings.cmds,
            session_of=self._cache.get,
            anchored_here=partial(self._anchors, source in self._settings.cmds, told),
        )
        if isinstance(verdict, Request) and not self._cache.has_room(verdict.identity):
            verdict = Refusal(Status.INSUFFICIENT_RESOURCES)
        if isinstance(verdict, Refusal):
            self._counters[f"pbu.refused-{int(verdict.status)}"] += 1
            is_believed = source in peers or source in self._settings.cmds
            if not is_believed and not self._settings.registers:
                self._domain.suspect(now)  # a MAAR that is new, or a mode
            settings = self._settings
            said = refusal_options(verdict.prefixes, settings.endpoint, settings.enterprise)
            refusal = acknowledge(
                update, verdict.status, generation=verdict.generation, beside=said
            )
            return self._answer(source, refusal, now)
        place = (source, verdict.identity)
        # Nobody waits for an answer to the earlier of two.
        if self._order.is_overtaken(*place, verdict.generation, update.sequence, now):
            self._counters["pbu.overtaken"] += 1
            return []
        pending = self._pending.get(place)
        if pending is not None and same(pending.update, update):
            pending.update = update
            self._counters["pbu.duplicate"] += 1
            return []
        self._counters["pbu.accepted"] += 1
        session, actions = self._depart(source, verdict, now)
        if not update.acknowledge:
            return actions
        pending = self._pending[place] = _Pending(update)

        def confirmed(now: float) -> list[Action]:
            if self._pending.get(place) is pending:
                del self._pending[place]
            latest = pending.update
            if self._cache.refused(session):
                self._counters["pbu.refused-by-kernel"] += 1
                refusal = acknowledge(latest, Status.INSUFFICIENT_RESOURCES)
                return self._answer(source, refusal, now)
            answer = acknowledge(
                latest, Status.ACCEPTED, latest.lifetime, beside=self._shown(session)
            )
            return [*self._answer(source, answer, now), *self._copy(source, session, answer, now)]

        return actions + self._cache.after(self._cache.wanted(session), confirmed, now)

    def _shown(self, session: Session) -> tuple[MobilityOption, ...]:
        """Our router identity, for the S-MAAR to show where we anchor something that the node has
        there (RFC 8885 sections 4.7 and 4.8)."""
        own = self._settings.identity
        if own is None or not session.having(Role.ANCHORED):
            return ()
        return tuple(router_options(own))

    def _depart(self, source: bytes, request: Request, now: float) -> tuple[Session, list[Action]]:
        before = self._cache.get(request.identity)
        infinite = request.lifetime >= LIFETIME_INFINITY
        session = depart(
            before,
            request.identity,
            request.generation,
            request.serving,
            request.named,
            request.served,
            math.inf if infinite else float(request.lifetime),
            self._settings.endpoint,
            now,
            None if source == request.serving else Signalled(),
        )
        if before is not None and before.here:
            self._left(before, now)
        absorbed = [self._cache.holder(prefix) for prefix, _ in request.named]
        if before is not None and before.generation == session.generation:
            actions = self._cache.leave(None, session, now)
        else:
            actions = [
                Log("info", partial(went, session)),
                *self._cache.leave(before, session, now),
            ]
        for other in absorbed:
            if other is not None and other.identity != session.identity:
                actions += self._absorb(other, session, now)
        return session, actions

    def _absorb(self, other: Session, session: Session, now: float) -> list[Action]:
        """What the CMD names of a node was another one's here, which was found to be the same."""
        left = tuple(each for each in other.entries if session.find(each.prefix) is None)
        return self._cache.change(replace(other, entries=left), now)

    def _anchors(self, by_cmd: bool, told: int, identity: Identity, prefix: Prefix) -> bool:
        """Whether we anchor this prefix for this node: its session says so. Of a later visit
        (`told`, a generation) than it knows, a part of our pools that nobody has is believed to be
        the node's, too: the answer with which the CMD gave it one more may never have come here. So
        it is where nothing is known of the node's prefixes, because the session was lost. Where the
        CMD says it itself (`by_cmd`) of what is another node's here, the two are one.

        A MAAR of the domain is believed as much as the CMD about what is free: it could name a node
        that nobody knows. What is anybody's, only the CMD may give to another."""
        session = self._cache.get(identity)
        holder = self._cache.holder(prefix) if by_cmd and told else session
        entry = None if holder is None else holder.find(prefix)
        if entry is not None:
            return entry.anchor == self._settings.endpoint
        known = session is not None and bool(session.entries)
        if session is not None and self._settings.registers:
            # What we anchored ended here when the node was given up; at the CMD it goes on if it is seen elsewhere.
            known = any(each.anchor == self._settings.endpoint for each in session.entries)
        if session is not None and known and told <= session.generation:
            return False
        pools = self._settings.pools
        inside = any(pool != prefix and pool.contains(prefix) for pool in pools)
        return inside and self._cache.is_free(prefix)

    def _copy(
        self, source: bytes, session: Session, answer: BindingAcknowledgement, now: float
    ) -> list[Action]:
        """The same answer to the S-MAAR, where the CMD only located us (RFC 8885 section 3.3)."""
        is_cmd = source in self._settings.cmds and source != session.serving
        if not is_cmd or self._domain.mode != SignallingMode.LOCATOR:
            return []
        self._counters["pba.copied"] += 1
        # It answers no PBU of the S-MAAR, so it is signed with a time of its own.
        options = tuple(o for o in answer.options if not isinstance(o, ReplayProtection))
        return self._answer(session.serving, replace(answer, options=options), now)

    def _answer(self, peer: bytes, answer: BindingAcknowledgement, now: float) -> list[Action]:
        try:
            # What a PBA has to echo and to add can be longer than a Mobility Header.
            self._guard.outgoing(peer, answer, now)
        except WireError as error:
            self._counters[f"pba.{error.reason}"] += 1
            return []
        return [SendMobility(peer, answer)]
