"""The PBA to a PBU: which of its options are echoed (RFC 5213 section 5.3.6; Serving MAAR: RFC 8885 section 3.2, 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.mobility.message import BindingAcknowledgement, BindingUpdate
from dmm_wire.mobility.options import (
    AccessTechnology,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    LinkLocalAddress,
    MobileNodeIdentifier,
    MobilityOption,
    ReplayProtection,
    ServingMaar,
    Timestamp,
    UnknownOption,
)
from dmm_wire.router_identity import FIXED

ALL_ZERO: Final = HomeNetworkPrefix(Prefix(UNSPECIFIED, 0))
"""Asks for any prefix; in a rejection: none was named."""

ROUTER_LINK_LOCAL: Final = FIXED.link_local
"""What every router of the domain has on its access links (RFC 6543 section 4)."""

_REJECTED: Final = 128
"""The least status of a rejection (RFC 5213 section 8.9)."""

_NO_IDENTIFIER: Final = UnknownOption(MobileNodeIdentifier.TYPE, b"\x01")
"""A Mobile Node Identifier option with a zero-length identifier."""

_Option = TypeVar("_Option", bound=MobilityOption)


def first(message: BindingUpdate | BindingAcknowledgement, kind: type[_Option]) -> _Option | None:
    """The first option of this very kind."""
    for option in message.options:
        if type(option) is kind:
            return option
    return None


def acknowledge(
    update: BindingUpdate,
    status: int,
    lifetime: int = 0,
    generation: int | None = None,
    *,
    told: Iterable[MobilityOption] | None = None,
    beside: Iterable[MobilityOption] = (),
) -> BindingAcknowledgement:
    """The PBA for `update`, its options echoed. `generation` takes the place of its timestamp; `told`
    that of its prefixes; `beside` is what the answer says besides."""
    identifier = first(update, MobileNodeIdentifier)
    options: list[MobilityOption] = [identifier or _NO_IDENTIFIER]
    prefixes = [o for o in update.options if isinstance(o, HomeNetworkPrefix | DelegatedPrefix)]
    options += (prefixes or [ALL_ZERO]) if told is None else told
    options.append(first(update, HandoffIndicator) or HandoffIndicator(0))
    options.append(first(update, AccessTechnology) or AccessTechnology(0))
    timestamp = first(update, Timestamp)
    if timestamp is not None:
        options.append(timestamp if generation is None else Timestamp(generation))
    options += beside
    link_local = first(update, LinkLocalAddress)
    if link_local is not None and not any(link_local.address) and status < _REJECTED:
        link_local = LinkLocalAddress(ROUTER_LINK_LOCAL)  # it asks for one, the same ever after
    # The last is what a PBU is known again by (RFC 4285 section 6).
    found = (
        first(update, LinkLayerIdentifier),
        link_local,
        first(update, ServingMaar),
        first(update, ReplayProtection),
    )
    options += [option for option in found if option is not None]
    return BindingAcknowledgement(status, update.sequence, lifetime, tuple(options))
