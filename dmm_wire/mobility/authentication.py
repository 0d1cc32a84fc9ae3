"""Authentication of Binding Updates and Acknowledgements by shared keys (RFC 4285 section 5).

The authentication data are the first bits of an HMAC over the source and the destination address of
the packet and the Mobility Header, its checksum 0, up to and including the SPI. RFC 4285 has the
care-of and the home address in front. Between two MAARs, or a MAAR and the CMD, nobody has a home
address; the packet's two addresses keep a message from being turned around or sent to another peer.
Everything here is pure: octets and keys in, octets out. `dmm_wire.mobility.guard` adds the order in time.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from dmm_wire.address import checked, format_address
from dmm_wire.errors import WireError
from dmm_wire.mobility.codes import AuthenticationSubtype, MobilityHeaderType
from dmm_wire.mobility.message import (
    BindingAcknowledgement,
    BindingUpdate,
    checksum,
    encode,
)
from dmm_wire.mobility.options import PAD1, PADN, MessageAuthentication

LEAST_SPI = 256
"""Those below are reserved (RFC 4285 section 5.1)."""

_OPTIONS_START = 12
"""Where the options of an update and of an acknowledgement begin, in octets."""
_SIGNED = frozenset((MobilityHeaderType.BINDING_UPDATE, MobilityHeaderType.BINDING_ACKNOWLEDGEMENT))
_MESSAGE_TYPE = 2
_CHECKSUM = slice(4, 6)
_BEFORE_DATA = 7
"""Octets of the option up to its authentication data: type, length, subtype, SPI."""


class Algorithm(StrEnum):
    """How the authentication data are made. Which one an SPI means is a matter of configuration."""

    HMAC_SHA1_96 = "hmac-sha1-96"
    """The one of RFC 4285: First(96, HMAC_SHA1(key, data))."""
    HMAC_SHA256_128 = "hmac-sha256-128"
    """HMAC-SHA-256 cut to 128 bits, as IPsec does (RFC 4868 section 2.3)."""

    @property
    def digest(self) -> str:
        """The name of the hash function."""
        return "sha1" if self is Algorithm.HMAC_SHA1_96 else "sha256"

    @property
    def size(self) -> int:
        """Octets of the authentication data."""
        return 12 if self is Algorithm.HMAC_SHA1_96 else 16


@dataclass(frozen=True, slots=True)
class Key:
    """A shared key under its SPI (256 to 2**32 - 1). `secret` has 16 octets for HMAC-SHA1, as RFC
    4285 section 5.1 has it, else 16 to 64. Raises ValueError for other numbers."""

    spi: int
    secret: bytes = field(repr=False)
    algorithm: Algorithm = Algorithm.HMAC_SHA256_128

    def __post_init__(self) -> None:
        if not LEAST_SPI <= self.spi < 1 << 32:
            raise ValueError(f"SPI {self.spi}: must be {LEAST_SPI} to {(1 << 32) - 1}")
        most = 16 if self.algorithm is Algorithm.HMAC_SHA1_96 else 64
        if not 16 <= len(self.secret) <= most:
            sizes = "16" if most == 16 else f"16 to {most}"
            raise ValueError(
                f"the secret of SPI {self.spi} has {len(self.secret)} octets: "
                f"{self.algorithm} takes {sizes}"
            )

    def data(self, header: bytes, source: bytes, destination: bytes) -> bytes:
        """The authentication data of `header`, a Mobility Header up to and including the SPI, in a
        packet from `source` to `destination`."""
        covered = checked(source) + checked(destination) + _without_checksum(header)
        return hmac.digest(self.secret, covered, self.algorithm.digest)[: self.algorithm.size]


class KeyStore:
    """Which keys are shared with whom: `peers` by packed address, `default` with everybody else.

    All keys of a peer are accepted from it, the first one signs what is sent to it: so a key is
    changed by adding the new one behind, then putting it first, then removing the old one, each step
    everywhere before the next. A peer that is named has no part in the default keys.
    Raises ValueError for two keys of one peer with the same SPI.
    """

    def __init__(
        self, default: Sequence[Key] = (), peers: Mapping[bytes, Sequence[Key]] | None = None
    ) -> None:
        self._default = _by_spi(default, "every peer")
        self._peers = {
            peer: _by_spi(keys, format_address(peer)) for peer, keys in (peers or {}).items()
        }

    def __bool__(self) -> bool:
        return bool(self._default) or any(self._peers.values())

    def accepted(self, peer: bytes, spi: int) -> Key | None:
        """The key that `peer` may sign with under this SPI."""
        return self._of(peer).get(spi)

    def sending(self, peer: bytes) -> Key | None:
        """The key to sign with what is sent to `peer`."""
        return next(iter(self._of(peer).values()), None)

    def _of(self, peer: bytes) -> dict[int, Key]:
        return self._peers.get(peer, self._default)


class Seal(NamedTuple):
    """The authentication option of a Mobility Header: its SPI and data, and where the data begin."""

    spi: int
    data: bytes
    start: int


def sign(
    message: BindingUpdate | BindingAcknowledgement, key: Key, source: bytes, destination: bytes
) -> bytes:
    """As `encode`, with an authentication option at the end. Raises WireError as `encode` does."""
    options = tuple(o for o in message.options if not isinstance(o, MessageAuthentication))
    option = MessageAuthentication(AuthenticationSubtype.MN_HA, key.spi, bytes(key.algorithm.size))
    header = encode(replace(message, options=(*options, option)), source, destination)
    covered = header[: -key.algorithm.size]
    header = _without_checksum(covered) + key.data(covered, source, destination)
    return (
        header[: _CHECKSUM.start]
        + checksum(header, source, destination).to_bytes(2, "big")
        + header[_CHECKSUM.stop :]
    )


def verify(header: bytes, seal: Seal, key: Key, source: bytes, destination: bytes) -> bool:
    """Whether `header`, whose `seal` was located, came from `source` to `destination` as the owner
    of `key` sent it. Takes the same time wherever it differs."""
    expected = key.data(header[: seal.start], source, destination)
    return hmac.compare_digest(expected, seal.data)


def locate(header: bytes) -> Seal | None:
    """The authentication option of a whole Mobility Header that `decode` can read, None if it has
    none.

    Raises WireError `authentication` unless it is the only one, of subtype MN-HA, and the last
    option (RFC 4285 sections 5 and 5.1): what followed would be anybody's. Padding may follow.
    """
    if header[_MESSAGE_TYPE] not in _SIGNED:
        return None
    found: Seal | None = None
    position = _OPTIONS_START
    while position < len(header):
        option_type = header[position]
        size = 1 if option_type == PAD1 else 2 + header[position + 1]
        if option_type == MessageAuthentication.TYPE:
            if found is not None:
                raise WireError("authentication", "more than one authentication option")
            option = MessageAuthentication.decode(header[position + 2 : position + size])
            if option.subtype != AuthenticationSubtype.MN_HA:
                raise WireError("authentication", f"subtype {option.subtype}", option.subtype)
            found = Seal(option.spi, option.data, position + _BEFORE_DATA)
        elif found is not None and option_type not in (PAD1, PADN):
            raise WireError("authentication", f"option {option_type} follows", option_type)
        position += size
    return found


def _without_checksum(header: bytes) -> bytes:
    return header[: _CHECKSUM.start] + bytes(2) + header[_CHECKSUM.stop :]


def _by_spi(keys: Sequence[Key], whose: str) -> dict[int, Key]:
    found: dict[int, Key] = {}
    for key in keys:
        if key.spi in found:
            raise ValueError(f"two keys of {whose} with SPI {key.spi}")
        found[key.spi] = key
    return found
