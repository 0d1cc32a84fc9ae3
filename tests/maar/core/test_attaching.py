"""What is found out about a node, one step after the other: the CMD's words, the node's answers and time go in, what is
to be sent comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from relay_maar.core import attaching
from relay_maar.core.attaching import Attaching
from relay_maar.core.noticed import Ask, Gone, Pace, Place, Probe, Why, made_link_local
from relay_maar.core.settings import AttachSettings
from tests.maar.core.world import ACCESS, MAC, NODE

PLACE = Place(ACCESS, MAC, NODE, NODE)
DATED, UNDATED = Pace(0.25, 8.0, 8, dated=True), Pace(1.0, 32.0, 8, dated=False)
SETTINGS = AttachSettings()


class Found:
    """`here`: the nodes that are known to be on a link."""

    def __init__(self, pace: Pace = DATED, settings: AttachSettings = SETTINGS) -> None:
        self.counters: Counter[str] = Counter()
        self.here: set[tuple[str, bytes]] = set()
        numbers = iter(range(1, 1 << 24))
        self.attaching = Attaching(
            settings,
            pace,
            lambda place: (place.interface, place.link_layer) in self.here,
            lambda: next(numbers).to_bytes(3, "big"),
            self.counters,
        )

    def ask(self, now: float) -> Ask:
        """The one thing that is due is a question."""
        (found,) = self.attaching.due(now)
        assert isinstance(found, Ask)
        return found

    def probe(self, now: float) -> Place:
        """The one thing that is due is a neighbour probe."""
        (found,) = self.attaching.due(now)
        assert isinstance(found, Probe)
        return found.place

    def goes_on(self, now: float) -> Iterator[tuple[float, Ask | Probe | Gone]]:
        """What is sent from now on, and when, if nothing happens."""
        while (when := self.attaching.deadline()) is not None:
            now = max(now, when)
            for each in self.attaching.due(now):
                yield round(now, 3), each


def test_what_is_late_is_so_for_a_while() -> None:
    found = Found()
    found.attaching.left(PLACE, 10.0)
    assert [type(each) for _, each in found.goes_on(10.0)] == [Probe] * 3
    found.attaching.seen(PLACE, "mld", 10.0 + SETTINGS.late - 0.01)
    found.probe(10.0 + SETTINGS.late - 0.01)
    list(found.goes_on(13.0))
    found.attaching.seen(PLACE, "mld", 13.5)
    assert found.ask(13.5).place == PLACE
    assert found.counters["attach.late"] == 1


def test_silence_moves_nothing_and_an_answer_does() -> None:
    found = Found()
    found.attaching.left(PLACE, 0.0)
    assert [(at, type(each)) for at, each in found.goes_on(0.0)] == [
        (0.0, Probe),
        (0.1, Probe),
        (0.2, Probe),
    ]
    assert found.counters["attach.silent-arrival"] == 1
    assert len(found.attaching) == 0
    found.attaching.left(PLACE, 1.0)
    found.probe(1.0)
    found.attaching.seen(PLACE, "na", 1.05)
    assert found.ask(1.05).age == 0


def test_who_left_while_the_cmd_is_asked_whether_it_is_here_is_probed() -> None:
    """The answer to that question is of a node that was here; and that it was is no reason to say it again."""
    found = Found()
    found.here.add((ACCESS, MAC))
    found.attaching.seen(PLACE, "ns", 0.0)
    found.attaching.look_after(PLACE, Why.KEEP, 1.0)
    still = found.ask(1.0)
    assert still.known
    found.attaching.left(PLACE, 1.1)
    assert not found.attaching.is_open(still.transaction_id)
    assert {type(each) for _, each in found.goes_on(1.1)} == {Probe}
    assert found.counters["attach.silent-arrival"] == 1


def test_a_refusal_is_thought_over_for_longer_each_time() -> None:
    found = Found()
    found.attaching.seen(PLACE, "mld", 0.0)
    now, pauses = 0.0, []
    for _ in range(8):
        question = found.ask(now)
        found.attaching.refused(question.transaction_id, now)
        when = found.attaching.deadline()
        assert when is not None
        pauses.append(when - now)
        # It is probed, and only asked about if it answers.
        assert found.probe(when) == PLACE
        found.attaching.seen(PLACE, "na", when)
        now = when
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]


def test_a_node_that_does_not_answer_after_a_refusal_is_left_alone() -> None:
    found = Found()
    found.attaching.seen(PLACE, "mld", 0.0)
    found.attaching.refused(found.ask(0.0).transaction_id, 0.0)
    assert [(at, type(each)) for at, each in found.goes_on(0.0)] == [
        (1.0, Probe),
        (1.1, Probe),
        (1.2, Probe),
    ]
    assert len(found.attaching) == 0


def test_a_later_visit_is_doubted_by_the_node_itself_at_once_and_then_more_slowly() -> None:
    found = Found()
    found.attaching.seen(PLACE, "mld", 0.0)
    now, pauses = 0.0, []
    for _ in range(5):
        question = found.ask(now)
        found.attaching.doubted(question.transaction_id, now)
        when = found.attaching.deadline()
        assert when is not None
        pauses.append(round(when - now, 3))
        assert found.probe(when) == PLACE
        found.attaching.seen(PLACE, "na", when)
        now = when
        if len(pauses) > 2:
            now += 1.0  # no more than three questions in a second
    assert pauses == [0, 0.1, 0.2, 0.4, 0.8]


def test_a_node_that_the_cmd_has_elsewhere_is_no_longer_said_to_be_still_here() -> None:
    found = Found()
    found.here.add((ACCESS, MAC))
    found.attaching.seen(PLACE, "ns", 0.0)
    found.attaching.look_after(PLACE, Why.KEEP, 1.0)
    question = found.ask(1.0)
    assert question.known
    found.attaching.doubted(question.transaction_id, 1.0)
    found.probe(1.0)
    found.attaching.seen(PLACE, "na", 1.1)
    again = found.ask(1.1)
    assert not again.known
    assert again.transaction_id != question.transaction_id


@pytest.mark.parametrize("pace", [DATED, UNDATED])
def test_a_question_with_a_fault_is_asked_otherwise_at_once(pace: Pace) -> None:
    """About a node that was seen for it: it need not be probed first."""
    found = Found(pace)
    found.attaching.seen(PLACE, "mld", 0.0)
    question = found.ask(0.0)
    found.attaching.again(question.transaction_id, 0.002)
    assert found.ask(0.002).times == 2


def test_a_stranger_is_not_asked_about_again_for_a_while() -> None:
    found = Found()
    found.attaching.seen(PLACE, "mld", 0.0)
    found.attaching.unknown(found.ask(0.0).transaction_id, 0.0)
    for now in (0.1, 10.0, 29.9):
        found.attaching.seen(PLACE, "ns", now)
        assert found.attaching.due(now) == []
    assert found.attaching.due(30.0) == []
    found.attaching.seen(PLACE, "ns", 30.1)
    assert found.ask(30.1).times == 1


def test_before_what_it_has_ends_a_node_that_sleeps_has_time_to_wake_up() -> None:
    found = Found()
    found.here.add((ACCESS, MAC))
    found.attaching.look_after(PLACE, Why.END, 100.0)
    sent = list(found.goes_on(100.0))
    assert [at for at, each in sent if isinstance(each, Probe)] == [100.0, 101.0, 102.0]
    assert sent[-1] == (103.0, Gone(PLACE, Why.END))


def test_a_node_that_was_seen_a_moment_ago_need_not_be_probed() -> None:
    found = Found()
    found.here.add((ACCESS, MAC))
    found.attaching.seen(PLACE, "ns", 0.0)
    found.attaching.look_after(PLACE, Why.KEEP, attaching.REACHABLE_TIME)
    assert found.ask(attaching.REACHABLE_TIME).known
    other = Place(ACCESS, MAC[:-1] + b"\x01", NODE, NODE)
    found.attaching.look_after(other, Why.KEEP, attaching.REACHABLE_TIME)
    assert found.probe(attaching.REACHABLE_TIME) == other


def test_of_two_links_that_see_a_node_it_is_on_the_one_where_it_answers() -> None:
    """Frames of it on both within a moment: either could be the late one."""
    found = Found()
    elsewhere = PLACE._replace(interface="access1")
    found.attaching.seen(PLACE, "mld", 0.0)
    found.ask(0.0)
    found.attaching.seen(elsewhere, "mld", 0.2)
    assert found.probe(0.2) == elsewhere
    found.attaching.seen(elsewhere, "na", 0.21)
    question = found.ask(0.21)
    assert question.place == elsewhere
    found.attaching.seen(PLACE, "mld", 0.3)
    assert {type(each) for _, each in found.goes_on(0.3)} == {Probe}
    # That late frame did not make the answer about the other link worth any less.
    assert found.attaching.answered(question.transaction_id, 0.3) == elsewhere
    assert found.counters["attach.late"] == 2


def test_a_packet_of_a_node_that_was_here_does_not_hide_its_address() -> None:
    found = Found()
    found.attaching.left(PLACE, 0.0)
    list(found.goes_on(0.0))
    packet = bytes.fromhex("20010db8000100010000000000000005")
    made = made_link_local(MAC)
    found.attaching.seen(Place(ACCESS, MAC, made, packet), "data", 0.5)
    # Routes lead to the address that it had, and it is probed at the one that it has just used.
    assert found.probe(0.5) == Place(ACCESS, MAC, NODE, packet)


def test_frames_do_not_have_it_probed_more_often_than_is_of_use() -> None:
    found = Found()
    found.attaching.left(PLACE, 0.0)
    found.probe(0.0)
    sent = 0
    for tick in range(1, 20):
        now = tick / 1000
        found.attaching.seen(PLACE, "mld", now)
        sent += len(found.attaching.due(now))
    assert sent == 0
    assert found.probe(attaching.PROBE_PAUSE) == PLACE


def test_whose_packets_say_nothing_new() -> None:
    """Of one that is being asked about, or probed, or thought over; on its link."""
    found = Found()
    found.attaching.seen(PLACE, "data", 0.0)
    assert (found.attaching.quiet(ACCESS), found.attaching.quiet("access1")) == ({MAC}, set())
    found.attaching.unknown(found.ask(0.0).transaction_id, 0.0)
    assert found.attaching.quiet(ACCESS) == {MAC}
    found.attaching.due(30.0)
    assert found.attaching.quiet(ACCESS) == set()
    assert found.attaching.stirred == {ACCESS}


def test_made_up_nodes_of_one_link_cost_another_link_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither questions nor room, however many there are."""
    monkeypatch.setattr(attaching, "MOST_OPEN", 3000)
    found = Found()
    for number in range(9000):
        mac = b"\2\1\0" + number.to_bytes(3, "big")
        found.attaching.seen(Place("access1", mac, NODE, NODE), "ns", 0.0)
    assert found.counters["attach.limited"] == 7000
    found.attaching.due(0.0)
    for number in range(9000, 18000):
        mac = b"\2\1\0" + number.to_bytes(3, "big")
        found.attaching.seen(Place("access1", mac, NODE, NODE), "ns", 30.0)
    assert found.counters["attach.full"] > 0
    found.attaching.due(30.0)
    found.attaching.seen(PLACE, "ns", 30.0)
    assert found.ask(30.0).place == PLACE


def test_what_is_kept_of_made_up_nodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "MOST_OPEN", 50)
    monkeypatch.setattr(attaching, "MOST_REMEMBERED", 60)
    found = Found()
    for number in range(200):
        mac = b"\2\0\0" + number.to_bytes(3, "big")
        found.attaching.seen(Place(ACCESS, mac, NODE, NODE), "ns", 0.0)
    assert len(found.attaching) == 50
    assert found.counters["attach.full"] == 150
    assert len(found.attaching.due(0.0)) == 50
    last = 199
    known = [
        number
        for number in range(200)
        if found.attaching.last_seen(b"\2\0\0" + number.to_bytes(3, "big")) == 0.0
    ]
    assert known == list(range(last - 59, last + 1))
