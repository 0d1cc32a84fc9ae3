"""The batch: one transaction, in order, and what one bad message or a failing database costs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from dhcp_cmd import service
from dhcp_cmd.core.decide import decide
from dhcp_cmd.core.inquire import Inquiry
from dhcp_cmd.core.model import (
    Change,
    Decision,
    Kind,
    Micros,
    Need,
    PutBinding,
    PutNode,
    Settings,
    Snapshot,
)
from dhcp_cmd.core.ports import Collision, StoreError
from tests.cmd.core.world import Answer, Host, M, World, a_domain, a_maar, na, pd, pools_of
from tests.cmd.memory_store import MemoryTransaction


def test_messages_of_one_node_in_a_batch_see_each_other() -> None:
    world, host = World(), Host(1)
    packets = [
        world.packet(host, 1, M.SOLICIT, na(), pd()),
        world.packet(host, 1, M.REQUEST, na(), pd()),
        world.packet(host, 2, M.REBIND, na(), pd()),
        world.packet(host, 1, M.RENEW, na(), pd()),
    ]
    advertised, home, away, back = map(Answer, world.handle_all(packets))
    assert advertised.na == home.na
    assert len(away.na[1]) == len(back.na[1]) == 2
    assert [a for a, (preferred, _) in back.na[1].items() if preferred] == list(home.na[1])
    # One read, and one more for what the node once had at MAAR 2.
    assert (world.store.commits, world.store.reads) == (1, 2)


def test_a_batch_shares_a_pool_that_is_nearly_full() -> None:
    world = World(a_domain([a_maar(1)], {1: pools_of(1, bits=5)}))
    packets = [world.packet(Host(n), 1, M.REQUEST, pd(), na()) for n in range(1, 35)]
    answers = [Answer(d) for d in world.handle_all(packets)]
    given = [p for a in answers for p in a.pd[1]]
    assert len(set(given)) == len(given) == 32
    assert [bool(a.ia_status) for a in answers] == [False] * 32 + [True] * 2
    assert len(world.rows(kind=Kind.LINK)) == 32


def test_nothing_is_said_before_it_is_committed() -> None:
    world, host = World(), Host(1)

    def full() -> None:
        raise StoreError("disk full")

    world.store.before_commit = full
    with pytest.raises(StoreError):
        world.ask(host, 1, M.REQUEST, na())
    assert world.store.tables.nodes == {}
    assert sum(world.cmd.outcomes.values()) == world.cmd.commits == 0
    world.store.before_commit = None
    assert world.ask(host, 1, M.REQUEST, na()).outcome == "reply"  # the retransmission


def test_a_collision_has_the_whole_batch_decided_anew() -> None:
    world = World()
    rival = Host(9)
    packets = [world.packet(Host(n), 1, M.REQUEST, na(), pd()) for n in (1, 2)]

    def somebody_was_first(changes: Sequence[Change]) -> None:
        """Another CMD gives the rival what the first of the batch was to get, and only then we write."""
        world.store.before_write = None
        (first, *_) = [c.binding for c in changes if isinstance(c, PutBinding)]
        other = World(world.domain)
        other.now = world.now
        other.attached(rival, 1, pd(1))
        tables = other.store.tables
        (held,) = tables.bindings.values()
        node = other.node(rival)
        world.store.tables.nodes[node.id] = node
        world.store.tables.identities |= dict.fromkeys(node.identities, node.id)
        key = first.prefix.address
        world.store.tables.bindings[key] = held._replace(prefix=first.prefix, pool=first.pool)
        raise Collision("unique index")

    world.store.before_write = somebody_was_first
    decisions = world.handle_all(packets)
    assert [d.outcome for d in decisions] == ["reply", "reply"]
    assert world.cmd.outcomes == {"reply": 2, "batch-retried": 1}
    assert len(world.rows(rival)) == 1
    for number in (1, 2):
        assert {b.kind for b in world.rows(Host(number))} == set(Kind)


def test_a_new_nodes_id_that_clashes_is_salted_again() -> None:
    world, host = World(), Host(1)
    ids: list[int] = []

    def taken(changes: Sequence[Change]) -> None:
        (node,) = [c.node for c in changes if isinstance(c, PutNode)]
        ids.append(node.id)
        if len(ids) < service.MAX_TRIES:
            raise Collision("primary key")

    world.store.before_write = taken
    assert world.ask(host, 1, M.REQUEST, na()).outcome == "reply"
    assert len(set(ids)) == service.MAX_TRIES
    assert world.node(host).id == ids[-1]


def test_a_collision_that_persists_costs_one_request() -> None:
    world = World()
    packets = [world.packet(Host(n), 1, M.REQUEST, na()) for n in (1, 2, 3)]

    def never(changes: Sequence[Change]) -> None:
        if any(isinstance(c, PutNode) and Host(2).identity in c.node.identities for c in changes):
            raise Collision("for ever")

    world.store.before_write = never
    decisions = world.handle_all(packets)
    assert [d.outcome for d in decisions] == ["reply", "collision", "reply"]
    assert decisions[1].reply is None
    assert world.cmd.outcomes["reply"] == 2
    alone = world.handle(packets[1])
    assert (alone.outcome, alone.reply) == ("collision", None)


@pytest.fixture
def poisonous(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request from host 13 meets a bug."""

    def buggy(
        inquiry: Inquiry, snapshot: Snapshot, settings: Settings, now: Micros, salt: int = 0
    ) -> Decision | Need:
        if inquiry.request.client_id == Host(13).duid:
            raise ZeroDivisionError("a bug")
        return decide(inquiry, snapshot, settings, now, salt)

    monkeypatch.setattr(service, "decide", buggy)


