"""A decision while it is being made: the node and its bindings, changed step by step, and the history that results.

The snapshot stays as it was read. What is to be written is the difference between it and the draft, one row
written once however often the steps touched it; every step but a mere extension leaves an event.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dhcp_cmd.core.inquire import DEREGISTRATION, Inquiry, hashed_units
from dhcp_cmd.core.lifetime import ended_binding, left, until
from dhcp_cmd.core.model import (
    Binding,
    BindingRequest,
    Change,
    Domain,
    DropIdentity,
    DropNode,
    Event,
    EventType,
    Kind,
    Maar,
    MaarId,
    MaarState,
    Micros,
    Node,
    Pool,
    PutBinding,
    PutNode,
    Record,
    Settings,
    Signal,
    Snapshot,
    State,
)
from dhcp_cmd.core.place import Place
from dhcp_cmd.core.signals import REFRESH_MARGIN, difference, owed
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dmm import SignallingMode

# Looking a member up in its class costs as much as a call.
_EVENT_ASSIGNED: Final = EventType.ASSIGNED
_EVENT_DEPRECATED: Final = EventType.DEPRECATED
_EVENT_RECLAIMED: Final = EventType.RECLAIMED
_EVENT_RELEASED: Final = EventType.RELEASED
_ADDRESS: Final = Kind.ADDRESS
_LINK: Final = Kind.LINK
_MAAR_ACTIVE: Final = MaarState.ACTIVE
_ACTIVE: Final = State.ACTIVE
_DEPRECATED: Final = State.DEPRECATED
_ENDED: Final = State.ENDED
_DIRECT: Final = SignallingMode.DIRECT

DECLINED: Micros = 0
"""`preferred_until` of an ended binding that was declined: it is not even its own node's to have again."""


