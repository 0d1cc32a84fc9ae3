from __future__ import annotations

from dataclasses import replace

import pytest

from bench import packets
from bench.domain import MAARS
from bench.workloads import leases
from dhcp_cmd.core.model import LeaseHint
from dhcp_cmd.core.request import read_request
from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix

UPPER = bytes.fromhex("3fff018025252525")  # %%%% among them
HELD = Prefix(UPPER + bytes(8), 64)


@pytest.mark.parametrize("node", [0, 1, 0x25252525, 0xFFFFFFFF])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_filled_template_is_what_the_codecs_encode(node: int, place: int) -> None:
    maar, xid, mac = MAARS[place], packets.transaction_id(node), packets.mac(node)
    message = packets.client_message(MessageType.REBIND, xid, mac, UPPER)
    filled = packets.rebinds()[place].fill(xid, mac, UPPER)
    assert filled == packets.through_maar(maar, mac, message)


def test_what_a_rebind_says_to_the_cmd() -> None:
    datagram = packets.rebinds()[1].fill(b"\x00\x00\x07", packets.mac(9), UPPER)
    request = read_request(datagram, MAARS[1].source, packets.ENTERPRISE)
    assert (request.type, request.transaction_id) == (MessageType.REBIND, b"\x00\x00\x07")
    assert request.client_id == packets.duid(9)
    [ia] = request.ias
    assert ia.delegated
    assert ia.hints == (LeaseHint(HELD, 0, 0),)
    [level] = request.relays
    assert level.link_address == parse_address("2001:db8:a2::1")
    assert level.relay_id is not None
    assert level.relay_id.endswith(b"maar2")
    assert level.link_layer == (1, packets.mac(9))
    attachment = dmm.Attachment(packets.ATTACH_AGE, 3, 4, 1, packets.mac(9))
    assert level.suboptions == (dmm.Maar(parse_address("2001:db8:ff::2"), 0xC000), attachment)


def test_a_renew_names_the_server() -> None:
    datagram = packets.renews()[0].fill(b"\x00\x00\x08", packets.mac(9), UPPER)
    request = read_request(datagram, MAARS[0].source, packets.ENTERPRISE)
    assert (request.type, request.server_id) == (MessageType.RENEW, packets.SERVER_DUID)


@pytest.mark.parametrize("delegated", [True, False])
@pytest.mark.parametrize("relayed", [True, False])
def test_rapid_commit(delegated: bool, relayed: bool) -> None:
    template = packets.rapid_solicit(delegated, relayed)
    datagram = template.fill(b"\x00\x00\x09", packets.mac(1 << 31))
    request = read_request(datagram, bytes(16), packets.ENTERPRISE)
    assert request.rapid_commit
    assert request.client_id == packets.duid(1 << 31)
    assert [ia.delegated for ia in request.ias] == [delegated]
    assert [level.suboptions for level in request.relays] == [None] * relayed


def test_leases_are_the_preferred_ones() -> None:
    address = IaAddress(parse_address("3fff:100::1"), 10, 20)
    prefix = IaPrefix(HELD, 10, 20)
    old = replace(prefix, prefix=Prefix.parse("3fff:280:0:1::/64"), preferred=0)
    options = (
        IaNa(1, 0, 0, (address.encode(),)).encode(),
        IaPd(1, 0, 0, (old.encode(), prefix.encode())).encode(),
        (int(OptionCode.RAPID_COMMIT), b""),
    )
    reply = ClientMessage(MessageType.REPLY, b"\x00\x00\x01", options).encode()
    assert leases(reply) == [address.address, HELD.address]
