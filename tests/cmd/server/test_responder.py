"""A batch of datagrams in, their answers out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dhcp_cmd.core.model import BindingRequest, ClientReply, Decision, Registration, Settings
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.server import responder as module
from dhcp_cmd.server.plan import Account, Plan, Rules
from dhcp_cmd.server.responder import Arrival, Responder
from dhcp_cmd.service import Clock, Cmd
from dhcp_cmd.store import SqlStore
from dhcp_cmd.store.admin import default_relay_id
from dmm_wire import dmm
from dmm_wire.address import parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import RelayMessage, every, first, unwrap
from tests.cmd.plugin import messages as m
from tests.cmd.server.hosts import MULTICAST, UNICAST
from tests.cmd.store.domain import T0, sqlite_store

SETTINGS = Settings(server_duid=m.SERVER_DUID)
MAAR = parse_address("2001:db8:ffff::1")


class Recorder(Cmd):
    """Says how many requests came in each batch."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store, SETTINGS)
        self.batches: list[int] = []

    def handle(
        self, requests: Sequence[BindingRequest | Registration], clock: Clock
    ) -> list[Decision]:
        self.batches.append(len(requests))
        return super().handle(requests, clock)


class Scripted(Cmd):
    """Decides what the test says."""

    def __init__(self, outcome: Decision | Exception) -> None:
        self.outcome = outcome

    def handle(
        self, requests: Sequence[BindingRequest | Registration], clock: Clock
    ) -> list[Decision]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return [self.outcome] * len(requests)


def plan(rules: Rules = Rules()) -> Plan:  # noqa: B008
    return Plan("", "", SETTINGS, (UNICAST,), rules, Account("", 0, 0), lambda level: None)


@pytest.fixture
def cmd(tmp_path: Path) -> Iterator[Recorder]:
    store = sqlite_store(tmp_path)
    yield Recorder(store)
    store.close()


def clock() -> int:
    return T0


def from_maar(message: bytes, **relay: object) -> Arrival:
    relay = {"link": "2001:db8:aaaa:1::1", "endpoint": "2001:db8:ffff::1"} | relay
    relay.setdefault("relay_id", default_relay_id("maar1"))
    return Arrival(m.relayed(message, **relay), MAAR, UNICAST)  # type: ignore[arg-type]


def test_a_batch_is_decided_at_once_and_answered_in_its_order(cmd: Recorder) -> None:
    responder = Responder(cmd, plan())
    batch = [
        from_maar(m.solicit(xid=bytes((0, 0, n))), link_layer=None, interface_id=b"eth%d" % n)
        for n in range(5)
    ]
    answers = responder.answer(batch, clock)
    assert cmd.batches == [5]
    for number, answer in enumerate(answers):
        assert isinstance(answer, bytes)
        relays, client, _ = unwrap(answer)
        assert client.transaction_id == bytes((0, 0, number))
        assert every(relays[0].options, OptionCode.INTERFACE_ID) == [b"eth%d" % number]
    assert responder.outcomes == {"advertise": 5}


def test_copies_of_a_datagram_have_one_decision_and_each_its_answer(cmd: Recorder) -> None:
    responder = Responder(cmd, plan())
    copy, other = from_maar(m.solicit()), from_maar(m.solicit(), interface_id=b"eth2")
    elsewhere = copy._replace(source=parse_address("2001:db8:ffff::2"))
    answers = responder.answer([copy, other, copy, copy, elsewhere], clock)
    assert cmd.batches == [3]  # another relay path is another message
    assert answers[0] == answers[2] == answers[3] != answers[1]
    assert responder.outcomes["duplicate"] == 2


def test_noise_costs_only_itself(cmd: Recorder) -> None:
    responder = Responder(cmd, plan())
    good = from_maar(m.solicit())
    noise = [
        Arrival(data, MAAR, UNICAST)
        for data in (b"", b"\x01", b"\x0c" + bytes(40), bytes(range(256)), good.data[:-1])
    ]
    answers = responder.answer([*noise, good, *noise], clock)
    assert [answer is not None for answer in answers] == [False] * 5 + [True] + [False] * 5
    assert cmd.batches == [1]
    assert responder.outcomes["truncated"] > 0
    assert responder.outcomes["advertise"] == 1


