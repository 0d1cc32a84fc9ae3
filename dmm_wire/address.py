"""IPv6 addresses, prefixes and link-layer addresses: packed inside, text at the edges."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from dmm_wire.errors import WireError

UNSPECIFIED = bytes(16)
"""The unspecified address `::`."""

_GROUPS = Struct("!8H").unpack
_ZERO_RUNS = tuple(":" + "0:" * count for count in range(8, 1, -1))
_LOOPBACK = bytes(15) + b"\x01"
_ALL_ONES = (1 << 128) - 1
_HOST_MASKS = tuple(_ALL_ONES >> length for length in range(129))
_LINK_LAYER = re.compile(r"[0-9A-Fa-f]{1,2}([:-][0-9A-Fa-f]{1,2})*")


class Prefix(NamedTuple):
    """An IPv6 prefix. Prefixes sort by address, then length.

    `address` is packed (16 octets) with its host bits zero, `length` is 0 to 128. Build one
    with `of` or `parse`, which see to both; the bare constructor checks nothing.
    """

    address: bytes
    length: int

    @classmethod
    def of(cls, address: bytes, length: int) -> Prefix:
        """The prefix of `length` bits that `address` (16 octets) is in: host bits are masked.

        Raises WireError `prefix-length` or `length`.
        """
        if not 0 <= length <= 128:
            raise WireError("prefix-length", str(length), length)
        if length == 128:
            return cls(checked(address), 128)
        number = int.from_bytes(checked(address), "big")
        return cls((number & ~_HOST_MASKS[length]).to_bytes(16, "big"), length)

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read `address/length`. Raises WireError `text`, also where host bits are set."""
        address, slash, length = text.strip().partition("/")
        if not slash:
            raise WireError("text", f"{text!r} has no prefix length")
        packed = parse_address(address)
        if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= 128):
            raise WireError("text", f"{text!r} has no prefix length from 0 to 128")
        prefix = cls.of(packed, int(length))
        if prefix.address != packed:
            raise WireError("text", f"{text!r} has host bits set; the prefix is {prefix}")
        return prefix

    def __str__(self) -> str:
        return f"{format_address(self.address)}/{self.length}"

    def contains(self, other: Prefix | bytes) -> bool:
        """Whether `other`, a packed address or a prefix, lies wholly inside this prefix."""
        if isinstance(other, Prefix):
            return self.length <= other.length and self._covers(other.address)
        return self._covers(other)

    def _covers(self, address: bytes) -> bool:
        difference = int.from_bytes(self.address, "big") ^ int.from_bytes(address, "big")
        return difference <= _HOST_MASKS[self.length]

    @property
    def last(self) -> bytes:
        """The highest address of the prefix, packed."""
        number = int.from_bytes(self.address, "big") | _HOST_MASKS[self.length]
        return number.to_bytes(16, "big")


def checked(address: bytes) -> bytes:
    """`address` itself if it has 16 octets. Raises WireError `length`."""
    if len(address) != 16:
        raise WireError("length", f"an IPv6 address of {len(address)} octets")
    return address


def is_unicast(address: bytes) -> bool:
    """Whether it may be one node's address: neither multicast nor unspecified."""
    return address[0] != 0xFF and any(address)


def is_link_local(address: bytes) -> bool:
    """Whether it is a unicast address of one link, of fe80::/10."""
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def is_routable(address: bytes) -> bool:
    """Whether routers forward to it: unicast, neither link-local nor loopback."""
    return is_unicast(address) and not is_link_local(address) and address != _LOOPBACK


def parse_address(text: str) -> bytes:
    """An IPv6 address without a zone, packed. Raises WireError `text`."""
    text = text.strip()
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.IPv6Address(text).packed
    except ValueError:
        raise WireError("text", f"{text!r} is not an IPv6 address") from None


@lru_cache(maxsize=4096)
def format_address(address: bytes) -> str:
    """The text of a packed address, RFC 5952 section 4, in hexadecimal throughout. Raises WireError `length`."""
    text = ":{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:".format(*_GROUPS(checked(address)))
    for zeros in _ZERO_RUNS:  # the longest first, of equal ones the leftmost
        start = text.find(zeros)
        if start >= 0:
            return f"{text[1:start]}::{text[start + len(zeros) : -1]}"
    return text[1:-1]


def parse_mac(text: str) -> bytes:
    """A link-layer address of 6 or 8 octets, such as `02:00:5e:00:53:01` (or with dashes).

    Raises WireError `text`.
    """
    text = text.strip()
    octets = re.split("[:-]", text)
    if len(octets) not in (6, 8) or not _LINK_LAYER.fullmatch(text):
        raise WireError("text", f"{text!r} is not a link-layer address")
    return bytes(int(octet, 16) for octet in octets)


def format_mac(address: bytes) -> str:
    """A link-layer address of any size as `02:00:5e:00:53:01`."""
    return address.hex(":")
