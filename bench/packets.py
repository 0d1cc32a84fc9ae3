"""What our own generator sends: datagrams that differ in few octets only, so that they are encoded once.

A node is a number. Its link-layer address and DUID follow from it.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.domain import MAARS, PLAIN, Place
from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage
from dmm_wire.dhcpv6.options import ClientLinkLayerAddress, ElapsedTime, IaNa, IaPd, IaPrefix

ENTERPRISE = dmm.DEFAULT_ENTERPRISE
SERVER_IDENTIFIER = b"bench"
SERVER_DUID = b"\x00\x02" + ENTERPRISE.to_bytes(4, "big") + SERVER_IDENTIFIER
ATTACH_AGE = 5
"""Milliseconds between the attach and the message that tells of it."""

_NO_PREFIX = bytes(8)
_HARDWARE_ETHERNET = 1
_HANDOFF_BETWEEN_ROUTERS = 3  # RFC 5213 section 8.4: between two MAGs, the same interface
_ACCESS_802_11 = 4


def mac(node: int) -> bytes:
    """The node's link-layer address: locally administered."""
    return b"\x02\xbe" + node.to_bytes(4, "big")


def duid(node: int) -> bytes:
    """The node's DUID: a DUID-LL (RFC 9915 section 11.4)."""
    return b"\x00\x03\x00\x01" + mac(node)


def transaction_id(number: int) -> bytes:
    """The transaction id of the generator's message with this number; they repeat after 16 million."""
    return (number & 0xFFFFFF).to_bytes(3, "big")


class Template:
    """A datagram with places for transaction id, link-layer address and prefix (the 8 octets of a /64).

    `encode` is called with values for them; each must be found in what it returns, or be of no concern to it.
    """

    _SAMPLES = (b"\xa5\x5a\xa6", b"\x02\xbe\xa7\x7a\xa8\x8a", bytes(range(0xB0, 0xB8)))

    def __init__(self, encode: Callable[[bytes, bytes, bytes], bytes]) -> None:
        pieces = encode(*self._SAMPLES).replace(b"%", b"%%")
        places: list[tuple[int, int]] = []
        for index, sample in enumerate(self._SAMPLES):
            start = pieces.find(sample)
            while start >= 0:
                places.append((start, index))
                start = pieces.find(sample, start + 1)
        self._order = [index for _, index in sorted(places)]
        for sample in self._SAMPLES:
            pieces = pieces.replace(sample, b"%b")
        self._format = pieces

    def fill(self, xid: bytes, mac: bytes, prefix: bytes = _NO_PREFIX) -> bytes:
        """The datagram with these values."""
        values = (xid, mac, prefix)
        return self._format % tuple(values[index] for index in self._order)


def client_message(
    kind: int, xid: bytes, mac: bytes, prefix: bytes | None, *options: tuple[int, bytes]
) -> bytes:
    """A client's message with one IA_PD (IAID 1), which names a /64 if `prefix` (its 8 octets) is given."""
    held = () if prefix is None else (IaPrefix(Prefix(prefix + bytes(8), 64), 0, 0).encode(),)
    return ClientMessage(
        kind,
        xid,
        (
            (int(OptionCode.CLIENTID), b"\x00\x03\x00\x01" + mac),
            ElapsedTime(0).encode(),
            *options,
            IaPd(1, 0, 0, held).encode(),
        ),
    ).encode()


def through_maar(place: Place, mac: bytes, message: bytes) -> bytes:
    """The message as a MAAR relays it: with Relay-ID, Interface-Id, the client's link-layer address, MAAR and
    ATTACHMENT.
    """
    relay_id = b"\x00\x02" + ENTERPRISE.to_bytes(4, "big") + place.name.encode()
    return RelayMessage(
        MessageType.RELAY_FORW,
        0,
        parse_address(place.link_address),
        _link_local(mac),
        (
            (int(OptionCode.RELAY_MSG), message),
            (int(OptionCode.INTERFACE_ID), b"access"),
            (int(OptionCode.RELAY_ID), relay_id),
            ClientLinkLayerAddress(_HARDWARE_ETHERNET, mac).encode(),
            dmm.to_option(
                ENTERPRISE,
                [
                    dmm.Maar(place.source, dmm.CAP_IPV6_IN_IPV6 | dmm.CAP_PMIPV6),
                    dmm.Attachment(
                        ATTACH_AGE,
                        _HANDOFF_BETWEEN_ROUTERS,
                        _ACCESS_802_11,
                        _HARDWARE_ETHERNET,
                        mac,
                    ),
                ],
            ),
        ),
    ).encode()


def through_relay(mac: bytes, message: bytes) -> bytes:
    """The message as perfdhcp's relay agent sends it, which knows nothing of mobility."""
    return RelayMessage(
        MessageType.RELAY_FORW,
        1,
        PLAIN.source,
        PLAIN.source,
        ((int(OptionCode.RELAY_MSG), message),),
    ).encode()


def _link_local(mac: bytes) -> bytes:
    return bytes.fromhex("fe80000000000000") + b"\x00\x00" + mac


def bound_first(place: Place) -> Template:
    """A Solicit with Rapid Commit through a MAAR: how nodes are bound before a measurement."""
    rapid = (int(OptionCode.RAPID_COMMIT), b"")
    return Template(
        lambda xid, mac, _: through_maar(
            place, mac, client_message(MessageType.SOLICIT, xid, mac, None, rapid)
        )
    )


def rebinds() -> list[Template]:
    """A Rebind through each of the MAARs, in their order."""
    return [_through(place, MessageType.REBIND) for place in MAARS]


def renews() -> list[Template]:
    """A Renew through each of the MAARs, in their order."""
    server_id = (int(OptionCode.SERVERID), SERVER_DUID)
    return [_through(place, MessageType.RENEW, server_id) for place in MAARS]


def _through(place: Place, kind: int, *options: tuple[int, bytes]) -> Template:
    return Template(
        lambda xid, mac, prefix: through_maar(
            place, mac, client_message(kind, xid, mac, prefix, *options)
        )
    )


def rapid_solicit(delegated: bool, relayed: bool) -> Template:
    """A Solicit with Rapid Commit of a client that nobody knows, for an IA_PD or an IA_NA."""

    def encode(xid: bytes, mac: bytes, _: bytes) -> bytes:
        ia = IaPd(1, 0, 0).encode() if delegated else IaNa(1, 0, 0).encode()
        message = ClientMessage(
            MessageType.SOLICIT,
            xid,
            (
                (int(OptionCode.CLIENTID), b"\x00\x03\x00\x01" + mac),
                ElapsedTime(0).encode(),
                (int(OptionCode.RAPID_COMMIT), b""),
                ia,
            ),
        ).encode()
        return through_relay(mac, message) if relayed else message

    return Template(encode)
