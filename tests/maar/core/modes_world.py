"""MAARs, any number of them, and the real CMD's core in a mode in which it signals: all on one wire, on one clock, with
a record of what was said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dhcp_cmd.core.model import (
    MICROS,
    Decision,
    Domain,
    Kind,
    Link,
    MaarState,
    Pool,
    RouterChoice,
    Settings,
)
from dhcp_cmd.core.model import Maar as Row
from dhcp_cmd.core.relay_options import acknowledged
from dhcp_cmd.core.request import read_request
from dhcp_cmd.pmip.authenticated import Authenticated
from dhcp_cmd.pmip.holding import Holding, Released
from dhcp_cmd.pmip.outbox import Key
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.pmip.signaller import Signaller
from dhcp_cmd.service import Cmd
from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage, Unwrapped, first, unwrap
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix
from dmm_wire.mobility import (
    BindingUpdate,
    DelegatedPrefix,
    HomeNetworkPrefix,
    MobilityHeaderType,
    PreviousMaarOption,
    ServingMaar,
    decode,
    encode,
)
from dmm_wire.mobility.answers import acknowledge
from dmm_wire.mobility.security import Security
from dmm_wire.router_identity import RouterIdentity, of_anchor
from relay_maar.core.agent import Agent
from tests.cmd.memory_store import MemoryMarks, MemoryOutbox, MemoryStore
from tests.maar.core.world import (
    ACCESS,
    DUID,
    MAC,
    NODE,
    SERVER,
    FakeCmd,
    Maar,
    Packet,
    World,
    endpoint,
    pools,
    settings,
)

EPOCH = 1_800_000_000
CMD = parse_address("2001:db8:ffff::135")
SERVER_DUID = bytes.fromhex("00020000000a7365727665")
IAS = (IaNa(1).encode(), IaPd(2).encode())

Loses = Callable[[str, int], bool]
"""Whether a message is lost: what it is, and how many like it were sent before."""


class _Reply(NamedTuple):
    number: int
    unwrapped: Unwrapped
    decision: Decision


def domain(count: int, routers: Mapping[int, RouterIdentity] | None = None) -> Domain:
    chosen = routers or {}
    rows = [
        Row(
            n,
            f"maar{n}",
            settings(n).relay_id,
            endpoint(n),
            endpoint(n),
            MaarState.ACTIVE,
            *chosen.get(n, ()),
        )
        for n in range(1, count + 1)
    ]
    return Domain(
        version=1,
        hash_key=bytes(32),
        maars={row.id: row for row in rows},
        links=tuple(Link(r.id, Prefix.of(settings(r.id).access[0].link_address, 64)) for r in rows),
        pools={
            r.id: (
                Pool(r.id * 10, r.id, Kind.LINK, pools(r.id)[0], 64, 1800, 3600),
                Pool(r.id * 10 + 1, r.id, Kind.DELEGATED, pools(r.id)[1], 60, 1800, 3600),
            )
            for r in rows
        },
        by_relay_id={row.relay_id: row for row in rows},
    )


class ModesWorld(World):
    """`count` MAARs; `own` and `epochs` are as of World, `security` is the CMD's. `routers`: each is one of its own to
    hosts, and these were chosen at the CMD. What is lost is recorded, too; `reorders` turns the order round of what is
    on the wire together.

    Messages take no time; what is recorded has the seconds since `mark`.
    """

    def __init__(
        self,
        mode: dmm.SignallingMode,
        count: int,
        loses: Loses | None = None,
        *,
        reorders: bool = False,
        own: Mapping[int, dict[str, Any]] | None = None,
        epochs: Mapping[int, float] | None = None,
        security: Security | None = None,
        flap_interval: int = 2,
        routers: Mapping[int, RouterIdentity] | None = None,
    ) -> None:
        self.own = dict(own or {})
        if routers is not None:
            for number in range(1, count + 1):
                identity = routers.get(number) or of_anchor(endpoint(number))
                self.own[number] = {"identity": identity, **self.own.get(number, {})}
        choice = RouterChoice.FIXED if routers is None else RouterChoice.DLIF
        self.epochs = dict(epochs or {})
        self.security = security or Security()
        self.marks = MemoryMarks()
        self.ahead = 0.0
        """By how many seconds the CMD's clock is ahead, as of its start."""
        self.behind = 0.0
        """By how many seconds the CMD's time of day has been set back, to its database, too."""
        self.count = count
        self.now = 1000.0
        self.cmd = FakeCmd()
        self.cmd_up = True
        self.slow_kernel = False
        self.wire: list[Packet] = []
        self.sent: list[Packet] = []
        self.place: int | None = None
        self.interface = ACCESS
        self.mode = mode
        self.store = MemoryStore(domain(count, routers))
        configured = Settings(
            server_duid=SERVER_DUID,
            mode=mode,
            max_anchors=16,
            flap_interval=flap_interval,
            router_identity=choice,
        )
        self.server = Cmd(self.store, configured)
        self.record: list[str] = []
        self._loses = loses or (lambda what, before: False)
        self.reorders = reorders
        self.dies_after_commit = False
        """The next message is committed, and then the CMD is gone."""
        self.refuses: set[int] = set()
        """MAARs that answer every PBU with status 155."""
        self.errors: list[tuple[bytes, bytes]] = []
        """Binding Errors of the CMD, each with whom they are for."""
        self._messages = 0
        self._said: dict[str, int] = {}
        self._marked = self.now
        self.start_cmd()
        self.maars = {n: Maar(n, self._agent(n)) for n in range(1, count + 1)}
        for maar in self.maars.values():
            self.run(maar, maar.agent.start(frozenset(), [], self.now))
        self.go_on(0.0)

    def _agent(self, number: int) -> Agent:
        # Without the questions of a refresh among what is recorded.
        changed = settings(number, cmds=(CMD,), **self.own.get(number, {}))
        changed = replace(changed, domain_refresh=1e9)
        epoch = self.epochs.get(number, float(EPOCH))
        return Agent(changed, jitter=lambda: 0.5, epoch=epoch)

    # --- the CMD ---

    def start_cmd(self) -> None:
        """A new process of it: what it held is gone, and what it was sending."""
        self.holding: Holding[_Reply] = Holding()
        self.outbox = MemoryOutbox(self.store)
        outcomes: Counter[str] = Counter()
        self.authenticated = Authenticated(
            CMD,
            self.security,
            self.marks,
            outcomes,
            clock=lambda: self.clock() + round(self.ahead * MICROS),
            monotonic=lambda: self.now,
        )
        self.signaller = Signaller(
            self.outbox,
            self,
            PmipSettings(CMD, "cmd", 500),
            self.mode,
            self.authenticated,
            outcomes,
            refused=self.server.anchor_refused,
            knows_later=self.server.anchor_knows_later,
            clock=self.clock,
            monotonic=lambda: self.now,
            heard=self._heard,
            ended=lambda key: self._answer(self.holding.refused(*key)),
        )
        self._arrived: list[tuple[bytes, bytes]] = []

    def clock(self) -> int:
        return EPOCH * MICROS + round((self.now - self.behind) * MICROS)

    def send(self, destination: bytes, data: bytes) -> None:
        if data[2] == MobilityHeaderType.BINDING_ERROR:
            self.errors.append((destination, data))  # nobody makes anything of it
            return
        self._emit(Packet("mobility", CMD, destination, data))

    def receive(self) -> list[tuple[bytes, bytes]]:
        arrived, self._arrived = self._arrived, []
        return arrived

    def hear(self, source: bytes, data: bytes) -> None:
        """A Mobility Header comes to the CMD."""
        self._arrived.append((source, data))
        self.signaller.receive()
        self._work()

    def _heard(self, key: Key) -> bool:
        if not self.holding.is_waited_for(*key):
            return False
        self._answer(self.holding.acknowledged(*key))
        return True

    def _answer(self, released: list[Released[_Reply]]) -> None:
        for (number, unwrapped, decision), unheard in released:
            self._reply(
                number, unwrapped, decision._replace(relay=acknowledged(decision.relay, unheard))
            )

    def _up(self, packet: Packet) -> None:
        number = next(n for n in self.maars if endpoint(n) == packet.source)
        request = read_request(packet.data, packet.source, dmm.DEFAULT_ENTERPRISE)
        (decision,) = self.server.handle([request], self.clock)
        if self.dies_after_commit:
            self.dies_after_commit = False
            self.server.signalled.clear()
            return
        unwrapped = unwrap(packet.data)
        if decision.reply is None:
            return
        if decision.hold is None:
            self._reply(number, unwrapped, decision)
        else:
            until = self.now + decision.hold.patience / MICROS
            message = (number, request.type, request.transaction_id)
            reply = _Reply(number, unwrapped, decision)
            self._answer(self.holding.hold(message, reply, decision.hold, until))
        self._work()

    def _reply(self, number: int, unwrapped: Unwrapped, decision: Decision) -> None:
        assert decision.reply is not None
        level = unwrapped.relays[0]
        client_id = first(unwrapped.client.options, OptionCode.CLIENTID) or b""
        reply = ClientMessage(
            decision.reply.type,
            unwrapped.client.transaction_id,
            ((int(OptionCode.CLIENTID), client_id), *decision.reply.options),
        )
        options = [
            *((c, body) for c, body in level.options if c == OptionCode.INTERFACE_ID),
            dmm.to_option(dmm.DEFAULT_ENTERPRISE, decision.relay),
            (int(OptionCode.RELAY_MSG), reply.encode()),
        ]
        header = (level.hop_count, level.link_address, level.peer_address)
        data = RelayMessage(MessageType.RELAY_REPL, *header, tuple(options)).encode()
        self._emit(Packet("down", SERVER, endpoint(number), data))

    def _work(self) -> None:
        if self.server.signalled:
            self.signaller.put(self.server.signalled)
            self.server.signalled.clear()
        self.signaller.work()
        self._answer(self.holding.due(self.now))

    # --- the wire ---

    def deliver(self, packet: Packet) -> None:
        if packet.destination not in (CMD, SERVER) and self.by_endpoint(packet.destination) is None:
            return  # an address that somebody made up, and that is told why it is not believed
        what = self.told(packet)
        before = self._said.get(what, 0)
        self._said[what] = before + 1
        lost = self._loses(what, before)
        self.record.append(f"{self.now - self._marked:7.3f}  {what}{'  LOST' if lost else ''}")
        if lost:
            return
        if packet.kind == "up":
            if self.cmd_up:
                self._up(packet)
        elif packet.destination == CMD:
            if self.cmd_up:
                self.hear(packet.source, packet.data)
        elif self._is_refused(packet):
            message = decode(packet.data, packet.source, packet.destination)
            assert isinstance(message, BindingUpdate)
            refusal = acknowledge(message, 155)
            data = encode(refusal, packet.destination, CMD)
            self._emit(Packet("mobility", packet.destination, CMD, data))
        else:
            super().deliver(packet)

    def _is_refused(self, packet: Packet) -> bool:
        maar = self.by_endpoint(packet.destination)
        return packet.source == CMD and maar is not None and maar.number in self.refuses

    def go_on(self, seconds: float) -> None:
        """Let so much time pass, and all that happens in it."""
        end = self.now + seconds
        for _ in range(100_000):
            while self.wire:
                if self.reorders:
                    # What is under way from different senders overtakes each other.
                    self.wire.reverse()
                self.deliver(self.wire.pop(0))
            when, number = min(
                [(d, n) for n, m in self.maars.items() if (d := m.agent.deadline()) is not None]
                + [(d, 0) for d in self._cmd_deadlines()],
                default=(end, 0),
            )
            if when > end:
                break
            self.now = max(self.now, when)
            if number:
                maar = self.maars[number]
                self.run(maar, maar.agent.tick(self.now))
            else:
                self._work()
        else:
            raise AssertionError("they never stop talking")
        self.now = end

    def _cmd_deadlines(self) -> list[float]:
        parts = (self.signaller.deadline(), self.holding.deadline())
        return [each for each in parts if each is not None] if self.cmd_up else []

    def settle(self) -> None:
        self.go_on(0.0)

    # --- the node ---

    def say(self, kind: int, *ias: tuple[int, bytes]) -> None:
        assert self.place is not None
        options = [(int(OptionCode.CLIENTID), DUID), *(ias or IAS)]
        if kind in (MessageType.REQUEST, MessageType.RENEW):
            options.append((int(OptionCode.SERVERID), SERVER_DUID))
        self._messages += 1
        data = ClientMessage(kind, self._messages.to_bytes(3, "big"), tuple(options)).encode()
        maar = self.maars[self.place]
        self.run(maar, maar.agent.client_datagram(ACCESS, NODE, MAC, data, self.now))

    def attach(self, number: int) -> None:
        """The node goes to this MAAR and asks by a Rebind, as a client does whose carrier was away."""
        self.place = number
        self.say(MessageType.REBIND)

    def release(self, anchored_at: int) -> None:
        """The node gives back all that it has from there."""
        mine = [b for b in self.store.bindings.values() if b.anchor == anchored_at]
        addresses = [
            IaAddress(b.prefix.address, 0, 0).encode() for b in mine if b.kind is Kind.ADDRESS
        ]
        prefixes = [IaPrefix(b.prefix, 0, 0).encode() for b in mine if b.kind is Kind.DELEGATED]
        options = (
            (int(OptionCode.CLIENTID), DUID),
            (int(OptionCode.SERVERID), SERVER_DUID),
            IaNa(1, options=tuple(addresses)).encode(),
            IaPd(2, options=tuple(prefixes)).encode(),
        )
        assert self.place is not None
        data = ClientMessage(MessageType.RELEASE, b"rel", options).encode()
        maar = self.maars[self.place]
        self.run(maar, maar.agent.client_datagram(ACCESS, NODE, MAC, data, self.now))

    def reap(self) -> None:
        """As the server does once in a second."""
        self.server.reap(self.clock(), 500)
        self._work()

    def forget_what_was_said(self) -> None:
        """Count for `loses` from here on."""
        self._said.clear()

    def mark(self) -> None:
        """The record begins here."""
        self.record.clear()
        self._marked = self.now

    # --- what is said, in words ---

    def told(self, packet: Packet) -> str:
        names = {endpoint(n): f"maar{n}" for n in range(1, self.count + 1)} | {
            CMD: "cmd",
            SERVER: "cmd",
        }
        arrow = f"{names[packet.source]:>5} > {names[packet.destination]:<5}"
        if packet.kind == "mobility":
            message = decode(packet.data, packet.source, packet.destination)
            named = sum(
                isinstance(o, HomeNetworkPrefix | DelegatedPrefix) and o.prefix.length > 0
                for o in message.options
            )
            others = {
                names[o.endpoint] for o in message.options if isinstance(o, PreviousMaarOption)
            }
            via = f", of {' '.join(sorted(others))}" if others else ""
            if isinstance(message, BindingUpdate):
                (serving,) = (
                    names[o.endpoint] for o in message.options if isinstance(o, ServingMaar)
                )
                return f"{arrow}  PBU: at {serving}, {named} prefixes{via}"
            return f"{arrow}  PBA: status {message.status}, {named} prefixes{via}"
        unwrapped = unwrap(packet.data)
        name = MessageType(unwrapped.client.type).name.capitalize().replace("_r", "-r")
        ours = dmm.from_options(dmm.DEFAULT_ENTERPRISE, unwrapped.relays[0].options) or ()
        if packet.kind == "up":
            return f"{arrow}  Relay-forward({name})"
        previous = [each for each in ours if isinstance(each, dmm.PreviousMaar)]
        anchors = {names[each.endpoint] for each in previous if not each.awaited}
        awaited = {names[each.endpoint] for each in previous if each.awaited}
        said = f"{arrow}  Relay-reply({name})"
        if anchors:
            said += f": {' '.join(sorted(anchors))}"
        if awaited:
            said += f", {len(awaited)} to come"
        return said

    def check(self) -> None:
        """All prefixes that the CMD knows lead to the node from everywhere, and it is what it is everywhere."""
        assert self.place is not None
        live = {
            row.prefix: row.anchor
            for row in self.store.bindings.values()
            if row.kind is not Kind.ADDRESS and row.state != "ended"
        }
        for prefix in live:
            for start in (None, *self.maars):
                assert self.trace(prefix, start)[-1] == "node", (
                    str(prefix),
                    self.trace(prefix, start),
                )
        roles = self.roles(self.place)
        assert {prefix: role for prefix, role in roles.items() if role != "ended"} == {
            prefix: "local" if anchor == self.place else "served" for prefix, anchor in live.items()
        }
        for number in self.maars:
            if number != self.place:
                roles = self.roles(number)
                mine = {prefix for prefix, anchor in live.items() if anchor == number}
                assert {p for p, role in roles.items() if role == "anchored"} == mine
        assert self.store.tables.signals == {}
