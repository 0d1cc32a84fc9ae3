"""The DMM relay options: what the CMD and a MAAR tell each other beside the client's message.

They are sub-options of Vendor-specific Information (option 17, RFC 9915 section 21.17) at the relay
level of a Relay-forward or Relay-reply. Names follow RFC 8885 section 4. A class is a sub-option;
`REGISTRY` has their codes, of all that a message may carry.

Decoding skips unknown sub-options and ignores reserved fields; a known sub-option of a wrong size is
a WireError `length`, one cut short `truncated`. Lifetimes are seconds, 0 to 0xFFFFFFFF (infinity),
endpoints and addresses packed (16 octets). Encoding raises WireError `range` or `length` for what
a field cannot hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Self

from dmm_wire.address import Prefix, checked
from dmm_wire.dhcpv6.codes import OptionCode
from dmm_wire.dhcpv6.message import Options, encode_options, every, parse_options
from dmm_wire.errors import WireError
from dmm_wire.fields import at_least, exactly, pack
from dmm_wire.identity import Identity

DEFAULT_ENTERPRISE = 32473
"""The enterprise number for documentation and examples (RFC 5612)."""

CAP_IPV6_IN_IPV6 = 0x8000
"""Capability: the MAAR tunnels IPv6 in IPv6 (RFC 2473)."""

CAP_PMIPV6 = 0x4000
"""Capability: the MAAR signals with PBU and PBA (RFC 5213)."""

CAP_SLAAC = 0x2000
"""Capability: the MAAR advertises the LINK prefix of the node asked about for SLAAC (RFC 4862), so that the node has
addresses out of it that no server gave it."""

NO_SESSIONS = 0x1000
"""No capability: the MAAR asks after a start at which it found no record of any node, or could not read one."""

_VENDOR_OPTS = int(OptionCode.VENDOR_OPTS)
_DELEGATED = 0x80
_AWAITED = 0x40
_DLIF_LINK_LOCAL = 6
_DLIF_LINK_LAYER = 7

_MAAR = Struct("!16sH")
_ATTACHMENT = Struct("!IBBH")
_ANCHORED = Struct("!BBxxII16s")
_VISIT = Struct("!Q16s")
_ANCHOR_FAILED = Struct("!Bxxx16s16s")
_SIGNALLING = Struct("!B")
_U16 = Struct("!H")
_U32 = Struct("!I")


class DmmStatus(IntEnum):
    """Values of the STATUS sub-option."""

    SUCCESS = 0
    UNKNOWN_MAAR = 1
    ENDPOINT_MISMATCH = 2
    UNKNOWN_NODE = 3
    IDENTITY_CONFLICT = 4
    STALE = 5
    UNAVAILABLE = 6


class SignallingMode(IntEnum):
    """Who tells the P-MAARs where the mobile node is (RFC 8885 sections 3.2 to 3.4)."""

    DIRECT = 0
    """The S-MAAR."""
    RELAY = 1
    """The CMD, which answers the S-MAAR when they have acknowledged."""
    LOCATOR = 2
    """The CMD; they acknowledge to the S-MAAR as well."""
    PROXY = 3
    """The CMD, which has answered the S-MAAR at once."""


class SubOption:
    """What every DMM sub-option can do.

    No abc.ABC: of its subclasses isinstance would ask Python code, ten times as slow, a dozen times for each message.
    """

    __slots__ = ()

    def body(self) -> bytes:
        """The sub-option's data, without code and length."""
        raise NotImplementedError

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the sub-option's data."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Maar(SubOption):
    """MAAR (up): the sender's tunnel endpoint and what it can do, a sum of `CAP_` values (and NO_SESSIONS)."""

    endpoint: bytes
    capabilities: int

    def body(self) -> bytes:
        return pack(_MAAR, checked(self.endpoint), self.capabilities)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 18)
        return cls(*_MAAR.unpack(body))


@dataclass(frozen=True, slots=True)
class Attachment(SubOption):
    """ATTACHMENT (up): how the mobile node is attached, `age_ms` milliseconds ago.

    `handoff` and `access_technology` are the indicators of RFC 5213 sections 8.4 and 8.5,
    `hardware_type` is IANA's (1 Ethernet). `address` is the node's link-layer address, empty
    where the link has none.
    """

    age_ms: int
    handoff: int
    access_technology: int
    hardware_type: int
    address: bytes

    def body(self) -> bytes:
        numbers = (self.age_ms, self.handoff, self.access_technology, self.hardware_type)
        return pack(_ATTACHMENT, *numbers) + self.address

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 8)
        age_ms, handoff, access_technology, hardware_type = _ATTACHMENT.unpack_from(body)
        return cls(age_ms, handoff, access_technology, hardware_type, body[8:])


