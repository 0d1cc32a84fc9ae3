"""What the client is told: IA options with their leases, T1 and T2, status codes (RFC 9915 sections 18.3 and 21)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.lease import has_pool, kind_of
from dhcp_cmd.core.model import ClientReply, IaRequest, State
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import INFINITY, MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import OPTION_HEADER, Options, encode_options
from dmm_wire.dhcpv6.options import IA, IA_ADDRESS, IA_PREFIX

_IA_NA, _IA_PD = int(OptionCode.IA_NA), int(OptionCode.IA_PD)
_ADDRESS_HEADER = OPTION_HEADER.pack(OptionCode.IAADDR, IA_ADDRESS.size)
_PREFIX_HEADER = OPTION_HEADER.pack(OptionCode.IAPREFIX, IA_PREFIX.size)

RAPID_COMMIT: Final = (int(OptionCode.RAPID_COMMIT), b"")

_TEXT: Final = {
    StatusCode.SUCCESS: "",
    StatusCode.UNSPEC_FAIL: "refused",
    StatusCode.NO_ADDRS_AVAIL: "no addresses available",
    StatusCode.NO_BINDING: "no binding",
    StatusCode.NOT_ON_LINK: "not on link",
    StatusCode.NO_PREFIX_AVAIL: "no prefixes available",
}


class Lease(NamedTuple):
    """One address or prefix as it is told: lifetimes in seconds."""

    prefix: Prefix
    preferred: int
    valid: int


class IaReply(NamedTuple):
    """One IA of the answer: leases, or a status instead."""

    ia: IaRequest
    leases: tuple[Lease, ...] = ()
    status: StatusCode | None = None


def status_option(status: StatusCode) -> tuple[int, bytes]:
    """A Status Code option (RFC 9915 section 21.13)."""
    return int(OptionCode.STATUS_CODE), int(status).to_bytes(2, "big") + _TEXT[status].encode()


def unavailable(ia: IaRequest) -> StatusCode:
    """What an IA is told that gets nothing."""
    return StatusCode.NO_PREFIX_AVAIL if ia.delegated else StatusCode.NO_ADDRS_AVAIL


def reply(*options: tuple[int, bytes]) -> ClientReply:
    """A Reply with these options."""
    return ClientReply(int(MessageType.REPLY), options)


def ia_reply(draft: Draft, ia: IaRequest, *, ended: bool = False, unknown: bool = False) -> IaReply:
    """What the draft holds for this IA: the local lease, the anchored ones, all of them.

    With `ended`, leases that are over are told with lifetimes 0, with `unknown` also those the client named and we do
    not know (RFC 9915 sections 18.3.4 and 18.3.5). An IA without a usable lease has a status: NoBinding where the
    MAAR has no pool for it, else that nothing is available.
    """
    leases, over = [], []
    for binding in draft.of_ia(kind_of(ia), ia.iaid):
        preferred, valid = draft.lifetimes(binding)
        if valid:
            leases.append(Lease(binding.prefix, preferred, valid))
        elif ended and not (binding.state is State.ENDED and _is_past(draft, binding.reusable_at)):
            over.append(Lease(binding.prefix, 0, 0))
    if unknown and ia.hints:
        told = {lease.prefix for lease in leases} | {lease.prefix for lease in over}
        over += [Lease(p, 0, 0) for p in dict.fromkeys(_named(ia)) if p not in told]
    if not leases and not has_pool(draft, ia):
        status = StatusCode.NO_BINDING if unknown else unavailable(ia)
        return IaReply(ia, (), status)
    if not leases and not unknown:
        return IaReply(
            ia, (), unavailable(ia)
        )  # then the IA holds no lease (sections 18.3.2 and 18.3.9)
    if len(leases) > 1:
        # The preferred one first: it is the one that a client which takes a single lease should take.
        leases.sort(key=lambda lease: lease.preferred == 0)
    return IaReply(ia, (*leases, *over), None if leases else unavailable(ia))


def ia_options(replies: Sequence[IaReply], draft: Draft) -> Options:
    """Encode the IAs, all with the same T1 and T2, taken over all leases in them (RFC 9915 section 18.3.2)."""
    leases = [lease for each in replies for lease in each.leases]
    return _encode(replies, *timers(leases, draft.settings.t1_percent, draft.settings.t2_percent))


def ia_statuses(ias: Iterable[tuple[IaRequest, StatusCode]]) -> Options:
    """Encode IAs that hold a status and nothing else."""
    return _encode([IaReply(ia, (), status) for ia, status in ias], 0, 0)


def timers(leases: Iterable[Lease], t1_percent: int, t2_percent: int) -> tuple[int, int]:
    """T1 and T2 in seconds: parts of the shortest preferred lifetime (RFC 9915 section 21.4), or where nothing is
    preferred (all of it anchored away) of the shortest valid one. Never 0 where there is a lease: that would leave it
    to the client.
    """
    preferred, valid = [], []
    for lease in leases:
        if lease.preferred and lease.valid:
            preferred.append(lease.preferred)
        elif lease.valid:
            valid.append(lease.valid)
    shortest = min(preferred or valid, default=0)
    t1, t2 = _part(shortest, t1_percent), _part(shortest, t2_percent)
    return min(t1, t2), t2


def _part(seconds: int, percent: int) -> int:
    return seconds if seconds in (0, INFINITY) else max(seconds * percent // 100, 1)


def _encode(replies: Sequence[IaReply], t1: int, t2: int) -> Options:
    options = []
    for ia, leases, status in replies:
        parts = [IA.pack(ia.iaid, t1, t2)]
        if ia.delegated:
            for (address, length), preferred, valid in leases:
                parts += (_PREFIX_HEADER, IA_PREFIX.pack(preferred, valid, length, address))
        else:
            for (address, _), preferred, valid in leases:
                parts += (_ADDRESS_HEADER, IA_ADDRESS.pack(address, preferred, valid))
        if status is not None:
            parts.append(encode_options((status_option(status),)))
        options.append((_IA_PD if ia.delegated else _IA_NA, b"".join(parts)))
    return tuple(options)


def _named(ia: IaRequest) -> list[Prefix]:
    return [hint.prefix for hint in ia.hints if any(hint.prefix.address)]


def _is_past(draft: Draft, at: int | None) -> bool:
    return at is not None and at <= draft.now
