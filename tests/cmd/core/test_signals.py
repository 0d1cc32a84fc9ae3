"""Which MAARs a decision owes a PBU, and what the S-MAAR is told, in the modes in which the CMD signals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhcp_cmd.core.model import MICROS, Kind, State
from dhcp_cmd.pmip.compose import compose
from dmm_wire import dmm
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import LIFETIME_INFINITY
from dmm_wire.mobility.serving import Notice
from tests.cmd.core.world import Host, M, World, a_domain, a_maar, na, pd, pools_of, told

PROXY, LOCATOR, RELAY = SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY
MODES = (PROXY, LOCATOR, RELAY)


def owed(world: World, host: Host) -> dict[int, bool]:
    """The MAARs that are owed a signal about the host, and whether it is about where it is."""
    node = world.node(host).id
    return {s.maar: s.visit for s in world.store.tables.signals.values() if s.node == node}


def acknowledged(world: World, *maars: int) -> None:
    """These MAARs (all without any) have acknowledged."""
    signals = world.store.tables.signals
    for key in [key for key in signals if not maars or key[1] in maars]:
        del signals[key]


def said(world: World, host: Host, maar: int) -> Notice | None:
    """What a PBU says."""
    node = world.node(host)
    held = world.rows(host)
    letter = compose(maar, node, held, world.domain, world.now, moved=owed(world, host)[maar])
    return None if letter is None else letter.notice


def signalling(decision: object) -> tuple[int, int]:
    """The mode, and how many anchors are awaited."""
    (found,) = told(decision, dmm.Signalling)  # type: ignore[arg-type]
    return found.mode, len(anchors(decision, awaited=True))


def anchors(decision: object, *, awaited: bool = False) -> set[bytes]:
    named = told(decision, dmm.PreviousMaar)  # type: ignore[arg-type]
    return {each.endpoint for each in named if each.awaited is awaited}


def test_nothing_is_owed_in_mode_direct() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    decision = world.later(60).ask(host, 2, M.REBIND, na(), pd())
    assert world.store.tables.signals == {}
    assert told(decision, dmm.Signalling) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_first_attach_owes_nothing(mode: SignallingMode) -> None:
    world, host = World(mode=mode), Host(1)
    decision = world.ask(host, 1, M.REQUEST, na(), pd())
    assert owed(world, host) == {}
    assert signalling(decision) == (mode, 0)
    assert decision.hold is None


@pytest.mark.parametrize("mode", MODES)
def test_a_move_owes_it_to_each_anchor(mode: SignallingMode) -> None:
    world, host = World(mode=mode), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    assert owed(world, host) == {1: True}
    acknowledged(world)
    world.later(60).attached(host, 3)
    assert owed(world, host) == {1: True, 2: True}
    acknowledged(world)
    world.later(60).attached(host, 1)
    assert owed(world, host) == {2: True, 3: True}


def test_the_maar_just_left_is_told_though_it_anchors_nothing() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1, pd())
    world.later(60).ask(host, 2, M.SOLICIT, pd())  # advertised, and nothing given
    acknowledged(world)
    decision = world.later(60).ask(host, 3, M.REBIND, pd())
    assert owed(world, host) == {1: True, 2: True}
    notice = said(world, host, 2)
    assert notice is not None
    assert (notice.named, notice.lifetime) == ((), 4)
    assert {at for at, _ in notice.served} == {a_maar(1).endpoint}
    assert signalling(decision) == (PROXY, 0)


def test_who_has_not_heard_of_an_earlier_visit_hears_of_this_one() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1, pd())
    world.later(60).ask(host, 2, M.SOLICIT, pd())
    world.later(60).ask(host, 3, M.SOLICIT, pd())
    assert owed(world, host) == {1: True, 2: True}
    world.later(60).ask(host, 1, M.REBIND, pd())
    # 2 was left two visits ago and may still send packets to itself; where the node is now nothing is owed.
    assert owed(world, host) == {2: True, 3: True}


def test_proxy_names_all_at_once() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    decision = world.later(60).ask(host, 2, M.REBIND, na(), pd())
    assert anchors(decision) == {a_maar(1).endpoint}
    assert signalling(decision) == (PROXY, 0)
    assert decision.hold is None


def test_locator_names_those_that_have_acknowledged() -> None:
    world, host = World(mode=LOCATOR), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    acknowledged(world)
    decision = world.later(60).ask(host, 3, M.REBIND, na(), pd())
    assert anchors(decision) == set()
    assert signalling(decision) == (LOCATOR, 2)
    assert decision.hold is None
    acknowledged(world, 2)
    decision = world.later(1).ask(host, 3, M.REBIND, na(), pd())
    assert anchors(decision) == {a_maar(2).endpoint}
    assert signalling(decision) == (LOCATOR, 1)
    asked = world.query(3, dmm.MobileNode(host.identity))
    assert anchors(asked) == {a_maar(2).endpoint}
    assert signalling(asked) == (LOCATOR, 1)


def test_what_is_only_changed_is_named_still() -> None:
    """A longer lifetime that has not been acknowledged is no reason to take a prefix away."""
    world, host = World(mode=LOCATOR), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    acknowledged(world)
    decision = world.later(900).ask(host, 2, M.RENEW, na(), pd())
    assert owed(world, host) == {1: False}
    assert anchors(decision) == {a_maar(1).endpoint}
    assert signalling(decision) == (LOCATOR, 0)


def test_relay_waits_for_the_anchors_up_to_a_time_after_the_move() -> None:
    world, host = World(mode=RELAY, relay_timeout=200), Host(1)
    world.attached(host, 1)
    decision = world.later(60).ask(host, 2, M.REBIND, na(), pd())
    assert decision.hold is not None
    assert decision.hold.anchors == ((1, a_maar(1).endpoint),)
    assert decision.hold.patience == 200_000
    assert anchors(decision) == {a_maar(1).endpoint}
    # Once the time is over nothing waits, and what is missing is not named.
    decision = world.later(0.2).ask(host, 2, M.REBIND, na(), pd())
    assert decision.hold is None
    assert anchors(decision) == set()
    assert signalling(decision) == (RELAY, 1)
    acknowledged(world)
    decision = world.later(1).ask(host, 2, M.REBIND, na(), pd())
    assert decision.hold is None
    assert anchors(decision) == {a_maar(1).endpoint}


def test_relay_waits_no_longer_where_the_clock_was_set_back() -> None:
    world, host = World(mode=RELAY, relay_timeout=200), Host(1)
    world.attached(host, 1)
    decision = world.later(-1000).ask(host, 2, M.REBIND, na(), pd())
    assert decision.hold is not None
    assert decision.hold.patience == 200_000


def test_relay_does_not_wait_for_who_anchors_nothing() -> None:
    world, host = World(mode=RELAY), Host(1)
    world.attached(host, 1, pd())
    world.later(60).ask(host, 2, M.SOLICIT, pd())
    acknowledged(world)
    decision = world.later(60).ask(host, 3, M.REBIND, pd())
    assert owed(world, host) == {1: True, 2: True}
    assert decision.hold is not None
    assert [maar for maar, _ in decision.hold.anchors] == [1]


def test_a_release_is_told_to_the_anchor() -> None:
    world, host = World(mode=PROXY), Host(1)
    given_ = world.attached(host, 1)
    world.later(60).attached(host, 2)
    acknowledged(world)
    (delegated,) = given_.pd[1]
    world.ask(host, 2, M.RELEASE, pd(1, delegated))
    assert owed(world, host) == {1: False}
    notice = said(world, host, 1)
    assert notice is not None
    assert [is_delegated for _, is_delegated in notice.named] == [False]


def test_what_is_local_is_nobody_elses_business() -> None:
    world, host = World(mode=PROXY), Host(1)
    given_ = world.attached(host, 1)
    (delegated,) = given_.pd[1]
    world.ask(host, 1, M.RELEASE, pd(1, delegated))
    world.later(900).ask(host, 1, M.RENEW, na())
    assert owed(world, host) == {}


@pytest.mark.parametrize(("seconds", "expected"), [(9, {}), (10, {}), (11, {1: False})])
def test_lifetimes_grow_by_more_than_ten_seconds_or_not_at_all(
    seconds: int, expected: dict[int, bool]
) -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    acknowledged(world)
    before = {b.prefix: b.valid_until for b in world.live(host) if b.anchor == 1}
    world.later(seconds).ask(host, 2, M.RENEW, na(), pd())
    after = {b.prefix: b.valid_until for b in world.live(host) if b.anchor == 1}
    assert owed(world, host) == expected
    assert (before == after) is not bool(expected)
    # Local ones grow with every message.
    assert {b.valid_until for b in world.live(host) if b.anchor == 2} == {world.now + 3600 * MICROS}


def test_small_steps_add_up() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    acknowledged(world)
    for _ in range(5):
        world.later(4).ask(host, 2, M.RENEW, na(), pd())
    assert owed(world, host) == {1: False}


def test_what_expires_is_told_by_the_reaper() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    acknowledged(world)
    world.later(4000)
    world.cmd.reap(world.now, 100)
    assert owed(world, host) == {1: False}
    assert set(world.cmd.signalled) == {(world.node(host).id, 1)}


def test_too_many_anchors_the_oldest_is_told_its_end() -> None:
    world, host = World(mode=PROXY, max_anchors=1), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    acknowledged(world)
    world.later(60).attached(host, 3)
    assert owed(world, host) == {1: True, 2: True}
    notice = said(world, host, 1)
    assert notice is not None
    assert notice.named == ()


def test_a_refusal_of_the_anchor_ends_what_it_names() -> None:
    world, host = World(mode=PROXY), Host(1)
    given_ = world.attached(host, 1)
    world.later(60).attached(host, 2)
    (delegated,) = given_.pd[1]
    link = world.row(host, anchor=1, kind=Kind.LINK)
    world.cmd.anchor_refused(host.identity, 1, [link.prefix, delegated], world.now)
    assert {b.anchor for b in world.live(host)} == {2}
    assert world.events("released")[-3:] == [("released", "anchor-failed")] * 3
    # Not what is somebody else's, or local again.
    world.later(60).attached(host, 1)
    mine = [b.prefix for b in world.live(host) if b.anchor == 1]
    world.cmd.anchor_refused(host.identity, 1, mine, world.now)
    world.cmd.anchor_refused(Host(9).identity, 1, mine, world.now)
    assert [b.prefix for b in world.live(host) if b.anchor == 1] == mine


def test_a_maar_that_forgot_is_told_again_what_it_anchors() -> None:
    world = World(mode=LOCATOR)
    away, back, never = Host(1), Host(2), Host(3)
    for host in (away, back):
        world.attached(host, 1)
        world.later(60).attached(host, 2)
    world.later(60).attached(back, 1)
    world.attached(never, 2)
    acknowledged(world)
    world.later(60).query(1)
    assert world.store.tables.signals == {}, "it remembers"
    world.query(3, flags=dmm.NO_SESSIONS)
    assert world.store.tables.signals == {}, "it anchors nothing"
    world.cmd.signalled.clear()
    decision = world.query(1, flags=dmm.NO_SESSIONS)
    assert decision.outcome == "refresh"
    assert (owed(world, away), owed(world, back), owed(world, never)) == ({1: False}, {}, {})
    assert list(world.cmd.signalled) == [(world.node(away).id, 1)]
    # It is no news of where the node is: the S-MAAR goes on with what it was told.
    answer = world.ask(away, 2, M.REBIND, na(), pd())
    assert anchors(answer) == {a_maar(1).endpoint}


def test_in_mode_direct_it_is_for_the_s_maars_to_tell() -> None:
    world, host = World(), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    world.query(1, flags=dmm.NO_SESSIONS)
    assert world.store.tables.signals == {}


def test_a_removed_maar_is_owed_nothing() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    rest = [world.domain.maars[number] for number in (2, 3)]
    world.change(
        maars={m.id: m for m in rest},
        by_relay_id={m.relay_id: m for m in rest},
        pools={m.id: pools_of(m.id) for m in rest},
    )
    world.later(60).attached(host, 2)
    assert owed(world, host) == {}


def test_two_that_become_one_are_told_of_everywhere() -> None:
    """A node known by its link-layer address alone turns out to be one with a DUID."""
    world, host = World(mode=PROXY), Host(1)
    other = Host(2, mac=host.mac)
    frame = (dmm.MobileNode(host.hardware), dmm.Attachment(0, 2, 4, 1, host.mac))
    query = world.query(3, *frame, slaac=True)
    assert told(query, dmm.AnchoredPrefix)
    world.later(60).attached(other, 2)
    assert set(owed(world, other)) == {3}


def test_what_a_pbu_says() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    world.later(60).attached(host, 3)
    notice = said(world, host, 1)
    node = world.node(host)
    assert notice is not None
    assert (notice.identity, notice.generation, notice.serving) == (
        host.identity,
        node.generation,
        a_maar(3).endpoint,
    )
    at_one = sorted(b for b in world.live(host) if b.anchor == 1 and b.kind is not Kind.ADDRESS)
    at_two = sorted(b for b in world.live(host) if b.anchor == 2 and b.kind is not Kind.ADDRESS)
    assert notice.named == tuple((b.prefix, b.kind is Kind.DELEGATED) for b in at_one)
    assert notice.served == tuple((a_maar(2).endpoint, b.prefix) for b in at_two)
    assert notice.lifetime == (max(b.valid_until for b in at_one) - world.now) // MICROS
    assert (notice.moved, notice.link_layer) == (True, host.mac)


def test_a_pbu_of_infinite_lifetimes() -> None:
    maars = [a_maar(n) for n in (1, 2)]
    infinite = {
        m.id: tuple(
            type(p)(p.id, p.maar, p.kind, p.prefix, p.unit_length, 0xFFFFFFFF, 0xFFFFFFFF)
            for p in pools_of(m.id)
        )
        for m in maars
    }
    world = World(a_domain(maars, infinite), mode=PROXY, anchor_hold=0xFFFFFFFF)
    host = Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    notice = said(world, host, 1)
    assert notice is not None
    assert notice.lifetime == LIFETIME_INFINITY


def test_when_nothing_is_left_to_tell() -> None:
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    node, held = world.node(host), world.rows(host)

    def what(maar: int, now: int, serving: int | None = 2) -> object:
        at = node._replace(serving=serving)
        return compose(maar, at, held, world.domain, now, moved=True)

    assert what(1, world.now) is not None
    assert what(2, world.now) is None, "the node is there"
    assert what(9, world.now) is None, "no such MAAR"
    assert what(1, world.now, serving=None) is None
    assert what(1, world.now + 3601 * MICROS) is None, "all that it was told is over"


@pytest.mark.parametrize("seconds", [0, -1000])
def test_a_second_move_at_the_same_time_is_owed_anew(seconds: int) -> None:
    """A clock that is set back stands still for a node until it is where the node's visit began."""
    world, host = World(mode=PROXY), Host(1)
    world.attached(host, 1)
    world.later(60).attached(host, 2)
    node = world.node(host).id
    sent = world.store.serials[node, 1]
    world.cmd.signalled.clear()
    world.later(seconds).attached(host, 3)
    assert set(world.cmd.signalled) == {(node, 1), (node, 2)}
    assert world.store.serials[node, 1] > sent, (
        "what answers the first PBU says nothing of this one"
    )


