"""The vocabulary of the CMD: what is stored, what a message asks, what is decided.

Times are integers, microseconds since the epoch (UTC). DHCPv6 lifetimes are integers, seconds (0xFFFFFFFF: infinity).
Addresses are 16 raw bytes, prefixes `dmm_wire.address.Prefix`. All values are immutable; those that come and go with
every message are named tuples, which cost a third of a frozen dataclass to make and to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.dhcpv6.message import Options
from dmm_wire.dmm import SignallingMode, SubOption
from dmm_wire.identity import Identity
from dmm_wire.router_identity import RouterIdentity, chosen

Micros: TypeAlias = int
NodeId: TypeAlias = int
MaarId: TypeAlias = int
PoolId: TypeAlias = int

MICROS = 1_000_000
"""Microseconds in a second."""


# --- The domain: MAARs, their links and their pools (few rows, kept in memory, reloaded when `version` moves) ---


class MaarState(StrEnum):
    """Whether a MAAR may anchor new prefixes (`ACTIVE`) or is being emptied (`DRAINING`)."""

    ACTIVE = "active"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Maar:
    """A registered mobility anchor and access router.

    `relay_id` (a DUID) is its key in Relay-forward messages (RFC 5460 section 5.4.1), `endpoint` the one address of its
    tunnels and PMIPv6 signalling, `relay_address` the UDP source of what it relays (normally the endpoint).
    `router_link_local` and `router_link_layer` are what hosts see of it as a router; of one that is None, what follows
    from the endpoint.
    """

    id: MaarId
    name: str
    relay_id: bytes
    endpoint: bytes
    relay_address: bytes
    state: MaarState = MaarState.ACTIVE
    router_link_local: bytes | None = None
    router_link_layer: bytes | None = None

    @property
    def router(self) -> RouterIdentity:
        """As which router hosts see it, where each MAAR is one of its own (RFC 8885 section 3.7)."""
        return chosen(self.endpoint, self.router_link_local, self.router_link_layer)


@dataclass(frozen=True, slots=True)
class Link:
    """An access link of a MAAR: the link-address of its Relay-forwards lies in `prefix`."""

    maar: MaarId
    prefix: Prefix


class Kind(StrEnum):
    """What a binding holds."""

    LINK = "link"
    """The prefix of the node on the MAAR's access link: all its IA_NA addresses come out of it."""
    ADDRESS = "address"
    """One IA_NA address (a /128 out of the node's LINK prefix, never out of a pool)."""
    DELEGATED = "delegated"
    """One IA_PD prefix."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A range that one MAAR alone hands out, in units of `unit_length` bits. `kind` is LINK or DELEGATED.

    `preferred` and `valid` are the lifetimes in seconds of what is given out of it.
    """

    id: PoolId
    maar: MaarId
    kind: Kind
    prefix: Prefix
    unit_length: int
    preferred: int
    valid: int
    size: int = field(init=False, compare=False)
    """How many units the pool has; slots run from 0 to `size - 1`."""
    first: int = field(init=False, compare=False)
    """The pool's first address as a number."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", 1 << (self.unit_length - self.prefix.length))
        object.__setattr__(self, "first", int.from_bytes(self.prefix.address, "big"))

    def unit(self, slot: int) -> Prefix:
        """The prefix in `slot`."""
        address = self.first + (slot << (128 - self.unit_length))
        return Prefix(address.to_bytes(16, "big"), self.unit_length)

    def slot(self, prefix: Prefix) -> int | None:
        """The slot of `prefix`, None when it is not a unit of this pool."""
        if prefix.length != self.unit_length:
            return None
        slot = self.slot_of(prefix.address)
        return slot if 0 <= slot < self.size else None

    def slot_of(self, address: bytes) -> int:
        """The slot that an address lies in; outside of 0 to `size - 1` where it lies outside of the pool."""
        return (int.from_bytes(address, "big") - self.first) >> (128 - self.unit_length)


@dataclass(frozen=True, slots=True)
class Domain:
    """All MAARs, links and pools of the mobility domain at one version, with the domain's allocation key."""

    version: int
    hash_key: bytes
    maars: Mapping[MaarId, Maar]
    links: tuple[Link, ...]
    pools: Mapping[MaarId, tuple[Pool, ...]]
    by_relay_id: Mapping[bytes, Maar]
    linked: Mapping[Identity, tuple[Identity, ...]] = field(default_factory=dict)
    """By each identifier that the operator linked (`dhcp-cmd node link`): all others of the same node."""
    _links: Mapping[int, Mapping[int, Link]] = field(init=False, compare=False, repr=False)
    """By prefix length, then by the bits of the prefix: a domain has thousands of links, of very few lengths."""
    _pools: Mapping[tuple[MaarId, Kind], tuple[Pool, ...]] = field(
        init=False, compare=False, repr=False
    )
    _endpoints: Mapping[bytes, Maar] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        found: dict[int, dict[int, Link]] = {}
        for link in reversed(self.links):  # of two that are the same, the first counts
            bits = int.from_bytes(link.prefix.address, "big") >> (128 - link.prefix.length)
            found.setdefault(link.prefix.length, {})[bits] = link
        object.__setattr__(self, "_links", found)
        by_kind: dict[tuple[MaarId, Kind], tuple[Pool, ...]] = {}
        for maar, pools in self.pools.items():
            for kind in (Kind.LINK, Kind.DELEGATED):
                by_kind[maar, kind] = tuple(pool for pool in pools if pool.kind is kind)
        object.__setattr__(self, "_pools", by_kind)
        endpoints = {maar.endpoint: maar for maar in self.maars.values()}
        object.__setattr__(self, "_endpoints", endpoints)

    def maar_at(self, endpoint: bytes) -> Maar | None:
        """The MAAR that has this endpoint."""
        return self._endpoints.get(endpoint)

    def pools_of(self, maar: MaarId, kind: Kind) -> tuple[Pool, ...]:
        """The MAAR's pools of that kind, LINK or DELEGATED."""
        return self._pools.get((maar, kind), ())

    def link_of(self, address: bytes) -> Link | None:
        """The link that an address lies in. Links do not overlap."""
        number = int.from_bytes(address, "big")
        for length, links in self._links.items():
            link = links.get(number >> (128 - length))
            if link is not None:
                return link
        return None


