"""What must be true after each step of the scenario, on the wire, in the kernels and at the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dmm_wire.address import parse_address
from lab import expect_routers, kernel, paths
from lab.checks import Checks
from lab.expect_signalling import anchors, signalling
from lab.flows import Counts
from lab.paths import Way
from lab.topology import MAAR_PLANS, MN_LINK_LAYER, MaarPlan

if TYPE_CHECKING:
    from lab.scenario import Flow, MainJob, Step


def step(job: MainJob, seen: Step) -> None:
    """All assertions about one step."""
    _node(job, seen)
    if job.counts_messages:
        signalling(job, seen)
        expect_routers.on_the_wire(job, seen)
    _ways(job, seen)
    _kernels(job, seen)


# --- at the node ---


def _node(job: MainJob, seen: Step) -> None:
    addresses = job.lab.node.addresses()
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
    expect_routers.at_the_node(job, seen)
    if not job.lab.registers:
        job.checks.that("MN: dhcpcd is the process started in the beginning", job.client_still_runs)


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
