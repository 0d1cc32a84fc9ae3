"""Reads a MAAR's kernel: its routes, rules and neighbours, by `ip`."""

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
    peers: dict[str, bytes] = {}
    for row in netns.ip_json("-d", "-6", "route", "show", "table", "all", namespace=namespace):
        if row["dst"] == "default":
            if row.get("segs"):
                peers[row["table"]] = parse_address(row["segs"][0])
            continue
        prefix = _prefix(row["dst"])
        if row.get("table") in (None, "main") and is_in_a_pool(prefix):
            routes[prefix].append(_decision(row))
    rules: dict[Prefix, list[bytes | None]] = defaultdict(list)
    for row in netns.ip_json("-6", "rule", "show", namespace=namespace):
        if row["src"] != "all":
            source = Prefix.of(parse_address(row["src"]), row.get("srclen", 128))
            if is_in_a_pool(source):
                rules[source].append(peers.get(row["table"]))
    neighbours = netns.ip_json("-6", "neigh", "show", "nud", "permanent", namespace=namespace)
    router = next((row["ifname"] for row in links if _is_router(row)), "")
    return View(
        router,
        {prefix: tuple(found) for prefix, found in routes.items()},
        {prefix: tuple(found) for prefix, found in rules.items()},
        {
            parse_address(row["dst"]): parse_mac(row["lladdr"])
            for row in neighbours
            if row["dev"] == router
        },
    )


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
