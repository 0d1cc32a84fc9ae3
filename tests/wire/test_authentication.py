"""dmm_wire.mobility.authentication: signatures made by hand (RFC 2104, RFC 4285 section 5.1), and ways to be wrong."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire import mobility
from dmm_wire.address import Prefix, parse_address
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility.authentication import Algorithm, Key, KeyStore, locate, sign, verify

from .strategies import (
    binding_acknowledgements,
    binding_updates,
    hexed,
    mutated,
    reason_of,
    unhurried,
)

S_MAAR = parse_address("2001:db8::2")
P_MAAR = parse_address("2001:db8::1")
OTHER = parse_address("2001:db8::3")
SHA1 = Key(1001, bytes(range(16)), Algorithm.HMAC_SHA1_96)
SHA256 = Key(0xFFFFFFFF, bytes(range(32)))
PBU = mobility.BindingUpdate(
    0x1234,
    7200,
    (
        mobility.MobileNodeIdentifier(Identity(IdentitySubtype.EUI48, hexed("02005e005301"))),
        mobility.HandoffIndicator(3),
        mobility.AccessTechnology(4),
        mobility.HomeNetworkPrefix(Prefix.parse("2001:db8:1:40::/64")),
        mobility.Timestamp(0x6553F1004000),
        mobility.ServingMaar(S_MAAR),
        mobility.ReplayProtection(0xEC9B06F940000000),
    ),
)
PBA = mobility.BindingAcknowledgement(0, 0x1234, 7200, PBU.options[:1])


def hmac_by_hand(digest: str, secret: bytes, data: bytes) -> bytes:
    """RFC 2104 section 2, with the 64 octet blocks of SHA-1 and SHA-256."""
    padded = secret.ljust(64, b"\0")
    inner = hashlib.new(digest, bytes(each ^ 0x36 for each in padded) + data).digest()
    return hashlib.new(digest, bytes(each ^ 0x5C for each in padded) + inner).digest()


@pytest.mark.parametrize(
    ("key", "digest", "size", "option", "head"),
    [
        (SHA1, "sha1", 12, "00 09 11 01 000003e9", "3b 0e 05 00"),
        (SHA256, "sha256", 16, "01 03 000000 09 15 01 ffffffff", "3b 0f 05 00"),
    ],
)
def test_a_signed_message_octet_by_octet(
    key: Key, digest: str, size: int, option: str, head: str
) -> None:
    covered = hexed(
        head + "0000 1234 c210 0708",
        "08 07 05 02005e005301 17 02 00 03 18 02 00 04 01 05 0000000000",
        "16 12 00 40 20010db8000100400000000000000000 01 00",
        "1b 08 00006553f1004000 01 00 44 10 20010db8000000000000000000000002",
        "01 00 0a 08 ec9b06f940000000",  # 90 = 8n+2: Mobility Message Replay Protection
        option,  # 101 = 8n+5, or 105 = 8n+1: Mobility Message Authentication
    )
    data = hmac_by_hand(digest, key.secret, S_MAAR + P_MAAR + covered)[:size]
    header = sign(PBU, key, S_MAAR, P_MAAR)
    assert header[:4] + bytes(2) + header[6:] == covered + data
    assert mobility.checksum(header, S_MAAR, P_MAAR) == 0
    seal = locate(header)
    assert seal == (key.spi, data, len(covered))
    assert verify(header, seal, key, S_MAAR, P_MAAR)
    signature = mobility.MessageAuthentication(1, key.spi, data)
    assert mobility.decode(header, S_MAAR, P_MAAR) == replace(
        PBU, options=(*PBU.options, signature)
    )


def holds(header: bytes, key: Key, source: bytes = S_MAAR, destination: bytes = P_MAAR) -> bool:
    """Whether a receiver that leaves the checksum out believes this message."""
    try:
        mobility.decode(header, source, destination, verify=False)
        seal = locate(header[: 8 * (header[1] + 1)])
    except WireError:
        return False
    return seal is not None and verify(header, seal, key, source, destination)


@pytest.mark.parametrize("key", [SHA1, SHA256], ids=lambda key: str(key.algorithm))
@pytest.mark.parametrize("message", [PBU, PBA], ids=["PBU", "PBA"])
def test_no_bit_can_be_changed(message: Any, key: Key) -> None:
    header = sign(message, key, S_MAAR, P_MAAR)
    assert holds(header, key)
    for bit in range(8 * len(header)):
        changed = bytearray(header)
        changed[bit // 8] ^= 1 << bit % 8
        if bit // 8 in (4, 5):  # the checksum is not signed: it stands for itself
            assert reason_of(mobility.decode, bytes(changed), S_MAAR, P_MAAR) == "checksum"
        else:
            assert not holds(bytes(changed), key), f"bit {bit}"


@unhurried
@given(binding_updates | binding_acknowledgements, st.data())
def test_what_is_signed_is_believed_and_a_part_of_it_is_not(message: Any, data: Any) -> None:
    plain = replace(
        message,
        options=tuple(
            o for o in message.options if not isinstance(o, mobility.MessageAuthentication)
        ),
    )
    key = data.draw(st.sampled_from((SHA1, SHA256)))
    header = sign(message, key, S_MAAR, P_MAAR)
    assert holds(header, key)
    read = mobility.decode(header, S_MAAR, P_MAAR)
    assert replace(read, options=read.options[:-1]) == plain
    damaged = data.draw(mutated(st.just(header)))
    whole = damaged[: 8 * (damaged[1] + 1)] if len(damaged) > 1 else b""
    assert (whole[:4] + whole[6:] == header[:4] + header[6:]) == holds(damaged, key)


def test_it_is_bound_to_the_key_and_to_both_addresses() -> None:
    header = sign(PBU, SHA1, S_MAAR, P_MAAR)
    assert not holds(header, SHA1, S_MAAR, OTHER)
    assert not holds(header, SHA1, OTHER, P_MAAR)
    # Turned around: the checksum is the same, so nothing but the signature tells.
    assert mobility.decode(header, P_MAAR, S_MAAR)
    assert not holds(header, SHA1, P_MAAR, S_MAAR)
    assert not holds(header, Key(SHA1.spi, bytes(16), Algorithm.HMAC_SHA1_96))
    assert not holds(header, Key(SHA1.spi, SHA1.secret, Algorithm.HMAC_SHA256_128))


def refused(*options: mobility.MobilityOption) -> str:
    header = mobility.encode(mobility.BindingUpdate(1, 4, options), S_MAAR, P_MAAR)
    return reason_of(locate, header)


def test_the_option_has_to_be_the_one_and_the_last() -> None:
    ours = mobility.MessageAuthentication(1, 1001, bytes(12))
    aaa = mobility.MessageAuthentication(2, 1001, bytes(12))
    assert refused(ours, ours) == "authentication"
    assert refused(ours, aaa) == "authentication"
    assert refused(aaa) == "authentication"
    assert refused(ours, mobility.HandoffIndicator(3)) == "authentication"
    assert refused(ours, mobility.UnknownOption(200, b"")) == "authentication"
    unsigned = mobility.encode(PBU, S_MAAR, P_MAAR)
    assert locate(unsigned) is None
    error = mobility.BindingError(mobility.BindingErrorStatus.UNRECOGNIZED_MH_TYPE, options=(ours,))
    assert locate(mobility.encode(error, S_MAAR, P_MAAR)) is None


def test_padding_behind_it_is_no_option() -> None:
    # An implementation that takes the first place that RFC 4285 allows has to pad behind.
    covered = hexed("3b 04 05 00 0000 0001 c210 0001", "00 09 11 01 000003e9")
    data = hmac_by_hand("sha1", SHA1.secret, S_MAAR + P_MAAR + covered)[:12]
    assert holds(covered + data + hexed("01 06 000000000000"), SHA1)
    assert not holds(covered + data + hexed("17 06 000000000000"), SHA1)


def test_keys_of_a_peer_replace_the_default_ones() -> None:
    new, old, own = (Key(spi, bytes(16)) for spi in (300, 301, 302))
    keys = KeyStore([new, old], {OTHER: [own]})
    assert keys.sending(S_MAAR) is new
    assert [keys.accepted(S_MAAR, spi) for spi in (300, 301, 302)] == [new, old, None]
    assert keys.sending(OTHER) is own
    assert [keys.accepted(OTHER, spi) for spi in (300, 301, 302)] == [None, None, own]
    assert not KeyStore()
    assert KeyStore(peers={OTHER: [own]})
    assert KeyStore(peers={OTHER: [own]}).sending(S_MAAR) is None


@pytest.mark.parametrize(
    ("spi", "size", "algorithm"),
    [
        (255, 16, Algorithm.HMAC_SHA256_128),
        (1 << 32, 16, Algorithm.HMAC_SHA256_128),
        (256, 15, Algorithm.HMAC_SHA256_128),
        (256, 65, Algorithm.HMAC_SHA256_128),
        (256, 15, Algorithm.HMAC_SHA1_96),
        (256, 17, Algorithm.HMAC_SHA1_96),
    ],
)
def test_keys_that_are_none(spi: int, size: int, algorithm: Algorithm) -> None:
    with pytest.raises(ValueError, match="SPI"):
        Key(spi, bytes(size), algorithm)


def test_two_keys_cannot_have_one_spi_and_none_shows_its_secret() -> None:
    with pytest.raises(ValueError, match="2001:db8::3 with SPI 1001"):
        KeyStore(peers={OTHER: [SHA1, SHA1]})
    assert SHA1.secret.hex() not in repr(SHA1)
    assert repr(SHA1.secret) not in repr(SHA1)
