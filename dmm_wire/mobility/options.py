"""Mobility options (RFC 6275 section 6.2): one class each, their alignment, and padding.

A class is an option; `REGISTRY` lists those that are understood. Others are kept as
`UnknownOption` and are to be ignored (RFC 6275 section 6.2.1). Reserved fields are sent as 0
and ignored on receipt, host bits of prefixes are masked. An option of a wrong size raises WireError
`length`, one cut short `truncated`; encoding raises `length` or `range` for what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, NamedTuple, Self

from dmm_wire.address import Prefix, checked
from dmm_wire.errors import WireError
from dmm_wire.fields import at_least, exactly, pack
from dmm_wire.identity import Identity

PAD1 = 0
PADN = 1

_VENDOR = Struct("!IB")
_SEAL = Struct("!BI")
_STAMP = Struct("!Q")


class Alignment(NamedTuple):
    """Where an option may start: `multiple` * n + `offset` octets into the Mobility Header."""

    multiple: int
    offset: int


class MobilityOption:
    """An option of a Mobility Header message. (No abc.ABC, see `dmm_wire.dmm.SubOption`.)"""

    __slots__ = ()

    @property
    def option_type(self) -> int:
        """The Option Type field."""
        raise NotImplementedError

    @property
    def alignment(self) -> Alignment:
        """Where the option's type field has to stand."""
        return Alignment(1, 0)

    def body(self) -> bytes:
        """The option's data, without type and length."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class UnknownOption(MobilityOption):
    """An option that is not understood, as it came."""

    type: int
    data: bytes

    @property
    def option_type(self) -> int:
        return self.type

    def body(self) -> bytes:
        return self.data


class KnownOption(MobilityOption):
    """An option of the registry: it has a type of its own, and can be read."""

    __slots__ = ()

    TYPE: ClassVar[int]
    ALIGNMENT: ClassVar[Alignment] = Alignment(1, 0)

    @property
    def option_type(self) -> int:
        return self.TYPE

    @property
    def alignment(self) -> Alignment:
        return self.ALIGNMENT

    @classmethod
    def decode(cls, body: bytes) -> MobilityOption:
        """Read the option's data; what the class does not cover becomes an UnknownOption."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class MobileNodeIdentifier(KnownOption):
    """Mobile Node Identifier (RFC 4283 section 3, subtypes of RFC 8371).

    One with a subtype and no identifier is kept as an UnknownOption: it says that a PBU had none
    (RFC 5213 section 5.3.6).
    """

    TYPE: ClassVar[int] = 8

    identity: Identity

    def body(self) -> bytes:
        return self.identity.encode()

    @classmethod
    def decode(cls, body: bytes) -> MobilityOption:
        if len(body) == 1:
            return UnknownOption(cls.TYPE, body)
        return cls(Identity.decode(body))


@dataclass(frozen=True, slots=True)
class MessageAuthentication(KnownOption):
    """Mobility Message Authentication (RFC 4285 section 5), see `dmm_wire.mobility.authentication`.

    `subtype` is an `AuthenticationSubtype`, 0 to 255; `spi` has 32 bits.
    """

    TYPE: ClassVar[int] = 9

    subtype: int
    spi: int
    data: bytes

    @property
    def alignment(self) -> Alignment:
        """4n + 1; of the two places in 8 octets the one after which no padding has to follow, as
        nothing may follow that the option does not cover."""
        if len(self.data) % 4:
            return Alignment(4, 1)
        return Alignment(8, -(_SEAL.size + 2 + len(self.data)) % 8)

    def body(self) -> bytes:
        return pack(_SEAL, self.subtype, self.spi) + self.data

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, _SEAL.size)
        subtype, spi = _SEAL.unpack_from(body)
        return cls(subtype, spi, body[_SEAL.size :])


@dataclass(frozen=True, slots=True)
class ReplayProtection(KnownOption):
    """Mobility Message Replay Protection (RFC 4285 section 6): an NTP timestamp, 64 bits."""

    TYPE: ClassVar[int] = 10
    ALIGNMENT: ClassVar[Alignment] = Alignment(8, 2)

    value: int

    def body(self) -> bytes:
        return pack(_STAMP, self.value)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, _STAMP.size)
        return cls(*_STAMP.unpack(body))


@dataclass(frozen=True, slots=True)
class _PrefixOption(KnownOption):
    """An option of a reserved octet, a prefix length and a prefix."""

    ALIGNMENT: ClassVar[Alignment] = Alignment(8, 4)

    prefix: Prefix

    def body(self) -> bytes:
        address, length = Prefix.of(*self.prefix)
        return bytes((0, length)) + address

    @classmethod
    def decode(cls, body: bytes) -> MobilityOption:
        exactly(cls.__name__, body, 18)
        return cls(Prefix.of(body[2:], body[1]))


