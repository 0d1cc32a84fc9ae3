"""What a capture keeps of a packet, and how a frame is read: IPv6, with or without another IPv6 packet inside."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT

TCP = 6
UDP = 17
IPV6_IN_IPV6 = 41
ICMPV6 = 58
MOBILITY = 135

ECHO_REQUEST = 128
ECHO_REPLY = 129

_ETHERNET = 14
_FIXED = 40
_ETHERTYPE_IPV6 = b"\x86\xdd"
_FRAGMENT = 44
# Hop-by-Hop, Routing, Destination Options: next header, then length in 8 octets without the first (RFC 8200 4.2).
_EXTENSIONS = frozenset((0, 43, 60))
_DATA_KEPT = 24
_ADDRESSES = struct.Struct("!16s16s")


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv6 packet on a link, seen once per link that carried it.

    `at` is the kernel's time in nanoseconds since the epoch. `sender` and `receiver` are the nodes at the link's two
    ends ("m1", "core", "mn"...), not the packet's. Addresses and `protocol` are the innermost packet's; `tunnel` holds
    source and destination of the IPv6 header around it, None for a packet that is not encapsulated. `extensions` are
    the protocol numbers of extension headers behind the outer header. `payload` is whole for signalling, its first
    octets for user data, `length` its length on the link. `multicast`: the frame went to a group of nodes, whatever the
    packet is addressed to.
    """

    at: int
    link: str
    sender: str
    receiver: str
    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    length: int
    tunnel: tuple[bytes, bytes] | None = None
    extensions: tuple[int, ...] = ()
    multicast: bool = False

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port of a TCP or UDP packet."""
        return int.from_bytes(self.payload[:2], "big"), int.from_bytes(self.payload[2:4], "big")

    @property
    def icmp_type(self) -> int | None:
        """The ICMPv6 type, None for another protocol."""
        return self.payload[0] if self.protocol == ICMPV6 and self.payload else None

    @property
    def is_user_data(self) -> bool:
        """Whether it is an echo request or reply, or TCP with data in it."""
        if self.protocol == TCP and len(self.payload) > 12:
            return self.length > 4 * (self.payload[12] >> 4)
        return self.icmp_type in (ECHO_REQUEST, ECHO_REPLY)

    @property
    def identity(self) -> tuple[bytes, bytes, int, bytes]:
        """The same on every link that the packet crosses, encapsulated or not; another one for every other packet.

        ICMPv6 echo: identifier and sequence number; TCP: ports, sequence and acknowledgement numbers.
        """
        return self.source, self.destination, self.protocol, self.payload[:12]


def parse_frame(frame: bytes, at: int, link: str, sender: str, receiver: str) -> Packet | None:
    """Read an Ethernet frame; None for what is not a whole IPv6 header."""
    if frame[12:14] != _ETHERTYPE_IPV6:
        return None
    outer = _header(frame, _ETHERNET)
    if outer is None:
        return None
    source, destination, protocol, offset, extensions = outer
    tunnel = None
    if protocol == IPV6_IN_IPV6:
        inner = _header(frame, offset)
        if inner is None:
            return None
        tunnel = (source, destination)
        source, destination, protocol, offset, _ = inner
    payload = frame[offset:]
    length = len(payload)
    if not _is_signalling(protocol, payload):
        payload = payload[:_DATA_KEPT]
    return Packet(
        at,
        link,
        sender,
        receiver,
        source,
        destination,
        protocol,
        payload,
        length,
        tunnel,
        extensions,
        multicast=bool(frame[0] & 1),
    )


def _header(frame: bytes, offset: int) -> tuple[bytes, bytes, int, int, tuple[int, ...]] | None:
    """Source, destination, upper protocol, its offset, the extension headers before it."""
    if len(frame) < offset + _FIXED or frame[offset] >> 4 != 6:
        return None
    source, destination = _ADDRESSES.unpack_from(frame, offset + 8)
    protocol = frame[offset + 6]
    offset += _FIXED
    extensions: list[int] = []
    while protocol in _EXTENSIONS and len(frame) >= offset + 8:
        extensions.append(protocol)
        protocol, length = frame[offset], frame[offset + 1]
        offset += 8 + 8 * length
    if protocol == _FRAGMENT:
        extensions.append(protocol)
    return source, destination, protocol, offset, tuple(extensions)


def _is_signalling(protocol: int, payload: bytes) -> bool:
    if protocol == UDP:
        ports = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
        return CLIENT_PORT in ports or SERVER_PORT in ports
    if protocol == ICMPV6:
        return payload[:1] not in (b"\x80", b"\x81")
    return protocol == MOBILITY
