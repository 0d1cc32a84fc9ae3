"""Nodes that move at once in a whole domain: what is counted, with times that were made up, and a small crowd."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from pathlib import Path

import pytest

from bench import cli, crowd_moves, crowd_probes
from bench.crowd_clock import Flows, Moved, Word, moved, word
from bench.crowd_frames import HOP_LIMIT, PORT, TUNNELLED, Probe, carried, hop_limit, sent_back
from bench.crowd_lab import CrowdLab
from bench.crowd_moves import Result
from bench.crowd_probes import Turns
from dmm_wire.address import parse_address, parse_mac
from dmm_wire.dhcpv6.codes import MessageType
from lab import netns
from lab.faults import frames
from lab.faults.frames import ROUTER_MAC
from lab.packets import ICMPV6, MOBILITY, UDP

MAC = parse_mac("02:be:00:00:00:07")
NODE = parse_address("2001:db8:100:7::1")
CN = parse_address("2001:db8:0:c1::2")
MS = 1_000_000


def test_a_node_sends_a_probe_back() -> None:
    probe = Probe(3, 7)
    came = frames.udp(ROUTER_MAC, CN, NODE, (PORT, PORT), probe.encode())
    came = MAC + came[6:21] + bytes((TUNNELLED,)) + came[22:]
    assert (carried(came), hop_limit(came)) == (probe, TUNNELLED)
    back = sent_back(came)
    assert back == frames.udp(MAC, NODE, CN, (PORT, PORT), probe.encode()), "its own checksum"
    assert hop_limit(back) == HOP_LIMIT
    assert Probe.decode(b"short") is None


def test_a_report_is_as_hosts_send_it() -> None:
    own = parse_address("fe80::2be:0:7")
    report = frames.multicast_report(MAC, own, (own, NODE, parse_address("2001:db8:200:7::1")))
    parsed = frames.parse(report)
    assert parsed is not None
    assert (parsed.to, parsed.source, parsed.hop_limit) == (
        parse_mac("33:33:00:00:00:16"),
        own,
        1,
    )
    assert parsed.destination == parse_address("ff02::16")
    # RFC 2711: a router is to look at it; then ICMPv6 143, and the two groups of three addresses.
    assert parsed.body[:8] == bytes.fromhex("3a00050200000100")
    assert parsed.body[8] == frames.MULTICAST_REPORT
    assert int.from_bytes(parsed.body[14:16], "big") == 2
    groups = [parsed.body[20 + 20 * n : 36 + 20 * n] for n in range(2)]
    assert groups == [parse_address("ff02::1:ff00:7"), parse_address("ff02::1:ff00:1")]
    message = parsed.body[8:]
    pseudo = parsed.source + parsed.destination + struct.pack("!I3xB", len(message), ICMPV6)
    assert int.from_bytes(pseudo + message, "big") % 0xFFFF == 0


def core_frame(protocol: int, body: bytes) -> bytes:
    header = struct.pack("!IHBB32x", 6 << 28, len(body), protocol, 64)
    return bytes(12) + b"\x86\xdd" + header + body


@pytest.mark.parametrize(
    ("protocol", "body", "wanted"),
    [
        (UDP, bytes(8) + bytes((MessageType.RELAY_FORW,)), Word.QUESTION),
        (UDP, bytes(8) + bytes((MessageType.RELAY_REPL,)), Word.ANSWER),
        (UDP, bytes(8) + bytes((MessageType.SOLICIT,)), None),
        (MOBILITY, bytes((59, 1, 5)) + bytes(13), Word.UPDATE),
        (MOBILITY, bytes((59, 1, 6)) + bytes(13), Word.ACKNOWLEDGED),
        (MOBILITY, bytes((59, 1, 7)) + bytes(13), None),
        (MOBILITY, bytes((59, 1, 1)) + bytes(13), None),
        (UDP, b"", None),
    ],
)
def test_what_is_said_in_the_core(protocol: int, body: bytes, wanted: Word | None) -> None:
    assert word(core_frame(protocol, body)) is wanted


def test_times_count_from_each_nodes_own_frame() -> None:
    flows = Flows(2, {1: 10 * MS, 2: 12 * MS, 3: 13 * MS})
    for node, down, up in ((1, 30, 31), (2, 20, 42), (3, 50, 0)):
        assert flows.arrived(Probe(2, node), TUNNELLED, down * MS)
        if up:
            assert flows.returned(Probe(2, node), TUNNELLED, up * MS)
    flows.arrived(Probe(2, 1), TUNNELLED, 99 * MS)  # the first one counts
    assert [flows.is_open(node) for node in (1, 2, 3)] == [True, True, False]
    assert not flows.are_open
    said = [(Word.QUESTION, 9 * MS), (Word.QUESTION, 11 * MS), (Word.ANSWER, 14 * MS)]
    found = moved(flows, said)
    assert found.down == [0.020, 0.008, 0.037]
    assert found.up == [0.021, 0.030]
    assert found.opened == [0.021, 0.030]
    assert (found.last, found.saying, found.closed) == (0.032, 0.003, 1)
    assert found.words[Word.QUESTION] == [0.001], (
        "what was said before the first frame is not of it"
    )
    assert found.words[Word.ANSWER] == [0.004]


def test_what_is_not_of_the_move_does_not_count() -> None:
    flows = Flows(2, {1: 0})
    assert not flows.arrived(Probe(1, 1), TUNNELLED, 5)
    assert not flows.arrived(Probe(2, 9), TUNNELLED, 5)
    assert not flows.arrived(None, TUNNELLED, 5)
    assert flows.arrived(Probe(2, 1), TUNNELLED + 1, 5), "it is answered"
    assert not flows.down
    assert moved(flows, ()).astray == {"down": 1}
    assert moved(flows, ()).closed == 1


def crowd(last: float, acknowledged: int) -> Result:
    result = Result("away", 1000)
    words = {**dict.fromkeys(Word, [last] * 1000), Word.ACKNOWLEDGED: [last] * acknowledged}
    used = {"CMD": 0.3, "S-MAAR": 0.7, "anchor": 0.4, "generator": 0.2}
    for opened in (1000, 999):
        times = [last] * opened
        result.add(Moved(1000, times, times, times, last, words, 0.01, {}), used)
    return result


def test_what_never_came_is_wrong_and_no_bar_is_met_by_the_others() -> None:
    result = crowd(0.9, 998)
    told = "998 PBAs for 1000 nodes"
    assert result.wrong == [told, "1 of 1000 flows were never restored", told]
    row = dict(zip(crowd_moves.COLUMNS, result.row(), strict=True))
    assert (row["moves"], row["last of all ms"], row["wrong"]) == ("2", "900.0", "3")
    assert (row["CPU S-MAAR"], row["questions/node"]) == ("700", "1.00")
    assert [(bar.found, bar.met) for bar in crowd_moves.bars([result])] == [
        ("never", False),
        ("3", False),
    ]


@pytest.mark.parametrize(
    ("size", "most", "groups", "passes"),
    [(1, 50, 50, 1), (100, 50, 10, 1), (1000, 50, 1, 5), (500, 50, 2, 3), (1000, 2, 1, 2)],
)
def test_small_crowds_take_turns(size: int, most: int, groups: int, passes: int) -> None:
    assert (crowd_moves.groups(size, most), crowd_moves.passes(size, most)) == (groups, passes)


def test_a_large_crowd_is_looked_at_more_seldom() -> None:
    assert crowd_probes.interval(1) == crowd_probes.LEAST
    assert crowd_probes.interval(4000) == pytest.approx(4 * crowd_probes.interval(1000))
    assert 1000 / crowd_probes.interval(1000) == pytest.approx(crowd_probes.RATE)


def probed(turns: Turns, begin: float, end: float, done: set[int]) -> Counter[int]:
    """How often each had its turn when somebody looks every millisecond."""
    found: Counter[int] = Counter()
    for step in range(1, round((end - begin) * 1000) + 1):
        found.update(turns.due(begin + step / 1000, done.__contains__))
    return found


def test_all_have_their_turns_and_the_rest_has_more_of_them() -> None:
    turns = Turns(range(1000), 0.0)
    found = probed(turns, 0.0, 0.5, set())
    assert len(found) == 1000
    assert set(found.values()) <= {4, 5}
    found = probed(turns, 0.5, 0.6, set(range(900)))
    assert set(found) == set(range(900, 1000))
    assert set(found.values()) <= {9, 10}
    assert turns.due(0.7, lambda _: True) == []
    assert turns.next is None


def test_who_comes_late_sends_to_each_but_once() -> None:
    turns = Turns(range(10), 0.0)
    assert turns.due(5.0, lambda _: False) == list(range(10))
    assert len(turns.due(5.001, lambda _: False)) <= 10
    assert turns.next == pytest.approx(5.001 + crowd_probes.LEAST / 2)


@pytest.mark.root
@pytest.mark.slow
def test_a_crowd_has_its_packets_again_and_what_is_wrong_is_noticed() -> None:
    prefix = f"crowdp{os.getpid()}"
    with CrowdLab(prefix, 20) as lab:
        assert lab.wrong() == []
        for to in (lab.away, lab.home):
            found, cpu = lab.move(lab.hosts.nodes, to)
            assert found.closed == 0, lab.tails()
            assert 0 < min(found.down) <= max(found.opened) <= found.last
            assert len(found.words[Word.QUESTION]) >= 20
            assert len(found.words[Word.ACKNOWLEDGED]) >= 20
            assert max(found.words[Word.ANSWER]) < found.last
            assert min(cpu.values()) > 0
            assert lab.wrong() == []
        # A node that is elsewhere without a word.
        lab.hosts.at[7] = lab.away
        lines = lab.wrong()
        assert "node 7 is at maar2, and the CMD has it at maar1" in lines
        assert any("node 7" in line and "route" in line for line in lines)
    assert not [name for name in netns.names() if name.startswith(prefix)]


@pytest.mark.root
@pytest.mark.slow
def test_the_command_writes_what_it_measured(tmp_path: Path) -> None:
    options = ["--parts", "domain", "--sizes", "2", "--moves", "2", "--output", str(tmp_path)]
    assert cli.run(["crowd", *options, "--prefix", f"crowdc{os.getpid()}"]) == 0
    found = json.loads((tmp_path / "crowd.json").read_text())["domain"]
    assert [(each["move"], each["nodes"]) for each in found] == [("away", 2), ("back", 2)]
    assert all(each["wrong"] == [] and len(each["moves"]) == 2 for each in found)
    assert all(min(move["opened"]) > 0 for each in found for move in each["moves"])
