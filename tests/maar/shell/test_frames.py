"""The packet filters: every kind of frame that must pass and every kind that must not, as octets, through an
interpreter of BPF written from its description; and through the kernel."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest

from dmm_wire.address import Prefix, format_mac, parse_address, parse_mac
from dmm_wire.router_identity import RouterIdentity
from lab import netns
from relay_maar.core.arrivals import MOST_QUIET
from relay_maar.core.settings import AttachSettings
from relay_maar.io import bpf
from relay_maar.io.frames import NOTHING, SPEAKS, Frame, FrameSocket, StrangerSocket, strangers

ROUTER_MAC = parse_mac("00:00:5e:00:52:13")
HOST_MAC = parse_mac("02:00:00:00:00:0a")
HOST = parse_address("fe80::a")
ROUTER = parse_address("fe80::200:5eff:fe00:5213")
GLOBAL = parse_address("2001:db8:1:101::a")
ANYBODY = parse_address("2001:db8:ffff::1")
GROUP = b"\x33\x33\0\0\0\x16"
SOURCES = AttachSettings().sources
ALERT = b"\x3a\0\5\2\0\0\1\0"
"""A Hop-by-Hop Options header with a Router Alert, before ICMPv6."""


def run(program: Sequence[bpf.Instruction], frame: bytes) -> int:
    """What bpf(4) says that a program does: how much of the frame is kept."""
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, k = program[at]
        at += 1
        if code in (0x20, 0x28, 0x30):
            size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
            if k + size > len(frame):
                return 0
            accumulator = int.from_bytes(frame[k : k + size], "big")
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            at += k
        elif code == 0x15:
            at += jump_true if accumulator == k else jump_false
        elif code == 0x35:
            at += jump_true if accumulator >= k else jump_false
        else:
            assert code == 0x06, hex(code)
            return k


def frame(
    payload: bytes,
    next_header: int = 58,
    source: bytes = HOST,
    *,
    to: bytes = GROUP,
    hop_limit: int = 255,
    mac: bytes = HOST_MAC,
    ethertype: int = 0x86DD,
) -> bytes:
    header = struct.pack("!IHBB", 6 << 28, len(payload), next_header, hop_limit)
    destination = parse_address("ff02::16") if to == GROUP else ANYBODY
    return to + mac + struct.pack("!H", ethertype) + header + source + destination + payload


def icmp(kind: int, size: int = 24) -> bytes:
    return bytes((kind,)).ljust(size, b"\0")


def udp(port: int, payload: bytes = b"\1abc") -> bytes:
    return struct.pack("!HHHH", 546, port, 8 + len(payload), 0) + payload


SPEAKING = {
    "MLDv2 report": frame(ALERT + icmp(143), 0, hop_limit=1),
    "MLDv2 report before there is an address": frame(ALERT + icmp(143), 0, bytes(16), hop_limit=1),
    "MLDv1 report": frame(ALERT + icmp(131), 0, hop_limit=1),
    "MLDv1 done": frame(ALERT + icmp(132), 0, hop_limit=1),
    "RS": frame(icmp(133)),
    "RS without an address": frame(icmp(133), source=bytes(16)),
    "NS": frame(icmp(135)),
    "NS of an address that is tried out": frame(icmp(135), source=bytes(16)),
    "NS to the router": frame(icmp(135), to=ROUTER_MAC),
    "NA": frame(icmp(136), to=ROUTER_MAC),
    "DHCPv6": frame(udp(547), 17),
    "DHCPv6 by unicast": frame(udp(547), 17, to=ROUTER_MAC),
}
SILENT = {
    "ARP": frame(icmp(143), ethertype=0x0806),
    "IPv4": frame(icmp(143), ethertype=0x0800),
    "a frame with a VLAN tag": frame(icmp(143), ethertype=0x8100),
    "a TCP segment": frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC),
    "a datagram": frame(udp(53), 17, GLOBAL, to=ROUTER_MAC),
    "a DHCPv6 answer": frame(udp(546), 17),
    "an echo request": frame(icmp(128), 58, GLOBAL, to=ROUTER_MAC),
    "an RA": frame(icmp(134)),
    "a Redirect": frame(icmp(137)),
    "an MLD query": frame(ALERT + icmp(130), 0, hop_limit=1),
    "an NS from elsewhere": frame(icmp(135), hop_limit=254),
    "an NA from elsewhere": frame(icmp(136), hop_limit=64),
    "another Hop-by-Hop option": frame(b"\x3a\1" + bytes(14) + icmp(143), 0),
    "Hop-by-Hop before UDP": frame(b"\x11\0\5\2\0\0\1\0" + udp(547), 0),
    "a fragment": frame(b"\x3a\0\0\1" + bytes(4) + icmp(143), 44),
    "a tunnel": frame(frame(icmp(143))[14:], 41),
    "a frame that is cut off": frame(icmp(143))[:53],
    "nothing": b"",
}


@pytest.mark.parametrize("name", SPEAKING)
def test_what_a_node_says_when_it_comes_passes(name: str) -> None:
    assert run(SPEAKS, SPEAKING[name]) == 128
    assert run(NOTHING, SPEAKING[name]) == 0


@pytest.mark.parametrize("name", SILENT)
def test_everything_else_does_not(name: str) -> None:
    assert run(SPEAKS, SILENT[name]) == 0


# --- packets of strangers ---

DATA = frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC, hop_limit=64)


def program(*quiet: bytes, sources: Sequence[Prefix] = SOURCES) -> Sequence[bpf.Instruction]:
    made = strangers(quiet, sources)
    assert made is not None
    return made


def test_a_packet_of_a_stranger_passes_and_one_of_a_known_node_does_not() -> None:
    assert run(program(), DATA) == 54
    assert run(program(HOST_MAC), DATA) == 0
    assert run(program(ROUTER_MAC), DATA) == 54


@pytest.mark.parametrize(
    ("source", "passes"),
    [
        ("2001:db8:1:101::a", True),
        ("3fff:ffff::1", True),
        ("fd00::1", True),
        ("fe80::a", False),
        ("::", False),
        ("::1", False),
        ("ff02::1", False),
        ("4000::1", False),
        ("1fff::1", False),
    ],
)
def test_sources_that_can_be_a_nodes(source: str, passes: bool) -> None:
    packet = frame(bytes(20), 6, parse_address(source), to=ROUTER_MAC)
    assert run(program(), packet) == (54 if passes else 0)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 40, 63, 64, 65, 96, 127, 128])
def test_sources_of_every_length(length: int) -> None:
    prefixes = (Prefix.parse("fd00::/8"), Prefix.of(GLOBAL, length))
    noise = random.Random(length)
    for _ in range(200):
        address = bytearray(GLOBAL)
        if noise.random() < 0.8:
            bit = noise.randrange(128)
            address[bit // 8] ^= 0x80 >> bit % 8
        packet = frame(bytes(20), 6, bytes(address), to=ROUTER_MAC)
        expected = any(prefix.contains(bytes(address)) for prefix in prefixes)
        assert run(program(sources=prefixes), packet) == (54 if expected else 0)


def test_what_is_no_packet_to_the_router_shows_nobody() -> None:
    everybody = program()
    assert run(everybody, frame(bytes(20), 6, GLOBAL)) == 0  # multicast
    assert run(everybody, frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC, ethertype=0x0800)) == 0
    assert run(everybody, DATA[:25]) == 0


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 17, 100, 500, 1000])
def test_many_known_nodes_are_told_from_as_many_strangers(count: int) -> None:
    noise = random.Random(count)
    addresses = [b"\2" + noise.randbytes(5) for _ in range(2 * count)]
    known, unknown = addresses[:count], addresses[count:]
    made = program(*known)
    for each in known:
        assert run(made, frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC, mac=each)) == 0
    for each in unknown:
        assert run(made, frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC, mac=each)) == 54
    assert len(made) <= 40 + 2 * count


@pytest.mark.parametrize("bit", range(31))
def test_strangers_that_differ_from_a_known_node_by_one_bit(bit: int) -> None:
    """Of the last 31 of its link-layer address."""
    other = (int.from_bytes(HOST_MAC, "big") ^ 1 << bit).to_bytes(6, "big")
    assert run(program(HOST_MAC), frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC, mac=other)) == 54
    assert run(program(other), frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC, mac=other)) == 0


def test_more_than_a_program_can_hold() -> None:
    noise = random.Random(0)
    assert strangers([noise.randbytes(6) for _ in range(4000)], SOURCES) is None


# --- in the kernel ---

NAMES = (f"mft{os.getpid()}-r", f"mft{os.getpid()}-h")


@pytest.fixture(scope="module")
def link() -> Iterator[None]:
    router, host = NAMES
    netns.remove(NAMES)
    try:
        for name in NAMES:
            netns.ip("netns", "add", name)
        netns.ip("link", "add", "r0", "netns", router, "type", "veth", "peer", "h0", "netns", host)
        for name, device in ((router, "r0"), (host, "h0")):
            commands = (f"link set {device} addrgenmode none", f"link set {device} up")
            netns.batch(commands, namespace=name)
        # As our device has it: a frame to another one is none of ours.
        netns.ip("link", "set", "r0", "address", format_mac(ROUTER_MAC), namespace=router)
        yield
    finally:
        netns.remove(NAMES)


def tap(namespace: str, device: str) -> socket.socket:
    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind((device, 0x86DD))
        return sock

    sock: socket.socket = netns.inside(namespace, opened)
    return sock


@pytest.mark.root
def test_the_kernel_runs_them_as_the_interpreter_does(link: None) -> None:
    router, host = NAMES
    noise = random.Random(3)
    crowd = [b"\2" + noise.randbytes(5) for _ in range(300)]
    frames = netns.inside(router, lambda: FrameSocket("r0"))
    packets = netns.inside(router, lambda: StrangerSocket("r0"))
    wire = tap(host, "h0")
    with wire:
        try:
            wire.send(DATA)
            assert packets.watch(crowd, SOURCES)
            for each in (*SPEAKING.values(), *SILENT.values()):
                if len(each) >= 14:
                    wire.send(each)
            wire.send(frame(bytes(20), 6, GLOBAL, to=ROUTER_MAC, mac=crowd[7]))
            wire.send(DATA)
            found: list[Frame | None] = []
            while select.select([frames], [], [], 0 if len(found) == len(SPEAKING) else 5)[0]:
                found.append(frames.receive())
            kinds = [each.trigger for each in found if each is not None]
            assert kinds == ["mld"] * 4 + ["rs"] * 2 + ["ns"] * 3 + ["una"] + ["dhcpv6"] * 2
            seen = []
            while (packet := packets.receive()) is not None:
                seen.append(packet)
            # Of what was sent, the TCP segment, the datagram, the echo request; and DATA, once it was looked for.
            assert seen == [Frame(HOST_MAC, GLOBAL, "data")] * 4
            assert packets.watch([HOST_MAC, *crowd], SOURCES)
            wire.send(DATA)
            assert packets.watch(None, SOURCES)
            wire.send(DATA)
            wire.send(SPEAKING["RS"])
            assert select.select([frames], [], [], 5)[0]
            assert packets.receive() is None
        finally:
            frames.close()
            packets.close()


def promiscuity(namespace: str) -> int:
    """How many want to see all that is on r0."""
    shown = netns.ip("-d", "link", "show", "r0", namespace=namespace)
    return int(shown.split(" promiscuity ")[1].split()[0])


@pytest.mark.root
def test_on_the_interface_itself_all_is_seen_whoever_it_is_for(link: None) -> None:
    """A router that is not here, one that a macvlan shows. What is sent is not seen, nor what is of a VLAN."""
    router, host = NAMES
    other = b"\2\0\x5e\0\x53\x77"
    for command in (
        f"link add link r0 name d0 address {format_mac(other)} type macvlan mode bridge",
        "link set d0 up",
    ):
        netns.ip(*command.split(), namespace=router)
    frames = netns.inside(router, lambda: FrameSocket("r0", whole=True))
    before = promiscuity(router)
    packets = netns.inside(router, lambda: StrangerSocket("r0", whole=True))
    assert promiscuity(router) == before + 1, (
        "a card passes on what is for a router that is not here"
    )
    wire, back = tap(host, "h0"), tap(router, "r0")
    with wire, back:
        try:
            assert packets.watch([], SOURCES)
            back.send(DATA)
            back.send(SPEAKING["RS"])
            for to in (ROUTER_MAC, other, b"\2" + bytes(4) + b"\x99"):
                wire.send(to + DATA[6:])
                wire.send(to + DATA[6:12] + b"\x81\x00\x00\x07" + DATA[12:])
            wire.send(SPEAKING["RS"][:12] + b"\x81\x00\x00\x07" + SPEAKING["RS"][12:])
            wire.send(SPEAKING["RS"])
            assert select.select([frames], [], [], 5)[0]
            heard = frames.receive()
            assert heard is not None
            assert heard.trigger == "rs"
            assert frames.receive() is None
            seen = [packets.receive() for _ in range(4)]
            assert seen == [Frame(HOST_MAC, GLOBAL, "data")] * 3 + [None]
        finally:
            frames.close()
            packets.close()


@pytest.mark.root
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_of_a_vlan_is_not_of_this_link(link: None, whole: bool) -> None:
    """Where nobody here has that VLAN the kernel shows its frames without a tag. VLAN 0 is a priority, and no VLAN."""
    router, host = NAMES
    frames = netns.inside(router, lambda: FrameSocket("r0", whole=whole))
    packets = netns.inside(router, lambda: StrangerSocket("r0", whole=whole))
    with tap(host, "h0") as wire:
        try:
            assert packets.watch([], SOURCES)
            for tag, last in ((b"\x00\x07", 1), (b"\xe0\x07", 2), (b"\xe0\x00", 3), (None, 4)):
                for sent in (DATA, SPEAKING["RS"]):
                    shown = sent[:11] + bytes([last]) + sent[12:]
                    between = b"" if tag is None else b"\x81\x00" + tag
                    wire.send(shown[:12] + between + shown[12:])
            for sock in (packets, frames):
                assert select.select([sock], [], [], 5)[0]
                heard = [sock.receive() for _ in range(3)]
                assert [each and each.link_layer[-1] for each in heard] == [3, 4, None]
        finally:
            frames.close()
            packets.close()


@pytest.mark.root
def test_a_thousand_nodes_fit_the_memory_that_linux_6_1_gives_a_socket(link: None) -> None:
    """Each program in place of one as long."""
    router, _ = NAMES
    noise = random.Random(4)
    with contextlib.suppress(OSError, netns.LabError):  # of the whole machine in older kernels
        netns.write_sysctls(router, {"net/core/optmem_max": "20480"})
    packets = netns.inside(router, lambda: StrangerSocket("r0"))
    try:
        for _ in range(3):
            crowd = [b"\2" + noise.randbytes(5) for _ in range(MOST_QUIET)]
            assert packets.watch(crowd, SOURCES)
        assert not packets.watch([*crowd, *(noise.randbytes(6) for _ in range(4000))], SOURCES)
        assert packets.watch([], SOURCES)
    finally:
        packets.close()


@pytest.mark.root
def test_a_message_goes_to_a_link_layer_address_with_its_checksum(link: None) -> None:
    router, host = NAMES
    frames = netns.inside(router, lambda: FrameSocket("r0", RouterIdentity(ROUTER, ROUTER_MAC)))
    wire = tap(host, "h0")
    with wire:
        try:
            wire.settimeout(5)
            solicitation = struct.pack("!BBHI16s", 135, 0, 0, 0, HOST) + b"\1\1" + ROUTER_MAC
            for message in (solicitation, solicitation + b"\1"):
                frames.send(HOST_MAC, HOST, message)
                data = wire.recv(2000)
                assert data[:14] == HOST_MAC + ROUTER_MAC + b"\x86\xdd"
                assert data[14:22] == struct.pack("!IHBB", 6 << 28, len(message), 58, 255)
                assert (data[22:38], data[38:54]) == (ROUTER, HOST)
                pseudo = ROUTER + HOST + struct.pack("!I3xB", len(message), 58)
                even = data[54:] + b"\0" * (len(message) % 2)
                assert int.from_bytes(pseudo + even, "big") % 0xFFFF == 0
            assert frames.receive() is None  # what we say ourselves is no sign of anybody
        finally:
            frames.close()
