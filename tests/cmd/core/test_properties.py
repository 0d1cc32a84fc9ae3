"""Whatever nodes, MAARs, the operator and the clock do: the history gives the table, no prefix has two holders, and
what was promised is kept. On the store in memory, and on SQLite where `dhcp-cmd db check` looks on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dhcp_cmd.core.model import (
    MICROS,
    Binding,
    BindingRequest,
    ConflictPolicy,
    Decision,
    Event,
    EventType,
    Kind,
    MaarState,
    Micros,
    Pool,
    State,
)
from dhcp_cmd.core.replay import Held, replay
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, admin, maintenance, open_store
from dhcp_cmd.store import tables as t
from dhcp_cmd.store.engine import reading
from dhcp_cmd.store.rows import binding_of, event_of
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.identity import Identity
from tests.cmd.core.world import (
    START,
    Answer,
    Host,
    M,
    World,
    a_domain,
    attachment,
    na,
    pd,
    pools_of,
    told,
)

HOSTS = [Host(n) for n in range(1, 5)] + [Host(9, mac=Host(1).mac)]
MAARS = (1, 2, 3)
KINDS = (
    M.SOLICIT,
    M.REQUEST,
    M.CONFIRM,
    M.RENEW,
    M.REBIND,
    M.RELEASE,
    M.DECLINE,
    M.INFORMATION_REQUEST,
)

host_numbers = st.integers(0, len(HOSTS) - 1)
messages = st.fixed_dictionaries(
    {
        "host": host_numbers,
        "maar": st.sampled_from(MAARS),
        "kind": st.sampled_from(KINDS),
        "ias": st.sets(
            st.tuples(st.booleans(), st.integers(1, 2)), max_size=3
        ),  # (delegated, IAID)
        "named": st.sampled_from(["nothing", "own", "length", "any", "all"]),
        "which": st.integers(0, 50),
        "rapid": st.booleans(),
        "mac": st.booleans(),
        "mobile": st.sampled_from([True, True, True, False]),
    }
)
steps = st.one_of(
    st.tuples(st.just("batch"), st.lists(messages, min_size=1, max_size=5)),
    st.tuples(st.just("query"), st.tuples(host_numbers, st.sampled_from(MAARS))),
    st.tuples(st.just("failed"), st.tuples(host_numbers, st.sampled_from(MAARS))),
    st.tuples(st.just("time"), st.sampled_from([0.5, 3, 30, 61, 200, 1000])),
    st.tuples(st.just("reap"), st.one_of(st.integers(1, 6), st.just(1000))),
    st.tuples(st.just("drain"), st.sampled_from(MAARS)),
)


REUSE_MARGIN = 20
POLICY_SETTINGS: Mapping[str, object] = {
    "anchor_hold": 150,
    "reuse_margin": REUSE_MARGIN,
    "quarantine": 90,
}


def small_pools() -> dict[int, tuple[Pool, ...]]:
    """Of four units each and with short lifetimes, so that everything happens soon."""
    return {
        n: tuple(replace(p, preferred=40 + n, valid=100 * n) for p in pools_of(n, (60, 56), bits=2))
        for n in MAARS
    }


class Memory:
    """A world on the store in memory, seen from outside."""

    def __init__(self, **fields: object) -> None:
        self.world = World(a_domain(pools=small_pools()), **fields)

    @property
    def bindings(self) -> dict[bytes, Binding]:
        return self.world.store.bindings

    @property
    def history(self) -> list[Event]:
        return self.world.store.history

    @property
    def identities(self) -> dict[Identity, int]:
        return self.world.store.tables.identities

    def drain(self, maar: int) -> None:
        self.world.drain(maar)

    def check(self) -> None:
        """Nothing but what holds for any store."""


@cache
def _template() -> bytes:
    """A database file with the domain of the store in memory, made once."""
    domain = a_domain(pools=small_pools())
    specs = [
        admin.MaarSpec(
            maar.name,
            maar.endpoint,
            tuple(link.prefix for link in domain.links if link.maar == maar.id),
            tuple(
                admin.PoolSpec(p.kind, p.prefix, p.unit_length, p.preferred, p.valid)
                for p in domain.pools[maar.id]
            ),
            maar.relay_id,
            maar.relay_address,
        )
        for maar in domain.maars.values()
    ]
    with TemporaryDirectory() as folder:
        file = Path(folder, "cmd.sqlite")
        store = open_store(str(file), create=True)
        admin.add_maars(store, specs)
        with store.administration() as connection:  # so that a failure comes again
            connection.exec_driver_sql("UPDATE domain SET hash_key = ?", (domain.hash_key,))
        store.close()
        return file.read_bytes()


class Sqlite:
    """A world on SQLite, seen from outside."""

    def __init__(self, folder: str, **fields: object) -> None:
        file = Path(folder, "cmd.sqlite")
        file.write_bytes(_template())
        self.store: SqlStore = open_store(str(file))
        self.world = World(admin.read_domain(self.store), **fields)
        self.world.cmd = Cmd(self.store, self.world.settings)

    @property
    def bindings(self) -> dict[bytes, Binding]:
        with reading(self.store.engine) as connection:
            rows = map(binding_of, connection.execute(select(t.binding)))
            return {row.prefix.address: row for row in rows}

    @property
    def history(self) -> list[Event]:
        with reading(self.store.engine) as connection:
            query = select(t.history).order_by(t.history.c.id)
            return list(map(event_of, connection.execute(query)))

    @property
    def identities(self) -> dict[Identity, int]:
        with reading(self.store.engine) as connection:
            rows = connection.execute(select(t.node_identity).where(t.node_identity.c.retired == 0))
            return {Identity(row.subtype, row.value): row.node_id for row in rows}

    def drain(self, maar: int) -> None:
        admin.set_state(self.store, self.world.domain.maars[maar].name, MaarState.DRAINING)
        self.world.domain = admin.read_domain(self.store)

    def check(self) -> None:
        """As `dhcp-cmd db check`."""
        assert maintenance.check(self.store) == []


Side = Memory | Sqlite


@contextmanager
def a_side(kind: str, **fields: object) -> Iterator[Side]:
    """One of the two, with the settings of this test."""
    fields = {**POLICY_SETTINGS, **fields}
    if kind == "memory":
        yield Memory(**fields)
        return
    with TemporaryDirectory() as folder:
        side = Sqlite(folder, **fields)
        try:
            yield side
        finally:
            side.store.close()


class Run:
    """Steps in a small world, with a look at everything after each."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.world = side.world
        self.seen: dict[Prefix, None] = {}
        """Every prefix there ever was, in the order in which they came."""
        self.promised: dict[Prefix, tuple[int, Micros]] = {}
        """Until when which node, or a MAAR for it, was told that it has a prefix."""
        self.read = 0
        """How much of the history was looked at for merges."""

    def step(self, what: str, value: object) -> None:
        getattr(self, what)(value)
        self.check()

    def batch(self, asked: list[dict[str, object]]) -> None:
        requests = [self.packet(**each) for each in asked]  # type: ignore[arg-type]
        decisions = self.world.handle_all(requests)
        assert {d.outcome for d in decisions} <= {
            "reply",
            "advertise",
            "silent",
            "identity-conflict",
        }
        self.check_leases(asked, decisions)
        for decision in decisions:
            self.promise(decision)

    def packet(
        self,
        host: int,
        maar: int,
        kind: int,
        ias: set[tuple[bool, int]],
        named: str,
        which: int,
        rapid: bool,
        mac: bool,
        mobile: bool,
    ) -> BindingRequest:
        rows = sorted(self.side.bindings.values(), key=lambda b: b.prefix)
        own = [b for b in rows if b.node == self.id_of(host)]
        options = []
        for delegated, iaid in sorted(ias) if kind != M.INFORMATION_REQUEST else ():
            if named == "any" and self.seen:  # a stranger's, one long gone, an address beside it
                one = list(self.seen)[which % len(self.seen)]
                beside = (int.from_bytes(one.address, "big") + which).to_bytes(16, "big")
                leases = [one, Prefix(one.address, 128), Prefix(beside, 128)]
            elif named == "all":
                leases = [b.prefix for b in rows]
            elif named == "nothing":
                leases = []
            else:
                leases = [b.prefix for b in own if b.iaid == iaid]
            if delegated:
                hint = [Prefix(bytes(16), 56)] if named == "length" else []
                options.append(pd(iaid, *(p for p in leases if p.length < 128), *hint))
            else:
                options.append(na(iaid, *(p.address for p in leases if p.length == 128)))
        return self.world.packet(
            HOSTS[host], maar, kind, *options, rapid=rapid, mac=mac, mobile=mobile
        )

    def id_of(self, host: int) -> int | None:
        return self.side.identities.get(HOSTS[host].identity)

    def promise(self, decision: Decision) -> None:
        """Remember what the client is told, and what its MAAR is told for it."""
        leases: list[tuple[Prefix, int]] = []
        if decision.reply is not None and decision.reply.type == M.REPLY:
            answer = Answer(decision)
            for ia in answer.na.values():
                leases += [(Prefix(address, 128), valid) for address, (_, valid) in ia.items()]
            for delegated in answer.pd.values():
                leases += [(prefix, valid) for prefix, (_, valid) in delegated.items()]
        for each in decision.relay:
            if isinstance(each, dmm.AnchoredPrefix | dmm.PreviousMaar):
                leases.append((each.prefix, each.valid))
        rows = self.side.bindings
        for prefix, valid in leases:
            end = self.world.now + valid * MICROS
            if valid and end > self.promised.get(prefix, (0, 0))[1]:
                self.promised[prefix] = rows[prefix.address].node, end

    def query(self, value: tuple[int, int]) -> None:
        self.promise(self.world.query(value[1], attachment(HOSTS[value[0]])))

    def failed(self, value: tuple[int, int]) -> None:
        host, maar = HOSTS[value[0]], value[1]
        reports = [
            dmm.AnchorFailed(b.prefix, self.world.domain.maars[b.anchor].endpoint)
            for b in self.side.bindings.values()
        ]
        self.world.query(maar, dmm.MobileNode(host.identity), *reports[:3])

    def time(self, seconds: float) -> None:
        self.world.later(seconds)

    def reap(self, limit: int) -> None:
        self.world.cmd.reap(self.world.now, limit)

    def drain(self, maar: int) -> None:
        if self.world.domain.maars[maar].state is MaarState.ACTIVE and maar != 1:
            self.side.drain(maar)

    def check(self) -> None:
        bindings, history = self.side.bindings, self.side.history
        self.seen.update({b.prefix: None for b in bindings.values()})
        assert replay(history) == {key: Held.of(b) for key, b in bindings.items()}
        self.check_rows(bindings)
        self.check_promises(bindings, history)
        self.check_history(history)
        self.side.check()

    def check_rows(self, bindings: Mapping[bytes, Binding]) -> None:
        rows = sorted(bindings.values(), key=lambda b: b.prefix)
        in_pools = [b for b in rows if b.kind is not Kind.ADDRESS]
        for one, other in pairwise(in_pools):
            assert one.prefix.last < other.prefix.address
        for row in rows:
            pools = self.world.domain.pools[row.anchor]
            if row.kind is Kind.ADDRESS:
                # Never without its LINK prefix, ended ones neither: that would come free, with it in it.
                (link,) = [b for b in in_pools if b.prefix.contains(row.prefix)]
                assert (link.node, link.kind, link.anchor) == (row.node, Kind.LINK, row.anchor)
                if row.state is not State.ENDED:
                    assert link.state is row.state
                    assert link.hold_until == row.hold_until
                    assert link.valid_until >= row.valid_until
                elif link.state is State.ENDED:
                    assert (link.reusable_at or 0) > (row.reusable_at or 0)
            else:
                assert [p.slot(row.prefix) is None for p in pools if p.id == row.pool] == [False]
            assert row.preferred_until <= row.valid_until
            if row.state is State.ENDED:
                assert row.ended_at is not None
                assert row.reusable_at is not None
                assert row.reusable_at >= row.valid_until + REUSE_MARGIN * MICROS
        live = [(b.node, b.anchor, b.kind, b.iaid) for b in rows if b.state is not State.ENDED]
        assert len(set(live)) == len(live)

    def check_promises(self, bindings: Mapping[bytes, Binding], history: list[Event]) -> None:
        """What a node was told to have is nobody else's until that, and the margin, is over."""
        for event in history[self.read :]:
            if event.cause == "merge" and event.type is EventType.ASSIGNED:
                assert event.prefix is not None
                self.promised[event.prefix] = event.node, self.promised.get(event.prefix, (0, 0))[1]
        self.read = len(history)
        for prefix, (node, end) in self.promised.items():
            if end + REUSE_MARGIN * MICROS > self.world.now:
                row = bindings[prefix.address]
                assert (row.prefix, row.node) == (prefix, node)
                assert row.valid_until >= end

    def check_history(self, history: list[Event]) -> None:
        generations: dict[int, int] = {}
        for event in history:
            assert START <= event.at <= event.recorded_at <= self.world.now
            if event.type is EventType.HANDOVER:
                assert event.generation is not None
                assert event.from_maar != event.to_maar
                assert event.generation > generations.get(event.node, 0)
                generations[event.node] = event.generation

    def check_leases(self, asked: list[dict[str, object]], decisions: list[Decision]) -> None:
        """A lease in the last Reply to each host is in the table, as long as it was said."""
        last: dict[int, Decision] = {}
        for each, decision in zip(asked, decisions, strict=True):
            number = int(str(each["host"]))
            if decision.reply is not None and decision.reply.type == M.REPLY:
                last[number] = decision
            elif decision.reply is not None:
                assert not decision.changes or not any(
                    getattr(c, "new", False) and hasattr(c, "binding") for c in decision.changes
                )
        owners = {h: self.id_of(h) for h in last}
        for number, decision in last.items():
            if list(owners.values()).count(owners[number]) > 1:
                continue  # two hosts that were merged
            if any(int(str(e["host"])) == number for e in asked[decisions.index(decision) + 1 :]):
                continue  # a later message that got no Reply may have changed it
            self.check_told(owners[number], decision)

    def has_a_second(self, row: Binding) -> bool:
        end = min(row.valid_until, row.hold_until or row.valid_until)
        return row.state is not State.ENDED and end >= self.world.now + 10**6

    def check_told(self, owner: int | None, decision: Decision) -> None:
        answer, rows = Answer(decision), self.side.bindings
        leases = [
            (Prefix(address, 128), times)
            for ia in answer.na.values()
            for address, times in ia.items()
        ] + [(prefix, times) for ia in answer.pd.values() for prefix, times in ia.items()]
        for prefix, (preferred, valid) in leases:
            if valid:
                row = rows[prefix.address]
                assert (row.prefix, row.node) == (prefix, owner)
                assert preferred <= valid
                assert (preferred > 0) <= (row.state is State.ACTIVE)
                assert self.world.now + valid * 10**6 <= row.valid_until
        anchors = [
            each
            for each in decision.relay
            if isinstance(each, dmm.AnchoredPrefix | dmm.PreviousMaar)
        ]
        for each in anchors:
            row = rows[each.prefix.address]
            assert (row.prefix, row.node) == (each.prefix, owner)
            assert row.state is not State.ENDED
            assert self.world.now + each.valid * 10**6 <= row.valid_until
        if decision.level is not None and told(decision, dmm.Visit):
            said = {each.prefix for each in anchors}
            assert said == {
                b.prefix
                for b in rows.values()
                if b.node == owner and b.kind is not Kind.ADDRESS and self.has_a_second(b)
            }


