"""A MAAR that speaks only PMIPv6 registers the nodes on its links with the CMD (RFC 8885 section 3.1,
RFC 5213 section 6.9.1), goes on while they answer, and de-registers them when they do not.

A node is known by its link-layer address. It is registered when a frame shows it, again before the
lifetime ends if it is there still, which a neighbour probe finds out where it has been silent. Only
so is it de-registered (RFC 8885 section 3.5): a link that went down says nothing, and once the node
is at another MAAR, that one speaks for it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    INITIAL_BINDACK_TIMEOUT,
    LIFETIME_INFINITY,
    LIFETIME_UNIT,
    MAX_BINDACK_TIMEOUT,
    MAX_UPDATE_RATE,
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
from dmm_wire.mobility.registration import told
from dmm_wire.timers import Timers
from relay_maar.core.session import MAX_SESSIONS, Role, Session
from relay_maar.core.settings import AgentSettings

MAX_UNICAST_SOLICIT: Final = 3
RETRANS_TIMER: Final = 1.0
"""Probes, and seconds between them (RFC 4861 section 10)."""

REACHABLE_TIME: Final = 30.0
"""Seconds for which a node that was seen is taken to be there (RFC 4861 section 10)."""

REASSERT: Final = 0.1
"""Seconds until a node is registered again after status 157, doubling: another MAAR's clock may be ahead of ours."""

REFUSED_PAUSE: Final = 30.0
"""Seconds for which a node is not registered that the CMD refused for good."""

_SET_BACK: Final = 1 << 14
"""Timestamp units, a quarter of a second: less than any CMD takes for a wrong clock (RFC 5213 section 9.1)."""

_SEQUENCES: Final = 8
"""Transmissions that a PBA may answer."""

_NAMED_WRONG: Final = frozenset(
    {Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, Status.BCE_PBU_PREFIX_SET_DO_NOT_MATCH}
)
_AGAIN: Final = frozenset(
    {
        Status.INSUFFICIENT_RESOURCES,
        Status.TIMESTAMP_MISMATCH,
        Status.MIPV6_ID_MISMATCH,
        Status.MIPV6_MESG_ID_REQD,
        Status.MIPV6_AUTH_FAIL,
    }
)
"""Rejections that time may cure, or the operator with other keys."""


class Place(NamedTuple):
    """Where on our links a node is, and its link-layer address."""

    interface: str
    link_local: bytes
    link_layer: bytes


class Probe(NamedTuple):
    """Ask the node whether it is there."""

    place: Place


class Accepted(NamedTuple):
    """The CMD registered a node at `place`, and says what `suboptions` say."""

    identity: Identity
    place: Place
    suboptions: tuple[dmm.SubOption, ...]


class Refused(NamedTuple):
    """It did not. `status` None: it is a peer that does not know RFC 8885."""

    identity: Identity
    status: int | None
    offset: float | None
    """Seconds by which its clock is ahead of ours, where it says so."""
    denied: Identity | None = None
    """For good: what its session is called, which is over (RFC 5213 section 6.9.1.2, 11)."""


class Left(NamedTuple):
    """The node has not been heard of, and is not served here any more. `name` is its session's identity."""

    name: Identity


class Sent(NamedTuple):
    """A PBU to a CMD."""

    cmd: bytes
    update: BindingUpdate


class _Doing(Enum):
    ATTACH = "attach"
    KEEP = "keep"
    LEAVE = "leave"


