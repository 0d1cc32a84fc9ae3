"""Who may say what, and when: authentication and replay protection of PBUs and PBAs (RFC 4285).

:class:`Guard` is one endpoint's: what is sent goes through `outgoing`, what comes in through
`incoming`, with nothing to be done on its word before. Pure: time comes in as an argument.

**Replay protection.** A PBU has a timestamp of its own, the PBA repeats it. The receiver accepts each
once, and only near its clock. The clocks need not agree: who is off is refused once (status 144), told
the receiver's time, and reckons with the difference from then on. That holds over restarts. A sender
that has forgotten the difference is told anew. A receiver has the `mark` of each peer, the latest
timestamp accepted, which the caller keeps and gives to `restore`; without it, nothing is accepted
from before `start`. A clock that was set back starts at the mark, not behind it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, TypeAlias

from dmm_wire.mobility.authentication import KeyStore, locate, sign, verify
from dmm_wire.mobility.codes import Status
from dmm_wire.mobility.message import (
    BindingAcknowledgement,
    BindingError,
    BindingUpdate,
    decode,
    encode,
)
from dmm_wire.mobility.options import (
    MessageAuthentication,
    MobileNodeIdentifier,
    MobilityOption,
    ReplayProtection,
)
from dmm_wire.mobility.replay import SECOND, Freshness, Window, fold, timestamp, unfold

TOLERANCE: Final = 7.0
"""Seconds by which a timestamp may differ from the receiver's clock (RFC 4285 section 5.1)."""

_PATIENCE: Final = 150.0
"""Seconds for which an answer to a PBU is known as one: longer than `Signalling` waits for it."""
_RATE: Final = 10.0
"""Refusals per second that are signed for one peer, and as many at once."""

Message: TypeAlias = BindingUpdate | BindingAcknowledgement


class Accepted(NamedTuple):
    """A message that may be believed: authenticated, unless no keys are configured or required.

    `mark` is to be kept for `restore` before anything is done on the message's word; None: as before.
    A PBA has to repeat the ReplayProtection option of `message`.
    """

    message: Message
    mark: int | None = None


class Refused(NamedTuple):
    """A message that is to be treated as if it had not come. `reason` names a counter:

    ========= ==========================================================================
    unsigned  it has no authentication option
    spi       there is no such key for this sender
    forged    the authentication data are wrong
    untimed   a PBU without a timestamp (a PBA: one that answers nothing)
    repeated  a message that was accepted before
    stale     its timestamp is not near our clock, or from before our start
    unmatched a PBA whose timestamp answers no PBU of ours
    ========= ==========================================================================

    `answer` is the PBA to send for it, if there is one to send.
    """

    reason: str
    answer: BindingAcknowledgement | None = None


