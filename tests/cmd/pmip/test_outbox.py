"""When which PBU goes out, and which PBA ends it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcp_cmd.pmip.outbox import BURST, Key, Outbox
from dmm_wire.address import Prefix, parse_address
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    MAX_UPDATE_RATE,
    BindingAcknowledgement,
    MobileNodeIdentifier,
    MobilityOption,
    Status,
    Timestamp,
)
from dmm_wire.mobility.serving import Notice

PEER = parse_address("2001:db8::1")
OTHER = parse_address("2001:db8::2")
NODE = Identity(IdentitySubtype.DUID, b"\0\3\0\1abcdef")
KEY: Key = (7, 1)
NOTICE = Notice(
    NODE, 5, OTHER, ((Prefix.parse("2001:db8:1::/64"), False),), (), 3600, True, 1, None
)


def transmit(outbox: Outbox, now: float, serial: int = 1) -> list[int]:
    """Send what is due; the sequence numbers."""
    return [outbox.send(key, PEER, serial, NOTICE, now).sequence for key in outbox.due(now)]


def pba(
    sequence: int, status: int = 0, generation: int = 5, node: Identity = NODE
) -> BindingAcknowledgement:
    options: tuple[MobilityOption, ...] = (MobileNodeIdentifier(node), Timestamp(generation))
    return BindingAcknowledgement(status, sequence, 3600, options)


def test_again_after_a_second_doubling_to_32() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 100.0)
    moments: list[float] = []
    now = 100.0
    for _ in range(9):
        deadline = outbox.deadline(now)
        assert deadline is not None
        now = deadline
        assert transmit(outbox, now) == [len(moments) + 1]
        moments.append(now)
    waits = [b - a for a, b in pairwise(moments)]
    assert waits == [1, 2, 4, 8, 16, 32, 32, 32]


def test_what_is_acknowledged_is_over() -> None:
    outbox = Outbox(1000.0, sequence=0xFFFF)
    outbox.put(KEY, 0.0)
    (sequence,) = transmit(outbox, 0.0)
    assert sequence == 0
    outcome = outbox.answered(PEER, pba(sequence), 0.5)
    assert outcome is not None
    assert (outcome.sent.key, outcome.sent.serial, outcome.is_over) == (KEY, 1, True)
    assert outbox.deadline(0.5) is None
    assert len(outbox) == 0
    assert outbox.answered(PEER, pba(sequence), 0.6) is None, "a duplicate"


@pytest.mark.parametrize(
    ("peer", "answer"),
    [
        (OTHER, pba(1)),
        (PEER, pba(2)),
        (PEER, pba(1, generation=4)),
        (PEER, pba(1, node=Identity(IdentitySubtype.DUID, b"\0\3\0\1ghijkl"))),
        (PEER, BindingAcknowledgement(0, 1, 0, (), proxy=False)),
        (PEER, replace(pba(1), dmm=False)),
    ],
)
def test_what_answers_nothing_of_ours_ends_nothing(
    peer: bytes, answer: BindingAcknowledgement
) -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    transmit(outbox, 0.0)
    assert outbox.answered(peer, answer, 0.1) is None
    assert outbox.deadline(0.1) == 1.0


@pytest.mark.parametrize("status", [152, 153, 155, 157])
def test_final_refusals_end_it(status: int) -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    (sequence,) = transmit(outbox, 0.0)
    outcome = outbox.answered(PEER, pba(sequence, status, generation=9), 0.1)
    assert outcome is not None
    assert (outcome.accepted, outcome.is_over) == (False, True)
    assert outbox.deadline(0.1) is None


def test_after_other_refusals_it_goes_on() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    (sequence,) = transmit(outbox, 0.0)
    refusal = pba(sequence, Status.INSUFFICIENT_RESOURCES)
    outcome = outbox.answered(PEER, refusal, 0.1)
    assert outcome is not None
    assert not outcome.is_over
    assert outbox.deadline(0.1) == 1.0


def test_an_answer_to_an_earlier_transmission_counts() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    (first,) = transmit(outbox, 0.0)
    transmit(outbox, 1.0)
    outcome = outbox.answered(PEER, pba(first), 1.5)
    assert outcome is not None
    assert outcome.is_over
    assert len(outbox) == 0


def test_what_was_put_anew_goes_on_after_the_answer_to_what_was_before() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    (first,) = transmit(outbox, 0.0)
    outbox.put(KEY, 0.4)  # committed, not sent yet
    outcome = outbox.answered(PEER, pba(first), 0.5)
    assert outcome is not None
    assert outcome.sent.serial == 1
    (second,) = transmit(outbox, 0.5, serial=2)
    outcome = outbox.answered(PEER, pba(second), 0.6)
    assert outcome is not None
    assert outcome.sent.serial == 2
    assert len(outbox) == 0


def test_the_answer_to_an_older_content_finishes_only_that() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    (first,) = transmit(outbox, 0.0)
    outbox.put(KEY, 0.1)
    transmit(outbox, 0.1, serial=2)
    outcome = outbox.answered(PEER, pba(first), 0.2)
    assert outcome is not None
    assert outcome.sent.serial == 1
    assert outbox.deadline(0.2) == pytest.approx(1.1)


def test_news_begin_the_waits_anew_and_repetitions_do_not() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    for now in (0.0, 1.0, 3.0):
        assert transmit(outbox, now)
    assert outbox.deadline(3.0) == 7.0
    outbox.put(KEY, 4.0, news=False)
    assert outbox.deadline(4.0) == 7.0
    outbox.put(KEY, 5.0)
    assert transmit(outbox, 5.0)
    assert outbox.deadline(5.0) == 6.0


def test_what_waits_for_the_rate_is_not_answered_by_what_was_before() -> None:
    outbox = Outbox(1000.0)
    sequence = 0
    for serial in (1, 2, 3):
        assert not outbox.put(KEY, 0.1 * serial)
        (sequence,) = transmit(outbox, 0.1 * serial, serial)
    assert outbox.put(KEY, 0.4), "the fourth in a second"
    outcome = outbox.answered(PEER, pba(sequence), 0.4)
    assert outcome is not None
    assert not outcome.is_latest
    assert outbox.deadline(0.4) == pytest.approx(1.1)
    assert transmit(outbox, 1.1, serial=4) == [4]


def test_a_retransmission_that_is_due_is_no_news() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    (sequence,) = transmit(outbox, 0.0)
    assert outbox.deadline(1.0) == 1.0
    outcome = outbox.answered(PEER, pba(sequence), 1.0)
    assert outcome is not None
    assert outcome.is_latest
    assert outbox.due(1.0) == []


def test_numbers_come_again() -> None:
    """Of a peer that has long been silent, many exchanges have all their numbers pending."""
    outbox = Outbox(1e6)
    one, other = (1, 1), (2, 1)
    outbox.put(one, 0.0)
    assert transmit(outbox, 0.0) == [1]
    outbox.put(other, 0.0)
    assert transmit(outbox, 0.0) == [2]
    for _ in range(65_534):
        outbox.put(KEY, 0.0)
        outbox.send(KEY, PEER, 1, NOTICE, 0.0)
    assert outbox.send(other, PEER, 1, NOTICE, 0.0).sequence == 1
    outbox.drop(one)
    outcome = outbox.answered(PEER, pba(1), 0.0)
    assert outcome is not None
    assert outcome.sent.key == other


@given(st.lists(st.tuples(st.floats(0.0, 0.4), st.booleans()), max_size=60))
def test_no_second_sees_more_than_the_update_rate(gaps: list[tuple[float, bool]]) -> None:
    """Whether the peer answers or not."""
    outbox = Outbox(1e6)
    now, moments = 0.0, list[float]()
    for gap, answers in gaps:
        outbox.put(KEY, now)
        for sequence in transmit(outbox, now):
            moments.append(now)
            if answers:
                outbox.answered(PEER, pba(sequence), now)
        now += gap
    for start in moments:
        assert sum(start <= each < start + 1.0 for each in moments) <= MAX_UPDATE_RATE


def test_a_burst_is_paced() -> None:
    outbox = Outbox(100.0)
    for maar in range(20):
        outbox.put((7, maar), 0.0)
    now, moments = 0.0, list[float]()
    while len(moments) < 20:
        moments += [now for _ in transmit(outbox, now)]
        deadline = outbox.deadline(now)
        assert deadline is not None
        now = max(deadline, now)
    assert moments[:BURST] == [0.0] * BURST
    later = [b - a for a, b in zip(moments[BURST - 1 :], moments[BURST:], strict=False)]
    assert later == pytest.approx([0.01] * 16)


def test_a_dropped_one_is_not_sent() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    (sequence,) = transmit(outbox, 0.0)
    outbox.drop(KEY)
    outbox.drop(KEY)
    assert outbox.deadline(0.0) is None
    assert outbox.answered(PEER, pba(sequence), 0.1) is None


def test_one_that_is_put_off_comes_then() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    assert outbox.due(0.0) == [KEY]
    outbox.put_off(KEY, 2.0)
    assert outbox.due(1.9) == []
    assert outbox.due(2.0) == [KEY]


def test_only_the_last_numbers_are_answered() -> None:
    outbox = Outbox(1000.0)
    outbox.put(KEY, 0.0)
    now, numbers = 0.0, []
    for _ in range(9):
        numbers += transmit(outbox, now)
        now = outbox.deadline(now) or now
    assert outbox.answered(PEER, pba(numbers[0]), now) is None
    assert outbox.answered(PEER, pba(numbers[1]), now) is not None


def test_who_is_told_the_time_asks_again_at_once_and_only_once() -> None:
    """The guard has learnt the peer's time from a 144 (RFC 4285 section 6)."""
    outbox = Outbox(1000.0)
    outbox.put(KEY, 100.0)
    (first,) = transmit(outbox, 100.0)
    told = BindingAcknowledgement(Status.MIPV6_ID_MISMATCH, first, 0, (MobileNodeIdentifier(NODE),))
    outcome = outbox.answered(PEER, told, 100.1)
    assert outcome is not None
    assert not outcome.is_over
    (second,) = transmit(outbox, 100.1)
    assert outbox.answered(PEER, replace(told, sequence=second), 100.2) is not None
    assert transmit(outbox, 100.2) == []
    (third,) = transmit(outbox, 102.1)  # as if nobody had answered
    outcome = outbox.answered(PEER, pba(third), 102.2)
    assert outcome is not None
    assert outcome.is_over
    # The next one to be sent may be told the time again.
    outbox.put(KEY, 200.0)
    (fourth,) = transmit(outbox, 200.0)
    outbox.answered(PEER, replace(told, sequence=fourth), 200.1)
    assert len(transmit(outbox, 200.1)) == 1


@pytest.mark.parametrize("status", [Status.MIPV6_MESG_ID_REQD, Status.MIPV6_AUTH_FAIL])
def test_who_is_refused_for_its_key_goes_on(status: Status) -> None:
    """An operator may be changing it."""
    outbox = Outbox(1000.0)
    outbox.put(KEY, 100.0)
    (first,) = transmit(outbox, 100.0)
    outcome = outbox.answered(PEER, pba(first, status), 100.1)
    assert outcome is not None
    assert not outcome.is_over
    assert transmit(outbox, 100.5) == []
    assert len(transmit(outbox, 101.0)) == 1
