"""Frames on the access links, before the IPv6 stack has them: who speaks, with which link-layer address; and frames
out to a node whose address nobody has to resolve first.

Two sockets for each link, each with a BPF program. One has what a node says of itself (DHCPv6, MLD, neighbour and
router discovery), all of it. The other has packets from hosts that are not known there, a few at a time: their first
one is enough. The packets of known nodes reach neither.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from dmm_wire.address import Prefix
from dmm_wire.router_identity import RouterIdentity
from relay_maar.io import bpf
from relay_maar.io.sockets import Socket

PACKET_IGNORE_OUTGOING = 23
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_MR_PROMISC = 1
PACKET_MR_ALLMULTI = 2

_IPV6: Final = 0x86DD
_EVERY_PROTOCOL: Final = 3
_NOBODY: Final = RouterIdentity(bytes(16), bytes(6))
_UDP, _ICMPV6, _HOP_BY_HOP = 17, 58, 0
_HEADERS: Final = 54
"""Octets of the Ethernet and IPv6 headers."""
_SNAP: Final = 128
_PACKET_BUFFER: Final = 16_384
"""Some dozens of frames: of a host that is not known one is enough."""

_MLD: Final = frozenset({131, 132, 143})
"""MLDv1 reports and dones, MLDv2 reports."""
_ND: Final = {133: "rs", 135: "ns", 136: "na"}
_SOLICITED: Final = 0x40

SPEAKS: Final = bpf.assemble(
    (
        bpf.load(2, 12),
        bpf.equal(_IPV6, None, "drop"),
        bpf.load(1, 20),  # next header
        bpf.equal(_HOP_BY_HOP, "options"),
        bpf.equal(_ICMPV6, "icmp"),
        bpf.equal(_UDP, None, "drop"),
        bpf.load(2, 56),  # destination port
        bpf.equal(547, "keep", "drop"),
        bpf.load(1, 21, name="icmp"),  # hop limit (RFC 4861 section 6.1.1)
        bpf.equal(255, None, "drop"),
        bpf.load(1, 54),
        *(bpf.equal(kind, "keep") for kind in sorted(_ND)),
        bpf.keep(0),
        bpf.load(2, 54, name="options"),  # MLD has one of eight octets (RFC 3810 section 5)
        bpf.equal(_ICMPV6 << 8, None, "drop"),
        bpf.load(1, 62),
        *(bpf.equal(kind, "keep") for kind in sorted(_MLD)),
        bpf.keep(0, name="drop"),
        bpf.keep(_SNAP, name="keep"),
    )
)
"""What a node says when it comes, and DHCPv6 to us."""

NOTHING: Final = bpf.assemble((bpf.keep(0),))


def strangers(
    quiet: Collection[bytes], sources: Sequence[Prefix]
) -> tuple[bpf.Instruction, ...] | None:
    """The program that keeps unicast packets out of `sources` from link-layer addresses that are none of `quiet`; None
    where it were too long. Of a link-layer address it looks at the last 31 bits."""
    tests: list[bpf.Step] = []
    for number, prefix in enumerate(sources):
        other = f"not {number}"
        for at in range(0, max(prefix.length, 1), 32):
            bits = (0xFFFFFFFF << max(0, 32 - (prefix.length - at))) & 0xFFFFFFFF
            value = int.from_bytes(prefix.address[at // 8 : at // 8 + 4], "big") & bits
            # Name the first step after the tests of the prefix before.
            load = bpf.load(4, 22 + at // 8, name=f"not {number - 1}" if at == 0 else None)
            tests += [load, bpf.mask(bits), bpf.equal(value, None, other)]
        tests.append(bpf.go("who"))
    steps = (
        bpf.load(2, 12),
        bpf.equal(_IPV6, None, "drop"),
        bpf.load(1, 0),
        bpf.mask(1),
        bpf.equal(1, "drop"),  # multicast
        *tests,
        bpf.keep(0, name=f"not {len(sources) - 1}"),
        bpf.keep(0, name="drop"),
        bpf.load(4, 8, name="who"),
        bpf.mask(_WHO),
    )
    known = bpf.one_of([int.from_bytes(each[-4:], "big") & _WHO for each in quiet], 0, _HEADERS)
    program = (*bpf.assemble(steps), *known)
    return program if len(program) <= bpf.LARGEST else None


_WHO: Final = 0x7FFFFFFF
"""31 bits: the kernel compares with a number below 2^31 in one instruction."""


class Frame(NamedTuple):
    """A frame of somebody: who sent it, and what kind it was."""

    link_layer: bytes
    source: bytes
    trigger: str
    """"dhcpv6", "rs", "ns", "na" (which was solicited), "una" (which was not), "mld" or "data"."""
    transaction: bytes = b""
    """Of a DHCPv6 message: octets 1 to 3, the transaction id of a client's."""
    target: bytes = bytes(16)
    """Of an NS or NA."""