def lived(kind: str, what: list[tuple[str, object]], **fields: object) -> None:
    """Go through the steps; in the end everything ends, and nothing is left."""
    with a_side(kind, **fields) as side:
        run = Run(side)
        for name, value in what:
            run.step(name, value)
        for _ in range(4):
            run.time(100_000)
            run.reap(10_000)
            run.check()
        assert side.bindings == {}


lives = given(
    st.sampled_from(ConflictPolicy),
    st.integers(1, 3),
    st.lists(steps, min_size=1, max_size=25),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@lives
def test_the_history_gives_the_table(
    policy: ConflictPolicy, max_anchors: int, what: list[tuple[str, object]]
) -> None:
    lived("memory", what, conflict_policy=policy, max_anchors=max_anchors)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@lives
def test_the_history_gives_the_table_on_sqlite(
    policy: ConflictPolicy, max_anchors: int, what: list[tuple[str, object]]
) -> None:
    lived("sqlite", what, conflict_policy=policy, max_anchors=max_anchors)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_prefix_does_not_come_free_before_its_addresses(kind: str) -> None:
    """A reaper that is late and does little at a time; then a stranger gets the prefix, and names the address."""
    with a_side(kind) as side:
        run, world = Run(side), side.world
        world.attached(HOSTS[0], 1, na())
        run.check()
        (address,) = (b.prefix.address for b in side.bindings.values() if b.kind is Kind.ADDRESS)
        run.step("time", 10_000)
        while side.bindings:
            run.step("reap", 1)
            world.later(100)
        for host in HOSTS[1:]:  # to each of the four prefixes somebody comes
            world.attached(host, 1, na(1, address))
            run.check()
        assert address in side.bindings


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(messages, min_size=1, max_size=12))
def test_a_batch_is_the_same_as_one_message_at_a_time(asked: list[dict[str, object]]) -> None:
    one, other = Memory(**POLICY_SETTINGS, max_anchors=2), Memory(**POLICY_SETTINGS, max_anchors=2)
    together, apart = Run(one), Run(other)
    requests = [together.packet(**each) for each in asked]  # type: ignore[arg-type]
    decided = together.world.handle_all(requests)
    one_by_one = [apart.world.handle(request) for request in requests]
    assert decided == one_by_one
    assert together.world.store.tables == apart.world.store.tables
