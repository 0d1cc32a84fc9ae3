"""From bytes to a request: what is read, what is discarded and why."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhcp_cmd.core.errors import Rejected
from dhcp_cmd.core.model import BindingRequest, LeaseHint
from dhcp_cmd.core.request import MAX_HINTS, MAX_IAS, read_request
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage
from dmm_wire.dhcpv6.options import IaPd, IaPrefix
from dmm_wire.errors import WireError
from tests.cmd.core.world import (
    ENTERPRISE,
    SERVER,
    Host,
    M,
    a_maar,
    address,
    attachment,
    link_address,
    na,
    pd,
    prefix,
    relayed,
)

SOURCE = address("2001:db8:ffff::1")
CLIENT = (int(OptionCode.CLIENTID), Host(1).duid)
SERVER_ID = (int(OptionCode.SERVERID), SERVER)


def read(data: bytes) -> BindingRequest:
    return read_request(data, SOURCE, ENTERPRISE)


def message(kind: int, *options: tuple[int, bytes]) -> bytes:
    return ClientMessage(kind, b"abc", options).encode()


def test_a_relayed_message() -> None:
    host, maar = Host(1), a_maar(1)
    inner = host.message(
        M.REQUEST, na(5, address("2001:db8::1")), pd(6, prefix("2001:db8:9::/60")), rapid=True
    )
    request = read(relayed(inner, maar, attachment(host), peer=host.link_local, mac=host.mac))
    assert (request.type, request.client_id, request.server_id) == (M.REQUEST, host.duid, SERVER)
    assert request.rapid_commit
    assert [(ia.iaid, ia.delegated) for ia in request.ias] == [(5, False), (6, True)]
    assert request.ias[0].hints == (LeaseHint(Prefix(address("2001:db8::1"), 128), 0, 0),)
    assert request.ias[1].hints == (LeaseHint(prefix("2001:db8:9::/60"), 0, 0),)
    (level,) = request.relays
    assert (level.source, level.peer_address) == (SOURCE, host.link_local)
    assert level.link_address == link_address(1)
    assert (level.relay_id, level.link_layer) == (maar.relay_id, (1, host.mac))
    assert level.suboptions is not None
    assert isinstance(level.suboptions[0], dmm.Maar)
    assert level.suboptions[1] == attachment(host)


def test_the_source_of_an_inner_level_is_the_peer_of_the_next_one_out() -> None:
    host, maar = Host(1), a_maar(1)
    inner = relayed(host.message(M.SOLICIT), maar, peer=host.link_local)
    request = read(relayed(inner, maar, peer=address("2001:db8::77"), mobile=False))
    assert [level.source for level in request.relays] == [SOURCE, address("2001:db8::77")]
    assert request.relays[0].suboptions is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (message(M.ADVERTISE, CLIENT, SERVER_ID), "message-type"),
        (message(M.REPLY, CLIENT, SERVER_ID), "message-type"),
        (message(M.RECONFIGURE, CLIENT, SERVER_ID), "message-type"),
        (message(99, CLIENT), "message-type"),
        (message(M.SOLICIT), "no-client-id"),
        (message(M.SOLICIT, (1, b"")), "client-id"),
        (message(M.SOLICIT, (1, b"\x00\x03")), "client-id"),
        (message(M.SOLICIT, (1, bytes(131))), "client-id"),
        (message(M.SOLICIT, CLIENT, SERVER_ID), "server-id"),
        (message(M.CONFIRM, CLIENT, SERVER_ID), "server-id"),
        (message(M.REBIND, CLIENT, SERVER_ID), "server-id"),
        (message(M.REQUEST, CLIENT), "no-server-id"),
        (message(M.RENEW, CLIENT), "no-server-id"),
        (message(M.RELEASE, CLIENT), "no-server-id"),
        (message(M.DECLINE, CLIENT), "no-server-id"),
        (message(M.REQUEST, SERVER_ID), "no-client-id"),
        (message(M.INFORMATION_REQUEST, CLIENT, na()), "unexpected-ia"),
        (message(M.SOLICIT, CLIENT, *(na(n) for n in range(MAX_IAS + 1))), "too-many-ias"),
        (
            RelayMessage(
                M.RELAY_REPL, 0, bytes(16), bytes(16), ((9, message(M.SOLICIT, CLIENT)),)
            ).encode(),
            "message-type",
        ),
    ],
)
def test_what_section_16_discards(data: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        read(data)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "data",
    [
        message(M.SOLICIT, CLIENT),
        message(M.INFORMATION_REQUEST),
        message(M.INFORMATION_REQUEST, CLIENT, SERVER_ID),
        message(M.SOLICIT, CLIENT, (65000, b"what is this"), (17, b"\x00\x00\x00\x09junk!")),
        message(M.SOLICIT, CLIENT, (4, b"an IA_TA of whatever form")),
        message(M.RELEASE, CLIENT, SERVER_ID, na()),
    ],
)
def test_what_is_not_discarded(data: bytes) -> None:
    assert read(data).relays == ()


@pytest.mark.parametrize(
    "option",
    [
        (3, bytes(11)),
        (25, bytes(11)),
        (3, bytes(12) + b"\x00\x05\x00\x01\x00"),
        (25, bytes(12) + b"\x00\x1a\x00\x01\x00"),
        (25, bytes(12) + b"\x00\x1a\x00\x19" + bytes(8) + b"\x81" + bytes(16)),
        (3, bytes(12) + b"\x00\x05\x00\x18"),
    ],
)
def test_malformed_ias(option: tuple[int, bytes]) -> None:
    with pytest.raises(WireError):
        read(message(M.SOLICIT, CLIENT, option))


def test_two_of_our_options_at_a_level_are_malformed() -> None:
    ours = dmm.to_option(ENTERPRISE, ())
    inner = message(M.SOLICIT, CLIENT)
    data = RelayMessage(M.RELAY_FORW, 0, bytes(16), bytes(16), (ours, ours, (9, inner))).encode()
    with pytest.raises(WireError):
        read(data)


def test_an_iaid_counts_once_and_an_empty_hint_not_at_all() -> None:
    empty = IaPd(2, 0, 0, (IaPrefix(Prefix(bytes(16), 0), 0, 0).encode(),)).encode()
    request = read(message(M.SOLICIT, CLIENT, na(1), na(1, address("::1")), pd(1), empty))
    assert [(ia.iaid, ia.delegated, ia.hints) for ia in request.ias] == [
        (1, False, ()),
        (1, True, ()),
        (2, True, ()),
    ]


def test_hints_are_bounded() -> None:
    many = [address(f"2001:db8::{n:x}") for n in range(1, MAX_HINTS + 20)]
    assert len(read(message(M.SOLICIT, CLIENT, na(1, *many))).ias[0].hints) == MAX_HINTS


def reads_or_says_why(data: bytes) -> None:
    try:
        request = read(data)
    except (WireError, Rejected):
        return
    assert len(request.transaction_id) == 3
    assert all(len(level.source) == 16 for level in request.relays)


@given(st.binary(max_size=400))
def test_noise(data: bytes) -> None:
    reads_or_says_why(data)


VALID = relayed(
    relayed(
        Host(1).message(M.REQUEST, na(5, address("2001:db8::1")), pd(6, prefix("2001:db8::/60"))),
        a_maar(1),
        attachment(Host(1)),
        mac=Host(1).mac,
    ),
    a_maar(2),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=6))
def test_mutations(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for position, value in changes:
        data[position] = value
    reads_or_says_why(bytes(data))


def test_truncation_at_each_byte() -> None:
    for end in range(len(VALID)):
        with pytest.raises((WireError, Rejected)):
            read(VALID[:end])
