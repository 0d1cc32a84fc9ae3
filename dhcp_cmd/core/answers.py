"""One function per DHCPv6 message: what it does to the draft and what the client is told (RFC 9915 section 18.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from dhcp_cmd.core.draft import Draft
from dhcp_cmd.core.lease import decline, hold, release
from dhcp_cmd.core.model import (
    BindingRequest,
    ClientReply,
    ConfirmPolicy,
    IaRequest,
    Kind,
    State,
)
from dhcp_cmd.core.reply import (
    RAPID_COMMIT,
    IaReply,
    ia_options,
    ia_reply,
    ia_statuses,
    reply,
    status_option,
    unavailable,
)
from dmm_wire.dhcpv6.codes import MessageType, StatusCode


def solicit(draft: Draft) -> ClientReply | None:
    """Advertise what a Request would get, without a trace; or, with Rapid Commit, commit it (section 18.3.1)."""
    if draft.request.rapid_commit and draft.settings.rapid_commit:
        return reply(RAPID_COMMIT, *_committed(draft, ended=True))
    options = _committed(draft.trial(), ended=False)
    return ClientReply(int(MessageType.ADVERTISE), options)


def request(draft: Draft) -> ClientReply | None:
    """Section 18.3.2."""
    off = [ia for ia in draft.request.ias if _is_off_link(draft, ia)]
    served = tuple(ia for ia in draft.request.ias if ia not in off)
    refused = ia_statuses((ia, StatusCode.NOT_ON_LINK) for ia in off)
    return reply(*_committed(draft, ended=True, ias=served), *refused)


def renew(draft: Draft) -> ClientReply | None:
    """Section 18.3.4. An IA that is not known gets a binding: mobility needs it."""
    return reply(*_committed(draft, ended=True, unknown=True))


def rebind(draft: Draft) -> ClientReply | None:
    """Section 18.3.5. Silence where the link is not known: another server may know it."""
    return None if draft.here is None else renew(draft)


def confirm(draft: Draft) -> ClientReply | None:
    """Section 18.3.3: Success while every address is anchored in the domain, as the policy has it.

    Silence where no address is named or the link is not known.
    """
    named = [hint.prefix for ia in draft.request.ias if not ia.delegated for hint in ia.hints]
    here = draft.here
    if not named or here is None:
        return None
    anywhere = (
        draft.place.level is not None and draft.settings.confirm_policy is ConfirmPolicy.SUCCESS
    )
    for prefix in named:
        binding = draft.bindings.get(prefix.address)
        if (
            binding is None
            or binding.kind is not Kind.ADDRESS
            or binding.state is State.ENDED
            or not (anywhere or binding.anchor == here.id)
        ):
            return reply(status_option(StatusCode.NOT_ON_LINK))
    return reply(status_option(StatusCode.SUCCESS))


def give_back(how: Callable[[Draft, IaRequest], bool]) -> Callable[[Draft], ClientReply | None]:
    """Release and Decline: sections 18.3.7 and 18.3.8."""

    def answer(draft: Draft) -> ClientReply | None:
        strangers = [ia for ia in draft.request.ias if not how(draft, ia)]
        return reply(
            status_option(StatusCode.SUCCESS),
            *ia_statuses((ia, StatusCode.NO_BINDING) for ia in strangers),
        )

    return answer


def information(draft: Draft) -> ClientReply | None:
    """Section 18.3.6: the options are the host's to add."""
    return reply()


def _committed(
    draft: Draft,
    *,
    ended: bool,
    unknown: bool = False,
    ias: tuple[IaRequest, ...] | None = None,
) -> tuple[tuple[int, bytes], ...]:
    ias = draft.request.ias if ias is None else ias
    if draft.node is not None:
        for ia in ias:
            hold(draft, ia)
    # Only now: T1 and T2 are over all of them, and an IA may have changed what another one shows.
    replies: list[IaReply] = [ia_reply(draft, ia, ended=ended, unknown=unknown) for ia in ias]
    return ia_options(replies, draft)


def _is_off_link(draft: Draft, ia: IaRequest) -> bool:
    """Whether an IA_NA names an address that neither this link nor the node's anchors have."""
    here = draft.here
    if ia.delegated or here is None:
        return False
    pools = draft.domain.pools_of(here.id, Kind.LINK)
    return any(
        hint.prefix.address not in draft.bindings
        and not any(pool.prefix.contains(hint.prefix) for pool in pools)
        for hint in ia.hints
    )


# --- what a client is told that is denied service ---


def advertise_nothing(asked: BindingRequest) -> ClientReply | None:
    """An Advertise without leases (section 18.3.9)."""
    options = ia_statuses((ia, unavailable(ia)) for ia in asked.ias)
    return ClientReply(int(MessageType.ADVERTISE), options)


def fail(asked: BindingRequest) -> ClientReply | None:
    """A Reply with UnspecFail (section 16)."""
    return reply(status_option(StatusCode.UNSPEC_FAIL))


def silence(asked: BindingRequest) -> ClientReply | None:
    """Nothing."""
    return None


def no_leases(asked: BindingRequest) -> ClientReply | None:
    """A Reply with what depends on no identity."""
    return reply()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a message type is handled: its name in the history, its answer, and what it gets when denied."""

    cause: str
    answer: Callable[[Draft], ClientReply | None]
    denied: Callable[[BindingRequest], ClientReply | None]


BEHAVIOURS = MappingProxyType(
    {
        int(MessageType.SOLICIT): Behaviour("solicit", solicit, advertise_nothing),
        int(MessageType.REQUEST): Behaviour("request", request, fail),
        int(MessageType.CONFIRM): Behaviour("confirm", confirm, silence),
        int(MessageType.RENEW): Behaviour("renew", renew, fail),
        int(MessageType.REBIND): Behaviour("rebind", rebind, fail),
        int(MessageType.RELEASE): Behaviour("release", give_back(release), fail),
        int(MessageType.DECLINE): Behaviour("decline", give_back(decline), fail),
        int(MessageType.INFORMATION_REQUEST): Behaviour(
            "information-request", information, no_leases
        ),
    }
)
"""Every message that a server answers."""
