"""The Proxy Binding Updates by which a MAAR that speaks only PMIPv6 registers nodes with the CMD (RFC 8885
section 3.1, RFC 5213 section 6.9.1), and what the answers say. When to send one is decided elsewhere
(`relay_maar.core.attaching`).

A node is known to the CMD by its link-layer address until it calls it otherwise.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity, of_link_layer
from dmm_wire.mobility import (
    INITIAL_BINDACK_TIMEOUT,
    LIFETIME_INFINITY,
    LIFETIME_UNIT,
    MAX_BINDACK_TIMEOUT,
    AccessTechnology,
    BindingAcknowledgement,
    BindingUpdate,
    HandoffIndicator,
    HandoffIndicatorValue,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import ALL_ZERO, first
from dmm_wire.mobility.registration import forgot_option, later_option, told
from relay_maar.core.asking import Verdict
from relay_maar.core.noticed import Ask, Place
from relay_maar.core.own_prefixes import MOST_REFUSED, OwnPrefixes
from relay_maar.core.session import MAX_SESSIONS, Role, Session
from relay_maar.core.settings import AgentSettings

_SET_BACK: Final = 1 << 14
"""Timestamp units, a quarter of a second: less than any CMD takes for a wrong clock (RFC 5213 section 9.1)."""

_MOST_SENT: Final = 16_384
"""PBUs that a PBA may answer."""

_NAMED_WRONG: Final = frozenset(
    {Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH}
)
_CURABLE: Final = frozenset(
    {
        Status.INSUFFICIENT_RESOURCES,
        Status.TIMESTAMP_MISMATCH,
        Status.MIPV6_ID_MISMATCH,
        Status.MIPV6_MESG_ID_REQD,
        Status.MIPV6_AUTH_FAIL,
    }
)
"""Rejections that time may cure, or the operator with other keys."""


class Sent(NamedTuple):
    """A PBU to a CMD."""

    cmd: bytes
    update: BindingUpdate


class Accepted(NamedTuple):
    """The CMD registered the node at this place, and says what `suboptions` say."""

    transaction_id: bytes
    place: Place
    name: Identity
    suboptions: tuple[dmm.SubOption, ...]


class Refused(NamedTuple):
    """It did not. `status` None: it is a peer that does not know RFC 8885. `transaction_id` is empty for a
    de-registration."""

    transaction_id: bytes
    place: Place
    verdict: Verdict
    status: int | None
    offset: float | None = None
    """Seconds by which its clock is ahead of ours, where it says so."""
    is_denied: bool = False
    """The session of the node is over (RFC 5213 section 6.9.1.2, 11)."""


class Left(NamedTuple):
    """The CMD knows that the node is gone."""

    place: Place


class _Asked(NamedTuple):
    transaction_id: bytes
    place: Place
    update: BindingUpdate
    timestamp: int


@dataclass(slots=True)
class _Node:
    """What is remembered of a node. `name` is what its session is called."""

    name: Identity
    is_named: bool = True
    """Whether the prefix that we know, or choose, is named; not after the CMD refused it."""
    refused: int = 0
    """Prefixes that we chose and the CMD refused."""
    until: float | None = None
    """When what the CMD granted ends."""
    patience: float = float(INITIAL_BINDACK_TIMEOUT)
    adjusted: bytes | None = None
    """The question of which a wrong timestamp was already made good at once."""
    later: dmm.Visit | None = None
    """A later visit than the CMD's last PBA told of: PBUs say so."""


