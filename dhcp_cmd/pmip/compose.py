"""What a PBU to a MAAR says, made of the node's rows: always the full and the latest set (docs/protocol.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from dhcp_cmd.core.identity import mobile_node
from dhcp_cmd.core.lifetime import NEVER, end_of
from dhcp_cmd.core.model import MICROS, Binding, Domain, Kind, MaarId, Micros, Node, State
from dmm_wire.mobility import AccessTechnologyValue
from dmm_wire.mobility.serving import Notice, lifetime_of

ACCESS_TECHNOLOGY: Final = int(AccessTechnologyValue.VIRTUAL)
"""RFC 5213 asks for one; what a node is attached by is not in its rows, and matters to no P-MAAR."""


class Letter(NamedTuple):
    """A PBU's content and the endpoint it is for."""

    peer: bytes
    notice: Notice


def compose(
    maar: MaarId,
    node: Node,
    bindings: Iterable[Binding],
    domain: Domain,
    now: Micros,
    *,
    moved: bool,
) -> Letter | None:
    """What `maar` is to be told of the node at `now`; None: nothing any more, because one of the two is gone, or the
    node is there, or all that the MAAR could still hold of it has ended."""
    serving = domain.maars.get(node.serving) if node.serving is not None else None
    peer = domain.maars.get(maar)
    identity = mobile_node(node)
    if serving is None or peer is None or peer.id == serving.id or identity is None:
        return None
    rows = [b for b in bindings if b.kind is not Kind.ADDRESS]
    live = [b for b in rows if b.state is not State.ENDED and end_of(b)[0] > now]
    mine = [b for b in live if b.anchor == maar]
    until = max((end_of(b)[0] for b in mine), default=None)
    if until is None and max((b.valid_until for b in rows), default=0) <= now:
        return None  # no lifetime that it was ever told goes on
    named = tuple((b.prefix, b.kind is Kind.DELEGATED) for b in sorted(mine))
    served = tuple(
        (domain.maars[b.anchor].endpoint, b.prefix)
        for b in sorted(live)
        if b.anchor not in (maar, serving.id) and b.anchor in domain.maars
    )
    left = 0.0 if until is None else math.inf if until >= NEVER else (until - now) / MICROS
    link_layer = None if node.link_layer is None else node.link_layer.value
    notice = Notice(
        identity,
        node.generation,
        serving.endpoint,
        named,
        served,
        lifetime_of(left, names=bool(named), ends=not live),
        moved,
        ACCESS_TECHNOLOGY,
        link_layer,
    )
    return Letter(peer.endpoint, notice)
