"""Who a mobile node says it is: the Mobile Node Identifiers of RFC 4283 and RFC 8371."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from dmm_wire.address import format_mac, parse_mac
from dmm_wire.errors import WireError


class IdentitySubtype(IntEnum):
    """Mobile Node Identifier option subtypes (RFC 4283 section 3.1, RFC 8371 section 6)."""

    NAI = 1
    IPV6_ADDRESS = 2
    IMSI = 3
    P_TMSI = 4
    EUI48 = 5
    EUI64 = 6
    GUTI = 7
    DUID = 8


# Looking a member up in its class costs as much as a call.
_DUID: Final = int(IdentitySubtype.DUID)
_EUI48: Final = int(IdentitySubtype.EUI48)
_EUI64: Final = int(IdentitySubtype.EUI64)
_NAI: Final = int(IdentitySubtype.NAI)

# Sizes allowed in octets. A DUID is a type code of 2 octets and 1 to 128 more (RFC 9915
# section 11.1); the mobility option's length octet counts the subtype, which leaves 254.
_SIZES: dict[int, range] = {
    IdentitySubtype.IPV6_ADDRESS: range(16, 17),
    IdentitySubtype.EUI48: range(6, 7),
    IdentitySubtype.EUI64: range(8, 9),
    IdentitySubtype.DUID: range(3, 131),
}
_ANY_SIZE = range(1, 255)


class Identity(NamedTuple):
    """One identifier of a mobile node: a subtype (known or not) and its octets, compared as they are.

    `str()` gives `nai:user@realm`, `eui48:02:00:5e:00:53:01`, `eui64:...`, `duid:0003...`
    or, for any other subtype and for octets that do not suit theirs, `<subtype number>:<hex>`;
    `parse` reads all of these.
    """

    subtype: int
    value: bytes

    @classmethod
    def of(cls, subtype: int, value: bytes) -> Identity:
        """An identity whose size suits its subtype. Raises WireError `identifier`."""
        if len(value) not in _SIZES.get(subtype, _ANY_SIZE):
            raise WireError("identifier", f"subtype {subtype} with {len(value)} octets", subtype)
        return cls(subtype, value)

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read what `str()` writes. Raises WireError `text` or `identifier`."""
        name, colon, value = text.strip().partition(":")
        if not colon:
            raise WireError("text", f"{text!r} is not <kind>:<identifier>")
        match name.lower():
            case "nai":
                return cls.of(_NAI, value.encode())
            case "eui48":
                return cls.of(_EUI48, parse_mac(value))
            case "eui64":
                return cls.of(_EUI64, parse_mac(value))
            case "duid":
                return cls.of(_DUID, _parse_hex(value))
            case number if number.isascii() and number.isdigit() and int(number) <= 255:
                return cls.of(int(number), _parse_hex(value))
        raise WireError("text", f"{text!r}: the kind is none of nai, eui48, eui64, duid")

    def encode(self) -> bytes:
        """Subtype octet and identifier, as the options that carry it have it.

        Raises WireError `identifier` or `range`.
        """
        if not 0 <= self.subtype <= 255:
            raise WireError("range", f"identifier subtype {self.subtype}", self.subtype)
        return bytes((self.subtype,)) + Identity.of(*self).value

    @classmethod
    def decode(cls, body: bytes) -> Identity:
        """Read what `encode` writes. Raises WireError `length` or `identifier`."""
        if len(body) < 2:
            raise WireError("length", f"a mobile node identifier of {len(body)} octets")
        return cls.of(body[0], body[1:])

    def __str__(self) -> str:
        subtype, value = self
        if subtype == _DUID:
            return f"duid:{value.hex()}"
        if subtype == _EUI48 and len(value) == 6:
            return f"eui48:{format_mac(value)}"
        if subtype == _EUI64 and len(value) == 8:
            return f"eui64:{format_mac(value)}"
        if subtype == _NAI:
            name = value.decode(errors="replace")
            # Anything that a terminal or a log would not show as it is goes out as hex.
            if name.isprintable() and name.encode() == value and name == name.strip() != "":
                return f"nai:{name}"
        return f"{int(subtype)}:{value.hex()}"


def is_link_layer(identity: Identity) -> bool:
    """Whether it is a link-layer address: what a MAAR knows of a node from its first frame."""
    return identity.subtype in (_EUI48, _EUI64)


def of_link_layer(address: bytes) -> Identity:
    """A link-layer address as an identity. Raises WireError `identifier` for one of neither 6 nor 8 octets."""
    return Identity.of(_EUI64 if len(address) == 8 else _EUI48, address)


def _parse_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        raise WireError("text", f"{text!r} is not hexadecimal") from None
