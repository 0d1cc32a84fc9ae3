"""The sender of Proxy Binding Updates: signals out of the database, messages to the wire, acknowledgements back."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from dhcp_cmd.core.model import Domain, MaarId, Micros
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.core.signals import TOO_FAR
from dhcp_cmd.pmip.authenticated import Authenticated
from dhcp_cmd.pmip.compose import compose
from dhcp_cmd.pmip.front import Asked
from dhcp_cmd.pmip.outbox import Key, Outbox, Outcome, Sent
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.store.outbox import Owed
from dmm_wire.address import Prefix, format_address
from dmm_wire.dmm import DEFAULT_ENTERPRISE, SignallingMode
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity
from dmm_wire.mobility import (
    AccessTechnology,
    BindingAcknowledgement,
    BindingError,
    BindingUpdate,
    HandoffIndicator,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import first
from dmm_wire.mobility.guard import Message
from dmm_wire.mobility.routers import router_options, routers_in
from dmm_wire.mobility.security import Security
from dmm_wire.mobility.serving import prefix_options, refused_prefixes
from dmm_wire.router_identity import RouterIdentity
from dmm_wire.timers import Timers

LOOK_INTERVAL: Final = 1.0
"""Seconds between looks for signals that nobody else sends."""
KEEP_INTERVAL: Final = 3.0
"""Seconds between two times that this sender says what it still sends."""
PATIENCE: Final = 1.0
"""Seconds until what the database did not do is tried again."""

MOST_ASKED: Final = 128
"""PBUs answered from one transaction."""

_REFUSED: Final = Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
_LOWER: Final = Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED
_LOOK, _KEEP, _FINISH = "look", "keep", "finish"

_log = logging.getLogger(__name__)


class Wire(Protocol):
    """Mobility Headers to and from MAARs."""

    def send(self, destination: bytes, data: bytes) -> None:
        """Send one. Raises OSError."""
        ...

    def receive(self) -> Iterable[tuple[bytes, bytes]]:
        """What has arrived, each with where it came from."""
        ...


class Signals(Protocol):
    """See `dhcp_cmd.store.outbox.SqlOutbox`. All may raise StoreError."""

    def claim(self, now: Micros, *, left_before: Micros | None = None) -> list[Key]:
        """Signals that are this sender's from now on."""
        ...

    def keep(self, now: Micros) -> None:
        """Say that this sender still sends what is its own."""
        ...

    def look(self, keys: Sequence[Key]) -> tuple[Domain, dict[Key, Owed]]:
        """What is owed now of `keys`."""
        ...

    def finish(self, done: Iterable[tuple[Key, int]]) -> None:
        """These signals are over, each with its serial."""
        ...


class Refused(Protocol):
    """See `dhcp_cmd.service.Cmd.anchor_refused`."""

    def __call__(
        self, identity: Identity, anchor: MaarId, prefixes: Iterable[Prefix], now: Micros
    ) -> None:
        """The anchor does not serve these prefixes."""
        ...


class KnowsLater(Protocol):
    """See `dhcp_cmd.service.Cmd.anchor_knows_later`."""

    def __call__(self, identity: Identity, anchor: MaarId, known: int, now: Micros) -> str | None:
        """The anchor knows of a later visit."""
        ...


