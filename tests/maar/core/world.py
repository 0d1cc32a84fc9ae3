"""MAARs wired together in memory: a kernel each, a CMD, a wire that loses and reorders when asked
to, and a node that moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage, first, unwrap
from dmm_wire.dhcpv6.options import ElapsedTime
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import checksum
from dmm_wire.router_identity import ETHERNET, RouterIdentity, of_anchor
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Item,
    Key,
    Put,
    Route,
    ToNode,
    ToPeer,
    Tunnel,
    Unreachable,
)
from relay_maar.core.settings import AccessLink, AgentSettings

SERVER = parse_address("2001:db8:ffff::547")
NODE = parse_address("fe80::ff:fe00:1")
MAC = bytes.fromhex("0200000000aa")
DUID = bytes.fromhex("00030001") + MAC
NODE_ID = Identity(IdentitySubtype.DUID, DUID)
ACCESS = "access0"


@cache
def endpoint(number: int) -> bytes:
    """The tunnel endpoint of MAAR `number`, from 1."""
    return parse_address(f"2001:db8:{number:x}::1")


@cache
def pools(number: int) -> tuple[Prefix, Prefix]:
    """The pool for links and the one for delegation of MAAR `number`."""
    return Prefix.parse(f"2001:db8:{number:x}:100::/56"), Prefix.parse(
        f"2001:db8:{number:x}:200::/56"
    )


@cache
def link_prefix(number: int) -> Prefix:
    """The prefix that the node gets from MAAR `number` for its addresses."""
    return Prefix.parse(f"2001:db8:{number:x}:101::/64")


def delegated_prefix(number: int) -> Prefix:
    """The prefix that MAAR `number` delegates to the node."""
    return Prefix.parse(f"2001:db8:{number:x}:210::/60")


def settings(number: int, **changes: Any) -> AgentSettings:
    """The settings of MAAR `number`."""
    link = AccessLink(
        interface=ACCESS,
        link_address=parse_address(f"2001:db8:{number:x}:100::1"),
        interface_id=ACCESS.encode(),
        link_layer=bytes.fromhex("00005e005213"),
        relays_below=changes.pop("relays_below", False),
        slaac=changes.pop("slaac", False),
    )
    values: dict[str, Any] = {
        "name": f"maar{number}",
        "endpoint": endpoint(number),
        "relay_id": bytes.fromhex("00030001") + bytes((2, 0, 0, 0, 1, number)),
        "pools": pools(number),
        "access": (link,),
        "servers": (SERVER,),
    }
    if changes.pop("dlif", False):
        values["identity"] = of_anchor(endpoint(number))
    return AgentSettings(**{**values, **changes})


def client_message(kind: int, duid: bytes = DUID, transaction: bytes = b"abc") -> bytes:
    """A client's message as a relay agent sees it."""
    options = ((int(OptionCode.CLIENTID), duid), ElapsedTime(0).encode())
    return ClientMessage(kind, transaction, options).encode()


def fix_checksum(data: bytes, source: bytes, destination: bytes) -> bytes:
    """The Mobility Header `data` with the right checksum."""
    size = 8 * (data[1] + 1)
    header = data[:4] + b"\0\0" + data[6:size]
    return header[:4] + checksum(header, source, destination).to_bytes(2, "big") + header[6:]


@dataclass
class Kernel:
    """Holds one item per key. `refuse` names keys that it will not touch."""

    items: dict[Key, Item] = field(default_factory=dict)
    refuse: set[Key] = field(default_factory=set)

    def apply(self, changes: tuple[Change, ...]) -> Mapping[Key, str]:
        failures: dict[Key, str] = {}
        for change in changes:
            key = change.item.key
            if key in self.refuse:
                failures[key] = "ENOBUFS"
            elif isinstance(change, Put):
                self.items[key] = change.item
            else:
                self.items.pop(key, None)
        return failures

    def lookup(self, address: bytes) -> Route | None:
        """The longest match."""
        found = [
            i for i in self.items.values() if isinstance(i, Route) and i.prefix.contains(address)
        ]
        return max(found, key=lambda route: route.prefix.length, default=None)