class Draft:
    """The working state of one decision. `node` None: the message shows no identity, or comes from nowhere."""

    __slots__ = (
        "_is_trial",
        "_known",
        "_merged",
        "_node_before",
        "bindings",
        "cause",
        "domain",
        "events",
        "inquiry",
        "key",
        "node",
        "now",
        "place",
        "request",
        "settings",
        "snapshot",
    )

    def __init__(
        self,
        inquiry: Inquiry,
        snapshot: Snapshot,
        settings: Settings,
        now: Micros,
        cause: str,
    ) -> None:
        self.inquiry = inquiry
        self.request: BindingRequest = inquiry.request
        self.place: Place = inquiry.place
        self.snapshot = snapshot
        self.domain: Domain = snapshot.domain
        self.settings = settings
        self.now = now
        self.cause = cause
        self.key = b""
        self.node: Node | None = None
        self.bindings: dict[bytes, Binding] = {}
        self.events: list[Event] = []
        self._node_before: Node | None = None
        self._known: dict[bytes, Binding] = {}
        self._merged: list[Node] = []
        self._is_trial = False

    # --- the node ---

    def adopt(self, node: Node, key: bytes, *, new: bool = False) -> None:
        """Work on this node; `key` is what its allocations are hashed from. Time does not go back behind its visit."""
        self.node, self.key = node, key
        self.now = max(self.now, node.visit_since)
        if not new:
            self._node_before = node
            known = self.snapshot.bindings.get(node.id)
            if known:
                # Sorted, so that no decision depends on the order in which a store returns rows.
                self._known = dict(sorted(known.items()))
                self.bindings = dict(self._known)

    @property
    def is_known(self) -> bool:
        """Whether the node was in the database before this message."""
        return self._node_before is not None

    @property
    def has_left(self) -> bool:
        """Whether the last that was heard of the node before, or of one that became it, is that it has left the domain:
        its bindings end in a moment (RFC 5213 section 5.3.5)."""
        heard = [node.heard for node in (self._node_before, *self._merged) if node is not None]
        return any(each is not None and each[0] == DEREGISTRATION for each in heard)

    def absorb(self, other: Node) -> Node:
        """Merge: `other` turned out to be this node. Its identities, bindings and visits become this node's."""
        node = self._require_node()
        self.now = max(self.now, other.visit_since)
        node = self.node = node._replace(
            identities=node.identities + other.identities,
            generation=max(node.generation, other.generation),
            registered=max(node.registered or 0, other.registered or 0) or None,
        )
        self._merged.append(other)
        for address, binding in sorted(self.snapshot.bindings.get(other.id, {}).items()):
            self._known[address] = binding
            self._move(binding, other)
        return node

    def _move(self, binding: Binding, other: Node) -> None:
        self.record(_EVENT_RECLAIMED, binding, cause="merge")
        moved = binding._replace(node=self._require_node().id)
        twin = self.link_at(binding.anchor) if binding.kind is _LINK else None
        self.bindings[moved.prefix.address] = moved
        self.record(_EVENT_ASSIGNED, moved, cause="merge")
        if moved.state is _DEPRECATED:
            self.record(_EVENT_DEPRECATED, moved, cause="merge")
        elif moved.state is _ENDED:
            self.record(_EVENT_RELEASED, moved, cause="merge", at=moved.ended_at)
        if twin is not None and moved.state is not _ENDED:
            self.end(moved, _EVENT_RELEASED, cause="merge")  # one prefix per node and MAAR

    # --- looking ---

    @property
    def message(self) -> bytes:
        """What tells this message from others: its type and transaction id."""
        return bytes((self.request.type,)) + self.request.transaction_id

    @property
    def here(self) -> Maar | None:
        """The MAAR whose link the client is on."""
        return self.place.maar

    @property
    def is_elsewhere(self) -> bool:
        """Whether the node is on a visit to another MAAR. Only a relay without mobility leaves it there."""
        here, serving = self.here, None if self.node is None else self.node.serving
        return here is not None and serving not in (None, here.id)

    def live(self) -> list[Binding]:
        """The bindings that have not ended."""
        return [b for b in self.bindings.values() if b.state is not _ENDED]

    def link_at(self, anchor: int) -> Binding | None:
        """The node's LINK prefix anchored there, if it has not ended."""
        for binding in self.bindings.values():
            if binding.kind is _LINK and binding.anchor == anchor and binding.state is not _ENDED:
                return binding
        return None

    def of_ia(self, kind: Kind, iaid: int) -> list[Binding]:
        """Every row of one IA, ended ones too; a relay without mobility sees those of its own link only."""
        here = self.here
        anywhere = self.place.level is not None
        return [
            b
            for b in self.bindings.values()
            if b.kind is kind
            and b.iaid == iaid
            and (anywhere or (here is not None and b.anchor == here.id))
        ]

    def within(self, link: Binding) -> list[Binding]:
        """The addresses that come out of a LINK prefix."""
        return [
            b
            for b in self.bindings.values()
            if b.kind is _ADDRESS and link.prefix.contains(b.prefix.address)
        ]

    def is_in_use(self, link: Binding) -> bool:
        """Whether a LINK prefix has an address that has not ended, or may have some that we know nothing of."""
        return link.autoconf or any(address.state is not _ENDED for address in self.within(link))

    def pool_of(self, binding: Binding) -> Pool | None:
        """The pool whose lifetimes the binding has; None when it is gone from the domain."""
        if binding.kind is _ADDRESS:
            for link in self.bindings.values():
                if link.kind is _LINK and link.prefix.contains(binding.prefix.address):
                    binding = link
                    break
            else:
                return None
        for pool in self.domain.pools.get(binding.anchor, ()):
            if pool.id == binding.pool:
                return pool
        return None

    def may_extend(self, binding: Binding) -> bool:
        """Whether lifetimes may still grow: not where the anchor is being drained or gone."""
        anchor = self.domain.maars.get(binding.anchor)
        return anchor is not None and anchor.state is _MAAR_ACTIVE

    def lifetimes(self, binding: Binding) -> tuple[int, int]:
        """Preferred and valid lifetime in seconds, as client and MAAR are told them now."""
        if binding.state is _ENDED:
            return 0, 0
        pool = self.pool_of(binding)
        end = binding.valid_until
        if binding.hold_until is not None and binding.hold_until < end:
            end = binding.hold_until
        valid, preferred = left(end, self.now), 0
        if binding.state is _ACTIVE:
            preferred = left(binding.preferred_until, self.now)
        if pool is not None:  # the row keeps the longest promise; a pool may have become shorter
            valid, preferred = min(valid, pool.valid), min(preferred, pool.preferred)
        return min(preferred, valid), valid

    def units(self, pool: Pool, iaid: int | None) -> tuple[Prefix, ...]:
        """Where in `pool` the node looks first."""
        found = self.inquiry.units.get((pool.id, iaid))
        if found is None:
            found = hashed_units(self.domain, self.key, pool, iaid, self.inquiry.window)
        return found

    # --- steps ---

    def assign(self, binding: Binding) -> Binding:
        """The binding exists and is ACTIVE from now on: new, revived, or local again."""
        self.bindings[binding.prefix.address] = binding
        self.record(_EVENT_ASSIGNED, binding)
        return binding

    def activate(self, binding: Binding) -> Binding:
        """Local again: preferred again, as far as its valid lifetime was promised and unless the anchor is drained."""
        pool = self.pool_of(binding)
        preferred = binding.preferred_until
        if self.may_extend(binding):
            preferred = binding.valid_until if pool is None else until(self.now, pool.preferred)
        return self.assign(
            binding._replace(
                state=_ACTIVE,
                hold_until=None,
                preferred_until=min(preferred, binding.valid_until),
            )
        )

    def deprecate(self, binding: Binding) -> Binding:
        """Anchored away from now on, for `anchor_hold` at most."""
        binding = binding._replace(
            state=_DEPRECATED,
            preferred_until=min(binding.preferred_until, self.now),
            hold_until=until(self.now, self.settings.anchor_hold),
        )
        self.bindings[binding.prefix.address] = binding
        self.record(_EVENT_DEPRECATED, binding)
        return binding

    def extend(self, binding: Binding, pool: Pool) -> Binding:
        """Promise the pool's lifetimes anew; while anchored away, no longer than it is held. Leaves no history."""
        promised = until(self.now, pool.valid)
        preferred = binding.preferred_until
        if binding.state is _ACTIVE:
            preferred = min(until(self.now, pool.preferred), promised)
        elif binding.hold_until is not None:
            promised = min(promised, binding.hold_until)
            if self.signals_itself and promised <= binding.valid_until + REFRESH_MARGIN:
                return binding
        valid = max(binding.valid_until, promised)
        if (preferred, valid) == (binding.preferred_until, binding.valid_until):
            return binding
        return self.put(binding._replace(preferred_until=preferred, valid_until=valid))

    def end(
        self,
        binding: Binding,
        how: EventType,
        *,
        cause: str | None = None,
        at: Micros | None = None,
        declined: bool = False,
    ) -> None:
        """End a binding, and with a LINK prefix its addresses. The row stays until nothing promised is left of it."""
        if binding.kind is _LINK:
            for address in self.within(binding):
                if address.state is not _ENDED:
                    self.end(address, how, cause=cause, at=at)
        ended = ended_binding(binding, self.now if at is None else at, self.settings)
        if declined:
            free = until(self.now, max(self.settings.quarantine, 1))
            ended = ended._replace(
                preferred_until=DECLINED,
                reusable_at=max(ended.reusable_at or free, free),
            )
        self.bindings[ended.prefix.address] = ended
        self.record(how, ended, cause=cause, at=ended.ended_at)

    def put(self, binding: Binding) -> Binding:
        """Change a row without an event."""
        self.bindings[binding.prefix.address] = binding
        return binding

    def fail(self, reports: Iterable[dmm.AnchorFailed]) -> None:
        """End what the S-MAAR says its P-MAAR does not serve any more, if it is anchored there."""
        for report in reports:
            binding = self.bindings.get(report.prefix.address)
            if binding is None or binding.prefix != report.prefix:
                continue
            anchor = self.domain.maars.get(binding.anchor)
            if (
                binding.state is _DEPRECATED
                and binding.kind is not _ADDRESS
                and anchor is not None
                and anchor.endpoint == report.endpoint
            ):
                self.end(binding, _EVENT_RELEASED, cause="anchor-failed")

    def record(
        self,
        kind: EventType,
        binding: Binding,
        *,
        cause: str | None = None,
        at: Micros | None = None,
    ) -> None:
        """Note what happened to a binding."""
        if self._is_trial:
            return
        self.events.append(
            Event(
                self.now if at is None else at,
                self.now,
                kind,
                binding.node,
                cause or self.cause,
                binding.prefix,
                binding.kind,
                binding.iaid,
                binding.anchor,
                None,
                None,
                None if self.node is None else self.node.generation,
                self.request.transaction_id,
            )
        )

    # --- the outcome ---

    def trial(self) -> Draft:
        """A copy to try out what an Advertise promises; nothing of it is written."""
        copy = Draft(self.inquiry, self.snapshot, self.settings, self.now, self.cause)
        copy.node, copy.key = self.node, self.key
        copy._node_before, copy._known = self._node_before, self._known
        copy.bindings = dict(self.bindings)
        copy._is_trial = True
        return copy

    def changes(self) -> tuple[Change, ...]:
        """What is to be written, in an order that keeps references whole; the history last. Of a node that holds
        nothing, nothing: anybody can make one up.
        """
        if not self.bindings:
            return ()
        known = self._known
        bindings = [
            PutBinding(binding, address not in known)
            for address, binding in self.bindings.items()
            if known.get(address) != binding
        ]
        node = self._node_changes()
        signals: list[Change] = []
        if self.signals_itself and self.node is not None:
            waiting = self.snapshot.signals.get(self.node.id, {})
            signals = difference(waiting, self.signals())
        if self._merged:
            drops = [DropNode(other.id) for other in self._merged]
            return (*bindings, *drops, *node, *signals, *map(Record, self.events))
        return (*node, *bindings, *signals, *map(Record, self.events))

    @property
    def signals_itself(self) -> bool:
        """Whether it is the CMD that tells the P-MAARs where a node is."""
        return self.settings.mode is not _DIRECT

    def signals(self) -> dict[MaarId, Signal]:
        """What is owed to MAARs about the node after this decision."""
        node = self.node
        if node is None:
            return {}
        found = owed(
            self.snapshot.signals.get(node.id, {}),
            self._node_before,
            node,
            self._known.values(),
            self.bindings.values(),
            self.now,
            left=[
                maar
                for other in self._merged
                for maar in (
                    other.serving,
                    other.previous,
                    *self.snapshot.signals.get(other.id, ()),
                )
            ],
        )
        return {maar: each for maar, each in found.items() if maar in self.domain.maars}

    def _node_changes(self) -> list[Change]:
        node, before = self.node, self._node_before
        if node is None or node == before:
            return []
        if before is None:
            return [PutNode(node, True)]
        gone = [DropIdentity(each) for each in before.identities if each not in node.identities]
        return [*gone, PutNode(node, False)]

    def _require_node(self) -> Node:
        if self.node is None:
            raise ValueError("no node to work on")
        return self.node
