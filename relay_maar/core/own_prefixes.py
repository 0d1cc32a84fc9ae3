"""A MAAR that chooses the prefix of a node itself, out of a pool of its own (RFC 8885 section 3.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from dmm_wire.address import Prefix

LENGTH: Final = 64
"""Of what a node makes its addresses in (RFC 4862 section 5.5.3)."""
MOST_REFUSED: Final = 3
"""Choices that the CMD may refuse before it is asked to choose."""
_TRIES: Final = 8


class OwnPrefixes:
    """Chooses out of `pool`. By a hash with a secret key, so that nobody tells from a prefix whose it is, and a node
    that the CMD did not answer gets no other one each time. `is_free` says whether no node here has a prefix."""

    def __init__(self, pool: Prefix, secret: bytes, is_free: Callable[[Prefix], bool]) -> None:
        self._pool = pool
        self._secret = secret
        self._is_free = is_free

    def choose(self, link_layer: bytes, refused: int) -> Prefix | None:
        """One for the node with this link-layer address, after so many that were refused; None where the CMD had better
        choose: it has refused too many, or there is hardly a free one."""
        if refused >= MOST_REFUSED:
            return None
        first = int.from_bytes(self._pool.address, "big")
        for number in range(_TRIES):
            what = bytes((refused, number)) + link_layer
            digest = hashlib.blake2b(what, digest_size=8, key=self._secret).digest()
            unit = int.from_bytes(digest, "big") >> self._pool.length
            address = first | unit << (128 - LENGTH)
            prefix = Prefix(address.to_bytes(16, "big"), LENGTH)
            if self._is_free(prefix):
                return prefix
        return None
