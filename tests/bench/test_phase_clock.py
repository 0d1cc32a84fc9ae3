"""Phases of a handover from packets that were made up: MAAR1 and MAAR2 are the P-MAARs, MAAR3 serves."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from bench.modes import expected_messages
from bench.packet_stream import PORT, Flow
from bench.phase_clock import Move, Phase, counted, held, phases, sent_back
from bench.scripted_client import Node, rebind
from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage
from lab.capture import BEFORE_DELAY
from lab.packets import MOBILITY, UDP, Packet
from lab.topology import CMD, CN1, MAAR_PLANS, MaarPlan

ONE, TWO, THREE = MAAR_PLANS
OLD = {plan: parse_address(f"2001:db8:{plan.number}00:7::1") for plan in (ONE, TWO)}
XID = b"\x00\x00\x07"
NODE = Node(7, dict(OLD))
LINK_LOCAL = parse_address(NODE.link_local)
CLIENTS = parse_address("ff02::1:2")
START = 1_000
RELAYED = THREE.endpoint, CMD.packed


def move(*told: str) -> Move:
    flows = tuple(Flow(UNSPECIFIED, address) for address in OLD.values())
    return Move(THREE, (ONE, TWO), XID, frozenset(told), flows)


def udp(
    at: int,
    link: str,
    ends: tuple[str, str],
    addresses: tuple[bytes, bytes],
    data: bytes,
    ports: tuple[int, int] = (SERVER_PORT, SERVER_PORT),
    tunnel: tuple[bytes, bytes] | None = None,
) -> Packet:
    payload = struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
    return Packet(START + at, link, *ends, *addresses, UDP, payload, len(payload), tunnel)


def asks(at: int = 0, xid: bytes = XID) -> Packet:
    ports = (CLIENT_PORT, SERVER_PORT)
    data = rebind(NODE, xid)
    return udp(at, THREE.access_link, ("mn", THREE.node), (LINK_LOCAL, CLIENTS), data, ports)


def answer(xid: bytes = XID) -> bytes:
    return ClientMessage(MessageType.REPLY, xid, ()).encode()


def replies(at: int) -> Packet:
    ports = (SERVER_PORT, CLIENT_PORT)
    router = parse_address("fe80::200:5eff:fe00:5213")
    ends = THREE.node, "mn"
    return udp(at, THREE.access_link, ends, (router, LINK_LOCAL), answer(), ports)


def relay(kind: MessageType, data: bytes, anchors: tuple[MaarPlan, ...] = ()) -> bytes:
    told = [
        dmm.PreviousMaar(Prefix.of(OLD[plan], 64), 0, 60, False, plan.endpoint) for plan in anchors
    ]
    return RelayMessage(
        kind,
        0,
        THREE.link_address,
        LINK_LOCAL,
        ((int(OptionCode.RELAY_MSG), data), dmm.to_option(dmm.DEFAULT_ENTERPRISE, told)),
    ).encode()


def relay_forward(at: int) -> Packet:
    data = relay(MessageType.RELAY_FORW, rebind(NODE, XID))
    return udp(at, CMD.node, ("core", CMD.node), RELAYED, data)


def relay_reply(at: int, *anchors: MaarPlan, link: str = THREE.node) -> Packet:
    """At the S-MAAR or, on another link, as it leaves the CMD."""
    data = relay(MessageType.RELAY_REPL, answer(), anchors)
    ends = ("core", THREE.node) if link == THREE.node else (CMD.node, "core")
    return udp(at, link, ends, RELAYED[::-1], data)


def mobility(
    at: int, link: str, source: bytes, destination: bytes, message: mh.BindingUpdate | Pba
) -> Packet:
    payload = mh.encode(message, source, destination)
    ends = ("core", link)
    return Packet(START + at, link, *ends, source, destination, MOBILITY, payload, len(payload))


Pba = mh.BindingAcknowledgement


def pbu(at: int, plan: MaarPlan, source: bytes = CMD.packed) -> Packet:
    return mobility(at, plan.node, source, plan.endpoint, mh.BindingUpdate(1, 60))


def pba(at: int, plan: MaarPlan, link: str, destination: bytes) -> Packet:
    return mobility(at, link, plan.endpoint, destination, Pba(0, 1, 60))


def down(at: int, plan: MaarPlan, serving: MaarPlan = THREE) -> Packet:
    ends = serving.node, "mn"
    addresses = CN1.packed, OLD[plan]
    return udp(at, serving.access_link, ends, addresses, bytes(16), (PORT, PORT))


def up(at: int, plan: MaarPlan, number: int, link: str, sender: str) -> Packet:
    data = struct.pack("!I12x", number)
    ends = (sender, "core") if sender != "core" else (sender, link)
    return udp(at, link, ends, (OLD[plan], CN1.packed), data, (PORT, PORT))


def up_by_anchor(at: int, plan: MaarPlan, number: int) -> list[Packet]:
    """On the anchor's link, out of the tunnel, and a moment later at the CN."""
    return [
        up(at - 1, plan, number, plan.node, plan.node),
        up(at, plan, number, CN1.node, "core"),
    ]


def flows(at: int) -> list[Packet]:
    first, last = up_by_anchor(at + 2, ONE, 1), up_by_anchor(at + 4, TWO, 2)
    return [down(at, ONE), down(at + 1, TWO), *first, *last]


