"""As which routers the anchors of nodes are shown here (RFC 8885 section 3.7): what is said of their identities in
PREVIOUS_MAAR, and in the DLIF options (sections 4.7 and 4.8) of PBAs, and what of that is believed.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from dmm_wire.address import format_address, format_mac
from dmm_wire.mobility.routers import Said
from dmm_wire.router_identity import ETHERNET, FIXED, RouterIdentity, fault, of_anchor
from relay_maar.core.actions import Log

NOTHING: Final[Said] = (None, None)


def ethernet(link_layer: tuple[int, bytes] | None) -> bytes | None:
    """The address of a DLIF_LINK_LAYER; empty, and so refused, of another hardware type than ours."""
    if link_layer is None:
        return None
    hardware_type, address = link_layer
    return address if hardware_type == ETHERNET else b""


class Identities:
    """The identities of other anchors.

    Both the CMD and the anchor itself may say what its identity is. Where they differ the latest news counts: neither
    changes anything by repeating itself. What nobody has said follows from the anchor's endpoint.

    `own` is ours; None where all MAARs have the one of RFC 6543, and anchors are not told apart. What is refused is
    counted in `counters`.
    """

    def __init__(self, own: RouterIdentity | None, counters: Counter[str]) -> None:
        self._own = own
        self._counters = counters
        self._shown: dict[bytes, RouterIdentity] = {}
        self._anchors: dict[bytes, bytes] = {}
        """By each address of these, whose it is."""
        self._words: dict[tuple[bytes, bool], RouterIdentity] = {}
        """What was said last of an anchor, by itself or by the CMD."""
        self._changed: dict[bytes, None] = {}
        self._remarks: list[Log] = []

    def of(self, anchor: bytes) -> RouterIdentity | None:
        """As which router this anchor is shown; None where anchors are not told apart."""
        if self._own is None:
            return None
        shown = self._shown.get(anchor)
        return self._show(anchor, of_anchor(anchor)) if shown is None else shown

    def is_a_routers(self, link_local: bytes) -> bool:
        """Whether a router that is shown here has this address: then no node has."""
        return link_local == (self._own or FIXED).link_local or link_local in self._anchors

    def told(self, anchor: bytes, said: Said, *, by_itself: bool = False) -> RouterIdentity | None:
        """As :meth:`of`, after this was said of the anchor, `by_itself` or by the CMD."""
        if self._own is None or said == NOTHING:
            return self.of(anchor)
        link_local, link_layer = said
        if link_local is None or link_layer is None:
            return self._refused(anchor, "incomplete")
        identity = RouterIdentity(link_local, link_layer)
        if self._words.get((anchor, by_itself)) == identity:
            return self.of(anchor)
        reason = fault(identity) or self._conflict(anchor, identity)
        if reason is not None:
            return self._refused(anchor, reason)
        self._words[anchor, by_itself] = identity
        if self._words.get((anchor, not by_itself), identity) != identity:
            self._counters["router.differs"] += 1
            line = f"maar {format_address(anchor)} and the CMD do not agree as which router it is shown"
            at = f"{format_address(link_local)} {format_mac(link_layer)}"
            self._remarks.append(Log("warning", f"{line}: now as {at}"))
        if identity != self.of(anchor):
            self._changed[anchor] = None
        return self._show(anchor, identity)

    def restore(self, anchor: bytes, identity: RouterIdentity | None) -> RouterIdentity | None:
        """As :meth:`of`, of an anchor that an earlier process showed so (None: not at all)."""
        if identity is None or self._own is None or anchor in self._shown:
            return self.of(anchor)
        is_wrong = fault(identity) or self._conflict(anchor, identity)
        return self.of(anchor) if is_wrong else self._show(anchor, identity)

    def changed(self) -> list[bytes]:
        """The anchors that are others to hosts now than when this was last asked."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def remarks(self) -> list[Log]:
        """What an operator should hear of, each once."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def _conflict(self, anchor: bytes, identity: RouterIdentity) -> str | None:
        if self._own is not None and not set(identity).isdisjoint(self._own):
            return "own"
        taken = any(self._anchors.get(address, anchor) != anchor for address in identity)
        return "taken" if taken else None

    def _refused(self, anchor: bytes, reason: str) -> RouterIdentity | None:
        self._counters[f"router.refused-{reason}"] += 1
        return self.of(anchor)

    def _show(self, anchor: bytes, identity: RouterIdentity) -> RouterIdentity:
        for address in self._shown.get(anchor, ()):
            if self._anchors.get(address) == anchor:
                del self._anchors[address]
        self._shown[anchor] = identity
        for address in identity:
            self._anchors.setdefault(address, anchor)
        return identity
