"""The binding cache entry of a mobile node at this MAAR, and how it changes.

A session is a value. What happens to the node, as the CMD or the S-MAAR tells it, makes a new one;
what the kernel has to hold for it follows from it alone (:mod:`relay_maar.core.desired`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.identity import Identity
from dmm_wire.mobility import LIFETIME_INFINITY
from dmm_wire.router_identity import RouterIdentity

LINGER: Final = 8.0
"""Seconds for which a prefix that expired is still answered with Unreachable. Its anchor was told
the lifetime later and in units of 4 s, so it may go on tunnelling to us for a little while: without
the route, that would be a loop."""

LONGEST: Final = float(LIFETIME_INFINITY)
"""Seconds for which a prefix that is neither anchored nor served here is kept at most: the longest
lifetime that a PBU can say (three days)."""

HOLD: Final = 64.0
"""Seconds for which a session without prefixes is remembered: its generation refuses what is late
on the wire. Twice MAX_BINDACK_TIMEOUT (RFC 6275 section 12), so that the last retransmission of an
overtaken PBU meets it. As long a prefix that has ended stays Unreachable where it is somebody else
who tells its anchor: we do not hear when that is done, nor if the node gets the prefix again."""

MAX_SESSIONS: Final = 65536
"""Mobile nodes at one MAAR; what comes beyond is refused."""

MAX_PREFIXES: Final = 32
"""Prefixes of one mobile node (RFC 8987 G-5, G-7: at least 8). What names 32 still fits one
Mobility Header."""


class Role(Enum):
    """What this MAAR is to a prefix of a mobile node."""

    LOCAL = "local"
    """Anchored here, and the node is here."""
    SERVED = "served"
    """Anchored at a P-MAAR, and the node is here."""
    ANCHORED = "anchored"
    """Anchored here, and the node is at the S-MAAR."""
    FORWARDED = "forwarded"
    """Anchored elsewhere and served here until the node left: what still comes is sent after it, to
    the S-MAAR."""
    ENDED = "ended"
    """Anchored elsewhere and no longer the node's: Unreachable, until the anchor surely knows; for
    `HOLD` seconds where somebody else tells it."""


class Event(Enum):
    """What can happen to a prefix of a mobile node."""

    HERE_LOCAL = "the node is here, and the CMD names the prefix as anchored here"
    HERE_SERVED = "the node is here, and the CMD names the prefix as anchored at a P-MAAR"
    HERE_UNNAMED = "the node is here, and the CMD's full set does not have the prefix"
    AWAY_NAMED = "the node is at an S-MAAR, whose PBU names the prefix"
    AWAY_UNNAMED = "the node is at an S-MAAR, whose PBU does not know the prefix"
    AWAY_SERVED = "the node is at an S-MAAR that serves the prefix for an anchor elsewhere"
    AWAY_HOME = "the node is at the prefix's anchor"
    WITHDRAWN = "the anchor acknowledged a set without the prefix"
    EXPIRED = "the lifetime known here has run out"


_L, _S, _A, _F, _E = Role.LOCAL, Role.SERVED, Role.ANCHORED, Role.FORWARDED, Role.ENDED

TRANSITIONS: Final[dict[Event, dict[Role | None, Role | None]]] = {
    # event                 role before: role after (None: nothing is known of the prefix here)
    Event.HERE_LOCAL:   {None: _L,   _L: _L,   _S: _L,   _A: _L,   _F: _L,   _E: _L},
    Event.HERE_SERVED:  {None: _S,   _L: _S,   _S: _S,   _A: _S,   _F: _S,   _E: _S},
    Event.HERE_UNNAMED: {None: None, _L: None, _S: _E,   _A: None, _F: _E,   _E: _E},
    Event.AWAY_NAMED:   {None: _A,   _L: _A,   _S: _A,   _A: _A,   _F: _A,   _E: _A},
    Event.AWAY_UNNAMED: {None: None, _L: None, _S: _E,   _A: None, _F: _E,   _E: _E},
    Event.AWAY_SERVED:  {None: None, _L: None, _S: _F,   _A: None, _F: _F,   _E: _F},
    Event.AWAY_HOME:    {None: None, _L: None, _S: None, _A: None, _F: None, _E: None},
    Event.WITHDRAWN:    {None: None, _L: _L,   _S: _S,   _A: _A,   _F: _F,   _E: None},
    Event.EXPIRED:      {None: None, _L: None, _S: _E,   _A: None, _F: _E,   _E: None},
}  # fmt: skip
"""All transitions of a prefix's role. A local or anchored prefix that goes leaves the pool's
Unreachable behind; one of another's pool becomes ENDED first, since its anchor may still tunnel to
us and a missing route would send the packet back there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One prefix: the MAAR that anchors it and when its lifetime, as known here, ends (`now`
    seconds, or infinity). `fading`: it is FORWARDED, and nobody keeps it up; it ends when its anchor
    surely knows of the move, and leaves nothing behind. `router`: where it is SERVED, the anchor is
    shown to the node as this router (RFC 8885 section 3.7); None: as the one that all MAARs are."""

    prefix: Prefix
    role: Role
    anchor: bytes
    expires: float
    delegated: bool = False
    fading: bool = False
    router: RouterIdentity | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """A prefix of the full set that came with a visit; `lifetime` is its valid lifetime in seconds,
    or infinity. `router`: as in `Entry`. `awaited`: its anchor has not acknowledged the visit yet."""

    prefix: Prefix
    anchor: bytes
    lifetime: float
    delegated: bool
    router: RouterIdentity | None = None
    awaited: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where on our access links the node is: its link-local address, and its link-layer address if
    known. `heard` is the running number of the client's message that brought it there, 0 for one
    that is not known."""

    interface: str
    link_local: bytes
    link_layer: bytes | None = None
    heard: int = field(default=0, compare=False)

    @property
    def place(self) -> tuple[str, bytes]:
        """What a route to the node names as its next hop."""
        return self.interface, self.link_local


