"""What the kernel of a MAAR would do with a packet now, by its own answer to `ip route get`."""

from __future__ import annotations

from dataclasses import dataclass

from dmm_wire.address import Prefix, format_address, parse_address
from lab import netns
from lab.names import Names
from lab.topology import CORE_INTERFACE, MaarPlan, Topology

_SOME_HOST = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a packet goes: by `device`, to the neighbour `via`, in a tunnel to the MAAR endpoint `peer`; `unreachable`
    and nothing else when it is answered with an ICMPv6 error."""

    device: str = ""
    via: bytes | None = None
    peer: bytes | None = None
    unreachable: bool = False

    def text(self, names: Names) -> str:
        """For a person: "tunnel to T2", "to the core", "via fe80::1 dev access", "unreachable"."""
        if self.unreachable:
            return "unreachable"
        if self.peer is not None:
            return f"tunnel to {names.address(self.peer)}"
        if self.device == CORE_INTERFACE:
            return "to the core"
        via = f"via {format_address(self.via)} " if self.via else ""
        return f"{via}dev {self.device}"


UNREACHABLE = Decision(unreachable=True)


def down(topology: Topology, plan: MaarPlan, prefix: Prefix, source: str) -> Decision:
    """What a MAAR does with a packet from `source` that comes from the core for an address in `prefix`."""
    return _ask(topology, plan, host_in(prefix), source, plan.core_interface)


def up(
    topology: Topology, plan: MaarPlan, prefix: Prefix, destination: str, device: str
) -> Decision:
    """What a MAAR does with a packet that comes from its access link, from an address in `prefix`."""
    return _ask(topology, plan, destination, host_in(prefix), device)


def host_in(prefix: Prefix) -> str:
    """The text of an address in the prefix."""
    number = int.from_bytes(prefix.address, "big") + _SOME_HOST
    return format_address(number.to_bytes(16, "big"))


def routes_with_protocol(topology: Topology, plan: MaarPlan, protocol: int) -> list[str]:
    """All routes of a MAAR that carry this route protocol number, in every table, as text."""
    text = netns.ip(
        *("-6", "route", "show", "table", "all", "proto", str(protocol)),
        namespace=topology.namespace(plan.node),
    )
    return [line.strip() for line in text.splitlines() if line.strip()]


def rules(topology: Topology, plan: MaarPlan) -> list[str]:
    """The policy rules of a MAAR, as text."""
    text = netns.ip("-6", "rule", "show", namespace=topology.namespace(plan.node))
    return [line.strip() for line in text.splitlines() if line.strip()]


def _ask(
    topology: Topology, plan: MaarPlan, destination: str, source: str, device: str
) -> Decision:
    question = ("-6", "route", "get", destination, "from", source, "iif", device)
    try:
        answer = netns.ip_json(*question, namespace=topology.namespace(plan.node))[0]
    except netns.LabError as problem:
        # The kernel's answer for an unreachable, prohibit or missing route: the error a sender would get.
        if "No route to host" in str(problem) or "Network is unreachable" in str(problem):
            return UNREACHABLE
        raise
    if answer.get("type") in ("unreachable", "prohibit", "blackhole"):
        return UNREACHABLE
    segments: list[str] = answer.get("segs") or []
    peer = segments[0] if len(segments) == 1 else answer.get("dst6")
    gateway = answer.get("gateway")
    return Decision(
        device=str(answer.get("dev", "")),
        via=parse_address(gateway) if gateway else None,
        peer=parse_address(peer) if peer else None,
    )


def snapshot(topology: Topology, plan: MaarPlan) -> str:
    """Links, addresses, rules, routes and filters of a MAAR as text: equal before a start and after a stop."""
    namespace = topology.namespace(plan.node)
    questions = (
        ("-o", "link", "show"),
        ("-o", "-6", "addr", "show"),
        ("-6", "rule", "show"),
        ("-6", "route", "show", "table", "all"),
        ("-6", "neigh", "show", "nud", "permanent"),
    )
    filters = netns.run_in(namespace, "nft", "-s", "list", "ruleset")
    return "\n".join(
        [*(netns.ip(*question, namespace=namespace) for question in questions), filters]
    )
