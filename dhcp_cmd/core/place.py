"""Where a message comes from: which relay level is to be trusted, and whose link the client is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from dhcp_cmd.core.model import BindingRequest, Domain, Maar, RelayLevel
from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import DmmStatus, SubOption

_Sub = TypeVar("_Sub", bound=SubOption)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request comes from.

    `maar` is the MAAR whose link the client is on (None: the link is not known), `level` the index of the relay
    level that this MAAR added (None: a relay that knows nothing of mobility, or no relay at all, RFC 7333 REQ5).
    `own` marks a request of the MAAR itself. `refusal` and `why` (a slug) say why a level that claims to be a MAAR's
    is not believed.
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
"""A message that reached the server directly, or from a link that nobody registered."""


def locate(request: BindingRequest, domain: Domain) -> Place:
    """Find the relay level of a MAAR, outermost first: what a host forges can only lie further in.

    The first level with a MAAR sub-option decides; when it cannot be believed, nothing further in is.
    """
    for index, level in enumerate(request.relays):
        if level.suboptions is not None:
            for suboption in level.suboptions:
                if isinstance(suboption, dmm.Maar):
                    return _claimed(request, domain, index, level, suboption)
    return _plain(request, domain)


def _claimed(
    request: BindingRequest, domain: Domain, index: int, level: RelayLevel, claim: dmm.Maar
) -> Place:
    own = (
        request.type == MessageType.INFORMATION_REQUEST
        and request.client_id is not None
        and request.client_id == level.relay_id
        and index == len(request.relays) - 1
    )

    def refused(status: DmmStatus, why: str) -> Place:
        return Place(level=index, own=own, refusal=status, why=why)

    maar = domain.by_relay_id.get(level.relay_id) if level.relay_id is not None else None
    if maar is None:
        return refused(DmmStatus.UNKNOWN_MAAR, "unknown-maar")
    if level.source != maar.relay_address:
        return refused(DmmStatus.UNKNOWN_MAAR, "wrong-relay-address")
    if claim.endpoint != maar.endpoint:
        return refused(DmmStatus.ENDPOINT_MISMATCH, "endpoint-mismatch")
    # What a MAAR asks for itself may come from no link in particular.
    if not (own and level.link_address == UNSPECIFIED) and not _on_link(
        domain, maar, level.link_address
    ):
        return refused(DmmStatus.UNKNOWN_MAAR, "wrong-link")
    return Place(maar, index, own, _link_layer(level), level.suboptions or ())


def _on_link(domain: Domain, maar: Maar, address: bytes) -> bool:
    return any(link.maar == maar.id and link.prefix.contains(address) for link in domain.links)


def _link_layer(level: RelayLevel) -> tuple[int, bytes] | None:
    """The client's link-layer address: as the MAAR saw the attach, else from option 79 (RFC 6939)."""
    for suboption in level.suboptions or ():
        if isinstance(suboption, dmm.Attachment) and suboption.address:
            return suboption.hardware_type, suboption.address
    return level.link_layer


def _plain(request: BindingRequest, domain: Domain) -> Place:
    """By link-address alone, that of the level nearest the client unless it is zero (RFC 9915 section 13.1)."""
    for level in reversed(request.relays):
        if level.link_address != UNSPECIFIED:
            for link in domain.links:
                if link.prefix.contains(level.link_address):
                    maar = domain.maars.get(link.maar)
                    return Place(maar, link_layer=request.relays[-1].link_layer)
            break
    return NOWHERE
