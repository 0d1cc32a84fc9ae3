"""What must be true of the signalling of each step of the scenario: DHCPv6, PBU and PBA, the figures of RFC 8885."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import OptionCode
from dmm_wire.dhcpv6.message import every
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix
from dmm_wire.mobility.registration import told
from lab import figures
from lab.figures import Figure, Told
from lab.messages import Message, named_prefixes
from lab.names import CMD_NAME, MN, Names
from lab.topology import MaarPlan

if TYPE_CHECKING:
    from lab.scenario import MainJob, Step

_ACCEPTED = 0


def signalling(job: MainJob, seen: Step) -> None:
    """All assertions about the messages of one step."""
    if job.lab.registers:
        _registration(job, seen)
    else:
        _client_reply(job, seen)
    _answer(job, seen)
    _binding_updates(job, seen)
    _figure(job, seen)


def anchors(job: MainJob, serving: MaarPlan) -> list[MaarPlan]:
    """The MAARs that anchor prefixes of the node away from where it is."""
    return [plan for plan in job.visited if plan != serving]


def figure(job: MainJob, seen: Step) -> tuple[Figure, list[Told]]:
    """The figure of RFC 8885 that a step is to follow, and the messages that are to do so."""
    wanted = figures.of_step(job.lab.mode, moved=seen.left is not None)
    return wanted, figures.told(
        wanted, seen.messages, seen.plan.name.upper(), _anchor_names(job, seen)
    )


def _anchor_names(job: MainJob, seen: Step) -> list[str]:
    return [plan.name.upper() for plan in anchors(job, seen.plan)]


# --- DHCPv6, and the CMD's answer ---


def _client_reply(job: MainJob, seen: Step) -> None:
    """The last Reply to the client: the full set, the local lease preferred, the anchored ones deprecated."""
    reply = _last(seen, "Reply", receiver=MN)
    leases: dict[Prefix, bool] = {}
    if reply is not None and reply.dhcpv6 is not None:
        for body in every(reply.dhcpv6.options, OptionCode.IA_NA):
            for lease in every(IaNa.decode(body).options, OptionCode.IAADDR):
                address = IaAddress.decode(lease)
                leases[Prefix.of(address.address, 64)] = address.preferred > 0
        for body in every(reply.dhcpv6.options, OptionCode.IA_PD):
            for lease in every(IaPd.decode(body).options, OptionCode.IAPREFIX):
                prefix = IaPrefix.decode(lease)
                leases[prefix.prefix] = prefix.preferred > 0
    expected = {prefix: plan == seen.plan for plan in job.visited for prefix in job.prefixes[plan]}
    job.checks.that(
        "Reply to the client: the full set, the anchored ones with preferred lifetime 0",
        leases == expected,
        _named(leases, job.names),
    )


def _answer(job: MainJob, seen: Step) -> None:
    """The CMD's last answer to the S-MAAR: the visit, and the full set of the node's prefixes, exactly."""
    serving = seen.plan.name.upper()
    suboptions: tuple[dmm.SubOption, ...] = ()
    if job.lab.registers:
        title, local, away = "PBA", "HNP", "Previous MAAR"
        answer = _last(seen, title, sender=CMD_NAME, receiver=serving)
        if answer is not None and isinstance(answer.mobility, mh.BindingAcknowledgement):
            suboptions = told(answer.mobility, dmm.DEFAULT_ENTERPRISE)
    else:
        title, local, away = "Relay-reply", "ANCHORED_PREFIX", "PREVIOUS_MAAR"
        answer = _last(seen, title, sender=CMD_NAME, inner="Reply", having=dmm.AnchoredPrefix)
        suboptions = answer.suboptions if answer else ()
    here = {s.prefix for s in suboptions if isinstance(s, dmm.AnchoredPrefix)}
    job.checks.equal(
        f"{title} to {serving}: {local} for what it gave",
        _named(here, job.names),
        _named(job.prefixes[seen.plan], job.names),
    )
    previous = {(s.prefix, s.endpoint) for s in suboptions if isinstance(s, dmm.PreviousMaar)}
    expected = {
        (prefix, plan.endpoint) for plan in anchors(job, seen.plan) for prefix in job.prefixes[plan]
    }
    if job.lab.mode == "locator" and answer is not None:
        # The anchors that the CMD has not heard of tell the S-MAAR themselves.
        awaited = {s.endpoint for s in suboptions if isinstance(s, dmm.PreviousMaar) and s.awaited}
        words = [message for message in seen.messages if _tells_cmd(message)]
        late = {m.sender for m in words} - {m.sender for m in words if m.at <= answer.at}
        job.checks.that(
            f"{title}: awaited is what is anchored at who has not acknowledged",
            awaited
            >= {plan.endpoint for plan in anchors(job, seen.plan) if plan.name.upper() in late},
            {job.names.address(endpoint) for endpoint in awaited},
        )
    job.checks.equal(
        f"{title}: {away} for each prefix anchored elsewhere, and no other",
        {(job.names.prefix(p), job.names.address(e)) for p, e in previous},
        {(job.names.prefix(p), job.names.address(e)) for p, e in expected},
    )
    visits = {s.previous for m in seen.messages for s in m.suboptions if isinstance(s, dmm.Visit)}
    left = seen.left.endpoint if seen.left else bytes(16)
    job.checks.equal(
        "VISIT names the MAAR just left" if seen.left else "VISIT names no MAAR left",
        {job.names.address(address) for address in visits},
        {job.names.address(left)},
    )


# --- PMIPv6 ---


def _binding_updates(job: MainJob, seen: Step) -> None:
    serving = seen.plan.name.upper()
    answers = [m for m in seen.messages if isinstance(m.mobility, mh.BindingAcknowledgement)]
    updates = [m for m in seen.messages if isinstance(m.mobility, mh.BindingUpdate)]
    if job.lab.registers:
        answers = [m for m in answers if m.sender != CMD_NAME]
        updates = [m for m in updates if m.receiver != CMD_NAME]
    sender = serving if job.lab.mode == "direct" else CMD_NAME
    expected = {
        (sender, plan.name.upper()): _named(job.prefixes[plan], job.names)
        for plan in anchors(job, seen.plan)
    }
    found = {
        (m.sender, m.receiver): _named(named_prefixes(m.mobility), job.names)
        for m in updates
        if m.mobility
    }
    count = len(expected)
    peers = " and ".join(receiver for _, receiver in expected)
    # The first frame moves the node; DHCPv6, a second later, may grant longer lifetimes, of which the anchors hear too.
    job.checks.that(
        f"PBU from {sender} to {peers} and nobody else, naming what each anchors"
        if count
        else "no PBU: nothing is anchored elsewhere",
        found == expected and count <= len(updates) <= 2 * count,
        [f"{m.sender}→{m.receiver} {', '.join(m.details)}" for m in updates],
    )
    pairs = {(m.receiver, m.sender, _sequence(m)): _status(m) for m in answers}
    wanted = {(m.sender, m.receiver, _sequence(m)): _ACCEPTED for m in updates}
    if job.lab.mode == "locator":
        wanted |= {(serving, m.receiver, _sequence(m)): _ACCEPTED for m in updates}
    if count:
        copies = f", and a copy of each to {serving}" if job.lab.mode == "locator" else ""
        job.checks.that(
            f"{len(updates)} PBA, status 0, each for its PBU{copies}",
            pairs == wanted and len(answers) == len(wanted),
            [f"{m.sender}→{m.receiver} {', '.join(m.details)}" for m in answers],
        )
    generations = {
        option.value
        for m in updates
        if m.mobility
        for option in m.mobility.options
        if isinstance(option, mh.Timestamp)
    }
    visits = {s.generation for m in seen.messages for s in m.suboptions if isinstance(s, dmm.Visit)}
    if count:
        job.checks.that(
            "the PBUs' timestamp is the visit's generation, given by the CMD",
            len(visits) == 1 and generations == visits,
            f"VISIT {visits}, timestamps {generations}",
        )


def _registration(job: MainJob, seen: Step) -> None:
    """RFC 8885 section 3.1: the MAAR registers the node, once, and the CMD accepts. (That it is still there may be said
    later: frames of a host that has just come do so.)"""
    serving = seen.plan.name.upper()
    asked = [
        m
        for m in seen.messages
        if m.name == "PBU" and m.receiver == CMD_NAME and not _says_still_here(m)
    ]
    answers = [
        m
        for m in seen.messages
        if m.name == "PBA" and m.sender == CMD_NAME and not _says_still_here(m)
    ]
    job.checks.equal(
        f"{serving} registers the node with one PBU; status 0 to it, by one PBA",
        ([m.sender for m in asked], [(m.receiver, _sequence(m), _status(m)) for m in answers]),
        ([serving], [(serving, _sequence(m), _ACCEPTED) for m in asked]),
    )


def _says_still_here(message: Message) -> bool:
    """By its Handoff Indicator (RFC 5213 section 8.4: 5, handoff state not changed)."""
    handoff = mh.HandoffIndicatorValue.NOT_CHANGED
    return message.mobility is not None and mh.HandoffIndicator(handoff) in message.mobility.options


def _figure(job: MainJob, seen: Step) -> None:
    wanted, found = figure(job, seen)
    job.checks.that(
        f"{wanted.name}: all of its messages, in its order",
        figures.is_followed(wanted, found, _anchor_names(job, seen)),
        [f"{each.message.sender}→{each.message.receiver} {each.message.title}" for each in found],
    )


# --- small things ---


def _last(
    seen: Step,
    name: str,
    *,
    sender: str = "",
    receiver: str = "",
    inner: str = "",
    having: type[dmm.SubOption] | None = None,
) -> Message | None:
    for message in reversed(seen.messages):
        if (
            message.name == name
            and sender in ("", message.sender)
            and receiver in ("", message.receiver)
            and inner in ("", message.inner)
            and (having is None or any(isinstance(s, having) for s in message.suboptions))
        ):
            return message
    return None


def _tells_cmd(message: Message) -> bool:
    return message.name == "PBA" and message.receiver == CMD_NAME


def _sequence(message: Message) -> int:
    return message.mobility.sequence if message.mobility else -1


def _status(message: Message) -> int:
    decoded = message.mobility
    return decoded.status if isinstance(decoded, mh.BindingAcknowledgement) else -1


def _named(found: object, names: Names) -> object:
    if isinstance(found, Mapping):
        return {names.prefix(prefix): value for prefix, value in found.items()}
    assert isinstance(found, set | frozenset | list | tuple)
    return {names.prefix(prefix) for prefix in found}
