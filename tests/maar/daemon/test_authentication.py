"""A running daemon with a key: what is signed is served, over a kill -9 too; what is not, or was before, is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmm_wire.mobility import (
    Accepted,
    BindingAcknowledgement,
    Guard,
    Key,
    KeyStore,
    Status,
)
from dmm_wire.mobility.authentication import locate
from tests.maar.daemon.actors import ENDPOINT, PEER, Maar
from tests.maar.daemon.conftest import in_its_domain
from tests.maar.daemon.running import CONFIGURATION, Running
from tests.maar.daemon.site import Site
from tests.maar.daemon.test_mobility import leads_to, update

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

KEY = Key(1001, bytes(range(32)))
SECURE = (
    CONFIGURATION
    + """
[[security.key]]
spi = 1001
secret-file = "{directory}/1001.key"
"""
)


@pytest.fixture
def secured(place: Site, tmp_path: Path) -> Iterator[Running]:
    """A daemon with a key, in its domain; it has ended afterwards."""
    running = place.daemon(tmp_path / "d", SECURE)
    secret = running.directory / "1001.key"
    secret.touch(mode=0o600)
    secret.write_text(KEY.secret.hex())
    place.cmd.clear()
    yield in_its_domain(place, running)
    assert running.process is not None
    if running.process.poll() is None:
        assert running.end() == 0


def guard() -> Guard:
    """PEER's."""
    made = Guard(PEER, KeyStore([KEY]), require=True, epoch=0.0)
    made.start(time.time())
    return made


def answer(peer: Maar, keeper: Guard, sequence: int) -> BindingAcknowledgement:
    """The PBA with this number, which is believed."""
    number = sequence.to_bytes(2, "big")
    data = peer.take(lambda each: each.data[2] == 6 and each.data[8:10] == number).data
    verdict = keeper.incoming(ENDPOINT, data, time.time())
    assert isinstance(verdict, Accepted), verdict
    assert isinstance(verdict.message, BindingAcknowledgement)
    return verdict.message


def test_signed_is_served_and_unsigned_is_not(place: Site, secured: Running) -> None:
    node, generation, keeper = place.node(), place.generation(), guard()
    place.peer.clear()
    pbu = update(node, 1, generation, node.prefix(1))
    place.peer.send(pbu)
    secured.counts("auth.unsigned")
    assert place.routes(node.prefix(1)) == []

    signed = keeper.outgoing(ENDPOINT, pbu, time.time())
    place.peer.send_raw(signed)
    assert answer(place.peer, keeper, 1).accepted
    (route,) = place.routes(node.prefix(1))
    assert leads_to(route, PEER)
    # Nothing was said to the unsigned one.
    assert [each for each in place.peer.arrived() if not locate(each.data)] == []

    ends = keeper.outgoing(ENDPOINT, update(node, 2, generation, lifetime=0), time.time())
    place.peer.send_raw(ends)
    assert answer(place.peer, keeper, 2).accepted
    assert place.routes(node.prefix(1)) == []
    place.peer.send_raw(signed)
    secured.counts("auth.repeated")
    secured.kill()
    secured.start()
    place.peer.send_raw(signed)
    secured.counts("auth.stale")
    place.peer.send_raw(ends)
    secured.counts("auth.stale", 2)
    assert place.routes(node.prefix(1)) == []
    # And who is real goes on at once.
    later = update(node, 3, place.generation(), node.prefix(1))
    place.peer.send_raw(keeper.outgoing(ENDPOINT, later, time.time()))
    assert answer(place.peer, keeper, 3).accepted
    assert secured.status()["authentication"] == "required"


def test_a_peer_whose_clock_is_off_is_told(place: Site, secured: Running) -> None:
    node, generation = place.node(), place.generation()
    place.peer.clear()
    keeper = Guard(PEER, KeyStore([KEY]), require=True, epoch=-86_400.0)
    keeper.start(time.time())
    for sequence, status in ((7, Status.MIPV6_ID_MISMATCH), (8, Status.ACCEPTED)):
        pbu = update(node, sequence, generation, node.prefix(1))
        place.peer.send_raw(keeper.outgoing(ENDPOINT, pbu, time.time()))
        assert answer(place.peer, keeper, sequence).status == status
    assert secured.count("auth.answered-144") == 1


def test_a_key_that_cannot_be_read_stops_no_running_daemon(secured: Running) -> None:
    secret = secured.directory / "1001.key"
    secret.chmod(0o644)
    for command in ("check", "restart"):
        done = secured.command(command)
        assert done.returncode == 2
        assert f"{secret}: its mode is 644" in done.stderr
    assert "sessions" in secured.status()
    secret.chmod(0o600)
    assert secured.command("check").returncode == 0
    assert secured.command("restart").returncode == 0
    secured.wait_until_ready()
    secret.chmod(0o644)
    # What needs no key does not ask for it.
    assert secured.command("status", "--json").returncode == 0
    assert secured.command("stop").returncode == 0
    refused = secured.command("run")
    assert refused.returncode == 2
    assert f"relay-maar: {secret}: its mode is 644" in refused.stderr


def test_without_keys_nothing_is_signed(place: Site, own: Running) -> None:
    running = in_its_domain(place, own)
    node = place.node()
    place.peer.clear()
    place.peer.send(update(node, 1, place.generation(), node.prefix(1)))
    data = place.peer.take(lambda each: each.data[2] == 6).data
    assert locate(data) is None
    assert running.status()["authentication"] == "off"
