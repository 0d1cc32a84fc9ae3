"""dmm_wire.mobility: octets written by hand from the figures of RFC 6275, 5213, 7148 and 8885."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire import mobility
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility.options import REGISTRY, KnownOption, decode_options, encode_options

from .strategies import (
    binding_acknowledgements,
    binding_errors,
    binding_updates,
    hexed,
    mobility_options,
    mutated,
    reason_of,
    unhurried,
)

S_MAAR = parse_address("2001:db8::2")
P_MAAR = parse_address("2001:db8::1")
PREF1 = Prefix.parse("2001:db8:1:40::/64")
LINK_LOCAL = parse_address("fe80::1")
MAC = hexed("02005e005301")
EUI64 = hexed("02005efffe005301")

PBU = mobility.BindingUpdate(
    0x1234,
    7200,
    (
        mobility.MobileNodeIdentifier(Identity(IdentitySubtype.EUI48, MAC)),
        mobility.HandoffIndicator(mobility.HandoffIndicatorValue.BETWEEN_GATEWAYS),
        mobility.AccessTechnology(mobility.AccessTechnologyValue.IEEE_802_11),
        mobility.HomeNetworkPrefix(PREF1),
        mobility.Timestamp(0x00006553F1004000),
        mobility.ServingMaar(S_MAAR),
    ),
)
PBU_OCTETS = hexed(
    "3b 0a 05 00 0000",  # no next header, 88 octets, Binding Update, checksum
    "1234 c210 0708",  # Sequence #, A H P D, 1800 units of 4 seconds
    "08 07 05 02005e005301",  # 12: Mobile Node Identifier
    "17 02 00 03",  # 21: Handoff Indicator
    "18 02 00 04",  # 25: Access Technology Type
    "01 05 0000000000",  # 29: PadN
    "16 12 00 40 20010db8000100400000000000000000",  # 36 = 8n+4: Home Network Prefix
    "01 00",  # 56: PadN
    "1b 08 00006553f1004000",  # 58 = 8n+2: Timestamp
    "01 00",  # 68: PadN
    "44 10 20010db8000000000000000000000002",  # 70 = 8n+6: Serving MAAR
)
PBU_CHECKSUM = 0xFFF5

PBA = mobility.BindingAcknowledgement(
    mobility.Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
    0xFFFF,
    0,
    (
        mobility.DelegatedPrefix(Prefix.parse("2001:db8:40::/56")),
        mobility.PreviousMaarOption(P_MAAR, PREF1),
        mobility.DlifLinkLocal(LINK_LOCAL),
        mobility.DlifLinkLayer(MAC),
        mobility.LinkLayerIdentifier(EUI64),
        mobility.LinkLocalAddress(LINK_LOCAL),
        mobility.AnchoredPrefixOption(PREF1),
        mobility.LocalPrefix(PREF1),
        mobility.VendorSpecific(32473, 12, b"\x02"),
        mobility.UnknownOption(200, b"\xaa"),
    ),
    other_flags=mobility.AcknowledgementFlag.KEY_MANAGEMENT,
)
PBA_OCTETS = hexed(
    "3b 1a 06 00 0000",  # no next header, 216 octets, Binding Acknowledgement, checksum
    "9d a2 ffff 0000",  # Status 157, K P D, Sequence #, Lifetime
    "01 04 00000000",  # 12: PadN
    "37 12 00 38 20010db8004000000000000000000000",  # 18 = 8n+2: Delegated Mobile Network Prefix
    "01 04 00000000",  # 38: PadN
    "43 22 00 40 20010db8000000000000000000000001",  # 44 = 8n+4: Previous MAAR
    "20010db8000100400000000000000000",
    "01 04 00000000",  # 80: PadN
    "45 10 fe800000000000000000000000000001",  # 86 = 8n+6: DLIF Link-Local Address
    "46 08 0000 02005e005301",  # 104: DLIF Link-Layer Address
    "01 00",  # 114: PadN
    "19 0a 0000 02005efffe005301",  # 116 = 8n+4: Link-layer Identifier of 8 octets
    "01 04 00000000",  # 128: PadN
    "1a 10 fe800000000000000000000000000001",  # 134 = 8n+6: Link-local Address
    "01 02 0000",  # 152: PadN
    "41 12 00 40 20010db8000100400000000000000000",  # 156 = 8n+4: Anchored Prefix
    "01 02 0000",  # 176: PadN
    "42 12 00 40 20010db8000100400000000000000000",  # 180 = 8n+4: Local Prefix
    "01 00",  # 200: PadN
    "13 06 00007ed9 0c 02",  # 202 = 4n+2: Vendor Specific, SIGNALLING
    "c8 01 aa",  # 210: unknown
    "01 01 00",  # 213: PadN up to a multiple of 8
)

SIGNED = mobility.BindingAcknowledgement(
    mobility.Status.MIPV6_ID_MISMATCH,
    7,
    0,
    (
        mobility.ReplayProtection(0xEC9B06F940000000),
        mobility.MessageAuthentication(
            mobility.AuthenticationSubtype.MN_HA, 1001, hexed("5a" * 12)
        ),
    ),
)
SIGNED_OCTETS = hexed(
    "3b 05 06 00 0000",  # no next header, 48 octets, Binding Acknowledgement, checksum
    "90 22 0007 0000",  # Status 144, P D, Sequence #, Lifetime
    "01 04 00000000",  # 12: PadN
    "0a 08 ec9b06f940000000",  # 18 = 8n+2: Mobility Message Replay Protection
    "00",  # 28: Pad1
    "09 11 01 000003e9",  # 29 = 4n+1: Mobility Message Authentication, MN-HA, SPI 1001
    "5a" * 12,  # ... and it ends with the header
)

BE = mobility.BindingError(mobility.BindingErrorStatus.UNRECOGNIZED_MH_TYPE)
BE_OCTETS = hexed("3b 02 07 00 0000 02 00", "00" * 16)


def without_checksum(data: bytes) -> bytes:
    return data[:4] + bytes(2) + data[6:]


def sum_by_hand(data: bytes, source: bytes, destination: bytes) -> int:
    """The Internet checksum of RFC 1071, word by word, over the pseudo-header of RFC 8200."""
    covered = source + destination + len(data).to_bytes(4, "big") + bytes(3) + b"\x87" + data
    total = 0
    for position in range(0, len(covered), 2):
        total += covered[position] << 8 | covered[position + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@pytest.mark.parametrize(
    ("message", "octets"),
    [(PBU, PBU_OCTETS), (PBA, PBA_OCTETS), (SIGNED, SIGNED_OCTETS), (BE, BE_OCTETS)],
)
def test_vectors(message: Any, octets: bytes) -> None:
    data = mobility.encode(message, S_MAAR, P_MAAR)
    assert without_checksum(data) == octets
    decode: Any = mobility.decode_binding_error if message is BE else mobility.decode
    assert decode(data, S_MAAR, P_MAAR) == message
    assert decode(octets, S_MAAR, P_MAAR, verify=False) == message


def test_checksum_vector() -> None:
    assert sum_by_hand(PBU_OCTETS, S_MAAR, P_MAAR) == PBU_CHECKSUM
    assert mobility.encode(PBU, S_MAAR, P_MAAR)[4:6] == PBU_CHECKSUM.to_bytes(2, "big")


@unhurried
@given(
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.binary(max_size=400).filter(lambda data: len(data) % 2 == 0),
)
def test_checksum_agrees_with_the_sum_by_hand(source: bytes, target: bytes, data: bytes) -> None:
    assert mobility.checksum(data, source, target) == sum_by_hand(data, source, target)


def test_flags_of_the_registry() -> None:
    # IANA's Binding Update and Binding Acknowledgement flags, by the letters of the RFCs' figures.
    assert [int(flag) for flag in mobility.UpdateFlag] == [0x8000 >> bit for bit in range(12)]
    names = [flag.name[0] if flag.name else "" for flag in mobility.UpdateFlag]
    assert names == list("AHLKMMPFTBMD")  # R is MOBILE_ROUTER, S is MULTICAST
    assert [int(flag) for flag in mobility.AcknowledgementFlag] == [0x80 >> bit for bit in range(7)]


def test_flags_are_kept_apart() -> None:
    plain = mobility.BindingUpdate(
        1, 4, acknowledge=False, home_registration=False, proxy=False, dmm=False
    )
    assert mobility.encode(plain, S_MAAR, P_MAAR)[8:10] == b"\0\0"
    bulk = mobility.BindingUpdate(1, 4, other_flags=mobility.UpdateFlag.BULK)
    assert bulk.flags == 0xC250
    rejection = mobility.BindingAcknowledgement(128, 1, 4, proxy=False, dmm=False)
    assert rejection.flags == 0
    assert not rejection.accepted
    assert mobility.BindingAcknowledgement(127, 1, 4).accepted


def test_reserved_bits_are_ignored() -> None:
    data = bytearray(PBU_OCTETS)
    data[3] = data[9] = 0xFF  # Reserved of the header; L to D are in octet 8, Rsrvd is low here
    update = mobility.decode(bytes(data), S_MAAR, P_MAAR, verify=False)
    assert isinstance(update, mobility.BindingUpdate)
    assert update.flags == 0xC2F0
    data = bytearray(PBA_OCTETS)
    data[7] |= 0x01
    assert mobility.decode(bytes(data), S_MAAR, P_MAAR, verify=False) == PBA
    data = bytearray(BE_OCTETS)
    data[7] = 0xFF
    assert mobility.decode_binding_error(bytes(data), S_MAAR, P_MAAR, verify=False) == BE


def test_reserved_octets_of_options_are_ignored() -> None:
    for octets in ("17 02 ff 03", "18 02 ff 03", "19 05 ffff 010203", "46 05 ffff 010203"):
        (option,) = decode_options(hexed(octets))
        assert option.body() == hexed(octets)[2:].replace(b"\xff", b"\0")
    for number in (22, 65, 66):
        (option,) = decode_options(bytes((number, 18, 0xFF, 64)) + PREF1.address)
        assert option.body() == b"\0\x40" + PREF1.address
    assert decode_options(hexed("37 12 7f 40") + PREF1.address) == (
        mobility.DelegatedPrefix(PREF1),
    )
    assert decode_options(hexed("43 22 ff 40") + P_MAAR + PREF1.address) == (
        mobility.PreviousMaarOption(P_MAAR, PREF1),
    )


@pytest.mark.parametrize(
    ("seconds", "units", "back"),
    [
        (0, 0, 0),
        (3, 0, 0),
        (4, 1, 4),
        (7199, 1799, 7196),
        (262_140, 0xFFFF, 262_140),
        (262_141, 0xFFFF, 262_140),
        (0xFFFFFFFF, 0xFFFF, 262_140),
    ],
)
def test_lifetimes(seconds: int, units: int, back: int) -> None:
    messages = (
        mobility.BindingUpdate(1, seconds),
        mobility.BindingAcknowledgement(0, 1, seconds),
    )
    for message in messages:
        data = mobility.encode(message, S_MAAR, P_MAAR)
        assert data[10:12] == units.to_bytes(2, "big")
        assert mobility.decode(data, S_MAAR, P_MAAR).lifetime == back


@pytest.mark.parametrize(
    ("options", "octets"),
    [
        ((), "0102 0000"),  # RFC 6275 section 6.1.7: 4 octets of padding where there is no option
        (
            (mobility.MobileNodeIdentifier(Identity(1, b"ab")), mobility.Timestamp(1)),
            "08 03 01 6162 00 1b 08 0000000000000001 01 02 0000",
        ),
        ((mobility.LinkLayerIdentifier(b"abcd"),), "19 06 0000 61626364 01 02 0000"),
        ((mobility.LinkLayerIdentifier(b"abcdef"),), "19 08 0000 616263646566 0100"),
    ],
)
def test_padding(options: tuple[mobility.MobilityOption, ...], octets: str) -> None:
    assert encode_options(options, 12) == hexed(octets)


# Option type: the alignment xn+y of its RFC.
ALIGNMENTS = {
    9: (4, 1),
    10: (8, 2),
    22: (8, 4),
    26: (8, 6),
    27: (8, 2),
    55: (8, 2),
    65: (8, 4),
    66: (8, 4),
    67: (8, 4),
    68: (8, 6),
    69: (8, 6),
}


@unhurried
@given(st.lists(mobility_options, max_size=8), st.sampled_from((12, 24)))
def test_alignment(options: list[mobility.MobilityOption], start: int) -> None:
    data = encode_options(options, start)
    assert (start + len(data)) % 8 == 0
    position, types, padded = 0, [], False
    while position < len(data):
        number = data[position]
        if number < 2:
            assert not padded, "one option pads a gap, not several"
            padded = True
        else:
            padded = False
            types.append(number)
            multiple, offset = ALIGNMENTS.get(number, (1, 0))
            assert (start + position) % multiple == offset
            if number in (25, 70) and (data[position + 1] - 2) % 8 == 0:
                assert (start + position + 4) % 8 == 0
        position += 1 if number == 0 else 2 + data[position + 1]
    assert types == [option.option_type for option in options]
    assert decode_options(data) == tuple(options)


@unhurried
@given(binding_updates | binding_acknowledgements)
def test_round_trips(message: mobility.BindingUpdate | mobility.BindingAcknowledgement) -> None:
    assert mobility.decode(mobility.encode(message, S_MAAR, P_MAAR), S_MAAR, P_MAAR) == message


@unhurried
@given(binding_errors)
def test_binding_error_round_trips(message: mobility.BindingError) -> None:
    data = mobility.encode(message, S_MAAR, P_MAAR)
    assert mobility.decode_binding_error(data, S_MAAR, P_MAAR) == message


@pytest.mark.parametrize("octets", [PBU_OCTETS, PBA_OCTETS, SIGNED_OCTETS, BE_OCTETS])
def test_truncated_at_every_octet(octets: bytes) -> None:
    for decode in (mobility.decode, mobility.decode_binding_error):
        for size in range(len(octets)):
            reason = reason_of(decode, octets[:size], S_MAAR, P_MAAR, False)
            assert reason == "truncated"


def option_ends(octets: bytes) -> set[int]:
    """Where an option of an update or acknowledgement ends, found without the code under test."""
    ends, position = {12}, 12
    while position < len(octets):
        position += 1 if octets[position] == 0 else 2 + octets[position + 1]
        ends.add(position)
    return ends


@pytest.mark.parametrize(("message", "octets"), [(PBU, PBU_OCTETS), (PBA, PBA_OCTETS)])
def test_shortened_with_a_header_len_that_is_right(message: Any, octets: bytes) -> None:
    for size in range(8, len(octets), 8):
        data = octets[:1] + bytes((size // 8 - 1,)) + octets[2:size]
        if size in option_ends(octets):
            options = mobility.decode(data, S_MAAR, P_MAAR, verify=False).options
            assert options == message.options[: len(options)]
        else:
            reason = "length" if size == 8 else "truncated"
            assert reason_of(mobility.decode, data, S_MAAR, P_MAAR, False) == reason


LEAST: dict[type[KnownOption], int] = {
    mobility.LinkLayerIdentifier: 2,
    mobility.DlifLinkLayer: 2,
    mobility.MessageAuthentication: 4,
    mobility.VendorSpecific: 4,
}
"""The longest data that are too short, where an option has no fixed size."""


@pytest.mark.parametrize("kind", REGISTRY.values())
def test_option_truncated_at_every_octet(kind: type[KnownOption]) -> None:
    options = PBU.options + PBA.options + SIGNED.options
    (option,) = (each for each in options if isinstance(each, kind))
    body = option.body()
    for size in {*range(len(body)), len(body) + 1}:
        short = (body + b"\0")[:size]
        data = bytes((kind.TYPE, size)) + short
        if kind is mobility.MobileNodeIdentifier and size == 1:
            # No identifier at all: RFC 5213 section 5.3.6 has a use for it.
            assert decode_options(data) == (mobility.UnknownOption(8, short),)
        elif size > LEAST.get(kind, size):
            assert decode_options(data)[0].body() == short
        else:
            assert reason_of(decode_options, data) in ("length", "identifier")
        # And the option's length field promises more than there is.
        assert reason_of(decode_options, bytes((kind.TYPE, size + 1)) + short) == "truncated"
        assert reason_of(decode_options, bytes((kind.TYPE,))) == "truncated"


@pytest.mark.parametrize("octets", ["01", "01 01", "01 04 000000", "00 00 01"])
def test_padding_cut_short(octets: str) -> None:
    assert reason_of(decode_options, hexed(octets)) == "truncated"


def test_padding_contents_are_ignored() -> None:
    assert decode_options(hexed("01 03 ffffff 00 00 c8 00 01 00")) == (
        mobility.UnknownOption(200, b""),
    )


def test_ipv4_delegated_prefix_is_not_understood() -> None:
    ipv4 = hexed("37 06 80 18 c0000200")
    assert decode_options(ipv4) == (mobility.UnknownOption(55, ipv4[2:]),)
    assert reason_of(decode_options, hexed("37 12 80 18") + bytes(16)) == "length"


@pytest.mark.parametrize("number", [22, 55, 65, 66])
def test_prefix_lengths_above_128(number: int) -> None:
    data = bytes((number, 18, 0, 129)) + bytes(16)
    assert reason_of(decode_options, data) == "prefix-length"


def test_host_bits_are_masked() -> None:
    data = hexed("16 12 00 08") + b"\xff" * 16
    assert decode_options(data) == (mobility.HomeNetworkPrefix(Prefix.parse("ff00::/8")),)
    assert mobility.LocalPrefix(Prefix(b"\xff" * 16, 8)).body() == b"\0\x08\xff" + bytes(15)


def test_checksum_that_is_wrong() -> None:
    data = mobility.encode(PBU, S_MAAR, P_MAAR)
    # Any single octet changed must be noticed: the length is checked first, the type after.
    for position in {*range(len(data))} - {1}:
        broken = bytearray(data)
        broken[position] ^= 0x10
        assert reason_of(mobility.decode, bytes(broken), S_MAAR, P_MAAR) == "checksum"
    assert reason_of(mobility.decode, data, S_MAAR, S_MAAR) == "checksum"
    # The order of source and destination does not change the sum.
    assert mobility.decode(data, P_MAAR, S_MAAR) == PBU


def test_octets_after_the_header_are_ignored() -> None:
    data = mobility.encode(PBU, S_MAAR, P_MAAR)
    assert mobility.decode(data + b"\xff\xff\xff", S_MAAR, P_MAAR) == PBU


def with_checksum(data: bytes) -> bytes:
    data = without_checksum(data)
    return data[:4] + sum_by_hand(data, S_MAAR, P_MAAR).to_bytes(2, "big") + data[6:]


@pytest.mark.parametrize("mh_type", [0, 1, 4, 8, 13, 255])
def test_unrecognised_type_is_reported_with_its_number(mh_type: int) -> None:
    data = with_checksum(PBU_OCTETS[:2] + bytes((mh_type,)) + PBU_OCTETS[3:])
    with pytest.raises(WireError) as caught:
        mobility.decode(data, S_MAAR, P_MAAR)
    assert (caught.value.reason, caught.value.value) == ("type", mh_type)


def test_binding_error_is_not_an_unrecognised_type() -> None:
    # Or two nodes would answer each other's Binding Errors for ever.
    data = mobility.encode(BE, S_MAAR, P_MAAR)
    assert reason_of(mobility.decode, data, S_MAAR, P_MAAR) == "binding-error"
    update = mobility.encode(PBU, S_MAAR, P_MAAR)
    assert reason_of(mobility.decode_binding_error, update, S_MAAR, P_MAAR) == "type"


def test_checks_are_made_in_the_order_of_rfc_6275() -> None:
    # Wrong at once: checksum, MH Type, payload protocol, Header Len (RFC 6275 section 9.2).
    data = hexed("06 00 63 00 0000 0000")
    assert reason_of(mobility.decode, data, S_MAAR, P_MAAR) == "checksum"
    assert reason_of(mobility.decode, with_checksum(data), S_MAAR, P_MAAR) == "type"
    data = hexed("06 00 05 00 0000 0000")
    assert reason_of(mobility.decode, with_checksum(data), S_MAAR, P_MAAR) == "payload-proto"
    data = hexed("3b 00 05 00 0000 0000")
    assert reason_of(mobility.decode, with_checksum(data), S_MAAR, P_MAAR) == "length"
    data = hexed("3b 01 07 00 0000 0000", "00" * 8)
    assert reason_of(mobility.decode_binding_error, data, S_MAAR, P_MAAR, False) == "length"


def test_longest_mobility_header() -> None:
    seven = (mobility.UnknownOption(99, bytes(255)),) * 7
    longest = mobility.BindingUpdate(1, 4, (*seven, mobility.UnknownOption(99, bytes(235))))
    data = mobility.encode(longest, S_MAAR, P_MAAR)
    assert len(data) == 2048
    assert mobility.decode(data, S_MAAR, P_MAAR) == longest
    longer = mobility.BindingUpdate(1, 4, (*seven, mobility.UnknownOption(99, bytes(236))))
    assert reason_of(mobility.encode, longer, S_MAAR, P_MAAR) == "length"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (mobility.BindingUpdate(1 << 16, 4), "range"),
        (mobility.BindingUpdate(-1, 4), "range"),
        (mobility.BindingUpdate(1, -1), "range"),
        (mobility.BindingAcknowledgement(256, 1, 4), "range"),
        (mobility.BindingError(1, b""), "length"),
        (mobility.BindingError(256, UNSPECIFIED), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.UnknownOption(1, b""),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.UnknownOption(256, b""),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.UnknownOption(99, bytes(256)),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.UnknownOption(99, bytes(255)),) * 8), "length"),
        (mobility.BindingUpdate(1, 4, (mobility.HandoffIndicator(256),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.AccessTechnology(-1),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.Timestamp(1 << 64),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.ReplayProtection(-1),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.MessageAuthentication(1, 1 << 32, b""),)), "range"),
        (mobility.BindingUpdate(1, 4, (mobility.LinkLayerIdentifier(b""),)), "length"),
        (mobility.BindingUpdate(1, 4, (mobility.ServingMaar(b""),)), "length"),
        (mobility.BindingUpdate(1, 4, (mobility.DlifLinkLocal(b"x"),)), "length"),
        (mobility.BindingUpdate(1, 4, (mobility.PreviousMaarOption(b"", PREF1),)), "length"),
        (
            mobility.BindingUpdate(1, 4, (mobility.HomeNetworkPrefix(Prefix(P_MAAR, 129)),)),
            "prefix-length",
        ),
    ],
)
def test_what_cannot_be_written(message: Any, reason: str) -> None:
    assert reason_of(mobility.encode, message, S_MAAR, P_MAAR) == reason


def encoded(message: Any) -> bytes:
    return mobility.encode(message, S_MAAR, P_MAAR)


def mended(data: bytes) -> bytes:
    """Data padded to a multiple of 8 octets, its Header Len and checksum made right."""
    data += bytes(8 if not data else -len(data) % 8)
    return with_checksum(data[:1] + bytes((len(data) // 8 - 1,)) + data[2:])


@unhurried
@given(
    st.binary(max_size=120)
    | mutated((binding_updates | binding_acknowledgements | binding_errors).map(encoded))
)
def test_fuzz(damaged: bytes) -> None:
    for data, verify in ((damaged, True), (damaged, False), (mended(damaged), True)):
        for decode in (mobility.decode, mobility.decode_binding_error):
            try:
                message: Any = decode(data, S_MAAR, P_MAAR, verify)
            except WireError:
                continue
            assert decode(encoded(message), S_MAAR, P_MAAR) == message


@unhurried
@given(
    st.binary(max_size=80)
    | mutated(st.lists(mobility_options).map(lambda o: encode_options(o, 12)))
)
def test_option_fuzz(data: bytes) -> None:
    try:
        options = decode_options(data)
    except WireError:
        return
    assert decode_options(encode_options(options, 12)) == options
