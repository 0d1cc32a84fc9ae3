"""The stock `ipv6-dhcpd` with our extension, as processes in a network namespace."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dhcp_cmd.store import open_store
from dmm_wire import dmm
from dmm_wire.address import format_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import Unwrapped, every, first, unwrap
from dmm_wire.dhcpv6.options import StatusOption
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import SERVER, SERVER_NAMESPACE, Relay, network
from tests.cmd.plugin.server import (
    MAARS,
    RELAY_IDS,
    Server,
    environment,
    make_configuration,
    make_database,
    program,
    running,
)
from tests.cmd.plugin.waiting import wait_for

ENDPOINTS = {name: format_address(maar.endpoint) for name, maar in MAARS.items()}


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory that the server's user can reach, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="cmdt"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


# --- errors at the start: nothing of it needs root ---


def refused(configuration: Path) -> str:
    """The one line with which the server refuses to start."""
    done = subprocess.run(
        [program(), str(configuration)],
        env=environment(configuration.parent),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (configuration.parent / "server.pid").exists()
    assert not (configuration.parent / "server.sock").exists()
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("anchor-hold 1d", "anchor-hold 0", "anchor-hold: '0' is not between"),
        ("max-anchors 8", "max-anchors eight", "max-anchors: 'eight' is not a number"),
        ("max-anchors 8", "mode proxy", "mode proxy needs it"),
        (
            "max-anchors 8",
            "mode relay\nendpoint 2001:db8:ffff::1",
            "mode: relay needs a server that holds its answers: use dhcp-cmd serve, or proxy",
        ),
        ("max-anchors 8", "max-anker 8", "'max-anker' is not a known key name"),
        ("cmd.sqlite", "none.sqlite", "database: "),
        ("/status\n", "/cmd.sqlite/status\n", "status-directory: "),
        ("<duid-en server-id>", "<duid-en other>", "duid"),
        ("workers 2", "workers 0", "Number of workers must be at least 1"),
        ("</logging>", "</login>", "unbalanced section end"),
    ],
)
def test_configuration_error(state: Path, old: str, new: str, complaint: str) -> None:
    make_database(state)
    configuration = make_configuration(state, address="::1", changes=[(old, new)])
    line = refused(configuration)
    assert complaint in line
    assert str(configuration) in line


def test_database_that_is_none_of_ours(state: Path) -> None:
    path = make_database(state)
    path.write_bytes(b"")
    line = refused(make_configuration(state, address="::1"))
    assert "database: " in line
    assert "dhcp-cmd db upgrade" in line


def test_database_of_another_version(state: Path) -> None:
    connection = sqlite3.connect(make_database(state))
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    assert "9999 is newer" in refused(make_configuration(state, address="::1"))


# --- the server at work ---


@pytest.fixture(scope="module")
def link() -> Iterator[None]:
    """The network, for all tests of this module."""
    with network(*ENDPOINTS.values()):
        yield


@pytest.fixture
def configuration(state: Path, link: None) -> Path:
    make_database(state)
    return make_configuration(state, address=SERVER)


@pytest.fixture
def server(configuration: Path) -> Iterator[Server]:
    with running(configuration, namespace=SERVER_NAMESPACE) as process:
        yield process


class Maar(Relay):
    """A MAAR that relays for one client."""

    def __init__(self, name: str) -> None:
        super().__init__(ENDPOINTS[name])
        self.name = name

    def wrap(
        self,
        message: bytes,
        link_layer: bytes | None = m.CLIENT_MAC,
        seen: Sequence[dmm.SubOption] = (),
    ) -> bytes:
        return m.relayed(
            message,
            link=str(MAARS[self.name].links[0]).partition("/")[0],
            endpoint=ENDPOINTS[self.name],
            relay_id=RELAY_IDS[self.name],
            link_layer=link_layer,
            seen=seen,
        )

    def exchange(self, message: bytes, link_layer: bytes | None = m.CLIENT_MAC) -> Unwrapped:
        """Relay a client's message; the answer to it."""
        answer = unwrap(self.ask(self.wrap(message, link_layer)))
        assert answer.relays[0].type == MessageType.RELAY_REPL
        assert first(answer.relays[0].options, OptionCode.INTERFACE_ID) == b"eth1"
        return answer

    def insistent(self, message: bytes) -> Unwrapped:
        """Like a client: send again until an answer comes."""
        self.socket.settimeout(1)
        for _ in range(30):
            self.send(self.wrap(message))
            try:
                answer = unwrap(self.receive())
            except TimeoutError:
                continue
            finally:
                self.socket.settimeout(10)
            if answer.client.transaction_id == message[1:4]:
                return answer
            self.socket.settimeout(1)
        raise AssertionError("no answer")


