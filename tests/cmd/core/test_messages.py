"""Each DHCPv6 message, by the table of RFC 9915 section 18.3, at one MAAR."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dhcp_cmd.core.allocate import is_reserved
from dhcp_cmd.core.model import ConfirmPolicy, Kind, State
from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import INFINITY, StatusCode
from tests.cmd.core.world import (
    Answer,
    Host,
    M,
    World,
    a_domain,
    a_maar,
    address,
    attachment,
    dmm_status,
    na,
    pd,
    pools_of,
    prefix,
    relayed,
    told,
    told_prefixes,
    visit,
)

HINT_56 = Prefix(bytes(16), 56)


def test_solicit_advertises_without_a_trace() -> None:
    world, host = World(), Host(1)
    decision = world.ask(host, 1, M.SOLICIT, na(7), pd(8))
    answer = Answer(decision)
    assert decision.outcome == "advertise"
    assert answer.type == M.ADVERTISE
    assert list(answer.na[7].values()) == [(1800, 3600)]
    assert list(answer.pd[8].values()) == [(1800, 3600)]
    assert decision.relay == (dmm.Status(0, ""),)  # nor a visit: a node is one that holds something
    assert world.store.commits == 0


def test_solicit_of_a_node_that_holds_something_commits_the_visit() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    decision = world.later(10).ask(host, 2, M.SOLICIT, na(1, *held.na[1]))
    assert decision.outcome == "advertise"
    assert world.events("handover") == [("handover", "request"), ("handover", "solicit")]
    assert visit(decision) == dmm.Visit(world.node(host).generation, world.domain.maars[1].endpoint)
    assert told_prefixes(decision) == []
    assert len(told(decision, dmm.PreviousMaar)) == 2
    assert world.rows(host, anchor=2) == []


@pytest.mark.parametrize(
    "kind",
    [M.SOLICIT, M.CONFIRM, M.RELEASE, M.DECLINE, M.INFORMATION_REQUEST],
)
def test_of_a_stranger_nothing_is_stored(kind: int) -> None:
    world = World()
    ias = () if kind == M.INFORMATION_REQUEST else (na(1, address("2001:db8:100::1")), pd(1))
    for number in range(1, 100):
        decision = world.ask(Host(number), 1, kind, *ias)
        assert decision.reply is not None
        assert told(decision, dmm.Visit) == []
    assert world.store.commits == 0


def test_of_a_stranger_that_gets_nothing_nothing_is_stored() -> None:
    world = World(a_domain([a_maar(1)], {1: ()}))
    for kind in (M.REQUEST, M.RENEW, M.REBIND):
        assert world.ask(Host(1), 1, kind, na(), pd()).outcome == "reply"
    assert world.query(1, attachment(Host(1)), slaac=True).relay == (dmm.Status(0, ""),)
    assert world.store.commits == 0


def test_request_gives_what_was_advertised() -> None:
    world, host = World(), Host(1)
    advertised = Answer(world.ask(host, 1, M.SOLICIT, na(), pd()))
    decision = world.later(1).ask(host, 1, M.REQUEST, na(), pd())
    answer = Answer(decision)
    assert (answer.na, answer.pd) == (advertised.na, advertised.pd)
    assert {b.kind: b.state for b in world.rows(host)} == dict.fromkeys(Kind, State.ACTIVE)
    link = world.row(host, kind=Kind.LINK)
    assert link.prefix.contains(next(iter(answer.na[1])))
    assert set(told_prefixes(decision)) == {link.prefix, *answer.pd[1]}
    assert [p.delegated for p in told(decision, dmm.AnchoredPrefix)].count(True) == 1
    assert told(decision, dmm.MobileNode) == [dmm.MobileNode(host.identity)]
    assert dmm_status(decision) == 0


def test_rapid_commit_commits() -> None:
    world, host = World(), Host(1)
    answer = Answer(world.ask(host, 1, M.SOLICIT, na(), rapid=True))
    assert (answer.type, answer.rapid) == (M.REPLY, True)
    assert world.row(host, kind=Kind.ADDRESS).prefix.address in answer.na[1]


def test_rapid_commit_may_be_off() -> None:
    world = World(rapid_commit=False)
    answer = Answer(world.ask(Host(1), 1, M.SOLICIT, na(), rapid=True))
    assert (answer.type, answer.rapid) == (M.ADVERTISE, False)
    assert world.rows() == []


def test_a_repeated_request_gives_the_same_and_writes_no_history() -> None:
    world, host = World(), Host(1)
    first = world.attached(host, 1)
    history = len(world.store.history)
    again = world.later(60).attached(host, 1)
    assert (again.na, again.pd) == (first.na, first.pd)
    assert len(world.store.history) == history
    assert world.row(host, kind=Kind.ADDRESS).valid_until == world.now + 3600 * 10**6


def test_several_ias_share_the_link_prefix_and_have_the_same_timers() -> None:
    world, host = World(), Host(1)
    answer = world.attached(host, 1, na(1), na(2), pd(1), pd(2))
    assert len({*answer.na[1], *answer.na[2]}) == 2
    assert len({*answer.pd[1], *answer.pd[2]}) == 2
    assert len(world.rows(host, kind=Kind.LINK)) == 1
    assert answer.timers == {(900, 1440)}


def test_timers_follow_the_shortest_preferred_lifetime_of_all_ias() -> None:
    link, delegated = pools_of(1)
    pools = {1: (link, replace(delegated, preferred=100, valid=200))}
    world = World(a_domain([a_maar(1)], pools))
    assert world.attached(Host(1), 1).timers == {(50, 80)}


def test_infinite_lifetimes_stay_infinite() -> None:
    pools = {1: tuple(replace(p, preferred=INFINITY, valid=INFINITY) for p in pools_of(1))}
    world = World(a_domain([a_maar(1)], pools))
    answer = world.later(5).attached(Host(1), 1)
    assert list(answer.na[1].values()) == [(INFINITY, INFINITY)]
    assert answer.timers == {(INFINITY, INFINITY)}
    assert world.later(10**6).cmd.reap(world.now, 100) == 0


@pytest.mark.parametrize("kind", [M.RENEW, M.REBIND])
def test_renew_and_rebind_extend(kind: int) -> None:
    world, host = World(), Host(1)
    first = world.attached(host, 1)
    answer = Answer(world.later(900).ask(host, 1, kind, na(1, *first.na[1]), pd(1, *first.pd[1])))
    assert (answer.na, answer.pd) == (first.na, first.pd)
    assert {b.valid_until for b in world.rows(host)} == {world.now + 3600 * 10**6}


@pytest.mark.parametrize("kind", [M.RENEW, M.REBIND])
def test_renew_and_rebind_create_what_is_not_known(kind: int) -> None:
    world, host = World(), Host(1)
    stranger = address("2001:db8:dead::1")
    answer = Answer(world.ask(host, 1, kind, na(1, stranger), pd(1, prefix("2001:db8:dead::/60"))))
    assert answer.na[1].pop(stranger) == (0, 0)
    assert list(answer.na[1].values()) == [(1800, 3600)]
    assert answer.pd[1].pop(prefix("2001:db8:dead::/60")) == (0, 0)
    assert list(answer.pd[1].values()) == [(1800, 3600)]


@pytest.mark.parametrize("kind", [M.RENEW, M.REBIND])
def test_no_binding_where_there_are_no_pools(kind: int) -> None:
    world = World(a_domain([a_maar(1)], {1: ()}))
    answer = Answer(world.ask(Host(1), 1, kind, na(1), pd(2)))
    assert answer.ia_status == {("na", 1): StatusCode.NO_BINDING, ("pd", 2): StatusCode.NO_BINDING}
    assert answer.timers == {(0, 0)}


def test_a_full_pool_is_said_in_each_ia() -> None:
    pools = {1: pools_of(1, bits=0)}  # one unit each
    world = World(a_domain([a_maar(1)], pools))
    world.attached(Host(1), 1)
    for kind in (M.SOLICIT, M.REQUEST, M.RENEW):
        answer = Answer(world.ask(Host(2), 1, kind, na(3), pd(4)))
        assert answer.ia_status == {
            ("na", 3): StatusCode.NO_ADDRS_AVAIL,
            ("pd", 4): StatusCode.NO_PREFIX_AVAIL,
        }
        assert (answer.na[3], answer.pd[4]) == ({}, {})


def test_every_unit_of_a_pool_is_given_out_once() -> None:
    world = World(a_domain([a_maar(1)], {1: pools_of(1, bits=4)}))
    given = [p for n in range(1, 17) for p in world.attached(Host(n), 1, pd()).pd[1]]
    assert len(set(given)) == 16
    assert Answer(world.ask(Host(17), 1, M.REQUEST, pd())).ia_status == {
        ("pd", 1): StatusCode.NO_PREFIX_AVAIL
    }


def test_request_for_an_address_of_another_link_is_not_on_link() -> None:
    world = World()
    answer = Answer(
        world.ask(Host(1), 1, M.REQUEST, na(1, address("2001:db8:dead::1")), na(2), pd(3))
    )
    assert answer.ia_status == {("na", 1): StatusCode.NOT_ON_LINK}
    assert len(answer.na[2]) == len(answer.pd[3]) == 1
    assert (answer.na[1], len(world.rows(kind=Kind.ADDRESS))) == ({}, 1)


def test_a_free_lease_that_a_client_names_is_given_to_it() -> None:
    """A database restored from an old backup does not renumber the clients."""
    lost, world = World(), World()
    host = Host(1)
    held = lost.attached(host, 1, na(1), pd(1, prefix("2001:db8:101:100::/60")))
    named = address("2001:db8:100:77::42")
    answer = Answer(world.ask(host, 1, M.RENEW, na(1, named), pd(1, *held.pd[1])))
    assert set(answer.na[1]) == {named}
    assert answer.pd[1].keys() == held.pd[1].keys()


def test_nobody_gets_what_somebody_else_holds_by_naming_it() -> None:
    world = World()
    held = world.attached(Host(1), 1)
    answer = Answer(world.ask(Host(2), 1, M.REBIND, na(1, *held.na[1]), pd(1, *held.pd[1])))
    assert [answer.na[1].pop(lease) for lease in held.na[1]] == [(0, 0)]
    assert [answer.pd[1].pop(lease) for lease in held.pd[1]] == [(0, 0)]
    assert [len(answer.na[1]), len(answer.pd[1])] == [1, 1]


@pytest.mark.parametrize(
    ("hints", "length"),
    [
        ((), 56),
        ((Prefix(bytes(16), 60),), 60),
        ((Prefix(bytes(16), 56),), 56),
        ((Prefix(bytes(16), 64),), 60),  # shorter and closest
        ((Prefix(bytes(16), 58),), 56),
        ((Prefix(bytes(16), 48),), 56),  # nothing shorter: the closest
        ((prefix("2001:db8:102:40::/60"),), 60),  # the same prefix back
        ((prefix("2001:db8:dead::/60"), Prefix(bytes(16), 60)), 60),
    ],
)
def test_a_prefix_length_hint_chooses_the_pool(hints: tuple[Prefix, ...], length: int) -> None:
    world = World(a_domain([a_maar(1)], {1: pools_of(1, (56, 60))}))
    (given,) = world.attached(Host(1), 1, pd(1, *hints)).pd[1]
    assert given.length == length
    if hints and hints[0] == prefix("2001:db8:102:40::/60"):
        assert given == hints[0]


def test_the_best_length_is_given_to_its_last_unit() -> None:
    world = World(a_domain([a_maar(1)], {1: pools_of(1, (56, 60), bits=3)}))
    hint = Prefix(bytes(16), 60)
    given = [p.length for n in range(1, 11) for p in world.attached(Host(n), 1, pd(1, hint)).pd[1]]
    assert given == [60] * 8 + [56] * 2


def test_an_ended_prefix_does_not_outweigh_a_length_hint() -> None:
    world, host = World(a_domain([a_maar(1)], {1: pools_of(1, (56, 60))})), Host(1)
    (old,) = world.attached(host, 1, pd(1, Prefix(bytes(16), 60))).pd[1]
    world.ask(host, 1, M.RELEASE, pd(1, old))
    answer = world.attached(host, 1, pd(1, HINT_56))
    assert {p.length for p, times in answer.pd[1].items() if times != (0, 0)} == {56}


def test_release_ends_one_binding_and_not_the_visit() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1, na(1), pd(1), pd(2))
    (gone,) = held.pd[1]
    decision = world.later(10).ask(host, 1, M.RELEASE, pd(1, gone), pd(9, gone))
    answer = Answer(decision)
    assert answer.status == StatusCode.SUCCESS
    assert answer.ia_status == {("pd", 9): StatusCode.NO_BINDING}
    assert answer.na == {}
    row = world.row(host, prefix=gone)
    assert (row.state, row.ended_at) == (State.ENDED, world.now)
    assert row.reusable_at == row.valid_until + 60 * 10**6
    assert world.events("released") == [("released", "release")]
    assert gone not in told_prefixes(decision)
    assert set(held.pd[2]) <= set(told_prefixes(decision))
    assert world.node(host).serving == 1


def test_release_of_what_is_not_the_clients_ends_nothing() -> None:
    world = World()
    held = world.attached(Host(1), 1)
    answer = Answer(world.ask(Host(2), 1, M.RELEASE, na(1, *held.na[1]), pd(1, *held.pd[1])))
    assert answer.status == StatusCode.SUCCESS
    assert set(answer.ia_status.values()) == {StatusCode.NO_BINDING}
    assert world.events("released") == []


def test_the_lease_just_released_is_the_clients_again() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    world.ask(host, 1, M.RELEASE, na(1, *held.na[1]), pd(1, *held.pd[1]))
    again = world.later(5).attached(host, 1)
    assert (again.na, again.pd) == (held.na, held.pd)


def test_decline_quarantines_and_gives_another_address() -> None:
    world, host = World(quarantine=10), Host(1)
    (bad,) = world.attached(host, 1, na()).na[1]
    answer = Answer(world.ask(host, 1, M.DECLINE, na(1, bad)))
    assert answer.status == StatusCode.SUCCESS
    later = world.later(5).attached(host, 1, na(1))
    assert later.na[1].pop(bad) == (0, 0)
    (good,) = later.na[1]
    assert good != bad
    assert len(world.rows(host, kind=Kind.LINK)) == 1
    assert [e for e in world.events() if e[1] == "decline"] == [("released", "decline")]


def test_a_link_prefix_outlasts_the_quarantine_of_its_address() -> None:
    world, host = World(quarantine=1_000_000), Host(1)
    (bad,) = world.attached(host, 1, na()).na[1]
    world.ask(host, 1, M.DECLINE, na(1, bad))
    until = world.row(host, kind=Kind.ADDRESS).reusable_at
    assert until == world.now + 1_000_000 * 10**6
    world.later(10_000).cmd.reap(world.now, 100)
    world.later(900_000).cmd.reap(world.now, 100)
    assert world.row(host, kind=Kind.LINK).reusable_at == until + 1
    world.later(100_000).cmd.reap(world.now, 100)
    assert world.rows() == []


def test_decline_of_a_delegated_prefix_is_a_release() -> None:
    """Nobody else can be seen to use it: RFC 9915 section 18.2.8 speaks of addresses."""
    world, host = World(), Host(1)
    (given,) = world.attached(host, 1, pd()).pd[1]
    assert Answer(world.ask(host, 1, M.DECLINE, pd(1, given))).status == StatusCode.SUCCESS
    row = world.row(host, kind=Kind.DELEGATED)
    assert (row.state, row.reusable_at) == (State.ENDED, world.now + 3660 * 10**6)
    assert set(world.attached(host, 1, pd()).pd[1]) == {given}


def test_there_is_an_address_after_every_decline() -> None:
    world, host = World(), Host(1)
    declined = set()
    for _ in range(40):
        answer = world.attached(host, 1, na())
        (good,) = (address for address, (preferred, _) in answer.na[1].items() if preferred)
        assert good not in declined
        declined.add(good)
        world.ask(host, 1, M.DECLINE, na(1, good))


def test_a_link_prefix_outlasts_the_longest_quarantine_of_its_addresses() -> None:
    """Also where the operator made it shorter in between."""
    world, host = World(quarantine=1_000_000), Host(1)
    (first,) = world.attached(host, 1, na()).na[1]
    world.ask(host, 1, M.DECLINE, na(1, first))
    until = world.row(host, kind=Kind.ADDRESS).reusable_at
    world.cmd.settings = replace(world.settings, quarantine=10_000)
    answer = world.attached(host, 1, na())
    (second,) = (a for a, (preferred, _) in answer.na[1].items() if preferred)
    world.ask(host, 1, M.DECLINE, na(1, second))
    assert world.row(host, kind=Kind.LINK).reusable_at == until


def test_a_pool_made_shorter_shortens_what_is_told() -> None:
    """The row keeps the longer promise; nobody is told of it any more."""
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    pools = {
        n: tuple(replace(pool, preferred=100, valid=200) for pool in pools)
        for n, pools in world.domain.pools.items()
    }
    world.change(pools=pools)
    answer = Answer(world.later(5).ask(host, 1, M.RENEW, na(), pd()))
    assert answer.na[1] == dict.fromkeys(held.na[1], (100, 200))
    assert answer.pd[1] == dict.fromkeys(held.pd[1], (100, 200))
    moved = world.later(5).ask(host, 2, M.SOLICIT)
    assert {each.valid for each in told(moved, dmm.PreviousMaar)} == {200}
    assert {row.valid_until for row in world.rows(host)} == {world.now + 3590 * 10**6}


def test_a_node_holds_leases_for_so_many_ias_only() -> None:
    world, host = World(max_ias=3), Host(1)
    first = world.attached(host, 1, na(1), pd(1), pd(2))
    answer = world.attached(host, 1, na(1), pd(1), pd(2), pd(3), na(2))
    assert (answer.na[1], answer.pd[1], answer.pd[2]) == (first.na[1], first.pd[1], first.pd[2])
    assert answer.ia_status == {
        ("pd", 3): StatusCode.NO_PREFIX_AVAIL,
        ("na", 2): StatusCode.NO_ADDRS_AVAIL,
    }
    moved = world.later(60).attached(host, 2, na(1), pd(1), pd(2), pd(3))
    assert len(moved.na[1]) == 2
    assert [len(moved.pd[iaid]) for iaid in (1, 2, 3)] == [2, 2, 0]
    world.ask(host, 2, M.RELEASE, pd(2, *moved.pd[2]))
    assert len(world.attached(host, 2, pd(3)).pd[3]) == 1


def test_many_ias_in_a_pool_that_is_nearly_full() -> None:
    """One read answers for all of them, as long as they do not meet at the same gap."""
    world = World(a_domain([a_maar(1)], {1: pools_of(1, bits=6)}), max_ias=32)
    for number in range(1, 33):
        world.attached(Host(number), 1, pd())
    reads = world.store.reads
    ias = [pd(number) for number in range(1, 32)]
    answer = world.attached(Host(99), 1, *ias)
    assert len({prefix for leases in answer.pd.values() for prefix in leases}) == 31
    assert world.store.reads - reads < 31


def test_timers_are_never_left_to_the_client() -> None:
    pools = {1: tuple(replace(p, preferred=1, valid=100) for p in pools_of(1))}
    assert World(a_domain([a_maar(1)], pools)).attached(Host(1), 1).timers == {(1, 1)}


def test_confirm_where_the_address_is() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    decision = world.ask(host, 1, M.CONFIRM, na(1, *held.na[1]), pd(1, *held.pd[1]))
    assert Answer(decision).status == StatusCode.SUCCESS
    assert len(told_prefixes(decision)) == 2


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        (ConfirmPolicy.SUCCESS, StatusCode.SUCCESS),
        (ConfirmPolicy.NOT_ON_LINK, StatusCode.NOT_ON_LINK),
    ],
)
def test_confirm_after_a_move_is_the_policys(policy: ConfirmPolicy, status: int) -> None:
    world, host = World(confirm_policy=policy), Host(1)
    held = world.attached(host, 1)
    decision = world.later(60).ask(host, 2, M.CONFIRM, na(1, *held.na[1]))
    assert Answer(decision).status == status
    assert len(told(decision, dmm.PreviousMaar)) == 2
    assert world.node(host).serving == 2


def test_confirm_of_a_strange_address_is_not_on_link() -> None:
    world, host = World(), Host(1)
    held = world.attached(host, 1)
    strange = address("2001:db8:dead::1")
    answer = Answer(world.ask(host, 1, M.CONFIRM, na(1, *held.na[1], strange)))
    assert answer.status == StatusCode.NOT_ON_LINK
    other_ia = Answer(world.ask(host, 1, M.CONFIRM, na(2, *held.na[1])))
    assert other_ia.status == StatusCode.SUCCESS  # the link is what is asked about
    assert Answer(world.ask(Host(2), 1, M.CONFIRM, na(1, *held.na[1]))).status == (
        StatusCode.NOT_ON_LINK
    )


def test_confirm_without_addresses_is_met_with_silence() -> None:
    world = World()
    decision = world.ask(Host(1), 1, M.CONFIRM, na(1), pd(1, prefix("2001:db8:101::/60")))
    assert (decision.reply, decision.outcome) == (None, "silent")


def test_information_request_is_answered_and_is_a_visit_of_a_node_that_holds_something() -> None:
    world, host = World(), Host(1)
    decision = world.ask(host, 2, M.INFORMATION_REQUEST)
    assert decision.reply is not None
    assert (decision.reply.type, decision.reply.options) == (M.REPLY, ())
    assert told(decision, dmm.Visit) == []
    world.attached(host, 1)
    decision = world.later(10).ask(host, 2, M.INFORMATION_REQUEST)
    assert visit(decision).generation == world.node(host).generation
    assert world.node(host).serving == 2


def test_a_message_for_another_server_is_none_of_ours() -> None:
    world, host = World(), Host(1)
    inner = host.message(M.REQUEST, na(), server=b"\x00\x02other")
    maar = world.domain.maars[1]
    decision = world.handle(world.request(relayed(inner, maar), maar.relay_address))
    assert (decision.reply, decision.outcome) == (None, "other-server")
    assert world.store.commits == 0


@pytest.mark.parametrize(
    ("identifier", "bits", "reserved"),
    [
        (0, 64, True),
        (1, 64, False),
        (0x02005EFFFE000000, 64, True),
        (0x02005EFFFE005213, 64, True),  # Proxy Mobile IPv6, RFC 6543
        (0x02005EFFFEFFFFFF, 64, True),
        (0x02005EFFFDFFFFFF, 64, False),
        (0xFDFFFFFFFFFFFF7F, 64, False),
        (0xFDFFFFFFFFFFFF80, 64, True),
        (0xFDFFFFFFFFFFFFFF, 64, True),
        (0xFE00000000000000, 64, False),
        (2**64 - 1, 64, True),
        (2**32 - 128, 32, True),
        (2**32 - 129, 32, False),
    ],
)
def test_reserved_interface_identifiers(identifier: int, bits: int, reserved: bool) -> None:
    assert is_reserved(identifier, bits) is reserved
