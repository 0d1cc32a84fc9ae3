"""What remains different between the two hosts of the CMD: one reviewed list, each with its reason.

Measured by test_differential.py: every entry has an example over which the hosts do differ, so that it goes when it is
true no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dhcp_cmd.server.responder import Arrival
from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, encode_options, unwrap
from dmm_wire.dhcpv6.options import IaAddress
from dmm_wire.errors import WireError
from tests.cmd.server import generated as g
from tests.cmd.server.hosts import MULTICAST

Answers = list[bytes | None]
Host = Callable[[list[Arrival]], Answers]
"""A batch in, its answers out."""


@dataclass(frozen=True)
class Difference:
    """`applies` says of a datagram whether the hosts may differ over it; `example` puts to a host what they do differ
    over, and gives its answers."""

    name: str
    reason: str
    applies: Callable[[Arrival], bool]
    example: Callable[[Host], Answers]


def _is_leasequery(arrival: Arrival) -> bool:
    try:
        return unwrap(arrival.data).client.type == MessageType.LEASEQUERY
    except WireError:
        return False


def _asks_for_what_dhcpkit_keeps(arrival: Arrival) -> bool:
    """An Echo Request option for one that dhcpkit would not put into a Relay-reply."""
    try:
        relays = unwrap(arrival.data).relays
    except WireError:
        return False
    echoed = {OptionCode.INTERFACE_ID, OptionCode.REMOTE_ID, OptionCode.SUBSCRIBER_ID, 65_000}
    return any(
        not set(_codes(body)) <= echoed
        for relay in relays
        for code, body in relay.options
        if code == OptionCode.ERO and not len(body) % 2
    )


def _codes(body: bytes) -> list[int]:
    return [int.from_bytes(body[i : i + 2], "big") for i in range(0, len(body), 2)]


def _step(kind: int, maar: int, *options: str) -> g.Step:
    path = g.Path("maar", maar, options)
    return g.Step(0, 1, 0, kind, path, (g.Ia(True, 1, "own"),), "proper", "proper", None, 0, ())


def _released_twice(host: Host) -> Answers:
    nodes = g.Nodes()
    [answer] = host([nodes.message(_step(MessageType.REQUEST, 2))])
    assert answer is not None
    nodes.learn(1, answer)
    release = nodes.message(_step(MessageType.RELEASE, 2))
    return host([release, release])


def _leasequery(host: Host) -> Answers:
    address = IaAddress(parse_address("2001:db8:200::1"), 0, 0).encode()
    query = (
        b"\x01" + bytes(16) + encode_options((address,))
    )  # QUERY_BY_ADDRESS, RFC 5007 section 4.1.2.1
    options = ((int(OptionCode.CLIENTID), g.duid(1)), (int(OptionCode.LQ_QUERY), query))
    message = ClientMessage(MessageType.LEASEQUERY, b"\x00\x00\x01", options).encode()
    return host([Arrival(message, parse_address("fe80::9"), MULTICAST)])


def _echo_request(host: Host) -> Answers:
    return host([g.Nodes().message(_step(MessageType.SOLICIT, 1, "ero-relay-id"))])


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "duplicate",
        "ipv6-dhcpd handles each datagram for itself, so that of two copies of a Release the second is told that there"
        " is no binding. Here copies within a batch are decided once, and all get the same answer.",
        lambda arrival: False,  # what is generated has a transaction-id of its own
        _released_twice,
    ),
    Difference(
        "leasequery",
        "dhcpkit answers a Leasequery (RFC 5007) with a status also where no handler for it is configured. Here it is"
        " dropped; a configuration with <leasequery> is refused.",
        _is_leasequery,
        _leasequery,
    ),
    Difference(
        "echo-request",
        "A relay agent may ask for any of its options back, and the server copies also those it does not know"
        " (RFC 4994 section 5). dhcpkit stops at the first that its classes do not allow in a Relay-reply.",
        _asks_for_what_dhcpkit_keeps,
        _echo_request,
    ),
)
