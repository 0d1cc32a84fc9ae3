"""A running daemon as a DHCPv6 relay agent: its own questions, the clients' messages, the router of the link."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, parse_address, parse_mac
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import RelayMessage, first, parse
from lab import netns
from tests.maar.daemon.actors import (
    ENDPOINT,
    HOST_MAC,
    RELAY_ID,
    ROUTER_LINK_LOCAL,
    ROUTER_MAC,
    Datagram,
    relay_reply,
)
from tests.maar.daemon.running import Running
from tests.maar.daemon.site import Site

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

ETHERNET = b"\x00\x01"
ACCESS_TECHNOLOGY = 4


def test_a_clients_message_is_relayed_as_the_rfcs_say(place: Site, maar: Running) -> None:
    node = place.node()
    # Unknown options, in whatever order and number, are the client's and the server's affair.
    message = node.message(options=((60_000, b"x" * 300), (17, b"\0\0\0\1abc"), (60_000, b"")))
    node.send(message)
    received = place.cmd.take_from(node)
    assert received.source == ENDPOINT
    level = parse(received.data)
    assert isinstance(level, RelayMessage)
    attachment = dmm.Attachment(0, 4, ACCESS_TECHNOLOGY, 1, HOST_MAC)
    expected = RelayMessage(
        MessageType.RELAY_FORW,
        0,
        parse_address("2001:db8:1:100::1"),
        node.link_local,
        (
            (OptionCode.INTERFACE_ID, b"access0"),
            (OptionCode.CLIENT_LINKLAYER_ADDR, ETHERNET + HOST_MAC),
            (OptionCode.RELAY_ID, RELAY_ID),
            dmm.to_option(32473, (dmm.Maar(ENDPOINT, 0xC000), attachment)),
            (OptionCode.RELAY_MSG, message),
        ),
    )
    assert level == expected
    assert received.data == expected.encode()


def test_a_burst_does_not_hide_who_sent_a_message(place: Site, maar: Running) -> None:
    """The frames are read from one socket, the messages from another, and both wait in the same moment."""
    node = place.node()
    wire = netns.inside(place.hosts, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    os.kill(maar.pid, signal.SIGSTOP)
    try:
        with wire:
            wire.bind(("h0", 0))
            for number in range(600):
                stranger = b"\xfe\x80" + bytes(12) + number.to_bytes(2, "big")
                solicitation = b"\x87" + bytes(23)
                packet = b"\x60\0\0\0" + bytes((0, len(solicitation), 58, 255))
                destination = parse_address("ff02::1:ff00:5213")
                frame = packet + stranger + destination + solicitation
                wire.send(b"\x33\x33\xff\0\x52\x13" + b"\2\0\0\0\0\x0b" + b"\x86\xdd" + frame)
            node.send(node.message())
    finally:
        os.kill(maar.pid, signal.SIGCONT)
    level = parse(place.cmd.take_from(node).data)
    assert first(level.options, OptionCode.CLIENT_LINKLAYER_ADDR) == ETHERNET + HOST_MAC
    maar.counts("seen.ns", 600)


def test_the_clients_answer_comes_byte_for_byte_from_the_router_it_knows(
    place: Site, maar: Running
) -> None:
    node = place.node()
    node.send(node.message())
    forward = place.cmd.take_from(node).data
    # Not even a DHCPv6 message that makes sense to us: RFC 9915 section 19.2 has us pass it on.
    for answer in (node.reply(MessageType.ADVERTISE), b"\xfeABC\0\1\0\xff", node.reply() + b"\0"):
        place.cmd.reply(forward, answer, dmm.Status(0))
        arrived = node.take()
        assert arrived.data == answer
        assert arrived.source == ROUTER_LINK_LOCAL


def test_a_node_that_attaches_gets_the_same_router_everywhere_at_once(
    place: Site, maar: Running
) -> None:
    # On the other link: advertisements are limited, and there has been a burst on this one.
    frames = place.capture(place.hosts, "h1")
    host_mac = parse_mac(netns.ip_json("link", "show", "h1", namespace=place.hosts)[0]["address"])
    node = place.node("h1")  # its kernel reports its address by MLD, which may be what is answered
    node.send(node.message())

    def unicast_advertisement(frame: Datagram) -> bool:
        packet = frame.data[14:]
        return packet[6] == 58 and packet[40] == 134 and packet[24:40] == node.link_local

    frame = frames.take(unicast_advertisement).data
    assert (frame[:6], frame[6:12]) == (host_mac, ROUTER_MAC)
    packet = frame[14:]
    assert packet[7] == 255, "hop limit"
    assert packet[8:24] == ROUTER_LINK_LOCAL
    advertisement = packet[40:]
    assert advertisement[4:] == bytes.fromhex(
        "40 80 0708"  # hop limit 64, M, router lifetime 1800 s
        "00000000 00000000"  # reachable time, retransmission timer: unspecified
        "01 01 00005e005213"  # source link-layer address
        "05 01 0000 000005b4"  # MTU 1460: 1500 less an IPv6 header
    )
    assert _checksum_is_right(packet)
    # Once in three seconds is enough for one node.
    node.send(node.message())
    place.cmd.take_from(node)
    place.cmd.take_from(node)
    assert not any(map(unicast_advertisement, frames.arrived()))


def _checksum_is_right(packet: bytes) -> bool:
    length = len(packet) - 40
    total = sum(struct.unpack(f"!{16 + length // 2}H", packet[8:40] + packet[40:])) + length + 58
    return int(total) % 0xFFFF == 0


def test_a_relay_below_is_one_hop_more(place: Site, maar: Running) -> None:
    node = place.node("h1")
    below = RelayMessage(
        MessageType.RELAY_FORW,
        7,
        UNSPECIFIED,
        node.link_local,
        ((OptionCode.INTERFACE_ID, b"port 7"), (OptionCode.RELAY_MSG, node.message())),
    ).encode()
    relay = netns.inside(place.hosts, _relay_port)
    try:
        relay.sendto(below, ("ff02::1:2", 547, 0, node.index))
        received = place.cmd.take_from(node).data
        level = parse(received)
        assert isinstance(level, RelayMessage)
        assert level.hop_count == 8
        assert first(level.options, OptionCode.INTERFACE_ID) == b"access1"
        assert first(level.options, OptionCode.RELAY_MSG) == below
        # Its answer goes to the relay's port.
        answer = RelayMessage(
            MessageType.RELAY_REPL,
            7,
            UNSPECIFIED,
            node.link_local,
            ((OptionCode.INTERFACE_ID, b"port 7"), (OptionCode.RELAY_MSG, node.reply())),
        ).encode()
        place.cmd.reply(received, answer)
        relay.settimeout(10)
        assert relay.recv(65_535) == answer
    finally:
        relay.close()


def _relay_port() -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.bind(("::", 547))
    return sock


def test_only_the_configured_server_is_believed(place: Site, maar: Running) -> None:
    node = place.node()
    node.send(node.message())
    forward = place.cmd.take_from(node).data
    before = maar.count("server.unknown")
    forged = relay_reply(forward, node.reply(), dmm.AnchoredPrefix(node.prefix(), 10, 20))
    sock = netns.inside(place.core, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    try:
        sock.bind(("2001:db8:c::2", 547))
        sock.sendto(forged, ("2001:db8:f1::1", 547))
        maar.counts("server.unknown", before + 1)
    finally:
        sock.close()
    assert node.arrived() == []
