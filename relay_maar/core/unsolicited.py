"""Acknowledgements that answer no PBU of ours: where the CMD signals, P-MAARs tell the S-MAAR what they send it, by a
copy of their PBA (mode locator, RFC 8885 section 3.3) or through the CMD (what is late in mode relay, section 3.2).

They are believed from the CMDs and, in mode locator, from MAARs of the domain, about a node that is here, of its
present visit, and of what the CMD said with that visit to be anchored there: anything else has ended since. One can
overtake the Relay-reply that says that the node is here; so what is of a later visit is kept for a moment.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from dmm_wire.address import Prefix, is_routable
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity
from dmm_wire.mobility import (
    LIFETIME_INFINITY,
    BindingAcknowledgement,
    DelegatedPrefix,
    HomeNetworkPrefix,
    MobileNodeIdentifier,
    PreviousMaarOption,
    Status,
    Timestamp,
)
from dmm_wire.mobility.routers import Said, routers_in
from relay_maar.core.actions import Action
from relay_maar.core.cache import BindingCache
from relay_maar.core.domain import Domain
from relay_maar.core.identities import NOTHING, Identities
from relay_maar.core.order import Order
from relay_maar.core.session import Session, confirm, doubt, expected
from relay_maar.core.settings import AgentSettings

EARLY: Final = 5.0
"""Seconds for which one that overtook its VISIT is kept."""

MOST_EARLY: Final = 256
"""How many of these are kept; the oldest goes first."""


class _Told(NamedTuple):
    """What was said at `at`: of each anchor, the prefixes that it sends us for `lifetime` seconds; and of some, as
    which router they are shown, `by_itself` or by the CMD."""

    generation: int
    anchors: tuple[tuple[bytes, tuple[Prefix, ...]], ...]
    lifetime: float
    at: float
    routers: dict[bytes, Said]
    by_itself: bool


class Unsolicited:
    """Takes them in, and has the CMD asked (`ask`) for those that are missing. What becomes of each is counted in
    `counters`."""

    def __init__(
        self,
        settings: AgentSettings,
        cache: BindingCache,
        domain: Domain,
        identities: Identities,
        ask: Callable[[Session, float], None],
        counters: Counter[str],
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._domain = domain
        self._identities = identities
        self._ask = ask
        self._counters = counters
        self._order = Order()
        self._early: OrderedDict[tuple[Identity, bytes], _Told] = OrderedDict()

    def received(
        self, source: bytes, answer: BindingAcknowledgement, now: float
    ) -> tuple[list[Action], Session | None]:
        """A PBA from `source`. The session is None where it changes nothing, and that is counted."""
        session = self._judged(source, answer, now)
        if session is None or session == self._cache.get(session.identity):
            return [], None
        self.wait_for_anchors(session, now)
        return self._cache.change(session, now), session

    def visited(self, session: Session, now: float) -> tuple[list[Action], Session]:
        """The node came here: what came before its VISIT counts now, and what is missing is waited for."""
        confirmed = session
        for key in [key for key in self._early if key[0] == session.identity]:
            told = self._early.pop(key)
            if told.generation == session.generation and now < told.at + EARLY:
                confirmed = self._confirmed(confirmed, told, now)
        actions = self._cache.change(confirmed, now) if confirmed != session else []
        self.wait_for_anchors(confirmed, now)
        return actions, confirmed

    def wait_for_anchors(self, session: Session, now: float) -> None:
        """Have the CMD asked if those that are missing stay so."""
        if session.here and session.signalled is not None and session.signalled.is_open:
            self._ask(session, now)

    def _judged(self, source: bytes, answer: BindingAcknowledgement, now: float) -> Session | None:
        """The session as it is to be from now on."""
        is_cmd = source in self._settings.cmds
        is_anchor = self._domain.mode == SignallingMode.LOCATOR and source in self._domain.peers
        if not (is_cmd or is_anchor):
            return self._passed_over("unmatched")
        names = [o for o in answer.options if isinstance(o, MobileNodeIdentifier)]
        times = [o for o in answer.options if isinstance(o, Timestamp)]
        if not (answer.proxy and answer.dmm and names and times):
            return self._passed_over("unmatched")
        identity, generation = names[0].identity, times[0].value
        session = self._cache.get(identity)
        if session is not None and session.generation > generation:
            return self._passed_over("unmatched" if session.signalled is None else "stale")
        if not answer.accepted:
            if not is_cmd:
                return self._passed_over("unmatched")
            return self._refused(session, generation, answer.status)
        # An anchor's copies have the sequence numbers of the CMD's PBUs. Where another CMD goes on, with numbers of its
        # own, one may be passed over that is not late: then it is missing, and the CMD is asked.
        if not is_cmd and self._order.is_overtaken(
            source, identity, generation, answer.sequence, now
        ):
            return self._passed_over("overtaken")
        told = self._read(source, answer, is_cmd, now)
        if session is None or not session.here or session.generation < generation:
            self._early[identity, source] = told
            self._early.move_to_end((identity, source))
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)
            return self._passed_over("early")
        if session.signalled is None:
            return self._passed_over("unmatched")  # it is for us to signal
        self._counters["pba.unsolicited"] += 1
        return self._confirmed(session, told, now)

    def _refused(self, session: Session | None, generation: int, status: int) -> Session | None:
        """An anchor does not serve what the CMD said that it does. What is the node's now, the CMD is asked."""
        if session is None or not session.here or session.generation != generation:
            return self._passed_over("stale")
        self._counters[f"pba.refused-{status}"] += 1
        return doubt(session) if status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX else None

    def _read(
        self, source: bytes, answer: BindingAcknowledgement, is_cmd: bool, now: float
    ) -> _Told:
        anchors: dict[bytes, list[Prefix]] = {}
        if is_cmd:
            for option in answer.options:
                if isinstance(option, PreviousMaarOption) and self._is_anchor(option.endpoint):
                    anchors.setdefault(option.endpoint, []).append(option.prefix)
        else:
            named = (HomeNetworkPrefix, DelegatedPrefix)
            anchors[source] = [
                o.prefix for o in answer.options if isinstance(o, named) and o.prefix.length
            ]
        infinite = answer.lifetime >= LIFETIME_INFINITY
        generation = next(o.value for o in answer.options if isinstance(o, Timestamp))
        return _Told(
            generation,
            tuple((anchor, tuple(dict.fromkeys(each))) for anchor, each in anchors.items()),
            math.inf if infinite else float(answer.lifetime),
            now,
            routers_in(answer.options, None if is_cmd else source),
            not is_cmd,
        )

    def _is_anchor(self, endpoint: bytes) -> bool:
        """Whether the CMD may speak for it. Where nodes are registered, only the CMD says who is in the domain."""
        if self._settings.registers:
            return is_routable(endpoint) and endpoint != self._settings.endpoint
        return endpoint in self._domain.peers

    def _confirmed(self, session: Session, told: _Told, now: float) -> Session:
        for anchor, named in told.anchors:
            unnamed = sum(expected(session, anchor, prefix) is None for prefix in named)
            self._counters["pba.unnamed-prefix"] += unnamed
            said = told.routers.get(anchor, NOTHING)
            router = self._identities.told(anchor, said, by_itself=told.by_itself)
            session = confirm(session, anchor, named, told.lifetime, now, router)
        return session

    def _passed_over(self, reason: str) -> Session | None:
        self._counters[f"pba.{reason}"] += 1
        return None
