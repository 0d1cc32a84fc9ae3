"""Mobility Header messages: Binding Update, Binding Acknowledgement, Binding Error.

With the P flag the first two are the PBU and PBA of RFC 5213, with the D flag those of RFC 8885.
`encode` and `decode` handle whole Mobility Headers (RFC 6275 section 6.1.1), checksum
included.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from struct import error as struct_error
from typing import Final

from dmm_wire.address import UNSPECIFIED, checked
from dmm_wire.errors import WireError
from dmm_wire.mobility.codes import (
    LIFETIME_INFINITY,
    LIFETIME_UNIT,
    MOBILITY_HEADER,
    NO_NEXT_HEADER,
    AcknowledgementFlag,
    MobilityHeaderType,
    UpdateFlag,
)
from dmm_wire.mobility.options import MobilityOption, decode_options, encode_options

_HEADER = Struct("!BBBxH")
_UPDATE = Struct("!HHH")
_ACKNOWLEDGEMENT = Struct("!BBHH")
_ERROR = Struct("!Bx16s")
_PSEUDO_HEADER = Struct("!16s16sI3xB")

# Numbers: what is asked of an enum's members runs a dozen functions of Python's for each message.
_ACKNOWLEDGE: Final = int(UpdateFlag.ACKNOWLEDGE)
_HOME_REGISTRATION: Final = int(UpdateFlag.HOME_REGISTRATION)
_PROXY: Final = int(UpdateFlag.PROXY)
_DMM: Final = int(UpdateFlag.DMM)
_OWN: Final = _ACKNOWLEDGE | _HOME_REGISTRATION | _PROXY | _DMM
_OTHER_UPDATE_FLAGS: Final = sum(UpdateFlag) & ~_OWN
_PROXY_ACKNOWLEDGEMENT: Final = int(AcknowledgementFlag.PROXY)
_DMM_ACKNOWLEDGEMENT: Final = int(AcknowledgementFlag.DMM)
_OTHER_ACKNOWLEDGEMENT_FLAGS: Final = sum(AcknowledgementFlag) & ~(
    _PROXY_ACKNOWLEDGEMENT | _DMM_ACKNOWLEDGEMENT
)
_NO_UPDATE_FLAGS = UpdateFlag(0)
_NO_ACKNOWLEDGEMENT_FLAGS = AcknowledgementFlag(0)


@dataclass(frozen=True, slots=True)
class BindingUpdate:
    """Binding Update (RFC 6275 section 6.1.7), by default a PBU between MAARs.

    `sequence` is 0 to 65535. `lifetime` is seconds; on the wire it is a multiple of 4, rounded
    down (so 1 to 3 seconds become 0, which ends a binding), and LIFETIME_INFINITY at most. Flags
    that have no field of their own are in `other_flags`; `flags` has them all.
    """

    sequence: int
    lifetime: int
    options: tuple[MobilityOption, ...] = ()
    acknowledge: bool = True
    home_registration: bool = True
    proxy: bool = True
    dmm: bool = True
    other_flags: UpdateFlag = _NO_UPDATE_FLAGS

    @property
    def flags(self) -> UpdateFlag:
        """Every flag of the message."""
        return UpdateFlag(_update_flags(self))


@dataclass(frozen=True, slots=True)
class BindingAcknowledgement:
    """Binding Acknowledgement (RFC 6275 section 6.1.8), by default a PBA between MAARs.

    `status` is a `Status`, below 128 accepted; `lifetime` (seconds) means nothing in a
    rejection. Otherwise as `BindingUpdate`.
    """

    status: int
    sequence: int
    lifetime: int
    options: tuple[MobilityOption, ...] = ()
    proxy: bool = True
    dmm: bool = True
    other_flags: AcknowledgementFlag = _NO_ACKNOWLEDGEMENT_FLAGS

    @property
    def flags(self) -> AcknowledgementFlag:
        """Every flag of the message."""
        return AcknowledgementFlag(_acknowledgement_flags(self))

    @property
    def accepted(self) -> bool:
        """Whether the update was accepted."""
        return self.status < 128


@dataclass(frozen=True, slots=True)
class BindingError:
    """Binding Error (RFC 6275 section 6.1.9): a `BindingErrorStatus` and a home address.

    For an unrecognised MH Type the home address is `::` unless the message had a Home Address
    destination option (RFC 6275 section 9.3.3).
    """

    status: int
    home_address: bytes = UNSPECIFIED
    options: tuple[MobilityOption, ...] = ()


def encode(
    message: BindingUpdate | BindingAcknowledgement | BindingError,
    source: bytes,
    destination: bytes,
) -> bytes:
    """The whole Mobility Header of `message`, for a packet from `source` to `destination`.

    The addresses are packed and enter the checksum. Raises WireError `range` or `length` for
    what a field, or a Mobility Header (2048 octets), cannot hold.
    """
    try:
        match message:
            case BindingUpdate():
                mh_type = MobilityHeaderType.BINDING_UPDATE
                units = _lifetime_units(message.lifetime)
                fixed = _UPDATE.pack(message.sequence, _update_flags(message), units)
            case BindingAcknowledgement():
                mh_type = MobilityHeaderType.BINDING_ACKNOWLEDGEMENT
                units = _lifetime_units(message.lifetime)
                flags = _acknowledgement_flags(message)
                fixed = _ACKNOWLEDGEMENT.pack(message.status, flags, message.sequence, units)
            case BindingError():
                mh_type = MobilityHeaderType.BINDING_ERROR
                fixed = _ERROR.pack(message.status, checked(message.home_address))
    except struct_error as problem:
        raise WireError("range", str(problem)) from None
    data = fixed + encode_options(message.options, _HEADER.size + len(fixed))
    header_length = (_HEADER.size + len(data)) // 8 - 1
    if header_length > 255:
        raise WireError("length", f"a Mobility Header of {8 * (header_length + 1)} octets")
    header = _HEADER.pack(NO_NEXT_HEADER, header_length, mh_type, 0) + data
    return header[:4] + checksum(header, source, destination).to_bytes(2, "big") + header[6:]


def decode(
    data: bytes, source: bytes, destination: bytes, verify: bool = True
) -> BindingUpdate | BindingAcknowledgement:
    """Read a Mobility Header that came in a packet from `source` to `destination`.

    Checks in the order of RFC 6275 section 9.2. `verify=False` leaves the checksum out, for
    headers from a socket whose kernel saw to it. Octets after the header's end are ignored.

    Raises WireError: `truncated`; `checksum` (discard silently); `type` with the MH Type as
    `value` (answer with a `BindingError`, status UNRECOGNIZED_MH_TYPE);
    `binding-error` for a Binding Error, which must not be answered so (see
    `decode_binding_error`); `payload-proto`; `length` where the header or an option is too
    short or too long; `prefix-length` or `identifier` for a bad option.
    """
    mh_type, message = _open(data, source, destination, verify)
    if mh_type == MobilityHeaderType.BINDING_ERROR:
        raise WireError("binding-error", "a Binding Error", mh_type)
    options = decode_options(message[6:])
    if mh_type == MobilityHeaderType.BINDING_ACKNOWLEDGEMENT:
        status, octet, sequence, units = _ACKNOWLEDGEMENT.unpack_from(message)
        others = octet & _OTHER_ACKNOWLEDGEMENT_FLAGS
        return BindingAcknowledgement(
            status,
            sequence,
            units * LIFETIME_UNIT,
            options,
            proxy=octet & _PROXY_ACKNOWLEDGEMENT != 0,
            dmm=octet & _DMM_ACKNOWLEDGEMENT != 0,
            other_flags=AcknowledgementFlag(others) if others else _NO_ACKNOWLEDGEMENT_FLAGS,
        )
    sequence, flags, units = _UPDATE.unpack_from(message)
    others = flags & _OTHER_UPDATE_FLAGS
    return BindingUpdate(
        sequence,
        units * LIFETIME_UNIT,
        options,
        acknowledge=flags & _ACKNOWLEDGE != 0,
        home_registration=flags & _HOME_REGISTRATION != 0,
        proxy=flags & _PROXY != 0,
        dmm=flags & _DMM != 0,
        other_flags=UpdateFlag(others) if others else _NO_UPDATE_FLAGS,
    )


def decode_binding_error(
    data: bytes, source: bytes, destination: bytes, verify: bool = True
) -> BindingError:
    """Read a Binding Error as `decode` reads the others; WireError `type` for another."""
    mh_type, message = _open(data, source, destination, verify)
    if mh_type != MobilityHeaderType.BINDING_ERROR:
        raise WireError("type", f"MH Type {mh_type} is no Binding Error", mh_type)
    status, home_address = _ERROR.unpack_from(message)
    return BindingError(status, home_address, decode_options(message[_ERROR.size :]))


def checksum(header: bytes, source: bytes, destination: bytes) -> int:
    """The checksum field's value for `header`, a whole Mobility Header with that field zero.

    Taken over a header with its checksum in place, the result is 0 exactly if that is right. The
    addresses are those of the IPv6 packet (RFC 6275 section 6.1.1, RFC 8200 section 8.1).
    """
    pseudo_header = _PSEUDO_HEADER.pack(
        checked(source), checked(destination), len(header), MOBILITY_HEADER
    )
    # 2**16 leaves 1 when divided by 65535, so the one's complement sum of all 16-bit words is
    # the remainder of the octets read as one number. The sum is never 0: the pseudo-header is not.
    total = int.from_bytes(pseudo_header + header, "big") % 0xFFFF
    return 0xFFFF - total if total else 0


def _update_flags(update: BindingUpdate) -> int:
    return (
        int(update.other_flags)
        | (_ACKNOWLEDGE if update.acknowledge else 0)
        | (_HOME_REGISTRATION if update.home_registration else 0)
        | (_PROXY if update.proxy else 0)
        | (_DMM if update.dmm else 0)
    )


def _acknowledgement_flags(answer: BindingAcknowledgement) -> int:
    return (
        int(answer.other_flags)
        | (_PROXY_ACKNOWLEDGEMENT if answer.proxy else 0)
        | (_DMM_ACKNOWLEDGEMENT if answer.dmm else 0)
    )


_FIXED_SIZES = {
    MobilityHeaderType.BINDING_UPDATE: _UPDATE.size,
    MobilityHeaderType.BINDING_ACKNOWLEDGEMENT: _ACKNOWLEDGEMENT.size,
    MobilityHeaderType.BINDING_ERROR: _ERROR.size,
}


def _open(data: bytes, source: bytes, destination: bytes, verify: bool) -> tuple[int, bytes]:
    """The MH Type and message data of a Mobility Header that passes RFC 6275 section 9.2."""
    if len(data) < 8:
        raise WireError("truncated", f"a Mobility Header of {len(data)} octets")
    payload_proto, header_length, mh_type, _ = _HEADER.unpack_from(data)
    size = 8 * (header_length + 1)
    if size > len(data):
        raise WireError("truncated", f"{len(data)} octets of a Mobility Header of {size}")
    data = data[:size]
    if verify and checksum(data, source, destination):
        raise WireError("checksum")
    fixed_size = _FIXED_SIZES.get(mh_type)
    if fixed_size is None:
        raise WireError("type", f"MH Type {mh_type}", mh_type)
    if payload_proto != NO_NEXT_HEADER:
        raise WireError("payload-proto", f"payload protocol {payload_proto}", payload_proto)
    if size < _HEADER.size + fixed_size:
        raise WireError("length", f"MH Type {mh_type} with {size} octets", mh_type)
    return mh_type, data[_HEADER.size :]


def _lifetime_units(seconds: int) -> int:
    if seconds < 0:
        raise WireError("range", f"a lifetime of {seconds} seconds")
    return min(seconds, LIFETIME_INFINITY) // LIFETIME_UNIT
