"""Receiving Proxy Binding Updates: which status each one gets (RFC 5213 sections 5.3.1 and 8.9, RFC
8885).

A PBU that is accepted here changes nothing yet: :mod:`relay_maar.core.registrations` brings it into
the kernel first and then acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from dmm_wire.address import Prefix, is_routable
from dmm_wire.identity import Identity
from dmm_wire.mobility import (
    AccessTechnology,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    ReplayProtection,
    ServingMaar,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import first
from relay_maar.core.session import MAX_PREFIXES, Session


@dataclass(frozen=True, slots=True)
class Request:
    """What an acceptable PBU asks for: the node is at `serving` since `generation`; `named`
    (prefix, delegated) of ours go there for `lifetime` seconds; of the prefixes anchored elsewhere,
    `served` are still the node's."""

    identity: Identity
    generation: int
    serving: bytes
    named: tuple[tuple[Prefix, bool], ...]
    served: frozenset[Prefix]
    lifetime: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A PBU that is not accepted. `generation` is ours, where the sender's is behind; `prefixes` are
    those that are not anchored here, of all that it names."""

    status: int
    generation: int | None = None
    prefixes: tuple[Prefix, ...] = ()


def judge(
    update: BindingUpdate,
    source: bytes,
    *,
    endpoint: bytes,
    peers: Collection[bytes],
    cmds: Collection[bytes],
    session_of: Callable[[Identity], Session | None],
    anchored_here: Callable[[Identity, Prefix], bool],
) -> Request | Refusal:
    """Decide on a PBU from `source`. `peers` are the domain's other MAARs, `cmds` may signal for
    any of them; `anchored_here` says whether a prefix is ours to anchor for this node."""
    # RFC 5213 section 5.3.1 has the authentication first; then no stranger learns anything from the
    # other checks.
    if source not in peers and source not in cmds:
        return Refusal(Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG)
    if not update.proxy:
        # A mobile node's own Binding Update: no MAAR is a home agent (RFC 6275 section 10.3.1).
        return Refusal(Status.HOME_REGISTRATION_NOT_SUPPORTED)
    if not update.dmm:
        # A MAG's PBU to its LMA. A MAAR is nobody's LMA (section 5.3.1, 7).
        return Refusal(Status.NOT_LMA_FOR_THIS_MOBILE_NODE)
    identifier = first(update, MobileNodeIdentifier)
    if identifier is None:
        return Refusal(Status.MISSING_MN_IDENTIFIER_OPTION)
    timestamp = first(update, Timestamp)
    serving = first(update, ServingMaar)
    if timestamp is None:
        # Without one, section 5.5 falls back to sequence numbers, for which the senders would need
        # each other's. The order comes from the CMD's generation, so there is no valid timestamp:
        # mismatch.
        return Refusal(Status.TIMESTAMP_MISMATCH)
    if serving is None:
        # Without Serving MAAR, RFC 8885 means a MAAR that registers a node with the CMD, which is
        # not here.
        return Refusal(Status.NOT_LMA_FOR_THIS_MOBILE_NODE)
    if serving.endpoint != source and source not in cmds:
        return Refusal(Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG)
    if serving.endpoint == endpoint or not is_routable(serving.endpoint):
        return Refusal(Status.INVALID_CARE_OF_ADDRESS)
    session = session_of(identifier.identity)
    if session is not None and _stale(session, timestamp.value, serving.endpoint):
        return Refusal(Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED, session.generation)
    named = _named(update)
    if session is not None and source in cmds and _is_overtaken(session, timestamp.value, named):
        return Refusal(Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED, session.generation)
    if (refusal := _mandatory(update)) is not None:
        return refusal
    if len(named) > MAX_PREFIXES:
        return Refusal(Status.INSUFFICIENT_RESOURCES)
    strange = tuple(each for each, _ in named if not anchored_here(identifier.identity, each))
    if strange:
        return Refusal(Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, prefixes=strange)
    served = frozenset(
        option.prefix for option in update.options if isinstance(option, PreviousMaarOption)
    )
    if update.lifetime == 0:
        # De-registration (section 5.3.5): nothing stays, whatever is named.
        named, served = (), frozenset()
    return Request(
        identifier.identity, timestamp.value, serving.endpoint, named, served, update.lifetime
    )


def same(update: BindingUpdate, other: BindingUpdate) -> bool:
    """Whether one is a retransmission of the other: all but sequence number and time is equal."""
    return replace(update, sequence=0, options=_lasting(update)) == replace(
        other, sequence=0, options=_lasting(other)
    )


def _lasting(update: BindingUpdate) -> tuple[MobilityOption, ...]:
    return tuple(o for o in update.options if not isinstance(o, ReplayProtection))


def _mandatory(update: BindingUpdate) -> Refusal | None:
    """RFC 5213 section 5.3.1, 11 and 12, which come after what the timestamp says (9). Home
    Network Prefix (10) may be absent: under the D flag Delegated Prefix does as well, and the MAAR
    just left is told although it anchors nothing."""
    if first(update, HandoffIndicator) is None:
        return Refusal(Status.MISSING_HANDOFF_INDICATOR_OPTION)
    if first(update, AccessTechnology) is None:
        return Refusal(Status.MISSING_ACCESS_TECH_TYPE_OPTION)
    return None


def _stale(session: Session, generation: int, serving: bytes) -> bool:
    """A visit that is over, or one that the CMD gave to another MAAR. An equal generation is a
    refresh."""
    if generation == session.generation:
        return serving != session.serving
    return generation < session.generation


def _is_overtaken(
    session: Session, generation: int, named: Collection[tuple[Prefix, bool]]
) -> bool:
    """Whether a PBU of the CMD is older than one of the same visit that withdrew what it names: what
    ends while the node is away does not come back on that visit."""
    if generation != session.generation:
        return False
    return any(prefix in session.withdrawn for prefix, _ in named)


def _named(update: BindingUpdate) -> tuple[tuple[Prefix, bool], ...]:
    found: dict[Prefix, bool] = {}
    for option in update.options:
        if isinstance(option, HomeNetworkPrefix | DelegatedPrefix):
            found.setdefault(option.prefix, isinstance(option, DelegatedPrefix))
    return tuple(found.items())
