from __future__ import annotations

import pytest

from bench.packet_stream import Flow, read_flows
from bench.scripted_client import Node, leases, rebind, solicit
from dmm_wire.address import UNSPECIFIED, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, every, unwrap
from dmm_wire.dhcpv6.options import IaAddress, IaNa
from lab.topology import MAAR_PLANS

XID = b"\x01\x02\x03"
ONE, TWO = parse_address("2001:db8:100::1"), parse_address("2001:db8:200::1")


def held(data: bytes) -> list[bytes]:
    client = unwrap(data).client
    return [
        IaAddress.decode(body).address
        for ia in every(client.options, OptionCode.IA_NA)
        for body in every(IaNa.decode(ia).options, OptionCode.IAADDR)
    ]


def reply(*preferred: tuple[bytes, int], kind: MessageType = MessageType.REPLY) -> bytes:
    inside = tuple(IaAddress(address, seconds, 60).encode() for address, seconds in preferred)
    return ClientMessage(kind, XID, (IaNa(1, 0, 0, inside).encode(),)).encode()


def test_a_node_asks_as_a_host_does() -> None:
    node = Node(0x0102)
    assert node.link_local == "fe80::2be:0:102"
    first = unwrap(solicit(node, XID)).client
    assert (first.type, first.transaction_id) == (MessageType.SOLICIT, XID)
    assert every(first.options, OptionCode.RAPID_COMMIT) == [b""]
    assert every(first.options, OptionCode.CLIENTID) == [
        b"\x00\x03\x00\x01\x02\xbe\x00\x00\x01\x02"
    ]
    assert held(solicit(node, XID)) == []
    node.addresses = {MAAR_PLANS[0]: ONE, MAAR_PLANS[1]: TWO}
    then = unwrap(rebind(node, XID)).client
    assert then.type == MessageType.REBIND
    assert not every(then.options, OptionCode.RAPID_COMMIT)
    assert held(rebind(node, XID)) == [ONE, TWO]


def test_the_new_lease_is_the_one_that_is_preferred() -> None:
    assert leases(reply((TWO, 30), (ONE, 0)), XID) == [TWO]
    assert leases(reply((ONE, 0)), XID) == []


@pytest.mark.parametrize(
    "data",
    [reply((TWO, 30), kind=MessageType.ADVERTISE), reply((TWO, 30))[:-3], b""],
    ids=["Advertise", "cut short", "empty"],
)
def test_what_is_no_reply_to_it_is_none(data: bytes) -> None:
    assert leases(data, XID) is None
    assert leases(reply((TWO, 30)), b"\x00\x00\x00") is None


def test_flows_are_read_from_a_line() -> None:
    line = "::>2001:db8:100::1 2001:db8:200::1>2001:db8:100::1\n"
    assert read_flows(line) == [Flow(UNSPECIFIED, ONE), Flow(TWO, ONE)]
    assert read_flows("stop\n") == []
    assert read_flows("answer\n") == []
    with pytest.raises(ValueError, match="address"):
        read_flows("here>there")
