"""A MAAR that speaks only PMIPv6: which PBU it sends to the CMD when, and what it makes of the answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.mobility import (
    AccessTechnology,
    BindingAcknowledgement,
    BindingUpdate,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    ServingMaar,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import acknowledge, first
from tests.maar.core.registering_bench import (
    CMD,
    DUID,
    LOCAL,
    NAME,
    OTHER,
    Bench,
    Probe,
    Sent,
    handoff,
    named,
    timestamp,
)
from tests.maar.core.world import ACCESS, MAC, NODE, endpoint

PROBE = Probe(ACCESS, MAC)
STALE = Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_a_frame_leads_to_a_pbu() -> None:
    bench = Bench()
    bench.seen()
    update = bench.sent()
    assert (update.lifetime, update.dmm, update.proxy, update.acknowledge) == (
        1000,
        True,
        True,
        True,
    )
    assert first(update, MobileNodeIdentifier) == MobileNodeIdentifier(NAME)
    assert first(update, LinkLayerIdentifier) == LinkLayerIdentifier(MAC)
    assert named(update) == [Prefix(UNSPECIFIED, 0)]
    assert (handoff(update), timestamp(update)) == (4, 100 << 16)


def test_many_frames_are_one_attachment() -> None:
    bench = Bench()
    for _ in range(3):
        bench.seen()
    bench.sent()
    bench.seen(trigger="mld")
    bench.rests(0.9)


def test_dhcpv6_is_not_relayed_and_shows_the_node_all_the_same() -> None:
    bench = Bench()
    bench.asks_by_dhcpv6()
    assert handoff(bench.sent()) == 4
    assert bench.count("client.not-relayed") == 1


def test_a_packet_shows_a_node_whose_link_local_address_is_not_known() -> None:
    bench = Bench()
    bench.seen(trigger="data", source=LOCAL.address[:15] + b"\5")
    bench.answer(bench.sent())
    (session,) = bench.sessions
    assert session["attachment"]["link_local"] == "fe80::ff:fe00:aa"
    bench.seen(trigger="ns")
    (session,) = bench.sessions
    assert session["attachment"]["link_local"] == "fe80::ff:fe00:1"
    assert bench.out() == []


def test_it_is_sent_again_with_another_number_and_the_latest_time() -> None:
    bench = Bench()
    bench.seen()
    updates, waits = [bench.sent()], []
    for _ in range(6):
        bench.now += 0.01
        bench.seen()
        waits.append(round(bench.go_on() + 0.01, 3))
        updates.append(bench.sent())
    assert waits == [1, 2, 4, 8, 16, 32]
    assert len({u.sequence for u in updates}) == 7
    times = [timestamp(u) for u in updates]
    assert times == sorted(set(times))
    bench.answer(updates[2])
    assert bench.serves()


def test_it_is_sent_again_about_a_node_that_is_still_there() -> None:
    """RFC 5213 section 6.9.4: a PBU says that the node is here now, whenever the first one was."""
    bench = Bench()
    bench.seen()
    bench.sent()
    waits = []
    for _ in range(4):
        waits.append(round(bench.go_on(), 3))
        assert bench.out() == [PROBE]
        bench.seen(trigger="na")
        bench.sent()
    assert waits == [1, 2, 4, 8]
    bench.go_on()
    for _ in range(2):
        assert bench.out() == [PROBE]
        bench.go_on()
    assert bench.out() == [PROBE]
    bench.rests(1000)
    assert bench.count("attach.silent-arrival") == 1


def test_an_answer_that_comes_while_the_node_is_asked_itself_counts() -> None:
    bench = Bench().registered()
    bench.rests(740)
    bench.seen()
    bench.go_on()
    update = bench.sent()
    bench.go_on()
    assert bench.out() == [PROBE]
    bench.answer(update, lifetime=5000)
    bench.rests(3000)
    assert bench.serves()
    assert bench.sessions[0]["present"]


def test_another_cmd_is_asked_when_one_is_silent() -> None:
    bench = Bench(cmds=(CMD, OTHER))
    bench.seen()
    asked = []
    for _ in range(4):
        (sent,) = bench.out()
        assert isinstance(sent, Sent)
        asked.append(sent.cmd)
        update = sent.update
        bench.now += 0.01
        bench.seen()
        bench.go_on()
    assert asked == [CMD, CMD, OTHER, OTHER]
    bench.answer(update, source=CMD)
    assert not bench.serves()
    bench.answer(update, source=OTHER)
    assert bench.serves()
    bench.out()
    bench.go_on()
    bench.seen(trigger="na")
    (_, found) = bench.out()
    assert isinstance(found, Sent)
    assert found.cmd == OTHER


def test_what_is_accepted() -> None:
    bench = Bench()
    bench.seen()
    bench.answer(bench.sent(), name=DUID)
    (session,) = bench.sessions
    assert session["identity"] == str(DUID)
    assert session["attachment"]["interface"] == ACCESS
    (entry,) = session["prefixes"]
    assert (entry["prefix"], entry["role"], entry["lifetime"]) == (str(LOCAL), "local", 1000)


def test_what_answers_no_pbu_is_passed_over() -> None:
    bench = Bench()
    bench.seen()
    update = bench.sent()
    good = acknowledge(update, 0, 1000)
    for bad in (
        replace(good, sequence=update.sequence + 1),
        replace(good, proxy=False),
        replace(good, options=(MobileNodeIdentifier(DUID), *good.options[1:])),
        replace(
            good,
            options=tuple(Timestamp(1) if isinstance(o, Timestamp) else o for o in good.options),
        ),
        replace(
            good,
            options=tuple(
                HandoffIndicator(1) if isinstance(o, HandoffIndicator) else o for o in good.options
            ),
        ),
    ):
        bench.hear(bad)
    bench.hear(good, OTHER)
    assert bench.count("registration.accepted") == 0
    bench.answer(update)
    bench.answer(update)
    assert bench.count("registration.accepted") == 1  # once


# --- going on ---


def test_a_node_that_is_seen_now_and_then_is_kept() -> None:
    bench = Bench().registered()
    bench.rests(730)
    bench.seen()
    assert bench.go_on() == pytest.approx(20)
    update = bench.sent()
    assert (handoff(update), named(update), update.lifetime) == (5, [LOCAL], 1000)


def test_the_cmd_hears_of_it_sooner_where_the_operator_wants_that() -> None:
    bench = Bench(confirm=100.0).registered()
    bench.rests(90)
    bench.seen()
    assert bench.go_on() == pytest.approx(10)
    assert handoff(bench.sent()) == 5


def test_a_silent_node_is_asked_whether_it_is_there() -> None:
    bench = Bench().registered()
    assert bench.go_on() == pytest.approx(750)
    assert bench.out() == [PROBE]
    assert bench.go_on() == pytest.approx(0.1)
    assert bench.out() == [PROBE]
    bench.seen()
    assert handoff(bench.sent()) == 5


def test_a_node_that_does_not_answer_is_deregistered_when_its_time_is_over() -> None:
    bench = Bench().registered()
    begin, probed = bench.now, []
    while True:
        bench.go_on()
        (found,) = bench.out()
        if not isinstance(found, Probe):
            break
        probed.append(round(bench.now - begin, 1))
    assert probed == [750, 750.1, 750.2, 994, 995, 996]
    assert bench.sessions[0]["present"] is False
    update = found.update
    assert update.lifetime == 0
    assert bench.serves()
    bench.answer(update, lifetime=0)
    assert not bench.serves()
    bench.rests(5000)


def deregistering() -> tuple[Bench, BindingUpdate]:
    bench = Bench().registered()
    while True:
        bench.go_on()
        for found in bench.out():
            if isinstance(found, Sent):
                assert found.update.lifetime == 0
                return bench, found.update


def test_a_cmd_that_does_not_answer_keeps_nobody() -> None:
    bench, _ = deregistering()
    bench.rests(0.9)
    assert bench.serves()
    bench.rests(0.2)
    assert not bench.serves()
    assert bench.count("registration.left") == 1


@pytest.mark.parametrize("trigger", ["ns", "mld", "data", "hook"])
def test_a_node_that_comes_back_meanwhile_is_attached(trigger: str) -> None:
    bench, leaving = deregistering()
    source = {"data": LOCAL.address[:15] + b"\5", "hook": UNSPECIFIED}.get(trigger, NODE)
    bench.seen(trigger=trigger, source=source)
    update = bench.sent()
    assert (handoff(update), update.lifetime) == (4, 1000)
    bench.answer(leaving, lifetime=0)  # overtaken
    assert bench.serves()
    bench.rests(0.9)
    bench.answer(update)
    bench.rests(100)
    assert bench.serves()
    assert bench.sessions[0]["present"]


def test_one_that_had_the_wrong_time_is_sent_once_more() -> None:
    bench, leaving = deregistering()
    for again in (True, False):
        bench.answer(leaving, Status.MIPV6_ID_MISMATCH, lifetime=0)
        if again:
            leaving = bench.sent()
            assert leaving.lifetime == 0
    assert bench.out() == []


def gone_to(bench: Bench, prefix: Prefix = LOCAL) -> None:
    """The CMD says that the node is at MAAR 2."""
    options = (
        MobileNodeIdentifier(NAME),
        HomeNetworkPrefix(prefix),
        HandoffIndicator(4),
        AccessTechnology(4),
        Timestamp(8),
        ServingMaar(endpoint(2)),
    )
    bench.hear(BindingUpdate(1, 500, options))
    assert not bench.serves()


def test_a_node_that_went_to_another_maar_is_that_ones() -> None:
    bench = Bench().registered()
    gone_to(bench)
    for _ in range(3):  # it is asked itself: it may be back
        bench.go_on()
        assert bench.out() == [PROBE]
    bench.rests(2000)


def test_a_node_that_returns_is_attached_and_its_prefix_named() -> None:
    bench = Bench().registered()
    gone_to(bench)
    for _ in range(3):
        bench.go_on()
        bench.out()
    bench.rests(10)
    bench.seen()
    update = bench.sent()
    assert (handoff(update), named(update)) == (4, [LOCAL])


def test_anchors_that_are_expected_are_asked_for() -> None:
    late = [Prefix.parse("2001:db8:2:177::/64")]
    bench = Bench().registered(awaited=late)
    waits = []
    for _ in range(3):
        waits.append(round(bench.go_on(), 3))
        update = bench.sent()
        assert handoff(update) == 5
        bench.answer(update, awaited=late)
    assert waits == [1, 2, 4]
    bench.go_on()
    bench.answer(bench.sent())
    bench.rests(700)  # the CMD has said what the anchors did not


def test_after_a_restart_it_goes_on() -> None:
    before = Bench()
    before.seen()
    before.answer(before.sent(), name=DUID)
    record = {**before.records[DUID], "age": 0.0}
    bench = Bench(records=[record])
    assert bench.go_on() == pytest.approx(750)
    assert bench.out() == [PROBE]
    bench.seen(trigger="na")
    update = bench.sent()
    assert (handoff(update), named(update)) == (5, [LOCAL])
    bench.answer(update, name=DUID)
    assert bench.serves()


# --- refusals ---


def test_it_reasserts_a_node_whose_clock_was_behind() -> None:
    bench = Bench()
    bench.seen()
    waits = []
    for _ in range(4):
        bench.answer(bench.sent(), STALE)
        waits.append(round(bench.go_on(), 3))
        assert bench.out() == [PROBE]
        bench.seen(trigger="na")
        bench.go_on()
    assert waits == [0, 0.1, 0.2, 0.4]
    bench.answer(bench.sent())
    assert bench.serves()


def test_one_that_went_on_meanwhile_is_not_claimed() -> None:
    bench = Bench()
    bench.seen()
    bench.answer(bench.sent(), STALE)
    for _ in range(3):
        bench.go_on()
        assert bench.out() == [PROBE]
    bench.rests(1000)


def test_one_that_is_here_although_the_cmd_does_not_know_is_attached() -> None:
    """It says 157 to one that only goes on; but the node answers here."""
    bench = Bench().registered()
    bench.rests(740)
    bench.seen()
    bench.go_on()
    bench.answer(bench.sent(), STALE)
    assert bench.out() == [PROBE]
    bench.seen(trigger="na")
    assert handoff(bench.sent()) == 4


def test_no_second_sees_more_than_three() -> None:
    bench = Bench()
    bench.seen()
    sent = []
    for _ in range(12):
        sent.append(bench.now)
        bench.answer(bench.sent(), STALE)
        bench.go_on()
        assert bench.out() == [PROBE]
        bench.seen(trigger="na")
        bench.go_on()
    assert all(later - earlier >= 1.0 for earlier, later in zip(sent, sent[3:], strict=False))


def test_a_clock_that_is_wrong_is_told() -> None:
    bench = Bench()
    bench.seen()
    update = bench.sent()
    bench.hear(acknowledge(update, Status.TIMESTAMP_MISMATCH, 0, timestamp(update) + 65536 * 3))
    assert bench.log[-1].endswith("with status 156; its clock is +3.000 s ahead")
    assert bench.go_on() == pytest.approx(1)
    assert bench.out() == [PROBE]


def test_a_clock_that_was_set_right_is_followed() -> None:
    """By an hour; and where it goes back a little, each timestamp is still greater than the one before."""
    bench = Bench()
    bench.seen()
    first_time, at = timestamp(bench.sent()), bench.now
    bench.now += 0.5
    bench.seen()
    bench.go_on()
    bench.offset = -3600.0
    bench.out()
    bench.now += 0.5
    bench.seen()
    bench.go_on()
    second = timestamp(bench.sent())
    assert second == first_time + round((bench.now - at - 3600.0) * 65536)
    bench.now += 0.5
    bench.seen()
    bench.offset -= 4.0 + 0.1
    bench.go_on()
    assert timestamp(bench.sent()) == second + 1


@pytest.mark.parametrize("status", [155, 159])
def test_a_prefix_that_is_refused_is_not_named_again(status: int) -> None:
    bench = Bench().registered()
    bench.rests(740)
    bench.seen()
    bench.go_on()
    update = bench.sent()
    assert named(update) == [LOCAL]
    bench.answer(update, status)
    again = bench.sent()
    assert named(again) == [Prefix(UNSPECIFIED, 0)]
    bench.answer(again)
    assert bench.serves()


@pytest.mark.parametrize("status", [128, 131, 152, 153, 154, 158, 160, 161, 162, 177])
def test_what_is_refused_for_good_is_left_alone_for_a_while(status: int) -> None:
    bench = Bench()
    bench.seen()
    bench.answer(bench.sent(), status)
    for _ in range(3):
        bench.seen()
        bench.rests(9.9)
    bench.rests(0.4)
    bench.seen()
    bench.answer(bench.sent())
    assert bench.serves()


@pytest.mark.parametrize("status", [130, 144, 145, 146, 156, 129])
def test_what_time_may_cure_is_tried_again_while_the_node_is_there(status: int) -> None:
    """129 is what the CMD says of a node that flaps."""
    bench = Bench()
    bench.seen()
    waits: list[float] = []
    for _ in range(4):
        bench.answer(bench.sent(), status)
        if status == 144 and not waits:
            bench.answer(bench.sent(), status)  # at once, with the right time
        waits.append(round(bench.go_on(), 3))
        assert bench.out() == [PROBE]
        bench.seen(trigger="na")
        if status == 144:
            bench.answer(bench.sent(), status)
    assert waits == [1, 2, 4, 8]
    bench.answer(bench.sent())
    assert bench.serves()


@pytest.mark.parametrize("status", [129, 154])
def test_what_is_denied_of_a_node_that_is_here_ends(status: int) -> None:
    bench = Bench().registered()
    bench.rests(740)
    bench.seen()
    bench.go_on()
    bench.answer(bench.sent(), status)
    assert not bench.serves()
    assert bench.count("registration.denied") == 1


def test_a_peer_without_the_extension() -> None:
    bench = Bench()
    bench.seen()
    bench.hear(replace(acknowledge(bench.sent(), 0, 1000), dmm=False))
    assert bench.count("registration.no-dmm") == 1
    bench.rests(29)
    assert not bench.serves()


# --- places ---


def test_a_node_that_moves_to_another_of_our_links_is_attached_there() -> None:
    bench = Bench().registered()
    bench.now += 10
    bench.seen(interface="access1")
    bench.answer(bench.sent())
    (session,) = bench.sessions
    assert session["attachment"]["interface"] == "access1"
    # And asked where it was: it may be back.
    assert bench.go_on() == 0
    assert bench.out() == [PROBE]


def other(number: int) -> bytes:
    """The link-layer address of another node."""
    return MAC[:-1] + bytes((number,))


def test_a_link_has_room_for_so_many_nodes_and_no_more() -> None:
    """Any host can show itself by any number of link-layer addresses; each registered one takes a /64."""
    bench = Bench(max_nodes=2)

    def comes(link_layer: bytes, interface: str = ACCESS) -> bool:
        bench.out()
        source = parse_address(f"fe80::{link_layer[-1]:x}")
        bench.seen(link_layer, interface, source=source)
        return any(isinstance(each, Sent) for each in bench.out())

    assert comes(other(1))
    assert comes(other(2))
    assert not comes(other(3))
    assert bench.count("attach.no-room") == 1
    assert comes(other(3), "access1"), "each link has a limit of its own"
    # One that is not there any more makes room.
    for _ in range(100):
        bench.tick()
        if bench.count("attach.silent-arrival") == 3:
            break
    assert comes(other(4))
    assert comes(other(5))
    assert not comes(other(6))


def test_a_link_layer_address_that_names_nobody() -> None:
    bench = Bench()
    bench.seen(b"\1\2\3")
    assert bench.out() == []


def test_an_answer_that_says_nothing_more_than_it_must() -> None:
    bench = Bench()
    bench.seen()
    bench.hear(BindingAcknowledgement(0, bench.sent().sequence, 600, (HomeNetworkPrefix(LOCAL),)))
    (session,) = bench.sessions
    (entry,) = session["prefixes"]
    assert (entry["prefix"], entry["lifetime"]) == (str(LOCAL), 600)


# --- an access point's word ---


def test_a_node_that_an_access_point_calls_gone_keeps_its_prefixes() -> None:
    bench = Bench().registered()
    bench.detached()
    for _ in range(3):
        assert bench.out() == [PROBE]
        if bench.count("attach.probed") < 3:
            bench.go_on()
    bench.rests(0.2)
    (session,) = bench.sessions
    assert (session["here"], session["present"]) == (True, False)
    assert session["prefixes"]
    bench.seen(trigger="hook", source=UNSPECIFIED)
    assert handoff(bench.sent()) == 4
