"""The PMIPv6 front end of the CMD: PBUs of MAARs that register nodes in, PBAs out (RFC 8885 section 3.1)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from dhcp_cmd.core.model import Decision, Hold, Micros
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.core.register import read_registration
from dhcp_cmd.core.relay_options import acknowledged
from dhcp_cmd.service import Clock, Cmd
from dmm_wire.dmm import AnchoredPrefix, PreviousMaar, SubOption
from dmm_wire.errors import WireError
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingUpdate,
    HomeNetworkPrefix,
    Status,
)
from dmm_wire.mobility.answers import ALL_ZERO, acknowledge
from dmm_wire.mobility.registration import shortest, told_options

Outgoing: TypeAlias = Callable[[bytes, BindingAcknowledgement], bytes]
"""The octets of a message to this peer, see `Authenticated.outgoing`. Raises WireError."""

MOST_NAMED = 24
"""Prefixes that fit a PBA whatever else is in it."""


class Asked(NamedTuple):
    """A PBU, and the endpoint that it came from."""

    source: bytes
    update: BindingUpdate


class Late:
    """A PBA that waits for P-MAARs to acknowledge (`dhcp_cmd.core.model.Hold`); `message` tells its PBU from others."""

    __slots__ = ("_asked", "_decision", "_front", "hold", "message")

    def __init__(self, front: Front, asked: Asked, decision: Decision, hold: Hold) -> None:
        # A PBU that is sent again is another one, about the same node.
        self.message = (asked.source, hold.node)
        self.hold = hold
        self._front = front
        self._asked = asked
        self._decision = decision

    def answer(self, unheard: Sequence[bytes]) -> bytes | None:
        """The octets, without what is anchored at these endpoints, which have not acknowledged."""
        relay = acknowledged(self._decision.relay, unheard)
        return self._front.encoded(self._asked, self._decision._replace(relay=relay))


class Front:
    """Answers, by `outgoing`. `outcomes` counts what became of PBUs."""

    def __init__(self, cmd: Cmd, outgoing: Outgoing, outcomes: Counter[str]) -> None:
        self.cmd = cmd
        self._outcomes = outcomes
        self._outgoing = outgoing

    def replies(
        self, updates: Sequence[Asked], arrived: Micros, clock: Clock
    ) -> list[tuple[bytes, bytes | Late]]:
        """The PBAs to a batch that came at `arrived`, each with where it goes. All are durable; where the database did
        not do it, there are none: MAARs will ask again.
        """
        try:
            answers = self._answer(updates, arrived, clock)
        except StoreError:
            self._outcomes["store-error"] += len(updates)
            return []
        both = zip(updates, answers, strict=True)
        return [(asked.source, answer) for asked, answer in both if answer is not None]

    def _answer(
        self, updates: Sequence[Asked], arrived: Micros, clock: Clock
    ) -> list[bytes | Late | None]:
        enterprise = self.cmd.settings.enterprise
        registrations = [
            read_registration(each.update, each.source, arrived, enterprise) for each in updates
        ]
        decisions = self.cmd.handle(registrations, clock)
        answers: list[bytes | Late | None] = []
        for asked, decision in zip(updates, decisions, strict=True):
            self._outcomes[decision.outcome] += 1
            if decision.hold is None:
                answers.append(self.encoded(asked, decision))
            else:
                answers.append(Late(self, asked, decision, decision.hold))
        return answers

    def encoded(self, asked: Asked, decision: Decision) -> bytes | None:
        """The octets of a PBA; None where there is none to be sent. What a Mobility Header cannot hold is left out:
        first the lifetimes, then as which routers anchors are shown, then the last prefixes."""
        enterprise = self.cmd.settings.enterprise
        few = decision._replace(relay=_few(decision.relay))
        for said, *beside in (
            (decision, True, True),
            (decision, False, True),
            (decision, False, False),
            (few, False, False),
        ):
            answer = acknowledgement(asked.update, said, enterprise, *beside)
            if answer is None:
                return None
            with contextlib.suppress(WireError):
                return self._outgoing(asked.source, answer)
        self._outcomes["pba-too-large"] += 1
        return None


def _few(relay: Sequence[SubOption]) -> tuple[SubOption, ...]:
    """The first prefixes of these sub-options, and all that are none."""
    prefixes = [each for each in relay if isinstance(each, AnchoredPrefix | PreviousMaar)]
    left_out = prefixes[MOST_NAMED:]
    return tuple(each for each in relay if each not in left_out)


def acknowledgement(
    update: BindingUpdate,
    decision: Decision,
    enterprise: int,
    lifetimes: bool = True,
    routers: bool = True,
) -> BindingAcknowledgement | None:
    """The PBA to a registration, None where it gets none (RFC 5213 section 5.3.6). `lifetimes`: each prefix's own.
    `routers`: as which ones anchors are shown."""
    registered = decision.registered
    if registered is None or not update.acknowledge:
        return None
    status, clock = registered
    if status != Status.ACCEPTED or not decision.relay:
        return acknowledge(update, status, 0, clock)
    told = told_options(decision.relay, enterprise, lifetimes=lifetimes, routers=routers)
    if not any(isinstance(each, HomeNetworkPrefix) for each in told):
        told.insert(0, ALL_ZERO)  # there has to be one; the MAAR anchors nothing for this node
    lifetime = shortest(decision.relay, update.lifetime)
    return acknowledge(update, status, lifetime, told=told)