@dataclass(frozen=True, slots=True)
class AnchoredPrefix(SubOption):
    """ANCHORED_PREFIX (down): a prefix of the mobile node, anchored at the MAAR addressed.

    `delegated` tells an IA_PD's prefix from the one that the node's addresses come from.
    """

    prefix: Prefix
    preferred: int
    valid: int
    delegated: bool = False

    def body(self) -> bytes:
        flags = _DELEGATED if self.delegated else 0
        return _pack_anchored(flags, self.prefix, self.preferred, self.valid)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 28)
        flags, prefix, preferred, valid = _unpack_anchored(body)
        return cls(prefix, preferred, valid, bool(flags & _DELEGATED))


@dataclass(frozen=True, slots=True)
class PreviousMaar(SubOption):
    """PREVIOUS_MAAR (down): a prefix of the mobile node that is anchored at another MAAR.

    `endpoint` is that P-MAAR's. The DLIF that stands for it on the access link (RFC 8885
    section 3.7) may have a link-local address and a link-layer address `(hardware type, octets)`.
    `awaited`: the P-MAAR has not acknowledged the visit to the CMD yet, and the prefix is not to be
    served before it has.
    """

    prefix: Prefix
    preferred: int
    valid: int
    delegated: bool
    endpoint: bytes
    dlif_link_local: bytes | None = None
    dlif_link_layer: tuple[int, bytes] | None = None
    awaited: bool = False

    def body(self) -> bytes:
        flags = (_DELEGATED if self.delegated else 0) | (_AWAITED if self.awaited else 0)
        anchored = _pack_anchored(flags, self.prefix, self.preferred, self.valid)
        nested: list[tuple[int, bytes]] = []
        if self.dlif_link_local is not None:
            nested.append((_DLIF_LINK_LOCAL, checked(self.dlif_link_local)))
        if self.dlif_link_layer is not None:
            hardware_type, address = self.dlif_link_layer
            nested.append((_DLIF_LINK_LAYER, pack(_U16, hardware_type) + address))
        return anchored + checked(self.endpoint) + encode_options(tuple(nested))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """See `SubOption.decode`. Of a nested sub-option sent twice the last one counts."""
        at_least(cls.__name__, body, 44)
        link_local: bytes | None = None
        link_layer: tuple[int, bytes] | None = None
        for code, nested in parse_options(body, 44):
            if code == _DLIF_LINK_LOCAL:
                link_local = checked(nested)
            elif code == _DLIF_LINK_LAYER:
                at_least("DLIF_LINK_LAYER", nested, 3)
                link_layer = (_U16.unpack_from(nested)[0], nested[2:])
        flags, prefix, preferred, valid = _unpack_anchored(body)
        is_delegated, is_awaited = bool(flags & _DELEGATED), bool(flags & _AWAITED)
        endpoint = body[28:44]
        return cls(
            prefix, preferred, valid, is_delegated, endpoint, link_local, link_layer, is_awaited
        )


@dataclass(frozen=True, slots=True)
class Visit(SubOption):
    """VISIT (both ways): the mobile node's visit to the MAAR addressed.

    `generation` orders the visits of one node; it has the format of a RFC 5213 timestamp and
    becomes the PBU's. `previous` is the endpoint of the S-MAAR just left, `::` for none. Up, a later
    visit than the CMD tells is known, at the MAAR with the endpoint `previous`.
    """

    generation: int
    previous: bytes

    def body(self) -> bytes:
        return pack(_VISIT, self.generation, checked(self.previous))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 24)
        return cls(*_VISIT.unpack(body))


@dataclass(frozen=True, slots=True)
class Status(SubOption):
    """STATUS (down): a `DmmStatus` and text for a person; bad UTF-8 is replaced."""

    code: int
    text: str = ""

    def body(self) -> bytes:
        return pack(_U16, self.code) + self.text.encode(errors="replace")

    @classmethod
    def decode(cls, body: bytes) -> Self:
        at_least(cls.__name__, body, 2)
        return cls(_U16.unpack_from(body)[0], body[2:].decode(errors="replace"))


