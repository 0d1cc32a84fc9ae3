"""Messages as clients and MAARs send them, made with dmm_wire."""

from __future__ import annotations

from collections.abc import Sequence

from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, Options, RelayMessage, Unwrapped, first, unwrap
from dmm_wire.dhcpv6.options import (
    ClientLinkLayerAddress,
    ElapsedTime,
    IaNa,
    IaPd,
    IaPrefix,
    OptionRequest,
)

ENTERPRISE = dmm.DEFAULT_ENTERPRISE
SERVER_DUID = bytes.fromhex("0002") + (32473).to_bytes(4, "big") + b"cmd"
CLIENT_DUID = bytes.fromhex("00030001020000000001")
CLIENT_MAC = bytes.fromhex("020000000001")
LINK_LOCAL = parse_address("fe80::2:1")

CLIENT_ID = (int(OptionCode.CLIENTID), CLIENT_DUID)
SERVER_ID = (int(OptionCode.SERVERID), SERVER_DUID)
ELAPSED = ElapsedTime(0).encode()
RAPID_COMMIT = (int(OptionCode.RAPID_COMMIT), b"")
DNS_REQUESTED = OptionRequest((OptionCode.DNS_SERVERS,)).encode()


def client(
    kind: int, *options: tuple[int, bytes], xid: bytes = b"\x01\x02\x03", client_id: bool = True
) -> bytes:
    """A client's message with Client Identifier and `options`."""
    first_options = (CLIENT_ID,) if client_id else ()
    return ClientMessage(kind, xid, (*first_options, *options)).encode()


def solicit(*options: tuple[int, bytes], xid: bytes = b"\x01\x02\x03") -> bytes:
    """A Solicit for one IA_NA and one IA_PD, asking for DNS servers."""
    return client(MessageType.SOLICIT, ELAPSED, DNS_REQUESTED, ia_na(), ia_pd(), *options, xid=xid)


def ia_na(iaid: int = 1, options: Options = ()) -> tuple[int, bytes]:
    return IaNa(iaid, 0, 0, options).encode()


def ia_pd(iaid: int = 1, options: Options = ()) -> tuple[int, bytes]:
    return IaPd(iaid, 0, 0, options).encode()


def ia_prefix(text: str) -> tuple[int, bytes]:
    return IaPrefix(Prefix.parse(text), 0, 0).encode()


def relayed(
    message: bytes,
    *,
    link: str,
    endpoint: str,
    relay_id: bytes,
    interface_id: bytes = b"eth1",
    peer: bytes = LINK_LOCAL,
    link_layer: bytes | None = CLIENT_MAC,
    seen: Sequence[dmm.SubOption] = (),
) -> bytes:
    """The message in the Relay-forward of a MAAR, with its relay options; `seen` are DMM sub-options beside MAAR."""
    hardware = () if link_layer is None else (ClientLinkLayerAddress(1, link_layer).encode(),)
    capabilities = dmm.CAP_IPV6_IN_IPV6 | dmm.CAP_PMIPV6
    return forward(
        message,
        (int(OptionCode.INTERFACE_ID), interface_id),
        (int(OptionCode.RELAY_ID), relay_id),
        *hardware,
        dmm.to_option(ENTERPRISE, [dmm.Maar(parse_address(endpoint), capabilities), *seen]),
        link=link,
        peer=peer,
    )


def forward(
    message: bytes,
    *options: tuple[int, bytes],
    link: str,
    peer: bytes = LINK_LOCAL,
    hop_count: int = 0,
) -> bytes:
    """The message in a Relay-forward with these options."""
    return RelayMessage(
        MessageType.RELAY_FORW,
        hop_count,
        parse_address(link),
        peer,
        ((int(OptionCode.RELAY_MSG), message), *options),
    ).encode()


def reply_of(datagram: bytes) -> Unwrapped:
    """A server's answer taken apart, outermost Relay-reply first."""
    return unwrap(datagram)


def leases(reply: ClientMessage) -> dict[str, tuple[int, int]]:
    """Every address and prefix in a reply, with its preferred and valid lifetime."""
    from dmm_wire.dhcpv6.message import every
    from dmm_wire.dhcpv6.options import IaAddress

    found: dict[str, tuple[int, int]] = {}
    for body in every(reply.options, OptionCode.IA_NA):
        for lease in every(IaNa.decode(body).options, OptionCode.IAADDR):
            address = IaAddress.decode(lease)
            found[str(Prefix(address.address, 128))] = (address.preferred, address.valid)
    for body in every(reply.options, OptionCode.IA_PD):
        for lease in every(IaPd.decode(body).options, OptionCode.IAPREFIX):
            prefix = IaPrefix.decode(lease)
            found[str(prefix.prefix)] = (prefix.preferred, prefix.valid)
    return found


def option(options: Options, code: int) -> bytes:
    """The first option of that code, which has to be there."""
    body = first(options, code)
    assert body is not None, f"no option {code}"
    return body
