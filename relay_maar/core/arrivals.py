"""Nodes that come, from the first frame: frames and an access point's word in; questions to the CMD,
neighbour probes and advertisements out. How the CMD is asked, by DHCPv6 or by PMIPv6, is
:class:`~relay_maar.core.asking.Asking`'s; what it answers becomes the same session.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from dmm_wire.timers import Timers
from relay_maar.core.actions import Action, WatchPackets
from relay_maar.core.asking import Answer, Asking, Served, Verdict, Visit
from relay_maar.core.attaching import LONGEST_PAUSE, Attaching
from relay_maar.core.cache import BindingCache, Then
from relay_maar.core.noticed import Ask, Gone, Place, Probe, Why, made_link_local
from relay_maar.core.router import PrefixesOf, Router
from relay_maar.core.session import Attachment, Role, Session, remaining
from relay_maar.core.settings import AgentSettings
from relay_maar.core.transactions import Transactions

MOST_QUIET: Final = 1000
"""Nodes on a link that a packet filter can tell from others; where there are more, packets show
nothing."""

_WATCH_PAUSE: Final = 0.02
_WATCH_EACH: Final = 0.0001
"""Seconds between two changes of a link's packet filter, and so much more for each node in it."""

_KEEP_AFTER: Final = 0.75
_KEEP_LEAST: Final = 10.0
"""The part of what the CMD granted after which it is asked for again, and the least number of seconds."""

_BEFORE_END: Final = 6.0
"""Seconds before its end at which a silent node is probed a last time."""

_COMING: Final = frozenset({"mld", "rs", "dad", "hook"})
"""What a host seldom says but when it comes to a link."""
_SETTLED: Final = 1.0
"""Seconds for which it is still the same coming."""
_NOWHERE: Final = ("", -math.inf)

_NAMED: Final = (6, 8)
"""Octets of a link-layer address that a node can be known by (EUI-48, EUI-64: RFC 4283, RFC 8371)."""


