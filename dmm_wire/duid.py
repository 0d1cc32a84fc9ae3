"""DUIDs that this project makes itself."""

from __future__ import annotations


def named_duid(enterprise: int, name: str) -> bytes:
    """The DUID-EN (RFC 9915 section 11.3) of a MAAR that the operator only gave a name.

    The CMD and the MAAR derive the same one, so that a name is all they have to agree on. `enterprise` is a 32-bit
    enterprise number, `name` 1 to 124 octets in UTF-8, so that the DUID stays within 130 (RFC 9915 section 11.1).
    Raises ValueError outside these ranges.
    """
    identifier = name.encode()
    if not 1 <= len(identifier) <= 124:
        raise ValueError(f"a MAAR's name has 1 to 124 octets, not {len(identifier)}")
    if not 0 <= enterprise <= 0xFFFFFFFF:
        raise ValueError(f"an enterprise number has 32 bits: {enterprise}")
    return b"\x00\x02" + enterprise.to_bytes(4, "big") + identifier
