"""The CMD with keys, on SQLite: what is signed and what is durable when; what a new process refuses; reloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dhcp_cmd.core.model import MICROS, Settings
from dhcp_cmd.pmip.authenticated import RESERVE
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.server.plan import Account, Plan, Rules
from dhcp_cmd.server.responder import Responder
from dhcp_cmd.server.signalling import Signalling
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import SqlStore, StoreError
from dhcp_cmd.store.marks import SqlMarks
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import (
    Accepted,
    AccessTechnology,
    BindingAcknowledgement,
    BindingUpdate,
    Guard,
    HandoffIndicator,
    Key,
    KeyStore,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    Status,
    Timestamp,
)
from dmm_wire.mobility.answers import ALL_ZERO
from dmm_wire.mobility.authentication import locate
from dmm_wire.mobility.security import Security
from dmm_wire.timestamp import from_micros
from tests.cmd.core.registering import EUI48, MAC
from tests.cmd.plugin import messages as m
from tests.cmd.server.hosts import UNICAST
from tests.cmd.server.test_signalling import CMD, NAME, Wire, endpoint
from tests.cmd.store.domain import T0, sqlite_store

KEY, NEW = Key(1001, b"k" * 32), Key(1002, b"n" * 32)
SECURE = Security(KeyStore([KEY]), require=True)


class Octets(Wire):
    """A wire that keeps what was sent as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.octets: list[tuple[bytes, bytes]] = []

    def send(self, destination: bytes, data: bytes) -> None:
        super().send(destination, data)
        self.octets.append((destination, data))


class Process:
    """One of `dhcp-cmd serve`, but for its DHCPv6, on this store."""

    def __init__(
        self, store: SqlStore, security: Security, mode: SignallingMode = SignallingMode.PROXY
    ) -> None:
        settings = Settings(server_duid=m.SERVER_DUID, mode=mode)
        pmip = PmipSettings(CMD, NAME)
        plan = Plan("", "", settings, (UNICAST,), Rules(), Account("", 0, 0), lambda _: None, pmip)
        self.cmd = Cmd(store, settings)
        self.wire = Octets()
        self.signalling = Signalling(self.wire, pmip, mode, self.cmd, store, security)
        self.responder = Responder(self.cmd, plan)

    def hear(self, source: bytes, octets: bytes) -> list[tuple[bytes, bytes]]:
        """What it says to that."""
        self.wire.octets.clear()
        self.wire.far.send(source + octets)
        self.signalling.receive()
        self.signalling.work(self.responder)
        return list(self.wire.octets)

    def counted(self, name: str) -> int:
        return self.responder.outcomes[name]

    def close(self) -> None:
        self.signalling.close()


class Clock:
    """The module `time`, as far as the sender uses it. `ahead`: by how much the time of day is put forward."""

    def __init__(self) -> None:
        self.passed = 1000.0
        self.ahead = 0.0

    def time_ns(self) -> int:
        return round((T0 / MICROS + self.passed + self.ahead) * 1e9)

    def monotonic(self) -> float:
        return self.passed


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("dhcp_cmd.server.signalling.time", made)
    return made


class RegisteringMaar:
    """MAAR 1, whose clock is right, with a node to register."""

    def __init__(self, clock: Clock, key: Key = KEY) -> None:
        self.endpoint = endpoint(1)
        self.clock = clock
        self.guard = Guard(self.endpoint, KeyStore([key]), require=True, epoch=T0 / MICROS)
        self.guard.start(clock.passed)
        self.sequence = 0

    def update(self) -> bytes:
        """A registration, a tenth of a second after the one before."""
        self.sequence += 1
        self.clock.passed += 0.1
        options = (
            MobileNodeIdentifier(EUI48),
            ALL_ZERO,
            HandoffIndicator(4),
            AccessTechnology(4),
            LinkLayerIdentifier(MAC),
            Timestamp(from_micros(T0 + round(self.clock.passed * MICROS))),
        )
        update = BindingUpdate(self.sequence, 3600, options)
        return self.guard.outgoing(CMD, update, self.clock.passed)

    def believes(self, octets: bytes) -> BindingAcknowledgement:
        verdict = self.guard.incoming(CMD, octets, self.clock.passed)
        assert isinstance(verdict, Accepted)
        assert isinstance(verdict.message, BindingAcknowledgement)
        return verdict.message


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = sqlite_store(tmp_path)
    yield made
    made.close()


