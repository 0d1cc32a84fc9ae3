"""Spoofing of every kind, by hosts and by what comes out of a tunnel: dropped, counted, and nothing else with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from dmm_wire.address import Prefix, format_address, parse_address, parse_mac
from dmm_wire.router_identity import FIXED, RouterIdentity, of_anchor
from relay_maar.core.items import Dlif, Drop, Route, SourceRule, ToNode, ToPeer, Tunnel
from relay_maar.southbound import nft as program
from relay_maar.southbound.api import AccessDevice, DriverUnavailable, SouthboundSettings
from relay_maar.southbound.ingress import REASONS, ruleset
from relay_maar.southbound.layout import MARK
from relay_maar.southbound.nft import NftError
from relay_maar.southbound.seg6 import Seg6Southbound
from tests.maar.southbound.namespaces import Capture, Namespace, nft, wait
from tests.maar.southbound.test_contract import ALL, put
from tests.maar.southbound.test_packets import (
    CN,
    ENCAPSULATED,
    ICMPV6,
    IPPROTO_MH,
    MN_LINK_LOCAL,
    MN_NEW,
    MN_OLD,
    OLD,
    ROUTER,
    T1,
    T2,
    UDP,
    Topology,
    destination,
    inner,
    ipv6,
    source,
    topology,
    udp,
)

pytestmark = [pytest.mark.root, pytest.mark.needs("ping", "nft")]

__all__ = ["topology"]

ROUTER_MAC = parse_mac("00:00:5e:00:52:13")
MN_MAC = parse_mac("02:00:00:00:00:10")
ROUTER_ADDRESS = parse_address(ROUTER)
ALL_NODES = parse_address("ff02::1")
DESTINATION_OPTIONS, ROUTING, FRAGMENT = 60, 43, 44
NS, NA, TOO_BIG, ECHO = 135, 136, 2, 128


def icmpv6(here: bytes, there: bytes, body: bytes, hop_limit: int = 255) -> bytes:
    pseudo = here + there + struct.pack("!II", len(body), ICMPV6)
    words = pseudo + body + b"\0" * (len(body) % 2)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet = ipv6(ICMPV6, here, there, body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:])
    return packet[:7] + bytes([hop_limit]) + packet[8:]


def solicitation(here: bytes, there: bytes) -> bytes:
    """For the router's address; with a link-layer address option, but in duplicate address detection."""
    option = b"\x01\x01" + MN_MAC if any(here) else b""
    return icmpv6(here, there, struct.pack("!BBHI", NS, 0, 0, 0) + ROUTER_ADDRESS + option)


def solicited_node(address: bytes) -> bytes:
    return parse_address("ff02::1:ff00:0")[:13] + address[13:]


