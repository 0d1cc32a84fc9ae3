"""Reads a MAAR's kernel: its routes, by destination and by source, and its neighbours, by `ip`."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from dmm_wire.address import Prefix, parse_address, parse_mac
from lab import netns
from lab.faults.frames import ROUTER_MAC
from lab.faults.oracle import View, is_in_a_pool
from lab.kernel import UNREACHABLE, Decision
from lab.topology import MaarPlan, Topology


def view(topology: Topology, plan: MaarPlan) -> View:
    """What the kernel of a MAAR holds now."""
    namespace = topology.namespace(plan.node)
    links = netns.ip_json("link", "show", namespace=namespace)
    routes: dict[Prefix, list[Decision]] = defaultdict(list)
    sources: dict[Prefix, list[Decision]] = defaultdict(list)
    for row in netns.ip_json("-d", "-6", "route", "show", "table", "all", namespace=namespace):
        if "from" in row:
            source = _prefix(row["from"])
            if is_in_a_pool(source):
                sources[source].append(_decision(row))
            continue
        if row["dst"] == "default":
            continue
        prefix = _prefix(row["dst"])
        if row.get("table") in (None, "main") and is_in_a_pool(prefix):
            routes[prefix].append(_decision(row))
    neighbours = netns.ip_json("-6", "neigh", "show", "nud", "permanent", namespace=namespace)
    router = next((row["ifname"] for row in links if _is_router(row)), "")
    return View(
        router,
        {prefix: tuple(found) for prefix, found in routes.items()},
        {prefix: _tunnels(found) for prefix, found in sources.items()},
        {
            parse_address(row["dst"]): parse_mac(row["lladdr"])
            for row in neighbours
            if row["dev"] == router
        },
    )


def _tunnels(found: list[Decision]) -> tuple[bytes | None, ...]:
    """There are two routes from a prefix: into a tunnel, and an unreachable one behind it. One that is missing is said
    to lead to nobody."""
    tunnels = tuple(each.peer for each in found if not each.unreachable)
    return tunnels if tunnels and found.count(UNREACHABLE) == 1 else (*tunnels, None)


def _prefix(text: str) -> Prefix:
    return Prefix.parse(text if "/" in text else f"{text}/128")


def _is_router(row: dict[str, Any]) -> bool:
    address = row.get("address", "")
    return len(address) == 17 and parse_mac(address) == ROUTER_MAC


def _decision(row: dict[str, Any]) -> Decision:
    if row.get("type") in ("unreachable", "prohibit", "blackhole"):
        return UNREACHABLE
    segments: list[str] = row.get("segs") or []
    return Decision(
        str(row["dev"]),
        parse_address(row["gateway"]) if "gateway" in row else None,
        parse_address(segments[0]) if len(segments) == 1 else None,
    )
