"""The ICMPv6 errors that our encapsulated packets meet, for a driver whose kernel relays none.

The kernel's segment routing encapsulates before it looks at the MTU: its own Packet Too Big, like that of any router
between the MAARs, goes to the source of the outer packet, the tunnel endpoint, and ends there.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Mapping

from dmm_wire.address import format_address
from relay_maar.core.items import Item, Key
from relay_maar.core.tunnel_errors import RELAYED, Dropped, relay

AT_ONCE = 16
"""Errors relayed in one call. Senders need one each; what floods us waits, or is lost."""
_IPV6_FREEBIND = 78
_ICMP6_FILTER = 1
_FILTER = struct.Struct("=8I")
_EVERY_TYPE = (0xFFFFFFFF,) * 8
_BUFFER = 1 << 16
_LARGEST = 2048


class TunnelErrors:
    """Hears the errors sent to the tunnel endpoint, and tells the senders. Raises OSError."""

    def __init__(self, endpoint: bytes) -> None:
        self._endpoint = endpoint
        self._in = _raw()
        self._out = _raw()
        try:
            # A bit that is set blocks that type.
            blocked = _EVERY_TYPE[0] ^ sum(1 << kind for kind in RELAYED), *_EVERY_TYPE[1:]
            self._in.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _FILTER.pack(*blocked))
            self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._in.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            self._in.bind((format_address(endpoint), 0))
            # Bound to nothing: the source is one of this router's own addresses, as of all its errors.
            self._out.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _FILTER.pack(*_EVERY_TYPE))
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when there are errors."""
        return self._in.fileno()

    def close(self) -> None:
        """Idempotent."""
        self._in.close()
        self._out.close()

    def relay(self, items: Mapping[Key, Item]) -> Counter[str]:
        """Relay some of those that wait; counted by what became of them."""
        counts: Counter[str] = Counter()
        for _ in range(AT_ONCE):
            try:
                error = self._in.recv(_LARGEST)
            except OSError:
                break
            counts[self._relay(error, items)] += 1
        return counts

    def _relay(self, error: bytes, items: Mapping[Key, Item]) -> str:
        try:
            told = relay(error, self._endpoint, items)
            self._out.sendto(told.message, (format_address(told.destination), 0))
        except Dropped as dropped:
            return dropped.reason
        except OSError as problem:
            return f"unsent-{errno.errorcode.get(problem.errno or 0, 'error')}"
        return told.what


def _raw() -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    made.setblocking(False)
    return made