@dataclass(frozen=True, slots=True)
class Signalled:
    """The CMD tells the P-MAARs of this visit (a mode other than direct).

    `awaited` is what it said to be anchored where the visit was not acknowledged yet: to be served when the anchor
    says that it sends it here. Of that, what was served here before is served on meanwhile. `doubted`: an anchor has
    refused what the CMD said of it.
    """

    awaited: tuple[Entry, ...] = ()
    doubted: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the CMD has to be asked, if nobody else says more."""
        return self.doubted or bool(self.awaited)


@dataclass(frozen=True, slots=True)
class Session:
    """What this MAAR knows of one mobile node.

    `generation` is the visit's, from the CMD; it only grows. `serving` is the S-MAAR's endpoint,
    which is ours exactly while `attachment` is there. `previous` is the S-MAAR before (`::` none).
    `touched` is when anybody last told us something about the node. `signalled` is None where it is
    for the S-MAAR to tell the P-MAARs (mode direct). `withdrawn` is what we have anchored until a PBU of
    this visit elsewhere did not name it any more: what was under way does not bring it back.
    `speaker` is the link-layer address by which a node that is elsewhere was here last; `returning`: it
    has been seen here again since, and nothing is sent after it.
    """

    identity: Identity
    generation: int
    serving: bytes
    previous: bytes = UNSPECIFIED
    attachment: Attachment | None = None
    entries: tuple[Entry, ...] = ()
    touched: float = 0.0
    signalled: Signalled | None = None
    withdrawn: frozenset[Prefix] = frozenset()
    speaker: bytes | None = None
    returning: bool = False

    @property
    def here(self) -> bool:
        """Whether we are the node's S-MAAR, as far as we know."""
        return self.attachment is not None

    def find(self, prefix: Prefix) -> Entry | None:
        """The entry of this very prefix."""
        return next((entry for entry in self.entries if entry.prefix == prefix), None)

    def having(self, *roles: Role) -> tuple[Entry, ...]:
        """The entries in one of these roles."""
        return tuple(entry for entry in self.entries if entry.role in roles)

    def maars(self) -> set[bytes]:
        """The endpoints of all MAARs that it is about."""
        return {self.serving, self.previous, *(entry.anchor for entry in self.entries)}

    def deadline(self) -> float:
        """When the next lifetime ends, or the memory of a session without prefixes; infinity for
        never."""
        if not self.entries:
            return self.touched + HOLD
        return min(entry.expires for entry in self.entries)


