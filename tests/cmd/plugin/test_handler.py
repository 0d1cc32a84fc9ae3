"""The handler in dhcpkit's own chain: what leaves is what was decided, or nothing."""

from __future__ import annotations

import logging
import pickle
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
from dhcpkit.ipv6.duids import EnterpriseDUID
from dhcpkit.ipv6.server import worker
from dhcpkit.ipv6.server.extensions.dns import RecursiveNameServersOptionHandler
from dhcpkit.ipv6.server.handlers import CannotRespondError, Handler
from dhcpkit.ipv6.server.listeners import IncomingPacketBundle, Replier
from dhcpkit.ipv6.server.message_handler import MessageHandler
from dhcpkit.ipv6.server.statistics import ServerStatistics

from dhcp_cmd.core.model import BindingRequest, ClientReply, Decision, Settings
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.plugin import counters, mends
from dhcp_cmd.plugin.config import Configuration
from dhcp_cmd.plugin.handler import MobilityHandler
from dhcp_cmd.service import Clock
from dmm_wire import dmm
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import RelayMessage, Unwrapped, every, first, unwrap
from dmm_wire.dhcpv6.options import IaAddress, StatusOption
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.waiting import wait_for

CLIENTID, SERVERID = int(OptionCode.CLIENTID), int(OptionCode.SERVERID)
DNS = parse_address("2001:db8::53")
CONFIGURATION = Configuration(
    database="sqlite:////nowhere/cmd.sqlite",
    status_directory="/nowhere",
    settings=Settings(server_duid=m.SERVER_DUID),
)
Outcome = Decision | Exception


class ScriptedCmd:
    """Decides what the test says."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.asked: list[BindingRequest] = []

    def handle(self, requests: Sequence[BindingRequest], clock: Clock) -> list[Decision]:
        self.asked += requests
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return [self.outcome]


class Server:
    """A worker of dhcpkit's server in this process."""

    def __init__(self, outcome: Outcome, *others: Handler, rapid_commit: bool = True) -> None:
        self.cmd = ScriptedCmd(outcome)
        handler = MobilityHandler(CONFIGURATION, server=1)
        handler._cmd = self.cmd  # type: ignore[assignment]
        mends.apply_in_worker(handler.read)
        self.chain = MessageHandler(
            EnterpriseDUID(32473, b"cmd"),
            sub_handlers=[
                RecursiveNameServersOptionHandler(dns_servers=[IPv6Address(DNS)]),
                handler,
                *others,
            ],
            allow_rapid_commit=rapid_commit,
        )
        self.sent: list[bytes] = []

    def receive(self, datagram: bytes, *, multicast: bool = False) -> Unwrapped | None:
        """Give it a datagram; its answer, if it sends one."""
        packet = IncomingPacketBundle(
            data=datagram,
            source_address=IPv6Address("2001:db8:ffff::2"),
            link_address=IPv6Address("2001:db8:ffff::1"),
            received_over_multicast=multicast,
        )
        worker.current_message_handler = self.chain
        before = len(self.sent)
        worker.handle_message(packet, _Replier(self.sent))
        assert len(self.sent) <= before + 1
        return unwrap(self.sent[-1]) if len(self.sent) > before else None


class _Replier(Replier):  # type: ignore[misc]
    def __init__(self, sent: list[bytes]) -> None:
        self.sent = sent

    def send_reply(self, outgoing_message: Any) -> bool:
        self.sent.append(bytes(outgoing_message.relayed_message.save()))
        return True


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """dhcpkit's worker made ready; gives what the handler counts."""
    monkeypatch.setattr(worker, "logger", logging.getLogger("worker"))
    monkeypatch.setattr(worker, "logging_handler", logging.NullHandler())
    monkeypatch.setattr(worker, "shared_statistics", ServerStatistics())
    monkeypatch.setattr(worker, "current_message_handler", None)
    seen: Counter[str] = Counter()
    monkeypatch.setattr(counters, "count", lambda outcome: seen.update([outcome]))
    return seen


def decided(
    kind: int, *options: tuple[int, bytes], level: int | None = None, relay: Any = ()
) -> Decision:
    outcome = "advertise" if kind == MessageType.ADVERTISE else "reply"
    return Decision(ClientReply(kind, options), level, tuple(relay), (), outcome)


