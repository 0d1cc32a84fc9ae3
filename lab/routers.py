"""The routers of a lab with one for each anchor (RFC 8885 section 3.7): those that the MAARs show, and what a host
takes for them.
"""

from __future__ import annotations

from collections.abc import Iterable

from dmm_wire.address import Prefix, format_address, format_mac, parse_address
from lab import netns
from lab.topology import MAAR_PLANS, MN_INTERFACE, MaarPlan, Topology


def link_locals(plans: Iterable[MaarPlan]) -> list[str]:
    """The link-local addresses of these MAARs as routers, sorted."""
    return sorted(format_address(plan.router.link_local) for plan in plans)


def macs(plans: Iterable[MaarPlan]) -> list[str]:
    """Their link-layer addresses, sorted."""
    return sorted(format_mac(plan.router.link_layer) for plan in plans)


def shown(topology: Topology, plan: MaarPlan) -> list[str]:
    """The link-layer addresses of the routers that a MAAR shows on its access link, sorted."""
    arguments = ["link", "show", "type", "macvlan"]
    found = netns.ip_json(*arguments, namespace=topology.namespace(plan.node))
    return sorted(str(link["address"]) for link in found)


def ways(topology: Topology) -> dict[MaarPlan, str]:
    """The router by which the host reaches each of its prefixes, by the MAAR that anchors it. A host that chooses a
    router by its default routes alone has none."""
    rows = netns.ip_json("-6", "route", "show", namespace=topology.namespace("mn"))
    return {
        plan: str(row["gateway"])
        for row in rows
        for plan in MAAR_PLANS
        if "gateway" in row
        and row["dst"] != "default"
        and plan.link_pool.contains(Prefix.parse(row["dst"]))
    }


def neighbours(topology: Topology) -> dict[bytes, str]:
    """What the host takes for the link-layer address of each of its neighbours."""
    arguments = f"-6 neigh show dev {MN_INTERFACE}".split()
    found = netns.ip_json(*arguments, namespace=topology.namespace("mn"))
    return {parse_address(each["dst"]): each["lladdr"] for each in found if "lladdr" in each}


def mistaken(topology: Topology) -> list[str]:
    """What the host has wrong of the routers' link-layer addresses."""
    known = neighbours(topology)
    return [
        f"{format_address(plan.router.link_local)} is {known[plan.router.link_local]}"
        for plan in MAAR_PLANS
        if known.get(plan.router.link_local) not in (None, format_mac(plan.router.link_layer))
    ]
