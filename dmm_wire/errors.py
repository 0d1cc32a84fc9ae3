"""The one error that every decoder and encoder of this package raises."""

from __future__ import annotations


class WireError(ValueError):
    """Bytes that do not follow their format, or a value that the format cannot carry.

    `reason` is a short slug, made to be the name of a counter:

    ============== =============================================================================
    truncated      the data ends inside a header, an option or a message
    length         a length field, or a field's size, that the format does not allow
    prefix-length  a prefix length above 128
    range          a number that does not fit its field
    type           a message type that is not expected here
    hop-count      more relay agents than HOP_COUNT_LIMIT permits
    missing        an option without which the message means nothing
    duplicate      an option that may appear only once
    identifier     a mobile node identifier whose size contradicts its subtype
    checksum       a Mobility Header with a bad checksum
    payload-proto  a Mobility Header whose payload protocol is not IPPROTO_NONE
    binding-error  a Binding Error where an update or an acknowledgement was expected
    authentication an authentication option that is not the one and the last (RFC 4285 section 5)
    text           text (an address, a prefix, an identifier) that cannot be read
    ============== =============================================================================

    `value` is the offending number where one is of use to the caller (the MH Type for `type`),
    otherwise None.
    """

    def __init__(self, reason: str, detail: str = "", value: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.value = value