@dataclass(slots=True)
class _Entry:
    """A node on our links. `name` is what its session is called; the CMD may know it by another identifier than we."""

    place: Place
    name: Identity
    doing: _Doing | None = _Doing.ATTACH
    """What the PBU on its way is for; None: there is none."""
    attached: bool = False
    named: bool = True
    """Whether the prefix that we know is named; not after the CMD refused it."""
    seen: float = -math.inf
    keep: float = math.inf
    until: float = math.inf
    """When to go on with it, and when what the CMD granted ends."""
    probes: int = 0
    asserting: bool = False
    """A later message than ours was accepted: it is registered again if it answers."""
    waits: bool = False
    """Anchors are to be heard of: it is registered again if they are not."""
    not_before: float = -math.inf
    wait: float = float(INITIAL_BINDACK_TIMEOUT)
    reassert: float = REASSERT
    patience: float = float(INITIAL_BINDACK_TIMEOUT)
    attempts: int = 0
    adjusted: bool = False
    """A wrong timestamp was already made good at once."""
    sequences: deque[tuple[bytes, int]] = field(default_factory=deque)
    sent: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_UPDATE_RATE))


class Registering:
    """All registrations of a MAAR. `clock` gives the timestamp (RFC 5213 section 8.8) of an instant; `session_of` the
    session of a node."""

    def __init__(
        self,
        settings: AgentSettings,
        session_of: Callable[[Identity], Session | None],
        clock: Callable[[float], int],
    ) -> None:
        self._settings = settings
        self._session_of = session_of
        self._clock = clock
        self._entries: dict[Identity, _Entry] = {}
        self._on_link: Counter[str] = Counter()
        """How many are on each link."""
        self._most = {link.interface: link.max_nodes for link in settings.access}
        self._names: dict[Identity, Identity] = {}
        """Of those that were registered, by what their sessions are called."""
        self._timers: Timers[Identity] = Timers()
        self._matches: dict[tuple[bytes, int], tuple[Identity, BindingUpdate, int]] = {}
        self._sequence = 0
        self._timestamp = 0
        self._cmd = 0
        """The CMD that answered last."""

    def __len__(self) -> int:
        return len(self._entries)

    # --- what is seen ---

    def seen(self, place: Place, now: float) -> bool:
        """A frame shows a node. Returns whether it counts: one that is at one address of a link is
        not at another."""
        identity = _identity(place.link_layer)
        if identity is None:
            return False
        entry = self._entries.get(identity)
        comes = entry is None or entry.place.interface != place.interface
        if comes and self._on_link[place.interface] >= self._most.get(
            place.interface, MAX_SESSIONS
        ):
            return False
        if entry is not None and self._is_taken(entry, place):
            return False
        if entry is None:
            if len(self._entries) >= MAX_SESSIONS:
                return False
            entry = self._entries[identity] = _Entry(place, identity)
            self._on_link[place.interface] += 1
        entry.seen = now
        moved = entry.place != place
        self._on_link[entry.place.interface] -= 1
        self._on_link[place.interface] += 1
        entry.place = place
        if entry.doing is _Doing.ATTACH and not moved and entry.attempts:
            return True
        if entry.doing is _Doing.LEAVE or moved or not self._is_here(entry):
            self._begin(identity, entry, _Doing.ATTACH, now)
        elif entry.probes:
            self._begin(identity, entry, _Doing.KEEP, now)
        return True

    def _is_taken(self, entry: _Entry, place: Place) -> bool:
        """Whether the node is known to be at another address of this very link."""
        is_other = entry.place != place and entry.place.interface == place.interface
        return is_other and (self._is_here(entry) or entry.doing is _Doing.ATTACH)

    def restore(self, session: Session, now: float) -> None:
        """A node that was here before a restart: it is registered again, as one that has not moved."""
        at = session.attachment
        if at is None or at.link_layer is None:
            return
        identity = _identity(at.link_layer)
        if identity is not None and session.having(Role.LOCAL, Role.SERVED):
            place = Place(at.interface, at.link_local, at.link_layer)
            entry = self._entries[identity] = _Entry(place, session.identity, attached=True)
            self._on_link[place.interface] += 1
            self._names[session.identity] = identity
            entry.seen = now
            self._begin(identity, entry, _Doing.KEEP, now)

    def wait_for(self, name: Identity, now: float) -> None:
        """Some anchors of this node are to be heard of: ask for them if they are not, by registering again."""
        identity = self._names.get(name)
        if identity is None:
            return
        entry = self._entries[identity]
        when, due = now + entry.patience, self._timers.when(identity)
        if entry.doing is None and (due is None or due > when):
            entry.patience = min(2 * entry.patience, float(MAX_BINDACK_TIMEOUT))
            entry.waits = True
            self._timers.set(identity, when)

    # --- time ---

    def deadline(self) -> float | None:
        """When :meth:`due` has something to do."""
        return self._timers.deadline()

    def due(self, now: float) -> list[Sent | Probe | Left]:
        """What is to be sent now, and who is gone."""
        found: list[Sent | Probe | Left] = []
        for identity in self._timers.due(now):
            entry = self._entries[identity]
            if entry.asserting:
                found += self._assert(identity, entry, now)
            elif entry.doing is not _Doing.ATTACH and not self._is_here(entry):
                # At another MAAR, which speaks for it; or refused, and not seen since.
                self._forget(identity, entry)
            elif entry.doing is _Doing.LEAVE and entry.attempts:
                # Whatever becomes of the message: the CMD's own timer ends it, too (RFC 5213 section 6.9.1.4).
                self._forget(identity, entry)
                found.append(Left(entry.name))
            elif entry.doing is _Doing.ATTACH and entry.attempts and self._is_silent(entry, now):
                self._forget(identity, entry)  # nobody answered, and it has not been seen since
            elif entry.doing is not None:
                found.append(self._transmit(identity, entry, now))
            else:
                found += self._look_after(identity, entry, now)
        return found

    def _assert(self, identity: Identity, entry: _Entry, now: float) -> list[Sent | Probe | Left]:
        """Whether it is here, where another MAAR has said the same."""
        if entry.probes == MAX_UNICAST_SOLICIT:
            self._forget(identity, entry)
            return []
        entry.probes += 1
        self._timers.set(identity, now + RETRANS_TIMER)
        return [Probe(entry.place)]

    def _look_after(
        self, identity: Identity, entry: _Entry, now: float
    ) -> list[Sent | Probe | Left]:
        """The time to go on with a registration has come: if the node is there."""
        if entry.waits and not self._misses(entry):
            entry.waits = False  # they were heard of
            self._timers.set(identity, entry.keep)
        elif entry.waits or now <= entry.seen + REACHABLE_TIME:
            self._begin(identity, entry, _Doing.KEEP, now)
        elif entry.probes < MAX_UNICAST_SOLICIT:
            entry.probes += 1
            self._timers.set(identity, now + RETRANS_TIMER)
            return [Probe(entry.place)]
        elif now < entry.until - _PROBING:
            entry.probes = 0
            self._timers.set(identity, entry.until - _PROBING)  # once more before it ends
        else:
            self._begin(identity, entry, _Doing.LEAVE, now)
        return self.due(now)

    # --- the PBU ---

    def _begin(self, identity: Identity, entry: _Entry, doing: _Doing, now: float) -> None:
        entry.doing, entry.asserting, entry.waits, entry.probes = doing, False, False, 0
        entry.wait, entry.attempts = float(INITIAL_BINDACK_TIMEOUT), 0
        entry.adjusted = False
        self._timers.set(identity, self._allowed(entry, max(now, entry.not_before)))

    def _transmit(self, identity: Identity, entry: _Entry, now: float) -> Sent:
        settings = self._settings
        cmd = settings.cmds[(self._cmd + entry.attempts // 2) % len(settings.cmds)]
        # Section 6.9.4: one that is sent again has the latest timestamp. A clock that was set back is followed: what it
        # said before was wrong, and the CMD looks at the time.
        clock = self._clock(now)
        is_behind = self._timestamp - _SET_BACK < clock <= self._timestamp
        self._timestamp = self._timestamp + 1 if is_behind else clock
        self._sequence = (self._sequence + 1) & 0xFFFF
        update = self._update(identity, entry)
        if len(entry.sequences) == _SEQUENCES:
            self._matches.pop(entry.sequences.popleft(), None)
        entry.sequences.append((cmd, self._sequence))
        self._matches[cmd, self._sequence] = (identity, update, self._timestamp)
        entry.sent.append(now)
        entry.attempts += 1
        self._timers.set(identity, self._allowed(entry, now + entry.wait))
        entry.wait = min(2 * entry.wait, float(MAX_BINDACK_TIMEOUT))
        return Sent(cmd, update)

    def _update(self, identity: Identity, entry: _Entry) -> BindingUpdate:
        settings = self._settings
        handoff = HandoffIndicatorValue.UNKNOWN
        if entry.doing is _Doing.KEEP:
            handoff = HandoffIndicatorValue.NOT_CHANGED
        options: list[MobilityOption] = [MobileNodeIdentifier(identity)]
        options += [HomeNetworkPrefix(each) for each in self._own(entry)] or [ALL_ZERO]
        options += [HandoffIndicator(handoff), AccessTechnology(settings.access_technology)]
        options += [LinkLayerIdentifier(entry.place.link_layer), Timestamp(self._timestamp)]
        lifetime = 0 if entry.doing is _Doing.LEAVE else settings.registration_lifetime
        return BindingUpdate(self._sequence, lifetime, tuple(options))

    def _own(self, entry: _Entry) -> list[Prefix]:
        """The prefix that we anchor for the node, if we know of one."""
        session = self._session_of(entry.name)
        if session is None or not entry.named:
            return []
        ours = session.having(Role.LOCAL, Role.ANCHORED)
        return [each.prefix for each in ours if not each.delegated][:1]

    # --- the PBA ---

    def answered(
        self, source: bytes, answer: BindingAcknowledgement, now: float
    ) -> Accepted | Refused | Left | None:
        """Take in a PBA. None if it answers none of these PBUs, or asks for nothing but patience."""
        matched = self._matches.get((source, answer.sequence))
        if matched is None or not _echoes(answer, matched[1]):
            return None
        identity, update, timestamp = matched
        entry = self._entries[identity]
        self._cmd = self._settings.cmds.index(source)
        if answer.status == Status.ACCEPTED and answer.dmm:
            if _stamp(answer) not in (None, timestamp):
                return None
            return self._accepted(identity, entry, update, answer, now)
        self._unmatch(entry)
        doing, denied = entry.doing, None
        if not answer.dmm:
            # A plain LMA, which did what section 4.1 says it must not. No MAAR has a use for what it says.
            self._pause(identity, entry, now)
            return Refused(identity, None, None)
        if answer.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED and doing is _Doing.ATTACH:
            # Section 6.9.1.2, 8: if it is here, whatever was accepted before. It may have gone on meanwhile.
            entry.doing, entry.asserting, entry.probes = None, True, 0
            self._timers.set(identity, now + entry.reassert)
            entry.reassert = min(2 * entry.reassert, float(MAX_BINDACK_TIMEOUT))
        elif answer.status == Status.MIPV6_ID_MISMATCH and doing is not None and not entry.adjusted:
            # The guard has learnt the time at the CMD from it: no reason to wait (RFC 4285 section 6).
            entry.adjusted = True
            if doing is _Doing.LEAVE:
                entry.attempts = 0  # it has not been said yet
            self._timers.set(identity, self._allowed(entry, now))
        elif answer.status in _NAMED_WRONG and entry.named:
            entry.named = False  # section 6.9.1.2, 10
            self._timers.set(identity, self._allowed(entry, now))
        elif answer.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED or doing is _Doing.LEAVE:
            self._forget(identity, entry)  # it is elsewhere, unless its next frame says otherwise
        elif answer.status not in _AGAIN:
            denied = entry.name
            self._pause(identity, entry, now)
        return Refused(identity, answer.status, self._offset(answer, timestamp), denied)

    def _accepted(
        self,
        identity: Identity,
        entry: _Entry,
        update: BindingUpdate,
        answer: BindingAcknowledgement,
        now: float,
    ) -> Accepted | Left | None:
        if (update.lifetime == 0) != (entry.doing is _Doing.LEAVE):
            return None  # to what was meanwhile overtaken
        self._unmatch(entry)
        if entry.doing is _Doing.LEAVE:
            self._forget(identity, entry)
            return Left(entry.name)
        suboptions = told(answer, self._settings.enterprise)
        self._names.pop(entry.name, None)
        names = [each.identity for each in suboptions if isinstance(each, dmm.MobileNode)]
        entry.name = names[0] if names else identity
        self._names[entry.name] = identity
        entry.attached, entry.named, entry.doing = True, True, None
        entry.probes, entry.reassert = 0, REASSERT
        infinite = answer.lifetime >= LIFETIME_INFINITY
        lifetime = float(max(answer.lifetime, LIFETIME_UNIT))
        entry.until = math.inf if infinite else now + lifetime
        entry.keep = now + _KEEP_AFTER * lifetime
        self._timers.set(identity, entry.keep)
        waits = any(isinstance(s, dmm.Signalling) and s.expected for s in suboptions)
        if not waits:
            entry.patience = float(INITIAL_BINDACK_TIMEOUT)
        return Accepted(identity, entry.place, suboptions)

    def _offset(self, answer: BindingAcknowledgement, timestamp: int) -> float | None:
        theirs = _stamp(answer)
        if answer.status != Status.TIMESTAMP_MISMATCH or theirs is None:
            return None
        return (theirs - timestamp) / 65536

    # --- the entries ---

    def _is_here(self, entry: _Entry) -> bool:
        session = self._session_of(entry.name) if entry.attached else None
        return session is not None and session.here

    def _misses(self, entry: _Entry) -> bool:
        session = self._session_of(entry.name)
        return session is not None and bool(session.signalled and session.signalled.missing)

    def _is_silent(self, entry: _Entry, now: float) -> bool:
        return now > entry.seen + 2 * MAX_BINDACK_TIMEOUT

    def _pause(self, identity: Identity, entry: _Entry, now: float) -> None:
        """Leave it at that until a frame shows the node after a while."""
        entry.doing, entry.attached = None, False
        entry.not_before = now + REFUSED_PAUSE
        self._timers.set(identity, entry.not_before)

    def _unmatch(self, entry: _Entry) -> None:
        for key in entry.sequences:
            self._matches.pop(key, None)
        entry.sequences.clear()

    def _forget(self, identity: Identity, entry: _Entry) -> None:
        self._unmatch(entry)
        self._timers.cancel(identity)
        if self._names.get(entry.name) == identity:
            del self._names[entry.name]
        self._on_link[entry.place.interface] -= 1
        del self._entries[identity]

    @staticmethod
    def _allowed(entry: _Entry, when: float) -> float:
        """`when`, or later so that no second sees more than MAX_UPDATE_RATE transmissions."""
        if len(entry.sent) < MAX_UPDATE_RATE:
            return when
        return max(when, entry.sent[0] + 1.0)


_KEEP_AFTER: Final = 0.75
"""The part of a lifetime after which it is asked for again."""
_PROBING: Final = 2 * MAX_UNICAST_SOLICIT * RETRANS_TIMER
"""Seconds before the end of a lifetime at which the last probes begin."""


def _identity(link_layer: bytes) -> Identity | None:
    subtypes = {6: IdentitySubtype.EUI48, 8: IdentitySubtype.EUI64}
    subtype = subtypes.get(len(link_layer))
    return None if subtype is None else Identity(subtype, link_layer)


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