@dataclass
class FakeCmd:
    """What a CMD answers, without its database. Lifetimes are `valid` seconds from the last
    grant."""

    valid: int = 7200
    generation: int = 0
    current: int | None = None
    previous: int | None = None
    prefixes: dict[Prefix, tuple[int, bool, float]] = field(default_factory=dict)
    domain: tuple[int, ...] = (1, 2, 3)
    reports: list[dmm.AnchorFailed] = field(default_factory=list)
    routers: dict[int, RouterIdentity] = field(default_factory=dict)
    """What is said of MAARs as routers."""

    def answer(self, data: bytes, now: float) -> tuple[int, bytes]:
        """The MAAR to answer and the Relay-reply for a Relay-forward."""
        unwrapped = unwrap(data)
        level = unwrapped.relays[0]
        ours = dmm.from_options(dmm.DEFAULT_ENTERPRISE, level.options) or ()
        maar = next(each for each in ours if isinstance(each, dmm.Maar))
        number = next(n for n in range(1, 10) if endpoint(n) == maar.endpoint)
        domain = dmm.Domain(tuple(map(endpoint, self.domain)))
        reports = [each for each in ours if isinstance(each, dmm.AnchorFailed)]
        self.reports += reports
        for report in reports:
            self.prefixes.pop(report.prefix, None)
        own = unwrapped.client.type == MessageType.INFORMATION_REQUEST
        suboptions: tuple[dmm.SubOption, ...]
        if own and not reports:
            suboptions = (dmm.Status(0), domain)
        elif own:
            visit = self.visit(number, MessageType.SOLICIT, now)
            suboptions = (dmm.Status(0), dmm.MobileNode(NODE_ID), *visit)
        else:
            suboptions = (dmm.Status(0), *self.visit(number, unwrapped.client.type, now))
        kinds = {MessageType.SOLICIT: MessageType.ADVERTISE}
        kind = kinds.get(MessageType(unwrapped.client.type), MessageType.REPLY)
        client_id = first(unwrapped.client.options, OptionCode.CLIENTID) or b""
        reply = ClientMessage(
            kind, unwrapped.client.transaction_id, ((int(OptionCode.CLIENTID), client_id),)
        )
        options: list[tuple[int, bytes]] = [(OptionCode.RELAY_MSG, reply.encode())]
        interface_id = first(level.options, OptionCode.INTERFACE_ID)
        if interface_id is not None:
            options.append((int(OptionCode.INTERFACE_ID), interface_id))
        options.append(dmm.to_option(dmm.DEFAULT_ENTERPRISE, suboptions))
        return number, RelayMessage(
            MessageType.RELAY_REPL,
            level.hop_count,
            level.link_address,
            level.peer_address,
            tuple(options),
        ).encode()

    def visit(self, number: int, kind: int, now: float) -> tuple[dmm.SubOption, ...]:
        if number != self.current:
            self.generation += 1
            self.previous, self.current = self.current, number
        self.prefixes = {p: each for p, each in self.prefixes.items() if each[2] > now}
        if kind != MessageType.SOLICIT:
            granted = {
                link_prefix(number): (number, False, 0.0),
                delegated_prefix(number): (number, True, 0.0),
            }
            for prefix, (anchor, delegated, _) in {**self.prefixes, **granted}.items():
                self.prefixes[prefix] = (anchor, delegated, now + self.valid)
        previous = UNSPECIFIED if self.previous is None else endpoint(self.previous)
        found: list[dmm.SubOption] = [dmm.Visit(self.generation, previous)]
        for prefix, (anchor, delegated, until) in self.prefixes.items():
            left = int(until - now)
            if anchor == number:
                found.append(dmm.AnchoredPrefix(prefix, left, left, delegated))
            else:
                found.append(self.previous_maar(prefix, left, delegated, anchor))
        return tuple(found)

    def previous_maar(
        self, prefix: Prefix, left: int, delegated: bool, anchor: int
    ) -> dmm.PreviousMaar:
        named = dmm.PreviousMaar(prefix, 0, left, delegated, endpoint(anchor))
        router = self.routers.get(anchor)
        if router is None:
            return named
        link_layer = (ETHERNET, router.link_layer)
        return replace(named, dlif_link_local=router.link_local, dlif_link_layer=link_layer)


@dataclass
class Maar:
    """One MAAR: its agent, what its kernel holds, its session file."""

    number: int
    agent: Agent
    kernel: Kernel = field(default_factory=Kernel)
    file: dict[str, tuple[str, float]] = field(default_factory=dict)
    applies: list[act.Apply] = field(default_factory=list)
    advertisements: list[act.SendRouterAdvertisement] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    said: list[act.SendMobility] = field(default_factory=list)
    client: list[act.SendToClient] = field(default_factory=list)


@dataclass(frozen=True)
class Packet:
    """A datagram on the core: `kind` is up (DHCPv6 to the CMD), down (from it) or mobility."""

    kind: str
    source: bytes
    destination: bytes
    data: bytes


