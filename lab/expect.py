"""What must be true after each step of the scenario, on the wire, in the kernels and at the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import OptionCode
from dmm_wire.dhcpv6.message import every
from dmm_wire.dhcpv6.options import IaAddress, IaNa, IaPd, IaPrefix
from lab import kernel, paths
from lab.checks import Checks
from lab.flows import Counts
from lab.messages import Message, named_prefixes
from lab.names import CMD_NAME, MN, Names
from lab.paths import Way
from lab.topology import MAAR_PLANS, MN_LINK_LAYER, MaarPlan

if TYPE_CHECKING:
    from lab.scenario import Flow, MainJob, Step

ROUTER = "fe80::200:5eff:fe00:5213"
"""RFC 6543: the link-local address that every MAAR has on its access links."""

_ACCEPTED = 0


def step(job: MainJob, seen: Step) -> None:
    """All assertions about one step."""
    _node(job, seen)
    if job.counts_messages:
        _client_reply(job, seen)
        _relay_options(job, seen)
        _binding_updates(job, seen)
    _ways(job, seen)
    _kernels(job, seen)


def anchors(job: MainJob, serving: MaarPlan) -> list[MaarPlan]:
    """The MAARs that anchor prefixes of the node away from where it is."""
    return [plan for plan in job.visited if plan != serving]


# --- at the node ---


def _node(job: MainJob, seen: Step) -> None:
    addresses = job.lab.mn.addresses()
    states = {entry.anchor: entry.preferred > 0 for entry in addresses if entry.anchor}
    expected = {plan: plan == seen.plan for plan in job.visited}
    others = [plan.name.upper() for plan in anchors(job, seen.plan)]
    what = f"MN: address of {seen.plan.name.upper()} preferred"
    if others:
        what += f", deprecated: {', '.join(others)}"
    job.checks.that(
        what,
        states == expected and len(addresses) == len(expected),
        [f"{entry} preferred {entry.preferred} s" for entry in addresses],
    )
    job.checks.equal(
        "MN: one default router, the same everywhere", job.lab.mn.default_routers(), [ROUTER]
    )
    job.checks.that("MN: dhcpcd is the process started in the beginning", job.client_still_runs)


# --- on the wire: DHCPv6 ---


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


def _relay_options(job: MainJob, seen: Step) -> None:
    """The last Relay-reply with a Reply: VISIT, ANCHORED_PREFIX, PREVIOUS_MAAR, exactly."""
    reply = _last(seen, "Relay-reply", sender=CMD_NAME, inner="Reply", having=dmm.AnchoredPrefix)
    suboptions = reply.suboptions if reply else ()
    here = {s.prefix for s in suboptions if isinstance(s, dmm.AnchoredPrefix)}
    job.checks.equal(
        f"Relay-reply to {seen.plan.name.upper()}: ANCHORED_PREFIX for what it gave",
        _named(here, job.names),
        _named(job.prefixes[seen.plan], job.names),
    )
    previous = {(s.prefix, s.endpoint) for s in suboptions if isinstance(s, dmm.PreviousMaar)}
    expected = {
        (prefix, plan.endpoint) for plan in anchors(job, seen.plan) for prefix in job.prefixes[plan]
    }
    if job.lab.mode == "locator":
        # The anchors that are still expected tell the S-MAAR themselves.
        told = [s.expected for s in suboptions if isinstance(s, dmm.Signalling)]
        named = {endpoint for _, endpoint in previous}
        job.checks.equal(
            "Relay-reply: SIGNALLING says how many anchors are not named",
            told,
            [len(anchors(job, seen.plan)) - len(named)],
        )
        expected = {(prefix, endpoint) for prefix, endpoint in expected if endpoint in named}
    job.checks.equal(
        "Relay-reply: PREVIOUS_MAAR for each prefix anchored elsewhere, and no other",
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


# --- on the wire: PMIPv6 ---


def _binding_updates(job: MainJob, seen: Step) -> None:
    updates = [m for m in seen.messages if isinstance(m.mobility, mh.BindingUpdate)]
    answers = [m for m in seen.messages if isinstance(m.mobility, mh.BindingAcknowledgement)]
    serving = seen.plan.name.upper()
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


# --- on the wire: the flows ---


def expected_way(flow: Flow, serving: MaarPlan, *, up: bool) -> Way:
    """Direct where the flow's address is anchored, else through the tunnel between serving and anchoring MAAR."""
    anchor, cn = flow.anchor, flow.peer.node
    if anchor == serving:
        nodes = ["mn", serving.node, "core", cn]
        return paths.direct(*(nodes if up else reversed(nodes)))
    nodes = ["mn", serving.node, "core", anchor.node, "core", cn]
    if up:
        way = paths.direct(*nodes)
        return paths.tunnelled(way, serving.node, anchor.node, (serving.endpoint, anchor.endpoint))
    way = paths.direct(*reversed(nodes))
    return paths.tunnelled(way, anchor.node, serving.node, (anchor.endpoint, serving.endpoint))