@pytest.fixture
def maars(link: None) -> Iterator[dict[str, Maar]]:
    opened = {name: Maar(name) for name in MAARS}
    yield opened
    for maar in opened.values():
        maar.close()


REQUEST = m.client(
    MessageType.REQUEST, m.SERVER_ID, m.ELAPSED, m.DNS_REQUESTED, m.ia_na(), m.ia_pd()
)


def suboptions(answer: Unwrapped, kind: type[dmm.SubOption]) -> list[dmm.SubOption]:
    found = dmm.from_options(m.ENTERPRISE, answer.relays[0].options) or ()
    return [each for each in found if isinstance(each, kind)]


@pytest.mark.root
def test_a_lease_and_a_move(server: Server, maars: dict[str, Maar]) -> None:
    here, there = maars["maar1"], maars["maar2"]

    advertise = here.exchange(m.solicit())
    assert advertise.client.type == MessageType.ADVERTISE
    assert suboptions(advertise, dmm.Visit) == []

    reply = here.exchange(REQUEST)
    leases = m.leases(reply.client)
    assert len(leases) == 2
    assert set(leases.values()) == {(1000, 2000)}
    assert m.option(reply.client.options, OptionCode.CLIENTID) == m.CLIENT_DUID
    assert m.option(reply.client.options, OptionCode.SERVERID) == m.SERVER_DUID
    assert len(every(reply.client.options, OptionCode.DNS_SERVERS)) == 1
    assert len(every(reply.client.options, OptionCode.IA_NA)) == 1
    assert len(every(reply.client.options, OptionCode.IA_PD)) == 1
    assert suboptions(reply, dmm.AnchoredPrefix)
    assert len(suboptions(reply, dmm.Visit)) == 1

    renew = m.client(MessageType.RENEW, m.SERVER_ID, m.ia_na(), m.ia_pd())
    assert m.leases(here.exchange(renew).client).keys() == leases.keys()

    rapid = there.exchange(m.solicit(m.RAPID_COMMIT))
    assert rapid.client.type == MessageType.REPLY
    assert every(rapid.client.options, OptionCode.RAPID_COMMIT) == [b""]
    moved = m.leases(rapid.client)
    assert len(moved) == 4
    assert {lease for lease, (preferred, _) in moved.items() if preferred == 0} == leases.keys()
    previous = suboptions(rapid, dmm.PreviousMaar)
    assert {each.endpoint for each in previous if isinstance(each, dmm.PreviousMaar)} == {
        MAARS["maar1"].endpoint
    }

    release = m.client(MessageType.RELEASE, m.SERVER_ID, m.ia_na(), m.ia_pd())
    status = StatusOption.decode(
        m.option(there.exchange(release).client.options, OptionCode.STATUS_CODE)
    )
    assert status.code == StatusCode.SUCCESS

    decline = m.client(MessageType.DECLINE, m.SERVER_ID, m.ia_pd())
    assert there.exchange(decline).client.type == MessageType.REPLY
    assert server.stop() == 0
    assert server.counters().keys() == {"advertise", "reply"}
    assert "Traceback" not in server.log.read_text()


