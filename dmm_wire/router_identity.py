"""As which router a MAAR shows itself to hosts.

RFC 6543 has one identity for a whole domain. RFC 8885 section 3.7 has one for each anchor, which follows the node: the
S-MAAR shows itself by a logical interface (DLIF) for each anchor, with the addresses of that anchor. Where these
addresses come from is out of the RFC's scope. Here they follow from the anchor's tunnel endpoint, by which anchors are
named: so they are known in every mode, as soon as the anchor is.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, NamedTuple


class RouterIdentity(NamedTuple):
    """The addresses of a router on an access link, packed."""

    link_local: bytes
    link_layer: bytes


FIXED: Final = RouterIdentity(
    bytes.fromhex("fe8000000000000002005efffe005213"), bytes.fromhex("00005e005213")
)
"""The same at every MAAR (RFC 6543 sections 4.1 and 4.2)."""


@lru_cache(maxsize=4096)
def of_anchor(endpoint: bytes) -> RouterIdentity:
    """The identity of the MAAR with that tunnel endpoint: a locally administered EUI-48 out of a hash, and the
    link-local address that is made of it (RFC 4291 appendix A). Of 1,000 MAARs two are alike once in 10^8 domains."""
    octets = hashlib.sha256(b"RFC 8885 DLIF" + endpoint).digest()
    link_layer = bytes((octets[0] & 0xFC | 0x02,)) + octets[1:6]
    interface_id = bytes((link_layer[0] ^ 0x02,)) + link_layer[1:3] + b"\xff\xfe" + link_layer[3:6]
    return RouterIdentity(b"\xfe\x80" + bytes(6) + interface_id, link_layer)
