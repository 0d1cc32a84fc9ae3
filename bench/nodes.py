"""The nodes that move between two MAARs, and what is said of them to a MAAR.

Nodes are numbers from 1; their link-layer and link-local addresses, their DUIDs and their prefixes follow from them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from functools import cache
from typing import Final

from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage
from dmm_wire.dhcpv6.options import ElapsedTime

_ALL_RELAYS: Final = parse_address("ff02::1:2")
_ALL_RELAYS_MAC: Final = bytes.fromhex("333300010002")
_LINK_LOCAL: Final = parse_address("fe80::")[:8]
_SERVER_ID: Final = bytes.fromhex("00030001020000000547")
_LIFETIME: Final = 86_400


@cache
def endpoint(maar: int) -> bytes:
    """The tunnel endpoint of MAAR 1 or 2."""
    return parse_address(f"2001:db8:f{maar}::1")


def pool(maar: int) -> Prefix:
    """Out of which its nodes' prefixes are."""
    return Prefix.parse(f"2001:db8:{maar}::/48")


def prefix(maar: int, node: int) -> Prefix:
    """What the node has from this MAAR."""
    return Prefix.parse(f"2001:db8:{maar}:{node:x}::/64")


def mac(node: int) -> bytes:
    """The node's link-layer address."""
    return b"\x02\xbe" + node.to_bytes(4, "big")


def link_local(node: int) -> bytes:
    """The node's link-local address."""
    return _LINK_LOCAL + b"\0\0" + mac(node)


def duid(node: int) -> bytes:
    """The node's DUID."""
    return b"\x00\x03\x00\x01" + mac(node)


def request(node: int) -> bytes:
    """The frame with a node's Request, to all relay agents of its link."""
    options = ((int(OptionCode.CLIENTID), duid(node)), ElapsedTime(0).encode())
    message = ClientMessage(MessageType.REQUEST, node.to_bytes(3, "big"), options).encode()
    return _frame(node, message)


def _frame(node: int, message: bytes) -> bytes:
    source, size = link_local(node), 8 + len(message)
    header = struct.pack("!HHHH", CLIENT_PORT, SERVER_PORT, size, 0)
    pseudo = source + _ALL_RELAYS + struct.pack("!I3xB", size, socket.IPPROTO_UDP)
    checked = pseudo + header + message
    checked += b"\0" * (len(checked) % 2)
    total = sum(struct.unpack(f"!{len(checked) // 2}H", checked))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:6] + struct.pack("!H", (0xFFFF - total) or 0xFFFF)
    packet = struct.pack("!IHBB", 6 << 28, size, socket.IPPROTO_UDP, 255) + source + _ALL_RELAYS
    return _ALL_RELAYS_MAC + mac(node) + b"\x86\xdd" + packet + header + message


def answer(maar: int, node: int, generation: int, anchors: Iterable[int], previous: int) -> bytes:
    """The Relay-reply to a node's Request at this MAAR: it is on a visit with this generation, and has a prefix from
    each of `anchors`. `previous` is the MAAR that it left, 0 for none."""
    left = endpoint(previous) if previous else bytes(16)
    suboptions: list[dmm.SubOption] = [dmm.Status(0), dmm.Visit(generation, left)]
    for anchor in anchors:
        if anchor == maar:
            suboptions.append(dmm.AnchoredPrefix(prefix(anchor, node), _LIFETIME, _LIFETIME))
        else:
            at = endpoint(anchor)
            suboptions.append(dmm.PreviousMaar(prefix(anchor, node), 0, _LIFETIME, False, at))
    own = ((int(OptionCode.CLIENTID), duid(node)), (int(OptionCode.SERVERID), _SERVER_ID))
    reply = ClientMessage(MessageType.REPLY, node.to_bytes(3, "big"), own).encode()
    options = (
        (int(OptionCode.INTERFACE_ID), b"access0"),
        dmm.to_option(dmm.DEFAULT_ENTERPRISE, suboptions),
        (int(OptionCode.RELAY_MSG), reply),
    )
    link = pool(maar).address
    return RelayMessage(MessageType.RELAY_REPL, 0, link, link_local(node), options).encode()
