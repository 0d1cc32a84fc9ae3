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
    RelayMessage,
    Unwrapped,
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
_RELAY_ID = int(OptionCode.RELAY_ID)
_CLIENT_LINKLAYER_ADDR = int(OptionCode.CLIENT_LINKLAYER_ADDR)
_VENDOR_OPTS = int(OptionCode.VENDOR_OPTS)
_INFORMATION_REQUEST = int(MessageType.INFORMATION_REQUEST)

# RFC 9915 sections 16.2 to 16.12: which messages must (True) or must not (False) have a Server Identifier.
_SERVER_ID_RULE: Final[dict[int, bool | None]] = {
    int(MessageType.SOLICIT): False,
    int(MessageType.REQUEST): True,
    int(MessageType.CONFIRM): False,
    int(MessageType.RENEW): True,
    int(MessageType.REBIND): False,
    int(MessageType.RELEASE): True,
    int(MessageType.DECLINE): True,
    int(MessageType.INFORMATION_REQUEST): None,
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
    for _, _, link_address, peer_address, options in relays:
        relay_id: bytes | None = None
        link_layer: tuple[int, bytes] | None = None
        has_vendor = False
        for code, body in options:
            if code == _RELAY_ID:
                relay_id = relay_id or body
            elif code == _CLIENT_LINKLAYER_ADDR:
                if link_layer is None:
                    option = ClientLinkLayerAddress.decode(body)
                    link_layer = (option.hardware_type, option.address)
            elif code == _VENDOR_OPTS:
                has_vendor = True
        suboptions = dmm.from_options(enterprise, options) if has_vendor else None
        levels.append(
            RelayLevel(source, link_address, peer_address, relay_id, link_layer, suboptions)
        )
        source = peer_address
    return tuple(levels)


def _client(
    message: ClientMessage, levels: tuple[RelayLevel, ...], source: bytes, link: bytes
) -> BindingRequest:
    kind, transaction_id, options = message
    client_id: bytes | None = None
    server_id: bytes | None = None
    rapid_commit = False
    ias: list[tuple[bool, bytes]] = []
    for code, body in options:
        if code == _CLIENTID:
            client_id = body if client_id is None else client_id
        elif code == _SERVERID:
            server_id = body if server_id is None else server_id
        elif code == _RAPID_COMMIT:
            rapid_commit = True
        elif code == _IA_NA or code == _IA_PD:
            ias.append((code == _IA_PD, body))
    _validate(kind, client_id, server_id, bool(ias))
    return BindingRequest(
        kind,
        transaction_id,
        client_id,
        server_id,
        rapid_commit,
        _associations(ias) if ias else (),
        levels,
        source,
        link,
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


def _associations(options: list[tuple[bool, bytes]]) -> tuple[IaRequest, ...]:
    """The IAs in the data of IA_NA and (True) IA_PD options."""
    found: dict[tuple[bool, int], IaRequest] = {}
    for delegated, body in options:
        if len(body) < IA.size:
            code = _IA_PD if delegated else _IA_NA
            raise WireError("length", f"option {code} with {len(body)} octets", code)
        iaid: int = IA.unpack_from(body)[0]
        if (delegated, iaid) not in found:
            if len(found) == MAX_IAS:
                raise Rejected("too-many-ias")
            hints: tuple[LeaseHint, ...] = ()
            if len(body) > IA.size:
                hints = _prefixes(body) if delegated else _addresses(body)
            found[delegated, iaid] = IaRequest(iaid, delegated, hints)
    return tuple(found.values())


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
