"""The CMD is asked about nodes by PMIPv6, where a MAAR registers them: PBUs to it out, and what its PBAs say
made the same that a Relay-reply says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, is_routable
from dmm_wire.identity import of_link_layer
from dmm_wire.mobility import (
    INITIAL_BINDACK_TIMEOUT,
    MAX_BINDACK_TIMEOUT,
    BindingAcknowledgement,
    Status,
)
from dmm_wire.timers import Timers
from relay_maar.core.actions import Action, Log, SendMobility
from relay_maar.core.asking import Answer, Served, Verdict
from relay_maar.core.cache import BindingCache
from relay_maar.core.domain import Domain
from relay_maar.core.noticed import Ask, Pace, Place, Why
from relay_maar.core.own_prefixes import OwnPrefixes
from relay_maar.core.registering import Accepted, Refused, Registering, Sent
from relay_maar.core.router import PrefixInformation, Router, on_link
from relay_maar.core.session import Attachment, Role, Session, arrive
from relay_maar.core.settings import AgentSettings
from relay_maar.core.telling import stays_away, was_lost

_QUIET: Final = frozenset(
    {int(Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED), int(Status.MIPV6_ID_MISMATCH)}
)
"""Rejections that happen when nodes move, or to whose clock is off, and say nothing to the operator."""

Learn = Callable[[Iterable[dmm.SubOption]], list[Action]]
"""How the domain is taken in."""


class Taken(NamedTuple):
    """What a PBA leads to; what it says of a node that came is in `answer`."""

    actions: list[Action]
    answer: Answer | None = None


class Registrar:
    """Asks by PMIPv6 (see :class:`relay_maar.core.asking.Asking`). What becomes of PBUs is counted in `counters`."""

    pace = Pace(float(INITIAL_BINDACK_TIMEOUT), float(MAX_BINDACK_TIMEOUT), 8, dated=False)
    deregisters = True

    def __init__(
        self,
        settings: AgentSettings,
        cache: BindingCache,
        router: Router,
        domain: Domain,
        counters: Counter[str],
        clock: Callable[[float], int],
        secret: bytes,
        *,
        learn: Learn,
    ) -> None:
        self._endpoint = settings.endpoint
        self._refresh = settings.domain_refresh
        self._cmds = settings.cmds
        self._is_told = bool(settings.servers)
        self._cache = cache
        self._router = router
        self._domain = domain
        self._counters = counters
        self._learn = learn
        own = None
        if settings.own_prefixes is not None:
            own = OwnPrefixes(settings.own_prefixes, secret, cache.is_free)
        self._registering = Registering(settings, cache.get, clock, own)
        self._leaving: Timers[bytes] = Timers()
        """Until when the CMD's word on those that are gone is waited for, by link-layer address."""
        self._from: dict[bytes, Place] = {}
        """Where these were."""
        self._looked = -math.inf

    def start(self, *, knows_nobody: bool) -> None:
        """Go on with the sessions that an earlier process left. `knows_nobody`: they may be lost. Where DHCPv6
        is relayed, too, the question for the domain says so."""
        self._registering.knows_nobody = knows_nobody and not self._is_told
        for session in self._cache:
            self._registering.restore(session)

    # --- what is asked ---

    def ask(self, ask: Ask, now: float) -> list[Action]:
        """Register a node that came, or is still here."""
        self._stop_leaving(ask.place.link_layer)
        return self._sent(self._registering.ask(ask, now))

    def silent(self, session: Session, place: Place, why: Why, now: float) -> list[Action]:
        """A node is only de-registered when its registration ends (RFC 8885 section 3.5): where it is at another MAAR,
        that one speaks for it, and the CMD tells us."""
        if why is not Why.END:
            return [Log("info", stays_away(session))]
        self._from[place.link_layer] = place
        self._leaving.set(place.link_layer, now + INITIAL_BINDACK_TIMEOUT)
        return self._sent(self._registering.leave(place, now))

    def ends(self, session: Session) -> float:
        """When its registration ends."""
        at = session.attachment
        if at is None or at.link_layer is None:
            return math.inf
        until = self._registering.until(at.link_layer)
        if until is not None:
            return until
        ours = (each.expires for each in session.having(Role.LOCAL, Role.SERVED))
        return min(ours, default=math.inf)

    def patience(self, session: Session) -> float:
        """Seconds until the CMD is to be asked for anchors that are still to be heard of."""
        at = session.attachment
        if at is None or at.link_layer is None:
            return float(MAX_BINDACK_TIMEOUT)
        return self._registering.patience(at.link_layer)

    def _sent(self, sent: Sent) -> list[Action]:
        self._counters["registration.sent"] += 1
        return [SendMobility(sent.cmd, sent.update)]

    def deadline(self) -> float | None:
        """When :meth:`due` has something to do."""
        return self._leaving.deadline()

    def due(self, now: float) -> list[Action]:
        """Whatever becomes of the message: the CMD's own timer ends it, too (RFC 5213 section 6.9.1.4)."""
        gone = [self._from.pop(link_layer) for link_layer in self._leaving.due(now)]
        return [action for place in gone for action in self._left(place, now)]

    def _stop_leaving(self, link_layer: bytes) -> Place | None:
        self._leaving.cancel(link_layer)
        return self._from.pop(link_layer, None)

    # --- what the CMD says ---

    def answered(self, source: bytes, answer: BindingAcknowledgement, now: float) -> Taken | None:
        """Take in a PBA. None where it answers no PBU of ours to the CMD."""
        if source not in self._cmds:
            return None
        outcome = self._registering.answered(source, answer, now)
        match outcome:
            case None:
                return None
            case Accepted():
                self._counters["registration.accepted"] += 1
                return self._accepted(outcome, now)
            case Refused():
                return self._refused(outcome, now)
        place = self._stop_leaving(outcome.place.link_layer)
        # If that is None it is back already.
        return Taken([] if place is None else self._left(place, now))

    def _accepted(self, accepted: Accepted, now: float) -> Taken:
        suboptions, place = accepted.suboptions, accepted.place
        actions = self._learn(self._peers(suboptions, now))
        visit = next(each for each in suboptions if isinstance(each, dmm.Visit))
        # The CMD may have learned more about it since, and call it by another name now.
        known = self._cache.speaker(place.interface, place.link_layer)
        if known is not None and known.identity != accepted.name:
            actions += self._cache.rename(known, accepted.name, now)
        if self._is_behind(accepted, visit):
            self._counters["visit.stale"] += 1
            return Taken(actions, Answer(accepted.transaction_id, Verdict.AGAIN))
        served = Served(accepted.name, visit, suboptions)
        return Taken(actions, Answer(accepted.transaction_id, served))

    def _is_behind(self, accepted: Accepted, visit: dmm.Visit) -> bool:
        """Whether the CMD has lost a visit of a node that is here, and is to hear of it at once. Where the visit is one
        elsewhere, the PBA may only have been overtaken: then the node is asked where it is, before the next PBU."""
        session, later = self._cache.get(accepted.name), None
        if session is not None and visit.generation < session.generation:
            later = dmm.Visit(session.generation, self._endpoint)
        is_news = self._registering.knows_later(accepted.place.link_layer, later)
        return is_news and session is not None and session.here

    def _peers(self, suboptions: Iterable[dmm.SubOption], now: float) -> list[dmm.SubOption]:
        """Of other MAARs it is said only who matters; the domain's mode is always. Who matters to no
        session any more is forgotten once in a while: it may have left the domain. A MAAR that relays
        DHCPv6 is told of all of them, and forgets those who have left when it is told so."""
        named = set(self._domain.peers)
        if not self._is_told and now >= self._looked + self._refresh:
            self._looked = now
            named &= {each for session in self._cache for each in session.maars()}
        beside: list[dmm.SubOption] = []
        for each in suboptions:
            if isinstance(each, dmm.PreviousMaar):
                named.add(each.endpoint)
            elif isinstance(each, dmm.Visit) and is_routable(each.previous):
                named.add(
                    each.previous
                )  # it sends on what is under way, also if it anchors nothing
            elif isinstance(each, dmm.Signalling):
                beside.append(each)
        return [dmm.Domain(tuple(sorted(named))), *beside]

    def _refused(self, refused: Refused, now: float) -> Taken:
        place, status = refused.place, refused.status
        name = of_link_layer(place.link_layer)
        answer = Answer(refused.transaction_id, refused.verdict)
        if status is None:
            self._counters["registration.no-dmm"] += 1
            return Taken([Log("warning", f"{name}: the CMD answers without the D flag")], answer)
        self._counters[f"registration.refused-{status}"] += 1
        actions: list[Action] = []
        if status not in _QUIET:
            line = f"{name}: the CMD refused the registration with status {status}"
            if refused.offset is not None:
                line += f"; its clock is {refused.offset:+.3f} s ahead"
            actions.append(Log("warning", line))
        if not refused.transaction_id:
            # A de-registration: once more if it only had the wrong time.
            if refused.verdict is Verdict.AGAIN and place.link_layer in self._from:
                actions += self._sent(self._registering.leave(place, now))
            return Taken(actions)
        if refused.is_denied:
            actions += self._denied(place, now)
        return Taken(actions, answer)

    def _denied(self, place: Place, now: float) -> list[Action]:
        """A node that is here is not to be served any more, and learns that its prefixes lead nowhere."""
        session = self._cache.speaker(place.interface, place.link_layer)
        if session is None or session.attachment is None:
            return []
        self._counters["registration.denied"] += 1
        before = [PrefixInformation(each.prefix, 0, 0) for each in on_link(session, now)]
        interface, node = session.attachment.place
        ended = self._end(session, session.attachment, now)
        return [*ended, *self._router.renewed(interface, node, now, lambda *_: before)]

    def _left(self, place: Place, now: float) -> list[Action]:
        """Nothing of a node that is gone is served any more."""
        session = self._cache.speaker(place.interface, place.link_layer)
        if session is None or session.attachment is None:
            return []
        self._counters["registration.left"] += 1
        served = session.having(Role.LOCAL, Role.SERVED)
        line = Log("info", was_lost(session, len(served)))
        return [line, *self._end(session, session.attachment, now)]

    def _end(self, session: Session, attachment: Attachment, now: float) -> list[Action]:
        after = arrive(
            session,
            session.identity,
            session.generation,
            UNSPECIFIED,
            attachment,
            (),
            self._endpoint,
            now,
        )
        return self._cache.change(after, now)
