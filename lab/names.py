"""Short names for the addresses of the lab, so that a person can follow: T2, Pref1, Del1, CN1."""

from __future__ import annotations

from dmm_wire.address import UNSPECIFIED, Prefix, format_address, parse_address
from lab.topology import CMD, CN1, CN2, MAAR_PLANS, PLANS

_LINK_UNIT = 64
_DELEGATED_UNIT = 56

MN = "MN"
CMD_NAME = "CMD"
COLUMNS = (MN, *(plan.name.upper() for plan in MAAR_PLANS), CMD_NAME)
"""Who takes part in the signalling, in the order of the lab's picture."""

NODES = {
    "mn": MN,
    "core": "core",
    **{plan.node: plan.name.upper() for plan in PLANS},
    **{host.node: host.node.upper() for host in (CMD, CN1, CN2)},
}
"""What a person calls a node of the topology."""

_HOSTS = {host.packed: host.node.upper() for host in (CMD, CN1, CN2)}
_ENDPOINTS = {plan.endpoint: f"T{plan.number}" for plan in PLANS}
_ROUTERS = {plan.router.link_local: f"R{plan.number}" for plan in PLANS}
_OTHERS = {UNSPECIFIED: "::", parse_address("ff02::1:2"): "all DHCPv6 agents"}


class Names:
    """Names for addresses and prefixes; the mobile node's get theirs when they are first seen."""

    def __init__(self) -> None:
        self._prefixes: dict[Prefix, str] = {}

    def prefix(self, prefix: Prefix) -> str:
        """Pref1 for the /64 that MAAR1's link pool gave, Del1 for the delegated one; text for others."""
        for plan in PLANS:
            if plan.link_pool.contains(prefix):
                unit = Prefix.of(prefix.address, _LINK_UNIT)
                name = self._name(unit, f"Pref{plan.number}")
                return name if prefix.length == _LINK_UNIT else f"{name}::…/{prefix.length}"
            if plan.delegated_pool.contains(prefix) and prefix.length == _DELEGATED_UNIT:
                return self._name(prefix, f"Del{plan.number}")
        return str(prefix)

    def address(self, address: bytes) -> str:
        """CN1, T1, R1 for MAAR1 as a router of its own, Pref1::… for an address out of it; text for others."""
        for names in (_HOSTS, _ENDPOINTS, _ROUTERS, _OTHERS):
            if address in names:
                return names[address]
        if any(plan.link_pool.contains(address) for plan in PLANS):
            return f"{self.prefix(Prefix.of(address, _LINK_UNIT))}::…"
        return format_address(address)

    @property
    def given(self) -> dict[str, Prefix]:
        """What the names of the mobile node's prefixes stand for, in the order of their appearance."""
        return {name: prefix for prefix, name in self._prefixes.items()}

    def _name(self, prefix: Prefix, name: str) -> str:
        if prefix not in self._prefixes:
            # A second prefix from one MAAR would be a fault that must not look like the first one.
            taken = sum(known.startswith(name) for known in self._prefixes.values())
            self._prefixes[prefix] = name + "'" * taken
        return self._prefixes[prefix]
