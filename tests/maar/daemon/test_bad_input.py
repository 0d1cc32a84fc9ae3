"""What hosts and strangers may send to a running daemon: it is dropped, counted by reason, and the service goes on."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import Options, RelayMessage
from dmm_wire.mobility import encode
from lab import netns
from tests.maar.daemon.actors import (
    CMD,
    ENDPOINT,
    HOST_MAC,
    PEER,
    ROUTER_MAC,
    Datagram,
    Node,
    relay_reply,
    udp_frame,
)
from tests.maar.daemon.running import Running, resident
from tests.maar.daemon.site import Site
from tests.maar.daemon.test_mobility import update

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]


@pytest.fixture(scope="module")
def wire(place: Site) -> Iterator[socket.socket]:
    """Frames of any kind from the hosts' link."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind(("h0", 0))
        return sock

    sock = netns.inside(place.hosts, opened)
    yield sock
    sock.close()


def forward(node: Node, inner: bytes, hop_count: int = 0, options: Options = ()) -> bytes:
    """A Relay-forward as a relay below would send it."""
    return RelayMessage(
        MessageType.RELAY_FORW,
        hop_count,
        UNSPECIFIED,
        node.link_local,
        (*options, (OptionCode.RELAY_MSG, inner)),
    ).encode()


def chain(node: Node, levels: int) -> bytes:
    data = node.message()
    for hop_count in range(levels):
        data = forward(node, data, hop_count)
    return data


def assert_still_relays(place: Site, node: Node) -> None:
    """A message of the same socket is relayed, after all that it sent before; nothing of that went to the CMD."""
    place.cmd.clear()
    node.send(node.message())
    place.cmd.take_from(node)


def forged_options(node: Node) -> Options:
    visit = (dmm.Maar(PEER, 0xC000), dmm.Attachment(0, 4, 4, 1, bytes(6)))
    return ((OptionCode.RELAY_ID, b"\0\2maar2"), dmm.to_option(32473, visit))


BAD: dict[str, Callable[[Node], bytes]] = {
    "client.truncated": lambda node: b"\1ab",
    "client.message-type": lambda node: node.reply(MessageType.ADVERTISE),
    "client.relay-below": lambda node: forward(node, node.message(), 0, forged_options(node)),
    "client.oversized": lambda node: node.message(options=((60_000, bytes(65_300)),)),
}
BAD_FROM_RELAYS: dict[str, Callable[[Node], bytes]] = {
    "client.hop-count": lambda node: forward(node, node.message(), 8),
    "client.forged-options": lambda node: forward(node, node.message(), 0, forged_options(node)),
    "client.missing": lambda node: forward(node, b"")[:-4],
    "client.truncated": lambda node: chain(node, 3)[:-1],
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_message_is_counted_and_dropped(place: Site, maar: Running, reason: str) -> None:
    node = place.node()
    before = maar.count(reason)
    node.send(BAD[reason](node))
    maar.counts(reason, before + 1)
    assert place.cmd.arrived() == [] or all(
        node.duid not in each.data for each in place.cmd.arrived()
    )
    assert_still_relays(place, node)


@pytest.mark.parametrize("reason", BAD_FROM_RELAYS)
def test_a_bad_message_from_a_relay_is_counted_and_dropped(
    place: Site, maar: Running, reason: str
) -> None:
    node = place.node("h1")
    before = maar.count(reason)
    node.send(BAD_FROM_RELAYS[reason](node))
    maar.counts(reason, before + 1)
    assert all(node.duid not in each.data for each in place.cmd.arrived())
    assert_still_relays(place, node)


def test_a_chain_longer_than_the_hop_count_limit_ends_here(place: Site, maar: Running) -> None:
    node = place.node("h1")
    dropped = maar.count("client.hop-count")
    node.send(chain(node, 12))
    maar.counts("client.hop-count", dropped + 1)
    assert_still_relays(place, node)


@pytest.mark.parametrize(
    "kind",
    [
        MessageType.ADVERTISE,
        MessageType.REPLY,
        MessageType.RECONFIGURE,
        MessageType.RELAY_REPL,
        MessageType.LEASEQUERY_REPLY,
    ],
)
def test_what_only_servers_say_is_not_relayed(
    place: Site, maar: Running, kind: MessageType
) -> None:
    node = place.node()
    before = maar.count("client.message-type")
    if kind == MessageType.RELAY_REPL:
        node.send(relay_reply(forward(node, node.message()), node.reply(), dmm.Status(0)))
    else:
        node.send(node.reply(kind))
    maar.counts("client.message-type", before + 1)


def test_a_router_solicitation_from_elsewhere_is_counted_and_dropped(
    place: Site, maar: Running
) -> None:
    """RFC 4861 section 6.1.1: only a hop limit of 255 shows that no router has forwarded it."""

    def opened() -> socket.socket:
        return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)

    node = place.node()
    before, received = maar.count("rs.hop-limit"), maar.count("rs.received")
    with netns.inside(place.hosts, opened) as sock:
        for hop_limit in (254, 255):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
            sock.sendto(b"\x85" + bytes(7), ("ff02::2", 0, 0, node.index))
    maar.counts("rs.received", received + 1)
    assert maar.count("rs.hop-limit") == before + 1
    assert maar.count("rs.received") == received + 1