@pytest.fixture
def maar(clock: Clock) -> RegisteringMaar:
    return RegisteringMaar(clock)


@pytest.fixture
def start(store: SqlStore) -> Iterator[Callable[..., Process]]:
    """Starts a process on the store, or on another one; the one before is gone."""
    running: list[Process] = []

    def started(on: SqlStore = store, security: Security = SECURE) -> Process:
        for each in running:
            each.close()
        running[:] = [Process(on, security)]
        return running[0]

    yield started
    for each in running:
        each.close()


Start = Callable[..., Process]


def rows(store: SqlStore) -> list[object]:
    tables = ("mobile_node", "binding", "history", "signal")
    with store.administration() as connection:
        return [connection.exec_driver_sql(f"SELECT * FROM {each}").all() for each in tables]


def test_a_registration_is_answered_with_the_key_and_the_time_of_its_pbu(
    store: SqlStore, start: Start, maar: RegisteringMaar, clock: Clock
) -> None:
    process = start()
    ((peer, octets),) = process.hear(maar.endpoint, maar.update())
    assert peer == maar.endpoint
    assert locate(octets) is not None
    assert maar.believes(octets).status == Status.ACCEPTED
    (until,) = SqlMarks(store, NAME).read().values()
    assert 0 <= until - clock.time_ns() // 1000 <= RESERVE + 1


@pytest.mark.parametrize("ahead", [-3600.0, -5.0, 0.0, 0.5, 60.0])
def test_a_new_process_refuses_what_the_one_before_has_accepted(
    store: SqlStore, start: Start, maar: RegisteringMaar, clock: Clock, ahead: float
) -> None:
    process = start()
    captured = [maar.update(), maar.update()]
    for octets in captured:
        assert process.hear(maar.endpoint, octets)
    before = rows(store)
    clock.ahead = ahead
    process = start()
    for octets in captured * 2:
        process.hear(maar.endpoint, octets)
    assert process.counted("auth-stale") == 4
    assert rows(store) == before


def test_the_maar_itself_is_told_the_time_once_and_goes_on(
    start: Start, maar: RegisteringMaar, clock: Clock
) -> None:
    start().hear(maar.endpoint, maar.update())
    process = start()
    for status in (Status.MIPV6_ID_MISMATCH, Status.ACCEPTED, Status.ACCEPTED):
        ((_, octets),) = process.hear(maar.endpoint, maar.update())
        assert maar.believes(octets).status == status
    # A little later it is not even told that.
    clock.passed += 5.0
    process = start()
    ((_, octets),) = process.hear(maar.endpoint, maar.update())
    assert maar.believes(octets).status == Status.ACCEPTED


def test_nothing_is_done_before_the_mark_is_durable(
    store: SqlStore, start: Start, maar: RegisteringMaar
) -> None:
    process, before = start(), rows(store)
    with store.administration() as connection:
        connection.exec_driver_sql("ALTER TABLE replay_mark RENAME TO away")
    assert process.hear(maar.endpoint, maar.update()) == []
    assert process.counted("auth-store-error") == 1
    assert rows(store) == before
    with store.administration() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO replay_mark")
    ((_, octets),) = process.hear(maar.endpoint, maar.update())
    assert maar.believes(octets).status == Status.ACCEPTED


# --- reloads ---


@pytest.fixture
def other(tmp_path: Path) -> Iterator[SqlStore]:
    """Another database of the same domain."""
    (tmp_path / "other").mkdir()
    made = sqlite_store(tmp_path / "other")
    yield made
    made.close()