@dataclass(frozen=True, slots=True)
class MobileNode(SubOption):
    """MOBILE_NODE (both ways): whom the message is about (RFC 4283, RFC 8371).

    An identifier of a wrong size for its subtype raises WireError `identifier`.
    """

    identity: Identity

    def body(self) -> bytes:
        return self.identity.encode()

    @classmethod
    def decode(cls, body: bytes) -> Self:
        return cls(Identity.decode(body))


@dataclass(frozen=True, slots=True)
class Domain(SubOption):
    """DOMAIN (down): the endpoints of all MAARs of the domain, the peers a MAAR accepts."""

    endpoints: tuple[bytes, ...]

    def body(self) -> bytes:
        return b"".join(map(checked, self.endpoints))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        if len(body) % 16:
            raise WireError("length", f"Domain with {len(body)} octets")
        return cls(tuple(body[start : start + 16] for start in range(0, len(body), 16)))


@dataclass(frozen=True, slots=True)
class AnchorFailed(SubOption):
    """ANCHOR_FAILED (up): the P-MAAR at `endpoint` does not serve `prefix` any more."""

    prefix: Prefix
    endpoint: bytes

    def body(self) -> bytes:
        address, length = Prefix.of(*self.prefix)
        return pack(_ANCHOR_FAILED, length, address, checked(self.endpoint))

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 36)
        length, address, endpoint = _ANCHOR_FAILED.unpack(body)
        return cls(Prefix.of(address, length), endpoint)


@dataclass(frozen=True, slots=True)
class Signalling(SubOption):
    """SIGNALLING (down): a `SignallingMode`; where it is absent, DIRECT."""

    mode: int

    def body(self) -> bytes:
        return pack(_SIGNALLING, self.mode)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        exactly(cls.__name__, body, 1)
        return cls(body[0])


REGISTRY: dict[int, type[SubOption]] = {
    1: Maar,
    2: Attachment,
    3: AnchoredPrefix,
    4: PreviousMaar,
    5: Visit,
    8: Status,
    9: MobileNode,
    10: Domain,
    11: AnchorFailed,
    12: Signalling,
}
"""Every sub-option that may stand by itself, by code (6 and 7 stand inside PREVIOUS_MAAR)."""

_CODES = {kind: code for code, kind in REGISTRY.items()}


def code_of(suboption: SubOption) -> int:
    """The code of a sub-option."""
    return _CODES[type(suboption)]


def encode(suboptions: Iterable[SubOption]) -> bytes:
    """The sub-options in their order, as the data of an option 17 after its enterprise number."""
    return encode_options(tuple((code_of(each), each.body()) for each in suboptions))


def decode(body: bytes) -> tuple[SubOption, ...]:
    """The known sub-options of `body` in their order; raises WireError as the module says."""
    found = []
    for code, data in parse_options(body):
        kind = REGISTRY.get(code)
        if kind is not None:
            found.append(kind.decode(data))
    return tuple(found)


def to_option(enterprise: int, suboptions: Iterable[SubOption]) -> tuple[int, bytes]:
    """The option 17 of `enterprise` with these sub-options: its code and data."""
    return _VENDOR_OPTS, pack(_U32, enterprise) + encode(suboptions)


def from_options(enterprise: int, options: Options) -> tuple[SubOption, ...] | None:
    """The sub-options in `enterprise`'s option 17 among `options`, None if there is none.

    Two of one enterprise number must not be sent and must not be joined (RFC 9915 sections 21 and
    21.17): WireError `duplicate`. An option 17 without an enterprise number: `length`.
    """
    mine = None
    number = pack(_U32, enterprise)
    for body in every(options, _VENDOR_OPTS):
        at_least("option 17", body, 4)
        if body[:4] == number:
            if mine is not None:
                raise WireError("duplicate", f"option 17 of enterprise {enterprise}")
            mine = body
    return None if mine is None else decode(mine[4:])


def _pack_anchored(flags: int, prefix: Prefix, preferred: int, valid: int) -> bytes:
    address, length = Prefix.of(*prefix)
    return pack(_ANCHORED, flags, length, preferred, valid, address)


def _unpack_anchored(body: bytes) -> tuple[int, Prefix, int, int]:
    flags, length, preferred, valid, address = _ANCHORED.unpack_from(body)
    return flags, Prefix.of(address, length), preferred, valid
