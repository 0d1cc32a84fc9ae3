"""The MAAR's configuration as the core needs it; `relay_maar.config` reads and validates the operator's TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dmm_wire.address import Prefix
from dmm_wire.mobility.security import Security
from dmm_wire.router_identity import RouterIdentity


@dataclass(frozen=True, slots=True)
class AccessLink:
    """An access interface. `link_address` identifies the link to the server (RFC 9915 section 19.1.1), `interface_id`
    is the Interface-Id option's content; `relays_below` lets Relay-forwards in (LDRA, RFC 6221)."""

    interface: str
    link_address: bytes
    interface_id: bytes
    link_layer: bytes
    """Our link-layer address on this link: the Source Link-Layer Address of RAs (RFC 6543's fixed one by default)."""
    relays_below: bool = False
    mtu: int = 1460
    """The MTU in RAs: fits the tunnel (1500 - 40)."""
    slaac: bool = False
    """Hosts may make their own addresses out of their prefix here, beside DHCPv6."""
    max_nodes: int = 65536
    """How many nodes are noticed on this link at a time: any host can show any link-layer address."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Router advertisements (RFC 4861 section 6.2.1); all in seconds."""

    min_interval: float = 20.0
    max_interval: float = 60.0
    router_lifetime: int = 1800
    autonomous: bool = False
    """Hosts make their own addresses out of the prefixes that they are told (RFC 4862), and are not sent to DHCPv6."""


TRIGGERS: Mapping[str, frozenset[str]] = {
    "mld": frozenset({"mld"}),
    "rs": frozenset({"rs"}),
    "nd": frozenset({"dad", "ns", "na", "una"}),
    "data": frozenset({"data"}),
}
"""What can show that a node has come, by the operator's word, and the kinds of frames that do."""


@dataclass(frozen=True, slots=True)
class AttachSettings:
    """How it is noticed that a node has come (`relay_maar.core.attaching`)."""

    triggers: frozenset[str] = frozenset({"hook"}).union(*TRIGGERS.values())
    """The kinds of frames, and "hook" for the word of an access point."""
    sources: tuple[Prefix, ...] = (Prefix(b"\x20" + bytes(15), 3), Prefix(b"\xfc" + bytes(15), 7))
    """Out of which a packet's source shows a node: the domain's pools, or all that can be one."""
    rate: float = 100.0
    burst: float = 2000.0
    """Nodes of one link that the CMD is asked about in a second, and at once."""
    late: float = 3.0
    """Seconds after a node left for which its frames may be late ones."""
    probes: int = 3
    probe_interval: float = 0.1
    """Neighbour probes that a node may leave unanswered, and seconds between them."""
    confirm: float = 300.0
    """Seconds after which the CMD hears again of a node that is still here."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """All that the core needs to know about this MAAR."""

    name: str
    endpoint: bytes
    relay_id: bytes
    pools: tuple[Prefix, ...]
    access: tuple[AccessLink, ...]
    servers: tuple[bytes, ...]
    cmds: tuple[bytes, ...] = ()
    """The CMDs' addresses for PMIPv6: they may send PBUs (modes other than `direct`)."""
    enterprise: int = 32473
    capabilities: int = 0xC000
    access_technology: int = 4
    """RFC 5213 section 8.5: 4 is IEEE 802.11a/b/g."""
    domain_refresh: float = 60.0
    """How often the CMD is asked for the domain's MAARs (seconds); also at start, then with backoff until answered."""
    router: RouterSettings = RouterSettings()
    identity: RouterIdentity | None = None
    """As which router we are shown to nodes, here and elsewhere, where each anchor is one of its own (RFC 8885 section
    3.7); None: all MAARs are the same one (RFC 6543)."""
    registers: bool = False
    """Nodes are registered with the CMD by PMIPv6. DHCPv6 is relayed besides where there are `servers` (RFC 5213
    section 6.11)."""
    registration_lifetime: int = 3600
    """Seconds for which a node is registered at a time."""
    own_prefixes: Prefix | None = None
    """Out of which this MAAR chooses the prefix of a node that it registers (RFC 8885 section 3.1); None: the CMD
    chooses."""
    attach: AttachSettings = AttachSettings()
    security: Security = field(default_factory=Security)
