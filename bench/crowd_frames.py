"""What goes over an access link of a crowd that moves: which frames are read there, and the answers of nodes. Pure.

A probe is a datagram of the CN to a node; the node sends it back. It names the move and the node, so that none of
another move is taken for it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT
from lab.faults import frames
from lab.packets import ICMPV6, MOBILITY, UDP
from relay_maar.io import bpf

PORT: Final = 5011
"""Of both ends of a flow."""
HOP_LIMIT: Final = 64
"""That both ends send with (`lab.faults.frames.udp` does)."""
TUNNELLED: Final = HOP_LIMIT - 3
"""What is left of it at the other end by way of the anchor: each MAAR and the core take one, and what is encapsulated
loses nothing (RFC 2473 section 3.1). A packet that one MAAR alone has forwarded has one more."""

_PROBE: Final = struct.Struct("!II")
_IPV6: Final = 0x86DD
_ETHERNET, _START, _UDP_HEADER = 14, 54, 8
_WHOLE: Final = 1 << 16
_HEAD: Final = 96
"""Octets of a signalling message that show what it is."""


class Probe(NamedTuple):
    """Which move it belongs to, and to whom it goes."""

    move: int
    node: int

    def encode(self) -> bytes:
        """What the datagram carries."""
        return _PROBE.pack(*self)

    @classmethod
    def decode(cls, data: bytes) -> Probe | None:
        """None for what is none."""
        return cls(*_PROBE.unpack(data)) if len(data) == _PROBE.size else None


def carried(frame: bytes) -> Probe | None:
    """The probe in a frame."""
    return Probe.decode(frame[_START + _UDP_HEADER :])


def hop_limit(frame: bytes) -> int:
    """Of the IPv6 header."""
    return frame[_ETHERNET + 7]


def sent_back(frame: bytes) -> bytes:
    """The node's answer to a probe. Its checksum is its own: the one of what comes from a kernel of this machine may be
    left to a network card that there is not."""
    data = frame[_START + _UDP_HEADER :]
    return frames.udp(frame[:6], frame[38:54], frame[22:38], (PORT, PORT), data)


def _program(*udp: bpf.Step) -> tuple[bpf.Instruction, ...]:
    """Keep Neighbor Solicitations and, of UDP, what these steps keep."""
    return bpf.assemble(
        (
            bpf.load(2, 12),
            bpf.equal(_IPV6, None, "drop"),
            bpf.load(1, 20),  # next header
            bpf.equal(ICMPV6, "icmp"),
            bpf.equal(UDP, None, "drop"),
            bpf.load(2, 56),  # destination port
            *udp,
            bpf.keep(0, name="drop"),
            bpf.load(1, _START, name="icmp"),
            bpf.equal(frames.NEIGHBOUR_SOLICITATION, "keep", "drop 2"),
            bpf.keep(0, name="drop 2"),
            bpf.keep(_WHOLE, name="keep"),
        )
    )


QUIET: Final = _program(bpf.equal(CLIENT_PORT, "keep"))
"""The frames that matter on a link where nobody comes: without probes, which go on to where nodes have left until their
anchor knows it, and would cost those who are measured the processor."""
LISTENING: Final = _program(bpf.equal(CLIENT_PORT, "keep"), bpf.equal(PORT, "keep"))
"""With them."""
SIGNALLING: Final = bpf.assemble(
    (
        bpf.load(2, 12),
        bpf.equal(_IPV6, None, "drop"),
        bpf.load(1, 20),
        bpf.equal(MOBILITY, "keep"),
        bpf.equal(UDP, None, "drop"),
        bpf.load(2, 54),  # source port
        bpf.equal(SERVER_PORT, "keep"),
        bpf.keep(0, name="drop"),
        bpf.keep(_HEAD, name="keep"),
    )
)
"""What MAARs and the CMD say to each other, on a link of the core; the beginning of each message."""
