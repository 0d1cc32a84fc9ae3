"""Moves: visits, anchors, what client and MAAR are told, and how anchoring ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dhcp_cmd.core import relay_options
from dhcp_cmd.core.model import EventType, Kind, RouterChoice, State
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import StatusCode
from dmm_wire.router_identity import of_anchor
from dmm_wire.timestamp import from_micros
from tests.cmd.core.world import (
    START,
    Answer,
    Host,
    M,
    World,
    a_domain,
    a_maar,
    attachment,
    dmm_status,
    na,
    pd,
    pools_of,
    relayed,
    told,
    told_prefixes,
    visit,
)


def test_a_maar_hears_as_which_router_an_anchor_is_shown() -> None:
    """RFC 8885 section 3.7; only where each MAAR is a router of its own."""
    chosen = replace(a_maar(1), router_link_layer=bytes.fromhex("02005e005301"))
    for choice, expected in (
        (RouterChoice.FIXED, (None, None)),
        (RouterChoice.DLIF, (chosen.router.link_local, (1, chosen.router.link_layer))),
    ):
        domain = a_domain([chosen, a_maar(2), a_maar(3)], {n: pools_of(n) for n in (1, 2, 3)})
        world, host = World(domain, router_identity=choice), Host(1)
        world.attached(host, 1, na(), pd())
        world.later(60).attached(host, 2, na(), pd())
        decision = world.later(60).ask(host, 3, M.REBIND, na(), pd())
        found = {
            (each.endpoint, each.dlif_link_local, each.dlif_link_layer)
            for each in told(decision, dmm.PreviousMaar)
        }
        own = of_anchor(a_maar(2).endpoint)
        nobodys = (
            (None, None) if choice is RouterChoice.FIXED else (own.link_local, (1, own.link_layer))
        )
        assert found == {(chosen.endpoint, *expected), (a_maar(2).endpoint, *nobodys)}


def prefixes(world: World, host: Host, anchor: int) -> set[Prefix]:
    return {
        b.prefix
        for b in world.live(host)
        if b.anchor == anchor and b.kind in (Kind.LINK, Kind.DELEGATED)
    }


def test_a_move_keeps_the_old_leases_and_gives_new_ones() -> None:
    world, host = World(), Host(1)
    old = world.attached(host, 1)
    decision = world.later(100).ask(host, 2, M.REBIND, na(1, *old.na[1]), pd(1, *old.pd[1]))
    answer = Answer(decision)
    for leases, before in ((answer.na[1], old.na[1]), (answer.pd[1], old.pd[1])):
        ((_, local),) = [(p, t) for p, t in leases.items() if p not in before]
        ((_, anchored),) = [(p, t) for p, t in leases.items() if p in before]
        assert (local, anchored) == ((1800, 3600), (0, 3600))
        assert next(iter(leases)) not in before  # the preferred one comes first
    assert answer.timers == {(900, 1440)}
    assert answer.ia_status == {}
    assert {b.state for b in world.rows(host, anchor=1)} == {State.DEPRECATED}
    assert {b.state for b in world.rows(host, anchor=2)} == {State.ACTIVE}
    previous = told(decision, dmm.PreviousMaar)
    assert {p.prefix for p in previous} == prefixes(world, host, 1)
    assert {(p.endpoint, p.preferred, p.valid) for p in previous} == {
        (world.domain.maars[1].endpoint, 0, 3600)
    }
    assert set(told_prefixes(decision)) == prefixes(world, host, 2)
    assert visit(decision).previous == world.domain.maars[1].endpoint


@pytest.mark.parametrize(
    "kind",
    [
        M.SOLICIT,
        M.REQUEST,
        M.CONFIRM,
        M.RENEW,
        M.REBIND,
        M.RELEASE,
        M.DECLINE,
        M.INFORMATION_REQUEST,
    ],
)
def test_any_message_is_a_handover(kind: int) -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    first = world.node(host).generation
    ias = () if kind == M.INFORMATION_REQUEST else (na(99),)
    decision = world.later(10).ask(host, 2, kind, *ias)
    node = world.node(host)
    assert (node.serving, node.previous, node.visit_since) == (2, 1, world.now)
    assert node.generation == from_micros(world.now) > first
    if kind != M.CONFIRM:  # no address in it: no reply
        assert visit(decision) == dmm.Visit(node.generation, world.domain.maars[1].endpoint)
        assert {p.prefix for p in told(decision, dmm.PreviousMaar)} == prefixes(world, host, 1)
    (event,) = [e for e in world.store.history if e.from_maar == 1]
    assert (event.type, event.to_maar, event.generation) == (
        EventType.HANDOVER,
        2,
        node.generation,
    )


def test_repeats_on_a_visit_tell_the_same_visit() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    visits = {
        visit(world.later(1).ask(host, 2, kind, na()))
        for kind in (M.SOLICIT, M.SOLICIT, M.REQUEST, M.RENEW)
    }
    assert len(visits) == 1
    assert visits.pop().previous == world.domain.maars[1].endpoint


def test_generations_grow_even_when_the_clock_does_not() -> None:
    world, host = World(flap_limit=100), Host(1)
    world.attached(host, 3)
    seen = []
    for maar in (1, 2, 3, 1, 2):
        seen.append(visit(world.ask(host, maar, M.SOLICIT)).generation)
        world.now -= 10**6
    assert seen == sorted(set(seen))


def test_three_maars_and_back() -> None:
    world, host = World(), Host(1)
    home = world.attached(host, 1)
    world.later(60).attached(host, 2)
    third = world.later(60).ask(host, 3, M.REQUEST, na(), pd())
    assert {p.endpoint for p in told(third, dmm.PreviousMaar)} == {
        world.domain.maars[n].endpoint for n in (1, 2)
    }
    back = world.later(60).ask(host, 1, M.REBIND, na(1, *home.na[1]), pd(1, *home.pd[1]))
    answer = Answer(back)
    for leases, before in ((answer.na[1], home.na[1]), (answer.pd[1], home.pd[1])):
        local = {p for p, (preferred, _) in leases.items() if preferred}
        assert (local, len(leases)) == (set(before), 3)
        assert next(iter(leases)) in before
    assert set(told_prefixes(back)) == prefixes(world, host, 1)
    assert {b.state for b in world.rows(host, anchor=1)} == {State.ACTIVE}
    assert {b.hold_until for b in world.rows(host, anchor=1)} == {None}
    assert {b.state for b in world.rows(host, anchor=3)} == {State.DEPRECATED}
    assert world.events("deprecated").count(("deprecated", "rebind")) == 3


def test_an_anchored_lease_is_extended_until_its_hold_ends() -> None:
    world, host = World(anchor_hold=5000), Host(1)
    old = world.attached(host, 1, na())
    world.later(10).attached(host, 2, na())
    left = [
        Answer(world.later(seconds).ask(host, 2, M.RENEW, na())).na[1].get(*old.na[1])
        for seconds in (1500, 1500, 1500, 520)
    ]
    assert left == [(0, 3500), (0, 2000), (0, 500), (0, 0)]
    row = world.row(host, prefix=next(b.prefix for b in world.rows(host, anchor=1)))
    assert row.ended_at == START + 5010 * 10**6
    assert ("expired", "anchor-hold") in world.events()


def test_a_move_never_shortens_what_was_promised() -> None:
    world, host = World(anchor_hold=10, reuse_margin=7), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    world.later(20).attached(host, 2)
    for row in world.rows(host, anchor=1):
        assert row.state is State.ENDED
        assert row.valid_until == START + 3600 * 10**6
        assert row.ended_at == START + 70 * 10**6
        assert row.reusable_at == START + 3607 * 10**6 + (row.kind is Kind.LINK)


def test_the_oldest_anchor_goes_first() -> None:
    maars = [a_maar(n) for n in range(1, 6)]
    world, host = World(a_domain(maars), max_anchors=2), Host(1)
    for maar in (1, 2, 3):
        world.later(60).attached(host, maar)
    world.later(60).attached(host, 1)  # now 2 is the one left longest ago
    decision = world.later(60).ask(host, 4, M.SOLICIT)
    endpoints = {p.endpoint for p in told(decision, dmm.PreviousMaar)}
    assert endpoints == {maars[0].endpoint, maars[2].endpoint}
    assert {b.state for b in world.rows(host, anchor=2)} == {State.ENDED}
    assert world.events().count(("expired", "max-anchors")) == 3


def test_what_ended_is_told_with_lifetime_zero_until_it_is_reclaimed() -> None:
    world, host = World(anchor_hold=10), Host(1)
    (old,) = world.attached(host, 1, pd()).pd[1]
    world.later(5).attached(host, 2, pd())
    world.later(11)
    decision = world.ask(host, 2, M.RENEW, pd())
    assert Answer(decision).pd[1][old] == (0, 0)
    assert told(decision, dmm.PreviousMaar) == []
    world.later(4000).cmd.reap(world.now, 100)
    assert world.rows(prefix=old) == []
    assert old not in Answer(world.ask(host, 2, M.RENEW, pd())).pd[1]


def test_release_of_an_anchored_address_ends_its_link_prefix() -> None:
    """Nothing needs the tunnel any more."""
    world, host = World(), Host(1)
    old = world.attached(host, 1, na(1), na(2))
    world.later(10).attached(host, 2, na(1), na(2))
    one = world.ask(host, 2, M.RELEASE, na(1, *old.na[1]))
    assert len(told(one, dmm.PreviousMaar)) == 1
    both = world.ask(host, 2, M.RELEASE, na(2, *old.na[2]))
    assert told(both, dmm.PreviousMaar) == []
    assert {b.state for b in world.rows(host, anchor=1)} == {State.ENDED}
    assert world.node(host).serving == 2


def test_a_returning_node_gets_its_ended_prefix_back() -> None:
    world, host = World(anchor_hold=10), Host(1)
    home = world.attached(host, 1)
    world.later(5).attached(host, 2)
    world.later(20).attached(host, 2)
    assert {b.state for b in world.rows(host, anchor=1)} == {State.ENDED}
    back = world.later(5).attached(host, 1)
    local = {p for p, (preferred, _) in back.pd[1].items() if preferred}
    assert local == set(home.pd[1])
    assert {p for p, (preferred, _) in back.na[1].items() if preferred} == set(home.na[1])


def test_a_returning_node_gets_its_reclaimed_prefix_from_the_history() -> None:
    """Also where its hash would lead elsewhere: it named this one once."""
    world, host = World(anchor_hold=10), Host(1)
    unusual = pools_of(1)[1].unit(200)
    (home,) = world.attached(host, 1, pd(1, unusual)).pd[1]
    assert home == unusual
    world.later(5).attached(host, 2, pd())
    for _ in range(2):
        world.later(10_000).cmd.reap(world.now, 100)
    assert world.rows(host, anchor=1) == []
    back = world.attached(host, 1, pd())
    assert [p for p, (preferred, _) in back.pd[1].items() if preferred] == [unusual]


def test_what_the_history_says_is_not_taken_from_somebody_else() -> None:
    world, host, other = World(anchor_hold=10), Host(1), Host(2)
    (home,) = world.attached(host, 1, pd()).pd[1]
    world.later(5).attached(host, 2, pd())
    for _ in range(2):
        world.later(10_000).cmd.reap(world.now, 100)
    assert set(world.attached(other, 1, pd(1, home)).pd[1]) == {home}
    back = world.attached(host, 1, pd())
    assert home not in back.pd[1]
    assert len([t for t in back.pd[1].values() if t[0]]) == 1


def test_a_drained_maar_gives_nothing_new_and_keeps_what_is_anchored() -> None:
    world, host, late = World(), Host(1), Host(2)
    held = world.attached(host, 1)
    world.drain(1)
    refused = Answer(world.ask(late, 1, M.REQUEST, na(), pd()))
    assert refused.ia_status == {
        ("na", 1): StatusCode.NO_ADDRS_AVAIL,
        ("pd", 1): StatusCode.NO_PREFIX_AVAIL,
    }
    kept = Answer(world.later(1000).ask(host, 1, M.RENEW, na(), pd()))
    assert kept.na[1] == dict.fromkeys(held.na[1], (800, 2600))
    assert kept.timers == {(400, 640)}  # as ever: the operator may undo it
    moved = world.later(100).ask(host, 2, M.REQUEST, na(), pd())
    assert len(told(moved, dmm.PreviousMaar)) == 2
    assert Answer(moved).na[1][next(iter(held.na[1]))] == (0, 2500)


def test_a_drained_maar_does_not_revive() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1, na(), pd())
    world.ask(host, 1, M.RELEASE, na(1, *held.na[1]), pd(1, *held.pd[1]))
    world.drain(1)
    answer = Answer(world.ask(host, 1, M.REQUEST, na(), pd()))
    assert (answer.na[1], answer.pd[1], len(answer.ia_status)) == ({}, {}, 2)
    renewed = Answer(world.ask(host, 1, M.RENEW, na(1), pd(1)))
    assert renewed.pd[1] == dict.fromkeys(held.pd[1], (0, 0))
    assert renewed.ia_status == answer.ia_status


def test_a_removed_maar_anchors_nothing() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    world.later(10).attached(host, 2)
    maars = {n: m for n, m in world.domain.maars.items() if n != 1}
    world.change(
        maars=maars,
        by_relay_id={m.relay_id: m for m in maars.values()},
        pools={n: world.domain.pools[n] for n in maars},
    )
    decision = world.ask(host, 2, M.RENEW, na(), pd())
    assert told(decision, dmm.PreviousMaar) == []
    assert visit(decision).previous == bytes(16)
    assert world.events("released") == [("released", "anchor-removed")] * 3


def test_an_anchor_that_failed_is_ended_by_the_serving_maar_only() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    world.later(10).attached(host, 2, na(), pd())
    node = dmm.MobileNode(host.identity)
    one, two = (world.domain.maars[n].endpoint for n in (1, 2))
    reports = [dmm.AnchorFailed(p, one) for p in sorted(prefixes(world, host, 1))]
    stale = world.query(3, node, *reports)
    assert (dmm_status(stale), stale.outcome) == (5, "stale")
    wrong = world.query(2, node, *(replace(r, endpoint=two) for r in reports))
    assert len(told(wrong, dmm.PreviousMaar)) == 2
    right = world.query(2, node, *reports)
    assert told(right, dmm.PreviousMaar) == []
    assert {b.state for b in world.rows(host, anchor=1)} == {State.ENDED}
    assert world.node(host).serving == 2
    assert world.events("released") == [("released", "anchor-failed")] * 3


def test_an_anchor_may_be_reported_with_the_clients_message() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1, pd())
    world.later(10).attached(host, 2, pd())
    (old,) = prefixes(world, host, 1)
    report = dmm.AnchorFailed(old, world.domain.maars[1].endpoint)
    decision = world.ask(host, 2, M.RENEW, pd(), extra=[report])
    assert told(decision, dmm.PreviousMaar) == []
    assert Answer(decision).pd[1][old] == (0, 0)


@pytest.mark.parametrize("kind", [M.RENEW, M.REBIND, M.RELEASE, M.SOLICIT])
def test_a_message_that_comes_again_after_the_move_moves_nothing(kind: int) -> None:
    """The network may deliver a datagram twice, and late."""
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    packet = world.packet(host, 1, kind, na(1, *held.na[1]))
    world.handle(packet)
    world.later(1).attached(host, 2)
    rows, history = world.rows(), len(world.store.history)
    late = world.later(1).handle(packet)
    assert (late.reply, late.relay, late.outcome) == (None, (), "late")
    assert (world.rows(), len(world.store.history)) == (rows, history)
    assert world.node(host).serving == 2
    # Heard anew it is a return.
    back = world.later(60).ask(host, 1, kind, na(1, *held.na[1]))
    assert visit(back).previous == world.domain.maars[2].endpoint


def test_the_same_message_at_the_next_maar_is_a_move() -> None:
    """A client that has had no answer says the same again, wherever it is by then."""
    world, host = World(), Host(1)
    world.attached(host, 1)
    first, again = (
        relayed(host.message(M.REBIND, na(), xid=b"xyz"), world.domain.maars[n], mac=host.mac)
        for n in (1, 2)
    )
    world.handle(world.request(first, world.domain.maars[1].relay_address))
    decision = world.later(5).handle(world.request(again, world.domain.maars[2].relay_address))
    assert (decision.outcome, world.node(host).serving) == ("reply", 2)


@pytest.mark.parametrize("kind", [M.RENEW, M.RELEASE, M.INFORMATION_REQUEST])
def test_a_clients_message_older_than_the_visit_elsewhere_is_stale(kind: int) -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    world.later(10).attached(host, 2)
    rows = world.rows()
    ias = () if kind == M.INFORMATION_REQUEST else (na(1, *held.na[1]),)
    late = world.later(10).ask(host, 1, kind, *ias, extra=[attachment(host, age_ms=60_000)])
    assert (late.reply, late.relay, late.outcome) == (None, (), "stale")
    assert (world.rows(), world.node(host).serving) == (rows, 2)
    now = world.ask(host, 1, kind, *ias, extra=[attachment(host, age_ms=0)])
    assert (now.outcome, world.node(host).serving) == ("reply", 1)


def test_a_query_without_an_attach_moves_nobody() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    named = dmm.MobileNode(host.identity)
    stale = world.later(10).query(2, named)
    assert (dmm_status(stale), len(stale.relay), stale.outcome) == (5, 1, "stale")
    assert world.node(host).serving == 1
    refreshed = world.query(1, named)
    assert len(told(refreshed, dmm.AnchoredPrefix)) == 2
    plain = Host(2)
    world.ask(plain, 1, M.REQUEST, na(), mobile=False)
    assert dmm_status(world.query(1, dmm.MobileNode(plain.identity))) == 5
    assert world.node(plain).serving is None


def test_a_message_under_a_clock_that_went_back_is_not_stale() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    world.later(100).attached(host, 2)
    since = world.node(host).visit_since
    world.later(-50)
    decision = world.ask(host, 1, M.RENEW, na(), extra=[attachment(host)])
    assert decision.outcome == "reply"
    assert world.node(host).visit_since == since  # nor is its visit older than the one before
    assert world.store.history[-1].at == since


def test_a_link_prefix_without_an_address_is_not_anchored_away() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1, na())
    world.ask(host, 1, M.RELEASE, na(1, *held.na[1]))
    moved = world.query(2, attachment(host))
    assert told(moved, dmm.PreviousMaar) == []
    links = world.rows(kind=Kind.LINK, anchor=1)
    assert [(row.state, row.ended_at) for row in links] == [(State.ENDED, world.now)]
    assert world.events("released")[-1:] == [("released", "unused")]
    assert world.events("deprecated") == []


def test_what_is_in_its_last_second_is_not_told() -> None:
    """A lifetime of 0 would say that it has ended."""
    world, host = World(), Host(1)
    held = world.attached(host, 1, pd())
    world.later(3599.5)
    decision = world.ask(host, 1, M.INFORMATION_REQUEST)
    assert told(decision, dmm.AnchoredPrefix) == []
    moved = world.ask(host, 2, M.INFORMATION_REQUEST)
    assert told(moved, dmm.PreviousMaar) == []
    assert {row.prefix for row in world.live(host)} == set(held.pd[1])


def test_nothing_is_preferred_again_at_a_drained_maar() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1, na())
    world.later(60).attached(host, 2, na())
    world.drain(1)
    back = Answer(world.later(60).ask(host, 1, M.RENEW, na()))
    assert [back.na[1][address] for address in held.na[1]] == [(0, 3540)]
    assert {b.state for b in world.rows(host, anchor=1)} == {State.ACTIVE}


# --- what a MAAR asks for itself ---


def test_start_up_tells_the_domain() -> None:
    world = World()
    for link in (None, bytes(16)):
        decision = world.query(1, link=link)
        assert decision.outcome == "refresh"
        (domain,) = told(decision, dmm.Domain)
        assert domain.endpoints == tuple(world.domain.maars[n].endpoint for n in (1, 2, 3))
        assert dmm_status(decision) == 0
    assert world.store.commits == 0


def test_a_domain_too_large_for_an_option_is_said() -> None:
    """DOMAIN holds 3,749 endpoints; a MAAR that gets none keeps those it has."""
    world = World()
    one = world.domain.maars[1]
    maars = {n: replace(one, id=n) for n in range(1, 3751)}
    world.change(maars=maars)
    decision = world.query(1)
    assert (dmm_status(decision), len(decision.relay), decision.outcome) == (6, 1, "too-large")
    del maars[3750]
    assert len(told(world.query(1), dmm.Domain)[0].endpoints) == 3749


def test_what_no_message_can_hold_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    world, host = World(), Host(1)
    monkeypatch.setattr(relay_options, "MAX_ANSWER", 100)
    decision = world.ask(host, 1, M.REQUEST, na(), pd(1), pd(2))
    assert (decision.reply, decision.relay, decision.outcome) == (None, (), "too-large")
    assert world.store.commits == 0


def test_a_first_frame_moves_a_known_node_and_gives_its_link_prefix() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    decision = world.later(10).query(2, attachment(host))
    node = world.node(host)
    assert visit(decision) == dmm.Visit(node.generation, world.domain.maars[1].endpoint)
    assert told(decision, dmm.MobileNode) == [dmm.MobileNode(host.identity)]
    assert told_prefixes(decision) == [world.row(host, anchor=2).prefix]
    assert world.row(host, anchor=2).kind is Kind.LINK
    assert len(told(decision, dmm.PreviousMaar)) == 2
    answer = world.later(1).attached(host, 2, na())
    local = [a for a, (preferred, _) in answer.na[1].items() if preferred]
    assert world.row(host, anchor=2, kind=Kind.LINK).prefix.contains(local[0])


def test_a_first_frame_of_an_unknown_node_makes_one_that_learns_its_duid() -> None:
    world, host = World(), Host(1)
    decision = world.query(1, attachment(host), slaac=True)
    assert told(decision, dmm.MobileNode) == [dmm.MobileNode(host.hardware)]
    (given,) = told_prefixes(decision)
    answer = world.attached(host, 1, na())
    assert given.contains(next(iter(answer.na[1])))
    assert set(world.node(host).identities) == {host.identity, host.hardware}
    assert len(world.store.tables.nodes) == 1


def test_a_query_about_a_node_nobody_knows() -> None:
    world, host = World(), Host(1)
    decision = world.query(1, dmm.MobileNode(host.identity))
    assert (dmm_status(decision), decision.outcome) == (3, "unknown-node")
    assert world.store.tables.nodes == {}


def test_a_query_older_than_the_visit_elsewhere_is_stale() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    world.later(10).attached(host, 2)
    late = world.later(1).query(1, attachment(host, age_ms=1500))
    assert (dmm_status(late), world.node(host).serving) == (5, 2)
    fresh = world.query(1, attachment(host, age_ms=20))
    assert (dmm_status(fresh), world.node(host).serving) == (0, 1)


def test_a_refresh_for_a_node_extends_its_link_prefix() -> None:
    world, host = World(), Host(1)
    world.query(1, attachment(host), slaac=True)
    again = world.later(1000).query(1, attachment(host, age_ms=10**6), slaac=True)
    assert [a.valid for a in told(again, dmm.AnchoredPrefix)] == [3600]
    assert len(world.store.history) == 2  # the visit and the prefix


def test_a_first_frame_of_a_stranger_leaves_no_trace() -> None:
    """Unless the node makes its own addresses, it will ask by DHCPv6 for all that it needs."""
    world, host = World(), Host(1)
    decision = world.query(1, attachment(host))
    assert (dmm_status(decision), decision.outcome) == (3, "unknown-node")
    assert world.store.commits == 0


def test_a_host_that_makes_its_own_addresses_keeps_them_when_it_moves() -> None:
    world, host = World(), Host(1)
    (first,) = told_prefixes(world.query(1, attachment(host), slaac=True))
    moved = world.later(1000).query(2, attachment(host), slaac=True)
    assert len(told_prefixes(moved)) == 1
    (previous,) = told(moved, dmm.PreviousMaar)
    assert (previous.prefix, previous.preferred) == (first, 0)
    # Nobody else asks for the one that is anchored away: it is promised anew with the other.
    assert previous.valid == 3600
    back = world.later(1000).query(1, attachment(host), slaac=True)
    assert told_prefixes(back) == [first]


def test_dhcpv6_after_a_first_frame_is_no_second_handover() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1, na(), pd())
    seen = world.later(60).query(2, attachment(host))
    (link,) = told_prefixes(seen)
    assert len(told(seen, dmm.PreviousMaar)) == 2
    events = len(world.events("handover"))
    named = na(1, *held.na[1])
    for kind in (M.CONFIRM, M.SOLICIT, M.REBIND):
        decision = world.later(1).ask(host, 2, kind, named)
        assert visit(decision) == visit(seen)
    assert len(world.events("handover")) == events
    assert link in told_prefixes(decision)
