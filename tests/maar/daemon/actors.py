"""Who is around a MAAR, played byte by byte: the CMD, other MAARs, strangers, hosts."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from dmm_wire import dmm
from dmm_wire.address import Prefix, format_address, parse_address, parse_mac
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, Options, RelayMessage, first, unwrap
from dmm_wire.dhcpv6.options import ElapsedTime
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import BindingAcknowledgement, BindingUpdate, decode, encode
from lab import netns

ENDPOINT = parse_address("2001:db8:f1::1")
CMD = parse_address("2001:db8:c::547")
PEER = parse_address("2001:db8:f2::1")
OTHER = parse_address("2001:db8:f3::1")
STRANGER = parse_address("2001:db8:f9::1")
RELAY_ID = bytes.fromhex("000200007ed9") + b"maar1"

ROUTER_LINK_LOCAL = parse_address("fe80::200:5eff:fe00:5213")
ROUTER_MAC = parse_mac("00:00:5e:00:52:13")
"""RFC 6543 section 4."""
HOST_MAC = parse_mac("02:00:00:00:00:0a")
ALL_RELAYS = "ff02::1:2"
SERVER_ID = bytes.fromhex("00030001020000000547")

SO_RCVBUFFORCE = 33
"""Not in the socket module of Python 3.11."""
PATIENCE = 30.0
"""Seconds for whatever a test waits for."""


class Datagram(NamedTuple):
    """What arrived, where from and when (seconds, monotonic)."""

    source: bytes
    data: bytes
    at: float


class Mailbox:
    """A socket and what has arrived at it and was not taken yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._waiting: list[Datagram] = []

    def arrived(self) -> list[Datagram]:
        """All that is here now, in order; it stays."""
        while True:
            try:
                data, address = self.socket.recvfrom(65_535)
            except BlockingIOError:
                return self._waiting
            source = b""
            if self.socket.family == socket.AF_INET6:
                source = parse_address(address[0].partition("%")[0])
            self._waiting.append(Datagram(source, data, time.monotonic()))

    def take(
        self, wanted: Callable[[Datagram], bool] = lambda _: True, patience: float = PATIENCE
    ) -> Datagram:
        """The first that is wanted, waited for; it is gone from here then."""
        deadline = time.monotonic() + patience
        while True:
            for datagram in self.arrived():
                if wanted(datagram):
                    self._waiting.remove(datagram)
                    return datagram
            left = deadline - time.monotonic()
            assert left > 0, "waited in vain for a datagram"
            select.select([self.socket], [], [], left)

    def clear(self) -> None:
        self.arrived()
        self._waiting.clear()

    def close(self) -> None:
        self.socket.close()