# --- What is stored about mobile nodes ---


class Node(NamedTuple):
    """A mobile node: a surrogate id, its identifiers, and the visit it is on.

    `serving` is its S-MAAR, `previous` the S-MAAR it just left (None: none), `generation` the visit's number
    (RFC 5213 timestamp format, `max(now, last + 1)`), `visit_since` when the visit began. `flaps` counts moves in a row
    that went back to the MAAR just left faster than a person moves.

    `link_layer` is the link-layer address of its last message that showed one: while the node holds anything, nobody
    speaks for it from another. `heard` is the last message of this visit (its type and transaction id), `heard_before`
    that of the visit before: a repeat of it comes late. `conflict_at` is when a conflict about it was last recorded.
    `registered` is the timestamp of the last Proxy Binding Update that was accepted for it (RFC 5213 section 5.5).
    """

    id: NodeId
    serving: MaarId | None
    previous: MaarId | None
    generation: int
    visit_since: Micros
    flaps: int
    identities: tuple[Identity, ...]
    link_layer: Identity | None = None
    heard: bytes | None = None
    heard_before: bytes | None = None
    conflict_at: Micros | None = None
    registered: int | None = None


class State(StrEnum):
    """The life of a binding. Its row is removed when it is reclaimed: only then may another node get the prefix."""

    ACTIVE = "active"
    """Anchored at the MAAR where the node is (or was last seen)."""
    DEPRECATED = "deprecated"
    """Anchored at a P-MAAR; the client sees preferred lifetime 0."""
    ENDED = "ended"
    """Released, expired, declined...; kept until every lifetime promised for it has run out (`reusable_at`)."""


