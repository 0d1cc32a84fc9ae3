"""Two CMDs on one database: whichever dies, and wherever, the P-MAAR hears of the move, and says so once for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from dhcp_cmd.core.model import MICROS, Change, Micros, PutBinding, PutNode, PutSignal, Signal
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.pmip.authenticated import Authenticated
from dhcp_cmd.pmip.outbox import Key
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.pmip.signaller import Signaller
from dhcp_cmd.store import SqlStore, open_store
from dhcp_cmd.store.outbox import SqlOutbox
from dhcp_cmd.store.rows import CLAIM
from dmm_wire.address import format_address, parse_address
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import BindingUpdate, Status, decode, encode
from dmm_wire.mobility.answers import acknowledge
from dmm_wire.mobility.security import Security
from tests.cmd.store.domain import ENGINES, T0, a_binding, a_node, opened, the_pool, url_of
from tests.cmd.store.test_contract import domain_of, written

ONE, OTHER = parse_address("2001:db8:ffff::131"), parse_address("2001:db8:ffff::132")
KEY = (7, 1)


class Clock:
    """Of both machines."""

    def __init__(self) -> None:
        self.now = 0.0

    def micros(self) -> Micros:
        return T0 + round(self.now * MICROS)


class NoMarks:
    """No keys are shared."""

    def read(self) -> Mapping[bytes, Micros]:
        return {}

    def write(self, marks: Mapping[bytes, Micros]) -> None:
        raise AssertionError("nothing is signed")


class Unfinished(SqlOutbox):
    """Of one that dies before it has written what is over."""

    def finish(self, done: Iterable[tuple[Key, int]]) -> None:
        raise StoreError("the process is gone")


class Sender:
    """A CMD's process. What it sends waits in `sent`, what comes to it in `arrived`."""

    def __init__(self, endpoint: bytes, store: SqlStore, clock: Clock) -> None:
        self.endpoint, self.store, self.clock = endpoint, store, clock
        self.sent: list[tuple[bytes, bytes]] = []
        self.arrived: list[tuple[bytes, bytes]] = []
        self.store.sender = format_address(endpoint)
        outcomes: Counter[str] = Counter()
        times = {"clock": clock.micros, "monotonic": lambda: clock.now}
        self.signaller = Signaller(
            SqlOutbox(store, self.store.sender),
            self,
            PmipSettings(endpoint, self.store.sender),
            SignallingMode.PROXY,
            Authenticated(endpoint, Security(), NoMarks(), outcomes, **times),  # type: ignore[arg-type]
            outcomes,
            refused=lambda identity, anchor, prefixes, now: None,
            knows_later=lambda identity, anchor, known, now: None,
            clock=clock.micros,
            monotonic=lambda: clock.now,
        )

    def send(self, destination: bytes, data: bytes) -> None:
        self.sent.append((destination, data))

    def receive(self) -> list[tuple[bytes, bytes]]:
        arrived, self.arrived = self.arrived, []
        return arrived

    def updates(self) -> list[BindingUpdate]:
        """What has gone out since the last question."""
        sent, self.sent = self.sent, []
        read = [decode(data, self.endpoint, to) for to, data in sent]
        assert all(isinstance(each, BindingUpdate) for each in read)
        return [each for each in read if isinstance(each, BindingUpdate)]

    def answered(self, update: BindingUpdate, maar: bytes) -> None:
        """The P-MAAR's PBA is here."""
        answer = acknowledge(update, Status.ACCEPTED, update.lifetime)
        self.arrived.append((maar, encode(answer, maar, self.endpoint)))
        self.signaller.receive()

    def go_on(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while (wake := self.signaller.deadline()) is not None and wake <= end:
            self.clock.now = max(self.clock.now, wake)
            self.signaller.work()
        self.clock.now = end


@pytest.fixture(params=ENGINES)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SqlStore, SqlStore]]:
    """The database, opened by each CMD."""
    with opened(request.param, tmp_path) as one:
        other = open_store(url_of(one, tmp_path))
        yield one, other
        other.close()


def _rows(store: SqlStore) -> list[object]:
    with store.administration() as connection:
        return list(connection.exec_driver_sql("SELECT node_id FROM signal").all())


def move(store: SqlStore, clock: Clock) -> None:
    """The node is at MAAR 3 now, which MAAR 1 is owed to hear."""
    binding = a_binding(the_pool(domain_of(store)), 1, 7)
    changes: list[Change] = [PutNode(a_node(7, serving=3), True), PutBinding(binding, True)]
    written(store, *changes, PutSignal(Signal(7, 1, True, clock.micros())))


@pytest.mark.parametrize("dies_after", ["the commit", "the PBU", "the PBA"])
@pytest.mark.parametrize("who", ["itself", "the other"])
def test_whoever_goes_on_ends_it(
    stores: tuple[SqlStore, SqlStore], dies_after: str, who: str
) -> None:
    clock = Clock()
    one, other = Sender(ONE, stores[0], clock), Sender(OTHER, stores[1], clock)
    maar = domain_of(stores[0]).maars[1].endpoint
    for each in (one, other):
        each.signaller.work()
    move(stores[0], clock)
    other.go_on(1.5)
    assert other.updates() == [], "it is the one's"
    told = []
    if dies_after != "the commit":
        one.signaller.put([KEY])
        one.signaller.work()
        told = one.updates()
        assert len(told) == 1
    if dies_after == "the PBA":
        one.signaller.signals = Unfinished(one.store, format_address(ONE))
        one.answered(told[0], maar)
    # Now it is gone: before the PBA came, or before what is over was written.
    again = Sender(ONE, stores[0], clock) if who == "itself" else other
    if who == "itself":
        again.signaller.work()
    else:
        again.go_on(CLAIM / MICROS - 2.0)
        assert again.updates() == [], "its time is not over"
        again.go_on(1.0)
    (update,) = again.updates()
    assert all(each.options == update.options for each in told), "a refresh, no more"
    again.answered(update, maar)
    assert _rows(stores[1]) == []
    again.go_on(120.0)
    assert again.updates() == []


def test_the_last_word_of_one_that_was_overtaken_ends_nothing(
    stores: tuple[SqlStore, SqlStore],
) -> None:
    """What the other has committed meanwhile is the other's to send."""
    clock = Clock()
    one, other = Sender(ONE, stores[0], clock), Sender(OTHER, stores[1], clock)
    maar = domain_of(stores[0]).maars[1].endpoint
    move(stores[0], clock)
    one.signaller.put([KEY])
    one.signaller.work()
    (update,) = one.updates()
    clock.now = 0.5
    written(stores[1], PutSignal(Signal(7, 1, True, clock.micros())))
    one.answered(update, maar)
    assert len(_rows(stores[0])) == 1
    one.go_on(1.0)
    assert one.updates() == []
    other.signaller.put([KEY])
    other.signaller.work()
    (update,) = other.updates()
    other.answered(update, maar)
    assert _rows(stores[0]) == []