class Registering:
    """All registrations of a MAAR. `clock` gives the timestamp (RFC 5213 section 8.8) of an instant; `session_of` the
    session of a node, `own` the prefix of one that has none here; without it the CMD chooses."""

    def __init__(
        self,
        settings: AgentSettings,
        session_of: Callable[[Identity], Session | None],
        clock: Callable[[float], int],
        own: OwnPrefixes | None = None,
    ) -> None:
        self._settings = settings
        self._own_prefixes = own
        self._session_of = session_of
        self._clock = clock
        self._nodes: OrderedDict[bytes, _Node] = OrderedDict()
        """By link-layer address; the one that was longest not spoken of goes first."""
        self._asked: OrderedDict[tuple[bytes, int], _Asked] = OrderedDict()
        self._sequence = 0
        self._timestamp = 0
        self._cmd = 0
        """The CMD that answered last."""
        self.knows_nobody = False
        """There was no record of any node when we were started, and no CMD has heard so."""

    # --- what is known ---

    def until(self, link_layer: bytes) -> float | None:
        """When the registration of this node ends; None where that is not known."""
        node = self._nodes.get(link_layer)
        return None if node is None else node.until

    def patience(self, link_layer: bytes) -> float:
        """Seconds to wait for the anchors of this node, doubling from time to time while some are missing."""
        node = self._node(link_layer)
        patience = node.patience
        node.patience = min(2 * patience, float(MAX_BINDACK_TIMEOUT))
        return patience

    def restore(self, session: Session) -> None:
        """A node that was here before a restart."""
        at = session.attachment
        if at is not None and at.link_layer is not None and len(at.link_layer) in (6, 8):
            self._node(at.link_layer).name = session.identity

    def _node(self, link_layer: bytes) -> _Node:
        node = self._nodes.get(link_layer)
        if node is None:
            node = self._nodes[link_layer] = _Node(of_link_layer(link_layer))
        self._nodes.move_to_end(link_layer)
        if len(self._nodes) > MAX_SESSIONS:
            self._nodes.popitem(last=False)
        return node

    def knows_later(self, link_layer: bytes, later: dmm.Visit | None) -> bool:
        """A PBA has come: `later` is the visit that is known of this node where it told of an earlier one. The PBUs say
        so, until one comes that does not. Returns whether they did not yet."""
        node = self._node(link_layer)
        is_news = later is not None and node.later is None
        node.later = later
        return is_news

    # --- the PBU ---

    def ask(self, ask: Ask, now: float) -> Sent:
        """The PBU that says that a node is here. Who does not answer is not asked for ever: another CMD may."""
        node, cmds = self._node(ask.place.link_layer), self._settings.cmds
        cmd = cmds[(self._cmd + (ask.times - 1) // 2) % len(cmds)]
        handoff = HandoffIndicatorValue.UNKNOWN
        if ask.known:
            handoff = HandoffIndicatorValue.NOT_CHANGED
        lifetime = self._settings.registration_lifetime
        return self._send(cmd, ask.transaction_id, ask.place, node, handoff, lifetime, now)

    def leave(self, place: Place, now: float) -> Sent:
        """The PBU that says that a node is gone."""
        node, cmd = self._node(place.link_layer), self._settings.cmds[self._cmd]
        return self._send(cmd, b"", place, node, HandoffIndicatorValue.UNKNOWN, 0, now)

    def _send(
        self,
        cmd: bytes,
        transaction_id: bytes,
        place: Place,
        node: _Node,
        handoff: HandoffIndicatorValue,
        lifetime: int,
        now: float,
    ) -> Sent:
        settings = self._settings
        # Section 6.9.4: one that is sent again has the latest timestamp. A clock that was set back is followed: what it
        # said before was wrong, and the CMD looks at the time.
        clock = self._clock(now)
        is_behind = self._timestamp - _SET_BACK < clock <= self._timestamp
        self._timestamp = self._timestamp + 1 if is_behind else clock
        self._sequence = (self._sequence + 1) & 0xFFFF
        options: list[MobilityOption] = [MobileNodeIdentifier(of_link_layer(place.link_layer))]
        options += [HomeNetworkPrefix(each) for each in self._own(node, place, lifetime)] or [
            ALL_ZERO
        ]
        options += [HandoffIndicator(handoff), AccessTechnology(settings.access_technology)]
        options += [LinkLayerIdentifier(place.link_layer), Timestamp(self._timestamp)]
        if self.knows_nobody and lifetime:
            options.append(forgot_option(settings.endpoint, settings.enterprise))
        if node.later is not None and lifetime:
            options.append(later_option(node.later, settings.enterprise))
        update = BindingUpdate(self._sequence, lifetime, tuple(options))
        asked = _Asked(transaction_id, place, update, self._timestamp)
        self._asked[cmd, self._sequence] = asked
        self._asked.move_to_end((cmd, self._sequence))
        if len(self._asked) > _MOST_SENT:
            self._asked.popitem(last=False)
        return Sent(cmd, update)

    def _own(self, node: _Node, place: Place, lifetime: int) -> list[Prefix]:
        """The prefix that we anchor for the node, if we know of one, or choose one."""
        if not node.is_named:
            return []
        session = self._session_of(node.name)
        ours = () if session is None else session.having(Role.LOCAL, Role.ANCHORED)
        known = [each.prefix for each in ours if not each.delegated][:1]
        if known or self._own_prefixes is None or not lifetime:
            return known
        chosen = self._own_prefixes.choose(place.link_layer, node.refused)
        return [] if chosen is None else [chosen]

    # --- the PBA ---

    def answered(
        self, source: bytes, answer: BindingAcknowledgement, now: float
    ) -> Accepted | Refused | Left | None:
        """Take in a PBA. None if it answers none of these PBUs."""
        asked = self._asked.get((source, answer.sequence))
        if asked is None or not _echoes(answer, asked.update):
            return None
        is_accepted = answer.status == Status.ACCEPTED and answer.dmm
        if is_accepted and _stamp(answer) not in (None, asked.timestamp):
            return None
        del self._asked[source, answer.sequence]
        self._cmd = self._settings.cmds.index(source)
        node = self._node(asked.place.link_layer)
        if not is_accepted:
            return self._refused(asked, node, answer)
        return (
            self._accepted(asked, node, answer, now) if asked.update.lifetime else Left(asked.place)
        )

    def _refused(self, asked: _Asked, node: _Node, answer: BindingAcknowledgement) -> Refused:
        number, place, status = asked.transaction_id, asked.place, answer.status
        if not answer.dmm:
            # A plain LMA, which did what section 4.1 says it must not. No MAAR has a use for what it says.
            return Refused(number, place, Verdict.UNKNOWN, None)
        verdict, is_denied = Verdict.UNKNOWN, True
        if status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED:
            # Section 6.9.1.2, 8: if it is here, whatever was accepted before. It may have gone on meanwhile.
            verdict, is_denied = Verdict.STALE, False
        elif status == Status.MIPV6_ID_MISMATCH and node.adjusted != number:
            # The guard has learnt the time at the CMD from it: no reason to wait (RFC 4285 section 6).
            node.adjusted = number
            verdict, is_denied = Verdict.AGAIN, False
        elif status in _NAMED_WRONG and node.is_named:
            self._misnamed(node, status)
            verdict, is_denied = Verdict.AGAIN, False
        elif status in _CURABLE:
            verdict, is_denied = Verdict.REFUSED, False
        elif status == Status.ADMINISTRATIVELY_PROHIBITED:
            # It flaps, or it is somebody else's identifier: neither is for ever.
            verdict = Verdict.REFUSED
        return Refused(number, place, verdict, status, _offset(answer, asked.timestamp), is_denied)

    def _misnamed(self, node: _Node, status: int) -> None:
        """RFC 5213 section 6.9.1.2, 10: not with this prefix again. One that we chose may just be somebody else's, but
        where the node has one already (159), the CMD knows which."""
        session = self._session_of(node.name)
        node.refused += 1
        node.is_named = (
            self._own_prefixes is not None
            and status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
            and node.refused <= MOST_REFUSED
            and (session is None or not session.having(Role.LOCAL, Role.ANCHORED))
        )

    def _accepted(
        self, asked: _Asked, node: _Node, answer: BindingAcknowledgement, now: float
    ) -> Accepted:
        self.knows_nobody = False
        suboptions = told(answer, self._settings.enterprise)
        names = [each.identity for each in suboptions if isinstance(each, dmm.MobileNode)]
        node.name = names[0] if names else of_link_layer(asked.place.link_layer)
        node.is_named, node.refused, node.adjusted = True, 0, None
        infinite = answer.lifetime >= LIFETIME_INFINITY
        node.until = math.inf if infinite else now + float(max(answer.lifetime, LIFETIME_UNIT))
        if not any(isinstance(s, dmm.PreviousMaar) and s.awaited for s in suboptions):
            node.patience = float(INITIAL_BINDACK_TIMEOUT)
        return Accepted(asked.transaction_id, asked.place, node.name, suboptions)


def _offset(answer: BindingAcknowledgement, timestamp: int) -> float | None:
    theirs = _stamp(answer)
    if answer.status != Status.TIMESTAMP_MISMATCH or theirs is None:
        return None
    return (theirs - timestamp) / 65536


def _stamp(answer: BindingAcknowledgement) -> int | None:
    timestamp = first(answer, Timestamp)
    return None if timestamp is None else timestamp.value


_ECHOED: Final[Sequence[type[MobilityOption]]] = (
    MobileNodeIdentifier,
    HandoffIndicator,
    AccessTechnology,
    LinkLayerIdentifier,
)


def _echoes(answer: BindingAcknowledgement, update: BindingUpdate) -> bool:
    """Section 6.9.1.2, 6: what has to be echoed is the same, as far as it is there."""
    if not answer.proxy:
        return False
    pairs = ((first(answer, kind), first(update, kind)) for kind in _ECHOED)
    return all(there is None or there == ours for there, ours in pairs)