LADDERS: dict[str, tuple[Move, list[Packet], dict[Phase, int]]] = {
    "direct": (
        move("maar3"),
        [
            *(asks(), relay_forward(5), relay_reply(10, ONE, TWO), replies(11)),
            *(pbu(12, plan, THREE.endpoint) for plan in (ONE, TWO)),
            *(pba(14, plan, THREE.node, THREE.endpoint) for plan in (TWO, ONE)),
            *flows(20),
        ],
        {Phase.REPLY: 10, Phase.UPDATES: 12, Phase.ACKNOWLEDGED: 14, Phase.KNOWN: 10},
    ),
    "proxy": (
        move("cmd"),
        [
            *(asks(), relay_forward(5), pbu(10, ONE), relay_reply(10, ONE, TWO), replies(11)),
            *(pbu(12, TWO), pba(16, ONE, CMD.node, CMD.packed), pba(18, TWO, CMD.node, CMD.packed)),
            *flows(20),
        ],
        {Phase.REPLY: 10, Phase.UPDATES: 12, Phase.ACKNOWLEDGED: 18, Phase.KNOWN: 10},
    ),
    "locator": (
        move("cmd", "maar3"),
        [
            # ONE has acknowledged an earlier move: the Relay-reply names it at once.
            *(asks(), relay_forward(5), relay_reply(10, ONE), replies(11), pbu(12, ONE)),
            *(pbu(13, TWO), pba(14, ONE, THREE.node, THREE.endpoint)),
            *(pba(15, TWO, THREE.node, THREE.endpoint), pba(19, ONE, CMD.node, CMD.packed)),
            *(pba(20, TWO, CMD.node, CMD.packed), *flows(20)),
        ],
        {Phase.REPLY: 10, Phase.UPDATES: 13, Phase.ACKNOWLEDGED: 20, Phase.KNOWN: 15},
    ),
    "relay": (
        move("cmd"),
        [
            *(asks(), relay_forward(5), pbu(10, ONE), pbu(11, TWO)),
            *(pba(15, ONE, CMD.node, CMD.packed), pba(16, TWO, CMD.node, CMD.packed)),
            *(relay_reply(19, ONE, TWO), replies(19), *flows(20)),
        ],
        {Phase.REPLY: 19, Phase.UPDATES: 11, Phase.ACKNOWLEDGED: 16, Phase.KNOWN: 19},
    ),
}


@pytest.mark.parametrize("mode", LADDERS)
def test_the_phases_of_each_mode(mode: str) -> None:
    told, packets, wanted = LADDERS[mode]
    client = 19 if mode == "relay" else 11
    rest = {Phase.CLIENT: client, Phase.DOWN: 21, Phase.UP: 24, Phase.OPEN: 24}
    assert phases(packets, told).all(told) == wanted | rest
    assert counted(packets, told) == Counter(
        {k: v for k, v in expected_messages(mode, 2).items() if k != "Relay-reply"}
    )


def test_messages_are_counted_where_the_cmd_is() -> None:
    """A Relay-reply crosses two links; the one of the CMD is the one that counts."""
    packets = [relay_reply(9, link=CMD.node), relay_reply(10)]
    assert counted([asks(), *packets], move()) == Counter({"Rebind": 1, "Relay-reply": 1})


@pytest.mark.parametrize("missing", range(3, 13))
def test_a_phase_of_which_a_part_is_missing_is_not_done(missing: int) -> None:
    told, packets, _ = LADDERS["proxy"]
    found = phases([p for i, p in enumerate(packets) if i != missing], told).all(told)
    assert None in found.values()


def test_nothing_counts_before_the_message_or_of_another_one() -> None:
    told, packets, _ = LADDERS["proxy"]
    assert set(phases(packets[1:], told).all(told).values()) == {None}
    other = [asks(xid=b"\x00\x00\x08"), *packets[1:]]
    assert set(phases(other, told).all(told).values()) == {None}


def test_they_may_count_from_another_instant_than_the_message() -> None:
    """As when a carrier or a first frame shows the node, before it asks or without that it ever does."""
    told, packets, wanted = LADDERS["proxy"]
    early = phases(packets, told, START - 5).all(told)
    assert {phase: early[phase] for phase in wanted} == {p: at + 5 for p, at in wanted.items()}
    silent = phases([down(3, ONE), *packets[2:]], told, START + 4).all(told)
    assert (silent[Phase.UPDATES], silent[Phase.OPEN]) == (8, 20)


def test_what_the_s_maar_sends_out_by_its_default_route_does_not_count() -> None:
    told = move()
    astray = [up(3, ONE, 9, THREE.node, THREE.node), up(4, ONE, 9, CN1.node, "core")]
    right = [*up_by_anchor(8, ONE, 10), *up_by_anchor(9, TWO, 11)]
    assert phases([asks(), *astray], told).up == {}
    assert phases([asks(), *astray, *right], told).up == {OLD[ONE]: 8, OLD[TWO]: 9}


def test_what_arrives_where_the_node_was_does_not_count() -> None:
    assert phases([asks(), down(3, ONE, serving=TWO)], move()).down == {}


def test_packets_that_circle_are_counted_each_time() -> None:
    def back(at: int, plan: MaarPlan = THREE) -> Packet:
        addresses = CN1.packed, OLD[ONE]
        return udp(at, plan.node, (plan.node, "core"), addresses, bytes(16), (PORT, PORT))

    tunnelled = udp(
        *(4, THREE.node, ("core", THREE.node), (CN1.packed, OLD[ONE]), bytes(16), (PORT, PORT)),
        tunnel=(ONE.endpoint, THREE.endpoint),
    )
    assert sent_back([asks(), tunnelled, back(5), tunnelled, back(7), back(8, ONE)], move()) == 2


def test_how_long_each_message_was_held() -> None:
    packets = [
        relay_reply(0, ONE, link=CMD.node),
        relay_reply(2, TWO, link=CMD.node),
        relay_reply(20, ONE, link=BEFORE_DELAY),
        relay_reply(25, TWO, link=BEFORE_DELAY),
        relay_reply(26, TWO),
        pbu(30, ONE),
        relay_forward(40),
    ]
    assert held(packets) == [20, 23]
