"""Reading frames, following packets, drawing the ladder: the parts of the lab that need no network."""

from __future__ import annotations

import struct
from pathlib import Path

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage
from lab import ladder, messages, paths
from lab.checks import Check, Checks
from lab.expect import expected_way
from lab.flows import Counts
from lab.messages import Message
from lab.names import Names
from lab.packets import MOBILITY, TCP, UDP, Packet, parse_frame
from lab.pcapng import PcapNgWriter
from lab.scenario import Flow
from lab.stream import Pattern
from lab.topology import CMD, CN1, MAAR_PLANS

T1, T2, T3 = (plan.endpoint for plan in MAAR_PLANS)
MN = parse_address("2001:db8:100:7::1")
LINK = Prefix.parse("2001:db8:100:7::/64")
DELEGATED = Prefix.parse("2001:db8:d100:700::/56")


def ipv6(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    return (
        struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source + destination + payload
    )


def frame(packet: bytes) -> bytes:
    return bytes(12) + b"\x86\xdd" + packet


def tcp(data: bytes, sequence: int = 1) -> bytes:
    return struct.pack("!HHIIBBHHH", 5001, 40000, sequence, 1, 5 << 4, 16, 1000, 0, 0) + data


def read(packet: bytes, link: str = "m1", sender: str = "core", receiver: str = "m1") -> Packet:
    found = parse_frame(frame(packet), 1, link, sender, receiver)
    assert found is not None
    return found


def test_a_plain_and_an_encapsulated_packet_have_one_identity() -> None:
    inner = ipv6(CN1.packed, MN, TCP, tcp(b"data"))
    plain, tunnelled = read(inner), read(ipv6(T1, T2, 41, inner))
    assert plain.tunnel is None
    assert tunnelled.tunnel == (T1, T2)
    assert (tunnelled.source, tunnelled.destination) == (CN1.packed, MN)
    assert plain.identity == tunnelled.identity
    assert plain.identity != read(ipv6(CN1.packed, MN, TCP, tcp(b"data", 2))).identity
    assert plain.is_user_data
    assert not read(ipv6(CN1.packed, MN, TCP, tcp(b""))).is_user_data


def test_extension_headers_are_passed_over_and_named() -> None:
    routing = bytes((41, 2, 4, 0)) + bytes(20)
    found = read(ipv6(T1, T2, 43, routing + ipv6(CN1.packed, MN, UDP, bytes(8))))
    assert found.extensions == (43,)
    assert found.protocol == UDP


def test_what_is_no_ipv6_packet_is_nothing() -> None:
    for data in (b"", frame(b""), frame(bytes(39)), frame(b"\x45" + bytes(60)), bytes(80)):
        assert parse_frame(data, 1, "m1", "core", "m1") is None
    whole = ipv6(T1, T2, 41, ipv6(CN1.packed, MN, UDP, bytes(8)))
    for length in range(len(whole)):
        parse_frame(frame(whole[:length]), 1, "m1", "core", "m1")


def test_a_way_is_followed_from_link_to_link() -> None:
    inner = ipv6(MN, CN1.packed, TCP, tcp(b"data"))
    outer = ipv6(T2, T1, 41, inner)
    hops = [
        (inner, "access2", "mn", "m2"),
        (outer, "m2", "m2", "core"),
        (outer, "m1", "core", "m1"),
        (inner, "m1", "m1", "core"),
        (inner, "cn1", "core", "cn1"),
    ]
    packets = []
    for at, (data, link, sender, receiver) in enumerate(hops):
        packet = parse_frame(frame(data), at, link, sender, receiver)
        assert packet is not None
        packets.append(packet)
    found = paths.of_flow(packets, MN, CN1.packed, since=0, until=10)
    anchor, serving = MAAR_PLANS[0], MAAR_PLANS[1]
    flow = Flow("flow 1", None, CN1, anchor)  # type: ignore[arg-type]
    assert found == {expected_way(flow, serving, up=True): 1}
    (way,) = found
    assert paths.text(way, Names()) == (
        "MN ──▶ MAAR2 ══▶ core ══▶ MAAR1 ──▶ core ──▶ CN1  tunnel T2→T1"
    )
    assert not paths.of_flow(packets, MN, CN1.packed, since=1, until=10)


def test_a_packet_sent_again_is_another_one_and_a_loop_is_not() -> None:
    hops = [("access2", "mn", "m2"), ("m2", "m2", "core"), ("cn1", "core", "cn1")]
    looping = [hops[0], hops[1], ("m1", "core", "m1"), ("m1", "m1", "core"), hops[1], hops[2]]

    def seen(links: list[tuple[str, str, str]]) -> list[Packet]:
        data = frame(ipv6(MN, CN1.packed, TCP, tcp(b"data")))
        found = [parse_frame(data, at, *link) for at, link in enumerate(links)]
        return [packet for packet in found if packet is not None]

    assert paths.ways(seen(hops + hops)) == {paths.direct("mn", "m2", "core", "cn1"): 2}
    assert [len(way) for way in paths.ways(seen(looping))] == [6]


def test_the_way_back_is_the_way_reversed() -> None:
    flow = Flow("flow 1", None, CN1, MAAR_PLANS[0])  # type: ignore[arg-type]
    up = expected_way(flow, MAAR_PLANS[2], up=True)
    down = expected_way(flow, MAAR_PLANS[2], up=False)
    assert [(hop.link, hop.tunnel) for hop in up] == [
        (hop.link, hop.tunnel and hop.tunnel[::-1]) for hop in reversed(down)
    ]


def relayed() -> Packet:
    client = ClientMessage(MessageType.REPLY, b"abc", ())
    option = dmm.to_option(
        dmm.DEFAULT_ENTERPRISE,
        [
            dmm.Visit(0x6B03F7268000, T1),
            dmm.PreviousMaar(LINK, 0, 60, False, T1),
            dmm.PreviousMaar(DELEGATED, 0, 60, True, T1),
        ],
    )
    data = RelayMessage(
        MessageType.RELAY_REPL,
        0,
        MAAR_PLANS[1].link_address,
        MN,
        (option, (OptionCode.RELAY_MSG, client.encode())),
    ).encode()
    datagram = struct.pack("!HHHH", 547, 547, 8 + len(data), 0) + data
    return read(ipv6(CMD.packed, T2, UDP, datagram), "cmd", "cmd", "core")


def test_relay_options_are_named() -> None:
    (message,) = messages.read([relayed()], Names())
    assert message.title == "Relay-reply(Reply)"
    assert (message.sender, message.receiver) == ("CMD", "MAAR2")
    assert message.details == (
        "VISIT 08:19:50.500000, left T1",
        "PREVIOUS_MAAR Pref1 at T1",
        "PREVIOUS_MAAR Del1 at T1",
    )


def binding_update() -> Packet:
    update = mh.BindingUpdate(7, 60, (mh.HomeNetworkPrefix(LINK), mh.ServingMaar(T2)))
    return read(ipv6(T2, T1, MOBILITY, mh.encode(update, T2, T1)))


def test_a_pbu_counts_where_it_arrives_and_a_damaged_one_says_so() -> None:
    packet = binding_update()
    (message,) = messages.read([packet], Names())
    assert (message.name, message.sender, message.receiver) == ("PBU", "MAAR2", "MAAR1")
    assert message.details == (
        "sequence 7",
        "flags AHPD",
        "60 s",
        "HNP(22) Pref1",
        "Serving MAAR(68) T2",
    )
    assert not messages.read(
        [parse_frame(frame(ipv6(T2, T1, MOBILITY, packet.payload)), 1, "m2", "m2", "core")],  # type: ignore[list-item]
        Names(),
    )
    damaged = read(ipv6(T3, T1, MOBILITY, packet.payload))
    (message,) = messages.read([damaged], Names())
    assert message.name == "undecodable: checksum"


def test_a_second_prefix_of_one_maar_gets_another_name() -> None:
    names = Names()
    assert names.prefix(LINK) == "Pref1"
    assert names.prefix(Prefix.parse("2001:db8:100:8::/64")) == "Pref1'"
    assert names.prefix(LINK) == "Pref1"
    assert names.address(MN) == "Pref1::…"


def test_the_ladder_fits_and_repeats_share_a_line() -> None:
    found = messages.read([relayed(), binding_update()], Names())
    report = Message(5, "access1", "MN", "MAAR1", "MLDv2 report")
    drawing = ladder.Ladder(0, 100)
    lines = drawing.feed([*found, report, report]) + drawing.flush()
    texts = [line.plain for line in (ladder.head(), *lines)]
    assert all(len(text) <= 100 for text in texts)
    assert sum("MLDv2 report ×2" in text for text in texts) == 1
    assert any("◀" in text and "Relay-reply(Reply)" in text for text in texts)
    columns = [texts[0].index(name) for name in ("MN", "MAAR1", "CMD")]
    assert columns == sorted(columns)


def test_an_advertisement_in_a_frame_to_one_node_is_told_to_that_node() -> None:
    everybody, here = parse_address("ff02::1"), parse_address("fe80::200:5eff:fe00:5213")
    data = ipv6(here, everybody, 58, bytes((134, 0, 0, 0, 64, 0x80)) + bytes(10))

    def told(target: bytes) -> str:
        packet = parse_frame(target + bytes(6) + b"\x86\xdd" + data, 1, "access1", "m1", "mn")
        assert packet is not None
        (message,) = messages.read([packet], Names())
        return message.details[0]

    assert told(bytes.fromhex("02005e0053aa")) == "to the node, flags M"
    assert told(bytes.fromhex("333300000001")) == "all nodes, flags M"


def test_pcapng_can_be_read_back(tmp_path: Path) -> None:
    writer = PcapNgWriter(tmp_path / "x.pcapng", ["m1", "access1"])
    writer.write(1, 1_700_000_000_123_456_789, b"abcde")
    writer.close()
    data = (tmp_path / "x.pcapng").read_bytes()
    blocks = []
    while data:
        kind, length = struct.unpack_from("<II", data)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, length - 4) == (length,)
        blocks.append((kind, data[8 : length - 4]))
        data = data[length:]
    assert [kind for kind, _ in blocks] == [0x0A0D0D0A, 1, 1, 6]
    link, high, low, captured, original = struct.unpack_from("<IIIII", blocks[3][1])
    assert (link, captured, original) == (1, 5, 5)
    assert high << 32 | low == 1_700_000_000_123_456_789
    assert blocks[3][1][20:25] == b"abcde"


def test_the_pattern_of_a_flow_shows_loss_and_repetition() -> None:
    pattern, other = Pattern("up"), Pattern("down")
    whole = pattern.at(65_500, 3000)
    assert pattern.at(65_500, 1000) + pattern.at(66_500, 2000) == whole
    assert whole != other.at(65_500, 3000)
    assert all(pattern.at(0, 1000) != pattern.at(shift, 1000) for shift in (1, 1000, 1460, 4096))


def test_counts_are_complete_only_when_every_octet_arrived() -> None:
    assert Counts(5, 5, 7, 7, True).complete
    assert not Counts(5, 4, 7, 7, True).complete
    assert not Counts(5, 5, 7, 6, True).complete
    assert not Counts(5, 5, 7, 7, False).complete
    assert not Counts(0, 0, 0, 0, True).complete


def test_checks_go_on_after_one_that_did_not_hold() -> None:
    heard: list[Check] = []
    checks = Checks(tell=heard.append)
    checks.equal("one", 1, 2)
    checks.that("two", True, "unseen")
    assert [check.held for check in checks.made] == [False, True]
    assert checks.failed == heard[:1]
    assert heard[0].found == "found 1, expected 2"
    assert heard[1].found == ""
