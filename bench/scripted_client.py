"""A mobile node whose DHCPv6 messages are sent when they are told to be: no timer of a client hides what is measured.

Its kernel carries its packets, but is told nothing by router advertisements and says nothing by itself: the router is
the one of RFC 6543, known beforehand, and its addresses are on the loopback interface, where no duplicate address
detection waits and no multicast group is joined for them. What the network sees of an attach is the DHCPv6 message.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from dmm_wire.address import format_address, format_mac
from dmm_wire.dhcpv6.codes import CLIENT_PORT, SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, every, unwrap
from dmm_wire.dhcpv6.options import ElapsedTime, IaAddress, IaNa
from dmm_wire.errors import WireError
from lab import netns
from lab.topology import MN_INTERFACE, MaarPlan, Topology

ROUTER: Final = "fe80::200:5eff:fe00:5213"
ROUTER_LINK_LAYER: Final = "00:00:5e:00:52:13"

_ALL_SERVERS: Final = "ff02::1:2"
_IAID: Final = 1
_SILENT: Final = {
    "net/ipv6/conf/all/accept_ra": "0",
    f"net/ipv6/conf/{MN_INTERFACE}/accept_ra": "0",
    f"net/ipv6/conf/{MN_INTERFACE}/accept_dad": "0",
    f"net/ipv6/conf/{MN_INTERFACE}/router_solicitations": "0",
    f"net/ipv6/conf/{MN_INTERFACE}/addr_gen_mode": "1",
    # Its link-local address has a group: the reports of it follow at once, and none comes a second later.
    f"net/ipv6/conf/{MN_INTERFACE}/mldv2_unsolicited_report_interval": "1",
}


@dataclass(slots=True)
class Node:
    """A node that was not there before: who it is, and the addresses that it was given, in the order of its visits."""

    number: int
    addresses: dict[MaarPlan, bytes] = field(default_factory=dict)

    @property
    def link_layer(self) -> bytes:
        """Locally administered."""
        return b"\x02\xbe" + self.number.to_bytes(4, "big")

    @property
    def link_local(self) -> str:
        """Its link-local address."""
        return format_address(bytes.fromhex("fe80000000000000") + b"\x00\x00" + self.link_layer)

    @property
    def duid(self) -> bytes:
        """A DUID-LL (RFC 9915 section 11.4)."""
        return b"\x00\x03\x00\x01" + self.link_layer


def solicit(node: Node, transaction: bytes) -> bytes:
    """A Solicit with Rapid Commit for an address: the first attach."""
    rapid = (int(OptionCode.RAPID_COMMIT), b"")
    return _message(MessageType.SOLICIT, node, transaction, (rapid,))


def rebind(node: Node, transaction: bytes) -> bytes:
    """A Rebind of all addresses held (RFC 9915 section 18.2.5): what a host sends that may have moved."""
    return _message(MessageType.REBIND, node, transaction)


def _message(
    kind: MessageType, node: Node, transaction: bytes, more: tuple[tuple[int, bytes], ...] = ()
) -> bytes:
    held = tuple(IaAddress(address, 0, 0).encode() for address in node.addresses.values())
    options = (
        (int(OptionCode.CLIENTID), node.duid),
        ElapsedTime(0).encode(),
        *more,
        IaNa(_IAID, 0, 0, held).encode(),
    )
    return ClientMessage(kind, transaction, options).encode()


def leases(data: bytes, transaction: bytes) -> list[bytes] | None:
    """The addresses that a Reply leaves preferred; None for what is no Reply to this transaction."""
    try:
        message = unwrap(data).client
        if message.type != MessageType.REPLY or message.transaction_id != transaction:
            return None
        found = [
            IaAddress.decode(body)
            for ia in every(message.options, OptionCode.IA_NA)
            for body in every(IaNa.decode(ia).options, OptionCode.IAADDR)
        ]
    except WireError:
        return None
    return [lease.address for lease in found if lease.preferred]


class ScriptedClient:
    """The mobile node's namespace and socket, between `with` and its end; one node after the other lives in it."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._namespace = topology.namespace("mn")
        self._socket: socket.socket | None = None
        self._transaction = 0
        self._index = 0
        self.node = Node(0)

    def __enter__(self) -> Self:
        netns.write_sysctls(self._namespace, _SILENT)
        netns.ip("link", "set", "lo", "up", namespace=self._namespace)
        self._index = netns.inside(self._namespace, lambda: socket.if_nametoindex(MN_INTERFACE))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def become(self, number: int) -> Node:
        """Be another node, that nobody knows, from now on; gives it. Numbers are not used again."""
        node = Node(number)
        self.be(node)
        return node

    def be(self, node: Node, *, talks: bool = False) -> None:
        """Be this node, with the addresses that it has. `talks`: they are on its interface, as any host has them, and
        its kernel says by itself what it has to say of them."""
        self._close()
        self.node = node
        where, state = (MN_INTERFACE, "reachable") if talks else ("lo", "permanent")
        router = f"{ROUTER} lladdr {ROUTER_LINK_LAYER} dev {MN_INTERFACE}"
        netns.batch(
            (
                f"addr flush dev {MN_INTERFACE}",
                "addr flush dev lo scope global",
                f"link set dev {MN_INTERFACE} address {format_mac(node.link_layer)}",
                f"addr add {node.link_local}/64 dev {MN_INTERFACE} nodad",
                f"neigh replace {router} nud {state}",
                f"route replace default via {ROUTER} dev {MN_INTERFACE}",
                *(
                    f"addr replace {format_address(address)}/128 dev {where} nodad"
                    for address in node.addresses.values()
                ),
            ),
            namespace=self._namespace,
        )
        self._socket = netns.inside(self._namespace, self._open)

    def go(self, plan: MaarPlan) -> None:
        """Be on the access link of this MAAR. The cable's far end is put from bridge to bridge: the carrier stays, the
        node does not notice, and says nothing."""
        air = self._topology.namespace("air")
        netns.batch([f"link set mn master link{plan.number}", "link set mn up"], namespace=air)
        self._topology.attached = plan

    def ask(self, again: bytes | None = None) -> bytes:
        """Send a Rebind, or a Solicit where nothing is held; gives its transaction id. `again`: the transaction of one
        that stayed without answer (RFC 9915 section 15)."""
        assert self._socket is not None
        if again is None:
            self._transaction += 1
        transaction = again or self._transaction.to_bytes(3, "big")
        make = rebind if self.node.addresses else solicit
        data = make(self.node, transaction)
        self._socket.sendto(data, (_ALL_SERVERS, SERVER_PORT, 0, self._index))
        return transaction

    def take(self, transaction: bytes) -> bool:
        """Take the address that a Reply brought, if it is there. Raises LabError for a Reply without exactly one."""
        assert self._socket is not None
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return False
            found = leases(data, transaction)
            if found is not None:
                break
        plan = self._topology.attached
        if plan is None or len(found) != 1 or not plan.anchors(found[0]):
            raise netns.LabError(f"a Reply with {[format_address(each) for each in found]}")
        self.node.addresses[plan] = found[0]
        where = f"{format_address(found[0])}/128 dev lo nodad"
        netns.ip("-6", "addr", "replace", *where.split(), namespace=self._namespace)
        return True

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        made.bind((self.node.link_local, CLIENT_PORT, 0, self._index))
        return made

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