@pytest.mark.interpreted
@pytest.mark.usefixtures("poisonous")
def test_a_poisonous_request_costs_itself(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    packets = [world.packet(Host(n), 1, M.REQUEST, na()) for n in (1, 13, 2, 13)]
    with caplog.at_level(logging.ERROR):
        decisions = world.handle_all(packets)
    assert [d.outcome for d in decisions] == ["reply", "internal-error", "reply", "internal-error"]
    assert decisions[1].reply is None
    assert world.cmd.outcomes == {"reply": 2, "internal-error": 2}
    assert len(caplog.records) == 1
    assert len(world.store.tables.nodes) == 2


def test_a_row_that_the_store_chokes_on_costs_its_own_request() -> None:
    world = World()
    packets = [world.packet(Host(n), 1, M.REQUEST, na()) for n in (1, 2)]

    def choke(changes: Sequence[Change]) -> None:
        if any(isinstance(c, PutNode) and Host(2).identity in c.node.identities for c in changes):
            raise OverflowError("too large for a column")

    world.store.before_write = choke
    decisions = world.handle_all(packets)
    assert [d.outcome for d in decisions] == ["reply", "internal-error"]


@pytest.mark.interpreted
def test_a_decision_that_never_stops_asking_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(service, "decide", lambda *_: Need(gaps=((10, 0),)))
    assert world.ask(Host(1), 1, M.SOLICIT).outcome == "internal-error"


def test_an_empty_batch() -> None:
    world = World()
    assert world.handle_all([]) == []


def test_conflicts_are_recorded_once_a_batch_too() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    thief = Host(1, mac=b"\x02\x66\x66\x66\x66\x66")
    packets = [world.packet(thief, 2, M.REBIND, na()) for _ in range(5)]
    decisions = world.handle_all(packets)
    assert {d.outcome for d in decisions} == {"identity-conflict"}
    assert len(world.events("conflict")) == 1


def test_the_reaper_records_ends_then_frees() -> None:
    world, host = World(reuse_margin=60), Host(1)
    world.attached(host, 1)
    end = world.now + 3600 * 10**6
    commits = world.cmd.commits
    assert world.cmd.reap(end - 1, 10) == 0
    assert world.cmd.commits == commits > 0
    world.later(5000)
    assert world.cmd.reap(world.now, 10) == 3
    assert world.cmd.commits == commits + 1
    assert {(e.at, e.recorded_at, e.cause) for e in world.store.history[-3:]} == {
        (end, world.now, "valid-lifetime")
    }
    assert {b.kind: b.reusable_at for b in world.rows()} == {
        Kind.ADDRESS: end + 60 * 10**6,
        Kind.DELEGATED: end + 60 * 10**6,
        Kind.LINK: end + 60 * 10**6 + 1,  # after its address, whatever a reap is limited to
    }
    assert world.cmd.reap(world.now, 2) == 2
    assert world.cmd.reap(world.now, 2) == 1
    assert world.cmd.reap(world.now, 2) == 0
    assert world.rows() == []
    assert world.events("reclaimed") == [("reclaimed", "reaper")] * 3


def test_the_clock_is_read_once_the_transaction_has_begun() -> None:
    """Whoever waits for another writer is later than that one, also in the history."""
    world, host = World(), Host(1)
    inside: list[bool] = []
    begin = world.store.transaction

    @contextmanager
    def waiting() -> Iterator[MemoryTransaction]:
        with begin() as transaction:
            inside.append(True)
            yield transaction
            inside.pop()

    def clock() -> Micros:
        return world.now if inside else 0

    world.store.transaction = waiting  # type: ignore[method-assign]
    world.cmd.handle([world.packet(host, 1, M.REQUEST, na())], clock)
    assert {event.at for event in world.store.history} == {world.now}


def test_nodes_that_hold_nothing_are_forgotten() -> None:
    world, gone, busy = World(node_retention=50_000), Host(1), Host(2)
    world.attached(gone, 1)
    world.attached(busy, 1)
    for _ in range(2):
        world.later(10_000).attached(busy, 1)
        world.cmd.reap(world.now, 100)
    assert world.rows(gone) == []
    assert world.cmd.reap(world.now, 100) == 0  # it may be back soon
    history = list(world.store.history)
    before = world.node(gone).id
    world.later(30_000).attached(busy, 1)
    world.cmd.reap(world.now, 100)
    assert world.cmd.reap(world.now, 100) == 0
    assert gone.identity not in world.store.tables.identities
    assert world.node(busy).serving == 1
    assert world.store.history[: len(history)] == history
    world.attached(gone, 1)
    assert world.node(gone).id != before


def test_forgetting_is_part_of_the_limit() -> None:
    world = World(node_retention=0)
    for number in range(1, 6):
        world.attached(Host(number), 1, pd())
    for _ in range(2):
        world.later(10_000)
        assert world.cmd.reap(world.now, 5) == 5
    assert [world.cmd.reap(world.now, 3) for _ in range(3)] == [3, 2, 0]
    assert world.store.tables.nodes == {}