class World:
    """Three MAARs in one domain. With `slow_kernel` an Apply is answered only by `run_kernel`; `changes` are for the
    settings of all, `own` for those of one MAAR, `epochs` are the times of day at which a MAAR's clock was 0."""

    def __init__(
        self,
        *,
        slow_kernel: bool = False,
        valid: int = 7200,
        cmd: FakeCmd | None = None,
        own: Mapping[int, dict[str, Any]] | None = None,
        epochs: Mapping[int, float] | None = None,
        **changes: Any,
    ) -> None:
        self._changes = changes
        self.own = dict(own or {})
        self.epochs = dict(epochs or {})
        self.now = 1000.0
        self.cmd = cmd or FakeCmd(valid=valid)
        self.cmd_up = True
        self.slow_kernel = slow_kernel
        self.wire: list[Packet] = []
        self.sent: list[Packet] = []
        self.place: int | None = None
        self.interface = ACCESS
        self.maars = {n: Maar(n, self._agent(n)) for n in (1, 2, 3)}
        for maar in self.maars.values():
            self.run(maar, maar.agent.start(frozenset(), [], self.now))
        self.settle()

    def _agent(self, number: int) -> Agent:
        changes = {**self._changes, **self.own.get(number, {})}
        return Agent(
            settings(number, **changes), jitter=lambda: 0.5, epoch=self.epochs.get(number, 0.0)
        )

    def run(self, maar: Maar, actions: list[act.Action]) -> None:
        """Do what the agent wants, as the shell does."""
        queue = list(actions)
        while queue:
            action = queue.pop(0)
            self.doing(maar, action)
            match action:
                case act.Apply() if self.slow_kernel:
                    maar.applies.append(action)
                case act.Apply(token, changes):
                    failures = maar.kernel.apply(changes)
                    queue[:0] = maar.agent.applied(token, failures, self.now)
                case act.SaveSession(identity, record):
                    maar.file[str(identity)] = (json.dumps(record), self.now)
                case act.ForgetSession(identity):
                    maar.file.pop(str(identity), None)
                case act.SendToServers(data):
                    self._emit(Packet("up", endpoint(maar.number), SERVER, data))
                case act.SendMobility(destination):
                    maar.said.append(action)
                    data = maar.agent.mobility_header(action, self.now)
                    self._emit(Packet("mobility", endpoint(maar.number), destination, data))
                case act.SendRouterAdvertisement():
                    maar.advertisements.append(action)
                case act.SendToClient():
                    maar.client.append(action)
                case act.Log():
                    maar.log.append(action.line)

    def doing(self, maar: Maar, action: act.Action) -> None:
        """What the agent wants done now, also what comes with the kernel's answer."""

    def _emit(self, packet: Packet) -> None:
        self.wire.append(packet)
        self.sent.append(packet)

    def run_kernel(self, number: int) -> None:
        """Answer the oldest Apply of this MAAR."""
        maar = self.maars[number]
        if maar.applies:
            apply = maar.applies.pop(0)
            failures = maar.kernel.apply(apply.changes)
            self.run(maar, maar.agent.applied(apply.token, failures, self.now))

    def by_endpoint(self, address: bytes) -> Maar | None:
        return next((m for m in self.maars.values() if endpoint(m.number) == address), None)

    def deliver(self, packet: Packet) -> None:
        """Give one packet to whom it is for."""
        if packet.kind == "up":
            if self.cmd_up:
                number, reply = self.cmd.answer(packet.data, self.now)
                self._emit(Packet("down", SERVER, endpoint(number), reply))
            return
        maar = self.by_endpoint(packet.destination)
        if maar is None:
            return
        if packet.kind == "down":
            self.run(maar, maar.agent.server_datagram(packet.source, packet.data, self.now))
        else:
            self.run(maar, maar.agent.mobility_datagram(packet.source, packet.data, self.now))

    def settle(self) -> None:
        """Let everything on the wire arrive, in order, and the kernels finish; time stands
        still."""
        for _ in range(10_000):
            if self.wire:
                self.deliver(self.wire.pop(0))
            elif any(maar.applies for maar in self.maars.values()):
                for number in self.maars:
                    self.run_kernel(number)
            else:
                return
        raise AssertionError("the MAARs never stop talking")

    def pass_time(self, seconds: float, after_each: Callable[[], None] = lambda: None) -> None:
        """Let time pass, timer by timer; what is sent stays on the wire."""
        end = self.now + seconds
        while True:
            due = [(d, n) for n, m in self.maars.items() if (d := m.agent.deadline()) is not None]
            when, number = min(due, default=(end, 0))
            if when >= end:
                break
            self.now = max(self.now, when)
            maar = self.maars[number]
            before = maar.agent.deadline()
            self.run(maar, maar.agent.tick(self.now))
            after = maar.agent.deadline()
            assert after is None or before is None or after > before or self.slow_kernel
            after_each()
        self.now = end

    def go_on(self, seconds: float) -> None:
        """Time passes; what is sent arrives at once."""
        self.settle()
        self.pass_time(seconds, self.settle)
        self.settle()

    def say(self, kind: int) -> None:
        """The node sends a DHCPv6 message where it is: at MAAR `place`, on `interface`."""
        if self.place is not None:
            maar = self.maars[self.place]
            data = client_message(kind)
            self.run(maar, maar.agent.client_datagram(self.interface, NODE, MAC, data, self.now))

    def talk(self, kind: int) -> None:
        """The node says something and DHCPv6 brings its answer; what the MAARs then say stays on
        the wire."""
        self.say(kind)
        while packets := [packet for packet in self.wire if packet.kind != "mobility"]:
            self.wire.remove(packets[0])
            self.deliver(packets[0])

    def attach(self, number: int) -> None:
        """The node goes to this MAAR and gets everything it can get there."""
        self.place = number
        for kind in (MessageType.SOLICIT, MessageType.REQUEST):
            self.say(kind)
            self.settle()

    def restart(self, number: int, *, kill: bool = True) -> None:
        """kill -9 and a new process: the kernel and the file are what is left."""
        maar = self.maars[number]
        maar.applies.clear()
        maar.agent = self._agent(number)
        records = [{**json.loads(text), "age": self.now - at} for text, at in maar.file.values()]
        found = frozenset(maar.kernel.items.values())
        self.run(maar, maar.agent.start(found, records, self.now))

    # --- what packets would meet ---

    def trace(self, prefix: Prefix, start: int | None = None) -> list[str]:
        """The way of a packet to an address of `prefix`, from the core or from MAAR `start`; the last step is node,
        unreachable, absent (to a link where the node is not), no-tunnel, refused, or loop."""
        address = (int.from_bytes(prefix.address, "big") + 1).to_bytes(16, "big")
        owner = next(n for n in self.maars if any(p.contains(address) for p in pools(n)))
        here = owner if start is None else start
        path: list[str] = []
        while True:
            name = f"maar{here}"
            if name in path:
                return [*path, "loop"]
            path.append(name)
            maar = self.maars[here]
            route = maar.kernel.lookup(address)
            match route.target if route is not None else None:
                case None:
                    # By way of the core to where the prefix is anchored; our own pools always have
                    # a route.
                    here = owner
                case ToNode(interface, neighbour):
                    at_home = (self.place, self.interface, NODE) == (here, interface, neighbour)
                    return [*path, "node" if at_home else "absent"]
                case Unreachable():
                    return [*path, "unreachable"]
                case ToPeer(peer):
                    if Tunnel(peer).key not in maar.kernel.items:
                        return [*path, "no-tunnel"]
                    there = self.by_endpoint(peer)
                    if there is None:
                        return [*path, "no-peer"]
                    if AcceptFrom(endpoint(here)).key not in there.kernel.items:
                        return [*path, f"maar{there.number}", "refused"]
                    here = there.number

    def check_no_loop(self) -> None:
        for number in self.maars:
            for prefix in (link_prefix(number), delegated_prefix(number)):
                for start in (None, *self.maars):
                    path = self.trace(prefix, start)
                    assert path[-1] not in ("loop", "no-tunnel", "no-peer"), (str(prefix), path)

    def check_reached(self) -> None:
        """Every prefix of the node leads to it from everywhere; every other one of the pools ends
        in Unreachable."""
        for number in self.maars:
            for prefix in (link_prefix(number), delegated_prefix(number)):
                for start in (None, *self.maars):
                    path = self.trace(prefix, start)
                    expected = "node" if prefix in self.cmd.prefixes else "unreachable"
                    assert path[-1] == expected, (str(prefix), path)

    def roles(self, number: int) -> dict[Prefix, str]:
        """What this MAAR is to each prefix of the node."""
        status = self.maars[number].agent.status(self.now)
        return {
            Prefix.parse(entry["prefix"]): entry["role"]
            for session in status["sessions"]
            for entry in session["prefixes"]
        }