class Signaller:
    """Sends what is owed, until it is acknowledged.

    `enterprise` is whose number MAARs say in their refusals which prefixes these are about.
    All that is sent and heard goes through `authenticated`, whose `outcomes` are the same.
    `heard` is told of each acknowledgement of where a node is, and says whether an answer to the S-MAAR waited for it;
    if not, in mode RELAY, the S-MAAR is told by a PBA. `refused` is told what an anchor does not serve, `ended` that
    something ended by it; `knows_later` that an anchor knows of a later visit.
    `registers` takes the PBUs that have come. `clock` is in microseconds since the epoch, `monotonic` in seconds.
    `outcomes` counts what became of messages; whoever reads it may clear it.
    """

    def __init__(
        self,
        signals: Signals,
        wire: Wire,
        settings: PmipSettings,
        mode: SignallingMode,
        authenticated: Authenticated,
        outcomes: Counter[str],
        *,
        refused: Refused,
        knows_later: KnowsLater,
        clock: Callable[[], Micros],
        monotonic: Callable[[], float],
        enterprise: int = DEFAULT_ENTERPRISE,
        sequence: int = 0,
        heard: Callable[[Key], bool] = lambda key: False,
        ended: Callable[[Key], None] = lambda key: None,
        registers: Callable[[Sequence[Asked]], None] = lambda asked: None,
    ) -> None:
        self.signals = signals
        self.refused = refused
        self.knows_later = knows_later
        self.enterprise = enterprise
        self.heard = heard
        self.ended = ended
        self.registers = registers
        self.outcomes = outcomes
        self.failure: StoreError | None = None
        """Why the database did not do it the last time; None: it did."""
        self._wire = wire
        self._authenticated = authenticated
        self._domain: int | None = None
        """The domain's version when it was last seen."""
        self._routers: dict[bytes, RouterIdentity] = {}
        """As which routers MAARs are registered, by endpoint."""
        self._mode = mode
        self._outbox = Outbox(settings.pacing, sequence)
        self._clock = clock
        self._time = monotonic
        self._timers: Timers[str] = Timers()
        self._done: dict[Key, int] = {}
        """What is over and not yet finished in the database, with its serial."""
        self._left_before: Micros | None = clock()
        """What an earlier process of this name has left is still to be taken up; None: it is."""
        self._logged: set[tuple[bytes, int]] = set()
        self._differing: set[bytes] = set()
        self._timers.set(_LOOK, monotonic())
        self._see_domain()

    def change(self, security: Security) -> None:
        """Other keys and rules from now on."""
        self._authenticated.change(security)
        self._domain = None
        self._see_domain()

    # --- time ---

    def deadline(self) -> float | None:
        """When :meth:`work` has something to do."""
        parts = (self._timers.deadline(), self._outbox.deadline(self._time()))
        return min((each for each in parts if each is not None), default=None)

    def put(self, keys: Iterable[Key]) -> None:
        """Signals of this sender were committed: they are due at once, or when MAX_UPDATE_RATE lets them go."""
        now = self._time()
        for key in keys:
            self._put(key, now)

    def _put(self, key: Key, now: float, *, news: bool = True) -> None:
        if self._outbox.put(key, now, news=news):
            self.outcomes["pbu-held-back"] += 1

    def look_now(self) -> None:
        """Somebody else may have committed signals."""
        self._timers.set(_LOOK, self._time())

    def work(self) -> None:
        """Do what is due."""
        now = self._time()
        for name in self._timers.due(now):
            with self._patience(name):
                if name == _LOOK:
                    self._look(now)
                elif name == _KEEP:
                    self._keep(now)
                else:
                    self._finish()
        self._send()

    def _look(self, now: float) -> None:
        claimed = self.signals.claim(self._clock(), left_before=self._left_before)
        for key in claimed:
            self._put(key, now, news=False)
        if not claimed:
            self._left_before = None
        # Where there is more than is taken at a time, the rest comes at once.
        self._timers.set(_LOOK, now if claimed else now + LOOK_INTERVAL)

    def _keep(self, now: float) -> None:
        if len(self._outbox):
            self.signals.keep(self._clock())
            self._timers.set(_KEEP, now + KEEP_INTERVAL)

    def _finish(self) -> None:
        if self._done:
            self.signals.finish(self._done.items())
            self._done.clear()

    @contextmanager
    def _patience(self, name: str) -> Iterator[None]:
        """What the database did not do is tried again."""
        try:
            yield
        except StoreError as error:
            self._fails(error)
            self._timers.set(name, self._time() + PATIENCE)
        else:
            self.failure = None

    def _fails(self, error: StoreError) -> None:
        self.outcomes["signal-store-error"] += 1
        self.failure = error

    # --- out ---

    def _send(self) -> None:
        while keys := self._outbox.due(self._time()):
            try:
                domain, owed = self.signals.look(keys)
            except StoreError as error:
                self._fails(error)
                for key in keys:
                    self._outbox.put_off(key, self._time() + PATIENCE)
                return
            self._see(domain)
            for key in keys:
                if key in owed:
                    self._send_one(key, owed[key], domain)
                else:
                    self._outbox.drop(key)  # it is another sender's by now, or over
        if len(self._outbox) and self._timers.when(_KEEP) is None:
            self._timers.set(_KEEP, self._time() + KEEP_INTERVAL)

    def _see_domain(self) -> None:
        with suppress(StoreError):  # it will be seen with the next signal
            self._see(self.signals.look([])[0])

    def _see(self, domain: Domain) -> None:
        if domain.version != self._domain:
            self._domain = domain.version
            self._routers = {maar.endpoint: maar.router for maar in domain.maars.values()}
            self._authenticated.tell_keyless(maar.endpoint for maar in domain.maars.values())

    def _send_one(self, key: Key, owed: Owed, domain: Domain) -> None:
        letter = compose(
            owed.maar, owed.node, owed.bindings, domain, self._clock(), moved=owed.visit
        )
        if letter is None:
            self.outcomes["pbu-needless"] += 1
            self._outbox.drop(key)
            self._over(key, owed.serial)
            return
        update = self._outbox.send(key, letter.peer, owed.serial, letter.notice, self._time())
        self._emit(letter.peer, update, "pbu-sent")

    def _emit(self, peer: bytes, message: Message | BindingError, outcome: str) -> None:
        try:
            self.emit(peer, self._authenticated.outgoing(peer, message), outcome)
        except WireError as error:
            self.outcomes[f"{outcome}-{error.reason}"] += 1

    def emit(self, peer: bytes, octets: bytes, outcome: str) -> None:
        """Send a Mobility Header, and count that as `outcome`."""
        try:
            self._wire.send(peer, octets)
        except OSError:
            self.outcomes[f"{outcome}-error"] += 1  # as if it were lost: it will be sent again
        else:
            self.outcomes[outcome] += 1

    def _over(self, key: Key, serial: int) -> None:
        self._done[key] = serial
        if self._timers.when(_FINISH) is None:
            self._timers.set(_FINISH, self._time())

    # --- in ---

    def receive(self) -> None:
        """Take in what has arrived."""
        asked: list[Asked] = []
        heard, refusals = self._authenticated.incoming(self._wire.receive())
        for peer, refusal in refusals:
            is_error = isinstance(refusal, BindingError)
            self._emit(peer, refusal, "binding-error-sent" if is_error else "pba-sent")
        for source, message in heard:
            if isinstance(message, BindingUpdate):
                asked.append(Asked(source, message))
                continue
            outcome = self._outbox.answered(source, message, self._time())
            if outcome is None:
                is_foreign = message.proxy and message.accepted and not message.dmm
                self.outcomes["pba-no-dmm" if is_foreign else "pba-unmatched"] += 1
            else:
                self._answered(outcome, message)
        for batch in range(0, len(asked), MOST_ASKED):
            self.registers(asked[batch : batch + MOST_ASKED])
        self.work()

    def _answered(self, outcome: Outcome, answer: BindingAcknowledgement) -> None:
        sent = outcome.sent
        if outcome.accepted:
            self.outcomes["pba-accepted"] += 1
            router = self._router_of(sent.peer, answer)
            if sent.notice.moved and outcome.is_latest:
                is_waited_for = self.heard(sent.key)
                if self._mode is SignallingMode.RELAY and not is_waited_for:
                    self._tell(sent, Status.ACCEPTED, outcome.lifetime, router)
        else:
            self.outcomes[f"pba-refused-{outcome.status}"] += 1
            if outcome.status != Status.MIPV6_ID_MISMATCH:  # it was told the time, no more
                self._log_refusal(sent, outcome.status)
            # What it says of an older set was perhaps mended by the one on its way.
            is_end = outcome.status == _REFUSED and outcome.is_latest
            if is_end and not self._end(sent, answer):
                return  # nothing is finished: it will be sent, and refused, again
            is_behind = outcome.status == _LOWER and outcome.is_latest
            if is_behind and not self._catch_up(sent, answer):
                return
        if outcome.is_over:
            self._over(sent.key, sent.serial)

    def _end(self, sent: Sent, answer: BindingAcknowledgement) -> bool:
        """The anchor does not know some of these prefixes: they end, and the S-MAAR hears of it."""
        prefixes = refused_prefixes(answer, sent.notice.named, self.enterprise)
        try:
            self.refused(sent.notice.identity, sent.key[1], prefixes, self._clock())
        except StoreError as error:
            self._fails(error)
            self._outbox.put(sent.key, self._time() + PATIENCE)
            return False
        self.ended(sent.key)
        self._tell(sent, _REFUSED, 0)
        return True

    def _catch_up(self, sent: Sent, answer: BindingAcknowledgement) -> bool:
        """The anchor knows of a later visit, the generation of which it says. It is for the CMD to say where a node is:
        where that visit is none of ours, the node's gets a later generation, and the anchor hears of it again."""
        known = first(answer, Timestamp)
        if known is None or known.value <= sent.notice.generation:
            return True
        try:
            became = self.knows_later(sent.notice.identity, sent.key[1], known.value, self._clock())
        except StoreError as error:
            self._fails(error)
            self._outbox.put(sent.key, self._time() + PATIENCE)
            return False
        if became is not None:
            self.outcomes[became] += 1
        if became == TOO_FAR:
            at, node = format_address(sent.peer), sent.notice.identity
            _log.error("maar %s knows a visit of %s that is far ahead of our clock", at, node)
        return True

    def _router_of(self, anchor: bytes, answer: BindingAcknowledgement) -> RouterIdentity | None:
        """As which router an anchor is to be shown that says that it is one of its own (RFC 8885 sections 4.7 and 4.8);
        what S-MAARs are told is what is registered."""
        said = routers_in(answer.options, anchor).get(anchor)
        registered = self._routers.get(anchor)
        if said is None or registered is None:
            return None
        if said != tuple(registered):
            self.outcomes["pba-router-differs"] += 1
            if anchor not in self._differing:
                self._differing.add(anchor)
                _log.warning(
                    "maar %s is another router than is registered here: see dhcp-cmd maar router",
                    format_address(anchor),
                )
        return registered

    def _tell(
        self, sent: Sent, status: Status, lifetime: int, router: RouterIdentity | None = None
    ) -> None:
        """Tell the S-MAAR what a P-MAAR said, by a PBA with its prefixes in Previous MAAR options (RFC 8885 section
        3.2: those that come late are sent on as they come). `router`: as which it is shown."""
        notice = sent.notice
        if not notice.named:
            return
        options: list[MobilityOption] = [
            MobileNodeIdentifier(notice.identity),
            *prefix_options(notice.named),
            HandoffIndicator(0),
            AccessTechnology(notice.access_technology),
            Timestamp(notice.generation),
            *(PreviousMaarOption(sent.peer, prefix) for prefix, _ in notice.named),
            *router_options(router),
        ]
        answer = BindingAcknowledgement(status, 0, lifetime, tuple(options))
        self._emit(notice.serving, answer, "pba-sent")

    def _log_refusal(self, sent: Sent, status: int) -> None:
        """Told once for each MAAR and status; the counters have the rest."""
        if (sent.peer, status) not in self._logged and len(self._logged) < 10_000:
            self._logged.add((sent.peer, status))
            at = format_address(sent.peer)
            _log.warning(
                "maar %s refused a PBU about %s with status %d", at, sent.notice.identity, status
            )
