"""Static options and conditions by themselves; that they do as dhcpkit does is test_differential's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dhcp_cmd.server.filters import Elapsed, Facts, Marked, OnLink, StaticOption, StaticOptions
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.message import Options, parse_options

SOLICIT, ADVERTISE, REQUEST, REPLY = 1, 2, 3, 7
BOTH = frozenset({ADVERTISE, REPLY})
A, B, C = (bytes((n,)) * 16 for n in (1, 2, 3))


def chosen(
    *options: StaticOption,
    request: int = REQUEST,
    reply: int = REPLY,
    oro: bytes | None = None,
    holding: tuple[bool, ...] = (),
) -> Options:
    return parse_options(StaticOptions(options).encoded(request, reply, oro, holding))


def test_an_option_request_is_honoured_where_there_is_one() -> None:
    dns, sntp = StaticOption(23, (A,), BOTH), StaticOption(31, (B,), BOTH, always=True)
    assert chosen(dns, sntp) == ((23, A), (31, B))
    assert chosen(dns, sntp, oro=b"") == ((31, B),)
    assert chosen(dns, sntp, oro=b"\x00\x17") == ((23, A), (31, B))


def test_two_options_of_a_code() -> None:
    first = StaticOption(23, (A, B), BOTH)
    assert chosen(first, StaticOption(23, (B, C), BOTH, unites=True)) == ((23, A + B + C),)
    assert chosen(first, StaticOption(23, (C,), BOTH, replaces=True)) == ((23, C),)
    assert chosen(first, StaticOption(23, (C,), BOTH)) == ((23, A + B),)


def test_an_option_goes_only_into_its_messages_and_where_its_conditions_hold() -> None:
    unicast = StaticOption(12, (A,), frozenset({REPLY}), conditions=(1,))
    assert chosen(unicast, holding=(False, True)) == ((12, A),)
    assert chosen(unicast, holding=(True, False)) == ()
    assert chosen(unicast, holding=(True, True), request=SOLICIT, reply=ADVERTISE) == ()


def test_rapid_commit_makes_a_difference_to_late_options_only() -> None:
    early = StaticOption(12, (A,), frozenset({REPLY}))
    late = StaticOption(12, (B,), frozenset({REPLY}), late=True)
    assert chosen(early, request=SOLICIT, reply=REPLY) == ()
    assert chosen(late, request=SOLICIT, reply=REPLY) == ((12, B),)


def test_conditions() -> None:
    facts = Facts(parse_address("2001:db8:1::1"), frozenset({"core"}), 100)
    assert OnLink((Prefix.parse("2001:db8:1::/48"),)).holds(facts)
    assert not OnLink((Prefix.parse("2001:db8:2::/48"),)).holds(facts)
    assert Marked("core").holds(facts)
    assert not Marked("edge").holds(facts)
    assert Elapsed(99, 101).holds(facts)
    assert not Elapsed(100, None).holds(facts)
    assert not Elapsed(None, 100).holds(facts)
    assert not Elapsed(None, 101).holds(facts._replace(elapsed=None))


@given(st.lists(st.binary(max_size=8), max_size=50))
def test_any_option_request_can_be_read(bodies: list[bytes]) -> None:
    options = StaticOptions([StaticOption(23, (A,), BOTH)])
    for body in bodies:
        codes = {body[i : i + 2] for i in range(0, len(body), 2)}
        encoded = options.encoded(REQUEST, REPLY, body, ())
        assert bool(encoded) == (b"\x00\x17" in codes)