WHAT = ["solicit", "request", "rebind", "release", "acknowledge", "wait", "reap", "set-back"]
STEPS = st.lists(
    st.tuples(st.sampled_from(WHAT), st.integers(1, 3), st.sampled_from([0, 1, 5, 30, 900, 4000])),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from(MODES))
def test_no_anchor_is_ever_left_behind(
    steps: list[tuple[str, int, int]], mode: SignallingMode
) -> None:
    """Each MAAR is owed a signal, or has been told the latest that there is to tell: also where it acknowledges what
    was sent before, and where the clock stands still or is set back meanwhile."""
    world, host = World(mode=mode, flap_interval=0), Host(1)
    known: dict[int, tuple[object, ...]] = {}
    sent: dict[tuple[int, int], tuple[int, tuple[object, ...] | None]] = {}
    for what, maar, seconds in steps:
        if what == "wait":
            world.later(seconds)
        elif what == "set-back":
            world.later(-seconds)
        elif what == "reap":
            world.cmd.reap(world.now, 100)
        elif what == "release":
            leases = [b for b in world.store.bindings.values() if b.kind is Kind.DELEGATED]
            node = [b.prefix for b in leases if b.state is not State.ENDED]
            world.ask(host, maar, M.RELEASE, pd(1, *node))
        elif what == "acknowledge":
            for (node_id, at), (serial, state) in sent.items():
                if state is not None and at != world.node(host).serving:
                    known[at] = state
                if world.store.serials[node_id, at] == serial:
                    world.store.tables.signals.pop((node_id, at), None)
            sent.clear()
        else:
            kind = {"solicit": M.SOLICIT, "request": M.REQUEST, "rebind": M.REBIND}[what]
            world.ask(host, maar, kind, na(), pd())
        if host.identity not in world.store.tables.identities:
            continue
        for key in world.cmd.signalled:
            sent[key] = world.store.serials[key], latest(world, key[1])
        world.cmd.signalled.clear()
        serving = world.node(host).serving
        for at in (1, 2, 3):
            if at == serving:
                known.pop(at, None)
                assert at not in owed(world, host)
            elif at not in owed(world, host) and holds(world, at):
                assert known.get(at) == latest(world, at)


def holds(world: World, maar: int) -> bool:
    return any(
        b.anchor == maar and b.state is State.DEPRECATED and b.kind is not Kind.ADDRESS
        for b in world.store.bindings.values()
    )


def latest(world: World, maar: int) -> tuple[object, ...] | None:
    """What there is to tell a MAAR, with the end of its lifetimes in place of what is left of them."""
    (node,) = world.store.tables.nodes.values()
    rows = list(world.store.bindings.values())
    if compose(maar, node, rows, world.domain, 0, moved=True) is None:
        return None
    mine = [b for b in rows if b.anchor == maar and b.kind is not Kind.ADDRESS]
    live = sorted((b.prefix, b.valid_until) for b in mine if b.state is not State.ENDED)
    return node.generation, node.serving, tuple(live)
