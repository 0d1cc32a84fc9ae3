"""What a MAAR does about the nodes on its links where it speaks only PMIPv6: frames in, PBUs to the CMD out, and what
the CMD answers made the same session that a Relay-reply makes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, is_link_local, is_routable
from dmm_wire.identity import Identity
from dmm_wire.mobility import BindingAcknowledgement, Status
from relay_maar.core.actions import Action, Log, SendMobility
from relay_maar.core.cache import BindingCache
from relay_maar.core.domain import Domain
from relay_maar.core.registering import Accepted, Left, Place, Probe, Refused, Registering
from relay_maar.core.router import PrefixesOf, PrefixInformation, Router, on_link
from relay_maar.core.session import Attachment, Role, Session, arrive
from relay_maar.core.settings import AgentSettings
from relay_maar.core.telling import was_lost

_QUIET: Final = frozenset(
    {int(Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED), int(Status.MIPV6_ID_MISMATCH)}
)
"""Rejections that happen when nodes move, or to whose clock is off, and say nothing to the operator."""

Visit = Callable[
    [Identity, Attachment, dmm.Visit, tuple[dmm.SubOption, ...], float],
    tuple[list[Action], Session | None],
]
"""How a visit is taken in."""

Learn = Callable[[Iterable[dmm.SubOption]], list[Action]]
"""How the domain is taken in."""


class Registrar:
    """Registers nodes. What becomes of each PBU is counted in `counters`."""

    def __init__(
        self,
        settings: AgentSettings,
        cache: BindingCache,
        router: Router,
        domain: Domain,
        counters: Counter[str],
        clock: Callable[[float], int],
        *,
        visit: Visit,
        learn: Learn,
        prefixes: PrefixesOf,
    ) -> None:
        self._endpoint = settings.endpoint
        self._refresh = settings.domain_refresh
        self._cmds = settings.cmds
        self._cache = cache
        self._router = router
        self._domain = domain
        self._counters = counters
        self._visit = visit
        self._learn = learn
        self._prefixes = prefixes
        self._dlif = settings.identity is not None
        self._registering = Registering(settings, cache.get, clock)
        self._heard = 0
        self._looked = -math.inf

    def start(self, now: float) -> None:
        """Go on with the sessions that an earlier process left."""
        for session in self._cache:
            if session.here:
                self._registering.restore(session, now)

    def seen(self, interface: str, link_local: bytes, link_layer: bytes | None, now: float) -> None:
        """A frame shows a node on a link."""
        if link_layer is None or not is_link_local(link_local):
            return
        if not self._registering.seen(Place(interface, link_local, link_layer), now):
            self._counters["seen.not-registered"] += 1

    def wait_for(self, session: Session, now: float) -> None:
        """Anchors of this node are to be heard of: the CMD is asked where they are not."""
        self._registering.wait_for(session.identity, now)

    def deadline(self) -> float | None:
        """When :meth:`due` has something to do."""
        return self._registering.deadline()

    def due(self, now: float) -> list[Action]:
        """PBUs, probes, and the sessions of nodes that are gone."""
        actions: list[Action] = []
        for each in self._registering.due(now):
            if isinstance(each, Probe):
                self._counters["registration.probed"] += 1
                actions.append(self._router.probe(each.place.interface, each.place.link_local))
            elif isinstance(each, Left):
                actions += self._left(each.name, now)
            else:
                self._counters["registration.sent"] += 1
                actions.append(SendMobility(each.cmd, each.update))
        return actions

    def answered(
        self, source: bytes, answer: BindingAcknowledgement, now: float
    ) -> list[Action] | None:
        """Take in a PBA. None where it answers no PBU of ours to the CMD."""
        if source not in self._cmds:
            return None
        outcome = self._registering.answered(source, answer, now)
        if isinstance(outcome, Accepted):
            self._counters["registration.accepted"] += 1
            return self._accepted(outcome, now)
        if isinstance(outcome, Refused):
            return self._refused(outcome, now)
        return None if outcome is None else self._left(outcome.name, now)

    def _accepted(self, accepted: Accepted, now: float) -> list[Action]:
        suboptions, place = accepted.suboptions, accepted.place
        actions = self._learn(self._peers(suboptions, now))
        visit = next(each for each in suboptions if isinstance(each, dmm.Visit))
        name = next(each for each in suboptions if isinstance(each, dmm.MobileNode)).identity
        # The CMD may have learned more about it since, and call it by another name now.
        for known in self._known_as(accepted):
            if known.identity != name:
                actions += self._cache.rename(known, name, now)
        self._heard += 1
        attachment = Attachment(place.interface, place.link_local, place.link_layer, self._heard)
        learned, session = self._visit(name, attachment, visit, suboptions, now)
        actions += learned
        if session is None:
            return actions
        told = partial(self._told, place)
        return actions + self._cache.after(self._cache.wanted(session), told, now)

    def _known_as(self, accepted: Accepted) -> list[Session]:
        """The sessions that are this node's, whatever they are called."""
        place = accepted.place
        there = self._cache.at(place.interface, place.link_local)
        if there is not None and there.attachment is not None:
            is_same = there.attachment.link_layer == place.link_layer
        else:
            is_same = False
        found = [there if is_same else None, self._cache.get(accepted.identity)]
        return [each for each in found if each is not None]

    def _peers(self, suboptions: Iterable[dmm.SubOption], now: float) -> list[dmm.SubOption]:
        """Of other MAARs it is said only who matters; the domain's mode is always. Who matters to no
        session any more is forgotten once in a while: it may have left the domain."""
        named = set(self._domain.peers)
        if now >= self._looked + self._refresh:
            self._looked = now
            named &= {each for session in self._cache for each in session.maars()}
        beside: list[dmm.SubOption] = []
        for each in suboptions:
            if isinstance(each, dmm.PreviousMaar):
                named.add(each.endpoint)
            elif isinstance(each, dmm.Domain):
                named.update(each.endpoints)
            elif isinstance(each, dmm.Visit) and is_routable(each.previous):
                named.add(
                    each.previous
                )  # it sends on what is under way, also if it anchors nothing
            elif isinstance(each, dmm.Signalling):
                beside.append(each)
        return [dmm.Domain(tuple(sorted(named))), *beside]

    def _told(self, place: Place, now: float) -> list[Action]:
        # Only the router that the kernel knows can wait for an address resolution.
        link_layer = place.link_layer if self._dlif else None
        at = (place.interface, place.link_local)
        return [*self._router.renewed(*at, now, self._prefixes, link_layer)]

    def _refused(self, refused: Refused, now: float) -> list[Action]:
        if refused.status is None:
            self._counters["registration.no-dmm"] += 1
            return [Log("warning", f"{refused.identity}: the CMD answers without the D flag")]
        self._counters[f"registration.refused-{refused.status}"] += 1
        if refused.status in _QUIET:
            return []
        line = f"{refused.identity}: the CMD refused the registration with status {refused.status}"
        if refused.offset is not None:
            line += f"; its clock is {refused.offset:+.3f} s ahead"
        denied = [] if refused.denied is None else self._denied(refused.denied, now)
        return [Log("warning", line), *denied]

    def _denied(self, name: Identity, now: float) -> list[Action]:
        """A node that is here is not to be served any more, and learns that its prefixes lead nowhere."""
        session = self._cache.get(name)
        if session is None or not session.here or session.attachment is None:
            return []
        self._counters["registration.denied"] += 1
        before = [PrefixInformation(each.prefix, 0, 0) for each in on_link(session, now)]
        interface, node = session.attachment.place
        ended = self._end(session, session.attachment, now)
        return [*ended, *self._router.renewed(interface, node, now, lambda *_: before)]

    def _left(self, name: Identity, now: float) -> list[Action]:
        """Nothing of a node that is gone is served any more."""
        session = self._cache.get(name)
        if session is None or not session.here or session.attachment is None:
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