class Arrivals:
    """Notices nodes, and has them served. What becomes of each is counted in `counters`."""

    def __init__(
        self,
        settings: AgentSettings,
        cache: BindingCache,
        router: Router,
        asking: Asking,
        transactions: Transactions,
        transaction_id: Callable[[], bytes],
        counters: Counter[str],
        *,
        visit: Visit,
        prefixes: PrefixesOf,
        can_wait: Callable[[Then, float], list[Action]],
    ) -> None:
        self._cache = cache
        self._router = router
        self._asking = asking
        self._transactions = transactions
        self._counters = counters
        self._visit = visit
        self._prefixes = prefixes
        self._can_wait = can_wait
        autonomous = settings.router.autonomous
        self._slaac = frozenset(e.interface for e in settings.access if autonomous or e.slaac)
        self._most = {link.interface: link.max_nodes for link in settings.access}
        attach = settings.attach
        if settings.registers:
            # Relayed or not, it is no registration.
            attach = replace(attach, triggers=attach.triggers | {"dhcpv6"})
        self._watches = "data" in attach.triggers
        self._attaching = Attaching(attach, asking.pace, self._is_here, transaction_id, counters)
        self._timers: Timers[tuple[str, bytes | str]] = Timers()
        """Of ("watch", interface), and ("keep", "end" or "anchors", link-layer address)."""
        self._watched: dict[str, float] = {}
        """When each link's packet filter was last changed."""
        self._kept: dict[bytes, tuple[str, float]] = {}
        """Of nodes that are here: on which link, and when the CMD said so last."""
        self._confirm = settings.attach.confirm

    def _is_here(self, place: Place) -> bool:
        return self._cache.speaker(place.interface, place.link_layer) is not None

    def start(self, links: Iterable[str], now: float) -> None:
        """Watch these links, and look after the nodes that an earlier process left."""
        if self._watches:
            for interface in links:
                self._timers.set(("watch", interface), now)
        for session in self._cache:
            self.visited(session, now)

    # --- what is seen, and what others say ---

    def seen(self, place: Place, trigger: str, now: float) -> list[Action]:
        """A frame of a node."""
        if len(place.link_layer) not in _NAMED:
            self._counters["attach.link-layer"] += 1
            return []
        actions = self._corrected(place, now)
        before = self._cache.speaker(place.interface, place.link_layer)
        if before is None and not self._has_room(place):
            self._counters["attach.no-room"] += 1
            return actions
        self._attaching.seen(place, trigger, now)
        if before is None:
            self._counters[f"attach.seen-{trigger}"] += 1
        elif trigger in _COMING and now >= self._kept.get(place.link_layer, _NOWHERE)[1] + _SETTLED:
            # So speaks who comes. It may have been away without our knowing.
            self._attaching.look_after(place, Why.KEEP, now)
        return actions

    def _has_room(self, place: Place) -> bool:
        """Any host can show any link-layer address, and may get a /64 for each."""
        interface = place.interface
        here = len(self._cache.speakers(interface)) + self._attaching.arriving(interface)
        return here < self._most[interface] or self._attaching.knows(place)

    def _corrected(self, place: Place, now: float) -> list[Action]:
        """A node whose link-local address was only made of its link-layer address shows its own."""
        session = self._cache.speaker(place.interface, place.link_layer)
        at = None if session is None else session.attachment
        if session is None or at is None or place.link_local == at.link_local:
            return []
        if at.link_local != made_link_local(place.link_layer):
            return []
        if self._cache.at(place.interface, place.link_local) is not None:
            return []
        attachment = replace(at, link_local=place.link_local)
        return self._cache.change(replace(session, attachment=attachment), now)

    def detached(self, interface: str, link_layer: bytes, now: float) -> bool:
        """An access point says that the node left. It is believed when the node itself is silent, and
        then its prefixes stay until their lifetimes end or another MAAR speaks for it (RFC 8885
        section 3.5, RFC 8987 S-2). Returns whether the node was here."""
        place = self._place_of(self._cache.speaker(interface, link_layer))
        if place is None:
            return False
        self._attaching.look_after(place, Why.DETACH, now)
        return True

    def left(self, before: Session, now: float) -> None:
        """The node went to another MAAR."""
        place = self._place_of(before)
        if place is not None:
            self._attaching.left(place, now)

    @staticmethod
    def _place_of(session: Session | None) -> Place | None:
        at = None if session is None else session.attachment
        if at is None or at.link_layer is None:
            return None
        return Place(at.interface, at.link_layer, at.link_local, at.link_local)

    def is_present(self, session: Session) -> bool:
        """Whether the node is here, for all that is known."""
        at = session.attachment
        return at is not None and not (at.link_layer and self._attaching.is_away(at.link_layer))

    # --- what the CMD says ---

    def answered(self, answer: Answer, now: float) -> list[Action] | None:
        """Take in an answer. None where it answers no question of ours about a node that came."""
        number, what = answer
        place = self._attaching.answered(number, now)
        if place is None:
            return None
        match what:
            case Served():
                return self._visited(number, place, what, now)
            case Verdict.STALE:
                self._attaching.doubted(number, now)
            case Verdict.REFUSED:
                self._attaching.refused(number, now)
            case Verdict.UNKNOWN:
                self._attaching.unknown(number, now)
            case Verdict.AGAIN:
                self._attaching.again(number, now)
        return []

    def _visited(self, number: bytes, place: Place, told: Served, now: float) -> list[Action]:
        name, visit, suboptions = told
        known = self._cache.get(name)
        before = self._place_of(known)
        is_old = known is not None and known.here and known.generation >= visit.generation
        if is_old and not self._attaching.is_open(number):
            self._counters["attach.late-answer"] += 1
            return []
        heard = self._transactions.next_number()
        attachment = Attachment(place.interface, place.link_local, place.link_layer, heard)
        actions, session = self._visit(name, attachment, visit, suboptions, now)
        if session is None:
            known = self._cache.get(name)
            if known is not None and known.generation > visit.generation:
                self._attaching.doubted(number, now)
            else:
                self._attaching.refused(number, now)
            return actions
        self._attaching.settled(number)
        if not session.having(Role.LOCAL, Role.SERVED):
            return actions
        if before is not None and before.interface != place.interface:
            self._attaching.left(before, now)
        tell = self._router.renewed if place.interface in self._slaac else self._router.changed

        def told_node(now: float) -> list[Action]:
            at, mac = (place.interface, place.link_local), place.link_layer
            return [*tell(*at, now, self._prefixes, mac, settled=not place.is_guessed)]

        confirmed = partial(self._can_wait, told_node)
        return actions + self._cache.after(self._cache.wanted(session), confirmed, now)

    # --- time ---

    def deadline(self) -> float | None:
        """When :meth:`due` has something to do."""
        deadlines = (self._timers.deadline(), self._attaching.deadline())
        return min((each for each in deadlines if each is not None), default=None)

    def due(self, now: float) -> list[Action]:
        """Questions and probes that are to be sent by now, and what links are watched for."""
        actions: list[Action] = []
        for what, name in self._timers.due(now):
            if isinstance(name, str):
                actions += self._watch(name, now)
            else:
                self._look_after(what, name, now)
        for each in self._attaching.due(now):
            match each:
                case Ask():
                    actions += self._asking.ask(each, now)
                case Probe(place):
                    actions.append(
                        self._router.probe(place.interface, place.address, place.link_layer)
                    )
                case Gone(place, why):
                    session = self._cache.speaker(place.interface, place.link_layer)
                    if session is not None:
                        actions += self._asking.silent(session, place, why, now)
        if self._watches and (self._attaching.stirred or self._cache.stirred):
            actions += self._can_wait(self._note_changes, now)
        return actions

    def _note_changes(self, now: float) -> list[Action]:
        """Links on which other nodes are quiet now have their filters changed: a first one at once, so that the packets
        of a node that has just come no longer disturb, more of them together."""
        stirred = self._attaching.stirred | self._cache.stirred
        self._attaching.stirred.clear()
        self._cache.stirred.clear()
        actions: list[Action] = []
        for interface in stirred:
            if self._timers.when(("watch", interface)) is None:
                many = len(self._cache.speakers(interface))
                pause = _WATCH_PAUSE + _WATCH_EACH * min(many, MOST_QUIET)
                due = self._watched.get(interface, float("-inf")) + pause
                if due <= now:
                    actions += self._watch(interface, now)
                else:
                    self._timers.set(("watch", interface), due)
        return actions

    def _watch(self, interface: str, now: float) -> list[Action]:
        self._watched[interface] = now
        here = set(self._cache.speakers(interface)) - self._attaching.away()
        asked = self._attaching.quiet(interface)
        if len(here) > MOST_QUIET:
            self._counters["attach.too-many-to-watch"] += 1
            return [WatchPackets(interface, None)]
        quiet = here | asked if len(here | asked) <= MOST_QUIET else here
        return [WatchPackets(interface, frozenset(quiet))]

    # --- nodes that are here ---

    def visited(self, session: Session, now: float) -> None:
        """The CMD says that the node is here. After a while it hears of it again, so that no error lasts, and in any
        case before what it granted ends."""
        at = session.attachment
        if at is not None and at.link_layer is not None:
            self._attaching.came(at.interface, at.link_layer)
            self._kept[at.link_layer] = at.interface, now
            self._look_later(session, at.link_layer, now)

    def wait_for_anchors(
        self, session: Session, patience: Callable[[Session], float], now: float
    ) -> None:
        """Ask the CMD about a node that is here if in `patience` seconds anchors of it are still to be heard of, unless
        that is to be done already."""
        at = session.attachment
        if at is not None and at.link_layer is not None:
            name = ("anchors", at.link_layer)
            if self._timers.when(name) is None:
                self._timers.set(name, now + patience(session))

    def _look_later(self, session: Session, link_layer: bytes, now: float) -> None:
        ends = self._asking.ends(session)
        wait = min(self._confirm, max(_KEEP_AFTER * remaining(ends, now), _KEEP_LEAST))
        self._timers.set(("keep", link_layer), now + wait)
        if self._asking.deregisters:
            self._timers.set(("end", link_layer), max(ends, now + 2 * _BEFORE_END) - _BEFORE_END)

    def _look_after(self, what: str, link_layer: bytes, now: float) -> None:
        interface, _ = self._kept.get(link_layer, _NOWHERE)
        session = self._cache.speaker(interface, link_layer)
        place = self._place_of(session)
        if session is None or place is None:
            self._kept.pop(link_layer, None)
            return
        if what == "anchors":
            if self._cache.awaits_anchors(session.identity):
                self._attaching.look_after(place, Why.KEEP, now)
                if not self._attaching.knows(place):
                    self._timers.set((what, link_layer), now + LONGEST_PAUSE)
            return
        if what == "keep":
            self._look_later(session, link_layer, now)
        if what == "end":
            self._attaching.look_after(place, Why.END, now)
        elif not self._attaching.is_away(link_layer):
            self._attaching.look_after(place, Why.KEEP, now)