def test_a_host_cannot_speak_as_the_cmd(place: Site, maar: Running, wire: socket.socket) -> None:
    node = place.node()
    node.send(node.message())
    relayed = place.cmd.take_from(node).data
    forged = relay_reply(
        relayed,
        node.reply(),
        dmm.Visit(place.generation(), PEER),
        dmm.AnchoredPrefix(node.prefix(1), 1000, 2000),
        dmm.PreviousMaar(node.prefix(2), 0, 2000, False, PEER),
    )
    before = maar.count("filter.endpoint")
    monitor = place.monitor()
    learned = netns.ip_json("link", "show", "access0", namespace=place.maar)[0]["address"]
    interface_mac = bytes.fromhex(learned.replace(":", ""))
    for mac in (ROUTER_MAC, interface_mac):
        frame = udp_frame(CMD, ENDPOINT, (547, 547), forged)
        wire.send(mac + frame[6:])
    maar.counts("filter.endpoint", before + 2)
    assert_still_relays(place, node)
    assert maar.session(node) is None
    assert node.arrived() == []
    assert [each for each in monitor.read() if each.kind != "neighbour"] == []


def test_a_host_cannot_speak_as_a_maar(place: Site, maar: Running, wire: socket.socket) -> None:
    node = place.node()
    place.cmd.clear()
    header = encode(update(node, 66, place.generation(), node.prefix(1)), PEER, ENDPOINT)
    packet = (6 << 28).to_bytes(4, "big") + len(header).to_bytes(2, "big") + bytes((135, 64))
    before, monitor = maar.status(), place.monitor()
    frames = place.capture(place.maar, "access0")
    wire.send(ROUTER_MAC + HOST_MAC + b"\x86\xdd" + packet + PEER + ENDPOINT + header)
    frames.take(lambda each: each.data.endswith(header))
    assert_still_relays(place, node)
    after = maar.status()
    assert after["sessions"] == before["sessions"]
    names = {name for name in after["counters"] if name.startswith(("pbu", "mobility"))}
    assert {name: after["counters"][name] for name in names} == {
        name: before["counters"].get(name) for name in names
    }
    assert [each for each in monitor.read() if each.kind != "neighbour"] == []
    assert not [each for each in place.peer.arrived() if node.duid in each.data]


