"""Noise at every entry point: nothing is raised, and nothing grows without bound."""

from __future__ import annotations

import json
import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import RelayMessage
from dmm_wire.mobility import encode
from dmm_wire.router_identity import of_anchor
from relay_maar.core import actions as act
from relay_maar.core import attaching
from relay_maar.core.agent import Agent
from tests.maar.core.world import (
    ACCESS,
    MAC,
    NODE,
    SERVER,
    World,
    client_message,
    endpoint,
    fix_checksum,
)
from tests.maar.core.world import (
    settings as maar_settings,
)

ADDRESSES = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.sampled_from([NODE, SERVER, UNSPECIFIED, endpoint(1), endpoint(2), b"\xff\x02" + bytes(14)]),
)
SOMEWHERE = st.sampled_from([ACCESS, "elsewhere"])


def corpus() -> list[tuple[str, bytes]]:
    """What MAAR 2 receives in a story, by the entry point it comes in at."""
    world = World(dlif=True)
    world.cmd.routers = {number: of_anchor(endpoint(number)) for number in (1, 2, 3)}
    found: list[tuple[str, bytes]] = []
    for number in (1, 2, 3, 2, 1):
        world.attach(number)
    for packet in world.sent:
        if packet.destination == endpoint(2):
            found.append((packet.kind, packet.data))
        elif packet.kind == "up":
            found.append(("client", packet.data))
    found.append(("client", client_message(MessageType.SOLICIT)))
    return found


CORPUS = corpus()


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    kind, data = draw(st.sampled_from(CORPUS))
    octets = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        position = draw(st.integers(0, len(octets) - 1)) if octets else 0
        match draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip" if octets:
                octets[position] = draw(st.integers(0, 255))
            case "cut":
                del octets[position:]
            case "insert":
                octets[position:position] = draw(st.binary(max_size=8))
    return kind, bytes(octets)


def feed(world: World, kind: str, source: bytes, data: bytes) -> None:
    maar = world.maars[2]
    match kind:
        case "client":
            actions = maar.agent.client_datagram(ACCESS, source, MAC, data, world.now)
        case "down":
            actions = maar.agent.server_datagram(source, data, world.now)
        case _:
            actions = maar.agent.mobility_datagram(source, data, world.now)
            # The checksum would keep nearly all that is mutated out: put it right.
            if len(data) >= 8:
                data = fix_checksum(data, source, endpoint(2))
                actions += maar.agent.mobility_datagram(source, data, world.now)
    for action in actions:
        if isinstance(action, act.SendMobility):
            encode(action.message, endpoint(2), action.destination)
        elif isinstance(action, act.SaveSession):
            json.dumps(action.record, allow_nan=False)
    world.run(maar, actions)


@settings(max_examples=60, deadline=None)
@given(packets=st.lists(mutated(), min_size=1, max_size=20), data=st.data())
def test_mutated_messages(packets: list[tuple[str, bytes]], data: st.DataObject) -> None:
    world = World(dlif=True)
    world.attach(1)
    world.attach(2)
    right = {"down": SERVER, "client": NODE, "mobility": endpoint(1)}
    for kind, octets in packets:
        source = data.draw(st.sampled_from([right.get(kind, NODE), endpoint(3)]))
        feed(world, kind, source, octets)
    world.pass_time(5.0)
    world.maars[2].agent.status(world.now)


