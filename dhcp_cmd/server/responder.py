"""A batch of datagrams in, their answers out: parsed, decided in one transaction, encoded. No sockets, no clock."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from dhcp_cmd.core.errors import Rejected
from dhcp_cmd.core.model import BindingRequest, Decision, Hold
from dhcp_cmd.core.relay_options import acknowledged
from dhcp_cmd.core.request import request_of
from dhcp_cmd.server.filters import Facts, StaticOptions, hold
from dhcp_cmd.server.plan import ListenerPlan, Plan
from dhcp_cmd.server.replies import encode_client, encode_relayed
from dhcp_cmd.service import Clock, Cmd
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.dhcpv6.codes import OptionCode
from dmm_wire.dhcpv6.message import Unwrapped, encode_options, first, unwrap
from dmm_wire.errors import WireError

# Looking a member up in its class costs as much as a call.
_SERVERID: Final = OptionCode.SERVERID

_ORO: Final = int(OptionCode.ORO)
_ELAPSED_TIME: Final = int(OptionCode.ELAPSED_TIME)

_LINK_LOCAL: Final = Prefix.parse("fe80::/10")
_LOOPBACK: Final = bytes(15) + b"\x01"
_NO_CONDITIONS: Final[tuple[bool, ...]] = ()

_log = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """A datagram as it came: its octets, its UDP source address (16 octets), and where it was heard."""

    data: bytes
    source: bytes
    listener: ListenerPlan


class _Message(NamedTuple):
    """A datagram that is to be decided: the first arrival with these octets, read."""

    place: int
    unwrapped: Unwrapped
    request: BindingRequest
    holding: tuple[bool, ...]


class Later:
    """An answer that waits for acknowledgements (`dhcp_cmd.core.model.Hold`); `message` tells it from others."""

    __slots__ = ("_responder", "_waiting", "hold", "message")

    def __init__(
        self, responder: Responder, waiting: _Message, decision: Decision, hold: Hold
    ) -> None:
        request = waiting.request
        self.message = (
            request.source,
            request.relays,
            request.type,
            request.transaction_id,
            request.client_id,
        )
        self.hold = hold
        self._responder = responder
        self._waiting = (waiting, decision)

    def answer(self, unheard: Sequence[bytes]) -> bytes | None:
        """The octets, without what is anchored at these endpoints, which have not acknowledged."""
        message, decision = self._waiting
        relay = acknowledged(decision.relay, unheard)
        return self._responder.encoded(message, decision._replace(relay=relay))


class Responder:
    """Answers for a CMD by a plan's rules.

    `outcomes` counts what became of datagrams; whoever reads it may clear it.
    """

    def __init__(self, cmd: Cmd, plan: Plan) -> None:
        self.cmd = cmd
        self.rules = plan.rules
        self.settings = plan.settings
        self.outcomes: Counter[str] = Counter()
        self._options = StaticOptions(plan.rules.options)
        self._server_id = encode_options(
            ((int(_SERVERID), plan.settings.server_duid),),
        )
        self._logged: set[str] = set()

    def answer(self, arrivals: Sequence[Arrival], clock: Clock) -> list[bytes | Later | None]:
        """The answers to a batch, in its order; None where nothing is to be sent. All of them are durable.

        A datagram that cannot be read or answered costs only itself. Equal datagrams of one sender at one listener
        are decided once, and all answered. Raises StoreError when the database did not do it: then nothing may be
        sent. `clock` is for `Cmd.handle`.
        """
        answers: list[bytes | Later | None] = [None] * len(arrivals)
        seen: dict[Arrival, int] = {}
        repeated: list[tuple[int, int]] = []
        messages: list[_Message] = []
        for place, arrival in enumerate(arrivals):
            before = seen.setdefault(arrival, place)
            if before != place:
                repeated.append((place, before))
                continue
            message = self._read(place, arrival)
            if message is not None:
                messages.append(message)
        decisions = self.cmd.handle([message.request for message in messages], clock)
        for message, decision in zip(messages, decisions, strict=True):
            self.outcomes[decision.outcome] += 1
            if decision.hold is None:
                answers[message.place] = self.encoded(message, decision)
            else:
                answers[message.place] = Later(self, message, decision, decision.hold)
        for place, before in repeated:
            answer = answers[before]
            answers[place] = None if isinstance(answer, Later) else answer
        if repeated:
            self.outcomes["duplicate"] += len(repeated)
        return answers

    def _read(self, place: int, arrival: Arrival) -> _Message | None:
        """The request of a datagram; None, and counted, where it is not to be decided."""
        try:
            unwrapped = unwrap(arrival.data)
            listener = arrival.listener
            request = request_of(
                unwrapped, arrival.source, self.settings.enterprise, listener.link_address
            )
            holding = self._holding(unwrapped, listener)
            refusal = self._refusal(request, listener, holding)
        except (WireError, Rejected) as error:
            refusal = error.reason
        except Exception as error:
            self._fault(error, "read")
            return None
        if refusal is not None:
            self.outcomes[refusal] += 1
            return None
        return _Message(place, unwrapped, request, holding)

    def _holding(self, unwrapped: Unwrapped, listener: ListenerPlan) -> tuple[bool, ...]:
        """For each of the operator's conditions, whether it holds."""
        conditions = self.rules.conditions
        if not conditions:
            return _NO_CONDITIONS
        elapsed = None
        for code, body in unwrapped.client.options:
            if code == _ELAPSED_TIME and len(body) == 2:
                elapsed = int.from_bytes(body, "big")
                break
        facts = Facts(_link_address(unwrapped, listener), listener.marks, elapsed)
        return tuple(condition.holds(facts) for condition in conditions)

    def _refusal(
        self, request: BindingRequest, listener: ListenerPlan, holding: tuple[bool, ...]
    ) -> str | None:
        """Why a message gets no decision, by the operator's rules and RFC 9915 section 16: no unicast from clients."""
        for ignore in self.rules.ignores:
            if (ignore.types is None or request.type in ignore.types) and hold(
                ignore.conditions, holding
            ):
                return "ignored"
        if not (request.relays or listener.interface) and not any(
            hold(conditions, holding) for conditions in self.rules.unicast
        ):
            return "unicast"
        return None

    def encoded(self, message: _Message, decision: Decision) -> bytes | None:
        """The octets of an answer; None where there is none to be sent."""
        if decision.reply is None:
            return None
        try:
            return self._encode(message, decision)
        except Exception as error:
            self._fault(error, "answered")
            return None

    def _encode(self, message: _Message, decision: Decision) -> bytes:
        assert decision.reply is not None
        _, (relays, client, _), request, holding = message
        reply = decision.reply
        static = self._options.encoded(
            request.type, reply.type, _option_request(client.options), holding
        )
        encoded = encode_client(
            reply.type,
            request.transaction_id,
            request.client_id,
            self._server_id,
            reply.options,
            static,
        )
        if not relays:
            return encoded
        echoes = self.rules.echoes
        return encode_relayed(
            relays,
            encoded,
            decision.level,
            dmm.to_option(self.settings.enterprise, decision.relay) if decision.relay else None,
            [echo.code for echo in echoes if hold(echo.conditions, holding)] if echoes else (),
        )

    def _fault(self, error: Exception, what: str) -> None:
        """A fault of ours with one message: counted each time, told once for each kind."""
        self.outcomes["internal-error"] += 1
        kind = f"{what} {type(error).__name__}"
        if kind not in self._logged:
            self._logged.add(kind)
            _log.error("a datagram could not be %s: %r", what, error, exc_info=error)


def _option_request(options: Sequence[tuple[int, bytes]]) -> bytes | None:
    """The client's Option Request option, the first that is one."""
    body = first(tuple(options), _ORO)
    if body is None or not len(body) % 2:
        return body
    return next((b for code, b in options if code == _ORO and not len(b) % 2), None)


def _link_address(unwrapped: Unwrapped, listener: ListenerPlan) -> bytes:
    """The link of the client: the first relay level from it outwards that names one (an LDRA, RFC 6221, does not), else
    the listener's; `::` where that is none either."""
    named = (relay.link_address for relay in reversed(unwrapped.relays))
    for address in (*named, listener.link_address):
        if address not in (UNSPECIFIED, _LOOPBACK) and not _LINK_LOCAL.contains(address):
            return address
    return UNSPECIFIED
