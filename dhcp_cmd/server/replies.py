"""The octets of an answer: the client's message, and around it a Relay-reply for each relay level it came through
(RFC 9915 section 19.3)."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import Options, RelayMessage, encode_options, first
from dmm_wire.errors import WireError

_RELAY_REPL: Final = int(MessageType.RELAY_REPL)
_RELAY_MSG: Final = int(OptionCode.RELAY_MSG)
_INTERFACE_ID: Final = int(OptionCode.INTERFACE_ID)
_ERO: Final = int(OptionCode.ERO)
_CLIENTID: Final = int(OptionCode.CLIENTID)

_header: Final = Struct("!BB16s16s").pack
_option: Final = Struct("!HH").pack

MAX_OPTION = 0xFFFF
"""Octets in one option: what a relay level around an answer can hold."""


def encode_client(
    kind: int,
    transaction_id: bytes,
    client_id: bytes | None,
    server_id: bytes,
    options: Options,
    static: bytes,
) -> bytes:
    """A message to the client: its own identifier, ours (`server_id`, the encoded option), what was decided and what
    the operator adds (`static`, encoded)."""
    own = (
        b"" if client_id is None else _option(_CLIENTID, len(client_id)) + client_id
    )  # RFC 9915 section 18.3.9
    return b"".join(
        (bytes((kind,)), transaction_id, own, server_id, encode_options(options), static)
    )


def encode_relayed(
    relays: Sequence[RelayMessage],
    message: bytes,
    level: int | None,
    dmm_option: tuple[int, bytes] | None,
    echoes: Sequence[int],
) -> bytes:
    """Put `message` into Relay-replies that mirror `relays`, outermost first.

    Each has the Interface-Id of its Relay-forward, the options of the codes in `echoes`, and those that the relay agent
    asks back (RFC 4994). `dmm_option` goes to the index `level`. Raises WireError `length` for a message that does not
    fit into an option.
    """
    for index in range(len(relays) - 1, -1, -1):
        relay = relays[index]
        if len(message) > MAX_OPTION:
            raise WireError("length", f"an answer of {len(message)} octets")
        parts = [_header(_RELAY_REPL, relay.hop_count, relay.link_address, relay.peer_address)]
        echo_request: bytes | None = None
        own = dmm_option if index == level else None
        for code, body in relay.options:
            if code == _INTERFACE_ID or code in echoes:
                parts += (_option(code, len(body)), body)
            elif code == _ERO and echo_request is None and not len(body) % 2:
                echo_request = body
        if own is not None:
            parts.append(encode_options((own,)))
        if echo_request is not None:
            parts.append(_echoed(relay.options, echo_request, own, echoes))
        parts += (_option(_RELAY_MSG, len(message)), message)
        message = b"".join(parts)
    return message


def _echoed(
    options: Options, echo_request: bytes, own: tuple[int, bytes] | None, echoes: Sequence[int]
) -> bytes:
    """What an Echo Request option asks for and is not there already (RFC 4994 section 5)."""
    there = {_RELAY_MSG, _INTERFACE_ID, *echoes}
    if own is not None:
        there.add(own[0])
    asked = dict.fromkeys(
        int.from_bytes(echo_request[i : i + 2], "big") for i in range(0, len(echo_request), 2)
    )
    return b"".join(
        encode_options(tuple(option for option in options if option[0] == code))
        for code in asked
        if code not in there and first(options, code) is not None
    )
