"""dmm_wire.dmm: octets written by hand from the table of DMM relay options, and what goes wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.message import encode_options
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype

from .strategies import hexed, mutated, reason_of, suboptions, unhurried

MAAR1 = parse_address("2001:db8::1")
MAAR2 = parse_address("2001:db8::2")
PREF1 = Prefix.parse("2001:db8:1:40::/58")
MAC = hexed("02005e005301")

VECTORS: list[tuple[dmm.SubOption, str]] = [
    (
        dmm.Maar(MAAR1, dmm.CAP_IPV6_IN_IPV6 | dmm.CAP_PMIPV6),
        "0001 0012 20010db8000000000000000000000001 c000",
    ),
    (
        dmm.Attachment(1500, 3, 4, 1, MAC),
        "0002 000e 000005dc 03 04 0001 02005e005301",
    ),
    (dmm.Attachment(0xFFFFFFFF, 4, 2, 0, b""), "0002 0008 ffffffff 04 02 0000"),
    (
        dmm.AnchoredPrefix(PREF1, 3600, 7200, delegated=True),
        "0003 001c 80 3a 0000 00000e10 00001c20 20010db8000100400000000000000000",
    ),
    (
        dmm.PreviousMaar(PREF1, 0, 0xFFFFFFFF, False, MAAR2),
        (
            "0004 002c 00 3a 0000 00000000 ffffffff 20010db8000100400000000000000000"
            "20010db8000000000000000000000002"
        ),
    ),
    (
        dmm.PreviousMaar(PREF1, 0, 60, False, MAAR2, awaited=True),
        (
            "0004 002c 40 3a 0000 00000000 0000003c 20010db8000100400000000000000000"
            "20010db8000000000000000000000002"
        ),
    ),
    (
        dmm.PreviousMaar(PREF1, 0, 60, True, MAAR2, parse_address("fe80::1"), (1, MAC)),
        (
            "0004 004c 80 3a 0000 00000000 0000003c 20010db8000100400000000000000000"
            "20010db8000000000000000000000002"
            "0006 0010 fe800000000000000000000000000001"
            "0007 0008 0001 02005e005301"
        ),
    ),
    (
        dmm.Visit(0x0000_6553_F100_4000, UNSPECIFIED),
        "0005 0018 00006553f1004000 00000000000000000000000000000000",
    ),
    (dmm.Status(dmm.DmmStatus.STALE, "old"), "0008 0005 0005 6f6c64"),
    (
        dmm.MobileNode(Identity(IdentitySubtype.DUID, hexed("0003000102005e005301"))),
        "0009 000b 08 0003000102005e005301",
    ),
    (dmm.Domain(()), "000a 0000"),
    (
        dmm.Domain((MAAR1, MAAR2)),
        "000a 0020 20010db8000000000000000000000001 20010db8000000000000000000000002",
    ),
    (
        dmm.AnchorFailed(PREF1, MAAR2),
        "000b 0024 3a 000000 20010db8000100400000000000000000 20010db8000000000000000000000002",
    ),
    (dmm.Signalling(dmm.SignallingMode.LOCATOR), "000c 0001 02"),
    (dmm.Signalling(255), "000c 0001 ff"),
]
"""Each sub-option and, by hand, its octets."""


@pytest.mark.parametrize(("suboption", "octets"), VECTORS)
def test_vectors(suboption: dmm.SubOption, octets: str) -> None:
    assert dmm.encode((suboption,)) == hexed(octets)
    assert dmm.decode(hexed(octets)) == (suboption,)


def test_every_registered_suboption_has_a_vector() -> None:
    assert {type(suboption) for suboption, _ in VECTORS} == set(dmm.REGISTRY.values())


def test_several_in_order() -> None:
    everything = tuple(suboption for suboption, _ in VECTORS)
    octets = hexed(*(octets for _, octets in VECTORS))
    assert dmm.encode(everything) == octets
    assert dmm.decode(octets) == everything


@unhurried
@given(st.lists(suboptions, max_size=5).map(tuple))
def test_round_trips(some: tuple[dmm.SubOption, ...]) -> None:
    assert dmm.decode(dmm.encode(some)) == some


@pytest.mark.parametrize(("suboption", "octets"), VECTORS)
def test_truncated_at_every_octet(suboption: dmm.SubOption, octets: str) -> None:
    data = hexed(octets)
    assert dmm.decode(b"") == ()
    for size in range(1, len(data)):
        assert reason_of(dmm.decode, data[:size]) == "truncated"


@pytest.mark.parametrize(("suboption", "octets"), VECTORS)
def test_every_other_size(suboption: dmm.SubOption, octets: str) -> None:
    """The length field is right, but the data ends at each octet in turn, or goes on by one."""
    code, body = dmm.code_of(suboption), hexed(octets)[4:]
    variable = {
        dmm.Attachment: set(range(8, len(body) + 2)),
        dmm.PreviousMaar: {44, 64},
        dmm.Status: set(range(2, len(body) + 2)),
        dmm.MobileNode: {*range(4, len(body) + 2)},
        dmm.Domain: set(range(0, len(body) + 2, 16)),
    }.get(type(suboption), set())
    for size in {*range(len(body)), len(body) + 1}:
        data = encode_options(((code, (body + b"\0")[:size]),))
        if size in variable:
            (shorter,) = dmm.decode(data)
            assert dmm.encode((shorter,)) == data
        else:
            assert reason_of(dmm.decode, data) in (
                "length",
                "truncated",
                "identifier",
            )


def test_unknown_suboptions_are_skipped() -> None:
    status = hexed("0008 0002 0000")
    unknown = hexed("0063 0003 010203", "0000 0000", "0006 0001 00", "0007 0000")
    assert dmm.decode(unknown + status + unknown) == (dmm.Status(0),)


def test_unknown_nested_suboptions_are_skipped() -> None:
    suboption = dmm.PreviousMaar(PREF1, 1, 2, False, MAAR2, dlif_link_layer=(1, MAC))
    body = suboption.body() + hexed("0001 0000", "0063 0002 0102")
    assert dmm.decode(encode_options(((4, body),))) == (suboption,)


@pytest.mark.parametrize(
    "nested", ["0006 000f" + "00" * 15, "0006 0011" + "00" * 17, "0007 0002 0001", "0007 0000"]
)
def test_nested_suboptions_of_a_wrong_size(nested: str) -> None:
    body = dmm.PreviousMaar(PREF1, 1, 2, False, MAAR2).body() + hexed(nested)
    assert reason_of(dmm.decode, encode_options(((4, body),))) == "length"


def test_reserved_fields_are_ignored() -> None:
    prefix = "20010db8000100400000000000000000"
    anchored = hexed("0003 001c 7f 3a beef 00000001 00000002", prefix)
    assert dmm.decode(anchored) == (dmm.AnchoredPrefix(PREF1, 1, 2, delegated=False),)
    failed = hexed("000b 0024 3a c0ffee", prefix, MAAR2.hex())
    assert dmm.decode(failed) == (dmm.AnchorFailed(PREF1, MAAR2),)


def test_host_bits_are_masked() -> None:
    octets = hexed("0003 001c 00 10 0000 00000001 00000002") + b"\xff" * 16
    assert dmm.decode(octets) == (dmm.AnchoredPrefix(Prefix.parse("ffff::/16"), 1, 2),)
    assert dmm.AnchorFailed(Prefix(b"\xff" * 16, 16), MAAR1).body()[4:20] == b"\xff\xff" + bytes(14)


@pytest.mark.parametrize("code", [3, 4, 11])
def test_prefix_lengths_above_128(code: int) -> None:
    body = {3: hexed("00 81") + bytes(26), 4: hexed("00 ff") + bytes(42), 11: b"\x81" + bytes(35)}
    data = encode_options(((code, body[code]),))
    assert reason_of(dmm.decode, data) == "prefix-length"


def test_status_text_that_is_not_utf8_stays_readable() -> None:
    assert dmm.decode(hexed("0008 0004 0001 41ff")) == (dmm.Status(1, "A\ufffd"),)


@pytest.mark.parametrize(
    "identity", ["05 02005e0053", "05 02005e00530101", "06 02005e005301", "08 0003"]
)
def test_identities_of_a_wrong_size(identity: str) -> None:
    data = encode_options(((9, hexed(identity)),))
    assert reason_of(dmm.decode, data) == "identifier"


def test_option_17_vector() -> None:
    code, body = dmm.to_option(dmm.DEFAULT_ENTERPRISE, (dmm.Maar(MAAR1, 0), dmm.Status(0)))
    assert code == 17
    assert body == hexed("00007ed9 0001 0012", MAAR1.hex(), "0000 0008 0002 0000")


def test_from_options_takes_its_own_enterprise_only() -> None:
    suboptions = (dmm.Maar(MAAR1, 0), dmm.Status(0))
    mine = dmm.to_option(32473, suboptions)
    other = (17, hexed("00000009 ff"))  # another vendor's data are nobody's business here
    assert dmm.from_options(32473, ((1, b"x"), other, mine)) == suboptions
    assert dmm.from_options(32473, (dmm.to_option(32473, ()),)) == ()
    assert dmm.from_options(32473, ((1, b"x"), other)) is None
    assert dmm.from_options(32474, (mine,)) is None


def test_option_17_twice_or_too_short() -> None:
    mine = dmm.to_option(32473, ())
    assert reason_of(dmm.from_options, 32473, (mine, mine)) == "duplicate"
    assert reason_of(dmm.from_options, 32473, ((17, b"\0\0\x7e"),)) == "length"


@pytest.mark.parametrize(
    ("suboption", "reason"),
    [
        (dmm.Maar(MAAR1[:4], 0), "length"),
        (dmm.Maar(MAAR1, 1 << 16), "range"),
        (dmm.Attachment(-1, 0, 0, 0, b""), "range"),
        (dmm.AnchoredPrefix(PREF1, 1 << 32, 0), "range"),
        (dmm.PreviousMaar(PREF1, 0, 0, False, b""), "length"),
        (dmm.PreviousMaar(PREF1, 0, 0, False, MAAR1, b"x"), "length"),
        (dmm.Visit(1 << 64, MAAR1), "range"),
        (dmm.Status(-1), "range"),
        (dmm.MobileNode(Identity(8, b"")), "identifier"),
        (dmm.Domain((MAAR1, b"")), "length"),
        (dmm.Domain((MAAR1,) * 4096), "range"),
        (dmm.AnchorFailed(Prefix(MAAR1, 200), MAAR1), "prefix-length"),
    ],
)
def test_what_cannot_be_written(suboption: dmm.SubOption, reason: str) -> None:
    assert reason_of(dmm.encode, (suboption,)) == reason
    assert reason_of(dmm.to_option, 1 << 32, ()) == "range"


@unhurried
@given(
    st.binary(max_size=150) | mutated(st.lists(suboptions, max_size=3).map(dmm.encode)),
    st.integers(0, 12),
)
def test_fuzz(data: bytes, code: int) -> None:
    for candidate in (data, encode_options(((code, data),))):
        try:
            found = dmm.decode(candidate)
        except WireError:
            continue
        assert dmm.decode(dmm.encode(found)) == found