class Binding(NamedTuple):
    """One prefix (or IA_NA address) of one node. The key is the first address of `prefix`.

    `iaid` is None for Kind.LINK, `pool` for Kind.ADDRESS. `valid_until` is the latest end ever
    promised to a client or a MAAR; `hold_until` caps it while the prefix is anchored away (`anchor-hold`), and where
    its node was de-registered a moment ago.
    An ended binding with `preferred_until` 0 was declined. A LINK prefix that has not ended has a `reusable_at`
    where one of its addresses is in quarantine until then. `autoconf` marks a LINK prefix that a MAAR registered by
    PMIPv6: the node makes its own addresses out of it, so it is in use though no address has a row.
    """

    prefix: Prefix
    kind: Kind
    node: NodeId
    iaid: int | None
    anchor: MaarId
    pool: PoolId | None
    state: State
    assigned_at: Micros
    preferred_until: Micros
    valid_until: Micros
    hold_until: Micros | None = None
    ended_at: Micros | None = None
    reusable_at: Micros | None = None
    autoconf: bool = False


class EventType(StrEnum):
    """What the append-only history records (DESIGN section 6)."""

    ASSIGNED = "assigned"
    """The binding exists and is ACTIVE: new, revived, or local again after a return."""
    HANDOVER = "handover"
    """The node's S-MAAR changed (also the first attach: `from_maar` is None). No prefix."""
    DEPRECATED = "deprecated"
    """The binding is anchored away from now on."""
    RELEASED = "released"
    """Ended by the client (Release, Decline), or given up by the operator or the MAAR; see `cause`."""
    EXPIRED = "expired"
    """Ended by a lifetime or a limit; `at` is the end itself, `recorded_at` when it was written down."""
    RECLAIMED = "reclaimed"
    """The row is gone; the prefix may be given to somebody else."""
    CONFLICT = "conflict"
    """Two nodes claimed one identity; nothing was moved (unless the policy says so)."""


class Event(NamedTuple):
    """One history row. `cause` says which message or actor: "solicit", "rebind", "pbu", "reaper", "max-anchors"..."""

    at: Micros
    recorded_at: Micros
    type: EventType
    node: NodeId
    cause: str
    prefix: Prefix | None = None
    kind: Kind | None = None
    iaid: int | None = None
    anchor: MaarId | None = None
    from_maar: MaarId | None = None
    to_maar: MaarId | None = None
    generation: int | None = None
    transaction_id: bytes | None = None
    detail: str | None = None


class Signal(NamedTuple):
    """A MAAR is owed a Proxy Binding Update about this node since `put_at`: it has not acknowledged where the node is
    (`visit`), or only what has changed of its prefixes since."""

    node: NodeId
    maar: MaarId
    visit: bool
    put_at: Micros


# --- What a message asks ---


class LeaseHint(NamedTuple):
    """An address (/128) or prefix that the client named inside an IA; `::/n` is a prefix-length hint (RFC 8168)."""

    prefix: Prefix
    preferred: int
    valid: int


class IaRequest(NamedTuple):
    """One IA_NA (`delegated` False) or IA_PD of a client message."""

    iaid: int
    delegated: bool
    hints: tuple[LeaseHint, ...]


class RelayLevel(NamedTuple):
    """One Relay-forward around the message. `source` is who sent it: the UDP source of the outermost level, the
    peer-address of the next level out for the others.
    """

    source: bytes
    link_address: bytes
    peer_address: bytes
    relay_id: bytes | None
    link_layer: tuple[int, bytes] | None
    suboptions: tuple[SubOption, ...] | None
    """None: the level has no option 17 of our enterprise number."""


class BindingRequest(NamedTuple):
    """A DHCPv6 message as the CMD sees it; `relays` outermost first, empty for a message that came directly."""

    type: int
    transaction_id: bytes
    client_id: bytes | None
    server_id: bytes | None
    rapid_commit: bool
    ias: tuple[IaRequest, ...]
    relays: tuple[RelayLevel, ...]
    source: bytes
    link: bytes = UNSPECIFIED
    """An address of the link where it was heard, for a message that came directly."""


class Registration(NamedTuple):
    """A Proxy Binding Update without Serving MAAR option, as the CMD sees it: a MAAR registers a node (RFC 8885 section
    3.1).

    `source` is the MAAR's endpoint, `link_layer` the node's address as in its option. `timestamp` has the format of RFC
    5213 section 8.8, `lifetime` is seconds (0: de-registration), `handoff` the Handoff Indicator. `prefixes` are the
    home network prefixes that are named, none for all-zero; `delegated` those of RFC 7148. `arrived` is when it came.
    `fault` is the status for what it lacks: `lacks` where a look at its timestamp comes first (RFC 5213 section 5.3.1,
    9). `forgot`: the MAAR says that it has lost what it knew. `later`: the generation of a visit of the node that it
    knows, and we may have lost.
    """

    source: bytes
    sequence: int
    identity: Identity | None
    link_layer: bytes | None
    timestamp: int
    lifetime: int
    handoff: int
    prefixes: tuple[Prefix, ...]
    delegated: tuple[Prefix, ...]
    arrived: Micros
    fault: int | None = None
    lacks: int | None = None
    forgot: bool = False
    later: int | None = None