def maar(message: bytes) -> bytes:
    return m.relayed(
        message, link="2001:db8:1::", endpoint="2001:db8:ffff::2", relay_id=b"\x00\x02maar"
    )


LEASE = IaAddress(parse_address("2001:db8:1::1"), 300, 600).encode()
# An option inside an IA that dhcpkit has no class for, and one that it has but would not put there.
IA = m.ia_na(7, (LEASE, (4711, b"\x01\x02\x03"), (int(OptionCode.ELAPSED_TIME), b"\x00\x01")))


def test_reply_is_what_was_decided(counted: Counter[str]) -> None:
    server = Server(decided(MessageType.REPLY, IA, m.ia_pd(1), (65000, b"x")))
    reply = server.receive(
        maar(m.client(MessageType.REQUEST, m.SERVER_ID, m.DNS_REQUESTED, m.ia_na(7), m.ia_pd(1)))
    )
    assert reply is not None
    assert reply.client.type == MessageType.REPLY
    assert reply.client.transaction_id == b"\x01\x02\x03"
    options = reply.client.options
    assert options[-3:] == (IA, m.ia_pd(1), (65000, b"x"))
    assert set(options[:-3]) == {
        m.CLIENT_ID,
        m.SERVER_ID,
        (int(OptionCode.DNS_SERVERS), DNS),
    }
    assert len(options) == 6
    assert counted == {"reply": 1}


def test_the_request_is_read_from_the_datagram() -> None:
    server = Server(decided(MessageType.REPLY))
    server.receive(maar(m.client(MessageType.RENEW, m.SERVER_ID, m.ia_pd(9))))
    (request,) = server.cmd.asked
    assert request.type == MessageType.RENEW
    assert request.source == parse_address("2001:db8:ffff::2")
    assert request.relays[0].link_layer == (1, m.CLIENT_MAC)
    assert [ia.iaid for ia in request.ias] == [9]


@pytest.mark.parametrize(
    "client_id",
    [b"\x00\x04" + bytes(16), b"\x00\x03\x00", b"\x00\x01" + bytes(12), b"\xff\xff\xff"],
    ids=["UUID", "LL cut short", "LLT", "unknown"],
)
def test_client_identifier_comes_back_as_it_was(client_id: bytes) -> None:
    server = Server(decided(MessageType.ADVERTISE))
    message = m.client(MessageType.SOLICIT, (CLIENTID, client_id), client_id=False)
    reply = server.receive(maar(message))
    assert reply is not None
    assert every(reply.client.options, CLIENTID) == [client_id]


def test_no_client_identifier_in_no_client_identifier_out() -> None:
    server = Server(decided(MessageType.REPLY))
    reply = server.receive(maar(m.client(MessageType.INFORMATION_REQUEST, client_id=False)))
    assert reply is not None
    assert first(reply.client.options, CLIENTID) is None
    assert first(reply.client.options, SERVERID) == m.SERVER_DUID


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("kind", [MessageType.ADVERTISE, MessageType.REPLY])
def test_rapid_commit_is_as_decided(kind: MessageType, allowed: bool) -> None:
    extra = (m.RAPID_COMMIT,) if kind == MessageType.REPLY else ()
    server = Server(decided(kind, *extra, IA), rapid_commit=allowed)
    reply = server.receive(maar(m.solicit(m.RAPID_COMMIT)))
    assert reply is not None
    assert reply.client.type == kind
    assert every(reply.client.options, m.RAPID_COMMIT[0]) == [b""] * len(extra)
    assert every(reply.client.options, OptionCode.DNS_SERVERS) == [DNS]
    assert every(reply.client.options, OptionCode.IA_NA) == [IA[1]]


@pytest.mark.parametrize(
    "kind",
    [
        MessageType.SOLICIT,
        MessageType.REQUEST,
        MessageType.CONFIRM,
        MessageType.RENEW,
        MessageType.REBIND,
        MessageType.RELEASE,
        MessageType.DECLINE,
    ],
)
def test_dhcpkit_adds_no_answer_of_its_own(kind: MessageType) -> None:
    # Nothing decided for the IAs, a status where every such reply has one.
    answer = MessageType.ADVERTISE if kind == MessageType.SOLICIT else MessageType.REPLY
    status = StatusOption(StatusCode.SUCCESS, "all is well").encode()
    to_server = kind not in (MessageType.SOLICIT, MessageType.CONFIRM, MessageType.REBIND)
    ask = [m.ia_na(1, (LEASE,)), m.ia_pd(2, (m.ia_prefix("2001:db8:8::/56"),))]
    server = Server(decided(answer, status))
    reply = server.receive(maar(m.client(kind, *([m.SERVER_ID] if to_server else []), *ask)))
    assert reply is not None
    assert every(reply.client.options, OptionCode.STATUS_CODE) == [status[1]]
    assert every(reply.client.options, OptionCode.IA_NA) == []
    assert every(reply.client.options, OptionCode.IA_PD) == []


