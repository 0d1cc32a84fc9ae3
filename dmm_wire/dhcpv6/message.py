"""DHCPv6 messages: a fixed header and raw options, kept as they came.

Options stay `(code, octets)` pairs in their order, so that unknown ones survive, encoding what was
parsed gives the same octets, and a busy server pays for no object it does not look at. What an
option means is `dmm_wire.dhcpv6.options`' business.
"""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import NamedTuple

from dmm_wire.address import checked
from dmm_wire.dhcpv6.codes import HOP_COUNT_LIMIT, MessageType, OptionCode
from dmm_wire.errors import WireError

Options = tuple[tuple[int, bytes], ...]
"""Options in their order, each as its code and its data."""

# Plain integers: comparing with an enum member costs the hot path a little each time.
_RELAY_TYPES = (int(MessageType.RELAY_FORW), int(MessageType.RELAY_REPL))
_RELAY_MSG = int(OptionCode.RELAY_MSG)

OPTION_HEADER = Struct("!HH")
"""Of every option: code, octets of data. For who reads or writes options without objects."""
_RELAY_HEADER = Struct("!BB16s16s")
_option_header = OPTION_HEADER.unpack_from
_relay_header = _RELAY_HEADER.unpack_from


class ClientMessage(NamedTuple):
    """A message between client and server (RFC 9915 section 8).

    `type` is any message type except the two of relay agents, known or not: a relay agent also
    relays what it does not recognise (RFC 9915 section 19.1). `transaction_id` has 3 octets.
    """

    type: int
    transaction_id: bytes
    options: Options = ()

    def encode(self) -> bytes:
        """The message's octets. Raises WireError `length` or `range`."""
        if len(self.transaction_id) != 3:
            raise WireError("length", f"a transaction-id of {len(self.transaction_id)} octets")
        if not 0 <= self.type <= 255:
            raise WireError("range", f"message type {self.type}", self.type)
        return bytes((self.type,)) + self.transaction_id + encode_options(self.options)


class RelayMessage(NamedTuple):
    """A Relay-forward or Relay-reply message (RFC 9915 section 9); addresses have 16 octets."""

    type: int
    hop_count: int
    link_address: bytes
    peer_address: bytes
    options: Options = ()

    def encode(self) -> bytes:
        """The message's octets. Raises WireError `length` or `range`."""
        link_address, peer_address = checked(self.link_address), checked(self.peer_address)
        try:
            header = _RELAY_HEADER.pack(self.type, self.hop_count, link_address, peer_address)
        except struct_error:
            raise WireError("range", f"type {self.type}, hop-count {self.hop_count}") from None
        return header + encode_options(self.options)


class Unwrapped(NamedTuple):
    """A message taken out of the relay agents' messages around it.

    `relays` are the relay levels, outermost (the relay agent nearest the server) first, empty for
    a message that came without one. `client_bytes` is the client's message as it was relayed.
    """

    relays: tuple[RelayMessage, ...]
    client: ClientMessage
    client_bytes: bytes


def parse_options(data: bytes, offset: int = 0) -> Options:
    """The options in `data` from `offset` to its end (RFC 9915 section 21.1).

    Raises WireError `truncated` where an option's header or data is cut short.
    """
    options = []
    end = len(data)
    while offset < end:
        start = offset + 4
        if start > end:
            raise WireError("truncated", "an option header is cut short")
        code, length = _option_header(data, offset)
        offset = start + length
        if offset > end:
            raise WireError("truncated", f"option {code} is cut short", code)
        options.append((code, data[start:offset]))
    return tuple(options)


def encode_options(options: Options) -> bytes:
    """The octets of `options`. Raises WireError `range` for what 16 bits cannot say."""
    parts = []
    pack = OPTION_HEADER.pack
    for code, body in options:
        try:
            parts.append(pack(code, len(body)))
        except struct_error:
            raise WireError("range", f"option {code} with {len(body)} octets", code) from None
        parts.append(body)
    return b"".join(parts)


def parse(data: bytes) -> ClientMessage | RelayMessage:
    """Read one message; what a Relay Message option holds is left alone. See `unwrap`.

    Raises WireError `truncated`.
    """
    if not data:
        raise WireError("truncated", "an empty message")
    return _parse_relay(data) if data[0] in _RELAY_TYPES else _parse_client(data)


def unwrap(data: bytes) -> Unwrapped:
    """Read a message and everything relayed in it, down to the client's message.

    The first relay agent sends hop-count 0 and one that receives HOP_COUNT_LIMIT discards the
    message (RFC 9915 section 19.1.2), so at most HOP_COUNT_LIMIT + 1 levels can be there.

    Raises WireError `truncated`; `missing` for a relay level without a Relay Message option;
    `hop-count` for a hop-count above HOP_COUNT_LIMIT or too many levels; `type` for a Relay-reply
    in a Relay-forward or the reverse, which no relay agent makes.
    """
    if not data or data[0] not in _RELAY_TYPES:
        return Unwrapped((), _parse_client(data), data)
    relays: list[RelayMessage] = []
    for _ in range(HOP_COUNT_LIMIT + 1):
        relay = _parse_relay(data)
        if relay.hop_count > HOP_COUNT_LIMIT:
            break
        relays.append(relay)
        inner = first(relay.options, _RELAY_MSG)
        if inner is None:
            raise WireError("missing", "no Relay Message option")
        data = inner
        if not data or data[0] not in _RELAY_TYPES:
            return Unwrapped(tuple(relays), _parse_client(data), data)
        if data[0] != relay.type:
            raise WireError("type", f"message type {data[0]} in {relay.type}", data[0])
    raise WireError("hop-count", f"relayed more than {HOP_COUNT_LIMIT} times")


def peek_type(data: bytes) -> int | None:
    """The type of the client's message in `data`, below any relay agents' messages; None where there is none.

    It looks at no more than it needs, and so says nothing of whether the message can be read.
    """
    start, end = 0, len(data)
    while start < end:
        kind = data[start]
        if kind not in _RELAY_TYPES:
            return kind
        option = start + _RELAY_HEADER.size
        start = end
        while option + 4 <= end:
            code, length = _option_header(data, option)
            if code == _RELAY_MSG:
                start = option + 4
                end = min(end, start + length)
                break
            option += 4 + length
    return None


def first(options: Options, code: int) -> bytes | None:
    """The data of the first option with this code, None if there is none."""
    for option_code, body in options:
        if option_code == code:
            return body
    return None


def every(options: Options, code: int) -> list[bytes]:
    """The data of each option with this code, in order."""
    return [body for option_code, body in options if option_code == code]


def _parse_client(data: bytes) -> ClientMessage:
    if len(data) < 4:
        raise WireError("truncated", f"a message of {len(data)} octets")
    return ClientMessage(data[0], data[1:4], parse_options(data, 4))


def _parse_relay(data: bytes) -> RelayMessage:
    if len(data) < 34:
        raise WireError("truncated", f"a relay agent's message of {len(data)} octets")
    message_type, hop_count, link_address, peer_address = _relay_header(data)
    return RelayMessage(
        message_type, hop_count, link_address, peer_address, parse_options(data, 34)
    )
