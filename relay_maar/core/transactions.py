"""The clients' messages that are with the servers: in which order they came, and from which frame.

A Relay-reply brings back the client's address and transaction id, not the link-layer address of the
frame that the client's message came in, which belongs to this message and to no other from that
address.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

_MOST: Final = 4096
"""Messages remembered; the least recent goes first."""


class Heard(NamedTuple):
    """A client's message: the link-layer address it came from, None if not known, and its running
    number."""

    link_layer: bytes | None
    number: int


NOT_HEARD: Final = Heard(None, 0)
"""A message that is not remembered, or came to an earlier process."""


class Transactions:
    """By interface, link-local address of the client, and transaction id."""

    def __init__(self) -> None:
        self._heard: OrderedDict[tuple[str, bytes, bytes], Heard] = OrderedDict()
        self._count = 0

    def came(
        self, interface: str, node: bytes, transaction_id: bytes, link_layer: bytes | None
    ) -> None:
        """A client's message came, for the first time or again. Who sends one with the transaction
        id of another's does not get its reply: the first link-layer address counts."""
        key = (interface, node, transaction_id)
        known = self._heard.get(key)
        if known is not None and known.link_layer not in (None, link_layer):
            return
        self._heard[key] = Heard(link_layer, self.next_number())
        self._heard.move_to_end(key)
        if len(self._heard) > _MOST:
            self._heard.popitem(last=False)

    def next_number(self) -> int:
        """The running number of what shows a node without being a message of its own."""
        self._count += 1
        return self._count

    def find(self, interface: str, node: bytes, transaction_id: bytes) -> Heard:
        """The message that this transaction id stands for."""
        return self._heard.get((interface, node, transaction_id), NOT_HEARD)