def arrive(
    session: Session | None,
    identity: Identity,
    generation: int,
    previous: bytes,
    attachment: Attachment,
    named: Iterable[Named],
    endpoint: bytes,
    now: float,
    signalled: Signalled | None = None,
) -> Session:
    """The session after a VISIT: the node is here, and `named` is the full set of its prefixes.
    `endpoint` is ours. `signalled`: the CMD tells the P-MAARs; what is awaited of them is added."""
    before = {entry.prefix: entry for entry in session.entries} if session is not None else {}
    after: list[Entry] = []
    awaited: list[Entry] = []
    for name in named:
        known = before.get(name.prefix)
        event = Event.HERE_LOCAL if name.anchor == endpoint else Event.HERE_SERVED
        expires = now + name.lifetime
        entry = Entry(name.prefix, _S, name.anchor, expires, name.delegated, router=name.router)
        if signalled is not None and name.awaited:
            awaited.append(entry)
            if known is None or known.role not in (_S, _F):
                continue
        before.pop(name.prefix, None)
        after += _after(entry, event, known.role if known else None)
    for entry in before.values():
        after += _after(_ending(entry, signalled, now), Event.HERE_UNNAMED, entry.role)
    if signalled is not None:
        signalled = replace(signalled, awaited=tuple(awaited))
    return Session(
        identity, generation, endpoint, previous, attachment, _limited(after), now, signalled
    )


def expected(session: Session, anchor: bytes, prefix: Prefix) -> Entry | None:
    """What the CMD said of `prefix` if `anchor` may speak of it: it is awaited of it, or served by it."""
    awaited = session.signalled.awaited if session.signalled is not None else ()
    found = next((e for e in awaited if e.prefix == prefix), None) or session.find(prefix)
    return found if found and found.anchor == anchor and found.role is _S else None


def confirm(
    session: Session,
    anchor: bytes,
    named: Collection[Prefix],
    lifetime: float,
    now: float,
    router: RouterIdentity | None = None,
) -> Session:
    """The session after `anchor` said, itself or through the CMD, that it sends us `named` for `lifetime` seconds,
    and nothing else of the node; it is shown as `router`. What the CMD did not name with the visit was under way
    when it ended, and is not believed."""
    if session.signalled is None:
        return session
    before = {entry.prefix: entry for entry in session.entries}
    awaited = {entry.prefix: entry for entry in session.signalled.awaited}
    after: list[Entry] = []
    for prefix in named:
        said = expected(session, anchor, prefix)
        if said is None:
            continue
        known = before.pop(prefix, None)
        awaited.pop(prefix, None)
        expires = max(said.expires, now + lifetime)  # the CMD says it to the second
        entry = replace(said, expires=expires, router=router)
        after += _after(entry, Event.HERE_SERVED, known.role if known else None)
    for entry in before.values():
        if entry.anchor == anchor and entry.role is _S and entry.prefix in awaited:
            after += _after(_ending(entry, session.signalled, now), Event.HERE_UNNAMED, entry.role)
        elif entry.anchor == anchor and entry.role is _E and entry.prefix not in named:
            after += _after(entry, Event.WITHDRAWN, entry.role)
        else:
            after.append(entry)
    signalled = replace(session.signalled, awaited=tuple(awaited.values()))
    return replace(session, entries=_limited(after), signalled=signalled)


def shown_as(session: Session, anchor: bytes, router: RouterIdentity | None) -> Session:
    """The session with this anchor shown to the node as `router`."""
    entries = session.entries
    if not any(entry.anchor == anchor and entry.router != router for entry in entries):
        return session
    return replace(
        session,
        entries=tuple(
            replace(entry, router=router) if entry.anchor == anchor else entry for entry in entries
        ),
    )


def doubt(session: Session) -> Session:
    """The session of which the CMD has to be asked, because an anchor that it named has refused."""
    if session.signalled is None:
        return session
    return replace(session, signalled=replace(session.signalled, doubted=True))