@pytest.mark.parametrize("place", ["request_of", "encode_client"])
def test_a_fault_of_ours_with_one_message_costs_only_that(
    cmd: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    genuine = getattr(module, place)

    def poisoned(*arguments: object) -> object:
        if "poison" in repr(arguments):
            raise ZeroDivisionError
        return genuine(*arguments)

    monkeypatch.setattr(module, place, poisoned)
    responder = Responder(cmd, plan())
    poison = from_maar(m.solicit().replace(m.CLIENT_DUID, b"\x00\x03poison!!"), link_layer=None)
    good = from_maar(m.solicit())
    answers = [responder.answer([poison, good], clock) for _ in range(2)]
    assert all(first is None and second is not None for first, second in answers)
    assert responder.outcomes["internal-error"] == 2
    assert len(caplog.records) == 1  # told once, counted each time


def test_nothing_is_answered_when_nothing_was_committed() -> None:
    responder = Responder(Scripted(StoreError("disk full")), plan())
    with pytest.raises(StoreError, match="disk full"):
        responder.answer([from_maar(m.solicit())], clock)


def test_every_level_is_mirrored_and_the_option_is_at_the_level_of_the_maar() -> None:
    told = (dmm.Status(0, "fine"),)
    reply = ClientReply(int(MessageType.REPLY), (m.ia_na(7),))
    responder = Responder(Scripted(Decision(reply, 1, told, (), "reply")), plan())
    ldra = m.forward(
        m.client(MessageType.REQUEST, m.SERVER_ID),
        (int(OptionCode.INTERFACE_ID), b"port 9"),
        link="::",
    )
    inner = m.forward(
        ldra,
        (int(OptionCode.INTERFACE_ID), b"eth1"),
        (int(OptionCode.RELAY_ID), b"\x00\x02x"),
        link="2001:db8:aaaa:1::1",
        hop_count=1,
    )
    outer = m.forward(inner, link="2001:db8:9::1", hop_count=2)
    [answer] = responder.answer([Arrival(outer, MAAR, UNICAST)], clock)
    assert isinstance(answer, bytes)
    relays, client, _ = unwrap(answer)
    asked = unwrap(outer).relays
    assert [(r.hop_count, r.link_address, r.peer_address) for r in relays] == [
        (r.hop_count, r.link_address, r.peer_address) for r in asked
    ]
    assert {relay.type for relay in relays} == {MessageType.RELAY_REPL}
    ids = [first(relay.options, OptionCode.INTERFACE_ID) for relay in relays]
    assert ids == [None, b"eth1", b"port 9"]
    found = [dmm.from_options(m.ENTERPRISE, relay.options) for relay in relays]
    assert found == [None, told, None]
    assert client.options == (m.CLIENT_ID, m.SERVER_ID, m.ia_na(7))


def test_an_answer_byte_for_byte() -> None:
    reply = ClientReply(int(MessageType.REPLY), ((14, b""),))
    responder = Responder(Scripted(Decision(reply, None, (), (), "reply")), plan())
    direct = Arrival(m.solicit(), parse_address("fe80::1"), MULTICAST)
    [answer] = responder.answer([direct], clock)
    assert answer == (
        b"\x07\x01\x02\x03"
        b"\x00\x01\x00\x0a"
        + m.CLIENT_DUID
        + b"\x00\x02\x00\x09"
        + m.SERVER_DUID
        + b"\x00\x0e\x00\x00"
    )
    [relayed] = responder.answer([from_maar(m.solicit())], clock)
    assert relayed == (
        b"\x0d\x00"
        + parse_address("2001:db8:aaaa:1::1")
        + m.LINK_LOCAL
        + b"\x00\x12\x00\x04eth1"
        + b"\x00\x09"
        + len(answer).to_bytes(2, "big")
        + answer
    )


def test_a_client_that_sends_by_unicast_is_not_answered(cmd: Recorder) -> None:
    message = m.client(MessageType.SOLICIT, m.ELAPSED, m.ia_na())
    source = parse_address("2001:db8:9::9")
    direct = [Arrival(message, source, UNICAST), Arrival(message, source, MULTICAST)]
    responder = Responder(cmd, plan())
    assert [a is not None for a in responder.answer(direct, clock)] == [False, True]
    assert responder.outcomes["unicast"] == 1
    admitted = Responder(cmd, plan(Rules(unicast=((),))))
    assert all(admitted.answer(direct, clock))


def test_an_answer_too_long_for_a_relay_level_is_no_crash(cmd: Recorder) -> None:
    reply = ClientReply(int(MessageType.REPLY), ((65_001, bytes(65_530)),))
    responder = Responder(Scripted(Decision(reply, None, (), (), "reply")), plan())
    assert responder.answer([from_maar(m.solicit())], clock) == [None]
    assert responder.outcomes["internal-error"] == 1


def test_what_a_relay_agent_asks_back_it_gets_once() -> None:
    reply = ClientReply(int(MessageType.REPLY), ())
    responder = Responder(Scripted(Decision(reply, None, (), (), "reply")), plan())
    request = m.forward(
        m.solicit(),
        (int(OptionCode.INTERFACE_ID), b"eth1"),
        (65_000, b"a"),
        (65_000, b"b"),
        (int(OptionCode.ERO), b"\xfd\xe8\x00\x12\x00\x09\xfd\xe8\xff\xff"),
        link="2001:db8:aaaa:1::1",
    )
    [answer] = responder.answer([Arrival(request, MAAR, UNICAST)], clock)
    assert isinstance(answer, bytes)
    [relay] = unwrap(answer).relays
    assert isinstance(relay, RelayMessage)
    assert [code for code, _ in relay.options] == [18, 65_000, 65_000, 9]
