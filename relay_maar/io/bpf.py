"""Classic BPF: programs that the kernel runs over each frame of a socket, written with names for places to jump to.

A program is gone with its socket: nothing of it is left behind, whatever becomes of the daemon.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

SO_ATTACH_FILTER = 26
LARGEST: Final = 4096
"""Instructions of one program (BPF_MAXINSNS)."""

_LD_W, _LD_H, _LD_B, _AND = 0x20, 0x28, 0x30, 0x54
_JA, _JEQ, _JGE, _RET = 0x05, 0x15, 0x35, 0x06
_FAR: Final = 255
"""How far a condition jumps."""

_LEAF: Final = 8
"""Numbers that are compared one after the other, at the end of a search."""


class Instruction(NamedTuple):
    """As in struct sock_filter: jumps count from the next instruction."""

    code: int
    jump_true: int
    jump_false: int
    k: int


class Step(NamedTuple):
    """An instruction of which jumps have names; None: the next step. `name` is where others jump to."""

    code: int
    k: int = 0
    then: str | None = None
    otherwise: str | None = None
    name: str | None = None


def load(size: int, offset: int, name: str | None = None) -> Step:
    """The number of `size` octets (1, 2 or 4) at `offset` of the frame. A frame that is too short is dropped."""
    return Step({1: _LD_B, 2: _LD_H, 4: _LD_W}[size], offset, name=name)


def mask(bits: int) -> Step:
    """Only these bits of the number."""
    return Step(_AND, bits)


def equal(
    number: int, then: str | None = None, otherwise: str | None = None, name: str | None = None
) -> Step:
    """Jump by whether it is `number`."""
    return Step(_JEQ, number, then, otherwise, name)


def go(where: str) -> Step:
    """Jump in any case."""
    return Step(_JEQ, 0, where, where)


def keep(size: int, name: str | None = None) -> Step:
    """The end: so many octets of the frame are for the socket, 0 for none."""
    return Step(_RET, size, name=name)


def assemble(steps: Sequence[Step]) -> tuple[Instruction, ...]:
    """The program. Raises KeyError for a name that nothing later has, ValueError for one too far away."""
    places = {step.name: at for at, step in enumerate(steps) if step.name is not None}

    def distance(at: int, name: str | None) -> int:
        far = 0 if name is None else places[name] - at - 1
        if not 0 <= far <= _FAR:
            raise ValueError(f"{name} is {far} instructions away")
        return far

    return tuple(
        Instruction(step.code, distance(at, step.then), distance(at, step.otherwise), step.k)
        for at, step in enumerate(steps)
    )


def one_of(numbers: Collection[int], found: int, missing: int) -> tuple[Instruction, ...]:
    """The end of a program: keep `found` octets if the number loaded is one of `numbers`, else `missing`. The time
    that takes grows with the logarithm of how many there are."""
    return _search(sorted(set(numbers)), found, missing)


def _search(numbers: list[int], found: int, missing: int) -> tuple[Instruction, ...]:
    if len(numbers) <= _LEAF:
        count = len(numbers)
        equals = [Instruction(_JEQ, count - at, 0, each) for at, each in enumerate(numbers)]
        return (*equals, Instruction(_RET, 0, 0, missing), Instruction(_RET, 0, 0, found))
    middle = len(numbers) // 2
    lower = _search(numbers[:middle], found, missing)
    upper = _search(numbers[middle:], found, missing)
    if len(lower) <= _FAR:
        return (Instruction(_JGE, len(lower), 0, numbers[middle]), *lower, *upper)
    over = (Instruction(_JGE, 0, 1, numbers[middle]), Instruction(_JA, 0, 0, len(lower)))
    return (*over, *lower, *upper)


UNTAGGED: Final = (
    Instruction(_LD_W, 0, 0, 0xFFFFF000 + 48),  # SKF_AD_VLAN_TAG_PRESENT
    Instruction(_JEQ, 4, 0, 0),
    Instruction(_LD_W, 0, 0, 0xFFFFF000 + 44),  # SKF_AD_VLAN_TAG
    Instruction(_AND, 0, 0, 0xFFF),
    Instruction(_JEQ, 1, 0, 0),
    Instruction(_RET, 0, 0, 0),
)
"""Before another program: a frame of a VLAN is dropped. On the interface below it is shown, too, without its tag.
VLAN 0 is none, but a priority (IEEE 802.1Q), and goes on."""

FOR_US: Final = (
    Instruction(_LD_W, 0, 0, 0xFFFFF000 + 4),  # SKF_AD_PKTTYPE
    Instruction(_JEQ, 0, 1, 3),  # PACKET_OTHERHOST
    Instruction(_RET, 0, 0, 0),
)
"""The same where a socket is for one protocol: the kernel has taken the tag off by then, and says of a VLAN that is not
here that the frame is somebody else's."""


def attach(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Have the kernel run `program` for `sock` from now on, in place of the one before. Raises OSError, ENOMEM where
    it is too long for net.core.optmem_max."""
    octets = b"".join(struct.pack("=HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(octets)
    # struct sock_fprog: the count, padded to a pointer, then where the instructions are.
    fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