# --- What the store reads for a batch, and what a decision asks back ---


class Lookup(NamedTuple):
    """What to read before one request is decided: the nodes of `identities` with all their bindings, and which of
    `candidates` (first addresses) are taken by any row."""

    identities: tuple[Identity, ...] = ()
    candidates: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Snapshot:
    """What was read. A batch shares one; core.apply makes a decision's changes visible to the next request."""

    domain: Domain
    nodes: dict[Identity, Node] = field(default_factory=dict)
    bindings: dict[NodeId, dict[bytes, Binding]] = field(default_factory=dict)
    """By node, then by the first address of the prefix; ENDED ones too."""
    taken: dict[bytes, NodeId] = field(default_factory=dict)
    """Candidates that have a row, and whose it is."""
    last_held: dict[tuple[NodeId, PoolId, int | None], Prefix | None] = field(default_factory=dict)
    """Answers to Need.last_held: the last prefix the node had from that pool for that IAID, from the history."""
    signals: dict[NodeId, dict[MaarId, Signal]] = field(default_factory=dict)
    """What is owed to MAARs; not read where the S-MAARs signal (mode DIRECT)."""
    gaps: dict[tuple[PoolId, int], Prefix | None] = field(default_factory=dict)
    """Answers to Need.gaps: the first free unit at or after the slot, wrapping around; None: the pool is full."""


class Need(NamedTuple):
    """A decision that cannot be taken from the snapshot: read this and ask again (a pool nearly full, a node back)."""

    last_held: tuple[tuple[NodeId, PoolId, int | None], ...] = ()
    gaps: tuple[tuple[PoolId, int], ...] = ()


# --- What is decided ---


class PutNode(NamedTuple):
    """Insert (`new`) or update a node, with all its identities; identities already there stay."""

    node: Node
    new: bool


class DropNode(NamedTuple):
    """Remove a node whose identities and bindings went to another one (merge), or that holds nothing any more. What
    the history says of it stays readable."""

    node: NodeId


class DropIdentity(NamedTuple):
    """A node is not known by this identity any more."""

    identity: Identity


class PutBinding(NamedTuple):
    """Insert (`new`) or update a binding; its key is the first address of its prefix."""

    binding: Binding
    new: bool


class DropBinding(NamedTuple):
    """Remove a binding's row (it was reclaimed)."""

    prefix: Prefix
    node: NodeId


class PutSignal(NamedTuple):
    """A MAAR is owed a PBU from now on; one that is owed it already is owed it anew."""

    signal: Signal


class DropSignal(NamedTuple):
    """A MAAR is owed no PBU any more."""

    node: NodeId
    maar: MaarId


class Record(NamedTuple):
    """Append a history row."""

    event: Event


Change: TypeAlias = (
    PutNode | DropNode | DropIdentity | PutBinding | DropBinding | PutSignal | DropSignal | Record
)


class ClientReply(NamedTuple):
    """The answer to the client: message type and the options the CMD decides (IAs, status, rapid commit), encoded.
    Client Identifier, Server Identifier and the operator's static options are added by the host."""

    type: int
    options: Options


class Hold(NamedTuple):
    """The answer waits until these MAARs have acknowledged where the node is, each with its endpoint, for `patience`
    microseconds at most (mode RELAY). It is no time of day: the clock may have been set back."""

    node: NodeId
    anchors: tuple[tuple[MaarId, bytes], ...]
    patience: Micros


class Registered(NamedTuple):
    """What becomes of a Registration: the status of its PBA (RFC 5213 section 8.9), and the CMD's clock where that is
    to be told (sections 5.5, 8 and 9)."""

    status: int
    clock: int | None = None


