"""The CMD is asked about nodes by DHCPv6: an Information-request of our own in a Relay-forward, with the node and
when it was seen. The Relay-reply says what one to the node's own message would.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED
from dmm_wire.identity import Identity
from relay_maar.core.actions import Action, Log, SendToServers
from relay_maar.core.asking import Answer, Served, Verdict
from relay_maar.core.attaching import MOST_REMEMBERED
from relay_maar.core.cache import BindingCache
from relay_maar.core.noticed import Ask, Pace, Place, Why
from relay_maar.core.relay import OwnReply, Relay
from relay_maar.core.session import Role, Session, arrive
from relay_maar.core.settings import AgentSettings
from relay_maar.core.telling import stays_away, was_lost

_MOST_AGE: Final = 0xFFFFFFFF
_VERDICTS: Final = {
    int(dmm.DmmStatus.STALE): Verdict.STALE,
    int(dmm.DmmStatus.UNKNOWN_NODE): Verdict.UNKNOWN,
}


class Questions:
    """Asks by DHCPv6 (see :class:`relay_maar.core.asking.Asking`)."""

    pace = Pace(0.25, 8.0, 8, dated=True)
    deregisters = False

    def __init__(
        self,
        settings: AgentSettings,
        cache: BindingCache,
        relay: Relay,
        transaction_id: Callable[[], bytes],
        counters: Counter[str],
    ) -> None:
        self._endpoint = settings.endpoint
        self._slaac = frozenset(link.interface for link in settings.access if link.slaac)
        self._cache = cache
        self._relay = relay
        self._transaction_id = transaction_id
        self._counters = counters
        self._missed: OrderedDict[bytes, Identity] = OrderedDict()
        """Nodes that are silent, by the question whether they are elsewhere."""

    def ask(self, ask: Ask, now: float) -> list[Action]:
        """Ask about a node that came, or is still here."""
        age_ms = min(round(ask.age * 1000), _MOST_AGE)
        slaac = ask.place.interface in self._slaac
        data = self._relay.attached(
            ask.transaction_id, ask.place.link_layer, age_ms, known=ask.known, slaac=slaac
        )
        return [SendToServers(data)]

    def silent(self, session: Session, place: Place, why: Why, now: float) -> list[Action]:
        """The node may have gone by way of a MAAR that never learned of it, and so told nobody."""
        number = self._transaction_id()
        self._missed[number] = session.identity
        if len(self._missed) > MOST_REMEMBERED:
            self._missed.popitem(last=False)
        question = self._relay.query(number, (dmm.MobileNode(session.identity),))
        return [Log("info", stays_away(session)), SendToServers(question)]

    def ends(self, session: Session) -> float:
        """Where hosts make their own addresses no DHCPv6 client renews the prefix."""
        at = session.attachment
        if at is None or at.interface not in self._slaac:
            return math.inf
        own = [e.expires for e in session.having(Role.LOCAL) if not e.delegated]
        return min(own, default=math.inf)

    def read(self, reply: OwnReply, refused: bool) -> Answer:
        """What a reply says of a node that came. `refused`: the CMD says that it does not do so."""
        number, told = reply.transaction_id, reply.suboptions or ()
        if refused:
            status = next(each.code for each in told if isinstance(each, dmm.Status))
            return Answer(number, _VERDICTS.get(status, Verdict.REFUSED))
        visit = next((each for each in told if isinstance(each, dmm.Visit)), None)
        name = next((each.identity for each in told if isinstance(each, dmm.MobileNode)), None)
        if visit is None or name is None:
            return Answer(number, Verdict.UNKNOWN)
        return Answer(number, Served(name, visit, told))

    def missed(self, reply: OwnReply, now: float) -> list[Action] | None:
        """The CMD's word on a silent node; None where it answers no question about one. Where it is elsewhere, nothing
        of it is served here any more."""
        identity = self._missed.pop(reply.transaction_id, None)
        if identity is None:
            return None
        session = self._cache.get(identity)
        told = reply.suboptions or ()
        status = next((each.code for each in told if isinstance(each, dmm.Status)), None)
        elsewhere = status in (dmm.DmmStatus.STALE, dmm.DmmStatus.UNKNOWN_NODE)
        if session is None or session.attachment is None or not elsewhere:
            return []
        self._counters["attach.was-elsewhere"] += 1
        served = session.having(Role.LOCAL, Role.SERVED)
        after = arrive(
            session,
            session.identity,
            session.generation,
            UNSPECIFIED,
            session.attachment,
            (),
            self._endpoint,
            now,
        )
        return [Log("info", was_lost(session, len(served))), *self._cache.leave(None, after, now)]
