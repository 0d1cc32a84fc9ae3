"""The binding cache: all sessions, in memory, in the file and in the kernel, and what may be said
only when it is there.

Two rules of order are kept here: a session is saved before the kernel is changed for it, and a PBU,
a PBA or a client's message goes out only after the kernel has answered for what it promises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from dmm_wire.address import Prefix
from dmm_wire.identity import Identity, is_link_layer
from dmm_wire.mobility import BindingAcknowledgement, Status
from dmm_wire.router_identity import RouterIdentity
from dmm_wire.timers import Timers
from relay_maar.core import records
from relay_maar.core.actions import (
    Action,
    Apply,
    ForgetSession,
    Log,
    SaveSession,
    SendMobility,
)
from relay_maar.core.desired import Wanted, desired, through
from relay_maar.core.items import (
    Change,
    Dlif,
    Item,
    Key,
    Put,
    Route,
    SourceRule,
    Tunnel,
    Unreachable,
)
from relay_maar.core.session import (
    HOLD,
    MAX_SESSIONS,
    Role,
    Session,
    expire,
    shown_as,
    withdraw,
)
from relay_maar.core.signalling import Binding, Outcome, Signalling, bindings, last_words
from relay_maar.core.telling import named

_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 32.0
"""Seconds until what the kernel refused is tried again, doubling."""

POOLS: Final = "pools"
"""Who wants the routes that close the pools."""

_RETRY: Final = "retry"

Then = Callable[[float], list[Action]]
"""What to do at `now`, once the kernel has answered."""


class BindingCache:
    """The sessions of one MAAR and their way into the kernel. `router_of` has as which router an anchor is
    to be shown that an earlier process showed so, see `Identities.restore`."""

    def __init__(
        self,
        endpoint: bytes,
        access_technology: int,
        counters: Counter[str],
        router_of: Callable[[bytes, RouterIdentity | None], RouterIdentity | None],
    ) -> None:
        self._router_of = router_of
        self._endpoint = endpoint
        self._counters = counters
        self._signalling = Signalling(endpoint, access_technology)
        self._wanted = Wanted()
        self._sessions: dict[Identity, Session] = {}
        self._here: dict[tuple[str, bytes], Identity] = {}
        self._speakers: dict[str, dict[bytes, Identity]] = {}
        self._pointed: dict[bytes, Identity] = {}
        """By its link-layer address, whom the CMD has told us to send something after."""
        self.stirred: set[str] = set()
        """The access links on which other nodes are now than when somebody last looked."""
        self._timers: Timers[Identity | str] = Timers()
        self._retry_wait = _FIRST_RETRY
        self._token = 0
        self._applying: dict[int, tuple[Change, ...]] = {}
        self._waiting: dict[int, list[Then]] = {}
        self._unsaid: dict[Identity, None] = {}
        """Nodes with exchanges of which it is to be seen whether the kernel has confirmed what they promise."""
        self._unconfirmed: dict[int, list[Identity]] = {}
        """Those that wait for the kernel's answer to a token: a crowd is not looked through for each answer."""
        self._held: dict[Identity, None] = {}
        """Those of which the kernel has refused something."""

    # --- what is there ---

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, identity: Identity) -> Session | None:
        """The session of this node."""
        return self._sessions.get(identity)

    def at(self, interface: str, link_local: bytes) -> Session | None:
        """The session of the node that is at this place on our access links."""
        identity = self._here.get((interface, link_local))
        return None if identity is None else self._sessions[identity]

    def speaker(self, interface: str, link_layer: bytes) -> Session | None:
        """The session of the node that is on this access link with this link-layer address."""
        identity = self._speakers.get(interface, {}).get(link_layer)
        return None if identity is None else self._sessions[identity]

    def speakers(self, interface: str) -> Collection[bytes]:
        """The link-layer addresses of the nodes on this access link."""
        return self._speakers.get(interface, {}).keys()

    def has_room(self, identity: Identity) -> bool:
        """Whether there is a session of this node, or may be one."""
        return identity in self._sessions or len(self._sessions) < MAX_SESSIONS

    def is_free(self, prefix: Prefix) -> bool:
        """Whether no node has a prefix that overlaps this one."""
        return not self._wanted.overlapped(prefix, POOLS)

    def awaits_anchors(self, identity: Identity) -> bool:
        """Whether the node is here and anchors of it are still to be heard of. In mode proxy the CMD has named all."""
        session = self._sessions.get(identity)
        if session is None or not session.here or session.signalled is None:
            return False
        return session.signalled.is_open

    def wanted(self, session: Session) -> tuple[Item, ...]:
        """What the kernel has to hold for it."""
        if self._sessions.get(session.identity) is session:
            return self._wanted.of(session.identity)
        return desired(session)

    def refused(self, session: Session) -> bool:
        """Whether the kernel refused a part of what this session wants."""
        return self._wanted.refused(self.wanted(session))

    def tunnels(self) -> list[bytes]:
        """The peers to which there is to be a tunnel."""
        return sorted(item.peer for item in self._wanted.effective() if isinstance(item, Tunnel))

    def routers(self) -> list[Dlif]:
        """The other anchors that are shown, each on each link."""
        return [item for item in self._wanted.effective() if isinstance(item, Dlif)]

    def record(self, session: Session, now: float) -> dict[str, Any]:
        """The session with its exchanges, JSON-ready."""
        exchanges = self._signalling.exchanges(session.identity)
        return records.session_record(session, exchanges, now)

    # --- start and stop ---

    def expect(self, owner: str, items: Iterable[Item]) -> None:
        """As :meth:`claim`, and leave the kernel to :meth:`reconcile`."""
        self._wanted.claim(owner, items)

    def restore(self, record: Mapping[str, Any], links: Collection[str], now: float) -> None:
        """Take up a saved session without touching the kernel; of one whose node was on a link that
        is none of `links` any more, nothing is known. Raises ValueError for a damaged record."""
        session, exchanges = records.read_session(record, now)
        if session.attachment is not None and session.attachment.interface not in links:
            return
        for entry in session.having(Role.SERVED, Role.FORWARDED):
            router = self._router_of(entry.anchor, entry.router)
            session = shown_as(session, entry.anchor, router)
        session = expire(session, now)
        self._keep(session)
        self._wanted.claim(session.identity, desired(session))
        for peer, binding, granted in exchanges:
            self._signalling.restore(session.identity, peer, binding, granted, now)
        self._unsaid[session.identity] = None

    def reconcile(self, found: Iterable[Item]) -> list[Action]:
        """Mend the difference between what an earlier process left in the kernel and what is
        wanted, and nothing else: traffic that flows is not cut."""
        return self._apply(self._wanted.reconcile(found))

    def kernel_changed(self, found: Iterable[Item]) -> list[Action]:
        """Put again what is no longer as it was put, and drop what of ours nobody wants."""
        refused = self._wanted.failed
        changes = self._wanted.compare(found)
        self._reconsider_held()
        puts = [change.item for change in changes if isinstance(change, Put)]
        lost = [item for item in puts if item.key not in refused]
        if not lost:
            return self._apply(changes)
        self._counters["kernel.restored"] += len(lost)
        line = f"the kernel lost {len(lost)} items, to be put again: {named(lost[0])} ..."
        return [Log("warning", line), *self._apply(changes)]

    def empty_kernel(self) -> list[Action]:
        """Withdraw everything; the sessions stay in the file."""
        return self._apply(self._wanted.all_dropped())

    # --- changes ---

    def claim(self, owner: str, items: Iterable[Item]) -> list[Action]:
        """`owner`, which is no node, wants exactly these items."""
        return self._apply(self._wanted.claim(owner, items))

    def change(self, session: Session, now: float) -> list[Action]:
        """Make `session` what we know, in the file and in the kernel."""
        self._keep(session)
        if self._signalling.unfinished(session.identity):
            self._unsaid[session.identity] = None
        changes = self._wanted.claim(session.identity, desired(session))
        return [self._save(session, now), *self._apply(changes)]

    def rename(self, session: Session, identity: Identity, now: float) -> list[Action]:
        """The node of this session is called `identity` from now on. The kernel does not notice. Of one
        that is known by that name already, what was known by the other is over if that was only its
        link-layer address: the CMD, which made one node of the two, tells all that it has."""
        renamed = replace(session, identity=identity)
        if identity in self._sessions:
            return self._forget(session) if is_link_layer(session.identity) else []
        actions = self.change(renamed, now)
        return actions + self._forget(session)

    def holder(self, prefix: Prefix) -> Session | None:
        """The session of the node that has this very prefix."""
        owners = self._wanted.owners(Route(prefix, Unreachable()).key)
        sessions = (self._sessions.get(o) for o in owners if isinstance(o, Identity))
        return next((each for each in sessions if each is not None and each.find(prefix)), None)

    def serve(self, session: Session, *, moved: bool, now: float) -> list[Action]:
        """As :meth:`change`, for a node that is here: its P-MAARs and the MAAR just left are told,
        once the kernel has what their packets need here. `moved`: it is a new visit."""
        identity = session.identity
        wanted: dict[bytes, Binding] = {}
        if session.signalled is None:
            owed = self._signalling.unfinished(identity)
            wanted = bindings(session, owed, self._endpoint)
        self._signalling.announce(identity, wanted, moved)
        self._unsaid[identity] = None
        return self.change(session, now)

    def told(self, identity: Identity) -> int:
        """How many peers are being told, or have been, where this node is."""
        return len(self._signalling.exchanges(identity))

    def leave(self, left: Session | None, session: Session, now: float) -> list[Action]:
        """As :meth:`change`, for a node that is at another S-MAAR, and was where it was when `left` was
        what we knew; None where it is at that one already."""
        words = last_words(left, session)
        self._signalling.leave(session, words)
        if words:
            self._unsaid[session.identity] = None
        return self.change(session, now)

    def returned(self, link_layer: bytes | None, now: float) -> list[Action]:
        """A frame from this link-layer address was seen. If it is of a node that is elsewhere, as far as we
        know, nothing is sent after it any more: the CMD may tell the MAAR that it comes from before us,
        and that one sends to us what we would send to it."""
        identity = None if link_layer is None else self._pointed.get(link_layer)
        if identity is None:
            return []
        self._counters["visit.returned"] += 1
        return self.change(replace(self._sessions[identity], returning=True), now)

    def acknowledged(
        self, peer: bytes, answer: BindingAcknowledgement, now: float
    ) -> tuple[Outcome, list[Action]] | None:
        """Take in a PBA. None if it answers none of our PBUs."""
        outcome = self._signalling.answered(peer, answer, now)
        if outcome is None:
            return None
        session = self._sessions[outcome.identity]
        # Of a visit that is over: an anchor that was told of a later one by somebody else knows more than we.
        overtaken = outcome.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED and not session.here
        if outcome.accepted or overtaken:
            named = [prefix for prefix, _ in outcome.binding.named]
            session = withdraw(session, peer, named)
        return outcome, self.change(session, now)

    def after(self, items: Iterable[Item], then: Then, now: float) -> list[Action]:
        """`then`, once the kernel has answered for all of `items`."""
        token = self._wanted.last_token(items)
        if token is None:
            return then(now)
        self._waiting.setdefault(token, []).append(then)
        return []

    def applied(self, token: int, failures: Mapping[Key, str], now: float) -> list[Action] | None:
        """The kernel's answer to an Apply; what waited for it comes out. None for a token that is
        not ours."""
        changes = self._applying.pop(token, None)
        if changes is None:
            return None
        actions: list[Action] = []
        refused = self._wanted.answered(token, changes, failures)
        if refused:
            self._counters["kernel.refused"] += len(refused)
            why = failures[refused[0].item.key]
            actions.append(
                Log(
                    "error",
                    f"the kernel refused {len(refused)} changes: {named(refused[0].item)} ...: {why}",
                )
            )
        if not self._wanted.failed:
            self._timers.cancel(_RETRY)
            self._retry_wait = _FIRST_RETRY
        elif self._timers.when(_RETRY) is None:
            self._timers.set(_RETRY, now + self._retry_wait)
            self._retry_wait = min(2 * self._retry_wait, _LONGEST_RETRY)
        for identity in self._unconfirmed.pop(token, ()):
            if identity in self._sessions:
                self._unsaid[identity] = None
        self._reconsider_held()
        for then in self._waiting.pop(token, ()):
            actions += then(now)
        return actions

    # --- time ---

    def deadline(self) -> float | None:
        """When :meth:`due` or :meth:`messages` has something to do."""
        deadlines = (self._timers.deadline(), self._signalling.deadline())
        return min((each for each in deadlines if each is not None), default=None)

    def due(self, now: float) -> list[Action]:
        """End lifetimes, forget what is over, try again what the kernel refused."""
        actions: list[Action] = []
        for name in self._timers.due(now):
            if isinstance(name, Identity):
                actions += self._lifetime_ended(self._sessions[name], now)
            else:
                actions += self._apply(self._wanted.retry())
        return actions

    def messages(self, now: float) -> list[Action]:
        """The PBUs to send by now."""
        for identity in list(self._unsaid):
            del self._unsaid[identity]
            self._release(identity, now)
        updates, abandoned = self._signalling.due(now)
        self._counters["pbu.abandoned"] += abandoned
        self._counters["pbu.sent"] += len(updates)
        return [SendMobility(peer, update) for peer, update in updates]

    def _lifetime_ended(self, session: Session, now: float) -> list[Action]:
        after = expire(session, now)
        if after != session:
            # Only the S-MAAR ends what its P-MAARs hold before their own timers do (RFC 8885 section
            # 3.5): it tells them the set that is left.
            return (
                self.serve(after, moved=False, now=now) if after.here else self.change(after, now)
            )
        if session.entries or now < session.touched + HOLD:
            self._set_timer(session)
        elif self._signalling.unfinished(session.identity):
            self._timers.set(session.identity, now + HOLD)
        else:
            return self._forget(session)
        return []

    def _forget(self, session: Session) -> list[Action]:
        identity = session.identity
        del self._sessions[identity]
        self._unlist(session)
        self._timers.cancel(identity)
        self._unsaid.pop(identity, None)
        self._held.pop(identity, None)
        self._signalling.forget(identity)
        return [ForgetSession(identity), *self._apply(self._wanted.claim(identity, ()))]

    def _release(self, identity: Identity, now: float) -> None:
        """Let those exchanges go whose items the kernel has confirmed."""
        items = self._wanted.of(identity)

        def confirmed(peer: bytes, binding: Binding) -> bool:
            concerned = _concerning(items, peer, binding)
            pending = self._wanted.last_token(concerned)
            return pending is None and not self._wanted.refused(concerned)

        if not self._signalling.release(identity, confirmed, now):
            return
        tokens = self._wanted.tokens(items)
        for token in tokens:
            self._unconfirmed.setdefault(token, []).append(identity)
        if not tokens:
            self._held[identity] = None

    def _reconsider_held(self) -> None:
        self._unsaid.update(self._held)
        self._held.clear()

    # --- the parts ---

    def _keep(self, session: Session) -> None:
        before = self._sessions.get(session.identity)
        if before is not None:
            self._unlist(before)
        self._sessions[session.identity] = session
        at = session.attachment
        is_pointed = session.signalled is not None and not session.returning
        if session.speaker and is_pointed and session.having(Role.FORWARDED):
            self._pointed[session.speaker] = session.identity
        if at is not None:
            self._here[at.place] = session.identity
            # Who has no prefix here is not served, and is new when it is seen.
            if at.link_layer is not None and session.having(Role.LOCAL, Role.SERVED):
                self._speakers.setdefault(at.interface, {})[at.link_layer] = session.identity
                self.stirred.add(at.interface)
        self._set_timer(session)

    def _unlist(self, session: Session) -> None:
        if session.speaker and self._pointed.get(session.speaker) == session.identity:
            del self._pointed[session.speaker]
        at = session.attachment
        if at is None:
            return
        if self._here.get(at.place) == session.identity:
            del self._here[at.place]
        speakers = self._speakers.get(at.interface, {})
        if at.link_layer is not None and speakers.get(at.link_layer) == session.identity:
            del speakers[at.link_layer]
            self.stirred.add(at.interface)

    def _set_timer(self, session: Session) -> None:
        self._timers.set(session.identity, session.deadline())

    def _save(self, session: Session, now: float) -> Action:
        return SaveSession(session.identity, self.record(session, now))

    def _apply(self, changes: tuple[Change, ...]) -> list[Action]:
        if not changes:
            return []
        self._token += 1
        self._wanted.issue(self._token, changes)
        self._applying[self._token] = changes
        return [Apply(self._token, changes)]


def _concerning(items: Iterable[Item], peer: bytes, binding: Binding) -> list[Item]:
    """The items that a PBU promises: the tunnel to the peer, and what is routed through it."""
    keys: set[Key] = {item.key for item in through(peer)}
    for prefix, _ in binding.named:
        keys |= {Route(prefix, Unreachable()).key, SourceRule(prefix, peer).key}
    return [item for item in items if item.key in keys]