class _Tap(Socket):
    """Frames of one device that others sent."""

    def __init__(
        self,
        device: str,
        program: Sequence[bpf.Instruction],
        *,
        all_groups: bool,
        whole: bool,
    ) -> None:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._before = bpf.UNTAGGED if whole else bpf.FOR_US
        try:
            bpf.attach(sock, (*self._before, *program))
            with contextlib.suppress(OSError):
                sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            if whole:
                _join(sock, device, PACKET_MR_PROMISC)
            elif all_groups:
                # MLD reports, and solicitations of a host's own addresses, go to groups that nobody here is in: a
                # macvlan passes on what its members joined, unless somebody wants all.
                _join(sock, device, PACKET_MR_ALLMULTI)
            # A macvlan takes its frames before those see them that are for one protocol of the interface below.
            sock.bind((device, _EVERY_PROTOCOL if whole else _IPV6))
        except OSError:
            sock.close()
            raise
        super().__init__(sock)

    def _filter(self, program: Sequence[bpf.Instruction]) -> None:
        bpf.attach(self._socket, (*self._before, *program))

    def _next(self) -> bytes | None:
        while True:
            try:
                # Not recvfrom: for the address Python would ask the kernel for the device's name each time. What goes
                # out comes only to sockets that are for every protocol, and is ignored there (Linux 4.20).
                data = self._socket.recv(256)
            except OSError:
                return None
            if len(data) >= _HEADERS:
                return data


def _join(sock: socket.socket, device: str, what: int) -> None:
    request = struct.pack("@iHH8x", socket.if_nametoindex(device), what, 0)
    sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)


class FrameSocket(_Tap):
    """Sees who speaks on an access device before the IPv6 stack does, with the link-layer address (RFC 6939 section 4:
    the relay agent takes it from the frame's header)."""

    def __init__(
        self,
        device: str,
        router: RouterIdentity = _NOBODY,
        *,
        whole: bool = False,
    ) -> None:
        """Frames out come from `router`. `whole` as of StrangerSocket. Raises OSError."""
        super().__init__(device, SPEAKS, all_groups=True, whole=whole)
        self._device = device
        self._from = router

    def receive(self) -> Frame | None:
        """The next frame that came from somebody else, None when nothing waits."""
        while (data := self._next()) is not None:
            frame = _read(data)
            if frame is not None:
                return frame
        return None

    def send(
        self,
        link_layer: bytes,
        destination: bytes,
        message: bytes,
        sender: RouterIdentity | None = None,
    ) -> None:
        """An ICMPv6 message of neighbour discovery, its checksum left 0, to this link-layer address; from `sender` if
        not from us. Raises OSError."""
        source, here = sender or self._from
        pseudo = source + destination + struct.pack("!I3xB", len(message), _ICMPV6)
        message = message[:2] + _checksum(pseudo + message) + message[4:]
        header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255) + source + destination
        ethernet = link_layer + here + _IPV6.to_bytes(2, "big")
        self._socket.sendto(ethernet + header + message, (self._device, _IPV6))


class StrangerSocket(_Tap):
    """Sees packets on an access device from hosts that are not known there; none before :meth:`watch`."""

    def __init__(self, device: str, *, whole: bool = False) -> None:
        """`whole`: the device is the access interface itself, and all frames on it are looked at, whichever router they
        go to: it may be one that is not here yet. Raises OSError."""
        super().__init__(device, NOTHING, all_groups=False, whole=whole)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PACKET_BUFFER)

    def watch(self, quiet: Collection[bytes] | None, sources: Sequence[Prefix]) -> bool:
        """From now on see packets out of `sources` that come from none of `quiet`; None: see none. Returns whether the
        kernel can tell so many apart; if not, none is seen."""
        program = None if quiet is None else strangers(quiet, sources)
        if program is not None:
            for _ in range(2):
                with contextlib.suppress(OSError):
                    self._filter(program)
                    return True
                # The kernel counts the program before, too, against net.core.optmem_max: without it this one may fit.
                self._filter(NOTHING)
        self._filter(NOTHING)
        return quiet is None

    def receive(self) -> Frame | None:
        """The next packet, None when nothing waits."""
        data = self._next()
        return None if data is None else Frame(data[6:12], data[22:38], "data")


def _checksum(data: bytes) -> bytes:
    """RFC 4443 section 2.3: as of the Mobility Header (`dmm_wire.mobility.checksum`)."""
    total = int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
    return (0xFFFF - total if total else 0).to_bytes(2, "big")


def _read(data: bytes) -> Frame | None:
    link_layer, source = data[6:12], data[22:38]
    next_header = data[20]
    if next_header == _UDP:
        # Ethernet 14, IPv6 40, UDP 8 and the message type come before it.
        return Frame(link_layer, source, "dhcpv6", data[63:66])
    if next_header == _HOP_BY_HOP:
        return Frame(link_layer, source, "mld")
    trigger = _ND.get(data[54]) if next_header == _ICMPV6 and len(data) > 58 else None
    if trigger is None:
        return None
    target = data[62:78].ljust(16, b"\0") if trigger != "rs" else bytes(16)
    if trigger == "na" and not data[58] & _SOLICITED:
        trigger = "una"
    return Frame(link_layer, source, trigger, target=target)


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
