"""The DHCPv6 relay agent (RFC 9915 section 19, RFC 8987): client messages up, Relay-replies down,
byte for byte.

No state is kept for a message: Interface-Id and peer-address come back in the Relay-reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, is_link_local, is_unicast
from dmm_wire.dhcpv6.codes import CLIENT_PORT, HOP_COUNT_LIMIT, SERVER_PORT, MessageType, OptionCode
from dmm_wire.dhcpv6.message import (
    ClientMessage,
    Options,
    RelayMessage,
    Unwrapped,
    first,
    parse,
    unwrap,
)
from dmm_wire.dhcpv6.options import ClientLinkLayerAddress, ElapsedTime, VendorOpts
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype, of_link_layer
from relay_maar.core.settings import AccessLink, AgentSettings

ETHERNET: Final = 1
"""Hardware type (IANA) of a link-layer address of 6 octets; EUI-64 is 27."""

HANDOFF_UNKNOWN: Final = 4
HANDOFF_NOT_CHANGED: Final = 5
"""RFC 5213 section 8.4. Which of the others it is, new interface or between MAARs, only the CMD can
know."""

_NOT_FROM_CLIENTS: Final = frozenset(
    {
        MessageType.ADVERTISE,
        MessageType.REPLY,
        MessageType.RECONFIGURE,
        MessageType.RELAY_REPL,
        MessageType.LEASEQUERY_REPLY,
        MessageType.LEASEQUERY_DONE,
        MessageType.LEASEQUERY_DATA,
        MessageType.RECONFIGURE_REPLY,
    }
)
"""What only servers send. Anything else is relayed, known or not (RFC 9915 section 19)."""

_MAX_MESSAGE: Final = 65535 - 512
"""Octets of a message that still fits a Relay Message option and a datagram with our options around
it."""


class Discard(Exception):
    """A message that is not passed on; `reason` is a short slug for a counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Forward:
    """A Relay-forward for the servers, and whose message is in it: `node` as in Reply."""

    data: bytes
    node: bytes | None
    transaction_id: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A Relay-reply taken apart.

    `data` goes to `peer` and `port` on `link`, whatever became of the rest. `node` is the mobile
    node's link-local address on our link, None where it is behind a router. `suboptions` are the
    server's DMM sub-options at our relay level, None if it sent none; `fault` is why they, or the
    message's client, could not be read.
    """

    link: AccessLink
    peer: bytes
    port: int
    data: bytes
    identity: Identity | None
    node: bytes | None
    transaction_id: bytes
    suboptions: tuple[dmm.SubOption, ...] | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class OwnReply:
    """A Relay-reply to a message that this MAAR sent for itself."""

    transaction_id: bytes
    suboptions: tuple[dmm.SubOption, ...] | None


class Relay:
    """Wraps and unwraps. Raises Discard or WireError for what is dropped, nothing else."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._by_interface_id = {link.interface_id: link for link in settings.access}
        self._by_link_address = {link.link_address: link for link in settings.access}

    def forward(
        self, link: AccessLink, source: bytes, link_layer: bytes | None, data: bytes, served: bool
    ) -> Forward:
        """The Relay-forward for a message from `source` on `link`; `served`: this node's visit here
        is known already."""
        if len(data) > _MAX_MESSAGE:
            raise Discard("oversized")
        kind = data[0] if data else 0
        if kind in _NOT_FROM_CLIENTS:
            raise Discard("message-type")
        if kind == MessageType.RELAY_FORW and not link.relays_below:
            raise Discard("relay-below")
        unwrapped = unwrap(data)
        if unwrapped.relays:
            up = self._wrap_relayed(link, source, unwrapped.relays, data, served)
        elif is_link_local(source):
            up = self._wrap(0, link.link_address, link, source, link_layer, data, served)
        else:
            # RFC 9915 section 5: a client sends from the link-local address of the interface it
            # configures.
            raise Discard("source")
        return Forward(up, _node(source, unwrapped), unwrapped.client.transaction_id)

    def _wrap_relayed(
        self,
        link: AccessLink,
        source: bytes,
        levels: Sequence[RelayMessage],
        data: bytes,
        served: bool,
    ) -> bytes:
        if levels[0].hop_count >= HOP_COUNT_LIMIT:
            raise Discard("hop-count")
        if any(self._carries_ours(level.options) for level in levels):
            # Our sub-options are said by MAARs only, and there is none below us.
            raise Discard("forged-options")
        if not is_unicast(source):
            raise Discard("source")
        # RFC 9915 section 19.1.2: the link-address is 0 where the relay agent's own address is a
        # global one.
        address = link.link_address if is_link_local(source) else UNSPECIFIED
        hop_count = levels[0].hop_count + 1
        return self._wrap(hop_count, address, link, source, None, data, served)

    def _carries_ours(self, options: Options) -> bool:
        return any(
            VendorOpts.decode(body).enterprise == self._settings.enterprise
            for code, body in options
            if code == OptionCode.VENDOR_OPTS
        )

    def _wrap(
        self,
        hop_count: int,
        link_address: bytes,
        link: AccessLink,
        source: bytes,
        link_layer: bytes | None,
        data: bytes,
        served: bool,
    ) -> bytes:
        hardware_type = hardware_type_of(link_layer) if link_layer else 0
        options: list[tuple[int, bytes]] = [(OptionCode.INTERFACE_ID, link.interface_id)]
        if link_layer:
            options.append(ClientLinkLayerAddress(hardware_type, link_layer).encode())
        attachment = dmm.Attachment(
            0,  # the message itself is the evidence that the node is here
            HANDOFF_NOT_CHANGED if served else HANDOFF_UNKNOWN,
            self._settings.access_technology,
            hardware_type,
            link_layer or b"",
        )
        options += self._ours(attachment)
        options.append((OptionCode.RELAY_MSG, data))
        return RelayMessage(
            MessageType.RELAY_FORW, hop_count, link_address, source, tuple(options)
        ).encode()

    def _ours(self, *suboptions: dmm.SubOption, capabilities: int = 0) -> list[tuple[int, bytes]]:
        settings = self._settings
        maar = dmm.Maar(settings.endpoint, settings.capabilities | capabilities)
        return [
            (OptionCode.RELAY_ID, settings.relay_id),
            dmm.to_option(settings.enterprise, (maar, *suboptions)),
        ]

    def attached(
        self, transaction_id: bytes, link_layer: bytes, age_ms: int, *, known: bool, slaac: bool
    ) -> bytes:
        """A Relay-forward of our own about a node that was seen `age_ms` milliseconds ago. `known`: its
        visit here is known already; `slaac`: it may make its own addresses here."""
        attachment = dmm.Attachment(
            age_ms,
            HANDOFF_NOT_CHANGED if known else HANDOFF_UNKNOWN,
            self._settings.access_technology,
            hardware_type_of(link_layer),
            link_layer,
        )
        name = dmm.MobileNode(of_link_layer(link_layer))
        capabilities = dmm.CAP_SLAAC if slaac else 0
        return self.query(transaction_id, (name, attachment), capabilities)

    def query(
        self,
        transaction_id: bytes,
        suboptions: Iterable[dmm.SubOption],
        capabilities: int = 0,
    ) -> bytes:
        """A Relay-forward of our own: an Information-request with our DUID in it, from no link in
        particular. `capabilities` are said beside those that we always have."""
        settings = self._settings
        request = ClientMessage(
            MessageType.INFORMATION_REQUEST,
            transaction_id,
            ((OptionCode.CLIENTID, settings.relay_id), ElapsedTime(0).encode()),
        )
        ours = self._ours(*suboptions, capabilities=capabilities)
        options = (*ours, (OptionCode.RELAY_MSG, request.encode()))
        return RelayMessage(
            MessageType.RELAY_FORW, 0, UNSPECIFIED, settings.endpoint, options
        ).encode()

    def reply(self, data: bytes) -> Reply | OwnReply:
        """Take a server's datagram apart (RFC 9915 section 19.2)."""
        message = parse(data)
        if not isinstance(message, RelayMessage) or message.type != MessageType.RELAY_REPL:
            raise Discard("message-type")
        inner = first(message.options, OptionCode.RELAY_MSG)
        if not inner:
            raise WireError("missing", "no Relay Message option")
        if message.peer_address == self._settings.endpoint:
            return self._own(message, inner)
        link = self._link(message)
        if link is None:
            raise Discard("link")
        if not is_unicast(message.peer_address):
            raise Discard("peer-address")
        relayed = inner[0] == MessageType.RELAY_REPL
        identity, node, transaction_id, suboptions, fault = None, None, b"", None, None
        try:
            suboptions = dmm.from_options(self._settings.enterprise, message.options)
            unwrapped = unwrap(inner)
            identity = _identity(unwrapped.client)
            node = _node(message.peer_address, unwrapped)
            transaction_id = unwrapped.client.transaction_id
        except WireError as error:
            fault = error.reason
        port = SERVER_PORT if relayed else CLIENT_PORT
        return Reply(
            link,
            message.peer_address,
            port,
            inner,
            identity,
            node,
            transaction_id,
            suboptions,
            fault,
        )

    def _own(self, message: RelayMessage, inner: bytes) -> OwnReply:
        answer = parse(inner)
        if not isinstance(answer, ClientMessage) or answer.type != MessageType.REPLY:
            raise Discard("message-type")
        if first(answer.options, OptionCode.CLIENTID) != self._settings.relay_id:
            raise Discard("client-id")
        suboptions = dmm.from_options(self._settings.enterprise, message.options)
        return OwnReply(answer.transaction_id, suboptions)

    def _link(self, message: RelayMessage) -> AccessLink | None:
        interface_id = first(message.options, OptionCode.INTERFACE_ID)
        if interface_id is not None:
            return self._by_interface_id.get(interface_id)
        return self._by_link_address.get(message.link_address)


def _identity(client: ClientMessage) -> Identity | None:
    """The client's DUID."""
    client_id = first(client.options, OptionCode.CLIENTID)
    return Identity.of(IdentitySubtype.DUID, client_id) if client_id is not None else None


def _node(peer: bytes, unwrapped: Unwrapped) -> bytes | None:
    """The client's link-local address if it is on our link; `peer` is who sent us, or is sent, the
    message.

    Behind a Lightweight DHCPv6 Relay Agent, whose link-address is 0 (RFC 6221), the client is on
    our link; behind any other relay agent there is a router between us.
    """
    for level in unwrapped.relays:
        peer = level.peer_address if level.link_address == UNSPECIFIED else UNSPECIFIED
    return peer if is_link_local(peer) else None


def hardware_type_of(link_layer: bytes) -> int:
    """IANA's hardware type: Ethernet, or EUI-64 for 8 octets."""
    return ETHERNET if len(link_layer) == 6 else 27