def test_the_marks_go_along_to_another_database(
    store: SqlStore, other: SqlStore, start: Start, maar: RegisteringMaar, clock: Clock
) -> None:
    process = start()
    captured = maar.update()
    process.hear(maar.endpoint, captured)
    process.signalling.move(other)
    process.signalling.take_over(Cmd(other, process.cmd.settings), other, SECURE)
    assert SqlMarks(other, NAME).read() == SqlMarks(store, NAME).read() != {}
    clock.passed += 10.0
    ((_, octets),) = process.hear(maar.endpoint, maar.update())
    assert maar.believes(octets).status == Status.ACCEPTED
    assert SqlMarks(other, NAME).read() != SqlMarks(store, NAME).read()
    clock.ahead = -60.0
    process, before = start(other), rows(other)
    process.hear(maar.endpoint, captured)
    assert process.counted("auth-stale") == 1
    assert rows(other) == before


def test_where_the_other_database_takes_none_nothing_has_changed(
    other: SqlStore, start: Start, maar: RegisteringMaar, clock: Clock
) -> None:
    process = start()
    process.hear(maar.endpoint, maar.update())
    with other.administration() as connection:
        connection.exec_driver_sql("DROP TABLE replay_mark")
    with pytest.raises(StoreError, match="replay_mark"):
        process.signalling.move(other)
    clock.passed += 10.0
    ((_, octets),) = process.hear(maar.endpoint, maar.update())
    assert maar.believes(octets).status == Status.ACCEPTED


def test_keys_are_changed_and_nothing_is_forgotten(
    store: SqlStore, start: Start, maar: RegisteringMaar
) -> None:
    process = start()
    captured = maar.update()
    process.hear(maar.endpoint, captured)
    both = Security(KeyStore([NEW, KEY]), require=True)
    process.signalling.take_over(process.cmd, store, both)
    before = rows(store)
    assert process.hear(maar.endpoint, captured) == []
    assert process.counted("auth-repeated") == 1
    assert rows(store) == before
    ((_, octets),) = process.hear(maar.endpoint, maar.update())
    seal = locate(octets)
    assert seal is not None
    assert seal.spi == NEW.spi
    process.signalling.take_over(process.cmd, store, Security(KeyStore([NEW]), require=True))
    assert process.hear(maar.endpoint, maar.update()) == []
    assert process.counted("auth-spi") == 1


def test_the_operator_hears_who_has_no_key_at_the_start_and_after_a_reload(
    store: SqlStore, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    process = start()
    assert caplog.records == []
    some = Security(KeyStore(peers={endpoint(1): [KEY]}), require=True)
    process.signalling.take_over(process.cmd, store, some)
    start(store, some)
    lines = [record.getMessage() for record in caplog.records]
    assert (
        lines
        == [
            "no key is shared with 2001:db8:ffff::2, 2001:db8:ffff::3: nothing of theirs is accepted"
        ]
        * 2
    )


# --- who is not believed ---


def test_what_is_unsigned_or_forged_registers_nothing(
    store: SqlStore, start: Start, clock: Clock
) -> None:
    process, before = start(), rows(store)
    forger = RegisteringMaar(clock, Key(KEY.spi, b"w" * 32))
    assert len(process.hear(forger.endpoint, forger.update())) == 1  # a 146
    assert process.hear(forger.endpoint, forger.update()) == []  # once per second
    nobody = Guard(endpoint(1), KeyStore(), require=False, epoch=0.0)
    assert process.hear(endpoint(1), nobody.outgoing(CMD, BindingUpdate(1, 3600), 0.0)) == []
    assert process.counted("auth-forged") == 2
    assert process.counted("auth-answered-146") == 1
    assert process.counted("auth-unsigned") == 1
    assert rows(store) == before
    assert SqlMarks(store, NAME).read() == {}
