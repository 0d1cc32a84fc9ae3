"""As which router a MAAR shows itself to hosts.

RFC 6543 has one identity for a whole domain. RFC 8885 section 3.7 has one for each anchor, which follows the node: the
S-MAAR shows itself by a logical interface (DLIF) for each anchor, with the addresses of that anchor, which it is told
where it is told of the anchor. Where they come from is out of the RFC's scope: here an operator chooses them, or they
follow from the anchor's tunnel endpoint, by which anchors are named.
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


ETHERNET: Final = 1
"""IANA's hardware type of the link-layer addresses here."""

_PREFIX: Final = b"\xfe\x80" + bytes(6)
"""RFC 4291 section 2.5.6: the 54 bits after fe80::/10 are zero."""


@lru_cache(maxsize=4096)
def of_anchor(endpoint: bytes) -> RouterIdentity:
    """The identity of the MAAR with that tunnel endpoint, unless somebody chose another: a locally administered EUI-48
    out of a hash, and the link-local address that is made of it. Of 1,000 MAARs two are alike once in 10^8 domains."""
    octets = hashlib.sha256(b"RFC 8885 DLIF" + endpoint).digest()
    link_layer = bytes((octets[0] & 0xFC | 0x02,)) + octets[1:6]
    return RouterIdentity(link_local_of(link_layer), link_layer)


def chosen(
    endpoint: bytes, link_local: bytes | None = None, link_layer: bytes | None = None
) -> RouterIdentity:
    """The identity of the MAAR with that tunnel endpoint, of which an operator chose both addresses, one or none: the
    link-layer address follows from the endpoint, the link-local one from the link-layer one."""
    if link_layer is None:
        link_layer = of_anchor(endpoint).link_layer
    return RouterIdentity(link_local or link_local_of(link_layer), link_layer)


def link_local_of(link_layer: bytes) -> bytes:
    """The link-local address with the modified EUI-64 of an EUI-48 (RFC 4291 appendix A)."""
    first, rest = link_layer[0] ^ 0x02, link_layer[1:]
    return _PREFIX + bytes((first,)) + rest[:2] + b"\xff\xfe" + rest[2:]


def fault(identity: RouterIdentity) -> str | None:
    """Which address of the two no router can have, `link-local` or `link-layer`: the former has to be a link-local one
    that is not that of all routers (RFC 4291 sections 2.5.6 and 2.6.1), the latter an individual EUI-48. None: both are
    right."""
    link_local, link_layer = identity
    if len(link_layer) != 6 or link_layer[0] & 0x01 or not any(link_layer):
        return "link-layer"
    if len(link_local) != 16 or link_local[:8] != _PREFIX or not any(link_local[8:]):
        return "link-local"
    return None