class Cmd(Mailbox):
    """The CMD's socket."""

    def __init__(self, namespace: str) -> None:
        sock = netns.inside(namespace, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        super().__init__(sock)
        sock.bind((format_address(CMD), SERVER_PORT))

    def take_query(self, patience: float = PATIENCE) -> Datagram:
        """What the MAAR asks for itself, and about no node that has come."""

        def wanted(each: Datagram) -> bool:
            own = _kind(each.data) == MessageType.INFORMATION_REQUEST
            return own and attachment_of(each.data) is None

        return self.take(wanted, patience)

    def take_arrival(self, link_layer: bytes, patience: float = PATIENCE) -> Datagram:
        """What the MAAR asks about a node that has come."""

        def wanted(each: Datagram) -> bool:
            asked = attachment_of(each.data)
            own = _kind(each.data) == MessageType.INFORMATION_REQUEST
            return own and asked is not None and asked.address == link_layer

        return self.take(wanted, patience)

    def answer_arrival(self, query: bytes, *suboptions: dmm.SubOption) -> None:
        """Answer such a question."""
        client = unwrap(query).client
        own = ((OptionCode.CLIENTID, RELAY_ID), (OptionCode.SERVERID, SERVER_ID))
        answer = ClientMessage(MessageType.REPLY, client.transaction_id, own)
        self.reply(query, answer.encode(), *suboptions)

    def take_from(self, node: Node) -> Datagram:
        """The Relay-forward of a node's message."""
        return self.take(lambda each: _client_id(each.data) == node.duid)

    def send(self, data: bytes) -> None:
        self.socket.sendto(data, (format_address(ENDPOINT), SERVER_PORT))

    def reply(self, forward: bytes, inner: bytes, *suboptions: dmm.SubOption) -> None:
        """Answer a Relay-forward."""
        self.send(relay_reply(forward, inner, *suboptions))

    def answer(
        self,
        query: bytes,
        *endpoints: bytes,
        transaction_id: bytes | None = None,
    ) -> None:
        """Answer the MAAR's own question with the domain."""
        client = unwrap(query).client
        answer = ClientMessage(
            MessageType.REPLY,
            transaction_id or client.transaction_id,
            ((OptionCode.CLIENTID, RELAY_ID), (OptionCode.SERVERID, SERVER_ID)),
        )
        self.reply(query, answer.encode(), dmm.Status(0), dmm.Domain(endpoints))


def _client_id(data: bytes) -> bytes | None:
    return first(unwrap(data).client.options, OptionCode.CLIENTID)


def _kind(data: bytes) -> int:
    return unwrap(data).client.type


def attachment_of(data: bytes) -> dmm.Attachment | None:
    """The ATTACHMENT in a Relay-forward of the MAAR."""
    found = dmm.from_options(dmm.DEFAULT_ENTERPRISE, unwrap(data).relays[0].options) or ()
    return next((each for each in found if isinstance(each, dmm.Attachment)), None)


def relay_reply(forward: bytes, inner: bytes, *suboptions: dmm.SubOption) -> bytes:
    """The Relay-reply to a Relay-forward, with these DMM sub-options at the relay level."""
    level = unwrap(forward).relays[0]
    options: list[tuple[int, bytes]] = []
    interface_id = first(level.options, OptionCode.INTERFACE_ID)
    if interface_id is not None:
        options.append((OptionCode.INTERFACE_ID, interface_id))
    if suboptions:
        options.append(dmm.to_option(dmm.DEFAULT_ENTERPRISE, suboptions))
    options.append((OptionCode.RELAY_MSG, inner))
    return RelayMessage(
        MessageType.RELAY_REPL,
        level.hop_count,
        level.link_address,
        level.peer_address,
        tuple(options),
    ).encode()


class Maar(Mailbox):
    """Another MAAR, or who claims to be one: a raw Mobility Header socket on its own endpoint."""

    def __init__(self, namespace: str, endpoint: bytes) -> None:
        sock = netns.inside(namespace, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 135))
        super().__init__(sock)
        self.endpoint = endpoint
        # IPV6_CHECKSUM: neither filled in nor checked by the kernel.
        sock.setsockopt(socket.IPPROTO_IPV6, 7, -1)
        sock.bind((format_address(endpoint), 0))

    def send_raw(self, header: bytes) -> None:
        self.socket.sendto(header, (format_address(ENDPOINT), 0))

    def send(self, message: BindingUpdate | BindingAcknowledgement) -> None:
        self.send_raw(encode(message, self.endpoint, ENDPOINT))

    def take_update(self, node: Node, patience: float = PATIENCE) -> tuple[BindingUpdate, float]:
        """The next PBU about a node, and when it came."""

        def about(each: Datagram) -> bool:
            return each.data[2] == 5 and node.duid in each.data

        datagram = self.take(about, patience)
        message = decode(datagram.data, ENDPOINT, self.endpoint)
        assert isinstance(message, BindingUpdate)
        return message, datagram.at

    def take_answer(self, sequence: int) -> BindingAcknowledgement:
        """The PBA with this sequence number."""
        message = decode(self._take_acknowledgement(sequence), ENDPOINT, self.endpoint)
        assert isinstance(message, BindingAcknowledgement)
        return message

    def take_status(self, sequence: int) -> int:
        """The status in the PBA with this sequence number. Without a node to answer about, it has an identifier of
        length zero (RFC 5213 section 5.3.6), which is nothing that one could decode."""
        return self._take_acknowledgement(sequence)[6]

    def _take_acknowledgement(self, sequence: int) -> bytes:
        def wanted(each: Datagram) -> bool:
            return each.data[2] == 6 and each.data[8:10] == sequence.to_bytes(2, "big")

        datagram = self.take(wanted)
        assert datagram.source == ENDPOINT
        return datagram.data


class Node(Mailbox):
    """A mobile node with an address, a DUID and prefixes of its own: tests do not get in each other's way."""

    def __init__(self, namespace: str, number: int, device: str = "h0") -> None:
        self.number = number
        self.link_local = parse_address(f"fe80::{number:x}")
        self.duid = bytes.fromhex("00030001020000000000")[:-1] + bytes((number,))
        self.identity = Identity.of(IdentitySubtype.DUID, self.duid)
        netns.ip(*f"addr add fe80::{number:x}/64 dev {device} nodad".split(), namespace=namespace)

        def opened() -> tuple[socket.socket, int]:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            return sock, socket.if_nametoindex(device)

        sock, self.index = netns.inside(namespace, opened)
        super().__init__(sock)
        sock.bind((format_address(self.link_local), CLIENT_PORT, 0, self.index))

    def prefix(self, maar: int = 1) -> Prefix:
        """The node's prefix at a MAAR: 1 is the one under test, 2 is PEER, 3 is OTHER."""
        return Prefix.parse(f"2001:db8:{maar:x}:1{self.number:02x}::/64")

    def delegated(self, maar: int = 1) -> Prefix:
        return Prefix.parse(f"2001:db8:{maar:x}:2{self.number:02x}::/64")

    def message(self, kind: int = MessageType.SOLICIT, options: Options = ()) -> bytes:
        own: Options = ((OptionCode.CLIENTID, self.duid), ElapsedTime(0).encode())
        return ClientMessage(kind, b"abc", own + options).encode()

    def reply(self, kind: int = MessageType.REPLY) -> bytes:
        """What a server says to it, with an option that nobody knows."""
        own = ((OptionCode.CLIENTID, self.duid), (OptionCode.SERVERID, SERVER_ID), (60_001, b"?"))
        return ClientMessage(kind, b"abc", own).encode()

    def send(self, data: bytes, destination: str = ALL_RELAYS) -> None:
        self.socket.sendto(data, (destination, SERVER_PORT, 0, self.index))


