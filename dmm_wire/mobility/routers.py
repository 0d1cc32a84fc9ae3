"""As which router an anchor is shown to its nodes, in a PBA (RFC 8885 sections 4.7 and 4.8).

Nothing in the two options says whose they are. In the PBA of an anchor they are its own. In one of the CMD they are of
the P-MAAR in the nearest Previous MAAR option (67) before them: where there is one, that is all that can be meant.
"""

from __future__ import annotations

from collections.abc import Iterable

from dmm_wire.mobility.options import (
    DlifLinkLayer,
    DlifLinkLocal,
    MobilityOption,
    PreviousMaarOption,
)
from dmm_wire.router_identity import RouterIdentity

Said = tuple[bytes | None, bytes | None]
"""A link-local and a link-layer address, as far as they were said."""


def router_options(identity: RouterIdentity | None) -> list[MobilityOption]:
    """The options that say it; none for None."""
    if identity is None:
        return []
    return [DlifLinkLocal(identity.link_local), DlifLinkLayer(identity.link_layer)]


def routers_in(options: Iterable[MobilityOption], sender: bytes | None = None) -> dict[bytes, Said]:
    """What is said of each anchor, by its endpoint. `sender` is the anchor whose own PBA it is; None: it is the CMD's,
    and what stands before all Previous MAAR options is nobody's. Of what is said twice the first counts."""
    found: dict[bytes, Said] = {}
    anchor = sender
    for option in options:
        if isinstance(option, PreviousMaarOption) and sender is None:
            anchor = option.endpoint
        elif isinstance(option, DlifLinkLocal | DlifLinkLayer) and anchor is not None:
            link_local, link_layer = found.get(anchor, (None, None))
            if isinstance(option, DlifLinkLocal):
                link_local = link_local or option.address
            else:
                link_layer = link_layer or option.value
            found[anchor] = link_local, link_layer
    return found