def depart(
    session: Session | None,
    identity: Identity,
    generation: int,
    serving: bytes,
    named: Iterable[tuple[Prefix, bool]],
    served: Collection[Prefix],
    lifetime: float,
    endpoint: bytes,
    now: float,
    signalled: Signalled | None = None,
) -> Session:
    """The session after a PBU: the node is at `serving`; it names the prefixes that we anchor
    for it, each with whether it is delegated, for `lifetime` seconds, and tells which of other
    anchors are `served` there. `signalled`: it came from the CMD."""
    before = {entry.prefix: entry for entry in session.entries} if session is not None else {}
    after: list[Entry] = []
    named = tuple(named)
    for prefix, delegated in named:
        known = before.pop(prefix, None)
        entry = Entry(prefix, _A, endpoint, now + lifetime, delegated)
        after += _after(entry, Event.AWAY_NAMED, known.role if known else None)
    for entry in before.values():
        if entry.anchor == serving:
            event = Event.AWAY_HOME
        elif entry.prefix in served:
            event = Event.AWAY_SERVED
        else:
            event = Event.AWAY_UNNAMED
        # Of what was served here last, the anchor's answer to our last words tells (mode direct).
        is_told = event is Event.AWAY_UNNAMED and (entry.role is _F or signalled is not None)
        # Who anchors nothing is not told of later moves; of what had ended, the lifetime is not known.
        is_fading = event is Event.AWAY_SERVED and (not named or entry.role is _E)
        left = _bounded(entry, now, HOLD if is_told or is_fading else LONGEST)
        after += _after(replace(left, fading=is_fading), event, entry.role)
    withdrawn = {entry.prefix for entry in before.values() if entry.anchor == endpoint}
    if session is not None and session.generation == generation:
        withdrawn |= session.withdrawn
    at = session.attachment if session is not None else None
    return Session(
        identity,
        generation,
        serving,
        entries=_limited(after),
        touched=now,
        signalled=signalled,
        withdrawn=frozenset(withdrawn),
        speaker=at.link_layer if at is not None else session.speaker if session else None,
        returning=session is not None and session.returning,
    )


def withdraw(session: Session, anchor: bytes, named: Collection[Prefix]) -> Session:
    """The session after `anchor` acknowledged that it anchors `named` and nothing else."""
    after: list[Entry] = []
    for entry in session.entries:
        if entry.anchor == anchor and entry.prefix not in named:
            after += _after(entry, Event.WITHDRAWN, entry.role)
        else:
            after.append(entry)
    return replace(session, entries=tuple(after))


def expire(session: Session, now: float) -> Session:
    """The session without the lifetimes that have ended by `now`.

    A PBU has one lifetime for all that it names, the longest: so long may an anchor hold a prefix
    that has ended here, and so long it stays Unreachable unless the anchor acknowledges its end.
    """
    after: list[Entry] = []
    for entry in session.entries:
        if entry.expires > now:
            after.append(entry)
        elif entry.role is not _F or not entry.fading:
            longest = max(e.expires for e in session.entries if e.anchor == entry.anchor)
            lingering = replace(entry, expires=min(longest, now + LONGEST) + LINGER)
            ending = _ending(lingering, session.signalled, now)
            after += _after(ending, Event.EXPIRED, entry.role)
    emptied = bool(session.entries) and not after
    return replace(session, entries=tuple(after), touched=now if emptied else session.touched)


def _after(entry: Entry, event: Event, role: Role | None) -> list[Entry]:
    """`entry` in the role that `event` leads to from `role`; nothing where it leads nowhere."""
    after = TRANSITIONS[event][role]
    return [] if after is None else [replace(entry, role=after)]


def _bounded(entry: Entry, now: float, longest: float = LONGEST) -> Entry:
    """What nobody keeps up any more ends some day, also if its lifetime was infinite."""
    return replace(entry, expires=min(entry.expires, now + longest))


def _ending(entry: Entry, signalled: Signalled | None, now: float) -> Entry:
    """`entry`, which goes if it is for the CMD to tell its anchor; else with the anchor's answer."""
    return _bounded(entry, now, LONGEST if signalled is None else HOLD)


def _limited(entries: list[Entry]) -> tuple[Entry, ...]:
    """No more than twice the prefixes a node may have: what has ended may not pile up behind what
    is alive."""
    alive = [entry for entry in entries if entry.role is not _E]
    ended = sorted((entry for entry in entries if entry.role is _E), key=lambda e: -e.expires)
    return tuple(alive + ended[:MAX_PREFIXES])


def remaining(until: float, now: float) -> float:
    """Seconds from `now` to `until`, never negative; infinity stays what it is."""
    return until if math.isinf(until) else max(0.0, until - now)
