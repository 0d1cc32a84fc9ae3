"""A MAAR that speaks only PMIPv6: which PBU it sends to the CMD when, and what it makes of the answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingUpdate,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import acknowledge, first
from dmm_wire.mobility.registration import told_options
from relay_maar.core.registering import (
    REFUSED_PAUSE,
    Accepted,
    Left,
    Place,
    Probe,
    Refused,
    Registering,
    Sent,
)
from relay_maar.core.session import Attachment, Entry, Role, Session, Signalled
from tests.maar.core.world import ACCESS, MAC, NODE, endpoint, settings

CMD, OTHER = parse_address("2001:db8:ffff::53"), parse_address("2001:db8:ffff::54")
PLACE = Place(ACCESS, NODE, MAC)
NAME = Identity(IdentitySubtype.EUI48, MAC)
DUID = Identity(IdentitySubtype.DUID, bytes.fromhex("00030001") + MAC)
LOCAL = Prefix.parse("2001:db8:1:101::/64")


class Bench:
    """A Registering, its sessions, a clock."""

    def __init__(
        self, lifetime: int = 1000, cmds: tuple[bytes, ...] = (CMD,), *, max_nodes: int = 65536
    ) -> None:
        self.now = 100.0
        self.sessions: dict[Identity, Session] = {}
        mine = replace(settings(1), cmds=cmds, registers=True, registration_lifetime=lifetime)
        mine = replace(mine, access=(replace(mine.access[0], max_nodes=max_nodes),))
        self.offset = 0.0
        """Of its clock, in seconds."""
        self.registering = Registering(
            mine, self.sessions.get, lambda now: round((now + self.offset) * 65536)
        )

    def seen(self, place: Place = PLACE) -> bool:
        return self.registering.seen(place, self.now)

    def due(self) -> list[Sent | Probe | Left]:
        return self.registering.due(self.now)

    def sent(self) -> BindingUpdate:
        (sent,) = self.due()
        assert isinstance(sent, Sent)
        return sent.update

    def go_on(self) -> float:
        """Until the next thing is due; how long that took."""
        deadline = self.registering.deadline()
        assert deadline is not None
        before, self.now = self.now, max(self.now, deadline)
        return self.now - before

    def answer(
        self,
        update: BindingUpdate,
        status: int = 0,
        *more: MobilityOption,
        lifetime: int = 1000,
        source: bytes = CMD,
        expected: int = 0,
        name: Identity = NAME,
    ) -> Accepted | Refused | Left | None:
        said = (
            dmm.MobileNode(name),
            dmm.Visit(7, UNSPECIFIED),
            dmm.Signalling(2, expected),
            dmm.AnchoredPrefix(LOCAL, lifetime, lifetime),
        )
        told = told_options(said, dmm.DEFAULT_ENTERPRISE) if not status and lifetime else None
        pba = acknowledge(update, status, lifetime, told=told)
        pba = replace(pba, options=(*pba.options, *more))
        outcome = self.registering.answered(source, pba, self.now)
        if isinstance(outcome, Accepted):
            at = Attachment(ACCESS, NODE, MAC)
            entry = Entry(LOCAL, Role.LOCAL, endpoint(1), self.now + lifetime)
            self.sessions[name] = Session(
                *(name, 7, endpoint(1)),
                attachment=at,
                entries=(entry,),
                signalled=Signalled(expected),
            )
        return outcome

    def registered(self, *, expected: int = 0) -> Bench:
        self.seen()
        assert isinstance(self.answer(self.sent(), expected=expected), Accepted)
        return self

    def heard(self) -> None:
        """The anchors that were expected have said what they send."""
        self.sessions[NAME] = replace(self.sessions[NAME], signalled=Signalled())

    def go_away(self) -> None:
        """A PBU says that the node is at another MAAR."""
        (name, session), *_ = self.sessions.items()
        self.sessions[name] = replace(session, serving=endpoint(2), attachment=None)


def handoff(update: BindingUpdate) -> int:
    option = first(update, HandoffIndicator)
    assert option is not None
    return option.value


def timestamp(update: BindingUpdate) -> int:
    option = first(update, Timestamp)
    assert option is not None
    return option.value


def named(update: BindingUpdate) -> list[Prefix]:
    return [o.prefix for o in update.options if isinstance(o, HomeNetworkPrefix)]


def test_a_frame_leads_to_a_pbu() -> None:
    bench = Bench()
    assert bench.seen()
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
    assert bench.due() == []


def test_many_frames_are_one_attachment() -> None:
    bench = Bench()
    for _ in range(3):
        bench.seen()
    bench.sent()
    bench.seen()
    assert bench.due() == []


def test_it_is_sent_again_with_another_number_and_the_latest_time() -> None:
    bench = Bench()
    bench.seen()
    updates, waits = [bench.sent()], []
    for _ in range(6):
        waits.append(bench.go_on())
        bench.seen()
        updates.append(bench.sent())
    assert waits == [1, 2, 4, 8, 16, 32]
    assert len({u.sequence for u in updates}) == 7
    times = [timestamp(u) for u in updates]
    assert times == sorted(set(times))
    assert isinstance(bench.answer(updates[2]), Accepted)


def test_a_node_that_is_not_seen_again_is_given_up() -> None:
    bench = Bench()
    bench.seen()
    for _ in range(20):
        if len(bench.registering) == 0:
            break
        bench.due()
        bench.go_on()
        bench.due()
    assert len(bench.registering) == 0
    assert bench.registering.deadline() is None


def test_another_cmd_is_asked_when_one_is_silent() -> None:
    bench = Bench(cmds=(CMD, OTHER))
    bench.seen()
    asked = []
    for _ in range(4):
        (sent,) = bench.due()
        assert isinstance(sent, Sent)
        asked.append(sent.cmd)
        update = sent.update
        bench.seen()
        bench.go_on()
    assert asked == [CMD, CMD, OTHER, OTHER]
    assert bench.answer(update, source=CMD) is None
    assert isinstance(bench.answer(update, source=OTHER), Accepted)
    bench.go_on()
    bench.seen()
    bench.go_on()
    while not (found := bench.due()):
        bench.go_on()
    assert isinstance(found[0], Sent)
    assert found[0].cmd == OTHER


def test_what_is_accepted() -> None:
    bench = Bench()
    bench.seen()
    outcome = bench.answer(bench.sent(), name=DUID)
    assert isinstance(outcome, Accepted)
    assert (outcome.identity, outcome.place) == (NAME, PLACE)
    assert dmm.MobileNode(DUID) in outcome.suboptions
    assert dmm.AnchoredPrefix(LOCAL, 1000, 1000) in outcome.suboptions


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
        assert bench.registering.answered(CMD, bad, bench.now) is None
    assert bench.registering.answered(OTHER, good, bench.now) is None
    assert isinstance(bench.answer(update), Accepted)
    assert bench.answer(update) is None  # once


# --- going on ---


def test_a_node_that_is_seen_now_and_then_is_kept() -> None:
    bench = Bench().registered()
    assert bench.go_on() == 750
    bench.now -= 20
    bench.seen()
    bench.go_on()
    update = bench.sent()
    assert (handoff(update), named(update), update.lifetime) == (5, [LOCAL], 1000)


def test_a_silent_node_is_asked_whether_it_is_there() -> None:
    bench = Bench().registered()
    bench.go_on()
    assert bench.due() == [Probe(PLACE)]
    assert bench.go_on() == 1
    assert bench.due() == [Probe(PLACE)]
    bench.seen()
    assert handoff(bench.sent()) == 5


def test_a_node_that_does_not_answer_is_deregistered_when_its_time_is_over() -> None:
    bench = Bench().registered()
    begin, probed = bench.now, []
    while True:
        bench.go_on()
        (found,) = bench.due() or (None,)
        if isinstance(found, Probe):
            probed.append(round(bench.now - begin))
        elif found is not None:
            break
    assert probed == [750, 751, 752, 994, 995, 996]
    assert isinstance(found, Sent)
    update = found.update
    assert update.lifetime == 0
    assert 990 < bench.now - begin < 1000
    assert bench.answer(update, lifetime=0) == Left(NAME)
    assert len(bench.registering) == 0
    assert bench.registering.deadline() is None


def deregistering() -> tuple[Bench, BindingUpdate]:
    bench = Bench().registered()
    while True:
        bench.go_on()
        for found in bench.due():
            if isinstance(found, Sent):
                assert found.update.lifetime == 0
                return bench, found.update


def test_a_cmd_that_does_not_answer_keeps_nobody() -> None:
    bench, _ = deregistering()
    assert bench.go_on() == 1
    assert bench.due() == [Left(NAME)]
    assert len(bench.registering) == 0


def test_a_node_that_comes_back_meanwhile_is_attached() -> None:
    bench, leaving = deregistering()
    bench.seen()
    update = bench.sent()
    assert (handoff(update), update.lifetime) == (4, 1000)
    assert bench.answer(leaving, lifetime=0) is None  # overtaken
    assert isinstance(bench.answer(update), Accepted)


def test_a_node_that_went_to_another_maar_is_that_ones() -> None:
    bench = Bench().registered()
    bench.go_away()
    bench.go_on()
    assert bench.due() == []
    assert len(bench.registering) == 0


def test_a_node_that_returns_is_attached_and_its_prefix_named() -> None:
    bench = Bench().registered()
    bench.go_away()
    (session,) = bench.sessions.values()
    anchored = tuple(replace(e, role=Role.ANCHORED) for e in session.entries)
    bench.sessions[NAME] = replace(session, entries=anchored)
    bench.now += 10
    bench.seen()
    update = bench.sent()
    assert (handoff(update), named(update)) == (4, [LOCAL])


def test_anchors_that_are_expected_are_asked_for() -> None:
    bench = Bench().registered(expected=1)
    bench.registering.wait_for(NAME, bench.now)
    waits = []
    for _ in range(3):
        waits.append(bench.go_on())
        update = bench.sent()
        assert handoff(update) == 5
        assert isinstance(bench.answer(update, expected=1), Accepted)
        bench.registering.wait_for(NAME, bench.now)
    assert waits == [1, 2, 4]
    bench.heard()
    bench.now += 8
    assert bench.due() == []  # the anchor has spoken for itself
    bench.go_on()
    bench.seen()
    assert handoff(bench.sent()) == 5


def test_the_cmd_says_what_the_anchors_did_not() -> None:
    bench = Bench().registered(expected=1)
    bench.registering.wait_for(NAME, bench.now)
    bench.go_on()
    assert isinstance(bench.answer(bench.sent()), Accepted)
    assert bench.go_on() == 750


def test_after_a_restart_it_goes_on() -> None:
    bench = Bench()
    at = Attachment(ACCESS, NODE, MAC)
    entry = Entry(LOCAL, Role.LOCAL, endpoint(1), bench.now + 600)
    session = Session(DUID, 7, endpoint(1), attachment=at, entries=(entry,))
    bench.sessions[DUID] = session
    bench.registering.restore(session, bench.now)
    update = bench.sent()
    assert (handoff(update), named(update)) == (5, [LOCAL])
    assert isinstance(bench.answer(update, name=DUID), Accepted)


# --- refusals ---


def test_it_reasserts_a_node_whose_clock_was_behind() -> None:
    bench = Bench()
    bench.seen()
    waits = []
    for _ in range(3):
        outcome = bench.answer(bench.sent(), Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
        assert outcome == Refused(NAME, 157, None)
        waits.append(round(bench.go_on(), 3))
        assert bench.due() == [Probe(PLACE)]
        bench.seen()
        waits.append(round(bench.go_on(), 3))
    assert waits[:4] == [0.1, 0, 0.2, 0]
    assert isinstance(bench.answer(bench.sent()), Accepted)


def test_one_that_went_on_meanwhile_is_not_claimed() -> None:
    bench = Bench()
    bench.seen()
    bench.answer(bench.sent(), Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
    for _ in range(3):
        bench.go_on()
        assert bench.due() == [Probe(PLACE)]
    bench.go_on()
    assert bench.due() == []
    assert len(bench.registering) == 0


def test_no_second_sees_more_than_three() -> None:
    bench = Bench()
    bench.seen()
    sent = []
    for _ in range(12):
        sent.append(bench.now)
        bench.answer(bench.sent(), Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
        bench.seen()
        bench.go_on()
    assert all(later - earlier >= 1.0 for earlier, later in zip(sent, sent[3:], strict=False))


def test_a_clock_that_is_wrong_is_told() -> None:
    bench = Bench()
    bench.seen()
    update = bench.sent()
    theirs = acknowledge(update, Status.TIMESTAMP_MISMATCH, 0, timestamp(update) + 65536 * 3)
    assert bench.registering.answered(CMD, theirs, bench.now) == Refused(NAME, 156, 3.0)
    assert bench.go_on() == 1


def test_a_clock_that_was_set_right_is_followed() -> None:
    """By an hour; and where it goes back a little, each timestamp is still greater than the one before."""
    bench = Bench()
    bench.seen()
    first_time = timestamp(bench.sent())
    wait = bench.go_on()
    bench.offset = -3600.0
    second = timestamp(bench.sent())
    assert second == first_time + round((wait - 3600.0) * 65536)
    wait = bench.go_on()
    bench.offset -= wait + 0.1
    assert timestamp(bench.sent()) == second + 1


@pytest.mark.parametrize("status", [155, 159])
def test_a_prefix_that_is_refused_is_not_named_again(status: int) -> None:
    bench = Bench().registered()
    bench.now += 740
    bench.seen()
    bench.go_on()
    update = bench.sent()
    assert named(update) == [LOCAL]
    assert bench.answer(update, status) == Refused(NAME, status, None)
    again = bench.sent()
    assert named(again) == [Prefix(UNSPECIFIED, 0)]
    assert isinstance(bench.answer(again), Accepted)


@pytest.mark.parametrize("status", [128, 129, 131, 152, 153, 154, 158, 160, 161, 162, 177])
def test_what_is_refused_for_good_is_left_alone_for_a_while(status: int) -> None:
    bench = Bench()
    bench.seen()
    assert bench.answer(bench.sent(), status) == Refused(NAME, status, None, denied=NAME)
    bench.now += 1
    bench.seen()
    assert bench.due() == []
    assert bench.go_on() == REFUSED_PAUSE - 1
    assert isinstance(bench.answer(bench.sent()), Accepted)


def test_what_is_refused_and_not_seen_again_is_forgotten() -> None:
    bench = Bench()
    bench.seen()
    bench.answer(bench.sent(), Status.PROXY_REG_NOT_ENABLED)
    bench.go_on()
    assert bench.due() == []
    assert len(bench.registering) == 0


def test_want_of_room_is_tried_again() -> None:
    bench = Bench()
    bench.seen()
    bench.answer(bench.sent(), Status.INSUFFICIENT_RESOURCES)
    assert bench.go_on() == 1
    assert isinstance(bench.answer(bench.sent()), Accepted)


def test_a_visit_that_is_over_is_not_kept_up() -> None:
    bench = Bench().registered()
    bench.now += 740
    bench.seen()
    bench.go_on()
    bench.answer(bench.sent(), Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED)
    assert len(bench.registering) == 0
    assert bench.registering.deadline() is None


def test_a_peer_without_the_extension() -> None:
    bench = Bench()
    bench.seen()
    plain = replace(acknowledge(bench.sent(), 0, 1000), dmm=False)
    assert bench.registering.answered(CMD, plain, bench.now) == Refused(NAME, None, None)
    assert bench.due() == []


# --- places ---


def test_a_node_that_moves_to_another_of_our_links_is_attached_there() -> None:
    bench = Bench().registered()
    there = Place("access1", NODE, MAC)
    bench.now += 10
    assert bench.seen(there)
    outcome = bench.answer(bench.sent())
    assert isinstance(outcome, Accepted)
    assert outcome.place == there


def test_another_address_on_the_link_of_a_node_is_not_where_it_is() -> None:
    bench = Bench().registered()
    assert not bench.seen(Place(ACCESS, parse_address("fe80::bad"), MAC))
    assert bench.due() == []


def other(number: int, interface: str = ACCESS) -> Place:
    """The place of another node."""
    return Place(interface, NODE[:-1] + bytes((number,)), MAC[:-1] + bytes((number,)))


def test_a_link_has_room_for_so_many_nodes_and_no_more() -> None:
    """Any host can show itself by any number of link-layer addresses; each registered one takes a /64."""
    bench = Bench(max_nodes=2)
    assert bench.seen()
    assert bench.seen(other(1))
    assert not bench.seen(other(2))
    assert bench.seen(), "who is there already is none more"
    assert bench.seen(other(2, "access1")), "each link has a limit of its own"
    # Not by way of another link either; and one that left makes room.
    assert not bench.seen(other(2))
    assert bench.seen(other(1, "access1"))
    assert bench.seen(other(2))
    for _ in range(30):
        bench.go_on()
        bench.due()
        if not len(bench.registering):
            break
    assert bench.seen(other(7))
    assert bench.seen(other(8))
    assert not bench.seen(other(9))


def test_a_link_layer_address_that_names_nobody() -> None:
    bench = Bench()
    assert not bench.seen(Place(ACCESS, NODE, b"\1\2\3"))
    assert len(bench.registering) == 0


def test_an_answer_that_says_nothing_more_than_it_must() -> None:
    bench = Bench()
    bench.seen()
    bare = BindingAcknowledgement(0, bench.sent().sequence, 600, (HomeNetworkPrefix(LOCAL),))
    outcome = bench.registering.answered(CMD, bare, bench.now)
    assert isinstance(outcome, Accepted)
    assert dmm.AnchoredPrefix(LOCAL, 600, 600) in outcome.suboptions
