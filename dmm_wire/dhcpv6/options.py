"""The DHCPv6 options that have structure, one class each.

`encode()` gives the `(code, data)` pair that messages carry; `decode()` reads the data.
Options that are a plain string of octets (Client and Server Identifier, Relay Message, Interface-Id,
Relay-ID, Rapid Commit) have no class: they are used as they are.

Every `decode` raises WireError `length` where the data is shorter or longer than the option's
format allows, and `truncated` where an option inside it is cut short. Every `encode` raises
WireError `range` or `length` for a value that its field cannot hold. Lifetimes, T1 and T2 are
seconds, 0 to 0xFFFFFFFF (infinity). Limits that concern the meaning, such as a preferred lifetime
above the valid one, are the user's to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from dmm_wire.address import Prefix, checked
from dmm_wire.dhcpv6.codes import OptionCode
from dmm_wire.dhcpv6.message import Options, encode_options, parse_options
from dmm_wire.errors import WireError
from dmm_wire.fields import at_least, exactly, pack

IA = Struct("!III")
"""The fixed fields of IA_NA and IA_PD: IAID, T1, T2. Also for who reads or writes these options without objects."""
IA_ADDRESS = Struct("!16sII")
"""Of IA Address: address, preferred and valid lifetime."""
IA_PREFIX = Struct("!IIB16s")
"""Of IA Prefix: preferred and valid lifetime, prefix length, prefix."""
_U16 = Struct("!H")
_U32 = Struct("!I")


@dataclass(frozen=True, slots=True)
class _IdentityAssociation:
    """What IA_NA and IA_PD have in common, which is everything but the code."""

    CODE: ClassVar[int]

    iaid: int
    t1: int = 0
    t2: int = 0
    options: Options = ()

    def encode(self) -> tuple[int, bytes]:
        return self.CODE, pack(IA, self.iaid, self.t1, self.t2) + encode_options(self.options)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 12)
        iaid, t1, t2 = IA.unpack_from(body)
        return cls(iaid, t1, t2, parse_options(body, 12))


@dataclass(frozen=True, slots=True)
class IaNa(_IdentityAssociation):
    """Identity Association for Non-temporary Addresses (RFC 9915 section 21.4)."""

    CODE: ClassVar[int] = OptionCode.IA_NA


@dataclass(frozen=True, slots=True)
class IaPd(_IdentityAssociation):
    """Identity Association for Prefix Delegation (RFC 9915 section 21.21)."""

    CODE: ClassVar[int] = OptionCode.IA_PD


@dataclass(frozen=True, slots=True)
class IaAddress:
    """IA Address (RFC 9915 section 21.6): a packed address and its lifetimes in seconds."""

    CODE: ClassVar[int] = OptionCode.IAADDR

    address: bytes
    preferred: int = 0
    valid: int = 0
    options: Options = ()

    def encode(self) -> tuple[int, bytes]:
        fixed = pack(IA_ADDRESS, checked(self.address), self.preferred, self.valid)
        return self.CODE, fixed + encode_options(self.options)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 24)
        address, preferred, valid = IA_ADDRESS.unpack_from(body)
        return cls(address, preferred, valid, parse_options(body, 24))


@dataclass(frozen=True, slots=True)
class IaPrefix:
    """IA Prefix (RFC 9915 section 21.22): a prefix and its lifetimes in seconds.

    From a client, `::` with a length is a hint (RFC 8168). Host bits are masked on receipt;
    a prefix length above 128 raises WireError `prefix-length`.
    """

    CODE: ClassVar[int] = OptionCode.IAPREFIX

    prefix: Prefix
    preferred: int = 0
    valid: int = 0
    options: Options = ()

    def encode(self) -> tuple[int, bytes]:
        address, length = Prefix.of(*self.prefix)
        fixed = pack(IA_PREFIX, self.preferred, self.valid, length, address)
        return self.CODE, fixed + encode_options(self.options)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 25)
        preferred, valid, length, address = IA_PREFIX.unpack_from(body)
        return cls(Prefix.of(address, length), preferred, valid, parse_options(body, 25))


@dataclass(frozen=True, slots=True)
class StatusOption:
    """Status Code (RFC 9915 section 21.13): a `StatusCode` and text for a person.

    Text that is not UTF-8 does not make the status unreadable: it is read with replacements.
    """

    CODE: ClassVar[int] = OptionCode.STATUS_CODE

    code: int
    text: str = ""

    def encode(self) -> tuple[int, bytes]:
        return self.CODE, pack(_U16, self.code) + self.text.encode(errors="replace")

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 2)
        return cls(_U16.unpack_from(body)[0], body[2:].decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class OptionRequest:
    """Option Request (RFC 9915 section 21.7): the option codes a client asks for."""

    CODE: ClassVar[int] = OptionCode.ORO

    codes: tuple[int, ...] = ()

    def encode(self) -> tuple[int, bytes]:
        return self.CODE, pack(Struct(f"!{len(self.codes)}H"), *self.codes)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        if len(body) % 2:
            raise WireError("length", f"OptionRequest with {len(body)} octets")
        return cls(Struct(f"!{len(body) // 2}H").unpack(body))


@dataclass(frozen=True, slots=True)
class ElapsedTime:
    """Elapsed Time (RFC 9915 section 21.9) in hundredths of a second, 0 to 65535 (or longer)."""

    CODE: ClassVar[int] = OptionCode.ELAPSED_TIME

    hundredths: int

    def encode(self) -> tuple[int, bytes]:
        return self.CODE, pack(_U16, self.hundredths)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 2)
        return cls(_U16.unpack(body)[0])


@dataclass(frozen=True, slots=True)
class ClientLinkLayerAddress:
    """Client Link-Layer Address (RFC 6939 section 4).

    `hardware_type` is IANA's number, 1 for Ethernet; an empty address is refused.
    """

    CODE: ClassVar[int] = OptionCode.CLIENT_LINKLAYER_ADDR

    hardware_type: int
    address: bytes

    def encode(self) -> tuple[int, bytes]:
        body = pack(_U16, self.hardware_type) + self.address
        at_least(type(self).__name__, body, 3)
        return self.CODE, body

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 3)
        return cls(_U16.unpack_from(body)[0], body[2:])


@dataclass(frozen=True, slots=True)
class VendorOpts:
    """Vendor-specific Information (RFC 9915 section 21.17).

    `body` holds that enterprise's sub-options, formatted like DHCPv6 options.
    """

    CODE: ClassVar[int] = OptionCode.VENDOR_OPTS

    enterprise: int
    body: bytes = b""

    def encode(self) -> tuple[int, bytes]:
        return self.CODE, pack(_U32, self.enterprise) + self.body

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 4)
        return cls(_U32.unpack_from(body)[0], body[4:])