@pytest.mark.root
def test_a_maar_asks_for_itself(server: Server, maars: dict[str, Maar]) -> None:
    maar = maars["maar1"]
    own = (int(OptionCode.CLIENTID), RELAY_IDS["maar1"])
    ask = m.client(MessageType.INFORMATION_REQUEST, own, client_id=False)
    (domain,) = suboptions(maar.exchange(ask, link_layer=None), dmm.Domain)
    assert isinstance(domain, dmm.Domain)
    assert set(domain.endpoints) == {each.endpoint for each in MAARS.values()}
    # The same about a node whose first frame it saw: nobody knows it before it has a lease.
    seen = maar.wrap(ask, seen=[dmm.Attachment(0, 4, 4, 1, m.CLIENT_MAC)])
    (status,) = suboptions(unwrap(maar.ask(seen)), dmm.Status)
    assert status == dmm.Status(int(dmm.DmmStatus.UNKNOWN_NODE))


@pytest.mark.root
def test_a_stranger_and_a_lying_host(server: Server, maars: dict[str, Maar]) -> None:
    maar = maars["maar1"]
    stranger = m.relayed(
        m.solicit(), link="2001:db8:a1::", endpoint=ENDPOINTS["maar1"], relay_id=b"\0\2\0\0~\xd9?"
    )
    maar.send(stranger)
    maar.send(m.solicit())  # unicast, from a client as it were
    wait_for(lambda: server.counters().keys() >= {"unknown-maar", "unicast"})
    assert not maar.has_answer()
    assert maar.exchange(m.solicit()).client.type == MessageType.ADVERTISE


def noise(randomness: random.Random) -> bytes:
    """Something that no server should answer."""
    if randomness.random() < 0.002:
        return bytes((randomness.randrange(256),)) + randomness.randbytes(60_000)
    kind = randomness.randrange(5)
    if kind == 0:
        return randomness.randbytes(randomness.randrange(1400))
    if kind == 1:
        whole = m.forward(m.solicit(), link="2001:db8:a1::")
        return whole[: randomness.randrange(len(whole))]
    if kind == 2:
        return m.forward(m.solicit(), link="2001:db8:a1::", hop_count=9)
    if kind == 3:
        nested = m.solicit()
        for hop in range(12):
            nested = m.forward(nested, link="2001:db8:a1::", hop_count=hop % 8)
        return nested
    return m.client(randomness.choice((0, 2, 7, 10, 13, 99)))


@pytest.mark.root
def test_noise(server: Server, maars: dict[str, Maar]) -> None:
    maar = maars["maar1"]
    leases = m.leases(maar.insistent(REQUEST).client)
    before = server.processes()
    randomness = random.Random(8885)
    started = time.monotonic()
    sent = datagrams = 0
    while sent < 2_000_000:  # at 1 MB/s
        datagram = noise(randomness)
        maar.send(datagram)
        sent += len(datagram)
        datagrams += 1
        time.sleep(max(0.0, started + sent / 1_000_000 - time.monotonic()))

    renew = m.client(MessageType.RENEW, m.SERVER_ID, m.ia_na(), m.ia_pd(), xid=b"end")
    assert m.leases(maar.insistent(renew).client).keys() == leases.keys()
    wait_for(lambda: server.counters().keys() >= {"truncated", "hop-count", "message-type"})
    assert server.processes() == before
    assert server.stop() == 0
    counted = server.counters()
    assert sum(counted.values()) > datagrams * 0.5, counted  # the kernel may drop some
    assert counted.keys().isdisjoint({"internal-error", "store-error"})
    assert "Traceback" not in server.log.read_text()