def udp_frame(
    source: bytes, destination: bytes, ports: tuple[int, int], payload: bytes, mac: bytes = HOST_MAC
) -> bytes:
    """An Ethernet frame to the router, from whomever."""
    header = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
    pseudo = source + destination + struct.pack("!I3xB", 8 + len(payload), 17)
    total = sum(
        struct.unpack(
            f"!{len(_even(pseudo + header + payload)) // 2}H", _even(pseudo + header + payload)
        )
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:6] + struct.pack("!H", (0xFFFF - total) or 0xFFFF)
    packet = struct.pack("!IHBB", 6 << 28, 8 + len(payload), 17, 64) + source + destination
    return ROUTER_MAC + mac + b"\x86\xdd" + packet + header + payload


class Speaker(Mailbox):
    """A host played frame by frame, with a link-layer address of its own."""

    def __init__(self, namespace: str, number: int, device: str = "h0") -> None:
        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((device, 0x86DD))
            return sock

        super().__init__(netns.inside(namespace, opened))
        self.mac = parse_mac("02:00:00:00:01:00")[:-1] + bytes((number,))
        self.link_local = parse_address(f"fe80::1:{number:x}")
        self.identity = Identity(IdentitySubtype.EUI48, self.mac)
        self.duid = Identity(IdentitySubtype.DUID, b"\0\3\0\1" + self.mac)
        self.answers: set[bytes] = set()
        """The addresses that it owns to when it is asked."""

    def report(self, source: bytes | None = None) -> None:
        """An MLDv2 report (RFC 3810 section 5.2): what a Linux host says first when its carrier is back."""
        record = b"\4\0\0\0" + parse_address("ff02::1:ff00:a")
        message = struct.pack("!BBHHH", 143, 0, 0, 0, 1) + record
        source = self.link_local if source is None else source
        self._send(source, parse_address("ff02::16"), message, 1, b"\x3a\0\5\2\0\0\1\0")

    def look_for_router(self, source: bytes = bytes(16)) -> None:
        """A Router Solicitation, by default before it has an address (RFC 4861 section 4.1)."""
        self._send(source, parse_address("ff02::2"), struct.pack("!BBHI", 133, 0, 0, 0))

    def solicit(self, target: bytes, source: bytes = bytes(16)) -> None:
        """A Neighbor Solicitation, by default of an address that is being tried out."""
        group = parse_address("ff02::1:ff00:0")[:13] + target[13:]
        self._send(source, group, struct.pack("!BBHI", 135, 0, 0, 0) + target)

    def advertise(self, target: bytes, solicited: bool = True) -> None:
        """A Neighbor Advertisement."""
        flags = 0x60 if solicited else 0x20
        message = struct.pack("!BBHB3x", 136, 0, 0, flags) + target + b"\2\1" + self.mac
        self._send(target, ROUTER_LINK_LOCAL, message)

    def say(self, source: bytes, destination: bytes, payload: bytes = b"data") -> None:
        """A packet to somebody behind the router."""
        frame = udp_frame(source, destination, (4000, 4001), payload, self.mac)
        self.socket.send(frame)

    def _send(
        self,
        source: bytes,
        destination: bytes,
        message: bytes,
        hop_limit: int = 255,
        options: bytes = b"",
    ) -> None:
        pseudo = source + destination + struct.pack("!I3xB", len(message), 58)
        total = int.from_bytes(_even(pseudo + message), "big") % 0xFFFF
        message = message[:2] + (0xFFFF - total).to_bytes(2, "big") + message[4:]
        size = len(options) + len(message)
        header = struct.pack("!IHBB", 6 << 28, size, 0 if options else 58, hop_limit)
        to = ROUTER_MAC if destination[0] != 0xFF else b"\x33\x33" + destination[12:]
        frame = to + self.mac + b"\x86\xdd" + header + source + destination + options + message
        self.socket.send(frame)

    def take_message(self, kind: int, patience: float = PATIENCE) -> bytes:
        """The next frame to this host with an ICMPv6 message of this type."""

        def wanted(each: Datagram) -> bool:
            data = each.data
            return data[:6] == self.mac and data[20] == 58 and data[54] == kind

        return self.take(wanted, patience).data


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)
