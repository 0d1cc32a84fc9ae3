"""The loop, turn by turn, on listeners that are no network."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

from dhcp_cmd.core.model import BindingRequest, ClientReply, Decision, Registration, Settings
from dhcp_cmd.core.ports import Refused, StoreError
from dhcp_cmd.server.datagrams import Address, make_address
from dhcp_cmd.server.loop import (
    ALONE,
    REAP_BATCH,
    REAP_INTERVAL,
    Limits,
    Loop,
    Share,
    next_turn,
)
from dhcp_cmd.server.plan import Account, ListenerPlan, Plan, Rules
from dhcp_cmd.server.responder import Arrival, Responder
from dhcp_cmd.server.sockets import Listener, Waiting
from dhcp_cmd.service import Clock, Cmd
from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import unwrap
from tests.cmd.plugin import messages as m
from tests.cmd.server.hosts import MULTICAST

SOURCE = parse_address("fe80::9")
ADDRESS = make_address(SOURCE, 546, 1)
REPLY = Decision(ClientReply(int(MessageType.REPLY), ()), None, (), (), "reply")


class Line(Listener):
    """A listener at the end of a pair of sockets."""

    def __init__(self, plan: ListenerPlan = MULTICAST) -> None:
        self.plan = plan
        self.far, self._receive = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._answer = self._receive
        self._receive.setblocking(False)
        self.sent: list[bytes] = []
        self.works = True
        self.age = 0.0
        """Seconds that what it hears has waited before."""

    def drain(self, limit: int) -> list[tuple[float, Waiting]]:
        found: list[tuple[float, Waiting]] = []
        while len(found) < limit:
            try:
                data = self._receive.recv(65_535)
            except BlockingIOError:
                break
            found.append((self.age, (Arrival(data, SOURCE, self.plan), ADDRESS)))
        return found

    def send(self, answers: Iterable[tuple[bytes, Address]]) -> int:
        answers = list(answers)
        assert {address for _, address in answers} == {ADDRESS}
        if self.works:
            self.sent += [answer for answer, _ in answers]
        return 0 if self.works else len(answers)

    def close(self) -> None:
        super().close()
        self.far.close()

    def say(self, *numbers: int) -> None:
        for number in numbers:
            self.far.send(m.solicit(xid=bytes((0, 0, number))))

    def heard(self) -> list[int]:
        return [unwrap(answer).client.transaction_id[2] for answer in self.sent]


class Scripted(Cmd):
    """Answers everything, unless the database is away; with a full disk, what needs no commit (not `writes`)."""

    def __init__(self) -> None:
        self.away = False
        self.full = False
        self.spoilt = False
        self.writes = True
        self.commits = 0
        self.batches: list[int] = []
        self.due = 0
        self.reaped: list[int] = []
        self.while_busy: Callable[[], None] = lambda: None
        """What happens while it handles a batch."""

    def handle(
        self, requests: Sequence[BindingRequest | Registration], clock: Clock
    ) -> list[Decision]:
        if self.away:
            raise StoreError("database is locked")
        self._commit(self.writes)
        self.while_busy()
        self.batches.append(len(requests))
        return [REPLY] * len(requests)

    def reap(self, now: int, limit: int) -> int:
        if self.away:
            raise StoreError("database is locked")
        if self.spoilt:
            raise Refused("CHECK constraint failed: at")
        done = min(self.due, limit)
        self._commit(done > 0)
        self.due -= done
        self.reaped.append(done)
        return done

    def _commit(self, something: bool) -> None:
        if something and self.full:
            raise StoreError("database or disk is full")
        self.commits += something


class Bench:
    """A loop with its surroundings, and a clock that only the test moves."""

    def __init__(self, limits: Limits, share: Share = ALONE, line: Line | None = None) -> None:
        self.now = 1000.0
        self.cmd = Scripted()
        self.counted: Counter[str] = Counter()
        self.line = line or Line()
        plan = Plan(
            *("", "", Settings(server_duid=m.SERVER_DUID), ()),
            *(Rules(), Account("", 0, 0), lambda level: None),
        )
        self.loop = Loop(
            Responder(self.cmd, plan),
            [self.line],
            limits,
            self.counted.update,
            lambda: self.now,
            share,
        )


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(Limits(batch=4, waiting=10, age=0.5))
    yield made
    made.loop.close()


def test_what_waits_is_answered_in_batches(bench: Bench) -> None:
    bench.line.say(*range(10))
    for _ in range(3):
        bench.loop.turn()
    assert bench.cmd.batches == [4, 4, 2]
    assert bench.line.heard() == list(range(10))
    assert bench.counted == {"reply": 10}


def test_the_newest_are_answered_when_too_many_wait(bench: Bench) -> None:
    bench.line.say(*range(40))
    for _ in range(3):
        bench.loop.turn()
    assert bench.line.heard() == list(range(30, 40))
    assert bench.counted["overload"] == 30


def test_what_waited_too_long_is_dropped(bench: Bench) -> None:
    bench.line.say(*range(10))
    bench.loop.turn()
    bench.now += 0.6
    bench.line.say(99)
    bench.loop.turn()
    assert bench.line.heard() == [0, 1, 2, 3, 99]
    assert bench.counted["overload"] == 6


def test_what_waited_too_long_in_the_kernel_is_dropped(bench: Bench) -> None:
    bench.line.age = 0.4
    bench.line.say(*range(6))
    bench.loop.turn()
    bench.now += 0.2
    bench.line.age = 0.6
    bench.line.say(*range(10, 13))
    bench.loop.turn()
    assert bench.line.heard() == [0, 1, 2, 3]
    assert bench.counted["overload"] == 5


def test_an_outage_is_told_once_and_nothing_is_sent(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bench.cmd.away = True
    bench.line.say(*range(8))
    bench.loop.turn()
    bench.loop.turn()
    assert bench.line.sent == []
    assert bench.counted["store-error"] == 8
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    bench.cmd.away = False
    bench.now += 3
    bench.line.say(8)
    bench.loop.turn()
    assert bench.line.heard() == [8]
    assert caplog.messages[1:] == ["the database is back after 3.0 s; 8 messages were not answered"]


@pytest.mark.parametrize("by", ["answer", "reap"])
def test_the_database_is_back_only_when_something_was_committed(
    bench: Bench, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    caplog.set_level(logging.WARNING)
    bench.cmd.full = True
    for number in range(3):  # a batch that fails, and a look that finds nothing to reap
        bench.now += REAP_INTERVAL
        bench.line.say(number)
        bench.loop.turn()
    assert bench.cmd.reaped == [0, 0, 0]
    bench.cmd.writes = False
    bench.line.say(3)
    bench.loop.turn()
    assert bench.line.heard() == [3]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    bench.cmd.full = False
    bench.now += REAP_INTERVAL
    if by == "answer":
        bench.cmd.writes = True
        bench.line.say(4)
    else:
        bench.cmd.due = 1
    bench.loop.turn()
    bench.now += REAP_INTERVAL
    bench.line.say(5)
    bench.loop.turn()
    assert caplog.messages[1:] == ["the database is back after 3.0 s; 3 messages were not answered"]


def test_a_row_that_cannot_be_reaped_is_no_outage(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    bench.cmd.spoilt = True
    for number in range(3):
        bench.now += REAP_INTERVAL
        bench.line.say(number)
        bench.loop.turn()
    assert bench.line.heard() == [0, 1, 2]
    assert caplog.messages == [
        "the database refuses to have it recorded what has ended: CHECK constraint failed: at"
    ]
    assert bench.counted["store-error"] == 0


def test_it_reaps_between_batches_and_goes_on_where_more_is_due(bench: Bench) -> None:
    bench.cmd.due = REAP_BATCH + 1
    bench.line.say(*range(8))
    for _ in range(3):
        bench.loop.turn()
    assert bench.cmd.reaped == [REAP_BATCH, 1]
    assert bench.cmd.batches == [4, 4]
    bench.now += REAP_INTERVAL
    bench.loop.turn()
    assert bench.cmd.reaped == [REAP_BATCH, 1, 0]


def test_an_answer_that_the_network_does_not_take_is_counted(bench: Bench) -> None:
    bench.line.works = False
    bench.line.say(1)
    bench.loop.turn()
    assert bench.counted == {"reply": 1, "send-error": 1}


def test_a_listener_goes_with_what_waited_there(bench: Bench) -> None:
    bench.line.say(*range(6))
    bench.loop.turn()
    other = Line()
    bench.loop.listen([other])
    other.say(7)
    bench.loop.turn()
    assert bench.line.heard() == [0, 1, 2, 3]
    assert other.heard() == [7]
    assert bench.counted["overload"] == 2
    bench.line.close()


def test_it_stops_between_two_batches(bench: Bench) -> None:
    bench.line.say(1)
    bench.loop.stopping = True
    bench.loop.run()
    assert bench.line.sent == []


def test_told_to_stop_it_begins_nothing_else(bench: Bench) -> None:
    def stop() -> None:
        bench.loop.stopping = True

    bench.cmd.while_busy = stop
    bench.cmd.due = 1
    bench.line.say(*range(8))
    bench.loop.run()
    assert bench.line.heard() == [0, 1, 2, 3]  # these were committed
    assert bench.cmd.reaped == []


# --- several that share a listener ---


@pytest.fixture
def two() -> Iterator[tuple[Bench, Bench]]:
    line = Line()
    limits = Limits(batch=4, waiting=10, age=0.5)
    made = Bench(limits, Share(0, 2), line), Bench(limits, Share(1, 2), line)
    yield made
    for each in made:
        each.loop.close()


def test_one_takes_a_batch_and_leaves_the_rest_to_the_other(two: tuple[Bench, Bench]) -> None:
    first, second = two
    first.line.say(*range(10))
    first.loop.turn()
    second.loop.turn()
    first.loop.turn()
    assert (first.cmd.batches, second.cmd.batches) == ([4, 2], [4])
    assert first.line.heard() == list(range(10))


def test_under_overload_one_takes_it_all_to_choose_from(two: tuple[Bench, Bench]) -> None:
    first, second = two
    first.line.say(*range(9))
    first.line.age = 0.2  # nobody was idle
    first.loop.turn()
    second.loop.turn()
    assert (first.cmd.batches, second.cmd.batches) == ([4], [])
    first.line.age = 0
    first.line.say(*range(20, 23))
    first.loop.turn()  # more waits here than a batch: it goes on so
    second.loop.turn()
    first.loop.turn()
    assert (first.cmd.batches, second.cmd.batches) == ([4, 4, 4], [])
    first.line.say(*range(30, 36))
    first.loop.turn()
    second.loop.turn()
    assert (first.cmd.batches, second.cmd.batches) == ([4, 4, 4, 4], [2])


def test_one_that_leaves_answers_what_it_has_and_takes_no_more(two: tuple[Bench, Bench]) -> None:
    first, second = two
    other = Line()
    first.loop.listen([first.line, other])
    first.line.say(*range(10))
    other.say(*range(20, 24))

    def leave() -> None:
        first.cmd.while_busy = lambda: None
        first.loop.leave()

    first.cmd.while_busy = leave
    first.loop.run()
    assert first.cmd.batches == [
        4,
        4,
        2,
    ]  # two of each listener, and a batch of each at most beside them
    assert first.line.heard() == [0, 1, 2, 3, 4, 5]
    assert other.heard() == [20, 21, 22, 23]
    second.loop.turn()
    second.loop.turn()
    assert second.cmd.batches == [4]
    assert first.counted == {"reply": 10}


def test_one_that_leaves_under_overload_takes_no_more(two: tuple[Bench, Bench]) -> None:
    first, second = two
    first.line.say(*range(9))
    first.line.age = 0.2
    first.loop.turn()
    first.line.say(*range(20, 24))
    first.loop.leave()
    first.loop.run()
    assert first.cmd.batches == [4, 4, 1]
    second.loop.turn()
    assert second.cmd.batches == [4]


def test_one_that_leaves_answers_what_may_have_woken_it(two: tuple[Bench, Bench]) -> None:
    first, second = two
    first.line.say(1)
    first.loop.leave()
    first.line.say(2)
    first.loop.run()
    assert first.line.heard() == [1]
    second.loop.turn()
    assert first.line.heard() == [1, 2]


def test_they_reap_in_turn() -> None:
    moments = sorted(
        moment for seat in range(3) for moment in _turns(1000.25 + seat / 7, Share(seat, 3), 4)
    )
    assert moments == [moments[0] + number * REAP_INTERVAL for number in range(12)]
    assert next_turn(1000.0, ALONE) == 1000.0 + REAP_INTERVAL


def _turns(now: float, share: Share, number: int) -> Iterator[float]:
    for _ in range(number):
        now = next_turn(now, share)
        yield now
        now += 0.01  # it takes a moment
