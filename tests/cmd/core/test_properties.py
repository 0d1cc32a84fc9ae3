"""Whatever nodes, MAARs, the operator and the clock do: the history gives the table, and no prefix has two holders."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dhcp_cmd.core.model import (
    Binding,
    BindingRequest,
    ConflictPolicy,
    Decision,
    EventType,
    Kind,
    MaarState,
    State,
)
from dhcp_cmd.core.replay import Held, replay
from dmm_wire import dmm
from dmm_wire.address import Prefix
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
        "named": st.integers(0, 3),
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
    st.tuples(st.just("reap"), st.sampled_from([1, 3, 1000])),
    st.tuples(st.just("drain"), st.sampled_from(MAARS)),
)


class Run:
    """A world with small pools and short lifetimes, so that everything happens soon."""

    def __init__(self, policy: ConflictPolicy, max_anchors: int) -> None:
        pools = {
            n: tuple(
                replace(p, preferred=40 + n, valid=100 * n) for p in pools_of(n, (60, 56), bits=2)
            )
            for n in MAARS
        }
        self.world = World(
            a_domain(pools=pools),
            anchor_hold=150,
            max_anchors=max_anchors,
            reuse_margin=20,
            quarantine=90,
            conflict_policy=policy,
        )
        self.promised: dict[bytes, tuple[Host, Prefix, int]] = {}

    def step(self, what: str, value: object) -> None:
        getattr(self, what)(value)
        self.check()

    def batch(self, asked: list[dict[str, object]]) -> None:
        requests = [self.packet(**each) for each in asked]  # type: ignore[arg-type]
        decisions = self.world.cmd.handle(requests, self.world.now)
        assert {d.outcome for d in decisions} <= {
            "reply",
            "advertise",
            "silent",
            "identity-conflict",
        }
        self.check_leases(asked, decisions)

    def packet(
        self,
        host: int,
        maar: int,
        kind: int,
        ias: set[tuple[bool, int]],
        named: int,
        rapid: bool,
        mac: bool,
        mobile: bool,
    ) -> BindingRequest:
        rows = sorted(self.world.store.bindings.values(), key=lambda b: b.prefix)
        options = []
        for delegated, iaid in sorted(ias) if kind != M.INFORMATION_REQUEST else ():
            rows_of = [b for b in rows if b.iaid == iaid and b.node == self.id_of(host)]
            if named == 3:
                rows_of = rows  # somebody else's too
            if delegated:
                leases = [b.prefix for b in rows_of if b.kind is Kind.DELEGATED]
                hint = [Prefix(bytes(16), 56)] if named == 2 else []
                options.append(pd(iaid, *(leases if named else hint), *hint))
            else:
                addresses = [b.prefix.address for b in rows_of if b.kind is Kind.ADDRESS]
                options.append(na(iaid, *(addresses if named else ())))
        return self.world.packet(
            HOSTS[host], maar, kind, *options, rapid=rapid, mac=mac, mobile=mobile
        )

    def id_of(self, host: int) -> int | None:
        return self.world.store.tables.identities.get(HOSTS[host].identity)

    def query(self, value: tuple[int, int]) -> None:
        self.world.query(value[1], attachment(HOSTS[value[0]]))

    def failed(self, value: tuple[int, int]) -> None:
        host, maar = HOSTS[value[0]], value[1]
        reports = [
            dmm.AnchorFailed(b.prefix, self.world.domain.maars[b.anchor].endpoint)
            for b in self.world.store.bindings.values()
        ]
        self.world.query(maar, dmm.MobileNode(host.identity), *reports[:3])

    def time(self, seconds: float) -> None:
        self.world.later(seconds)

    def reap(self, limit: int) -> None:
        self.world.cmd.reap(self.world.now, limit)

    def drain(self, maar: int) -> None:
        if self.world.domain.maars[maar].state is MaarState.ACTIVE and maar != 1:
            self.world.drain(maar)

    def check(self) -> None:
        store = self.world.store
        table = {key: Held.of(b) for key, b in store.bindings.items()}
        assert replay(store.history) == table
        self.check_rows()
        self.check_history()

    def check_rows(self) -> None:
        rows = sorted(self.world.store.bindings.values(), key=lambda b: b.prefix)
        in_pools = [b for b in rows if b.kind is not Kind.ADDRESS]
        for one, other in pairwise(in_pools):
            assert one.prefix.last < other.prefix.address
        for row in rows:
            pools = self.world.domain.pools[row.anchor]
            if row.kind is Kind.ADDRESS:
                inside = [b for b in in_pools if b.prefix.contains(row.prefix)]
                if row.state is not State.ENDED:
                    (link,) = inside
                    assert (link.node, link.kind, link.anchor) == (row.node, Kind.LINK, row.anchor)
                    assert link.valid_until >= row.valid_until
                assert all(
                    b.node == row.node or (row.reusable_at or 0) <= self.world.now for b in inside
                )
            else:
                assert [p.slot(row.prefix) for p in pools if p.id == row.pool] == [row.slot]
            assert row.preferred_until <= row.valid_until
            if row.state is State.ENDED:
                assert row.ended_at is not None
                assert row.reusable_at is not None
                assert row.reusable_at >= row.valid_until + 20 * 10**6
        live = [(b.node, b.anchor, b.kind, b.iaid) for b in rows if b.state is not State.ENDED]
        assert len(set(live)) == len(live)

    def check_history(self) -> None:
        generations: dict[int, int] = {}
        for event in self.world.store.history:
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
        answer, rows = Answer(decision), self.world.store.bindings
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


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.sampled_from(ConflictPolicy),
    st.integers(1, 3),
    st.lists(steps, min_size=1, max_size=25),
)
def test_the_history_gives_the_table(
    policy: ConflictPolicy, max_anchors: int, what: list[tuple[str, object]]
) -> None:
    run = Run(policy, max_anchors)
    for name, value in what:
        run.step(name, value)
    # In the end everything ends, and nothing is left.
    for _ in range(4):
        run.time(100_000)
        run.reap(10_000)
        run.check()
    assert run.world.store.bindings == {}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(messages, min_size=1, max_size=12))
def test_a_batch_is_the_same_as_one_message_at_a_time(asked: list[dict[str, object]]) -> None:
    together, apart = Run(ConflictPolicy.DENY, 2), Run(ConflictPolicy.DENY, 2)
    requests = [together.packet(**each) for each in asked]  # type: ignore[arg-type]
    decided = together.world.cmd.handle(requests, together.world.now)
    one_by_one = [apart.world.handle(request) for request in requests]
    assert decided == one_by_one
    assert together.world.store.tables == apart.world.store.tables
