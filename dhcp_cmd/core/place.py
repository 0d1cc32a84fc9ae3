"""Where a message comes from: which relay level is to be trusted, and whose link the client is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from dhcp_cmd.core.model import BindingRequest, Domain, Maar, RelayLevel
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import DmmStatus, SubOption

# Looking a member up in its class costs as much as a call.
_ENDPOINT_MISMATCH: Final = DmmStatus.ENDPOINT_MISMATCH
_UNKNOWN_MAAR: Final = DmmStatus.UNKNOWN_MAAR
_INFORMATION_REQUEST: Final = MessageType.INFORMATION_REQUEST

_Sub = TypeVar("_Sub", bound=SubOption)


class Place(NamedTuple):
    """Where a request comes from.

    `maar` is the MAAR whose link the client is on (None: the link is not known), `level` the index of the relay
    level that this MAAR added (None: a relay that knows nothing of mobility, or no relay at all, RFC 7333 REQ5).
    `own` marks a request of the MAAR itself. `refusal` and `why` (a slug) say why the relay is not believed.
    """

    maar: Maar | None = None
    level: int | None = None
    own: bool = False
    link_layer: tuple[int, bytes] | None = None
    suboptions: tuple[SubOption, ...] = ()
    refusal: DmmStatus | None = None
    why: str = ""

    def first(self, kind: type[_Sub]) -> _Sub | None:
        """The first sub-option of this kind at the MAAR's relay level."""
        return next((each for each in self.suboptions if isinstance(each, kind)), None)

    def every(self, kind: type[_Sub]) -> list[_Sub]:
        """All sub-options of this kind at the MAAR's relay level."""
        return [each for each in self.suboptions if isinstance(each, kind)]


NOWHERE = Place()
"""A message from a link that nobody registered, which reached the server directly or through a trusted relay."""


def locate(request: BindingRequest, domain: Domain, trusted: Sequence[Prefix] = ()) -> Place:
    """Find the relay level of a MAAR, outermost first: what a host forges can only lie further in.

    Who sent a level is known for the outermost one, by its UDP source. Further in it is what the relay says that
    sent the level before, and only a `trusted` relay is believed that. The first level with a MAAR sub-option
    decides; when it is not the MAAR's, nothing further in is looked at.
    """
    if not request.relays:
        maar = _maar_at(domain, request.link)
        return NOWHERE if maar is None else Place(maar)
    for index, level in enumerate(request.relays):
        for suboption in level.suboptions or ():
            if isinstance(suboption, dmm.Maar):
                return _claimed(request, domain, index, level, suboption)
        if index == len(request.relays) - 1 or not _is_trusted(level.source, trusted):
            return _plain(request, domain, index, trusted)
    return NOWHERE


def _is_trusted(source: bytes, trusted: Sequence[Prefix]) -> bool:
    return any(prefix.contains(source) for prefix in trusted)


def _claimed(
    request: BindingRequest, domain: Domain, index: int, level: RelayLevel, claim: dmm.Maar
) -> Place:
    own = (
        request.type == _INFORMATION_REQUEST
        and request.client_id is not None
        and request.client_id == level.relay_id
        and index == len(request.relays) - 1
    )

    def refused(status: DmmStatus, why: str) -> Place:
        return Place(level=index, own=own, refusal=status, why=why)

    maar = domain.by_relay_id.get(level.relay_id) if level.relay_id is not None else None
    if maar is None:
        return refused(_UNKNOWN_MAAR, "unknown-maar")
    if level.source != maar.relay_address:
        return refused(_UNKNOWN_MAAR, "wrong-relay-address")
    if claim.endpoint != maar.endpoint:
        return refused(_ENDPOINT_MISMATCH, "endpoint-mismatch")
    # What a MAAR asks for itself may come from no link in particular.
    link = domain.link_of(level.link_address)
    if not (own and level.link_address == UNSPECIFIED) and (link is None or link.maar != maar.id):
        return refused(_UNKNOWN_MAAR, "wrong-link")
    return Place(maar, index, own, _link_layer(level), level.suboptions or ())


def _maar_at(domain: Domain, address: bytes) -> Maar | None:
    """The MAAR that has the link which an address lies in."""
    link = domain.link_of(address)
    return None if link is None else domain.maars.get(link.maar)


def _link_layer(level: RelayLevel) -> tuple[int, bytes] | None:
    """The client's link-layer address: as the MAAR saw the attach, else from option 79 (RFC 6939)."""
    for suboption in level.suboptions or ():
        if isinstance(suboption, dmm.Attachment) and suboption.address:
            return suboption.hardware_type, suboption.address
    return level.link_layer


def _plain(request: BindingRequest, domain: Domain, index: int, trusted: Sequence[Prefix]) -> Place:
    """A relay that knows nothing of mobility: by link-address, that of the level nearest the client unless it is zero
    (RFC 9915 section 13.1). It speaks for the links of the MAAR whose relay address it has, a trusted relay for all.
    """
    level = request.relays[index]
    maar = _nearest_maar(request.relays, domain)
    if _is_trusted(level.source, trusted):
        return NOWHERE if maar is None else Place(maar, link_layer=level.link_layer)
    if maar is None or level.source != maar.relay_address:
        return Place(refusal=_UNKNOWN_MAAR, why="unknown-relay")
    return Place(maar, link_layer=level.link_layer)


def _nearest_maar(levels: Sequence[RelayLevel], domain: Domain) -> Maar | None:
    for level in reversed(levels):
        if level.link_address != UNSPECIFIED:
            return _maar_at(domain, level.link_address)
    return None
