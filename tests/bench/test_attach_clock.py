"""Steps of a handover from packets and kernels' words that were made up: from MAAR1, the anchor, to MAAR2."""

from __future__ import annotations

import struct

from bench.attach_clock import Said, Step, Watched, steps
from bench.kernel_events import What
from bench.packet_stream import PORT, Flow
from bench.phase_clock import Move
from dmm_wire import mobility as mh
from dmm_wire.address import UNSPECIFIED, parse_address
from dmm_wire.dhcpv6.codes import SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage
from lab.packets import ICMPV6, MOBILITY, UDP, Packet
from lab.topology import CMD, CN1, MAAR_PLANS, MaarPlan

ONE, TWO, _ = MAAR_PLANS
ADDRESS = parse_address("2001:db8:100:7::1")
PREFIX = parse_address("2001:db8:100:7::")
LINK_LOCAL = parse_address("fe80::be:7")
START = 1_000_000
MOVE = Move(TWO, (ONE,), bytes(3), frozenset({TWO.name}), (Flow(UNSPECIFIED, ADDRESS),))
WATCHED = Watched(MOVE, START)


def packet(
    at: int,
    link: str,
    sender: str,
    addresses: tuple[bytes, bytes],
    protocol: int,
    payload: bytes,
    tunnel: tuple[bytes, bytes] | None = None,
) -> Packet:
    return Packet(START + at, link, sender, "", *addresses, protocol, payload, len(payload), tunnel)


def report(at: int, link: str = TWO.access_link) -> Packet:
    return packet(at, link, "mn", (LINK_LOCAL, parse_address("ff02::16")), ICMPV6, b"\x8f")


def relayed(at: int, sender: str, kind: MessageType, transaction: int) -> Packet:
    inner = MessageType.REPLY if sender == "core" else MessageType.INFORMATION_REQUEST
    message = ClientMessage(inner, transaction.to_bytes(3, "big"), ()).encode()
    options = ((int(OptionCode.RELAY_MSG), message),)
    data = RelayMessage(kind, 0, TWO.link_address, LINK_LOCAL, options).encode()
    payload = struct.pack("!HHHH", SERVER_PORT, SERVER_PORT, 8 + len(data), 0) + data
    return packet(at, TWO.node, sender, (TWO.endpoint, CMD.packed), UDP, payload)


def query(at: int, transaction: int = 5) -> Packet:
    return relayed(at, TWO.node, MessageType.RELAY_FORW, transaction)


def answer(at: int, transaction: int = 5) -> Packet:
    return relayed(at, "core", MessageType.RELAY_REPL, transaction)


def pbu(at: int) -> Packet:
    ends = TWO.endpoint, ONE.endpoint
    payload = mh.encode(mh.BindingUpdate(1, 60), *ends)
    return packet(at, ONE.node, "core", ends, MOBILITY, payload)


def pba(at: int) -> Packet:
    ends = ONE.endpoint, TWO.endpoint
    payload = mh.encode(mh.BindingAcknowledgement(0, 1, 60), *ends)
    return packet(at, TWO.node, "core", ends, MOBILITY, payload)


def datagram(
    at: int, link: str, sender: str, number: int, *, up: bool, tunnelled: bool = False
) -> Packet:
    ends = (ADDRESS, CN1.packed) if up else (CN1.packed, ADDRESS)
    payload = struct.pack("!HHHHI", PORT, PORT, 24, 0, number) + bytes(12)
    tunnel = (TWO.endpoint, ONE.endpoint) if tunnelled else None
    return packet(at, link, sender, ends, UDP, payload, tunnel)


def goes_up(at: int, number: int) -> list[Packet]:
    """From the node's new link by way of the anchor, 10 ns for each hop."""
    return [
        datagram(at - 30, TWO.access_link, "mn", number, up=True),
        datagram(at - 20, ONE.node, "core", number, up=True, tunnelled=True),
        datagram(at - 10, ONE.node, ONE.node, number, up=True),
        datagram(at, CN1.node, "core", number, up=True),
    ]


def kernels(*, route: int = 520, rule: int = 540, anchor: int = 560) -> list[Said]:
    return [
        said(TWO, What.ROUTE_PUT, route),
        said(TWO, What.SOURCE_PUT, rule),
        said(ONE, What.ROUTE_PUT, anchor),
        said(ONE, What.ROUTE_PUT, anchor + 5_000),  # and once more
    ]


def said(maar: MaarPlan, what: What, at: int) -> Said:
    return Said(maar, what, PREFIX, START + at)


ALL = [
    report(100),
    query(200),
    answer(400),
    pbu(500),
    pba(600),
    datagram(700, TWO.access_link, TWO.node, 1, up=False),
    *goes_up(800, 2),
]


def test_each_step_has_its_time() -> None:
    assert steps(ALL, kernels(), WATCHED) == {
        Step.FRAME: 100,
        Step.QUERY: 200,
        Step.ANSWER: 400,
        Step.UPDATE: 500,
        Step.ACKNOWLEDGED: 600,
        Step.SERVING: 540,
        Step.ANCHOR: 560,
        Step.SET: 560,
        Step.DOWN: 700,
        Step.UP: 800,
        Step.OPEN: 800,
    }


def test_what_was_before_the_move_does_not_count() -> None:
    before = [
        report(-50),
        query(-40, 4),
        report(10, ONE.access_link),  # still at home
        # sent at home, and at the CN when the node has moved
        datagram(-20, ONE.access_link, "mn", 9, up=True),
        datagram(-10, ONE.node, ONE.node, 9, up=True),
        datagram(20, ONE.node, ONE.node, 10, up=True),
        datagram(30, CN1.node, "core", 10, up=True),
    ]
    early = [said(TWO, What.ROUTE_PUT, -30), said(ONE, What.ROUTE_PUT, -30)]
    assert steps(before + ALL, early + kernels(), WATCHED) == steps(ALL, kernels(), WATCHED)


def test_the_answer_is_that_to_the_question() -> None:
    found = steps([report(100), query(200), answer(300, 4), answer(450)], [], WATCHED)
    assert found == {Step.FRAME: 100, Step.QUERY: 200, Step.ANSWER: 450}


def test_the_first_frame_is_the_nodes_own() -> None:
    """What its new MAAR has sent there before it, to all nodes, is none of its."""
    ends = (parse_address("fe80::1"), parse_address("ff02::1"))
    advertisement = packet(30, TWO.access_link, TWO.node, ends, ICMPV6, b"\x86")
    assert steps([advertisement, *ALL], kernels(), WATCHED) == steps(ALL, kernels(), WATCHED)


def test_a_hook_counts_as_the_first_frame() -> None:
    assert steps(ALL, kernels(), Watched(MOVE, START, START + 30))[Step.FRAME] == 30


def test_a_kernel_that_is_heard_late_had_it_when_a_packet_crossed() -> None:
    found = steps(ALL, kernels(rule=9_000, anchor=9_000), WATCHED)
    assert (found[Step.SERVING], found[Step.ANCHOR], found[Step.SET]) == (800, 700, 800)


def test_what_was_not_done_is_missing() -> None:
    found = steps(ALL[:5], kernels()[:1] + kernels()[2:], WATCHED)
    assert Step.SERVING not in found
    assert Step.SET not in found
    assert Step.OPEN not in found
    assert found[Step.ANCHOR] == 560
    other = [each._replace(address=ADDRESS) for each in kernels()]
    assert Step.ANCHOR not in steps(ALL, other, WATCHED)
