"""The MAAR's sockets. All are non-blocking; each `receive` returns None when nothing waits.

What a socket accepts is decided by where it is bound: server and peer traffic only on the core interface, so that a
host on an access link cannot speak as a server or as a MAAR; client traffic only on the access device it arrived at.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from collections import OrderedDict
from functools import lru_cache
from typing import NamedTuple

from dmm_wire.address import format_address, parse_address
from dmm_wire.dhcpv6.codes import SERVER_PORT

# Not in the socket module of Python 3.11.
IPV6_FREEBIND = 78
IPV6_CHECKSUM = 7
ICMP6_FILTER = 1
SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
PACKET_IGNORE_OUTGOING = 23
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_ALLMULTI = 2

MOBILITY_HEADER = 135
"""IPv6 next header of PMIPv6 signalling (RFC 6275 section 6.1)."""
ROUTER_SOLICITATION = 133
LARGEST = 65_535
_BUFFER = 4 << 20

ALL_RELAYS_AND_SERVERS = parse_address("ff02::1:2")
ALL_ROUTERS = parse_address("ff02::2")


_ROOM = memoryview(bytearray(LARGEST))
"""Where datagrams are received: one at a time, and few are large."""


class Received(NamedTuple):
    """A datagram and the address it came from."""

    source: bytes
    data: bytes


class Solicitation(NamedTuple):
    """A whole ICMPv6 message of type Router Solicitation, where it came from and with which hop limit."""

    source: bytes
    data: bytes
    hop_limit: int


def _source(address: tuple[str, int, int, int] | tuple[str, int]) -> bytes:
    text = address[0]
    return socket.inet_pton(socket.AF_INET6, text.partition("%")[0] if "%" in text else text)


@lru_cache(maxsize=4096)
def _text(address: bytes) -> str:
    """As sendto(2) in Python wants it: the servers, the other MAARs and who is talked to now come again and again."""
    return socket.inet_ntop(socket.AF_INET6, address)


def _make_room(sock: socket.socket) -> None:
    """A burst must not push out what came before it. Beyond net.core.rmem_max takes CAP_NET_ADMIN."""
    for option in (SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            return


class Socket:
    """What all sockets here share: a file descriptor, room for a burst, a close."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)
        _make_room(sock)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


class _Datagram(Socket):
    """A socket that receives datagrams and never blocks."""

    def receive(self) -> Received | None:
        """The next datagram, None when there is none (or only an error the network reported: a peer that is down)."""
        try:
            size, address = self._socket.recvfrom_into(_ROOM)
        except OSError:
            return None
        return Received(_source(address), bytes(_ROOM[:size]))


def _udp(port: int, address: bytes, device: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        # The endpoint need not be a local address by the main table (southbound drivers), so bind without asking.
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.bind((format_address(address), port))
    except OSError:
        sock.close()
        raise
    return sock


class ServerSocket(_Datagram):
    """UDP from the endpoint, port 547, to the DHCPv6 servers and back (RFC 9915 section 19)."""

    def __init__(self, endpoint: bytes, core_interface: str) -> None:
        super().__init__(_udp(SERVER_PORT, endpoint, core_interface))

    def send(self, destination: bytes, data: bytes) -> None:
        """Send `data` to a server. Raises OSError."""
        self._socket.sendto(data, (_text(destination), SERVER_PORT))


class ClientSocket(_Datagram):
    """UDP port 547 on one access device: multicast to All_DHCP_Relay_Agents_and_Servers and unicast to us."""

    def __init__(self, device: str, index: int) -> None:
        sock = _udp(SERVER_PORT, bytes(16), device)
        sock.setsockopt(
            socket.IPPROTO_IPV6,
            socket.IPV6_JOIN_GROUP,
            ALL_RELAYS_AND_SERVERS + struct.pack("@I", index),
        )
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        super().__init__(sock)
        self._index = index

    def send(self, destination: bytes, port: int, data: bytes) -> None:
        """Send `data` to a client or to a relay below us. Raises OSError."""
        self._socket.sendto(data, (_text(destination), port, 0, self._index))


class RouterSocket(Socket):
    """ICMPv6 on one access device: Router Solicitations in, Router Advertisements out (RFC 4861 sections 4.1, 4.2)."""

    def __init__(self, device: str, index: int, link_local: bytes) -> None:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            # A set bit blocks that type: all but Router Solicitation.
            blocked = bytearray(b"\xff" * 32)
            word = struct.unpack_from("=I", blocked, (ROUTER_SOLICITATION // 32) * 4)[0]
            struct.pack_into(
                "=I",
                blocked,
                (ROUTER_SOLICITATION // 32) * 4,
                word & ~(1 << (ROUTER_SOLICITATION % 32)),
            )
            sock.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, bytes(blocked))
            # RFC 4861 section 4.2: the hop limit is 255, or the host drops the advertisement.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            sock.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, ALL_ROUTERS + struct.pack("@I", index)
            )
            # The source of RAs; what goes to the joined group is heard all the same.
            sock.bind((format_address(link_local), 0, 0, index))
        except OSError:
            sock.close()
            raise
        super().__init__(sock)
        self._index = index

    def receive(self) -> Solicitation | None:
        """The next Router Solicitation, valid or not; its checksum is right."""
        try:
            data, ancillary, _, address = self._socket.recvmsg(LARGEST, 64)
        except OSError:
            return None
        hop_limit = next(
            (
                int.from_bytes(value[:4], sys.byteorder)
                for level, kind, value in ancillary
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)
            ),
            0,
        )
        return Solicitation(_source(address), data, hop_limit)

    def send(self, destination: bytes, data: bytes) -> None:
        """Send a Router Advertisement; the kernel fills in the checksum. Raises OSError."""
        self._socket.sendto(data, (_text(destination), 0, 0, self._index))


class MobilitySocket(_Datagram):
    """The raw Mobility Header socket, bound to the endpoint on the core interface.

    The kernel would drop a bad checksum silently; IPV6_CHECKSUM -1 lets it through, so that the core counts it.
    """

    def __init__(self, endpoint: bytes, core_interface: str) -> None:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, MOBILITY_HEADER)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, core_interface.encode())
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, -1)
            sock.bind((format_address(endpoint), 0))
        except OSError:
            sock.close()
            raise
        super().__init__(sock)

    def send(self, destination: bytes, data: bytes) -> None:
        """Send a whole Mobility Header. Raises OSError."""
        self._socket.sendto(data, (_text(destination), 0))


