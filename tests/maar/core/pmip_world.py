"""MAARs of which some speak only PMIPv6, and the real CMD's core with its front end: on one wire, on one clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from dhcp_cmd.core.model import State
from dhcp_cmd.pmip.front import Asked, Front, Late
from dhcp_cmd.pmip.holding import Holding, Released
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    BindingUpdate,
    HandoffIndicator,
    HandoffIndicatorValue,
    ServingMaar,
    decode,
)
from dmm_wire.mobility.answers import acknowledge, first
from relay_maar.core.agent import Agent
from tests.maar.core.modes_world import CMD, EPOCH, Loses, ModesWorld
from tests.maar.core.noticing import Noticing, Question
from tests.maar.core.world import MAC, NODE, Packet, endpoint, settings

NAME = Identity(IdentitySubtype.EUI48, MAC)

_Answering: TypeAlias = Callable[[Sequence[bytes]], None]


class PmipWorld(Noticing, ModesWorld):
    """`count` MAARs, of which `fed` by DHCPv6, the others register nodes, and of these `relays` relay DHCPv6, too."""

    def __init__(
        self,
        mode: dmm.SignallingMode,
        count: int,
        loses: Loses | None = None,
        *,
        fed: Sequence[int] = (),
        relays: Sequence[int] = (),
        lifetime: int = 3600,
        skews: dict[int, float] | None = None,
        **changes: Any,
    ) -> None:
        self.fed = fed
        self.relays = relays
        self.lifetime = lifetime
        self.registered: list[tuple[bytes, BindingUpdate]] = []
        """All registrations that came to the CMD, each with who sent it."""
        self.skews = dict(skews or {})
        """By how many seconds a MAAR's clock is ahead; may be changed."""
        self.late: Holding[_Answering] = Holding()
        self.refuses_registrations: int | None = None
        """The status of all PBAs to those that register."""
        super().__init__(mode, count, loses, **changes)

    def _agent(self, number: int) -> Agent:
        if number in self.fed:
            return super()._agent(number)
        mine = settings(number, cmds=(CMD,), **self.own.get(number, {}))
        mine = replace(mine, registers=True, registration_lifetime=self.lifetime)
        if number not in self.relays:
            mine = replace(mine, servers=(), router=replace(mine.router, autonomous=True))
        epoch = self.epochs.get(number, float(EPOCH))
        return Agent(
            mine,
            jitter=lambda: 0.5,
            epoch=epoch,
            clock=lambda now: self._timestamp(now + self.skews.get(number, 0.0)),
        )

    @staticmethod
    def _timestamp(now: float) -> int:
        return round((1_800_000_000 + now) * 65536)

    # --- the CMD ---

    def start_cmd(self) -> None:
        super().start_cmd()
        self.late = Holding()
        self.front = Front(self.server, self.authenticated.outgoing, self.signaller.outcomes)
        self.signaller.registers = self._registers

    def _registers(self, asked: Sequence[Asked]) -> None:
        self.registered += [(source, update) for source, update in asked]
        if self.refuses_registrations is not None:
            for source, update in asked:
                refusal = acknowledge(update, self.refuses_registrations)
                self.send(source, self.authenticated.outgoing(source, refusal))
            return
        for source, reply in self.front.replies(asked, self.clock(), self.clock):
            if isinstance(reply, Late):
                until = self.now + reply.hold.patience / 1e6
                answer = partial(self._late_pba, source, reply)
                self._let_go(self.late.hold(reply.message, answer, reply.hold, until))
            else:
                self.send(source, reply)
        self._work()

    def _late_pba(self, source: bytes, late: Late, unheard: Sequence[bytes]) -> None:
        octets = late.answer(unheard)
        assert octets is not None
        self.send(source, octets)

    def _let_go(self, released: list[Released[_Answering]]) -> None:
        for answer, unheard in released:
            answer(unheard)

    def _heard(self, key: tuple[int, int]) -> bool:
        if not self.late.is_waited_for(*key):
            return super()._heard(key)
        self._let_go(self.late.acknowledged(*key))
        return True

    def _work(self) -> None:
        super()._work()
        self._let_go(self.late.due(self.now))

    def _cmd_deadlines(self) -> list[float]:
        late = self.late.deadline()
        own = [late] if late is not None and self.cmd_up else []
        return super()._cmd_deadlines() + own

    # --- the node ---

    def attach(self, number: int) -> None:
        """The node goes there and says what a host says whose carrier was away."""
        if number in self.fed:
            super().attach(number)
            return
        self.place = number
        self.show()
        if number in self.relays:
            self.say(MessageType.REBIND)

    def show(self) -> None:
        """A frame of the node is seen where it is."""
        assert self.place is not None
        self.frame("mld")

    def settled_at(self, number: int) -> PmipWorld:
        return walked(self, number, pause=60.0)

    # --- how it is ---

    def questions(self) -> list[Question]:
        found = []
        for source, update in self.registered:
            handoff = first(update, HandoffIndicator)
            if update.lifetime and handoff is not None:
                number = next(n for n in self.maars if endpoint(n) == source)
                found.append(Question(number, handoff.value == HandoffIndicatorValue.NOT_CHANGED))
        return found

    def handovers(self) -> list[tuple[int | None, int | None]]:
        return [(e.from_maar, e.to_maar) for e in self.store.history if e.type == "handover"]

    def live(self) -> dict[Prefix, int]:
        return {
            b.prefix: b.anchor for b in self.store.bindings.values() if b.state is not State.ENDED
        }

    def say(self, kind: int, *ias: tuple[int, bytes]) -> None:
        if self.place in self.fed or self.place in self.relays:
            super().say(kind, *ias)

    # --- what is said ---

    def told(self, packet: Packet) -> str:
        if packet.kind != "mobility":
            return super().told(packet)
        message = decode(packet.data, packet.source, packet.destination)
        if not isinstance(message, BindingUpdate) or first(message, ServingMaar) is not None:
            return super().told(packet)
        handoff = first(message, HandoffIndicator)
        assert handoff is not None
        what = {4: "attached", 5: "still here"}[handoff.value] if message.lifetime else "gone"
        number = next(n for n in self.maars if endpoint(n) == packet.source)
        return f"maar{number} > cmd    PBU: {what}"

    def advertised(self, number: int) -> bytes:
        """The last Router Advertisement to the node there."""
        return [a for a in self.maars[number].advertisements if a.destination == NODE][-1].data


def walked(world: PmipWorld, *numbers: int, pause: float = 10.0) -> PmipWorld:
    """The node goes from MAAR to MAAR."""
    for number in numbers:
        world.attach(number)
        world.go_on(pause)
    return world