def test_a_host_cannot_speak_out_of_the_tunnel(
    place: Site, maar: Running, wire: socket.socket
) -> None:
    """What is decapsulated came over the core: else any host could send as any other."""
    outside = place.capture(place.core, "c0")

    def tunnelled(mark: bytes) -> bytes:
        source = parse_address("2001:db8:1:1ff::1")
        inner = udp_frame(source, parse_address("2001:db8:c::2"), (9, 9), mark)[14:]
        outer = (6 << 28).to_bytes(4, "big") + len(inner).to_bytes(2, "big") + bytes((41, 64))
        return outer + PEER + ENDPOINT + inner

    wire.send(ROUTER_MAC + HOST_MAC + b"\x86\xdd" + tunnelled(b"from a host"))
    peer = netns.inside(place.core, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with peer:
        peer.bind(("c0", 0))
        core = netns.ip_json("link", "show", "core0", namespace=place.maar)[0]["address"]
        mac = bytes.fromhex(core.replace(":", ""))
        peer.send(mac + HOST_MAC + b"\x86\xdd" + tunnelled(b"from a peer"))

    def came_out(frame: Datagram) -> bool:
        return frame.data[20] == 17 and frame.data.endswith((b"from a host", b"from a peer"))

    assert outside.take(came_out).data.endswith(b"from a peer")


def test_a_client_does_not_ask_in_another_ones_name(
    place: Site, maar: Running, wire: socket.socket
) -> None:
    node = place.node()
    before = maar.count("filter.source")
    destination = parse_address("ff02::1:2")
    wire.send(
        udp_frame(parse_address("2001:db8:1:100::77"), destination, (546, 547), node.message())
    )
    maar.counts("filter.source", before + 1)
    assert all(node.duid not in each.data for each in place.cmd.arrived())


def test_a_megabyte_a_second_of_noise_for_two_seconds(
    place: Site, maar: Running, wire: socket.socket
) -> None:
    node, below = place.node(), place.node("h1")
    source = random.Random(547)
    seeds = [node.message(), forward(node, node.message()), chain(below, 7), node.reply()]
    before, monitor = resident(maar.pid), place.monitor()
    sent, start = 0, time.monotonic()
    while (elapsed := time.monotonic() - start) < 2.0:
        if sent > 1e6 * elapsed:
            time.sleep(0.001)
            continue
        kind = source.randrange(6)
        data = bytearray(
            source.randbytes(source.randrange(1, 1400)) if kind < 2 else source.choice(seeds)
        )
        for _ in range(3):
            data[source.randrange(len(data))] = source.randrange(256)
        if kind == 4:
            stranger = b"\xfe\x80" + bytes(6) + source.randbytes(8)
            mac = b"\2" + source.randbytes(5)
            ports = (source.randrange(65_536), 547)
            wire.send(udp_frame(stranger, parse_address("ff02::1:2"), ports, bytes(data), mac))
        elif kind == 5:
            # Router solicitations, neighbour solicitations, reports: most of them nonsense.
            data[0] = source.choice((133, 135, 136, 143))
            packet = len(data).to_bytes(2, "big") + bytes((source.choice((58, 0)), 255))
            addresses = b"\xfe\x80" + bytes(6) + source.randbytes(8) + parse_address("ff02::2")
            mac = ROUTER_MAC + b"\2" + source.randbytes(5)
            wire.send(mac + b"\x86\xdd\x60\0\0\0" + packet + addresses + bytes(data))
        else:
            (below if kind % 2 else node).send(bytes(data))
        sent += len(data)
        place.cmd.clear()
    assert sent > 1e6
    assert_still_relays(place, node)
    assert_still_relays(place, below)
    counters = maar.status()["counters"]
    assert sum(count for name, count in counters.items() if name.startswith("client.")) > 1000
    assert "internal-error" not in counters
    # What it remembers of each sender is bounded; so is the memory.
    assert resident(maar.pid) - before < 24 << 20
    assert [each for each in monitor.read() if each.kind != "neighbour"] == []
    assert maar.status()["sessions"] == []