@dataclass(frozen=True, slots=True)
class HomeNetworkPrefix(_PrefixOption):
    """Home Network Prefix (RFC 5213 section 8.3)."""

    TYPE: ClassVar[int] = 22


@dataclass(frozen=True, slots=True)
class HandoffIndicator(KnownOption):
    """Handoff Indicator (RFC 5213 section 8.4): a `HandoffIndicatorValue`, 0 to 255."""

    TYPE: ClassVar[int] = 23

    value: int

    def body(self) -> bytes:
        return bytes((0, _octet(self.value)))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 2)
        return cls(body[1])


@dataclass(frozen=True, slots=True)
class AccessTechnology(KnownOption):
    """Access Technology Type (RFC 5213 section 8.5): an `AccessTechnologyValue`, 0 to 255."""

    TYPE: ClassVar[int] = 24

    value: int

    def body(self) -> bytes:
        return bytes((0, _octet(self.value)))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 2)
        return cls(body[1])


@dataclass(frozen=True, slots=True)
class VendorSpecific(KnownOption):
    """Vendor Specific Mobility option (RFC 5094 section 3): what `subtype` and `data` mean is for
    the owner of the enterprise number to say.
    """

    TYPE: ClassVar[int] = 19
    ALIGNMENT: ClassVar[Alignment] = Alignment(4, 2)

    enterprise: int
    subtype: int
    data: bytes

    def body(self) -> bytes:
        return pack(_VENDOR, self.enterprise, self.subtype) + self.data

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, _VENDOR.size)
        enterprise, subtype = _VENDOR.unpack_from(body)
        return cls(enterprise, subtype, body[_VENDOR.size :])


@dataclass(frozen=True, slots=True)
class _LinkLayerOption(KnownOption):
    """An option of two reserved octets and a link-layer address, which is not empty."""

    value: bytes

    @property
    def alignment(self) -> Alignment:
        """An address of 4 or 8 octets, or of a multiple, falls on that boundary (section 6.2.1)."""
        for width in (8, 4):
            if len(self.value) % width == 0:
                return Alignment(width, width - 4)
        return Alignment(2, 0)

    def body(self) -> bytes:
        if not self.value:
            raise WireError("length", "an empty link-layer address")
        return bytes(2) + self.value

    @classmethod
    def decode(cls, body: bytes) -> MobilityOption:
        at_least(cls.__name__, body, 3)
        return cls(body[2:])


@dataclass(frozen=True, slots=True)
class LinkLayerIdentifier(_LinkLayerOption):
    """Mobile Node Link-layer Identifier (RFC 5213 section 8.6)."""

    TYPE: ClassVar[int] = 25


@dataclass(frozen=True, slots=True)
class _AddressOption(KnownOption):
    """An option of one packed address."""

    ALIGNMENT: ClassVar[Alignment] = Alignment(8, 6)

    address: bytes

    def body(self) -> bytes:
        return checked(self.address)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 16)
        return cls(body)


@dataclass(frozen=True, slots=True)
class LinkLocalAddress(_AddressOption):
    """Link-local Address (RFC 5213 section 8.7): the router's on the access link."""

    TYPE: ClassVar[int] = 26


@dataclass(frozen=True, slots=True)
class Timestamp(KnownOption):
    """Timestamp (RFC 5213 section 8.8), 64 bits; see `dmm_wire.timestamp`."""

    TYPE: ClassVar[int] = 27
    ALIGNMENT: ClassVar[Alignment] = Alignment(8, 2)

    value: int

    def body(self) -> bytes:
        if not 0 <= self.value < 1 << 64:
            raise WireError("range", f"timestamp {self.value}")
        return self.value.to_bytes(8, "big")

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 8)
        return cls(int.from_bytes(body, "big"))


@dataclass(frozen=True, slots=True)
class DelegatedPrefix(KnownOption):
    """Delegated Mobile Network Prefix (RFC 7148 section 4.1), IPv6 only.

    One with an IPv4 prefix (V flag) is not understood here: it decodes to an UnknownOption.
    """

    TYPE: ClassVar[int] = 55
    ALIGNMENT: ClassVar[Alignment] = Alignment(8, 2)

    prefix: Prefix

    def body(self) -> bytes:
        address, length = Prefix.of(*self.prefix)
        return bytes((0, length)) + address

    @classmethod
    def decode(cls, body: bytes) -> MobilityOption:
        if body and body[0] & 0x80:
            exactly(cls.__name__, body, 6)
            return UnknownOption(cls.TYPE, body)
        exactly(cls.__name__, body, 18)
        return cls(Prefix.of(body[2:], body[1]))