def _ways(job: MainJob, seen: Step) -> None:
    for flow in job.flows.values():
        found = {up: seen.ways[flow.name, "up" if up else "down"] for up in (True, False)}
        expected = {up: expected_way(flow, seen.plan, up=up) for up in (True, False)}
        if flow.anchor == seen.plan:
            what = f"{flow.name}: every packet direct through {seen.plan.name.upper()}, none encapsulated"
        else:
            what = (
                f"{flow.name}: every packet through the tunnel T{seen.plan.number}–T{flow.anchor.number}"
                ", both ways"
            )
        job.checks.that(
            what,
            all(set(found[up]) == {expected[up]} for up in (True, False)),
            "; ".join(
                f"{count} × {paths.text(way, job.names)}"
                for up in (True, False)
                for way, count in found[up].items()
            )
            or "no packets",
        )

    if any(flow.anchor != seen.plan for flow in job.flows.values()):
        job.checks.equal(
            "the tunnel is plain IPv6-in-IPv6 (RFC 2473): no header between the two",
            seen.extensions,
            set(),
        )


def source_is_local(job: MainJob, flow: Flow) -> None:
    """A flow for which nobody chose an address has one of the MAAR where it was begun."""
    job.checks.that(
        f"{flow.name}: the node itself chose its source out of {flow.anchor.name.upper()}'s prefix",
        flow.anchor.anchors(flow.stream.address),
        job.names.address(flow.stream.address),
    )


def flows_are_whole(checks: Checks, counts: Mapping[str, Counts]) -> None:
    """After the end of the flows: every octet of both directions has arrived, once and in order."""
    for name, count in counts.items():
        checks.that(
            f"{name}: MN sent {count.mn_sent:,} octets, {count.cn_received:,} arrived; "
            f"CN sent {count.cn_sent:,}, {count.mn_received:,} arrived, all intact",
            count.complete,
            count,
        )


# --- in the kernels ---


def mn_link_local() -> bytes:
    """The mobile node's link-local address (RFC 4291 appendix A, from its link-layer address)."""
    octets = bytearray(bytes.fromhex(MN_LINK_LAYER.replace(":", "")))
    octets[0] ^= 2
    return parse_address("fe80::")[:8] + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])


def _kernels(job: MainJob, seen: Step) -> None:
    serving, node = seen.plan, mn_link_local()
    wrong = []
    for anchor, prefixes in job.prefixes.items():
        for prefix in prefixes:
            down = {plan: seen.decisions[plan, prefix, "down"] for plan in MAAR_PLANS}
            name = job.names.prefix(prefix)
            if down[serving].via != node or down[serving].peer is not None:
                wrong.append(f"{serving.name} {name}: {down[serving].text(job.names)}")
            if anchor != serving and down[anchor].peer != serving.endpoint:
                wrong.append(f"{anchor.name} {name}: {down[anchor].text(job.names)}")
            wrong += [
                f"{plan.name} {name} still to the node"
                for plan in MAAR_PLANS
                if plan != serving and down[plan].via == node
            ]
    local = "on-link via the node's link-local"
    away = "; anchors: tunnel to T" + str(serving.number) if anchors(job, serving) else ""
    job.checks.that(f"kernels, to the node: {serving.name.upper()} {local}{away}", not wrong, wrong)
    wrong = []
    for anchor, prefixes in job.prefixes.items():
        for prefix in prefixes:
            up = seen.decisions.get((serving, prefix, "up"))
            peer = None if anchor == serving else anchor.endpoint
            if up is None or up.unreachable or up.peer != peer:
                text = up.text(job.names) if up else "not served"
                wrong.append(f"{job.names.prefix(prefix)}: {text}")
    job.checks.that(
        f"kernels, from the node: {serving.name.upper()} sends by source prefix, each to its anchor",
        not wrong,
        wrong,
    )


def kernels_are_clean(job: MainJob) -> None:
    """After `stop`: each MAAR's kernel is as it was before its start."""
    for plan in MAAR_PLANS:
        before = job.lab.kernels[plan].splitlines()
        after = kernel.snapshot(job.lab.topology, plan).splitlines()
        left = [f"+ {line}" for line in after if line not in before]
        gone = [f"- {line}" for line in before if line not in after]
        job.checks.that(
            f"{plan.name.upper()}: after stop the kernel is as it was found",
            not left and not gone,
            "\n".join(left + gone),
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