@pytest.mark.root
def test_a_locked_database_costs_the_answer_only(
    server: Server, maars: dict[str, Maar], state: Path
) -> None:
    maar = maars["maar1"]
    maar.insistent(m.solicit())
    other = sqlite3.connect(state / "cmd.sqlite", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        maar.send(maar.wrap(REQUEST))
        wait_for(lambda: server.counters().get("store-error"))
        # A Solicit sent twice may be advertised twice; a Reply would be a lease that nobody wrote.
        assert MessageType.REPLY not in {unwrap(data).client.type for data in maar.drain()}
        held = other.execute("SELECT count(*) FROM binding").fetchone()[0]
        other.execute("ROLLBACK")
    finally:
        other.close()
    leases = m.leases(maar.exchange(REQUEST).client)
    assert held == 0
    assert len(leases) == 2


@pytest.fixture
def disk(state: Path) -> Iterator[Path]:
    """A file system of 4 MB in the test's directory, which has its log and its counters elsewhere."""
    directory = state / "disk"
    directory.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(directory))
    subprocess.run(mount, check=True, capture_output=True, text=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True, capture_output=True, text=True)


def fill(filler: Path) -> None:
    """Write until the disk is full."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(filler).f_bavail == 0


@pytest.mark.root
def test_a_full_disk_costs_the_answer_only(
    disk: Path, link: None, maars: dict[str, Maar], state: Path
) -> None:
    maar, filler = maars["maar1"], disk / "filler"
    database = make_database(disk)
    there = (f"{state}/cmd.sqlite", str(database))
    with running(
        make_configuration(state, address=SERVER, changes=[there]), namespace=SERVER_NAMESPACE
    ) as server:
        maar.insistent(m.solicit())
        fill(filler)
        maar.send(maar.wrap(REQUEST))
        wait_for(lambda: server.counters().get("store-error"))
        assert server.counters()["store-error"] == 1
        assert MessageType.REPLY not in {unwrap(data).client.type for data in maar.drain()}
        with contextlib.closing(sqlite3.connect(database)) as other:
            assert other.execute("SELECT count(*) FROM binding").fetchone() == (0,)
        filler.unlink()
        leases = m.leases(maar.exchange(REQUEST).client)
        assert len(leases) == 2
        assert set(leases.values()) == {(1000, 2000)}
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()
    with contextlib.closing(sqlite3.connect(database)) as other:
        kinds = other.execute("SELECT kind FROM binding ORDER BY kind").fetchall()
    assert kinds == [("address",), ("delegated",), ("link",)]


@pytest.mark.root
def test_killed_and_started_again(configuration: Path, maars: dict[str, Maar]) -> None:
    maar = maars["maar1"]
    with running(configuration, namespace=SERVER_NAMESPACE) as server:
        leases = m.leases(maar.insistent(REQUEST).client)
        server.kill()
        maar.send(maar.wrap(REQUEST))
    with running(configuration, namespace=SERVER_NAMESPACE):
        renew = m.client(MessageType.RENEW, m.SERVER_ID, m.ia_na(), m.ia_pd(), xid=b"new")
        assert m.leases(maar.insistent(renew).client).keys() == leases.keys()


@pytest.mark.root
def test_reload(server: Server, maars: dict[str, Maar], configuration: Path) -> None:
    maar = maars["maar1"]
    maar.insistent(m.solicit())
    text = configuration.read_text()

    configuration.write_text(text.replace("max-anchors 8", "max-anchors none"))
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "Not reloading: " in server.log.read_text())
    assert "max-anchors: 'none' is not a number" in server.log.read_text()
    assert maar.insistent(m.solicit(xid=b"two")).client.type == MessageType.ADVERTISE

    configuration.write_text(text.replace("max-anchors 8", "max-anchors 4"))
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.log.read_text().count("is ready to handle requests") == 2)
    assert maar.insistent(m.solicit(xid=b"thr")).client.type == MessageType.ADVERTISE


@pytest.mark.root
def test_the_history_is_whole_afterwards(
    configuration: Path, maars: dict[str, Maar], state: Path
) -> None:
    with running(configuration, namespace=SERVER_NAMESPACE):
        for index in range(20):
            maar = maars[f"maar{index % 2 + 1}"]
            maar.insistent(m.solicit(m.RAPID_COMMIT, xid=index.to_bytes(3, "big")))
    from dhcp_cmd.store.maintenance import check

    store = open_store(f"sqlite:///{state}/cmd.sqlite")
    assert check(store) == []
    store.close()
