"""What must be true of the routers after each step of the scenario: one and the same for all MAARs (RFC 6543), or one
for each anchor (RFC 8885 section 3.7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import format_address, format_mac
from dmm_wire.mobility.registration import told
from dmm_wire.mobility.routers import routers_in
from dmm_wire.router_identity import ETHERNET, FIXED
from lab import routers
from lab.daemons import DLIF
from lab.topology import MAAR_PLANS, PLANS, MaarPlan

if TYPE_CHECKING:
    from lab.lab import Lab
    from lab.messages import Message
    from lab.scenario import MainJob, Step


def at_the_node(job: MainJob, seen: Step) -> None:
    """What the host knows of its routers."""
    lab = job.lab
    known = lab.node.default_routers()
    if lab.router != DLIF:
        same = [format_address(FIXED.link_local)]
        job.checks.equal("MN: one default router, the same everywhere", known, same)
        return
    expected = routers.link_locals(job.visited)
    if lab.registers:
        job.checks.equal(
            "MN: a default router for each anchor, the same ones everywhere", known, expected
        )
    else:
        # dhcpcd installs one default route, whatever there is; a prefix leads to its router.
        job.checks.that(
            "MN: its default router is one that it has met, and each prefix leads to that of its anchor",
            bool(known) and set(known) <= set(expected) and knows_its_routers(lab, job.visited),
            (known, routers.ways(lab.topology)),
        )
    wrong = routers.mistaken(lab.topology)
    job.checks.that(
        "MN: each router it knows has the link-layer address it always had", not wrong, wrong
    )
    found = {plan.name: routers.shown(lab.topology, plan) for plan in MAAR_PLANS}
    at = {plan.name: routers.macs([plan]) for plan in MAAR_PLANS}
    at[seen.plan.name] = routers.macs(job.visited)
    names = ", ".join(plan.name.upper() for plan in MAAR_PLANS if plan in job.visited)
    what = f"{seen.plan.name.upper()} shows itself as {names}, the other MAARs as themselves"
    job.checks.equal(what, found, at)


def knows_its_routers(lab: Lab, visited: list[MaarPlan]) -> bool:
    """Whether the host has a way by each of its routers: what is said of these comes after what makes a move."""
    if lab.router != DLIF:
        return True
    if lab.registers:
        return lab.node.default_routers() == routers.link_locals(visited)
    expected = {plan: format_address(plan.router.link_local) for plan in visited}
    return routers.ways(lab.topology) == expected


def on_the_wire(job: MainJob, seen: Step) -> None:
    """What the S-MAAR is told of the anchors as routers, by whom it is told of anchors."""
    if job.lab.router != DLIF:
        return
    wrong: list[str] = []
    spoken: set[MaarPlan] = set()
    for message in seen.messages:
        for endpoint, said in _said(job, message, seen.plan).items():
            plan = next(each for each in PLANS if each.endpoint == endpoint)
            spoken.add(plan)
            if said != tuple(plan.router):
                wrong.append(f"{message.sender} of {plan.name}: {_text(*said)}")
    others = {plan for plan in job.visited if plan != seen.plan}
    job.checks.that(
        "to the S-MAAR, of each anchor: the addresses of its DLIF (sub-options 6 and 7, options 69 and 70)"
        if others
        else "of no other MAAR it is said which router it is",
        not wrong and spoken == others,
        wrong or [plan.name for plan in spoken],
    )


def _said(
    job: MainJob, message: Message, serving: MaarPlan
) -> dict[bytes, tuple[bytes | None, bytes | None]]:
    if message.receiver != serving.name.upper():
        return {}
    answer = message.mobility
    if isinstance(answer, mh.BindingAcknowledgement):
        sender = next((p.endpoint for p in PLANS if p.name.upper() == message.sender), None)
        suboptions = told(answer, dmm.DEFAULT_ENTERPRISE) if sender is None else ()
        found = routers_in(answer.options, sender)
    else:
        suboptions, found = message.suboptions, {}
    for each in suboptions:
        if isinstance(each, dmm.PreviousMaar):
            mac = each.dlif_link_layer
            link_layer = mac[1] if mac is not None and mac[0] == ETHERNET else None
            found[each.endpoint] = each.dlif_link_local, link_layer
    return found


def _text(link_local: bytes | None, link_layer: bytes | None) -> str:
    address = "no link-local" if link_local is None else format_address(link_local)
    return f"{address} {'no link-layer' if link_layer is None else format_mac(link_layer)}"
