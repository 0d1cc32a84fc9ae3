"""From the bytes of a datagram to a `BindingRequest` (RFC 9915 sections 16, 19.3 and 21)."""

from __future__ import annotations

from typing import Final

from dhcp_cmd.core.errors import Rejected
from dhcp_cmd.core.model import BindingRequest, IaRequest, LeaseHint, RelayLevel
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import (
    ClientMessage,
    Options,
    RelayMessage,
    Unwrapped,
    first,
    parse_options,
    unwrap,
)
from dmm_wire.dhcpv6.options import IA, IA_ADDRESS, IA_PREFIX, ClientLinkLayerAddress
from dmm_wire.errors import WireError

MAX_IAS = 32
"""More IAs in one message than any client has use for; each would take a prefix from the pools."""
MAX_HINTS = 32
"""Leases named in one IA that are looked at; the rest are ignored."""

_DUID_SIZES: Final = range(3, 131)  # type code and identifier, RFC 9915 section 11.1

# Plain integers: this is the hot path.
_CLIENTID = int(OptionCode.CLIENTID)
_SERVERID = int(OptionCode.SERVERID)
_IA_NA = int(OptionCode.IA_NA)
_IA_PD = int(OptionCode.IA_PD)
_IAADDR = int(OptionCode.IAADDR)
_IAPREFIX = int(OptionCode.IAPREFIX)
_RAPID_COMMIT = int(OptionCode.RAPID_COMMIT)
_RELAY_FORW = int(MessageType.RELAY_FORW)
_INFORMATION_REQUEST = int(MessageType.INFORMATION_REQUEST)

# RFC 9915 sections 16.2 to 16.12: which messages must (True) or must not (False) have a Server Identifier.
_SERVER_ID_RULE: Final[dict[int, bool | None]] = {
    MessageType.SOLICIT: False,
    MessageType.REQUEST: True,
    MessageType.CONFIRM: False,
    MessageType.RENEW: True,
    MessageType.REBIND: False,
    MessageType.RELEASE: True,
    MessageType.DECLINE: True,
    MessageType.INFORMATION_REQUEST: None,
}


def read_request(
    data: bytes, source: bytes, enterprise: int, link: bytes = UNSPECIFIED
) -> BindingRequest:
    """Read a client's message with the relay levels around it, as `request_of`. Raises WireError, Rejected."""
    return request_of(unwrap(data), source, enterprise, link)


def request_of(
    unwrapped: Unwrapped, source: bytes, enterprise: int, link: bytes = UNSPECIFIED
) -> BindingRequest:
    """The request in a message and the relay levels around it.

    `source` is the UDP source address (16 octets), `enterprise` the number whose option 17 carries the DMM
    sub-options at a relay level, `link` an address of the link that a message without a relay came from. Unknown
    options are passed over (RFC 9915 section 16); of an option that may appear once, the first counts; IA_TA is
    ignored (section 21.5); an IAID that comes twice counts once. Whether a Server Identifier is this server's is for
    `decide`.

    Raises WireError for malformed bytes, Rejected for what section 16 has a server discard.
    """
    relays, client, _ = unwrapped
    if relays and relays[0].type != _RELAY_FORW:
        raise Rejected("message-type")
    return _client(client, _levels(relays, source, enterprise), source, link)


def _levels(
    relays: tuple[RelayMessage, ...], source: bytes, enterprise: int
) -> tuple[RelayLevel, ...]:
    levels = []
    for relay in relays:
        relay_id, link_layer = None, None
        for code, body in relay.options:
            if code == OptionCode.RELAY_ID:
                relay_id = relay_id or body
            elif code == OptionCode.CLIENT_LINKLAYER_ADDR and link_layer is None:
                option = ClientLinkLayerAddress.decode(body)
                link_layer = (option.hardware_type, option.address)
        levels.append(
            RelayLevel(
                source=source,
                link_address=relay.link_address,
                peer_address=relay.peer_address,
                relay_id=relay_id,
                link_layer=link_layer,
                suboptions=dmm.from_options(enterprise, relay.options),
            )
        )
        source = relay.peer_address
    return tuple(levels)


def _client(
    message: ClientMessage, levels: tuple[RelayLevel, ...], source: bytes, link: bytes
) -> BindingRequest:
    options = message.options
    client_id, server_id = first(options, _CLIENTID), first(options, _SERVERID)
    ias, rapid_commit = _associations(options)
    _validate(message.type, client_id, server_id, bool(ias))
    return BindingRequest(
        type=message.type,
        transaction_id=message.transaction_id,
        client_id=client_id,
        server_id=server_id,
        rapid_commit=rapid_commit,
        ias=ias,
        relays=levels,
        source=source,
        link=link,
    )


def _validate(kind: int, client_id: bytes | None, server_id: bytes | None, has_ias: bool) -> None:
    if kind not in _SERVER_ID_RULE:
        raise Rejected("message-type")
    if client_id is None:
        if kind != _INFORMATION_REQUEST:
            raise Rejected("no-client-id")
    elif len(client_id) not in _DUID_SIZES:
        raise Rejected("client-id")
    expected = _SERVER_ID_RULE[kind]
    if expected is not None and expected != (server_id is not None):
        raise Rejected("no-server-id" if expected else "server-id")
    if kind == _INFORMATION_REQUEST and has_ias:
        raise Rejected("unexpected-ia")


def _associations(options: Options) -> tuple[tuple[IaRequest, ...], bool]:
    """The IAs of a message, and whether it has a Rapid Commit option."""
    rapid_commit = False
    found: dict[tuple[bool, int], IaRequest] = {}
    for code, body in options:
        if code in (_IA_NA, _IA_PD):
            if len(body) < IA.size:
                raise WireError("length", f"option {code} with {len(body)} octets", code)
            iaid, delegated = IA.unpack_from(body)[0], code == _IA_PD
            if (delegated, iaid) not in found:
                if len(found) == MAX_IAS:
                    raise Rejected("too-many-ias")
                hints = _prefixes(body) if delegated else _addresses(body)
                found[delegated, iaid] = IaRequest(iaid, delegated, hints)
        elif code == _RAPID_COMMIT:
            rapid_commit = True
    return tuple(found.values()), rapid_commit


def _addresses(body: bytes) -> tuple[LeaseHint, ...]:
    hints: list[LeaseHint] = []
    for code, lease in parse_options(body, IA.size):
        if code == _IAADDR and len(hints) < MAX_HINTS:
            if len(lease) < IA_ADDRESS.size:
                raise WireError("length", f"option {code} with {len(lease)} octets", code)
            address, preferred, valid = IA_ADDRESS.unpack_from(lease)
            if any(address):
                hints.append(LeaseHint(Prefix(address, 128), preferred, valid))
    return tuple(hints)


def _prefixes(body: bytes) -> tuple[LeaseHint, ...]:
    hints: list[LeaseHint] = []
    for code, lease in parse_options(body, IA.size):
        if code == _IAPREFIX and len(hints) < MAX_HINTS:
            if len(lease) < IA_PREFIX.size:
                raise WireError("length", f"option {code} with {len(lease)} octets", code)
            preferred, valid, length, address = IA_PREFIX.unpack_from(lease)
            if length:
                hints.append(LeaseHint(Prefix.of(address, length), preferred, valid))
    return tuple(hints)