def test_a_status_that_is_no_utf8_stays_as_it_is() -> None:
    status = (int(OptionCode.STATUS_CODE), b"\x00\x00\xff\xfe")
    server = Server(decided(MessageType.REPLY, status))
    reply = server.receive(maar(m.client(MessageType.RENEW, m.SERVER_ID)))
    assert reply is not None
    assert every(reply.client.options, OptionCode.STATUS_CODE) == [status[1]]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_relay_options_at_their_level(level: int) -> None:
    visit = dmm.Visit(5, bytes(16))
    anchored = dmm.AnchoredPrefix(Prefix.parse("2001:db8:1::/64"), 300, 600)
    server = Server(decided(MessageType.ADVERTISE, IA, level=level, relay=[visit, anchored]))
    datagram = m.solicit()
    for hop, interface in enumerate((b"ldra", None, b"\x00\x00\x00\x07")):
        options = () if interface is None else ((int(OptionCode.INTERFACE_ID), interface),)
        datagram = m.forward(
            datagram,
            *options,
            link=f"2001:db8:{hop + 1}::",
            peer=parse_address(f"2001:db8:ff::{hop}"),
            hop_count=hop,
        )
    reply = server.receive(datagram)
    assert reply is not None
    sent, got = unwrap(datagram).relays, reply.relays
    for index, (forward, answer) in enumerate(zip(sent, got, strict=True)):
        assert answer.type == MessageType.RELAY_REPL
        assert _header(answer) == _header(forward)
        assert every(answer.options, OptionCode.INTERFACE_ID) == every(
            forward.options, OptionCode.INTERFACE_ID
        )
        suboptions = dmm.from_options(m.ENTERPRISE, answer.options)
        assert suboptions == ((visit, anchored) if index == level else None)


def _header(relay: RelayMessage) -> tuple[int, bytes, bytes]:
    return relay.hop_count, relay.link_address, relay.peer_address


def test_what_a_maar_asks_for_itself() -> None:
    domain = dmm.Domain((parse_address("2001:db8:ffff::2"),))
    server = Server(decided(MessageType.REPLY, level=0, relay=[domain]))
    reply = server.receive(maar(m.client(MessageType.INFORMATION_REQUEST)))
    assert reply is not None
    assert dmm.from_options(m.ENTERPRISE, reply.relays[0].options) == (domain,)
    assert reply.client.type == MessageType.REPLY


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Decision(None, 0, (), (), "unknown-maar"), "unknown-maar"),
        (StoreError("database is locked"), "store-error"),
        (RuntimeError("a bug"), "internal-error"),
    ],
)
def test_nothing_is_sent(outcome: Outcome, expected: str, counted: Counter[str]) -> None:
    server = Server(outcome)
    assert server.receive(maar(m.solicit())) is None
    assert len(server.cmd.asked) == 1
    assert counted == {expected: 1}
    server.cmd.outcome = decided(MessageType.ADVERTISE)
    assert server.receive(maar(m.solicit())) is not None


def test_a_database_that_is_away_is_asked_again(counted: Counter[str]) -> None:
    server = Server(decided(MessageType.ADVERTISE))
    handler = server.chain.sub_handlers[1]
    handler._cmd = None  # as after worker_init without a database
    assert server.receive(maar(m.solicit())) is None
    assert counted == {"store-error": 1}
    handler._cmd = server.cmd
    assert server.receive(maar(m.solicit())) is not None


def test_a_worker_starts_without_its_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(counters, "_current", None)
    away = replace(
        CONFIGURATION,
        database=f"sqlite:///{tmp_path}/none.sqlite",
        status_directory=str(tmp_path),
    )
    MobilityHandler(away, server=1).worker_init()
    assert "The database is not there" in caplog.text