@dataclass(frozen=True, slots=True)
class AnchoredPrefixOption(_PrefixOption):
    """Anchored Prefix (RFC 8885 section 4.3)."""

    TYPE: ClassVar[int] = 65


@dataclass(frozen=True, slots=True)
class LocalPrefix(_PrefixOption):
    """Local Prefix (RFC 8885 section 4.4): reachable only through the anchoring MAAR."""

    TYPE: ClassVar[int] = 66


@dataclass(frozen=True, slots=True)
class PreviousMaarOption(KnownOption):
    """Previous MAAR (RFC 8885 section 4.5): a P-MAAR's address and the prefix anchored there."""

    TYPE: ClassVar[int] = 67
    ALIGNMENT: ClassVar[Alignment] = Alignment(8, 4)

    endpoint: bytes
    prefix: Prefix

    def body(self) -> bytes:
        address, length = Prefix.of(*self.prefix)
        return bytes((0, length)) + checked(self.endpoint) + address

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 34)
        return cls(body[2:18], Prefix.of(body[18:], body[1]))


@dataclass(frozen=True, slots=True)
class ServingMaar(KnownOption):
    """Serving MAAR (RFC 8885 section 4.6): the S-MAAR's address."""

    TYPE: ClassVar[int] = 68
    ALIGNMENT: ClassVar[Alignment] = Alignment(8, 6)

    endpoint: bytes

    def body(self) -> bytes:
        return checked(self.endpoint)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 16)
        return cls(body)


@dataclass(frozen=True, slots=True)
class DlifLinkLocal(_AddressOption):
    """DLIF Link-Local Address (RFC 8885 section 4.7)."""

    TYPE: ClassVar[int] = 69


@dataclass(frozen=True, slots=True)
class DlifLinkLayer(_LinkLayerOption):
    """DLIF Link-Layer Address (RFC 8885 section 4.8)."""

    TYPE: ClassVar[int] = 70


_OPTIONS: tuple[type[KnownOption], ...] = (
    MobileNodeIdentifier,
    VendorSpecific,
    MessageAuthentication,
    ReplayProtection,
    HomeNetworkPrefix,
    HandoffIndicator,
    AccessTechnology,
    LinkLayerIdentifier,
    LinkLocalAddress,
    Timestamp,
    DelegatedPrefix,
    AnchoredPrefixOption,
    LocalPrefix,
    PreviousMaarOption,
    ServingMaar,
    DlifLinkLocal,
    DlifLinkLayer,
)

REGISTRY: dict[int, type[KnownOption]] = {kind.TYPE: kind for kind in _OPTIONS}
"""Every option that is understood, by its type."""


def encode_options(options: Iterable[MobilityOption], start: int) -> bytes:
    """The octets of `options`, with padding before each as its alignment asks.

    `start` is where they begin, in octets from the start of the Mobility Header; the result ends
    on a multiple of 8 (RFC 6275 section 6.1.1).
    """
    data = bytearray()
    for option in options:
        body, option_type = option.body(), option.option_type
        if len(body) > 255 or not PADN < option_type <= 255:
            detail = f"mobility option {option_type} with {len(body)} octets"
            raise WireError("range", detail, option_type)
        multiple, offset = option.alignment
        data += _padding((offset - start - len(data)) % multiple)
        data += bytes((option_type, len(body)))
        data += body
    data += _padding(-(start + len(data)) % 8)
    return bytes(data)


def decode_options(data: bytes) -> tuple[MobilityOption, ...]:
    """The options in `data` in their order, without the padding."""
    options: list[MobilityOption] = []
    position = 0
    while position < len(data):
        option_type = data[position]
        if option_type == PAD1:
            position += 1
            continue
        start = position + 2
        if start > len(data) or start + data[position + 1] > len(data):
            raise WireError("truncated", f"mobility option {option_type} is cut short", option_type)
        position = start + data[position + 1]
        if option_type == PADN:
            continue
        body = data[start:position]
        kind = REGISTRY.get(option_type)
        options.append(UnknownOption(option_type, body) if kind is None else kind.decode(body))
    return tuple(options)


def _padding(size: int) -> bytes:
    """Pad1 for one octet, PadN for more (RFC 6275 sections 6.2.2 and 6.2.3)."""
    if size < 2:
        return bytes((PAD1,)) * size
    return bytes((PADN, size - 2)) + bytes(size - 2)


def _octet(value: int) -> int:
    if not 0 <= value <= 255:
        raise WireError("range", f"{value} does not fit an octet")
    return value