# Classic BPF over an Ethernet frame: IPv6, and DHCPv6 to port 547, Router Solicitation, Neighbor Solicitation or
# Advertisement, or a Hop-by-Hop header (MLD reports carry one). A busy link costs a few instructions a packet.
_LD_H_ABS, _LD_B_ABS, _JEQ, _RET = 0x28, 0x30, 0x15, 0x06
_FRAME_FILTER = (
    (_LD_H_ABS, 0, 0, 12),  # 0 ethertype
    (_JEQ, 0, 11, 0x86DD),  # 1 not IPv6: drop
    (_LD_B_ABS, 0, 0, 20),  # 2 next header
    (_JEQ, 8, 0, 0),  # 3 hop-by-hop: keep
    (_JEQ, 2, 0, 58),  # 4 ICMPv6: 7
    (_JEQ, 4, 0, 17),  # 5 UDP: 10
    (_RET, 0, 0, 0),  # 6 drop
    (_LD_B_ABS, 0, 0, 54),  # 7 ICMPv6 type
    (_JEQ, 3, 0, 133),  # 8 Router Solicitation: keep
    (_JEQ, 2, 4, 135),  # 9 Neighbor Solicitation: keep; else 14
    (_LD_H_ABS, 0, 0, 56),  # 10 UDP destination port
    (_JEQ, 0, 1, 547),  # 11 DHCPv6: keep
    (_RET, 0, 0, 128),  # 12 keep the headers
    (_RET, 0, 0, 0),  # 13 drop
    (_JEQ, 0, 1, 136),  # 14 Neighbor Advertisement
    (_RET, 0, 0, 128),  # 15 keep
    (_RET, 0, 0, 0),  # 16 drop
)


_ND_TRIGGERS = {ROUTER_SOLICITATION: "rs", 135: "ns", 136: "na"}


class Frame(NamedTuple):
    """The first frame of somebody: who sent it, and what kind it was."""

    link_layer: bytes
    source: bytes
    trigger: str
    """"dhcpv6", "rs", "ns", "na" or "mld"."""
    transaction: bytes = b""
    """Of a DHCPv6 message: octets 1 to 3, the transaction id of a client's."""


class FrameSocket(Socket):
    """Sees who speaks on an access device before the IPv6 stack does, with the link-layer address (RFC 6939 section 4:
    the relay agent takes it from the frame's header)."""

    def __init__(self, device: str) -> None:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            _attach_filter(sock)
            # MLD reports, and solicitations of a host's own addresses, go to groups that nobody here is in: a macvlan
            # passes on what its members joined, unless somebody wants all.
            request = struct.pack("@iHH8x", socket.if_nametoindex(device), PACKET_MR_ALLMULTI, 0)
            sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
            sock.bind((device, 0x86DD))
        except OSError:
            sock.close()
            raise
        super().__init__(sock)

    def receive(self) -> Frame | None:
        """The next frame that came from somebody else, None when nothing waits."""
        while True:
            try:
                # Not recvfrom: for the address Python would ask the kernel for the device's name each time. What goes
                # out comes to sockets for every protocol only.
                data = self._socket.recv(256)
            except OSError:
                return None
            if len(data) < 54:
                continue
            trigger = _trigger(data)
            if trigger is not None:
                # Ethernet 14, IPv6 40, UDP 8 and the message type come before it.
                transaction = data[63:66] if trigger == "dhcpv6" else b""
                return Frame(data[6:12], data[22:38], trigger, transaction)


def _attach_filter(sock: socket.socket) -> None:
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FRAME_FILTER)
    buffer = ctypes.create_string_buffer(program)
    # struct sock_fprog: the count, padded to a pointer, then where the instructions are.
    fprog = struct.pack("@HP", len(_FRAME_FILTER), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
    with contextlib.suppress(OSError):
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)


def _trigger(frame: bytes) -> str | None:
    next_header = frame[20]
    if next_header == 17:
        return "dhcpv6"
    if next_header == 0:
        return "mld"
    if next_header == 58 and len(frame) > 54:
        return _ND_TRIGGERS.get(frame[54])
    return None


class LinkLayers:
    """Which link-layer address a message came from; bounded, the least recently seen goes first.

    Frames are read before datagrams, and another host may have sent a frame with the same source in between. So a
    DHCPv6 message is looked up by its transaction too, and of two frames of one transaction the first one counts: who
    copies it has seen it.
    """

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._seen: OrderedDict[tuple[str, bytes, bytes], bytes] = OrderedDict()

    def learn(self, interface: str, frame: Frame) -> None:
        """Remember who sent it."""
        key = (interface, frame.source, frame.transaction)
        if not frame.transaction or key not in self._seen:
            self._seen[key] = frame.link_layer
        self._seen.move_to_end(key)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)

    def of(self, interface: str, source: bytes, transaction: bytes = b"") -> bytes | None:
        """The link-layer address, None when it was never seen."""
        return self._seen.get((interface, source, transaction))
