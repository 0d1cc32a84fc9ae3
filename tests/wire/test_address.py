"""dmm_wire.address, dmm_wire.identity and dmm_wire.timestamp."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dmm_wire import timestamp
from dmm_wire.address import (
    UNSPECIFIED,
    Prefix,
    format_address,
    format_mac,
    is_link_local,
    is_routable,
    is_unicast,
    parse_address,
    parse_mac,
)
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype

from .strategies import addresses, hexed, identities, prefixes, reason_of, u64, unhurried


def test_address_text() -> None:
    packed = hexed("20010db8 0000 0000 0000 0000 0000 00ff")
    assert parse_address("2001:DB8::ff") == packed
    assert format_address(packed) == "2001:db8::ff"
    assert format_address(UNSPECIFIED) == "::"


@pytest.mark.parametrize("bad", ["", "1.2.3.4", "fe80::1%eth0", "2001:db8::1/64", "2001:db8:::1"])
def test_address_refused(bad: str) -> None:
    assert reason_of(parse_address, bad) == "text"


def test_prefix_masks_host_bits() -> None:
    prefix = Prefix.of(hexed("20010db8 00ff ffff ffff ffff ffff ffff"), 44)
    assert prefix == (hexed("20010db8 00f0") + bytes(10), 44)
    assert str(prefix) == "2001:db8:f0::/44"
    assert format_address(prefix.last) == "2001:db8:ff:ffff:ffff:ffff:ffff:ffff"


@pytest.mark.parametrize(
    "bad",
    [
        "2001:db8::",
        "::/129",
        "::/",
        "::/+4",
        "::/-1",
        "::/0064",
        "::1/64",
        "x/64",
        "::/6/6",
        "::/٣",
    ],
)
def test_prefix_text_refused(bad: str) -> None:
    assert reason_of(Prefix.parse, bad) == "text"


@pytest.mark.parametrize("length", [-1, 129, 255])
def test_prefix_length_refused(length: int) -> None:
    assert reason_of(Prefix.of, UNSPECIFIED, length) == "prefix-length"


@pytest.mark.parametrize("size", [0, 4, 15, 17])
@pytest.mark.parametrize("length", [0, 64, 128])
def test_prefix_address_size_refused(size: int, length: int) -> None:
    assert reason_of(Prefix.of, bytes(size), length) == "length"


@unhurried
@given(st.lists(st.sampled_from([0, 0, 1, 0xDB8, 0xFFFF]), min_size=8, max_size=8))
def test_text_agrees_with_ipaddress(groups: list[int]) -> None:
    address = b"".join(group.to_bytes(2, "big") for group in groups)
    assume(
        ipaddress.IPv6Address(address).ipv4_mapped is None
    )  # of which ipaddress has two opinions
    assert format_address(address) == str(ipaddress.IPv6Address(address))


@unhurried
@given(addresses, st.integers(0, 128))
def test_prefix_agrees_with_ipaddress(address: bytes, length: int) -> None:
    prefix = Prefix.of(address, length)
    network = ipaddress.IPv6Network((address, length), strict=False)
    assert prefix == (network.network_address.packed, length)
    assert str(prefix) == str(network)
    assert prefix.last == network.broadcast_address.packed
    assert prefix.contains(address)
    assert Prefix.parse(str(prefix)) == prefix


@unhurried
@given(prefixes, prefixes, addresses)
def test_contains_agrees_with_ipaddress(one: Prefix, other: Prefix, address: bytes) -> None:
    network = ipaddress.IPv6Network(str(one))
    assert one.contains(other) == ipaddress.IPv6Network(str(other)).subnet_of(network)
    assert one.contains(address) == (ipaddress.IPv6Address(address) in network)
    for inside in (one.address, one.last):
        narrower = Prefix.of(inside, min(one.length + 7, 128))
        assert one.contains(narrower)
        assert narrower.contains(one) == (one.length == 128)


@pytest.mark.parametrize(
    ("text", "unicast", "link_local", "routable"),
    [
        ("::", False, False, False),
        ("::1", True, False, False),
        ("::2", True, False, True),
        ("2001:db8::1", True, False, True),
        ("fd00::1", True, False, True),
        ("fe7f::1", True, False, True),
        ("fe80::1", True, True, False),
        ("febf:ffff::1", True, True, False),
        ("fec0::1", True, False, True),
        ("ff02::1", False, False, False),
        ("ff0e::1", False, False, False),
    ],
)
def test_kinds_of_addresses(text: str, unicast: bool, link_local: bool, routable: bool) -> None:
    address = parse_address(text)
    assert is_unicast(address) is unicast
    assert is_link_local(address) is link_local
    assert is_routable(address) is routable


def test_mac_text() -> None:
    assert parse_mac("02:00:5E:00:53:01") == hexed("02005e005301")
    assert parse_mac("2-0-5e-0-53-1") == hexed("02005e005301")
    assert parse_mac("02:00:5e:ff:fe:00:53:01") == hexed("02005efffe005301")
    assert format_mac(hexed("02005e005301")) == "02:00:5e:00:53:01"


@pytest.mark.parametrize(
    "bad",
    ["", "02:00:5e:00:53", "02:00:5e:00:53:001", "02005e005301", "02:00:5e:00:53:zz", "1:2::"],
)
def test_mac_refused(bad: str) -> None:
    assert reason_of(parse_mac, bad) == "text"


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("nai:mn@example.com", Identity(IdentitySubtype.NAI, b"mn@example.com")),
        ("eui48:02:00:5e:00:53:01", Identity(IdentitySubtype.EUI48, hexed("02005e005301"))),
        ("eui64:02:00:5e:ff:fe:00:53:01", Identity(6, hexed("02005efffe005301"))),
        ("duid:0003000102005e005301", Identity(8, hexed("0003000102005e005301"))),
        ("1:206d6e", Identity(IdentitySubtype.NAI, b" mn")),
        ("1:6d6e0a", Identity(IdentitySubtype.NAI, b"mn\n")),
        ("1:6dff", Identity(IdentitySubtype.NAI, b"m\xff")),
        ("3:123456123456789f", Identity(IdentitySubtype.IMSI, hexed("123456123456789f"))),
    ],
)
def test_identity_text(text: str, identity: Identity) -> None:
    assert str(identity) == text
    assert Identity.parse(text) == identity


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("0003000102005e005301", "text"),
        ("duid:0g", "text"),
        ("imei:00", "text"),
        ("256:00", "text"),
        ("eui48:02:00:5e", "text"),
        ("eui48:02:00:5e:ff:fe:00:53:01", "identifier"),
        ("duid:0003", "identifier"),
        ("duid:" + "00" * 131, "identifier"),
        ("nai:", "identifier"),
    ],
)
def test_identity_text_refused(bad: str, reason: str) -> None:
    assert reason_of(Identity.parse, bad) == reason


@pytest.mark.parametrize(
    ("subtype", "sizes"),
    [
        (2, {16}),
        (5, {6}),
        (6, {8}),
        (8, {*range(3, 131)}),
        (1, {*range(1, 255)}),
        (9, {*range(1, 255)}),
    ],
)
def test_identity_sizes(subtype: int, sizes: set[int]) -> None:
    for size in range(300):
        if size in sizes:
            assert Identity.of(subtype, bytes(size)) == (subtype, bytes(size))
        else:
            assert reason_of(Identity.of, subtype, bytes(size)) == "identifier"


@unhurried
@given(identities)
def test_identity_round_trips(identity: Identity) -> None:
    assert Identity.parse(str(identity)) == identity
    assert Identity.decode(identity.encode()) == identity
    assert str(identity).isprintable()


@pytest.mark.parametrize("subtype", [-1, 256])
def test_identity_subtype_is_an_octet(subtype: int) -> None:
    assert reason_of(lambda: Identity(subtype, b"x").encode()) == "range"


@unhurried
@given(st.integers(0, 255), st.binary(max_size=300))
def test_identity_text_is_total(subtype: int, value: bytes) -> None:
    assert str(Identity(subtype, value)).isprintable()


@pytest.mark.parametrize(
    ("micros", "stamp"),
    [
        (0, 0),
        (15, 0),
        (16, 1),
        (500_000, 0x8000),
        (1_000_000, 0x1_0000),
        (1_700_000_000_250_000, 1_700_000_000 << 16 | 0x4000),
        (((1 << 48) - 1) * 1_000_000 + 999_999, (1 << 64) - 1),
    ],
)
def test_timestamp_vectors(micros: int, stamp: int) -> None:
    assert timestamp.from_micros(micros) == stamp


def test_timestamp_refused() -> None:
    assert reason_of(timestamp.from_micros, -1) == "range"
    assert reason_of(timestamp.from_micros, (1 << 48) * 1_000_000) == "range"
    assert reason_of(timestamp.to_micros, -1) == "range"
    assert reason_of(timestamp.to_micros, 1 << 64) == "range"


@unhurried
@given(u64)
def test_timestamp_round_trips(stamp: int) -> None:
    assert timestamp.from_micros(timestamp.to_micros(stamp)) == stamp


@unhurried
@given(st.integers(0, 1 << 60), st.integers(0, 100))
def test_timestamp_keeps_order_and_precision(micros: int, later: int) -> None:
    assert timestamp.from_micros(micros + later) >= timestamp.from_micros(micros)
    assert 0 <= micros - timestamp.to_micros(timestamp.from_micros(micros)) + 1 <= 16


def test_wire_error_says_what_and_where() -> None:
    error = WireError("type", "MH Type 99", 99)
    assert isinstance(error, ValueError)
    assert (error.reason, error.detail, error.value) == ("type", "MH Type 99", 99)
    assert str(error) == "type: MH Type 99"
    assert str(WireError("checksum")) == "checksum"
