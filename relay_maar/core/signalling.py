"""Sending Proxy Binding Updates: one exchange per mobile node and peer (RFC 5213 section 6.9.1, RFC
6275 section 11.8).

An exchange says one thing, "this node is here since that generation, and these are its prefixes at
your place", until it is acknowledged: at once, after 1 s doubling to 32 s, and on at that rate
until the lifetimes are over. What the kernel has not confirmed yet is not said.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dmm_wire.address import Prefix
from dmm_wire.identity import Identity
from dmm_wire.mobility import (
    INITIAL_BINDACK_TIMEOUT,
    LIFETIME_INFINITY,
    LIFETIME_UNIT,
    MAX_BINDACK_TIMEOUT,
    MAX_UPDATE_RATE,
    BindingAcknowledgement,
    BindingUpdate,
    Status,
)
from dmm_wire.mobility.serving import FINAL, Notice, echoes, lifetime_of
from dmm_wire.timers import Timers
from relay_maar.core.session import HOLD, Role, Session, remaining

REFRESH_MARGIN: Final = 10.0
"""Seconds by which a lifetime has to change before the peer is told. The messages of one DHCP
exchange move it by one or two, a Renew by half of the preferred lifetime."""

_SEQUENCES: Final = 8
"""Sequence numbers of one PBU that a PBA may answer: transmissions of the last two minutes."""


class Binding(NamedTuple):
    """What a PBU says: `named` is anchored at the peer, `served` at (endpoint, prefix) elsewhere,
    `until` is when the last of the named ends. `ends`: the node has no prefix at all any more
    (lifetime 0)."""

    generation: int
    named: tuple[tuple[Prefix, bool], ...]
    served: tuple[tuple[bytes, Prefix], ...]
    until: float
    ends: bool
    link_layer: bytes | None


class Outcome(NamedTuple):
    """A PBA that matched: whose it is, what it answered, and its status."""

    identity: Identity
    binding: Binding
    accepted: bool
    status: int


@dataclass(slots=True)
class Exchange:
    """One PBU on its way to one peer. `told` is when the lifetime ends that was last asked for,
    `granted` when the acknowledged one does (None: nothing was), and `adjusted` says whether a wrong
    timestamp was already made good at once."""

    binding: Binding
    moved: bool
    ready: bool = False
    told: float = math.inf
    granted: float | None = None
    over: bool = False
    adjusted: bool = False
    wait: float = float(INITIAL_BINDACK_TIMEOUT)
    sequences: deque[int] = field(default_factory=lambda: deque(maxlen=_SEQUENCES))
    sent: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_UPDATE_RATE))

    @property
    def finished(self) -> bool:
        """Whether the peer has said its last word on this PBU."""
        return self.over or self.granted is not None


def bindings(session: Session, owed: Iterable[bytes], endpoint: bytes) -> dict[bytes, Binding]:
    """The PBUs that make `session`, which is here, known: to each P-MAAR, to the MAAR just left and
    to those still `owed` one, the full set of what each anchors. An anchor all of whose prefixes
    have ended is told so too."""
    alive = session.having(Role.SERVED)
    local = session.having(Role.LOCAL)
    longest = max((entry.expires for entry in session.entries), default=0.0)
    anchors = (entry.anchor for entry in (*alive, *session.having(Role.ENDED)))
    peers = dict.fromkeys([*anchors, session.previous, *owed])
    result: dict[bytes, Binding] = {}
    for peer in peers:
        if peer == endpoint or not any(peer):
            continue
        named = tuple(entry for entry in alive if entry.anchor == peer)
        link_layer = session.attachment.link_layer if session.attachment else None
        result[peer] = Binding(
            session.generation,
            tuple((entry.prefix, entry.delegated) for entry in named),
            tuple((entry.anchor, entry.prefix) for entry in alive if entry.anchor != peer),
            max((e.expires for e in named), default=max(longest, session.touched + HOLD)),
            not (alive or local),
            link_layer,
        )
    return result


def last_words(left: Session | None, after: Session) -> dict[bytes, Binding]:
    """The PBUs of a visit here that is over, to the anchors of prefixes that ended before they
    knew: whoever serves the node next may not have anything to say to them. An anchor that knows
    better, because it does, says so (status 157)."""
    if left is None or not left.here or left.signalled is not None:
        return {}
    served = {e.prefix for e in left.having(Role.SERVED, Role.ENDED)}
    words: dict[bytes, Binding] = {}
    for entry in after.having(Role.ENDED):
        if entry.prefix in served:
            until = max(entry.expires, words[entry.anchor].until if entry.anchor in words else 0.0)
            words[entry.anchor] = Binding(left.generation, (), (), until, False, None)
    return words


class Signalling:
    """All exchanges of this MAAR as a sender of PBUs."""

    def __init__(self, endpoint: bytes, access_technology: int) -> None:
        self._endpoint = endpoint
        self._access_technology = access_technology
        self._exchanges: dict[Identity, dict[bytes, Exchange]] = {}
        self._sequence: dict[bytes, int] = {}
        self._matches: dict[tuple[bytes, int], Identity] = {}
        self._timers: Timers[tuple[Identity, bytes]] = Timers()

    def exchanges(self, identity: Identity) -> Mapping[bytes, Exchange]:
        """The exchanges about this node by peer."""
        return self._exchanges.get(identity, {})

    def unfinished(self, identity: Identity) -> list[bytes]:
        """The peers that have not answered about this node."""
        return [peer for peer, each in self.exchanges(identity).items() if not each.finished]

    def announce(self, identity: Identity, wanted: Mapping[bytes, Binding], moved: bool) -> None:
        """Make `wanted` what the peers are to know; others are not talked to any more. What has
        changed waits for
        :meth:`release`."""
        before = self._exchanges.pop(identity, {})
        after: dict[bytes, Exchange] = {}
        for peer, binding in wanted.items():
            known = before.pop(peer, None)
            if known is not None and not binding.named:
                # What the peer may still hold decides for how long it has to be told.
                told = known.binding.until if known.granted is None else known.granted
                binding = binding._replace(until=max(binding.until, told))
            if known is not None and not _worth_telling(known, binding):
                known.binding = binding
                after[peer] = known
                continue
            if known is not None:
                self._unmatch(peer, known)
            after[peer] = Exchange(binding, moved)
            if known is not None:
                after[peer].sent = known.sent
            self._timers.cancel((identity, peer))
        for peer, dropped in before.items():
            self._unmatch(peer, dropped)
            self._timers.cancel((identity, peer))
        if after:
            self._exchanges[identity] = after

    def restore(
        self, identity: Identity, peer: bytes, binding: Binding, granted: float | None, now: float
    ) -> None:
        """Take up an exchange again that an earlier process began. `granted` as in Exchange."""
        exchange = Exchange(binding, moved=True, told=binding.until, granted=granted)
        self._exchanges.setdefault(identity, {})[peer] = exchange
        if granted is not None:
            self._extend_later(identity, peer, exchange, granted - now, now)

    def release(
        self, identity: Identity, confirmed: Callable[[bytes, Binding], bool], now: float
    ) -> bool:
        """Send, with the next :meth:`due`, what is waiting and `confirmed` by the kernel. Returns
        whether some of it still waits."""
        waiting = False
        for peer, exchange in self.exchanges(identity).items():
            if exchange.ready or exchange.finished:
                continue
            if confirmed(peer, exchange.binding):
                exchange.ready = True
                self._timers.set((identity, peer), _allowed(exchange, now))
            else:
                waiting = True
        return waiting

    def leave(self, session: Session, words: Mapping[bytes, Binding]) -> None:
        """The node is at another S-MAAR. What the peers acknowledged is that one's to keep up; what
        they did not goes on: a MAAR that nobody else tells must hear that the node left it, and the
        way through us is open. It goes on as long as that way, or for `HOLD`: a peer that has heard
        of later visits must not have forgotten them. `words` are the last of this visit."""
        ends = dict.fromkeys(self.exchanges(session.identity), session.touched + HOLD)
        for entry in session.entries:
            ends[entry.anchor] = max(ends.get(entry.anchor, 0.0), entry.expires)
        open_ = {
            peer: each.binding._replace(until=min(each.binding.until, ends[peer]))
            for peer, each in self.exchanges(session.identity).items()
            if not each.finished
        }
        self.announce(session.identity, open_ | dict(words), moved=False)

    def forget(self, identity: Identity) -> None:
        """Drop all that concerns this node."""
        self.announce(identity, {}, moved=False)

    def deadline(self) -> float | None:
        """When :meth:`due` has something to send."""
        return self._timers.deadline()

    def due(self, now: float) -> tuple[list[tuple[bytes, BindingUpdate]], int]:
        """The PBUs to send now, each with its peer, and how many exchanges were given up because
        the lifetimes ended before any answer."""
        messages: list[tuple[bytes, BindingUpdate]] = []
        abandoned = 0
        for identity, peer in self._timers.due(now):
            exchange = self._exchanges.get(identity, {}).get(peer)
            if exchange is None:
                continue
            if exchange.binding.until <= now:
                # Nobody is served any more by what this PBU says.
                abandoned += not exchange.finished
                exchange.over = True
                self._unmatch(peer, exchange)
                continue
            if exchange.granted is not None:
                exchange.granted = None
                exchange.moved = False
                exchange.wait = float(INITIAL_BINDACK_TIMEOUT)
            messages.append((peer, self._transmit(identity, peer, exchange, now)))
        return messages, abandoned

    def answered(
        self, peer: bytes, acknowledgement: BindingAcknowledgement, now: float
    ) -> Outcome | None:
        """Take in a PBA from `peer`. None if it answers no PBU of ours (RFC 5213 section 6.9.1.2:
        ignored)."""
        identity = self._matches.get((peer, acknowledgement.sequence))
        if identity is None:
            return None
        exchange = self._exchanges[identity][peer]
        if not echoes(acknowledgement, identity, exchange.binding.generation):
            return None
        outcome = Outcome(
            identity, exchange.binding, acknowledgement.accepted, acknowledgement.status
        )
        if acknowledgement.accepted:
            self._grant(identity, peer, exchange, acknowledgement.lifetime, now)
        elif acknowledgement.status == Status.MIPV6_ID_MISMATCH and not exchange.adjusted:
            # The guard has learnt the time at the peer from it: no reason to wait (RFC 4285 section 6).
            exchange.adjusted = True
            self._timers.set((identity, peer), _allowed(exchange, now))
        elif acknowledgement.status in FINAL:
            exchange.over = True
            self._timers.cancel((identity, peer))
            self._unmatch(peer, exchange)
        return outcome

    def _grant(
        self, identity: Identity, peer: bytes, exchange: Exchange, lifetime: int, now: float
    ) -> None:
        self._unmatch(peer, exchange)
        binding = exchange.binding
        exchange.granted = binding.until
        self._timers.cancel((identity, peer))
        if binding.named and lifetime < LIFETIME_INFINITY:
            exchange.granted = min(binding.until, now + lifetime)
            self._extend_later(identity, peer, exchange, float(lifetime), now)

    def _extend_later(
        self, identity: Identity, peer: bytes, exchange: Exchange, lifetime: float, now: float
    ) -> None:
        """Where the peer granted less than there is, extend it before it ends (RFC 5213 section
        6.9.1.3)."""
        granted = exchange.granted
        if granted is not None and exchange.binding.until > granted + 2 * LIFETIME_UNIT:
            wait = max(0.75 * lifetime, float(LIFETIME_UNIT))
            self._timers.set((identity, peer), now + wait)

    def _transmit(
        self, identity: Identity, peer: bytes, exchange: Exchange, now: float
    ) -> BindingUpdate:
        # A retransmission has a greater sequence number than the one before (RFC 6275 section
        # 11.8). Numbers count per peer: an answer is known by its peer and number.
        sequence = (self._sequence.get(peer, 0) + 1) & 0xFFFF
        self._sequence[peer] = sequence
        if len(exchange.sequences) == _SEQUENCES:
            self._matches.pop((peer, exchange.sequences[0]), None)
        exchange.sequences.append(sequence)
        self._matches[peer, sequence] = identity
        exchange.sent.append(now)
        exchange.told = exchange.binding.until
        again = _allowed(exchange, now + exchange.wait)
        self._timers.set((identity, peer), again)
        exchange.wait = min(2 * exchange.wait, float(MAX_BINDACK_TIMEOUT))
        return self._update(identity, exchange, sequence, now)

    def _update(
        self, identity: Identity, exchange: Exchange, sequence: int, now: float
    ) -> BindingUpdate:
        binding = exchange.binding
        left = remaining(binding.until, now)
        return Notice(
            identity,
            binding.generation,
            self._endpoint,
            binding.named,
            binding.served,
            lifetime_of(left, names=bool(binding.named), ends=binding.ends),
            exchange.moved,
            self._access_technology,
            binding.link_layer,
        ).update(sequence)

    def _unmatch(self, peer: bytes, exchange: Exchange) -> None:
        for sequence in exchange.sequences:
            self._matches.pop((peer, sequence), None)
        exchange.sequences.clear()


def _worth_telling(known: Exchange, binding: Binding) -> bool:
    """Whether `binding` says more than what `known` has said or is about to say."""
    said = known.binding
    if (binding.generation, binding.ends) != (said.generation, said.ends):
        return True
    if set(binding.named) != set(said.named):
        return True
    if known.over:
        return False
    if not known.finished or not binding.named or binding.until == known.told:
        return False  # equal, since two infinite lifetimes have no difference
    return abs(binding.until - known.told) > REFRESH_MARGIN


def _allowed(exchange: Exchange, when: float) -> float:
    """`when`, or later so that no second sees more than MAX_UPDATE_RATE transmissions."""
    if len(exchange.sent) < MAX_UPDATE_RATE:
        return when
    return max(when, exchange.sent[0] + 1.0)
