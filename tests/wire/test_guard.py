"""dmm_wire.mobility.guard: who is believed, over replays, clocks that jump, restarts and changes of keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire import mobility
from dmm_wire.address import parse_address
from dmm_wire.errors import WireError
from dmm_wire.mobility import (
    Accepted,
    BindingAcknowledgement,
    BindingUpdate,
    Guard,
    Key,
    KeyStore,
    Refused,
    ReplayProtection,
    Status,
)
from dmm_wire.mobility.authentication import sign
from dmm_wire.mobility.replay import SECOND, Freshness, Window, fold, timestamp, unfold

from .strategies import mutated, unhurried

A = parse_address("2001:db8::a")
B = parse_address("2001:db8::b")
C = parse_address("2001:db8::c")
KEY, NEW = Key(1001, b"k" * 32), Key(1002, b"n" * 32)
WALL = 1_700_000_000.0
YEAR = 365 * 86_400.0


@dataclass
class End:
    """One of two peers: its guard, its clock (`ahead` of the true time), and the marks that it has kept."""

    address: bytes
    keys: KeyStore = field(default_factory=lambda: KeyStore([KEY]))
    require: bool = True
    ahead: float = 0.0
    at: float = 1000.0
    marks: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start(self.at, {})

    def start(self, now: float, marks: Mapping[bytes, int]) -> None:
        epoch = WALL + self.ahead
        self.guard = Guard(self.address, self.keys, require=self.require, epoch=epoch)
        self.guard.start(now)
        for peer, mark in marks.items():
            self.guard.restore(peer, mark, now)

    def restart(self, now: float) -> None:
        self.start(now, self.marks)

    def says(self, to: End, message: BindingUpdate | BindingAcknowledgement, now: float) -> bytes:
        return self.guard.outgoing(to.address, message, now)

    def hears(self, of: End, data: bytes, now: float) -> Accepted | Refused:
        verdict = self.guard.incoming(of.address, data, now)
        if isinstance(verdict, Accepted) and verdict.mark is not None:
            self.marks[of.address] = verdict.mark
        return verdict


def update(sequence: int = 1) -> BindingUpdate:
    return BindingUpdate(sequence, 1200, (mobility.HandoffIndicator(3),))


def answer(verdict: Accepted | Refused, status: int = 0) -> BindingAcknowledgement:
    """The PBA of who accepted this PBU."""
    assert isinstance(verdict, Accepted)
    options = tuple(o for o in verdict.message.options if isinstance(o, ReplayProtection))
    return BindingAcknowledgement(status, verdict.message.sequence, 1200, options)


def reason(verdict: Accepted | Refused) -> str:
    assert isinstance(verdict, Refused)
    return verdict.reason


def exchange(sender: End, receiver: End, now: float, sequence: int = 1) -> int:
    """A PBU until it is accepted and its PBA believed; how often it was sent."""
    for times in range(1, 4):
        verdict = receiver.hears(sender, sender.says(receiver, update(sequence), now), now)
        if isinstance(verdict, Accepted):
            back = receiver.says(sender, answer(verdict), now)
            assert isinstance(sender.hears(receiver, back, now), Accepted)
            return times
        assert verdict.answer is not None
        assert verdict.answer.status == Status.MIPV6_ID_MISMATCH
        back = receiver.says(sender, verdict.answer, now)
        told = sender.hears(receiver, back, now)
        assert isinstance(told, Accepted)
        now += 0.001
    raise AssertionError("they never agree")


def test_a_pbu_and_its_pba() -> None:
    a, b = End(A), End(B)
    data = a.says(b, update(), 1010.5)
    verdict = b.hears(a, data, 1010.5)
    stamp = ReplayProtection(fold(timestamp(WALL + 1010.5)))
    assert verdict == Accepted(
        replace(update(), options=(*update().options, stamp)), timestamp(WALL + 1010.5)
    )
    believed = a.hears(b, b.says(a, answer(verdict), 1010.6), 1010.7)
    assert believed == Accepted(answer(verdict))


def test_a_pba_is_believed_only_if_it_repeats_the_timestamp_of_a_pbu_of_ours() -> None:
    a, b = End(A), End(B)
    first = answer(b.hears(a, a.says(b, update(1), 1010.0), 1010.0))
    answer(b.hears(a, a.says(b, update(2), 1012.0), 1012.0))
    late = b.says(a, first, 1012.0)
    assert isinstance(a.hears(b, late, 1012.0), Accepted)
    swapped = b.says(a, replace(first, sequence=2), 1012.0)
    assert isinstance(a.hears(b, swapped, 1030.0), Refused)
    # Once it is forgotten, nothing is an answer to it.
    a.says(b, update(3), 1300.0)
    assert reason(a.hears(b, late, 1300.0)) == "unmatched"
    bare = sign(BindingAcknowledgement(0, 3, 1200), KEY, B, A)
    assert reason(a.hears(b, bare, 1300.0)) == "untimed"


def test_a_pba_that_nobody_asked_for_has_a_time_of_its_own() -> None:
    """RFC 8885 section 3.3: a P-MAAR answers the S-MAAR, too, where the CMD asked."""
    a, b = End(A), End(B)
    data = b.says(a, BindingAcknowledgement(0, 77, 1200), 1010.0)
    verdict = a.hears(b, data, 1010.0)
    assert isinstance(verdict, Accepted)
    assert verdict.mark == timestamp(WALL + 1010)
    assert reason(a.hears(b, data, 1010.0)) == "unmatched"
    # But nobody refuses what was not said.
    for status in (144, 145, 146):
        refusal = b.says(a, BindingAcknowledgement(status, 77, 0), 1011.0)
        assert reason(a.hears(b, refusal, 1011.0)) == "unmatched"


def test_nothing_is_accepted_twice() -> None:
    a, b = End(A), End(B)
    captured = [a.says(b, update(number), 1000.0 + number) for number in (1, 2, 3)]
    for number in (0, 2, 1):  # they may overtake each other
        assert isinstance(b.hears(a, captured[number], 1003.0), Accepted)
    for data in captured:
        verdict = b.hears(a, data, 1003.5)
        # No answer: it has got one, and asking again makes another timestamp.
        assert verdict == Refused("repeated")
    assert exchange(a, b, 1003.0 + YEAR, 8) == 1
    for data in captured:
        verdict = b.hears(a, data, 1003.0 + YEAR)
        assert reason(verdict) == "stale"
        assert isinstance(verdict, Refused)
        assert verdict.answer is not None
        assert verdict.answer.status == Status.MIPV6_ID_MISMATCH
        # What that says to its sender does not fool it.
        back = b.says(a, verdict.answer, 1003.0 + YEAR)
        a.says(b, update(9), 1003.0 + YEAR)
        assert reason(a.hears(b, back, 1003.0 + YEAR)) == "unmatched"


def test_who_repeats_old_messages_does_not_make_us_sign_at_will() -> None:
    a, b = End(A), End(B)
    data = a.says(b, update(), 1001.0)
    times = [2000.0 + step / 1000 for step in range(2000)]
    signed = [verdict for at in times if (verdict := b.hears(a, data, at)) and verdict.answer]  # type: ignore[union-attr]
    assert 20 <= len(signed) <= 31  # ten at once, ten a second
    forged = data[:-1] + bytes((data[-1] ^ 1,))
    forged = forged[:4] + bytes(2) + forged[6:]
    total = mobility.checksum(forged, A, B)
    forged = forged[:4] + total.to_bytes(2, "big") + forged[6:]
    verdicts = [b.hears(a, forged, 5000.0 + step / 100) for step in range(300)]
    assert {reason(each) for each in verdicts} == {"forged"}
    said = [each.answer for each in verdicts if isinstance(each, Refused) and each.answer]
    assert len(said) == 3
    assert {each.status for each in said} == {Status.MIPV6_AUTH_FAIL}
    stamp = ReplayProtection(fold(timestamp(WALL + 1001)))
    assert said[0] == BindingAcknowledgement(Status.MIPV6_AUTH_FAIL, 1, 0, (stamp,))


@pytest.mark.parametrize("ahead", [-50 * YEAR, -3600.0, -8.0, -6.0, 6.0, 8.0, 3600.0, 50 * YEAR])
def test_clocks_that_differ_cost_one_refusal(ahead: float) -> None:
    a, b = End(A, ahead=ahead), End(B)
    assert exchange(a, b, 1010.0) == (1 if abs(ahead) < 7 else 2)
    for number in range(2, 40):
        assert exchange(a, b, 1010.0 + number / 10, number) == 1
    assert exchange(b, a, 1020.0) <= 2
    assert exchange(b, a, 1021.0) == 1
    assert exchange(a, b, 1e6, 41) == 1


@pytest.mark.parametrize("step", [-50 * YEAR, -3600.0, -3.0, 0.0, 3.0, 3600.0, 50 * YEAR])
@pytest.mark.parametrize("who", ["sender", "receiver", "both"])
def test_a_restart_with_another_clock_locks_nobody_out_and_lets_nothing_in(
    who: str, step: float
) -> None:
    a, b = End(A), End(B)
    captured = []
    for number in range(1, 9):
        captured.append(a.says(b, update(number), 1010.0 + number / 10))
        assert isinstance(b.hears(a, captured[-1], 1010.0 + number / 10), Accepted)
    for end in {"sender": [a], "receiver": [b], "both": [a, b]}[who]:
        end.ahead += step
        end.restart(1011.0)
    for data in captured:
        assert isinstance(b.hears(a, data, 1011.1), Refused)
    assert exchange(a, b, 1013.0, 10) <= 2
    for number in range(11, 15):
        assert exchange(a, b, 1013.0 + number, number) == 1
    for data in captured:
        assert isinstance(b.hears(a, data, 1040.0), Refused)
    assert exchange(a, b, 1040.0 + 86_400, 20) == 1


def test_a_receiver_that_lost_its_file_takes_nothing_from_before_its_start() -> None:
    a, b = End(A), End(B)
    captured = a.says(b, update(), 1010.0)
    assert isinstance(b.hears(a, captured, 1010.0), Accepted)
    b.start(1010.5, {})
    assert reason(b.hears(a, captured, 1010.6)) == "stale"
    assert exchange(a, b, 1010.7) == 1
    slow = End(C, ahead=-3.0)
    assert exchange(slow, b, 1011.0) == 2


def test_a_quick_restart_of_the_receiver_costs_nothing() -> None:
    a, b = End(A, ahead=5.0), End(B)
    for number in range(1, 20):
        assert exchange(a, b, 1010.0 + number, number) == 1
        b.restart(1010.0 + number)


def test_a_clock_that_was_wrong_for_a_while_does_not_shut_the_door() -> None:
    """Years ahead at one start, right at the next: the peers go on from where they were."""
    a, b = End(A), End(B, ahead=4 * YEAR)
    assert exchange(a, b, 1010.0) == 2
    b.ahead = 0.0
    b.restart(1015.0)
    assert exchange(a, b, 1016.0) == 1
    assert exchange(a, b, 9030.0) == 1
    a.restart(9040.0)
    assert exchange(a, b, 9050.0) == 2


def test_the_era_of_2036_begins() -> None:
    turn = 2_085_978_496.0 - WALL  # 2**32 seconds since 1900
    a, b = End(A, at=turn - 10), End(B, at=turn - 10)
    for number, at in enumerate((-2.0, -0.5, 0.5, 2.0), start=1):
        assert exchange(a, b, turn + at, number) == 1
    c = End(C, at=turn + 3, ahead=-20.0)
    assert exchange(c, b, turn + 4) == 2


def test_what_is_not_signed() -> None:
    plain = mobility.encode(update(), A, B)
    a, b = End(A), End(B)
    assert b.hears(a, plain, 1010.0) == Refused("unsigned")
    lenient = End(B, require=False)
    assert lenient.hears(a, plain, 1010.0) == Accepted(update())
    # What claims to be signed has to be.
    stranger = End(C, KeyStore([NEW]))
    assert lenient.hears(stranger, stranger.says(lenient, update(), 1010.0), 1010.0) == Refused(
        "spi"
    )
    wrong = End(A, KeyStore([Key(KEY.spi, b"w" * 32)]))
    assert reason(lenient.hears(wrong, wrong.says(lenient, update(), 1010.0), 1010.0)) == "forged"
    # Without keys there is nothing to ask for.
    bare = End(B, KeyStore(), require=False)
    heard = bare.hears(a, a.says(bare, update(), 1010.0), 1010.0)
    assert isinstance(heard, Accepted)
    assert heard.mark is None
    assert bare.says(a, update(), 1010.0) == mobility.encode(update(), B, A)
    error = mobility.BindingError(2)
    assert b.guard.outgoing(A, error, 1010.0) == mobility.encode(error, B, A)


def test_a_pbu_without_a_time_is_told_to_have_one() -> None:
    a, b = End(A), End(B)
    verdict = b.hears(a, sign(update(5), KEY, A, B), 1010.0)
    refusal = BindingAcknowledgement(Status.MIPV6_MESG_ID_REQD, 5, 0)
    assert verdict == Refused("untimed", refusal)


def test_malformed_messages_are_for_the_caller() -> None:
    a, b = End(A), End(B)
    data = a.says(b, update(), 1010.0)
    for damaged, slug in ((data[:20], "truncated"), (data[:-1] + b"\0", "checksum")):
        with pytest.raises(WireError, match=slug):
            b.guard.incoming(A, damaged, 1010.0)


def test_keys_are_changed_without_a_gap() -> None:
    """The three steps of docs/deployment.md, one peer after the other; at no moment is a PBU refused."""
    steps = [KeyStore([KEY]), KeyStore([KEY, NEW]), KeyStore([NEW, KEY]), KeyStore([NEW])]
    a, b = End(A), End(B)
    now = 1010.0
    for keys in steps:
        for end in (a, b):
            end.keys = keys
            end.restart(now)
            assert exchange(a, b, now + 1) == exchange(b, a, now + 1) == 1
            now += 10
    old = End(A)
    assert reason(b.hears(old, old.says(b, update(), now), now)) == "spi"


def test_keys_are_changed_while_it_runs() -> None:
    a, b = End(A), End(B)
    old = a.says(b, update(), 1010.0)
    assert isinstance(b.hears(a, old, 1010.0), Accepted)
    b.guard.change(KeyStore([NEW, KEY]), require=True, tolerance=7.0)
    assert reason(b.hears(a, old, 1010.0)) == "repeated"
    sent = b.says(a, update(), 1010.5)
    assert reason(a.hears(b, sent, 1010.5)) == "spi"
    a.guard.change(KeyStore([NEW]), require=True, tolerance=7.0)
    assert isinstance(a.hears(b, sent, 1010.5), Accepted)
    assert exchange(a, b, 1011.0) == exchange(b, a, 1011.0) == 1
    b.guard.change(KeyStore([NEW]), require=True, tolerance=7.0)
    assert reason(b.hears(a, old, 1012.0)) == "spi"
    for guard in (a.guard, b.guard):
        guard.change(KeyStore(), require=False, tolerance=7.0)
    assert isinstance(b.hears(a, a.says(b, update(), 1013.0), 1013.0), Accepted)


def test_a_greater_tolerance_lets_nothing_in_again() -> None:
    a, b = End(A), End(B)
    sent = [a.says(b, update(n), 1010.0 + n) for n in range(20)]
    for number, octets in enumerate(sent):
        assert isinstance(b.hears(a, octets, 1010.0 + number), Accepted)
    b.guard.change(KeyStore([KEY]), require=True, tolerance=3600.0)
    for octets in sent:
        assert reason(b.hears(a, octets, 1031.0)) in ("repeated", "stale")
    b.guard.change(KeyStore([KEY]), require=True, tolerance=4.0)
    late = a.says(b, update(99), 1031.0)
    assert reason(b.hears(a, late, 1036.0)) == "stale"


def test_no_stranger_makes_a_guard_grow() -> None:
    b = End(B)
    wrong = Key(KEY.spi, b"w" * 32)
    for number in range(50):
        source = bytes((0x20, 1)) + bytes(12) + number.to_bytes(2, "big")
        for message in (update(), replace(update(), options=(ReplayProtection(number),))):
            verdict = b.guard.incoming(source, sign(message, wrong, source, B), 1000.0 + number)
            assert isinstance(verdict, Refused)
            if verdict.answer is not None:
                b.guard.outgoing(source, verdict.answer, 1000.0 + number)
    assert b.guard._peers == {}


def test_who_has_no_key() -> None:
    keys = KeyStore(peers={A: [KEY]})
    assert Guard(B, keys, require=True, epoch=WALL).keyless([A, C]) == [C]
    assert Guard(B, keys, require=False, epoch=WALL).keyless([A, C]) == []


@unhurried
@given(st.data())
def test_fuzz(data: st.DataObject) -> None:
    a, b = End(A), End(B)
    sent = [a.says(b, update(number), 1001.0) for number in (1, 2)]
    for octets in data.draw(st.lists(mutated(st.sampled_from(sent)) | st.sampled_from(sent))):
        whole = octets[: 8 * (octets[1] + 1)] if len(octets) > 1 else b""
        for mended in (octets, _with_checksum(whole)):
            try:
                verdict = b.hears(a, mended, 1002.0)
            except WireError:
                continue
            if isinstance(verdict, Accepted):
                # The checksum is not signed; here it may have been mended.
                assert _with_checksum(whole) in sent
                sent.remove(_with_checksum(whole))
        if not sent:
            return


def _with_checksum(header: bytes) -> bytes:
    if len(header) < 8:
        return header
    header = header[:4] + bytes(2) + header[6:]
    return header[:4] + mobility.checksum(header, A, B).to_bytes(2, "big") + header[6:]


# --- the window alone ---


@given(st.integers(0, 1 << 66), st.integers(-(1 << 62), 1 << 62))
def test_a_timestamp_is_the_nearest_one(near: int, distance: int) -> None:
    stamp = near + distance
    assert unfold(fold(stamp), near) == stamp


@unhurried
@given(
    st.lists(
        st.tuples(st.integers(-20 * SECOND, 20 * SECOND), st.integers(0, 10 * SECOND)), max_size=60
    )
)
def test_the_window_takes_each_timestamp_once(steps: list[tuple[int, int]]) -> None:
    clock = timestamp(WALL)
    window = Window(clock, 7.0)
    start, taken = clock, set()
    for distance, passed in steps:
        clock += passed
        reference = max(clock, window.highest)
        stamp = clock + distance
        verdict = window.accept(fold(stamp), clock)
        if verdict is Freshness.FRESH:
            assert stamp not in taken
            assert stamp > start
            assert abs(stamp - reference) <= 7 * SECOND
            taken.add(stamp)
        elif verdict is Freshness.REPEATED:
            assert stamp in taken
        elif stamp > reference - 7 * SECOND and stamp not in taken and stamp > start:
            assert stamp > reference + 7 * SECOND
        suggested = unfold(window.suggestion(fold(stamp), clock), clock)
        assert (suggested - stamp) % SECOND == 0
        assert max(clock, window.highest) < suggested <= max(clock, window.highest) + SECOND


def test_the_window_is_bounded() -> None:
    window = Window(0, 1e6)
    clock = 20_000 * SECOND
    for number in range(1, 10_001):
        assert window.accept(number * SECOND, clock) is Freshness.FRESH
    assert len(window._seen) == 4096
    assert window.accept(5000 * SECOND, clock) is Freshness.STALE
    assert window.accept(9000 * SECOND, clock) is Freshness.REPEATED
    assert window.accept(9000 * SECOND + 1, clock) is Freshness.FRESH