class Decision(NamedTuple):
    """What is to be written, then said. `reply` None: the message is not answered. `level` is the index in
    `BindingRequest.relays` of the MAAR's relay level, where the sub-options `relay` go (None: no MAAR).
    `outcome` is a short slug for the counters: "reply", "advertise", "unknown-maar", "identity-conflict"...
    `registered` is the answer to a Registration, whose PBA says what `relay` does. `forgot` is a MAAR that has lost
    what it knew of nodes, where it is for the CMD to tell it again.
    """

    reply: ClientReply | None
    level: int | None
    relay: tuple[SubOption, ...]
    changes: tuple[Change, ...]
    outcome: str
    hold: Hold | None = None
    registered: Registered | None = None
    forgot: MaarId | None = None


# --- How the operator wants it ---


class ConflictPolicy(StrEnum):
    """What to do when a known DUID arrives with a link-layer address that is not its own, or flaps (DESIGN 3.3)."""

    DENY = "deny"
    """Do not move, do not assign; count, record, tell the MAAR (STATUS 4)."""
    ACCEPT = "accept"
    """Record the conflict, then move the node and learn the new identifier."""


class RouterChoice(StrEnum):
    """As which router hosts see a MAAR; the same choice in the whole domain."""

    FIXED = "fixed"
    """All are one and the same (RFC 6543)."""
    DLIF = "dlif"
    """Each is one of its own, which a node's S-MAAR shows wherever the node is (RFC 8885 section 3.7)."""


class ConfirmPolicy(StrEnum):
    """What a Confirm for addresses anchored elsewhere in the domain gets (lab notes: what dhcpcd makes of it)."""

    SUCCESS = "success"
    """Success while every address is still anchored in the domain (the address goes on; the default)."""
    NOT_ON_LINK = "not-on-link"
    """NotOnLink after a move, so that a client asks anew and gets a local address too."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The CMD's configuration that decisions depend on. Durations in seconds."""

    server_duid: bytes
    enterprise: int = 32473
    mode: SignallingMode = SignallingMode.DIRECT
    """Who tells the P-MAARs where a node is: in DIRECT its S-MAAR, else this CMD."""
    relay_timeout: int = 200
    """Milliseconds for which an answer waits for acknowledgements (mode RELAY)."""
    timestamp_window: int = 300
    """Milliseconds by which the clock of a MAAR that registers nodes may differ from ours (RFC 5213 section 9.1,
    TimestampValidityWindow)."""
    delete_delay: int = 10_000
    """Milliseconds for which a node that was de-registered may come back (RFC 5213 section 9.1,
    MinDelayBeforeBCEDelete)."""
    trusted_relays: tuple[Prefix, ...] = ()
    """Where relays between the MAARs and the CMD send from: what such a relay says of who sent to it is believed."""
    anchor_hold: int = 86_400
    """How long a prefix may stay anchored away from its node."""
    max_anchors: int = 8
    """How many P-MAARs may anchor prefixes of one node; the oldest goes first."""
    max_ias: int = 16
    """For how many IAs (IA_NA and IA_PD) a node may hold leases at one time."""
    reuse_margin: int = 60
    """Added to the last promised lifetime before a prefix may go to somebody else."""
    quarantine: int = 86_400
    """How long a declined address is not given out."""
    node_retention: int = 86_400
    """How long after its last move a node that holds nothing any more is still known."""
    flap_interval: int = 2
    """A move back to the MAAR just left, sooner than this after the last move, counts as a flap."""
    flap_limit: int = 3
    """So many flaps in a row are let pass; the next is a conflict."""
    conflict_policy: ConflictPolicy = ConflictPolicy.DENY
    confirm_policy: ConfirmPolicy = ConfirmPolicy.SUCCESS
    router_identity: RouterChoice = RouterChoice.FIXED
    """Whether MAARs are told as which router each anchor is to be shown."""
    rapid_commit: bool = True
    t1_percent: int = 50
    t2_percent: int = 80

    def __reduce__(self) -> tuple[type[Settings], tuple[object, ...]]:
        # ipv6-dhcpd pickles it into its workers. Once compiled, a frozen object cannot be filled in after it was made.
        return Settings, tuple(getattr(self, each.name) for each in fields(self))
