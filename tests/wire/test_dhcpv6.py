"""dmm_wire.dhcpv6: octets written by hand from the figures of RFC 9915, round trips, truncation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import HOP_COUNT_LIMIT, INFINITY, MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import (
    ClientMessage,
    RelayMessage,
    encode_options,
    every,
    first,
    parse,
    parse_options,
    peek_type,
    unwrap,
)
from dmm_wire.dhcpv6.options import (
    ClientLinkLayerAddress,
    ElapsedTime,
    IaAddress,
    IaNa,
    IaPd,
    IaPrefix,
    OptionRequest,
    StatusOption,
    VendorOpts,
)
from dmm_wire.errors import WireError

from .strategies import (
    client_messages,
    hexed,
    link_layers,
    mutated,
    raw_options,
    reason_of,
    relay_messages,
    typed_options,
    unhurried,
)

SOLICIT = hexed(
    "01 abcdef",  # Solicit, transaction-id
    "0001 000a 0003 0001 02005e005301",  # Client Identifier: DUID-LL
    "0003 000c 00000001 00000000 00000000",  # IA_NA
    "0019 0029 00000002 00000000 00000000",  # IA_PD with
    "001a 0019 00000000 00000000 38 00000000000000000000000000000000",  # a hint for a /56
    "0008 0002 0000",  # Elapsed Time
    "ffff 0003 010203",  # nobody knows
)
LINK = parse_address("2001:db8:1::1")
PEER = parse_address("fe80::5eff:fe00:5301")
RELAY_FORWARD = hexed(
    "0c 00",  # Relay-forward, hop-count
    "20010db8 00010000 00000000 00000001",  # link-address
    "fe800000 00000000 00005eff fe005301",  # peer-address
    "0012 0004 61636330",  # Interface-Id
    "0009", f"{len(SOLICIT):04x}", SOLICIT.hex(),
)  # fmt: skip


def test_client_message_vector() -> None:
    message = parse(SOLICIT)
    assert isinstance(message, ClientMessage)
    assert message.type == MessageType.SOLICIT
    assert message.transaction_id == b"\xab\xcd\xef"
    assert [code for code, _ in message.options] == [1, 3, 25, 8, 0xFFFF]
    assert first(message.options, OptionCode.CLIENTID) == hexed("00030001 02005e005301")
    assert first(message.options, 0xFFFF) == b"\x01\x02\x03"
    assert first(message.options, OptionCode.SERVERID) is None
    ia_pd = first(message.options, OptionCode.IA_PD)
    assert ia_pd is not None
    assert message.encode() == SOLICIT


def test_relay_message_vector() -> None:
    message = parse(RELAY_FORWARD)
    options = ((OptionCode.INTERFACE_ID, b"acc0"), (OptionCode.RELAY_MSG, SOLICIT))
    assert message == RelayMessage(MessageType.RELAY_FORW, 0, LINK, PEER, options)
    assert message.encode() == RELAY_FORWARD
    assert unwrap(RELAY_FORWARD) == ((message,), parse(SOLICIT), SOLICIT)


def test_unwrap_direct_message() -> None:
    assert unwrap(SOLICIT) == ((), parse(SOLICIT), SOLICIT)


def test_the_type_is_seen_below_relays() -> None:
    assert peek_type(SOLICIT) == peek_type(RELAY_FORWARD) == MessageType.SOLICIT
    assert peek_type(b"") is None
    assert peek_type(RELAY_FORWARD[:34]) is None
    assert peek_type(RelayMessage(12, 0, LINK, PEER, ((18, b"eth0"),)).encode()) is None
    assert peek_type(wrapped(b"", 1)) is None


def test_every_keeps_order() -> None:
    options = ((3, b"a"), (25, b"b"), (3, b"c"))
    assert every(options, 3) == [b"a", b"c"]
    assert every(options, 4) == []


def test_unknown_message_types_are_read() -> None:
    # A relay agent relays what it does not recognise (RFC 9915 section 19.1).
    assert parse(b"\xc8abc") == ClientMessage(200, b"abc", ())


def option_ends(data: bytes, start: int) -> set[int]:
    """Where a message may be cut and still be well-formed, found without the code under test."""
    ends, position = {start}, start
    while position < len(data):
        position += 4 + int.from_bytes(data[position + 2 : position + 4], "big")
        ends.add(position)
    return ends


@pytest.mark.parametrize(("data", "header"), [(SOLICIT, 4), (RELAY_FORWARD, 34)])
def test_message_truncated_at_every_octet(data: bytes, header: int) -> None:
    ends = option_ends(data, header)
    assert len(data) in ends
    for size in range(len(data)):
        cut = data[:size]
        if size in ends:
            assert parse(cut).encode() == cut
        else:
            assert reason_of(parse, cut) == "truncated"


def test_unwrap_truncated_at_every_octet() -> None:
    ends = option_ends(RELAY_FORWARD, 34)
    for size in range(len(RELAY_FORWARD)):
        reason = reason_of(unwrap, RELAY_FORWARD[:size])
        assert reason == ("missing" if size in ends else "truncated")
    # The outer option is whole, the message inside it is cut.
    for size in set(range(len(SOLICIT))) - option_ends(SOLICIT, 4):
        relayed = wrapped(SOLICIT[:size])
        assert reason_of(unwrap, relayed) == "truncated"


def wrapped(inner: bytes, hop_count: int = 0, message_type: int = MessageType.RELAY_FORW) -> bytes:
    options = ((int(OptionCode.RELAY_MSG), inner),)
    return RelayMessage(message_type, hop_count, LINK, PEER, options).encode()


def chain(levels: int) -> bytes:
    """A Solicit relayed by `levels` agents, which count hops as RFC 9915 section 19.1 says."""
    data = SOLICIT
    for hop_count in range(levels):
        data = wrapped(data, hop_count)
    return data


@pytest.mark.parametrize("levels", range(HOP_COUNT_LIMIT + 2))
def test_relay_chain_within_the_limit(levels: int) -> None:
    relays, client, client_bytes = unwrap(chain(levels))
    assert [relay.hop_count for relay in relays] == list(reversed(range(levels)))
    assert client == parse(SOLICIT)
    assert client_bytes == SOLICIT


def test_relay_chain_beyond_the_limit() -> None:
    assert reason_of(unwrap, chain(HOP_COUNT_LIMIT + 2)) == "hop-count"
    assert reason_of(unwrap, wrapped(SOLICIT, HOP_COUNT_LIMIT + 1)) == "hop-count"
    assert reason_of(unwrap, wrapped(SOLICIT, 255)) == "hop-count"


def test_relay_chain_that_does_not_count_its_hops() -> None:
    data = SOLICIT
    for _ in range(HOP_COUNT_LIMIT + 1):
        data = wrapped(data)
    assert len(unwrap(data).relays) == HOP_COUNT_LIMIT + 1
    while len(data) < 60_000:
        data = wrapped(data)
        assert reason_of(unwrap, data) == "hop-count"


def test_relay_directions_do_not_mix() -> None:
    reply = wrapped(SOLICIT, message_type=MessageType.RELAY_REPL)
    assert len(unwrap(wrapped(reply, 1, MessageType.RELAY_REPL)).relays) == 2
    with pytest.raises(WireError) as caught:
        unwrap(wrapped(reply, 1))
    assert (caught.value.reason, caught.value.value) == ("type", MessageType.RELAY_REPL)


def test_relay_message_option_must_be_there_and_hold_something() -> None:
    assert reason_of(unwrap, RelayMessage(12, 0, LINK, PEER).encode()) == "missing"
    assert reason_of(unwrap, wrapped(b"")) == "truncated"


@unhurried
@given(client_messages)
def test_client_message_round_trips(message: ClientMessage) -> None:
    assert parse(message.encode()) == message


@unhurried
@given(relay_messages)
def test_relay_message_round_trips(message: RelayMessage) -> None:
    assert parse(message.encode()) == message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (ClientMessage(1, b"ab"), "length"),
        (ClientMessage(1, b"abcd"), "length"),
        (ClientMessage(256, b"abc"), "range"),
        (ClientMessage(1, b"abc", ((1, bytes(0x10000)),)), "range"),
        (ClientMessage(1, b"abc", ((0x10000, b""),)), "range"),
        (RelayMessage(12, 256, LINK, PEER), "range"),
        (RelayMessage(12, 0, LINK[:15], PEER), "length"),
        (RelayMessage(12, 0, LINK, PEER + b"x"), "length"),
    ],
)
def test_messages_that_cannot_be_written(
    message: ClientMessage | RelayMessage, reason: str
) -> None:
    assert reason_of(message.encode) == reason


ADDRESS = parse_address("2001:db8:1::53")
STATUS = StatusOption(StatusCode.NO_BINDING, "né")
OPTION_VECTORS = [
    (
        IaNa(0x01020304, 3600, INFINITY, (STATUS.encode(),)),
        "0003 01020304 00000e10 ffffffff 000d 0005 0003 6e c3a9",
    ),
    (IaPd(7, 1800, 2880), "0019 00000007 00000708 00000b40"),
    (
        IaAddress(ADDRESS, 0, 7200, (STATUS.encode(),)),
        "0005 20010db8000100000000000000000053 00000000 00001c20 000d 0005 0003 6e c3a9",
    ),
    (
        IaPrefix(Prefix.parse("2001:db8:40::/44"), 3600, INFINITY, ((13, b"\0\6"),)),
        "001a 00000e10 ffffffff 2c 20010db8004000000000000000000000 000d 0002 0006",
    ),
    (IaPrefix(Prefix(UNSPECIFIED, 56)), "001a 00000000 00000000 38" + "00" * 16),
    (StatusOption(StatusCode.SUCCESS), "000d 0000"),
    (OptionRequest((23, 24, 82)), "0006 0017 0018 0052"),
    (OptionRequest(), "0006"),
    (ElapsedTime(0xFFFF), "0008 ffff"),
    (ClientLinkLayerAddress(1, hexed("02005e005301")), "004f 0001 02005e005301"),
    (VendorOpts(32473, b"\0\1\0\0"), "0011 00007ed9 00010000"),
]
"""Each option and, by hand, its code and data."""


@pytest.mark.parametrize(("option", "octets"), OPTION_VECTORS)
def test_option_vectors(option: Any, octets: str) -> None:
    code, body = int.from_bytes(hexed(octets)[:2], "big"), hexed(octets)[2:]
    assert option.encode() == (code, body)
    assert type(option).decode(body) == option


@unhurried
@given(typed_options)
def test_option_round_trips(option: Any) -> None:
    assert type(option).decode(option.encode()[1]) == option


@pytest.mark.parametrize(("option", "octets"), OPTION_VECTORS)
def test_option_truncated_at_every_octet(option: Any, octets: str) -> None:
    kind, body = type(option), hexed(octets)[2:]
    # A tail may be missing only where the format has a variable part, and only between its items.
    variable = {
        IaNa: option_ends(body, 12),
        IaPd: option_ends(body, 12),
        IaAddress: option_ends(body, 24),
        IaPrefix: option_ends(body, 25),
        StatusOption: set(range(2, len(body))),
        OptionRequest: set(range(0, len(body), 2)),
        ClientLinkLayerAddress: set(range(3, len(body))),
        VendorOpts: set(range(4, len(body))),
    }.get(kind, set())
    for size in range(len(body)):
        cut = body[:size]
        if size in variable:
            assert len(kind.decode(cut).encode()[1]) >= size
        else:
            assert reason_of(kind.decode, cut) in ("length", "truncated")


def test_an_option_of_fixed_size_refuses_more() -> None:
    assert reason_of(ElapsedTime.decode, bytes(3)) == "length"


def test_odd_option_request_is_refused() -> None:
    assert reason_of(OptionRequest.decode, bytes(3)) == "length"


def test_prefix_option_masks_host_bits() -> None:
    body = hexed("00000000 00000000 40") + b"\x20\x01\x0d\xb8" + b"\xff" * 12
    assert IaPrefix.decode(body).prefix == Prefix.parse("2001:db8:ffff:ffff::/64")
    assert IaPrefix(Prefix(b"\xff" * 16, 8)).encode()[1][9:] == b"\xff" + bytes(15)


@pytest.mark.parametrize("length", [129, 255])
def test_prefix_option_refuses_long_prefixes(length: int) -> None:
    body = bytes(8) + bytes((length,)) + bytes(16)
    assert reason_of(IaPrefix.decode, body) == "prefix-length"


def test_status_text_that_is_not_utf8_stays_readable() -> None:
    assert StatusOption.decode(b"\0\1ok\xff") == StatusOption(StatusCode.UNSPEC_FAIL, "ok\ufffd")


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (IaNa(1 << 32).encode, "range"),
        (IaPd(0, -1).encode, "range"),
        (IaAddress(bytes(4)).encode, "length"),
        (IaAddress(ADDRESS, 0, 1 << 32).encode, "range"),
        (IaPrefix(Prefix(UNSPECIFIED, 129)).encode, "prefix-length"),
        (StatusOption(-1).encode, "range"),
        (OptionRequest((1 << 16,)).encode, "range"),
        (ElapsedTime(1 << 16).encode, "range"),
        (ClientLinkLayerAddress(1, b"").encode, "length"),
        (VendorOpts(1 << 32).encode, "range"),
    ],
)
def test_options_that_cannot_be_written(call: Callable[[], object], reason: str) -> None:
    assert reason_of(call) == reason


TYPED = (
    IaNa,
    IaPd,
    IaAddress,
    IaPrefix,
    StatusOption,
    OptionRequest,
    ElapsedTime,
    ClientLinkLayerAddress,
    VendorOpts,
)


@unhurried
@given(st.binary(max_size=120) | mutated(typed_options.map(lambda option: option.encode()[1])))
def test_option_fuzz(body: bytes) -> None:
    for kind in TYPED:
        try:
            option: Any = kind.decode(body)
        except WireError:
            continue
        assert kind.decode(option.encode()[1]) == option


relayed = st.builds(wrapped, client_messages.map(ClientMessage.encode), st.integers(0, 9))
relayed_twice = st.builds(wrapped, relayed, st.integers(0, 9))


@unhurried
@given(
    st.binary(max_size=200)
    | mutated(client_messages.map(ClientMessage.encode))
    | mutated(relay_messages.map(RelayMessage.encode))
    | mutated(relayed_twice)
)
def test_message_fuzz(data: bytes) -> None:
    try:
        message = parse(data)
    except WireError:
        pass
    else:
        assert message.encode() == data
    kind = peek_type(data)
    try:
        relays, client, client_bytes = unwrap(data)
    except WireError:
        return
    assert len(relays) <= HOP_COUNT_LIMIT + 1
    assert client.encode() == client_bytes
    assert kind == client.type
    assert (client_bytes == data) == (not relays)


@unhurried
@given(raw_options, link_layers)
def test_options_round_trip(options: tuple[tuple[int, bytes], ...], before: bytes) -> None:
    assert parse_options(before + encode_options(options), len(before)) == options
