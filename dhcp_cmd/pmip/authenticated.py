"""The mobility guard of the CMD (RFC 4285): all octets that it sends and hears by PMIPv6 go through here. What is
refused is counted, answered and told; what is accepted is marked in the database before anybody acts on it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from dhcp_cmd.core.model import MICROS, Micros
from dhcp_cmd.core.ports import StoreError
from dmm_wire.address import is_routable
from dmm_wire.errors import WireError
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingError,
    BindingErrorStatus,
    Guard,
    Refused,
)
from dmm_wire.mobility.guard import Message
from dmm_wire.mobility.refusals import Refusals, without_key
from dmm_wire.mobility.replay import from_microseconds, microseconds
from dmm_wire.mobility.security import Security

RESERVE: Final = MICROS
"""By how much a mark is written ahead of what was accepted, so that one write serves for all that a peer says
meanwhile. It may cost who speaks within that time after a restart a round trip: a refusal that tells it the time."""

ERROR_PAUSE: Final = 1.0
"""Seconds between two Binding Errors (RFC 6275 section 9.3.3: rate limited)."""

_log = logging.getLogger(__name__)


class Marks(Protocol):
    """See `dhcp_cmd.store.marks.SqlMarks`. All may raise StoreError."""

    def read(self) -> Mapping[bytes, Micros]:
        """All there are, by their peers' addresses."""
        ...

    def write(self, marks: Mapping[bytes, Micros]) -> None:
        """Make these durable."""
        ...


class Heard(NamedTuple):
    """A message that may be believed, and the endpoint that it came from."""

    source: bytes
    message: Message


class Refusal(NamedTuple):
    """What to answer to one that may not."""

    peer: bytes
    answer: BindingAcknowledgement | BindingError


class Authenticated:
    """The guard of a CMD at `endpoint`. `clock` is in microseconds since the epoch, `monotonic` in seconds; `outcomes`
    counts what became of messages. Raises StoreError where the marks cannot be read."""

    def __init__(
        self,
        endpoint: bytes,
        security: Security,
        marks: Marks,
        outcomes: Counter[str],
        *,
        clock: Callable[[], Micros],
        monotonic: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._marks = marks
        self._outcomes = outcomes
        self._time = monotonic
        self._refusals = Refusals(outcomes, "auth-")
        self._error_sent = float("-inf")
        now = monotonic()
        self._guard = Guard(
            endpoint,
            security.keys,
            require=security.require,
            tolerance=security.tolerance,
            epoch=clock() / MICROS - now,
        )
        self._guard.start(now)
        self._durable = dict(marks.read())
        self._owed: dict[bytes, Micros] = {}
        """The latest that was accepted of each peer, where that is not durable."""
        for peer, mark in self._durable.items():
            self._guard.restore(peer, from_microseconds(mark), now)

    def change(self, security: Security) -> None:
        """Other keys and rules from now on."""
        self._guard.change(security.keys, require=security.require, tolerance=security.tolerance)

    def move(self, marks: Marks) -> None:
        """The marks are in another database from now on. Raises StoreError: they are where they were."""
        marks.write(self._durable)
        self._marks = marks

    def tell_keyless(self, peers: Iterable[bytes]) -> None:
        """Tell the operator which of the domain's MAARs are shut out."""
        if (line := without_key(self._guard, peers)) is not None:
            _log.warning("%s", line)

    def outgoing(self, peer: bytes, message: Message | BindingError) -> bytes:
        """The Mobility Header to send to `peer`: signed if there is a key for it. Raises WireError as `encode` does."""
        return self._guard.outgoing(peer, message, self._time())

    def incoming(
        self, datagrams: Iterable[tuple[bytes, bytes]]
    ) -> tuple[list[Heard], list[Refusal]]:
        """What of Mobility Headers, each with its source, may be believed, and what to answer to the others. Where the
        database does not do it, as if those had not come that a mark is owed for."""
        now = self._time()
        heard: list[Heard] = []
        refused: list[Refusal] = []
        for source, data in datagrams:
            if not is_routable(source):
                self._outcomes["mobility-source"] += 1
                continue
            try:
                verdict = self._guard.incoming(source, data, now)
            except WireError as error:
                self._outcomes[f"mobility-{error.reason}"] += 1
                if error.reason == "type" and now >= self._error_sent + ERROR_PAUSE:
                    # RFC 6275 section 9.2: an MH Type that is not known is the one fault that is answered.
                    self._error_sent = now
                    unrecognized = BindingError(BindingErrorStatus.UNRECOGNIZED_MH_TYPE)
                    refused.append(Refusal(source, unrecognized))
                continue
            if isinstance(verdict, Refused):
                refused += self._refused(source, verdict, now)
                continue
            if verdict.mark is not None:
                self._owe(source, microseconds(verdict.mark))
            heard.append(Heard(source, verdict.message))
        if self._owed and not self._write():
            unmarked = [each for each in heard if each.source in self._owed]
            self._outcomes["auth-store-error"] += len(unmarked)
            heard = [each for each in heard if each.source not in self._owed]
        return heard, refused

    def _refused(self, source: bytes, refused: Refused, now: float) -> list[Refusal]:
        line = self._refusals.count(source, refused, now)
        if line is not None:
            _log.warning("%s", line)
        return [] if refused.answer is None else [Refusal(source, refused.answer)]

    def _owe(self, peer: bytes, mark: Micros) -> None:
        if mark > self._durable.get(peer, mark - 1):
            self._owed[peer] = mark

    def _write(self) -> bool:
        ahead = {peer: mark + RESERVE for peer, mark in self._owed.items()}
        try:
            self._marks.write(ahead)
        except StoreError:
            return False
        self._durable.update(ahead)
        self._owed.clear()
        return True
