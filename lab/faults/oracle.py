"""What the kernels of all MAARs must hold, from where the nodes are and what they have; and whether they do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dmm_wire.address import Prefix, format_address, format_mac
from lab.kernel import UNREACHABLE, Decision
from lab.topology import CORE_INTERFACE, MAAR_PLANS, MaarPlan

_BY_ENDPOINT = {plan.endpoint: plan for plan in MAAR_PLANS}
_LONGEST_WAY = 4


@dataclass(frozen=True, slots=True)
class Truth:
    """Where a node is, and which prefixes it has: nothing of it comes from a program under test, but for the prefixes,
    which are what the node itself was given."""

    name: str
    mac: bytes
    link_local: bytes
    at: MaarPlan
    prefixes: frozenset[Prefix]


@dataclass(frozen=True, slots=True)
class View:
    """What a MAAR's kernel holds: in the main table, the routes to prefixes in anybody's pools; of the routes from such
    prefixes, the MAARs whose tunnels they lead into (None: to nobody); permanent neighbours. `router` is its interface
    to the nodes."""

    router: str
    routes: Mapping[Prefix, tuple[Decision, ...]] = field(default_factory=dict)
    sources: Mapping[Prefix, tuple[bytes | None, ...]] = field(default_factory=dict)
    neighbours: Mapping[bytes, bytes] = field(default_factory=dict)


def anchor(prefix: Prefix) -> MaarPlan:
    """The MAAR out of whose pool a prefix is."""
    return next(plan for plan in MAAR_PLANS if plan.anchors(prefix))


def is_in_a_pool(prefix: Prefix) -> bool:
    """Whether a prefix is a pool, or out of one."""
    return any(plan.anchors(prefix) for plan in MAAR_PLANS)


def differences(
    views: Mapping[MaarPlan, View], truths: Iterable[Truth], *, echoes: bool = False
) -> list[str]:
    """All that is wrong, a line each; nothing if every kernel is as it must be. `echoes`: a prefix that has ended may
    be Unreachable for a while at a MAAR that it is not anchored at (role ENDED)."""
    truths = list(truths)
    wrong: list[str] = []
    for plan, view in views.items():
        wrong += [f"{plan.name}: {line}" for line in _at(plan, view, truths, echoes)]
    for truth in truths:
        wrong += _astray(views, truth)
    return wrong


@dataclass(slots=True)
class _Expected:
    """Of one MAAR's kernel: what must be there and, of routes, what else may be."""

    routes: dict[Prefix, Decision]
    pointers: dict[Prefix, Decision] = field(default_factory=dict)
    sources: dict[Prefix, bytes] = field(default_factory=dict)
    neighbours: dict[bytes, bytes] = field(default_factory=dict)
    owners: dict[Prefix, Truth] = field(default_factory=dict)

    def of(self, prefix: Prefix) -> str:
        """Whose the prefix is, for a person."""
        truth = self.owners.get(prefix)
        return f"{prefix} of {truth.name} at {truth.at.name}" if truth else f"{prefix} of nobody"


def _expected(plan: MaarPlan, router: str, truths: list[Truth]) -> _Expected:
    right = _Expected({plan.link_pool: UNREACHABLE, plan.delegated_pool: UNREACHABLE})
    for truth in truths:
        to_serving = Decision(CORE_INTERFACE, peer=truth.at.endpoint)
        for prefix in truth.prefixes:
            right.owners[prefix] = truth
            if truth.at == plan:
                right.routes[prefix] = Decision(router, via=truth.link_local)
                if anchor(prefix) != plan:
                    right.sources[prefix] = anchor(prefix).endpoint
            elif anchor(prefix) == plan:
                right.routes[prefix] = to_serving
            elif anchor(prefix) != truth.at:
                # It served the prefix once: what still comes goes after the node (role FORWARDED).
                right.pointers[prefix] = to_serving
        if truth.at == plan and truth.prefixes:
            right.neighbours[truth.link_local] = truth.mac
    return right


def _at(plan: MaarPlan, view: View, truths: list[Truth], echoes: bool) -> list[str]:
    right = _expected(plan, view.router, truths)
    wrong = []
    for prefix in {**view.routes, **right.routes}:
        found = view.routes.get(prefix, ())
        must = prefix in right.routes
        allowed = right.routes.get(prefix) or right.pointers.get(prefix)
        if echoes and prefix not in right.owners and anchor(prefix) != plan:
            allowed = UNREACHABLE
        if len(found) > 1 or found != ((allowed,) if must or found else ()):
            wanted = text(allowed) + (" or none" if allowed and not must else "")
            wrong.append(f"route to {right.of(prefix)}: {_all(found)}, expected {wanted}")
    for prefix in {**view.sources, **right.sources}:
        sources, source = view.sources.get(prefix, ()), right.sources.get(prefix)
        if sources != ((source,) if source else ()):
            said = ", ".join(_name(each) for each in sources) or "none"
            wanted = _name(source) if source else "none"
            wrong.append(f"way from {right.of(prefix)}: {said}, expected {wanted}")
    for address in {**view.neighbours, **right.neighbours}:
        macs = view.neighbours.get(address), right.neighbours.get(address)
        if macs[0] != macs[1]:
            said, wanted = (format_mac(mac) if mac else "none" for mac in macs)
            wrong.append(f"neighbour {format_address(address)}: {said}, expected {wanted}")
    return wrong


def _astray(views: Mapping[MaarPlan, View], truth: Truth) -> list[str]:
    """Follow a packet to each prefix, from each MAAR, by what the kernels hold."""
    wrong = []
    for prefix in truth.prefixes:
        for start in views:
            way = [start]
            end = _follow(views, prefix, way)
            if end != Decision(views[way[-1]].router, via=truth.link_local) or way[-1] != truth.at:
                path = ", ".join(plan.name for plan in way)
                wrong.append(f"to {prefix} of {truth.name} at {truth.at.name}: {path}, {text(end)}")
    return wrong


def _follow(views: Mapping[MaarPlan, View], prefix: Prefix, way: list[MaarPlan]) -> Decision | None:
    """Where the way of a packet ends; None for a loop. `way` has the MAARs that it passes."""
    while len(way) <= _LONGEST_WAY:
        decision = _longest_match(views[way[-1]], prefix)
        if decision is None:
            if way[-1] == anchor(prefix):
                return UNREACHABLE
            way.append(anchor(prefix))
        elif decision.peer is not None:
            way.append(_BY_ENDPOINT[decision.peer])
        else:
            return decision
    return None


def _longest_match(view: View, prefix: Prefix) -> Decision | None:
    matches = [each for each in view.routes if each.contains(prefix)]
    if not matches:
        return None
    return view.routes[max(matches, key=lambda each: each.length)][0]


def text(decision: Decision | None) -> str:
    """For a person."""
    if decision is None:
        return "none"
    if decision.unreachable:
        return "unreachable"
    if decision.peer is not None:
        return f"tunnel to {_name(decision.peer)}"
    via = f"via {format_address(decision.via)} " if decision.via else ""
    return f"{via}dev {decision.device}"


def _all(found: tuple[Decision, ...]) -> str:
    return " and ".join(map(text, found)) or "none"


def _name(endpoint: bytes | None) -> str:
    if endpoint is None:
        return "nobody"
    plan = _BY_ENDPOINT.get(endpoint)
    return plan.name if plan else format_address(endpoint)
