"""The PBA to a PBU: which of its options are echoed (RFC 5213 section 5.3.6)."""

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
    Timestamp,
    UnknownOption,
)

ALL_ZERO: Final = HomeNetworkPrefix(Prefix(UNSPECIFIED, 0))
"""Asks for any prefix; in a rejection: none was named."""

_NO_IDENTIFIER: Final = UnknownOption(MobileNodeIdentifier.TYPE, b"\x01")
"""A Mobile Node Identifier option with a zero-length identifier."""

_Option = TypeVar("_Option", bound=MobilityOption)


def first(message: BindingUpdate | BindingAcknowledgement, kind: type[_Option]) -> _Option | None:
    """The first option of this very kind."""
    for option in message.options:
        if type(option) is kind:  # isinstance asks abc.ABC, which takes ten times as long
            return option
    return None


def acknowledge(
    update: BindingUpdate,
    status: int,
    lifetime: int = 0,
    generation: int | None = None,
    *,
    told: Iterable[MobilityOption] | None = None,
) -> BindingAcknowledgement:
    """The PBA for `update`, its options echoed. `generation` takes the place of its timestamp; `told`
    that of its prefixes."""
    identifier = first(update, MobileNodeIdentifier)
    options: list[MobilityOption] = [identifier or _NO_IDENTIFIER]
    prefixes = [o for o in update.options if isinstance(o, HomeNetworkPrefix | DelegatedPrefix)]
    options += (prefixes or [ALL_ZERO]) if told is None else told
    options.append(first(update, HandoffIndicator) or HandoffIndicator(0))
    options.append(first(update, AccessTechnology) or AccessTechnology(0))
    timestamp = first(update, Timestamp)
    if timestamp is not None:
        options.append(timestamp if generation is None else Timestamp(generation))
    # The last is what a PBU is known again by (RFC 4285 section 6).
    for kind in (LinkLayerIdentifier, LinkLocalAddress, ReplayProtection):
        options += [option for option in (first(update, kind),) if option is not None]
    return BindingAcknowledgement(status, update.sequence, lifetime, tuple(options))
