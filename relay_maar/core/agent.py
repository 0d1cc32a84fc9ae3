"""The MAAR: datagrams, timers and kernel confirmations go in, actions come out.

:class:`Agent` ties the parts together and decides nothing that a part can decide. The client's
message goes on as soon as the kernel has the local part, whatever became of it, and never waits for
a PBA.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, format_address, is_link_local, is_routable
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingError,
    BindingErrorStatus,
    BindingUpdate,
    Guard,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import first
from dmm_wire.mobility.routers import routers_in
from dmm_wire.mobility.serving import refused_prefixes
from relay_maar.core.actions import (
    Action,
    Apply,
    Log,
    SaveSession,
    SendMobility,
    SendToClient,
    SendToServers,
)
from relay_maar.core.arrivals import Arrivals
from relay_maar.core.asking import Answer, Asking
from relay_maar.core.authenticated import Authenticated
from relay_maar.core.cache import POOLS, BindingCache, Then
from relay_maar.core.domain import Domain, Later, Report
from relay_maar.core.identities import Identities
from relay_maar.core.items import AcceptFrom, Item, Key, Route, Unreachable
from relay_maar.core.noticed import Place, made_link_local, place_of_frame
from relay_maar.core.questions import Questions
from relay_maar.core.records import DOMAIN_NAME, domain_record, read_domain
from relay_maar.core.registrar import Registrar
from relay_maar.core.registrations import Registrations
from relay_maar.core.relay import Discard, OwnReply, Relay, Reply
from relay_maar.core.router import PrefixInformation, Router, on_link, solicitation_fault
from relay_maar.core.session import Attachment, Session, shown_as
from relay_maar.core.settings import AgentSettings
from relay_maar.core.telling import routers_status, session_status
from relay_maar.core.transactions import Transactions
from relay_maar.core.unsolicited import Unsolicited
from relay_maar.core.visits import Visits

_ERROR_PAUSE: Final = 1.0
"""Seconds between two Binding Errors (RFC 6275 section 9.3.3: rate limited)."""

_DOMAIN: Final = "domain"
_TRIGGERS: Final = frozenset({"mld", "rs", "ns", "na", "una", "dad", "dhcpv6", "data", "hook"})
_CMD_STATUS: Final = {each.value: each.name.lower().replace("_", "-") for each in dmm.DmmStatus}

_MODES: Final = {each.value: each.name.lower() for each in dmm.SignallingMode}

_Sub = TypeVar("_Sub", bound=dmm.SubOption)


class Agent:
    """One MAAR. Every method takes what happened and `now` (seconds, monotonic) and returns the
    actions it leads to, to be run in order. No input makes a method raise; what is dropped is
    counted by reason, see :meth:`status`."""

    def __init__(
        self,
        settings: AgentSettings,
        *,
        jitter: Callable[[], float],
        epoch: float = 0.0,
        clock: Callable[[float], int] = lambda now: int(now * 65536),
    ) -> None:
        """`jitter` gives random numbers from 0 to 1; `epoch` is the time of day (Unix seconds) at
        which `now` is 0; `clock` gives the timestamp (RFC 5213 section 8.8) of an instant."""
        self.aside: Callable[[Then], None] | None = None
        """Who runs the actions may take what can wait, and do it when the other machines that wait for us have been
        told; else it is done at once."""
        self._settings = settings
        self._endpoint = settings.endpoint
        self._links = {link.interface: link for link in settings.access}
        self._counters: Counter[str] = Counter()
        self._identities = Identities(settings.identity, self._counters)
        self._cache = BindingCache(
            settings.endpoint,
            settings.access_technology,
            self._counters,
            self._identities.restore,
        )
        self._relay = Relay(settings)
        self._router = Router(settings.access, settings.router, jitter)
        self._domain = Domain(
            settings.endpoint,
            settings.domain_refresh,
            self._question,
            jitter,
            self._cache.awaits_anchors,
        )
        self._transactions = Transactions()
        self._visits = Visits(settings.endpoint, self._cache, self._identities, self._counters)
        security = settings.security
        self._guard = Guard(
            settings.endpoint,
            security.keys,
            require=security.require,
            epoch=epoch,
            tolerance=security.tolerance,
        )
        self._authenticated = Authenticated(self._guard, self._counters)
        self._registrations = Registrations(
            settings, self._cache, self._domain, self._guard, self._counters, self._left
        )
        self._unsolicited = Unsolicited(
            settings,
            self._cache,
            self._domain,
            self._identities,
            self._ask_for_anchors,
            self._counters,
        )
        self._questions = Questions(
            settings, self._cache, self._relay, self._domain.transaction_id, self._counters
        )
        self._registrar: Registrar | None = None
        if settings.registers:
            self._registrar = Registrar(
                settings,
                self._cache,
                self._router,
                self._domain,
                self._counters,
                clock,
                int(jitter() * (1 << 53)).to_bytes(8, "big"),
                learn=self._learn_domain,
            )
        asking: Asking = self._registrar or self._questions
        self._arrivals = Arrivals(
            settings,
            self._cache,
            self._router,
            asking,
            self._transactions,
            self._domain.transaction_id,
            self._counters,
            # Who registers nodes tells of a later visit with the next PBU.
            visit=self._visit if self._registrar is None else self._accepted,
            prefixes=self._prefixes,
            can_wait=self._can_wait,
        )
        self._error_sent = -math.inf
        self._knows_nobody = False
        self._stopped = False

    # --- start, stop, time ---

    def start(
        self, found: frozenset[Item], records: Sequence[dict[str, Any]], now: float
    ) -> list[Action]:
        """Take up what an earlier process left: `found` in the kernel, and its records. What is
        right stays untouched, what is missing is put, what nobody wants is dropped."""
        actions: list[Action] = []
        cache = self._cache
        self._guard.start(now)
        cache.expect(POOLS, [Route(pool, Unreachable()) for pool in self._settings.pools])
        for record in records:
            try:
                self._restore(record, now)
            except ValueError as error:
                self._counters["record.damaged"] += 1
                actions.append(Log("warning", f"a session record is left out: {error}"))
        # The CMD tells those that lost what they anchor, where it is the one that tells.
        self._knows_nobody = not len(cache) or self._counters["record.damaged"] > 0
        cache.expect(_DOMAIN, map(AcceptFrom, sorted(self._domain.peers)))
        actions += cache.reconcile(found)
        if self._settings.servers:
            self._domain.start(now)
        else:
            actions.append(
                Log("info", "no servers, so no DHCPv6: hosts with leases lose them here")
            )
        if self._registrar is not None:
            self._registrar.start(knows_nobody=self._knows_nobody)
        self._arrivals.start(self._links, now)
        for session in cache:
            self._unsolicited.wait_for_anchors(session, now)
        self._router.start(now)
        actions += self._authenticated.keyless({*self._domain.peers, *self._settings.cmds})
        if len(cache):
            actions.append(Log("info", f"{len(cache)} sessions taken up again"))
        return actions + self._flush(now)

    def _restore(self, record: Mapping[str, Any], now: float) -> None:
        match record.get("kind"):
            case "domain":
                self._domain.restore(*read_domain(record))
            case "mark":
                self._authenticated.restore(record, now)
            case _:
                self._cache.restore(record, self._links.keys(), now)

    def stop(self, now: float, *, keep: bool) -> list[Action]:
        """End. With `keep` the kernel is left to the next process, otherwise everything is
        withdrawn; the records stay."""
        self._stopped = True
        if keep:
            return []
        shown = [(each.interface, each.identity) for each in self._cache.routers()]
        return [*self._router.stop(shown), *self._cache.empty_kernel()]

    def deadline(self) -> float | None:
        """When :meth:`tick` is wanted next."""
        if self._stopped:
            return None
        parts = [self._cache.deadline(), self._router.deadline(), self._domain.deadline()]
        parts.append(self._arrivals.deadline())
        if self._registrar is not None:
            parts.append(self._registrar.deadline())
        return min((each for each in parts if each is not None), default=None)

    def tick(self, now: float) -> list[Action]:
        """Run what is due at `now`."""
        if self._stopped:
            return []
        return [*self._cache.due(now), *self._router.due(now), *self._flush(now)]

    def applied(
        self, token: int | Sequence[int], failures: Mapping[Key, str], now: float
    ) -> list[Action]:
        """The kernel's answer to an Apply, or to several that were made as one (see
        :func:`relay_maar.core.batch.merged`): the keys it refused, each with the reason. What
        waited for it comes out."""
        actions: list[Action] = []
        for each in (token,) if isinstance(token, int) else token:
            answered = self._cache.applied(each, failures, now)
            actions += self._drop("kernel.unknown-token") if answered is None else answered
        return actions + self._flush(now)

    def kernel_changed(self, found: frozenset[Item], now: float) -> list[Action]:
        """Somebody else changed the kernel, which now holds `found` of ours: what is missing is put
        again, what is right stays untouched, what of ours nobody wants is dropped."""
        if self._stopped:
            return []
        return [*self._cache.kernel_changed(found), *self._flush(now)]

    def _can_wait(self, then: Then, now: float) -> list[Action]:
        """What only the nodes here, or nobody, wait for."""
        if self.aside is None:
            return then(now)
        self.aside(then)
        return []

    def _with_due(self, actions: list[Action], now: float) -> list[Action]:
        """And what is due by now. Where the kernel is asked, that comes with its answer: others wait for the kernel."""
        if any(type(each) is Apply for each in actions):
            return actions
        return actions + self._flush(now)

    def _flush(self, now: float) -> list[Action]:
        """The PBUs and the questions to the CMD that are to be sent by now."""
        if self._stopped:
            return []
        registrations = [] if self._registrar is None else self._registrar.due(now)
        arrivals = self._arrivals.due(now)
        questions = map(SendToServers, self._domain.due(now))
        routers = self._routers_changed(now)
        return [*registrations, *routers, *self._cache.messages(now), *arrivals, *questions]

    def _routers_changed(self, now: float) -> list[Action]:
        """As which router an anchor is shown concerns all its nodes here, whatever message it came with."""
        actions: list[Action] = [*self._identities.remarks()]
        for anchor in self._identities.changed():
            router = self._identities.of(anchor)
            for session in list(self._cache):
                shown = shown_as(session, anchor, router)
                if shown is not session:
                    actions += self._cache.change(shown, now)
                    wanted = self._cache.wanted(shown)
                    actions += self._cache.after(wanted, partial(self._advertised, shown), now)
        return actions

    def _drop(self, reason: str) -> list[Action]:
        self._counters[reason] += 1
        return []

    # --- DHCPv6 ---

    def client_datagram(
        self, interface: str, source: bytes, link_layer: bytes | None, data: bytes, now: float
    ) -> list[Action]:
        """A datagram to UDP port 547 on an access link."""
        link = self._links.get(interface)
        if link is None:
            return self._drop("client.interface")
        if not self._settings.servers:
            self._counters["client.not-relayed"] += 1
            return self.seen(interface, source, link_layer, "dhcpv6", now)
        if self._identities.is_a_routers(source):
            return self._drop("client.source")
        actions = self._cache.returned(link_layer, now)
        known = self._cache.at(interface, source) is not None
        try:
            forward = self._relay.forward(link, source, link_layer, data, known)
        except (Discard, WireError) as error:
            return [*actions, *self._drop(f"client.{error.reason}")]
        self._counters["client.relayed"] += 1
        if forward.node is not None:
            # In a frame of its own or, by a relay agent that keeps its address, as if it were.
            spoke = link_layer if forward.node == source else None
            self._transactions.came(interface, forward.node, forward.transaction_id, spoke)
        # What the node hears of its router waits for no answer.
        if not known and is_link_local(source):
            node = (interface, source, link_layer)
            actions += self._can_wait(partial(self._advertise, *node), now)
        if link_layer is not None and forward.node == source:
            # It is the question itself, and nothing more is asked; but where nodes are registered, that comes first.
            place = Place(interface, link_layer, source, source)
            actions += self._arrivals.seen(place, "dhcpv6", now)
            if self._registrar is not None:
                actions += self._flush(now)
        return [*actions, SendToServers(forward.data), *self._flush(now)]

    def server_datagram(self, source: bytes, data: bytes, now: float) -> list[Action]:
        """A datagram from a server (RFC 9915 section 19.2)."""
        if source not in self._settings.servers:
            return self._drop("server.unknown")
        try:
            reply = self._relay.reply(data)
        except (Discard, WireError) as error:
            return self._drop(f"server.{error.reason}")
        if isinstance(reply, OwnReply):
            return self._with_due(self._own_reply(reply, now), now)
        self._counters["server.relayed"] += 1
        if reply.fault is not None:
            self._counters[f"server.options-{reply.fault}"] += 1
        deliver = SendToClient(reply.link.interface, reply.peer, reply.port, reply.data)
        actions, session = self._learn(reply, now)
        # RFC 8987 G-1: whatever became of our options, the client gets its message.
        items = () if session is None else self._cache.wanted(session)

        def confirmed(now: float) -> list[Action]:
            return [*(self._advertised(session, now) if session is not None else ()), deliver]

        actions += self._cache.after(items, confirmed, now)
        return self._with_due(actions, now)

    def _question(self, transaction_id: bytes, suboptions: tuple[dmm.SubOption, ...]) -> bytes:
        flags = dmm.NO_SESSIONS if self._knows_nobody else 0
        return self._relay.query(transaction_id, suboptions, flags)

    def _own_reply(self, reply: OwnReply, now: float) -> list[Action]:
        if (missed := self._questions.missed(reply, now)) is not None:
            return missed
        status = _first(reply.suboptions or (), dmm.Status)
        is_refused = status is not None and status.code != dmm.DmmStatus.SUCCESS
        answered = self._arrivals.answered(self._questions.read(reply, is_refused), now)
        if answered is not None:
            if status is not None and is_refused:
                self._counters[f"cmd.{_CMD_STATUS.get(status.code, 'other')}"] += 1
            return answered
        if not self._domain.answered(reply.transaction_id, now):
            return self._drop("server.transaction-id")
        suboptions = reply.suboptions or ()
        if refused := self._refused(suboptions):
            return refused
        actions = self._learn_domain(suboptions)
        if _first(suboptions, dmm.Domain) is not None:
            self._knows_nobody = False  # the CMD has heard that it did
        # What the CMD says of a node that we asked about concerns it where it is.
        node, visit = _first(suboptions, dmm.MobileNode), _first(suboptions, dmm.Visit)
        session = self._cache.get(node.identity) if node is not None else None
        if visit is not None and session is not None and session.attachment is not None:
            learned, told = self._accepted(
                session.identity, session.attachment, visit, suboptions, now
            )
            actions += learned
            if told is not None:
                actions += self._cache.after(
                    self._cache.wanted(told), partial(self._advertised, told), now
                )
        return actions

    def _visit(
        self,
        identity: Identity,
        attachment: Attachment,
        visit: dmm.Visit,
        suboptions: tuple[dmm.SubOption, ...],
        now: float,
    ) -> tuple[list[Action], Session | None]:
        """The CMD says by DHCPv6 that the node is here. Where we know of a later visit, and it may have lost
        that one, it is asked again."""
        known = self._cache.get(identity)
        if known is not None and visit.generation < known.generation:
            self._domain.report(Later(identity, known.generation, self._endpoint), now)
        return self._accepted(identity, attachment, visit, suboptions, now)

    def _accepted(
        self,
        identity: Identity,
        attachment: Attachment,
        visit: dmm.Visit,
        suboptions: tuple[dmm.SubOption, ...],
        now: float,
    ) -> tuple[list[Action], Session | None]:
        actions, session = self._visits.accept(identity, attachment, visit, suboptions, now)
        if session is not None:
            self._arrivals.visited(session, now)
        if session is None or session.signalled is None:
            return actions, session
        more, session = self._unsolicited.visited(session, now)
        return actions + more, session

    def _left(self, before: Session, now: float) -> None:
        self._arrivals.left(before, now)

    def _ask_for_anchors(self, session: Session, now: float) -> None:
        if self._registrar is not None:
            self._arrivals.wait_for_anchors(session, self._registrar.patience, now)
        else:
            self._domain.wait_for(session.identity, session.generation, now)

    def _advertised(self, session: Session, now: float) -> list[Action]:
        """What the node is told of its prefixes, where they are others now."""
        at = session.attachment
        if at is None:
            return []
        # Only the router that the kernel knows can wait for an address resolution.
        link_layer = None if self._settings.identity is None else at.link_layer
        place = (at.interface, at.link_local)
        return [*self._router.changed(*place, now, self._prefixes, link_layer)]

    def _refused(self, suboptions: Iterable[dmm.SubOption]) -> list[Action]:
        """Count and tell what the CMD refuses us. Nothing else in such a reply is believed."""
        status = _first(suboptions, dmm.Status)
        if status is None or status.code == dmm.DmmStatus.SUCCESS:
            return []
        name = _CMD_STATUS.get(status.code, "other")
        self._counters[f"cmd.{name}"] += 1
        text = "".join(each for each in status.text if each.isprintable())[:200]
        return [Log("warning", f"the CMD says {name}: {text}")]

    def _learn_domain(self, suboptions: Iterable[dmm.SubOption]) -> list[Action]:
        domain = _first(suboptions, dmm.Domain)
        if domain is None:
            return []
        signalling = _first(suboptions, dmm.Signalling)
        mode = int(dmm.SignallingMode.DIRECT) if signalling is None else signalling.mode
        if not self._domain.learn(filter(is_routable, domain.endpoints), mode):
            return []
        peers = self._domain.peers
        names = ", ".join(format_address(each) for each in sorted(peers)[:16]) or "nobody else"
        return [
            SaveSession(DOMAIN_NAME, domain_record(peers, mode)),
            Log("info", f"the domain's other MAARs ({len(peers)}): {names}"),
            *self._authenticated.keyless(peers),
            *self._cache.claim(_DOMAIN, map(AcceptFrom, sorted(peers))),
        ]

    def _learn(self, reply: Reply, now: float) -> tuple[list[Action], Session | None]:
        """Take in the DMM options of a Relay-reply. Returns actions, and the session whose local
        part the client's message waits for."""
        suboptions = reply.suboptions or ()
        if refused := self._refused(suboptions):
            return refused, None
        actions = self._learn_domain(suboptions)
        visit = _first(suboptions, dmm.Visit)
        if visit is None:
            return actions, None
        # The CMD knows a node by several identifiers and may name the one that its P-MAARs know.
        named = _first(suboptions, dmm.MobileNode)
        identity = reply.identity if named is None else named.identity
        if identity is None or reply.node is None:
            self._counters["visit.unidentified" if identity is None else "visit.off-link"] += 1
            return actions, None
        interface = reply.link.interface
        heard = self._transactions.find(interface, reply.node, reply.transaction_id)
        attachment = Attachment(interface, reply.node, heard.link_layer, heard.number)
        learned, session = self._visit(identity, attachment, visit, suboptions, now)
        return actions + learned, session

    # --- mobility ---

    def mobility_datagram(self, source: bytes, data: bytes, now: float) -> list[Action]:
        """A Mobility Header from `source` to our endpoint."""
        if not is_routable(source):
            return self._drop("mobility.source")
        try:
            message, actions = self._authenticated.incoming(source, data, now)
        except WireError as error:
            self._counters[f"mobility.{error.reason}"] += 1
            if error.reason == "type" and now >= self._error_sent + _ERROR_PAUSE:
                # RFC 6275 section 9.2: an MH Type that is not known is the one fault that is
                # answered.
                self._error_sent = now
                unrecognized = BindingError(BindingErrorStatus.UNRECOGNIZED_MH_TYPE)
                return [SendMobility(source, unrecognized)]
            return []
        match message:
            case BindingAcknowledgement():
                actions += self._binding_acknowledgement(source, message, now)
            case BindingUpdate():
                actions += self._registrations.received(source, message, now)
        return self._with_due(actions, now)

    def mobility_header(self, send: SendMobility, now: float) -> bytes:
        """The octets of what is to be sent now, signed where keys are shared with the receiver."""
        return self._guard.outgoing(send.destination, send.message, now)

    def _binding_acknowledgement(
        self, source: bytes, answer: BindingAcknowledgement, now: float
    ) -> list[Action]:
        if self._registrar is not None:
            taken = self._registrar.answered(source, answer, now)
            if taken is not None:
                return taken.actions + self._answered(taken.answer, now)
        matched = self._cache.acknowledged(source, answer, now) if answer.proxy else None
        if matched is None:
            return self._unsolicited_acknowledgement(source, answer, now)
        outcome, actions = matched
        if outcome.accepted:
            for anchor, said in routers_in(answer.options, source).items():
                self._identities.told(anchor, said, by_itself=True)
            return self._drop("pba.accepted") + actions
        self._counters[f"pba.refused-{outcome.status}"] += 1
        if outcome.status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX:
            named, enterprise = outcome.binding.named, self._settings.enterprise
            for prefix in refused_prefixes(answer, named, enterprise):
                self._domain.report(Report(outcome.identity, prefix, source), now)
        if outcome.status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED:
            known = first(answer, Timestamp)
            self._later(outcome.identity, outcome.binding.generation, known, source, now)
        line = f"maar {format_address(source)} refused the PBU with status {outcome.status}"
        return [*actions, Log("warning", f"{outcome.identity}: {line}")]

    def _later(
        self, identity: Identity, told: int, known: Timestamp | None, anchor: bytes, now: float
    ) -> None:
        """An anchor knows of a later visit than the present one here, of which we have `told` it. Where
        the node is, the CMD knows: it is told of that visit, and says which one is the latest."""
        session = self._cache.get(identity)
        is_present = session is not None and session.here and session.generation == told
        if is_present and known is not None:
            self._domain.report(Later(identity, known.value, anchor), now)

    def _answered(self, answer: Answer | None, now: float) -> list[Action]:
        return [] if answer is None else self._arrivals.answered(answer, now) or []

    def _unsolicited_acknowledgement(
        self, source: bytes, answer: BindingAcknowledgement, now: float
    ) -> list[Action]:
        actions, session = self._unsolicited.received(source, answer, now)
        if session is None:
            return actions
        return actions + self._cache.after(
            self._cache.wanted(session), partial(self._advertised, session), now
        )

    # --- the access links ---

    def router_solicitation(
        self,
        interface: str,
        source: bytes,
        link_layer: bytes | None,
        data: bytes,
        now: float,
    ) -> list[Action]:
        """A Router Solicitation that came with hop limit 255 on an access link. `source` may be
        `::`; `data` is the whole ICMPv6 message, its checksum right."""
        if interface not in self._links:
            return self._drop("rs.interface")
        if any(source) and (not is_link_local(source) or self._identities.is_a_routers(source)):
            return self._drop("rs.source")
        if (fault := solicitation_fault(source, data)) is not None:
            return self._drop(f"rs.{fault}")
        self._counters["rs.received"] += 1
        actions = self._cache.returned(link_layer, now)
        actions += self._refresh_neighbour(interface, source, link_layer, now)

        def solicited(now: float) -> list[Action]:
            return [*self._router.solicited(interface, source, now, self._prefixes, link_layer)]

        actions += self._can_wait(solicited, now)
        if link_layer is not None and any(source):
            place = Place(interface, link_layer, source, source)
            actions += self._arrivals.seen(place, "rs", now)
        return actions + self._flush(now)

    def seen(
        self,
        interface: str,
        source: bytes,
        link_layer: bytes | None,
        trigger: str,
        now: float,
        target: bytes = UNSPECIFIED,
    ) -> list[Action]:
        """A frame by which a node shows that it is there (`trigger` names its kind: MLD report, NS
        ...), with its source and, of an NS, its target. The node learns its router at once, and the
        CMD is asked about it where it is new."""
        if interface not in self._links:
            return self._drop("seen.interface")
        if trigger == "ns" and not any(source):
            trigger = "dad"
        kind = trigger if trigger in _TRIGGERS else "other"
        place = None
        if link_layer is not None:
            place = place_of_frame(interface, link_layer, source, target)
        if place is None:
            return self._drop("seen.source")
        if self._identities.is_a_routers(place.link_local):
            # It tries out, or makes up, an address that it will not have: routes by that would lead to ourselves.
            made = made_link_local(place.link_layer)
            place = Place(interface, place.link_layer, made, made)
        self._counters[f"seen.{kind}"] += 1
        actions = self._cache.returned(link_layer, now)
        actions += self._refresh_neighbour(interface, place.link_local, link_layer, now)
        known = self._cache.speaker(interface, place.link_layer)
        if known is None or not place.is_guessed:
            settled = source == place.link_local
            node = (interface, place.link_local, link_layer)
            actions += self._can_wait(partial(self._advertise, *node, settled=settled), now)
        return [*actions, *self._arrivals.seen(place, kind, now), *self._flush(now)]

    def attached(self, interface: str, link_layer: bytes, now: float) -> list[Action]:
        """An access point says that a node has come. It counts as the node's first frame."""
        return self.seen(interface, UNSPECIFIED, link_layer, "hook", now)

    def detached(self, interface: str, link_layer: bytes, now: float) -> list[Action]:
        """An access point says that a node has left. The node is asked; its prefixes stay."""
        if interface not in self._links:
            return self._drop("seen.interface")
        if not self._arrivals.detached(interface, link_layer, now):
            return self._drop("attach.detached-unknown")
        self._counters["attach.detached"] += 1
        return self._flush(now)

    def _advertise(
        self,
        interface: str,
        node: bytes,
        link_layer: bytes | None,
        now: float,
        settled: bool = True,
    ) -> list[Action]:
        return [
            *self._router.attached(
                interface, node, now, self._prefixes, link_layer, settled=settled
            )
        ]

    def _prefixes(self, interface: str, node: bytes, now: float) -> list[PrefixInformation]:
        return on_link(self._cache.at(interface, node), now)

    def _refresh_neighbour(
        self, interface: str, node: bytes, link_layer: bytes | None, now: float
    ) -> list[Action]:
        """Give a node that is here its link-layer address if it has none yet. One that differs
        changes nothing: any host can send such a frame, and only a DHCPv6 exchange, which the CMD
        judges, moves a node."""
        session = self._cache.at(interface, node)
        attachment = session.attachment if session is not None else None
        if session is None or attachment is None or link_layer in (None, attachment.link_layer):
            return []
        if attachment.link_layer is not None:
            return self._drop("seen.link-layer-conflict")
        attachment = replace(attachment, link_layer=link_layer)
        return self._cache.change(replace(session, attachment=attachment), now)

    # --- what people read ---

    def status(self, now: float) -> dict[str, Any]:
        """Sessions, peers, routers, tunnels and counters by reason, JSON-ready; lifetimes in seconds, null
        for infinity."""
        settings = self._settings
        return {
            "name": settings.name,
            "endpoint": format_address(self._endpoint),
            "pools": [str(pool) for pool in settings.pools],
            "authentication": settings.security.mode,
            "domain": {
                "known": self._domain.known,
                "mode": _MODES.get(self._domain.mode, "other"),
                "peers": sorted(map(format_address, self._domain.peers)),
            },
            "sessions": [
                session_status(self._cache.record(e, now), e, self._is_present(e))
                for e in self._cache
            ],
            "routers": routers_status(settings, self._cache),
            "tunnels": [format_address(peer) for peer in self._cache.tunnels()],
            "counters": dict(sorted((+self._counters).items())),
        }

    def _is_present(self, session: Session) -> bool:
        return session.here and self._arrivals.is_present(session)


def _first(suboptions: Iterable[dmm.SubOption], kind: type[_Sub]) -> _Sub | None:
    return next((each for each in suboptions if isinstance(each, kind)), None)
