"""The loop in the modes in which the CMD signals: PBUs after the commit, answers that wait, on no network."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from dhcp_cmd.core.model import MICROS, Settings
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.pmip.sockets import MobilitySocket
from dhcp_cmd.server.datagrams import Address, make_address
from dhcp_cmd.server.loop import Limits, Loop
from dhcp_cmd.server.plan import Account, Plan, Rules
from dhcp_cmd.server.responder import Arrival, Later, Responder
from dhcp_cmd.server.signalling import Signalling
from dhcp_cmd.server.sockets import Waiting
from dhcp_cmd.service import Cmd
from dhcp_cmd.store.admin import default_relay_id
from dmm_wire import dmm
from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dhcpv6.message import unwrap
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import BindingAcknowledgement, BindingUpdate, decode, encode
from dmm_wire.mobility.security import Security
from tests.cmd.plugin import messages as m
from tests.cmd.server.hosts import UNICAST
from tests.cmd.server.test_loop import Line
from tests.cmd.store.domain import T0, sqlite_store

CMD = parse_address("2001:db8:ffff::135")
NAME = "2001:db8:ffff::135"


def endpoint(maar: int) -> bytes:
    return parse_address(f"2001:db8:ffff::{maar}")


def from_maar(maar: int, kind: int, number: int) -> Arrival:
    message = m.client(kind, m.ELAPSED, m.ia_na(), m.ia_pd(), xid=number.to_bytes(3, "big"))
    data = m.relayed(
        message,
        link=f"2001:db8:aaaa:{maar}::1",
        endpoint=f"2001:db8:ffff::{maar}",
        relay_id=default_relay_id(f"maar{maar}"),
    )
    return Arrival(data, endpoint(maar), UNICAST)


class Wire(MobilitySocket):
    """Mobility Headers between two ends of a pair of sockets."""

    def __init__(self) -> None:
        self._socket, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.sent: list[tuple[bytes, BindingUpdate | BindingAcknowledgement]] = []

    def send(self, destination: bytes, data: bytes) -> None:
        self.sent.append((destination, decode(data, CMD, destination)))

    def receive(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            try:
                data = self._socket.recv(65_535)
            except BlockingIOError:
                return
            yield data[:16], data[16:]

    def acknowledge(self, status: int = 0) -> None:
        """Each PBU that was sent is answered."""
        for peer, update in self.sent:
            assert isinstance(update, BindingUpdate)
            options = update.options[:-1]
            answer = BindingAcknowledgement(status, update.sequence, update.lifetime, options)
            self.far.send(peer + encode(answer, peer, CMD))
        self.sent.clear()

    def close(self) -> None:
        super().close()
        self.far.close()


class Heard(Line):
    """A listener that hears what the test puts there."""

    def __init__(self) -> None:
        super().__init__(UNICAST)
        self.waiting: list[Arrival] = []

    def drain(self, limit: int) -> list[tuple[float, Waiting]]:
        super().drain(limit)
        arrived, self.waiting = self.waiting, []
        return [(0.0, (each, make_address(each.source, 547, 0))) for each in arrived]

    def send(self, answers: Iterable[tuple[bytes, Address]]) -> int:
        self.sent += [answer for answer, _ in answers]
        return 0

    def say_from(self, maar: int, number: int, kind: int = MessageType.REBIND) -> None:
        self.waiting.append(from_maar(maar, kind, number))
        self.far.send(b"!")


class Bench:
    """A CMD on SQLite behind a loop."""

    def __init__(
        self,
        folder: Path,
        mode: SignallingMode,
        timeout: int = 5000,
        security: Security | None = None,
    ) -> None:
        self.store = sqlite_store(folder)
        settings = Settings(server_duid=m.SERVER_DUID, mode=mode, relay_timeout=timeout)
        pmip = PmipSettings(CMD, NAME)
        plan = Plan(
            "", "", settings, (UNICAST,), Rules(), Account("", 0, 0), lambda level: None, pmip
        )
        self.line, self.wire = Heard(), Wire()
        self.counted: Counter[str] = Counter()
        cmd = Cmd(self.store, settings)
        self.signalling = Signalling(self.wire, pmip, mode, cmd, self.store, security or Security())
        self.responder = Responder(cmd, plan)
        self.loop = Loop(
            self.responder,
            [self.line],
            Limits(),
            self.counted.update,
            signalling=self.signalling,
        )

    def until(self, condition: Callable[[], object]) -> None:
        """Turns of the loop; each waits for something to do."""
        for _ in range(1000):
            if condition():
                return
            self.loop.turn()
        raise AssertionError("it never happens")

    def moved(self) -> None:
        """A node was at MAAR 1, comes to MAAR 2, and the PBU about it goes."""
        self.line.say_from(1, 1)
        self.until(lambda: self.line.sent)
        self.line.sent.clear()
        self.line.say_from(2, 2)
        self.until(lambda: self.wire.sent)

    def signals(self) -> int:
        with self.store.administration() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM signal").scalar_one())

    def close(self) -> None:
        self.loop.close()
        self.store.close()


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, *request.param)
    yield made
    made.close()


RELAY, PROXY = SignallingMode.RELAY, SignallingMode.PROXY


def anchors(answer: bytes) -> set[bytes]:
    return {each.endpoint for each in previous(answer) if not each.awaited}


def expected(answer: bytes) -> int:
    return len({each.endpoint for each in previous(answer) if each.awaited})


def previous(answer: bytes) -> list[dmm.PreviousMaar]:
    ours = dmm.from_options(m.ENTERPRISE, unwrap(answer).relays[0].options) or ()
    return [each for each in ours if isinstance(each, dmm.PreviousMaar)]


@pytest.mark.parametrize("bench", [(PROXY,)], indirect=True)
def test_the_pbu_goes_after_the_answer_and_is_over_with_the_pba(bench: Bench) -> None:
    bench.moved()
    (answer,) = bench.line.sent
    assert anchors(answer) == {endpoint(1)}
    assert bench.signals() == 1
    assert [peer for peer, _ in bench.wire.sent] == [endpoint(1)]
    bench.wire.acknowledge()
    bench.until(lambda: not bench.signals())
    assert bench.counted["pbu-sent"] == 1
    assert bench.counted["pba-accepted"] == 1


@pytest.mark.parametrize("bench", [(RELAY,)], indirect=True)
def test_the_answer_waits_for_the_pba(bench: Bench) -> None:
    bench.moved()
    assert bench.line.sent == []
    bench.wire.acknowledge()
    bench.until(lambda: bench.line.sent)
    (answer,) = bench.line.sent
    assert (anchors(answer), expected(answer)) == ({endpoint(1)}, 0)
    bench.until(lambda: not bench.signals())


@pytest.mark.parametrize("bench", [(RELAY, 30)], indirect=True)
def test_the_answer_does_not_wait_longer_than_it_may(bench: Bench) -> None:
    bench.moved()
    bench.until(lambda: bench.line.sent)
    (answer,) = bench.line.sent
    assert (anchors(answer), expected(answer)) == (set(), 1)
    assert bench.counted["relay-timeout"] == 1
    # The S-MAAR is told of the late one.
    bench.wire.acknowledge()
    bench.until(lambda: bench.wire.sent)
    ((peer, told),) = bench.wire.sent
    assert peer == endpoint(2)
    assert isinstance(told, BindingAcknowledgement)


@pytest.mark.parametrize("bench", [(RELAY, 100)], indirect=True)
def test_what_another_cmd_was_told_meanwhile_is_named_all_the_same(bench: Bench) -> None:
    """Two CMDs get each message; the P-MAAR acknowledges to the one whose PBU it got."""
    bench.moved()
    with bench.store.administration() as connection:
        connection.exec_driver_sql("DELETE FROM signal")
    bench.until(lambda: bench.line.sent)
    (answer,) = bench.line.sent
    assert (anchors(answer), expected(answer)) == ({endpoint(1)}, 0)
    assert bench.counted["relay-timeout"] == 0


@pytest.mark.parametrize("bench", [(RELAY, 100)], indirect=True)
def test_what_an_anchor_refused_to_another_cmd_is_not_named(bench: Bench) -> None:
    bench.moved()
    with bench.store.administration() as connection:
        connection.exec_driver_sql("DELETE FROM signal")
        connection.exec_driver_sql(
            "UPDATE binding SET state = 'ended', ended_at = 1, reusable_at = 1, hold_until = NULL WHERE anchor_id = 1"
        )
    bench.until(lambda: bench.line.sent)
    (answer,) = bench.line.sent
    assert (anchors(answer), expected(answer)) == (set(), 1)


@pytest.mark.parametrize("bench", [(RELAY,)], indirect=True)
def test_a_message_that_comes_again_meanwhile_is_answered_once(bench: Bench) -> None:
    bench.moved()
    bench.line.say_from(2, 2)
    bench.loop.turn()
    bench.line.say_from(2, 2)
    bench.line.say_from(2, 2)
    bench.loop.turn()
    assert bench.line.sent == []
    bench.wire.acknowledge()
    bench.until(lambda: not bench.signals())
    assert len(bench.line.sent) == 1


@pytest.mark.parametrize("bench", [(RELAY,)], indirect=True)
def test_what_waits_is_encoded_when_it_goes(bench: Bench) -> None:
    (first,) = bench.responder.answer([from_maar(1, MessageType.REBIND, 1)], lambda: T0)
    assert isinstance(first, bytes)
    (later,) = bench.responder.answer(
        [from_maar(2, MessageType.REBIND, 2)], lambda: T0 + 60 * MICROS
    )
    assert isinstance(later, Later)
    whole, partly = later.answer([]), later.answer([endpoint(1)])
    assert whole is not None
    assert partly is not None
    assert (anchors(whole), expected(whole)) == ({endpoint(1)}, 0)
    assert (anchors(partly), expected(partly)) == (set(), 1)
