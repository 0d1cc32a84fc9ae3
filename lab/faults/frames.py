"""Ethernet frames of mobile nodes that are no hosts: IPv6 with UDP or ICMPv6 in it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from dmm_wire.address import parse_address, parse_mac
from lab.packets import ICMPV6, UDP

ROUTER_MAC = parse_mac("00:00:5e:00:52:13")
ROUTER = parse_address("fe80::200:5eff:fe00:5213")
"""RFC 6543: who every MAAR is on its access links."""
ALL_ROUTERS = parse_address("ff02::2")
ALL_AGENTS = parse_address("ff02::1:2")

ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOUR_SOLICITATION = 135
_NEIGHBOUR_ADVERTISEMENT = 136
_SOLICITED_OVERRIDE = 0x60000000
MULTICAST_REPORT = 143
_CHANGE_TO_EXCLUDE = 4
_ALL_MLD_ROUTERS = parse_address("ff02::16")
_SOLICITED_NODE = parse_address("ff02::1:ff00:0")[:13]
_HOP_BY_HOP = 0
_ROUTER_ALERT = bytes((ICMPV6, 0, 5, 2, 0, 0, 1, 0))
"""A Hop-by-Hop header with the option of RFC 2711, before ICMPv6 (RFC 3810 section 5)."""
_SOURCE_LINK_LAYER, TARGET_LINK_LAYER = 1, 2

_ETHERTYPE = b"\x86\xdd"
_ETHERNET = 14
_IPV6 = struct.Struct("!IHBB16s16s")
_PSEUDO = struct.Struct("!16s16sI3xB")
_UDP = struct.Struct("!HHHH")
_START = _ETHERNET + _IPV6.size


class Frame(NamedTuple):
    """An IPv6 packet in an Ethernet frame; `body` is what follows the IPv6 header."""

    to: bytes
    source: bytes
    destination: bytes
    protocol: int
    hop_limit: int
    body: bytes

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port of UDP."""
        return int.from_bytes(self.body[:2], "big"), int.from_bytes(self.body[2:4], "big")

    @property
    def data(self) -> bytes:
        """What UDP carries."""
        return self.body[_UDP.size :]


def parse(frame: bytes) -> Frame | None:
    """Read a frame; None for what is no IPv6."""
    if len(frame) < _START or frame[12:14] != _ETHERTYPE:
        return None
    _, length, protocol, hop_limit, source, destination = _IPV6.unpack_from(frame, _ETHERNET)
    body = frame[_START : _START + length]
    if protocol == UDP and len(body) < _UDP.size:
        return None
    return Frame(frame[:6], source, destination, protocol, hop_limit, body)


def link_local(mac: bytes) -> bytes:
    """The address that follows from a link-layer address (RFC 4291 appendix A)."""
    identifier = bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return bytes.fromhex("fe80000000000000") + identifier


def udp(
    mac: bytes, source: bytes, destination: bytes, ports: tuple[int, int], data: bytes
) -> bytes:
    """A datagram of the node, by multicast or to the router."""
    header = _UDP.pack(*ports, _UDP.size + len(data), 0)
    check = _checksum(source, destination, UDP, header + data) or 0xFFFF
    body = header[:6] + check.to_bytes(2, "big") + data
    return _frame(mac, source, destination, UDP, 64, body)


def router_solicitation(mac: bytes) -> bytes:
    """RFC 4861 section 4.1, with the link-layer address."""
    body = struct.pack("!BBHI", ROUTER_SOLICITATION, 0, 0, 0) + _link_layer(_SOURCE_LINK_LAYER, mac)
    return _icmp(mac, link_local(mac), ALL_ROUTERS, body)


def neighbour_advertisement(mac: bytes, target: bytes, asker: bytes) -> bytes:
    """RFC 4861 section 4.4: the answer to the router's question."""
    body = struct.pack("!BBHI16s", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _SOLICITED_OVERRIDE, target)
    return _icmp(mac, target, asker, body + _link_layer(TARGET_LINK_LAYER, mac))


def multicast_report(mac: bytes, source: bytes, addresses: Iterable[bytes]) -> bytes:
    """RFC 3810 section 5.2: an MLDv2 report, by which a host says first of all that it listens to the solicited-node
    groups of its addresses (RFC 4291 section 2.7.1)."""
    groups = dict.fromkeys(_SOLICITED_NODE + address[13:] for address in addresses)
    records = b"".join(struct.pack("!BBH16s", _CHANGE_TO_EXCLUDE, 0, 0, group) for group in groups)
    body = struct.pack("!BBHHH", MULTICAST_REPORT, 0, 0, 0, len(groups)) + records
    check = _checksum(source, _ALL_MLD_ROUTERS, ICMPV6, body)
    body = body[:2] + check.to_bytes(2, "big") + body[4:]
    return _frame(mac, source, _ALL_MLD_ROUTERS, _HOP_BY_HOP, 1, _ROUTER_ALERT + body)


def _link_layer(kind: int, mac: bytes) -> bytes:
    return bytes((kind, 1)) + mac


def _icmp(mac: bytes, source: bytes, destination: bytes, body: bytes) -> bytes:
    check = _checksum(source, destination, ICMPV6, body)
    body = body[:2] + check.to_bytes(2, "big") + body[4:]
    return _frame(mac, source, destination, ICMPV6, 255, body)


def _frame(
    mac: bytes, source: bytes, destination: bytes, protocol: int, hops: int, body: bytes
) -> bytes:
    to = b"\x33\x33" + destination[12:] if destination[0] == 0xFF else ROUTER_MAC
    header = _IPV6.pack(6 << 28, len(body), protocol, hops, source, destination)
    return to + mac + _ETHERTYPE + header + body


def _checksum(source: bytes, destination: bytes, protocol: int, body: bytes) -> int:
    """RFC 8200 section 8.1, over a body whose checksum is zero."""
    octets = _PSEUDO.pack(source, destination, len(body), protocol) + body
    # 2**16 leaves 1 when divided by 65535: the octets read as one number are their sum in words.
    return 0xFFFF - int.from_bytes(octets + b"\0" * (len(octets) % 2), "big") % 0xFFFF