@settings(max_examples=200, deadline=None)
@given(
    interface=SOMEWHERE,
    source=ADDRESSES,
    link_layer=st.none() | st.binary(min_size=1, max_size=20),
    data=st.binary(max_size=300),
)
def test_random_bytes(interface: str, source: bytes, link_layer: bytes | None, data: bytes) -> None:
    agent = Agent(maar_settings(1, relays_below=True), jitter=lambda: 0.3)
    agent.start(frozenset(), [], 0.0)
    agent.client_datagram(interface, source, link_layer, data, 1.0)
    agent.client_datagram(interface, source, link_layer, b"\x0c" + data, 1.0)
    agent.client_datagram(interface, source, link_layer, b"\x01" + data, 1.0)
    agent.server_datagram(SERVER, data, 2.0)
    agent.server_datagram(SERVER, b"\x0d" + data, 2.0)
    agent.mobility_datagram(source, data, 3.0)
    agent.router_solicitation(interface, source, link_layer, data, 4.0)
    agent.router_solicitation(interface, source, link_layer, b"\x85" + bytes(7) + data, 4.0)
    agent.seen(interface, source, link_layer, "mld", 5.0)
    agent.applied(len(data), {}, 6.0)
    agent.tick(7.0)
    json.dumps(agent.status(8.0), allow_nan=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_records(data: st.DataObject) -> None:
    world = World(dlif=True)
    world.attach(1)
    world.attach(2)
    record = json.loads(next(t for t, _ in world.maars[2].file.values() if "session" in t))
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            places.append((node, key))
            if isinstance(value, dict | list):
                collect(value)

    collect(record)
    for _ in range(data.draw(st.integers(1, 3))):
        where, key = data.draw(st.sampled_from(places))
        where[key] = data.draw(JSON)
    agent = Agent(maar_settings(2, dlif=True), jitter=lambda: 0.5)
    agent.start(frozenset(), [record], 10.0)
    agent.start(frozenset(), [data.draw(st.dictionaries(st.text(max_size=9), JSON))], 10.0)
    agent.tick(20.0)
    json.dumps(agent.status(21.0), allow_nan=False)


def size(agent: Agent) -> int:
    """How many things the agent holds, all over."""
    seen: set[int] = set()

    def count(value: Any) -> int:
        if id(value) in seen or callable(value) or isinstance(value, str | bytes | int | float):
            return 1
        seen.add(id(value))
        if isinstance(value, dict):
            return sum(count(k) + count(v) for k, v in value.items())
        if isinstance(value, tuple | list | set | frozenset | deque):
            return sum(map(count, value))
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        named = [*getattr(value, "__dict__", {}), *slots]
        return sum(count(getattr(value, name, None)) for name in named)

    return count(agent)


def test_noise_does_not_grow_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # So few are remembered that the tables are full in the first part.
    monkeypatch.setattr(attaching, "MOST_OPEN", 1024)
    monkeypatch.setattr(attaching, "MOST_REMEMBERED", 1024)
    noise = random.Random(1)
    agent = Agent(maar_settings(1), jitter=noise.random)
    agent.start(frozenset(), [], 0.0)

    def burst(times: int, now: float) -> None:
        for number in range(times):
            source = b"\xfe\x80" + bytes(6) + noise.randbytes(8)
            duid = noise.randbytes(14)
            agent.client_datagram(ACCESS, source, noise.randbytes(6), client_message(1, duid), now)
            agent.seen(ACCESS, source, noise.randbytes(6), noise.choice(["ns", "x"]), now)
            agent.router_solicitation(ACCESS, source, None, b"\x85" + bytes(7), now)
            header = fix_checksum(
                bytes((59, 1, number % 9, 0)) + noise.randbytes(12), source, endpoint(1)
            )
            agent.mobility_datagram(b"\x20" + source[1:], header, now)
            agent.server_datagram(SERVER, noise.randbytes(60), now)

    for second in range(100):
        burst(80, float(second))
        agent.tick(float(second))
    first = size(agent)
    for second in range(100, 150):
        burst(80, float(second))
        agent.tick(float(second))
    assert size(agent) <= first * 1.05


@pytest.mark.parametrize("count", [100, 1300])
def test_a_reply_with_very_many_prefixes(count: int) -> None:
    world = World()
    world.attach(1)
    many = [
        dmm.PreviousMaar(
            Prefix.of(bytes.fromhex("20010db80003") + n.to_bytes(2, "big") + bytes(8), 64),
            0,
            900,
            True,
            endpoint(3),
        )
        for n in range(count)
    ]
    visit = dmm.Visit(world.cmd.generation + 1, endpoint(2))
    options = (
        (int(OptionCode.INTERFACE_ID), ACCESS.encode()),
        (int(OptionCode.RELAY_MSG), client_message(MessageType.REPLY)),
        dmm.to_option(dmm.DEFAULT_ENTERPRISE, (visit, *many)),
    )
    data = RelayMessage(MessageType.RELAY_REPL, 0, UNSPECIFIED, NODE, options).encode()
    maar = world.maars[1]
    world.run(maar, maar.agent.server_datagram(SERVER, data, world.now))
    # The PBUs that this makes fit a Mobility Header: World encodes them.
    assert len(world.roles(1)) <= 64
    assert [packet for packet in world.wire if packet.kind == "mobility"]