class Host:
    """The node's cable: frames of any kind from it, and what the world sees of them."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.driver = topology.maar2.driver
        self.namespace = topology.maar2.namespace
        with topology.mn.inside():
            self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._wire.bind(("eth0", 0))
        (link,) = json.loads(self.namespace.ip("-j link show acc"))
        self.own_mac = parse_mac(link["address"])

    def close(self) -> None:
        self._wire.close()

    def send(self, packet: bytes, mac: bytes = ROUTER_MAC) -> None:
        """A frame to that link-layer address."""
        self._wire.send(mac + MN_MAC + b"\x86\xdd" + packet)

    def drops(self) -> Mapping[str, int]:
        with self.namespace.inside():
            return self.driver.drops()

    def passes(self, packet: bytes, mac: bytes = ROUTER_MAC) -> bytes:
        """It leaves towards the core, bare or tunnelled; returns it as it was there."""
        before = self.drops()
        self.send(packet, mac)
        seen = self.topology.near2.until(lambda seen: seen.endswith(packet[40:]))
        assert self.drops() == before
        return seen

    def is_dropped(
        self,
        packet: bytes,
        reason: str,
        mac: bytes = ROUTER_MAC,
        own: RouterIdentity = FIXED,
    ) -> None:
        """It is counted there and nowhere else, and it does not leave, as the one after it shows."""
        before = self.drops()
        self.send(packet, mac)
        marker = udp(MN_NEW, CN, b"marker %d" % len(self.topology.near2.packets))
        self.send(marker, own.link_layer)
        self.topology.near2.until(lambda seen: seen.endswith(marker[40:]))
        left = [seen for seen in self.topology.near2.read() if seen.endswith(packet[40:])]
        assert not left
        assert self.drops() == {**before, reason: before.get(reason, 0) + 1}


@pytest.fixture
def host(topology: Topology) -> Iterator[Host]:
    topology.hand_over()
    made = Host(topology)
    yield made
    made.close()


SPOOFED = {
    "the correspondent's": CN,
    "somebody's on the Internet": parse_address("2001:db8:bad::1"),
    "a prefix of this MAAR that nobody has": parse_address("2001:db8:2:9::1"),
    "a prefix of the anchor, another node's": parse_address("2001:db8:1:9::1"),
    "this MAAR's endpoint": T2,
    "another MAAR's endpoint": T1,
    "this MAAR's core address": parse_address("2001:db8:c2::2"),
    "the core's router": parse_address("2001:db8:c2::1"),
    "unspecified": bytes(16),
}


@pytest.mark.parametrize("to", ["the router", "the interface itself"])
def test_only_the_nodes_own_sources_pass(host: Host, to: str) -> None:
    mac = ROUTER_MAC if to == "the router" else host.own_mac
    for what, spoofed in SPOOFED.items():
        host.is_dropped(udp(spoofed, CN, what.encode()), "source", mac)
    # Nobody knows the interface's own link-layer address as a router's; what comes there has no route back by it.
    if to == "the router":
        assert source(host.passes(udp(MN_NEW, CN, b"new"))) == MN_NEW
        tunnelled = host.passes(udp(MN_OLD, CN, b"old"))
        assert (source(tunnelled), source(inner(tunnelled))) == (T2, MN_OLD)
    else:
        host.is_dropped(udp(MN_NEW, CN, b"new"), "source", mac)


def with_options(packet: bytes) -> bytes:
    """A destination options header of nothing but padding in front."""
    options = bytes([packet[6], 0, 1, 4, 0, 0, 0, 0])
    return ipv6(DESTINATION_OPTIONS, source(packet), destination(packet), options + packet[40:])


def routed(here: bytes, there: bytes, kind: int) -> bytes:
    header = bytes([59, 2, kind, 0, 0, 0, 0, 0]) + CN
    return ipv6(ROUTING, here, there, header)


def fragment(offset: int, next_header: int, payload: bytes) -> bytes:
    """Of a packet from the node to another MAAR; `offset` in units of 8 octets. After the one at 8 comes no other."""
    header = struct.pack("!BBHI", next_header, 0, offset << 3 | (offset != 8), 77)
    return ipv6(FRAGMENT, MN_NEW, T1, header + payload)


MOBILITY = struct.pack("!BBBBHH", 59, 1, 5, 0, 0, 1) + bytes(8)
FORBIDDEN = {
    "a tunnel to its own MAAR": (ipv6(ENCAPSULATED, MN_NEW, T2, udp(CN, MN_OLD, b"1")), "tunnel"),
    "a tunnel to another one": (ipv6(ENCAPSULATED, MN_NEW, T1, udp(CN, MN_OLD, b"2")), "tunnel"),
    "in a MAAR's name": (ipv6(ENCAPSULATED, T1, T2, udp(CN, MN_OLD, b"3")), "tunnel"),
    "a tunnel to anybody": (ipv6(ENCAPSULATED, MN_NEW, CN, udp(CN, MN_OLD, b"4")), "tunnel"),
    "a tunnel behind options": (
        with_options(ipv6(ENCAPSULATED, MN_NEW, CN, udp(CN, MN_OLD, b"5"))),
        "tunnel",
    ),
    "a tunnel's first fragment": (fragment(0, ENCAPSULATED, udp(CN, MN_OLD, b"6a")), "tunnel"),
    "a tunnel's last fragment": (fragment(8, ENCAPSULATED, b"6b"), "tunnel"),
    "a tunnel's first fragment that leaves it to the next one to say what it is": (
        fragment(0, DESTINATION_OPTIONS, bytes([DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0])),
        "header-chain",
    ),
    "signalling": (ipv6(IPPROTO_MH, MN_NEW, T1, MOBILITY), "mobility"),
    "signalling in fragments": (fragment(0, IPPROTO_MH, MOBILITY), "mobility"),
    "signalling in a MAAR's name": (ipv6(IPPROTO_MH, T1, T2, MOBILITY), "mobility"),
    "signalling behind options": (with_options(ipv6(IPPROTO_MH, T1, T2, MOBILITY)), "mobility"),
    "segments to its MAAR": (routed(MN_NEW, T2, 4), "routing-header"),
    "segments to anybody": (routed(MN_NEW, CN, 4), "routing-header"),
    "a datagram to the endpoint": (udp(MN_NEW, T2, b"6"), "endpoint"),
    "an error to the endpoint": (
        icmpv6(MN_NEW, T2, struct.pack("!BBHI", TOO_BIG, 0, 0, 1280) + bytes(40)),
        "endpoint",
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_no_host_may_send(host: Host, what: str) -> None:
    packet, reason = FORBIDDEN[what]
    host.is_dropped(packet, reason)


@pytest.mark.parametrize("here", ["::", "fe80::10", "2001:db8:bad::1"])
def test_neighbour_discovery_goes_on_whatever_the_source(host: Host, here: str) -> None:
    """A node that has just come asks for its router from an old address; nobody serves it here yet."""
    address = parse_address(here)
    with Capture(host.topology.mn, "eth0") as at_mn:
        there = solicited_node(ROUTER_ADDRESS) if here == "::" else ROUTER_ADDRESS
        mac = b"\x33\x33" + there[12:] if here == "::" else ROUTER_MAC
        host.send(solicitation(address, there), mac)
        answer = at_mn.until(lambda seen: seen[6] == ICMPV6 and seen[40] == NA)
        assert source(answer) == ROUTER_ADDRESS
        assert destination(answer) == (ALL_NODES if here == "::" else address)
    assert host.drops() == {}


def test_a_host_without_an_address_reports_its_groups(host: Host) -> None:
    """RFC 3590: an MLD report from the unspecified address, about the group that duplicate address detection is for."""
    record = struct.pack("!BBHHH", 143, 0, 0, 0, 1) + struct.pack("!BBH", 4, 0, 0)
    report = icmpv6(bytes(16), parse_address("ff02::16"), record + solicited_node(MN_LINK_LOCAL))
    alert = bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0])
    body = alert + report[40:]
    header = ipv6(0, bytes(16), parse_address("ff02::16"), body)
    with Capture(host.namespace, "acc") as at_maar:
        host.send(header[:7] + b"\1" + header[8:], b"\x33\x33\0\0\0\x16")
        at_maar.until(lambda seen: seen.endswith(body))
        host.passes(udp(MN_NEW, CN, b"after it"))
    assert host.drops() == {}
    # To multicast, and in ICMPv6 only.
    host.is_dropped(icmpv6(bytes(16), CN, record), "source")
    host.is_dropped(udp(bytes(16), parse_address("ff02::16"), b"no ICMPv6"), "source")


def test_neighbour_discovery_to_elsewhere_is_no_way_out(host: Host) -> None:
    body = struct.pack("!BBHI", NS, 0, 0, 0) + CN
    host.is_dropped(icmpv6(parse_address("2001:db8:bad::1"), CN, body), "source")


def test_a_visitor_pings_its_router_and_its_endpoint(host: Host) -> None:
    host.topology.ping_ok(host.topology.mn, "-c", "1", "-I", "2001:db8:1:1::10", format_address(T2))
    host.topology.ping_ok(host.topology.mn, "-c", "1", f"{ROUTER}%eth0")
    assert host.drops() == {}


def test_two_visitors_on_one_link(host: Host) -> None:
    """From the one's prefix to the other's: that both have routes by source does not lead the filter astray."""
    other = Prefix.parse("2001:db8:1:2::/64")
    put(host.driver, Route(other, ToNode("acc", MN_LINK_LOCAL)), SourceRule(other, T1))
    for here, there in (("1:1", "1:2"), ("1:2", "1:1")):
        packet = udp(
            parse_address(f"2001:db8:{here}::10"),
            parse_address(f"2001:db8:{there}::10"),
            here.encode(),
        )
        assert source(host.passes(packet)) == T2


@pytest.fixture
def anchors(host: Host) -> Iterator[Host]:
    """The same, with a router for each anchor: that of T1 is shown to the node, too."""
    settings = dataclasses.replace(host.driver.settings, router=of_anchor(T2), dlif=True)
    with host.namespace.inside():
        host.driver.close(keep=True)
        heir = Seg6Southbound(settings)
        heir.open()
        # With the old device went what led to it.
        host.driver = host.topology.maar2.driver = heir
        host.topology.hand_over()
        put(heir, Dlif("acc", of_anchor(T1)))
    yield host
    heir.close(keep=True)


@pytest.mark.parametrize("to", [T1, T2], ids=["the anchor's router", "the MAAR's own"])
def test_a_node_sends_from_any_of_its_prefixes_to_any_of_its_routers(
    anchors: Host, to: bytes
) -> None:
    """A Linux host chooses its router without regard to the source."""
    mac = of_anchor(to).link_layer
    assert source(anchors.passes(udp(MN_NEW, CN, b"new"), mac)) == MN_NEW
    tunnelled = anchors.passes(udp(MN_OLD, CN, b"old"), mac)
    assert (source(tunnelled), source(inner(tunnelled))) == (T2, MN_OLD)


def test_what_no_host_may_send_by_another_anchors_router(anchors: Host) -> None:
    mac = of_anchor(T1).link_layer
    for what, spoofed in SPOOFED.items():
        anchors.is_dropped(udp(spoofed, CN, what.encode()), "source", mac, of_anchor(T2))
    for packet, reason in FORBIDDEN.values():
        anchors.is_dropped(packet, reason, mac, of_anchor(T2))


@pytest.mark.parametrize("here", ["::", "fe80::10", "2001:db8:bad::1"])
def test_another_anchors_router_answers_for_itself(anchors: Host, here: str) -> None:
    address, router = parse_address(here), of_anchor(T1)
    with Capture(anchors.topology.mn, "eth0") as at_mn:
        there = solicited_node(router.link_local)
        option = b"\x01\x01" + MN_MAC if any(address) else b""
        body = struct.pack("!BBHI", NS, 0, 0, 0) + router.link_local + option
        anchors.send(icmpv6(address, there, body), b"\x33\x33" + there[12:])
        answer = at_mn.until(lambda seen: seen[6] == ICMPV6 and seen[40] == NA)
        assert source(answer) == router.link_local
        assert answer.endswith(router.link_layer)


def test_an_unfiltered_link_is_protected_by_rules(host: Host) -> None:
    """They name each device, and go with it."""
    unfiltered = frozenset({"acc"})
    settings = dataclasses.replace(
        host.driver.settings, router=of_anchor(T2), dlif=True, unfiltered=unfiltered
    )
    item = Dlif("acc", of_anchor(T1))
    with host.namespace.inside():
        heir = Seg6Southbound(settings)
        heir.open()
        rules = host.namespace.ip("-6 rule show")
        put(heir, item)
        more = host.namespace.ip("-6 rule show")
        assert len(more.splitlines()) == len(rules.splitlines()) + 2
        assert len(re.findall(r"iif maar\d+d0 ipproto", more)) == 2
        heir.apply([Drop(item)])
        assert host.namespace.ip("-6 rule show") == rules
        heir.close(keep=True)


def test_the_filter_and_the_route_change_together(host: Host) -> None:
    packet = udp(MN_OLD, CN, b"of a prefix that comes and goes")
    for _ in range(5):
        host.driver.apply(
            [Drop(SourceRule(OLD, T1)), Drop(Route(OLD, ToNode("acc", MN_LINK_LOCAL)))]
        )
        host.is_dropped(packet, "source")
        put(host.driver, Route(OLD, ToNode("acc", MN_LINK_LOCAL)), SourceRule(OLD, T1))
        host.passes(packet)
        host.topology.near2.packets.clear()


def test_nothing_is_lost_while_it_is_put_again(host: Host) -> None:
    """By the next process, as after a restart in place, and by others who have deleted it."""
    total = 100
    with host.namespace.inside():
        for number in range(total):
            host.send(udp(MN_OLD, CN, b"%08d" % number))
            put(host.driver, Route(OLD, ToNode("acc", MN_LINK_LOCAL)))
            if number % 10 == 0:
                heir = Seg6Southbound(host.driver.settings)
                heir.open()
                heir.close(keep=True)
            if number % 10 == 5:
                nft("delete", "table", "ip6", "relay-maar")
                assert host.driver.restore().repaired == 1
    host.topology.near2.until(lambda seen: seen.endswith(b"%08d" % (total - 1)))
    seen = {packet[-8:] for packet in host.topology.near2.read() if packet[6] == ENCAPSULATED}
    assert {b"%08d" % number for number in range(total)} <= seen


# What comes out of tunnels

BAD = parse_address("2001:db8:bad::1")
DECAPSULATED = {
    "neither from nor to us": udp(BAD, CN, b"1"),
    "in our own name": udp(T2, CN, b"2"),
    "in our own name to a node": udp(T2, MN_OLD, b"3"),
    "a tunnel in the tunnel": ipv6(ENCAPSULATED, T1, T2, udp(CN, MN_OLD, b"4")),
    "a tunnel in the tunnel, to another": ipv6(ENCAPSULATED, T2, T1, udp(CN, MN_OLD, b"5")),
    "signalling in the tunnel": ipv6(IPPROTO_MH, T1, T2, MOBILITY),
    "for the core": udp(BAD, parse_address("2001:db8:c1::2"), b"6"),
}


@pytest.mark.parametrize("options", [False, True], ids=["bare", "behind options"])
@pytest.mark.parametrize("what", DECAPSULATED)
def test_a_peer_may_not_send_everything_through_us(host: Host, what: str, options: bool) -> None:
    """Nor behind options, as RFC 2473 section 5.1 has one, which the kernel takes off too."""
    packet = DECAPSULATED[what]
    tunnelled = ipv6(ENCAPSULATED, T1, T2, packet)
    with Capture(host.topology.mn, "eth0") as at_mn:
        host.topology.inject(with_options(tunnelled) if options else tunnelled)
        host.topology.inject(with_options(ipv6(ENCAPSULATED, T1, T2, udp(CN, MN_OLD, b"genuine"))))
        at_mn.until(lambda seen: seen.endswith(b"genuine"))
        assert host.drops() == {"decapsulated": 1}
        assert not [seen for seen in at_mn.read() if seen.endswith(packet[40:])]
        injected = (ENCAPSULATED, DESTINATION_OPTIONS)
        bare = [seen for seen in host.topology.near2.read() if seen[6] not in injected]
        assert not [seen for seen in bare if seen.endswith(packet[40:])]
        if packet[6] == ENCAPSULATED:
            tunnels = [seen for seen in host.topology.near2.read() if seen[40:] == packet[40:]]
            assert not tunnels


def test_what_peers_do_send(host: Host) -> None:
    """To a node here; from a node that is there, with a prefix of ours; and on to where a node has gone."""
    with host.namespace.inside():
        nft(
            "add table ip6 look; add counter ip6 look marked;"
            "add chain ip6 look c { type filter hook postrouting priority 0; };"
            f"add rule ip6 look c meta mark & {MARK:#x} != 0 counter name marked"
        )
    with Capture(host.topology.mn, "eth0") as at_mn:
        host.topology.inject(ipv6(ENCAPSULATED, T1, T2, udp(CN, MN_OLD, b"to a node")))
        at_mn.until(lambda seen: seen.endswith(b"to a node"))
    away = udp(parse_address("2001:db8:2:7::1"), CN, b"from a node of ours")
    host.topology.inject(ipv6(ENCAPSULATED, T1, T2, away))
    host.topology.near2.until(lambda seen: seen[6] == UDP and seen[40:] == away[40:])
    third = parse_address("2001:db8:f::3")
    put(host.driver, Tunnel(third), Route(OLD, ToPeer(third)))
    after = udp(CN, MN_OLD, b"after a node that has left")
    host.topology.inject(ipv6(ENCAPSULATED, T1, T2, after))
    host.topology.near2.until(lambda seen: destination(seen) == third and seen.endswith(after[40:]))
    assert host.drops() == {}
    with host.namespace.inside():
        listed = subprocess.run(
            ["nft", "list", "counter", "ip6", "look", "marked"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert "packets 0" in listed, "the mark is ours alone"


def test_maars_that_point_at_each_other_are_no_loop_for_ever(host: Host) -> None:
    """Whatever led to that: the hop limit ends it, as it does everywhere else."""
    put(host.driver, Route(OLD, ToPeer(T1)))
    host.topology.inject(udp(CN, MN_OLD, b"round and round"), host.topology.cn)
    with Capture(host.topology.mn, "eth0") as at_mn:
        rounds = [0]

        def has_ended() -> bool:
            host.topology.inject(udp(CN, MN_NEW, b"marker"), host.topology.cn)
            at_mn.until(lambda seen: seen.endswith(b"marker"))
            at_mn.packets.clear()
            seen = host.topology.near2.read()
            rounds.append(sum(each.endswith(b"round and round") for each in seen))
            return bool(rounds[-1]) and rounds[-1] == rounds[-2]

        wait(has_ended)
    assert 60 <= rounds[-1] <= 66


# The table and its owner


def test_others_tables_are_left_alone(router: Namespace, settings: SouthboundSettings) -> None:
    with router.inside():
        nft(
            "add table ip6 operator; add chain ip6 operator c { type filter hook forward priority 0; }"
        )
        before = nft("list", "ruleset")
        driver = Seg6Southbound(settings)
        driver.open()
        assert "relay-maar" in nft("list", "ruleset")
        driver.close(keep=False)
        assert nft("list", "ruleset") == before


DISTURBANCES: dict[str, str] = {
    "deleted": "delete table ip6 relay-maar",
    "all rules flushed": "flush table ip6 relay-maar",
    "one chain flushed": "flush chain ip6 relay-maar from-host",
    "a rule added": "insert rule ip6 relay-maar from-host accept",
}


@pytest.mark.parametrize("command", DISTURBANCES.values(), ids=DISTURBANCES)
def test_what_others_change_is_put_right(
    router: Namespace, settings: SouthboundSettings, command: str
) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        put(driver, *ALL)
        before = nft("list", "table", "ip6", "relay-maar")
        assert driver.restore().repaired == 0
        nft(command)
        assert driver.restore().repaired == 1
        assert nft("list", "table", "ip6", "relay-maar") == before
        assert driver.restore().repaired == 0
        driver.close(keep=True)


def test_what_is_right_keeps_its_counters(host: Host) -> None:
    host.is_dropped(udp(BAD, CN, b"x"), "source")
    with host.namespace.inside():
        assert host.driver.restore().repaired == 0
    assert host.drops() == {"source": 1}


def test_an_interface_that_comes_back_is_filtered(
    router: Namespace, settings: SouthboundSettings
) -> None:
    with router.inside():
        driver = Seg6Southbound(settings)
        driver.open()
        router.ip("link del acc1")
        router.ip("link add acc1 type veth peer name acc1-far")
        state = driver.restore()
        (back,) = (device for device in state.access if device.interface == "acc1")
        assert f'"{back.device}"' in nft("list", "table", "ip6", "relay-maar")
        assert state.repaired <= 2, "that is our own doing"
        driver.close(keep=True)


def test_links_that_are_not_filtered(topology: Topology) -> None:
    topology.hand_over()
    settings = dataclasses.replace(topology.maar2.driver.settings, unfiltered=frozenset({"acc"}))
    with topology.maar2.namespace.inside():
        heir = Seg6Southbound(settings)
        heir.open()
        assert "relay-maar" not in nft("list", "ruleset")
        assert heir.drops() == {}
        heir.close(keep=True)
    with contextlib.closing(Host(topology)) as host:
        host.send(udp(BAD, CN, b"as it likes"))
    topology.near2.until(lambda seen: seen.endswith(b"as it likes"))


def test_one_link_of_two(router: Namespace, settings: SouthboundSettings) -> None:
    with router.inside():
        driver = Seg6Southbound(dataclasses.replace(settings, unfiltered=frozenset({"acc0"})))
        devices = {device.interface: device.device for device in driver.open()}
        rules = nft("list", "chain", "ip6", "relay-maar", "prerouting")
        for interface, device in devices.items():
            assert (interface in rules) == (device in rules) == (interface == "acc1")
        # What comes out of a tunnel goes to either.
        forwarded = nft("list", "chain", "ip6", "relay-maar", "forward")
        assert all(name in forwarded for pair in devices.items() for name in pair)
        driver.close(keep=True)


def test_without_nft(
    router: Namespace, settings: SouthboundSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "program", lambda: None)
    with router.inside():
        driver = Seg6Southbound(settings)
        with pytest.raises(DriverUnavailable, match="package nftables") as error:
            driver.open()
        assert "\n" not in str(error.value)
        driver.close(keep=False)
        bare = Seg6Southbound(
            dataclasses.replace(settings, unfiltered=frozenset(settings.access_interfaces))
        )
        bare.open()
        put(bare, *ALL)
        bare.close(keep=False)


def devices(*interfaces: str) -> list[AccessDevice]:
    return [
        AccessDevice(name, f"maar{n}", n, bytes(16), bytes(6)) for n, name in enumerate(interfaces)
    ]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a*"])
def test_a_name_that_nft_would_misunderstand(settings: SouthboundSettings, name: str) -> None:
    odd = dataclasses.replace(settings, access_interfaces=(name,))
    with pytest.raises(NftError, match="no filter can name"):
        ruleset(odd, devices(name))


def test_every_reason_has_its_counter(settings: SouthboundSettings) -> None:
    text = ruleset(settings, devices("acc0", "acc1"))
    for reason in REASONS:
        assert f"counter {reason} {{ }}" in text
        assert f"counter name {reason} drop" in text
    assert text.count("counter name") == text.count(" drop")
