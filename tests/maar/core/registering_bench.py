"""One MAAR that registers nodes, on a bench: frames in, PBUs and probes out, PBAs by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingUpdate,
    HandoffIndicator,
    HomeNetworkPrefix,
    MobilityOption,
    Timestamp,
    encode,
)
from dmm_wire.mobility.answers import acknowledge, first
from dmm_wire.mobility.registration import told_options
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from tests.maar.core.world import ACCESS, MAC, NODE, endpoint, settings

CMD, OTHER = parse_address("2001:db8:ffff::53"), parse_address("2001:db8:ffff::54")
NAME = Identity(IdentitySubtype.EUI48, MAC)
DUID = Identity(IdentitySubtype.DUID, bytes.fromhex("00030001") + MAC)
LOCAL = Prefix.parse("2001:db8:1:101::/64")


class Sent(NamedTuple):
    """A PBU, and the CMD that it goes to."""

    cmd: bytes
    update: BindingUpdate


class Probe(NamedTuple):
    """A Neighbor Solicitation."""

    interface: str
    link_layer: bytes | None


class Bench:
    """A MAAR, its kernel, which refuses nothing, and a clock."""

    def __init__(
        self,
        lifetime: int = 1000,
        cmds: tuple[bytes, ...] = (CMD,),
        *,
        max_nodes: int = 65536,
        records: list[dict[str, Any]] | None = None,
        confirm: float = 86_400.0,
    ) -> None:
        self.now = 100.0
        self.offset = 0.0
        """Of its clock, in seconds."""
        mine = replace(settings(1), servers=(), cmds=cmds, registers=True)
        mine = replace(mine, registration_lifetime=lifetime)
        link = replace(mine.access[0], max_nodes=max_nodes)
        mine = replace(mine, access=(link, replace(link, interface="access1")))
        mine = replace(mine, attach=replace(mine.attach, confirm=confirm))
        self.agent = Agent(
            mine, jitter=lambda: 0.5, clock=lambda now: round((now + self.offset) * 65536)
        )
        self._out: list[Sent | Probe] = []
        self.records: dict[Identity, dict[str, Any]] = {}
        self.log: list[str] = []
        self._run(self.agent.start(frozenset(), records or [], self.now))

    def _run(self, actions: list[act.Action]) -> None:
        queue = list(actions)
        while queue:
            action = queue.pop(0)
            match action:
                case act.Apply(token):
                    queue[:0] = self.agent.applied(token, {}, self.now)
                case act.SendMobility(peer, BindingUpdate() as update):
                    self._out.append(Sent(peer, update))
                case act.SendNeighborSolicitation():
                    self._out.append(Probe(action.interface, action.link_layer))
                case act.SaveSession(identity, record) if isinstance(identity, Identity):
                    self.records[identity] = record
                case act.ForgetSession(identity):
                    self.records.pop(identity, None)
                case act.Log():
                    self.log.append(action.line)

    # --- the node ---

    def seen(
        self,
        link_layer: bytes = MAC,
        interface: str = ACCESS,
        *,
        trigger: str = "ns",
        source: bytes = NODE,
    ) -> None:
        self._run(self.agent.seen(interface, source, link_layer, trigger, self.now))

    def asks_by_dhcpv6(self) -> None:
        """The node's DHCPv6 client says something."""
        self._run(self.agent.client_datagram(ACCESS, NODE, MAC, b"\x01abc", self.now))

    def detached(self) -> None:
        self._run(self.agent.detached(ACCESS, MAC, self.now))

    # --- what comes out ---

    def out(self) -> list[Sent | Probe]:
        """What has come out since."""
        out, self._out = self._out, []
        return out

    def sent(self) -> BindingUpdate:
        """The one PBU that has come out, and nothing else."""
        (sent,) = self.out()
        assert isinstance(sent, Sent)
        return sent.update

    def go_on(self, most: float = 100_000.0) -> float:
        """Until something comes out; how long that took. Nothing for `most` seconds: an error."""
        before = self.now
        while not self._out:
            self.tick()
            assert self.now <= before + most, "nothing came"
        return self.now - before

    def tick(self) -> None:
        """Until something is due."""
        deadline = self.agent.deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self._run(self.agent.tick(self.now))

    def rests(self, seconds: float) -> None:
        """Nothing comes out for so long."""
        end = self.now + seconds
        while (deadline := self.agent.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self._run(self.agent.tick(self.now))
            assert self._out == []
        self.now = end

    # --- the CMD ---

    def answer(
        self,
        update: BindingUpdate,
        status: int = 0,
        *more: MobilityOption,
        lifetime: int = 1000,
        source: bytes = CMD,
        awaited: Sequence[Prefix] = (),
        name: Identity = NAME,
        generation: int = 7,
    ) -> None:
        """A PBA to this PBU."""
        said = (
            dmm.MobileNode(name),
            dmm.Visit(generation, UNSPECIFIED),
            dmm.Signalling(2),
            dmm.AnchoredPrefix(LOCAL, lifetime, lifetime),
            *(dmm.PreviousMaar(p, 0, lifetime, False, endpoint(2), awaited=True) for p in awaited),
        )
        told = told_options(said, dmm.DEFAULT_ENTERPRISE) if not status and lifetime else None
        pba = acknowledge(update, status, lifetime, told=told)
        self.hear(replace(pba, options=(*pba.options, *more)), source)

    def hear(self, message: BindingAcknowledgement | BindingUpdate, source: bytes = CMD) -> None:
        """A message comes as it is."""
        data = encode(message, source, endpoint(1))
        self._run(self.agent.mobility_datagram(source, data, self.now))

    def registered(self, *, awaited: Sequence[Prefix] = ()) -> Bench:
        self.seen()
        self.answer(self.sent(), awaited=awaited)
        assert self.serves()
        return self

    # --- how it is ---

    @property
    def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.agent.status(self.now)["sessions"]
        return found

    def serves(self) -> bool:
        """Whether somebody is."""
        return any(
            session["here"] and any(e["role"] in ("local", "served") for e in session["prefixes"])
            for session in self.sessions
        )

    def count(self, reason: str) -> int:
        counters: dict[str, int] = self.agent.status(self.now)["counters"]
        return counters.get(reason, 0)


def handoff(update: BindingUpdate) -> int:
    option = first(update, HandoffIndicator)
    assert option is not None
    return option.value


def timestamp(update: BindingUpdate) -> int:
    option = first(update, Timestamp)
    assert option is not None
    return option.value


def named(update: BindingUpdate) -> list[Prefix]:
    return [o.prefix for o in update.options if isinstance(o, HomeNetworkPrefix)]