def test_a_handler_behind_us_costs_the_reply_only(counted: Counter[str]) -> None:
    class Refusing(Handler):  # type: ignore[misc]
        def handle(self, bundle: Any) -> None:
            raise CannotRespondError("not today")

    server = Server(decided(MessageType.ADVERTISE), Refusing())
    assert server.receive(maar(m.solicit())) is None
    assert counted == {"advertise": 1}


@pytest.mark.parametrize(
    ("datagram", "multicast", "expected"),
    [
        pytest.param(
            maar(m.client(MessageType.RENEW, (SERVERID, b"\x00\x02\x00\x00\x00\x09z"))),
            False,
            "other-server",
            id="for another server",
        ),
        pytest.param(m.solicit(), False, "unicast", id="unicast from a client"),
        pytest.param(maar(m.client(MessageType.ADVERTISE)), False, "message-type", id="Advertise"),
        pytest.param(maar(m.client(200)), False, "message-type", id="unknown type"),
        pytest.param(
            maar(m.client(MessageType.SOLICIT, client_id=False)),
            False,
            "no-client-id",
            id="no DUID",
        ),
        pytest.param(maar(b""), False, "truncated", id="empty"),
        pytest.param(maar(m.solicit())[:-1], False, "truncated", id="cut short"),
    ],
)
def test_dropped_before_a_decision(
    datagram: bytes, multicast: bool, expected: str, counted: Counter[str]
) -> None:
    server = Server(decided(MessageType.REPLY))
    assert server.receive(datagram, multicast=multicast) is None
    assert server.cmd.asked == []
    assert counted == {expected: 1}


def test_every_damaged_datagram_is_answered_or_counted(
    counted: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    whole = m.forward(
        maar(
            m.client(
                MessageType.REQUEST,
                m.SERVER_ID,
                m.ELAPSED,
                m.DNS_REQUESTED,
                m.ia_na(1, (LEASE,)),
                m.ia_pd(2, (m.ia_prefix("2001:db8:8::/56"),)),
            )
        ),
        link="::",
        hop_count=1,
    )
    randomness = random.Random(1)
    server = Server(decided(MessageType.REPLY, IA))
    for number in range(1, 2001):
        datagram = bytearray(
            whole[: randomness.randrange(len(whole))] if number % 4 == 0 else whole
        )
        for _ in range(randomness.randrange(1, 4)):
            if datagram:
                datagram[randomness.randrange(len(datagram))] = randomness.randrange(256)
        server.receive(bytes(datagram))
        assert counted.total() == number, datagram.hex()
    assert {record.levelname for record in caplog.records} <= {"DEBUG", "INFO", "WARNING"}
    assert counted["reply"] > 100
    assert len(counted) > 5


def test_multicast_from_a_client_on_the_servers_link() -> None:
    server = Server(decided(MessageType.ADVERTISE, IA))
    reply = server.receive(m.solicit(), multicast=True)
    assert reply is not None
    assert reply.relays == ()


def test_the_handler_can_be_pickled() -> None:
    handler = pickle.loads(pickle.dumps(MobilityHandler(CONFIGURATION, server=4711)))
    assert handler.configuration == CONFIGURATION
    assert handler.server == 4711


# --- counters ---


def test_counters_are_added_up(tmp_path: Path) -> None:
    assert counters.read(str(tmp_path)) == {"counters": {}, "processes": 0, "updated": None}
    one, other = counters.Counters(str(tmp_path), 1), counters.Counters(str(tmp_path), 2)
    one.count("reply")
    one.count("truncated")
    other.count("reply")
    one.write()
    other.write()
    (tmp_path / "counters-1-9.json").write_text("{damaged")
    read = counters.read(str(tmp_path))
    assert read["counters"] == {"reply": 2, "truncated": 1}
    assert read["processes"] == 2
    assert read["updated"] is not None
    counters.clear(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_counters_are_written_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "INTERVAL", 0.01)
    counting = counters.Counters(str(tmp_path), 1)
    for expected in (1, 2):
        counting.count("reply")
        wait_for(partial(_shows, str(tmp_path), {"reply": expected}))


def _shows(directory: str, expected: dict[str, int]) -> bool:
    return bool(counters.read(directory)["counters"] == expected)


def test_counters_that_cannot_be_written_do_no_harm(tmp_path: Path) -> None:
    counting = counters.Counters(str(tmp_path / "gone"), 1)
    counting.write()
    counting.count("reply")
    counting.close()