@dataclass(slots=True)
class _Limit:
    """At most `rate` per second on the average, and `rate` at once (a token bucket)."""

    rate: float
    _left: float = math.inf
    _at: float = -math.inf

    def allows(self, now: float) -> bool:
        self._left = min(self.rate, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


@dataclass(slots=True)
class _Peer:
    """What is known of the clock of a peer, and of what is on the way to it."""

    window: Window
    ahead: int = 0
    """By how much our clock has to be put forward for this peer, not to fall behind what was accepted."""
    offset: int = 0
    """The peer's clock less ours, as it told us."""
    last: int = 0
    """The latest timestamp sent."""
    outstanding: OrderedDict[int, tuple[int, float]] = field(default_factory=OrderedDict)
    """Timestamp and time of each PBU by its sequence number, in the order sent."""
    refusals: _Limit = field(default_factory=lambda: _Limit(_RATE))


class Guard:
    """The keeper of one endpoint.

    `epoch` is the time of day (Unix seconds) at which `now` is 0, as of the start: later steps of the
    time of day do not matter. With `require` what is not authenticated is refused; without, it is let
    in, while what is authenticated has to be right all the same.
    """

    def __init__(
        self,
        endpoint: bytes,
        keys: KeyStore,
        *,
        require: bool,
        epoch: float,
        tolerance: float = TOLERANCE,
    ) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._require = require
        self._epoch = timestamp(epoch)
        self._tolerance = tolerance
        self._started = 0
        self._peers: dict[bytes, _Peer] = {}
        # Whoever can forge a source address can cause these.
        self._failures = _Limit(1.0)

    def change(self, keys: KeyStore, *, require: bool, tolerance: float) -> None:
        """Other keys and rules from now on; what is known of the peers' clocks and messages stays."""
        self._keys, self._require, self._tolerance = keys, require, tolerance
        for peer in self._peers.values():
            peer.window.allow(tolerance)

    # --- start ---

    def start(self, now: float) -> None:
        """Begin, before `restore` and anything else."""
        self._started = self._clock(now)

    def restore(self, peer: bytes, mark: int, now: float) -> None:
        """Accept nothing from `peer` that is not later than `mark`."""
        known = self._peers[peer] = _Peer(Window(mark, self._tolerance))
        known.ahead = max(0, mark - self._clock(now))

    def keyless(self, peers: Iterable[bytes]) -> list[bytes]:
        """Those of `peers` with which no key is shared though one is required."""
        return [each for each in peers if self._require and self._keys.sending(each) is None]

    # --- out ---

    def outgoing(self, peer: bytes, message: Message | BindingError, now: float) -> bytes:
        """The Mobility Header to send to `peer`: signed if there is a key for it, a PBU with a
        timestamp, a PBA with the one it repeats or, if it has none to repeat, one of its own: so has to
        go one that is for somebody else than the PBU's sender. (A Binding Error has no
        authentication.) Raises WireError as `encode` does."""
        key = self._keys.sending(peer)
        if key is None or isinstance(message, BindingError):
            return encode(message, self._endpoint, peer)
        if not any(isinstance(option, ReplayProtection) for option in message.options):
            stamp = self._stamp(peer, now)
            if isinstance(message, BindingUpdate):
                self._remember(peer, message.sequence, stamp, now)
            option = ReplayProtection(fold(stamp))
            message = replace(message, options=(*message.options, option))
        return sign(message, key, self._endpoint, peer)

    def _stamp(self, peer: bytes, now: float) -> int:
        known = self._peer(peer)
        known.last = max(self._clock(now) + known.offset, known.last + 1)
        return known.last

    def _remember(self, peer: bytes, sequence: int, stamp: int, now: float) -> None:
        outstanding = self._peers[peer].outstanding
        outstanding.pop(sequence, None)
        outstanding[sequence] = (stamp, now)
        while next(iter(outstanding.values()))[1] < now - _PATIENCE:
            outstanding.popitem(last=False)

    # --- in ---

    def incoming(self, source: bytes, data: bytes, now: float) -> Accepted | Refused:
        """Judge a Mobility Header from `source`. Raises WireError as `decode` and `locate` do."""
        message = decode(data, source, self._endpoint)
        header = data[: 8 * (data[1] + 1)]
        if not self._keys and not self._require:
            return Accepted(message)
        seal = locate(header)
        if seal is None:
            return Refused("unsigned") if self._require else Accepted(message)
        key = self._keys.accepted(source, seal.spi)
        if key is None:
            return Refused("spi")
        if not verify(header, seal, key, source, self._endpoint):
            # RFC 4285 section 5.3. It goes to whom the keys are shared with, and not often: it need
            # not have been that one who sent this.
            answered = (
                isinstance(message, BindingUpdate)
                and _stamp_of(message) is not None
                and self._failures.allows(now)
            )
            return Refused(
                "forged", _refusal(message, Status.MIPV6_AUTH_FAIL) if answered else None
            )
        rest = tuple(o for o in message.options if not isinstance(o, MessageAuthentication))
        message = replace(message, options=rest)
        if isinstance(message, BindingUpdate):
            return self._update(source, message, now)
        return self._acknowledgement(source, message, now)

    def _update(self, source: bytes, message: BindingUpdate, now: float) -> Accepted | Refused:
        peer = self._peer(source)
        stamp = _stamp_of(message)
        if stamp is None:
            return Refused("untimed", self._answer(peer, message, Status.MIPV6_MESG_ID_REQD, now))
        verdict = self._fresh(peer, message, stamp, now)
        if isinstance(verdict, Accepted) or verdict.reason != Freshness.STALE.value:
            # An exact repetition needs no answer: the message itself has got one, or will.
            return verdict
        suggested = peer.window.suggestion(stamp, self._clock(now) + peer.ahead)
        answer = self._answer(peer, message, Status.MIPV6_ID_MISMATCH, now, suggested)
        return verdict._replace(answer=answer)

    def _acknowledgement(
        self, source: bytes, message: BindingAcknowledgement, now: float
    ) -> Accepted | Refused:
        peer = self._peer(source)
        stamp = _stamp_of(message)
        if stamp is None:
            return Refused("untimed")
        sent, _ = peer.outstanding.get(message.sequence, (None, now))
        if sent is not None and stamp == fold(sent):
            return Accepted(message)
        if message.status == Status.MIPV6_ID_MISMATCH:
            # The low half is that of our timestamp, the high half tells the time at the peer.
            if sent is None or stamp % SECOND != sent % SECOND:
                return Refused("unmatched")
            del peer.outstanding[message.sequence]
            self._adjust(peer, stamp, now)
            return Accepted(message)
        if message.status in (Status.MIPV6_AUTH_FAIL, Status.MIPV6_MESG_ID_REQD):
            return Refused("unmatched")
        # A PBA to somebody else's PBU (RFC 8885 section 3.3) has a timestamp of its own.
        verdict = self._fresh(peer, message, stamp, now)
        return verdict if isinstance(verdict, Accepted) else Refused("unmatched")

    def _fresh(self, peer: _Peer, message: Message, stamp: int, now: float) -> Accepted | Refused:
        before = peer.window.highest
        freshness = peer.window.accept(stamp, self._clock(now) + peer.ahead)
        if freshness is not Freshness.FRESH:
            return Refused(freshness.value)
        highest = peer.window.highest
        return Accepted(message, highest if highest > before else None)

    def _adjust(self, peer: _Peer, stamp: int, now: float) -> None:
        clock = self._clock(now)
        told = unfold(stamp, clock + peer.offset)
        peer.offset = told - clock
        # Further back, too: what was sent before is refused there, or was accepted before `told`.
        peer.last = told

    def _answer(
        self,
        peer: _Peer,
        message: BindingUpdate,
        status: int,
        now: float,
        stamp: int | None = None,
    ) -> BindingAcknowledgement | None:
        if not peer.refusals.allows(now):
            return None
        return _refusal(message, status, stamp)

    def _peer(self, address: bytes) -> _Peer:
        """Made for whom we send to, and who has a key of ours: no stranger makes this grow."""
        known = self._peers.get(address)
        if known is None:
            known = self._peers[address] = _Peer(Window(self._started - 1, self._tolerance))
        return known

    def _clock(self, now: float) -> int:
        return self._epoch + int(now * SECOND)


def _stamp_of(message: Message) -> int | None:
    return next((o.value for o in message.options if isinstance(o, ReplayProtection)), None)


def _refusal(message: Message, status: int, stamp: int | None = None) -> BindingAcknowledgement:
    """The PBA to a PBU that is not looked into: its node's identifier and its timestamp, or `stamp`."""
    options: list[MobilityOption] = []
    for kind in (MobileNodeIdentifier, ReplayProtection):
        options += [option for option in message.options if isinstance(option, kind)][:1]
    if stamp is not None:
        options[-1] = ReplayProtection(stamp)
    return BindingAcknowledgement(status, message.sequence, 0, tuple(options))
