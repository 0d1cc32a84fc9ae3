"""Start and stop of the daemon: what it asks, what it changes in the kernel and puts back, what it refuses."""

from __future__ import annotations

import json
import socket
import time
from itertools import pairwise
from pathlib import Path

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, format_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode
from dmm_wire.dhcpv6.message import RelayMessage, first, parse, unwrap
from lab import netns
from tests.maar.daemon.actors import ENDPOINT, OTHER, PEER, RELAY_ID
from tests.maar.daemon.conftest import in_its_domain
from tests.maar.daemon.running import POOLS, Running, processor_time, run
from tests.maar.daemon.site import Site
from tests.maar.daemon.test_mobility import update

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]


def test_at_start_it_asks_for_its_domain_until_the_cmd_answers(place: Site, own: Running) -> None:
    own.start()
    queries = [place.cmd.take_query() for _ in range(3)]
    waits = [after.at - before.at for before, after in pairwise(queries)]
    # INF_TIMEOUT (RFC 9915 section 7.6), doubled, randomised by a tenth; a busy machine is late, never early.
    assert 0.89 <= waits[0] <= 1.6
    assert 1.79 <= waits[1] <= 2.7
    assert {query.data for query in queries} == {queries[0].data}, (
        "a repetition is the same message"
    )
    assert {query.source for query in queries} == {ENDPOINT}

    level = parse(queries[0].data)
    assert isinstance(level, RelayMessage)
    assert (level.type, level.hop_count) == (MessageType.RELAY_FORW, 0)
    assert (level.link_address, level.peer_address) == (UNSPECIFIED, ENDPOINT)
    assert [code for code, _ in level.options] == [53, 17, 9]
    assert first(level.options, OptionCode.RELAY_ID) == RELAY_ID
    maar = dmm.Maar(ENDPOINT, dmm.CAP_IPV6_IN_IPV6 | dmm.CAP_PMIPV6 | dmm.NO_SESSIONS)
    assert dmm.from_options(32473, level.options) == (maar,)
    inner = unwrap(queries[0].data).client
    assert inner.type == MessageType.INFORMATION_REQUEST
    assert inner.options == ((1, RELAY_ID), (8, b"\0\0"))

    # No domain, no peers: nobody is decapsulated from.
    assert own.status()["domain"] == {"known": False, "mode": "direct", "peers": []}
    place.cmd.answer(queries[0].data, ENDPOINT, PEER, transaction_id=b"\0\0\0")
    own.counts("server.transaction-id")
    assert not own.status()["domain"]["known"]
    place.cmd.answer(queries[0].data, ENDPOINT, PEER, OTHER)
    own.counts_peers(2)
    assert own.status()["domain"] == {
        "known": True,
        "mode": "direct",
        "peers": ["2001:db8:f2::1", "2001:db8:f3::1"],
    }
    accepted = {
        route["from"]
        for route in place.routes(f"{format_address(ENDPOINT)}/128")
        if route.get("action") == "End.DT6"
    }
    assert {"2001:db8:f2::1", "2001:db8:f3::1"} <= accepted
    for pool in POOLS:
        (route,) = place.routes(pool)
        assert route["type"] == "unreachable"


def busy(place: Site, own: Running) -> None:
    """Give the daemon one of each: a node that is here with an anchor elsewhere, and one that has gone."""
    here, away = place.node(), place.node()
    place.exchange(
        here,
        dmm.Visit(place.generation(), PEER),
        dmm.AnchoredPrefix(here.prefix(1), 1800, 3600),
        dmm.PreviousMaar(here.prefix(2), 0, 3000, False, PEER),
    )
    place.peer.send(update(away, 1, place.generation(), away.prefix(1)))
    assert place.peer.take_answer(1).accepted
    assert len(own.status()["sessions"]) == 2


@pytest.mark.parametrize("how", ["SIGTERM", "stop", "stop after kill -9"])
def test_the_end_leaves_the_kernel_exactly_as_it_was(place: Site, own: Running, how: str) -> None:
    before = place.snapshot()
    in_its_domain(place, own)
    busy(place, own)
    assert place.snapshot() != before
    match how:
        case "SIGTERM":
            assert own.end() == 0
        case "stop":
            done = own.command("stop")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
            assert own.process is not None
            assert own.process.wait(10) == 0
        case _:
            own.kill()
            assert own.command("stop").returncode == 0
    assert place.snapshot() == before
    # Once more is no error, and no other change.
    done = own.command("stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert place.snapshot() == before


def test_what_a_killed_daemon_left_goes_also_when_an_interface_is_gone(
    place: Site, own: Running
) -> None:
    place.cable("access9", "h9", place.hosts)
    before = place.snapshot()
    try:
        own.config.write_text(own.config.read_text().replace("access1", "access9"))
        in_its_domain(place, own)
        own.kill()
    finally:
        netns.ip("link", "del", "access9", namespace=place.maar)
    done = own.command("stop")
    assert (done.returncode, done.stderr) == (0, "")
    after = place.snapshot()
    assert after["-6 route show table all"] == [
        route for route in before["-6 route show table all"] if route.get("dev") != "access9"
    ]
    assert after["-d -6 rule show"] == before["-d -6 rule show"]
    assert after["tunnel source"] == before["tunnel source"]


def test_a_last_advertisement_says_that_the_router_is_gone(place: Site, own: Running) -> None:
    own.start()
    frames = place.capture(place.hosts, "h0")
    assert own.end() == 0
    frames.take(lambda each: each.data[54] == 134 and each.data[60:62] == b"\0\0")


def test_a_second_daemon_is_refused(place: Site, own: Running) -> None:
    own.start()
    before = place.snapshot()
    second = own.command("run")
    assert second.returncode == 2
    assert second.stderr == f"relay-maar: another relay-maar holds {own.directory}/run\n"
    assert place.snapshot() == before
    assert own.status()["name"] == "maar1"


BROKEN = {
    "endpoint": ('"2001:db8:f1::1"', '"fe80::1"', ":2: endpoint: must be a global unicast"),
    "key": ("driver", "diver", ":6: diver: is not a key of this file"),
    "access": ("[[access]]", "[[axess]]", ": access: is missing"),
    "interface-id": (
        "relays-below = true",
        'interface-id = "access0"',
        ": access: the interface-id 'access0' is used twice",
    ),
    "group": ('"2001:db8:c::547"', '"ff05::1:3"', ":4: servers[0]: must be a global unicast"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_configuration_starts_nothing(place: Site, own: Running, fault: str) -> None:
    old, new, expected = BROKEN[fault]
    before = place.snapshot()
    own.config.write_text(own.config.read_text().replace(old, new))
    done = own.command("run")
    assert done.returncode == 2
    assert expected in done.stderr
    for line in done.stderr.splitlines():
        assert line.startswith(f"relay-maar: {own.config}"), line
    assert place.snapshot() == before
    assert not (own.directory / "run").exists()


MISSING = {
    "core0": "core interface core9 does not exist",
    "access1": "access interface access9 does not exist",
}


@pytest.mark.parametrize("interface", MISSING)
def test_an_interface_that_does_not_exist_starts_nothing(
    place: Site, own: Running, interface: str
) -> None:
    before = place.snapshot()
    text = own.config.read_text()
    own.config.write_text(text.replace(interface, interface[:-1] + "9"))
    done = own.command("run")
    own.config.write_text(text)
    assert done.returncode == 2
    assert done.stderr == f"relay-maar: {MISSING[interface]}\n"
    assert place.snapshot() == before


def test_an_mtu_that_does_not_fit_starts_nothing(place: Site, own: Running) -> None:
    """What a host sends must fit the tunnel: longer packets would vanish in it."""
    text = own.config.read_text()
    netns.ip("link", "set", "core0", "mtu", "1400", namespace=place.maar)
    before = place.snapshot()
    own.config.write_text(text.replace('::1"\n\n[[access', '::1"\nmtu = 1361\n\n[[access'))
    try:
        done = own.command("run")
        assert done.returncode == 2
        assert done.stderr == (
            "relay-maar: access interface access0: mtu = 1361 does not fit, 1360 is the most: its own "
            "MTU, or that of core0 less 40 for the tunnel\n"
        )
        assert place.snapshot() == before
        # A daemon that runs goes on with what it has.
        own.config.write_text(text)
        own.start()
        own.config.write_text(text + "mtu = 9000\n")
        done = own.command("restart")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "access1: mtu = 9000 does not fit" in done.stderr
        assert own.status()["links"]["access0"] == "up"
    finally:
        own.config.write_text(text)
        netns.ip("link", "set", "core0", "mtu", "1500", namespace=place.maar)


def test_a_core_that_is_too_narrow_for_tunnels_starts_nothing(place: Site, own: Running) -> None:
    netns.ip("link", "set", "core0", "mtu", "1319", namespace=place.maar)
    try:
        done = own.command("run")
    finally:
        netns.ip("link", "set", "core0", "mtu", "1500", namespace=place.maar)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "relay-maar: core interface core0 has MTU 1319: a tunnel needs 1320"
    )


@pytest.mark.parametrize(
    ("core", "access", "given", "told"),
    [
        (1500, 1500, None, 1460),
        (1400, 1500, None, 1360),
        (9000, 1500, None, 1500),
        (1500, 1400, None, 1400),
        (1500, 1500, 1280, 1280),
        (1500, 1500, 1460, 1460),
    ],
)
def test_the_hosts_are_told_an_mtu_that_fits(
    place: Site, own: Running, core: int, access: int, given: int | None, told: int
) -> None:
    if given is not None:
        text = own.config.read_text()
        own.config.write_text(text.replace('::1"\n\n[[access', f'::1"\nmtu = {given}\n\n[[access'))
    netns.ip("link", "set", "core0", "mtu", f"{core}", namespace=place.maar)
    netns.ip("link", "set", "access0", "mtu", f"{access}", namespace=place.maar)
    try:
        own.start()
        frames = place.capture(place.hosts, "h0")
        assert own.end() == 0
        last = frames.take(lambda each: each.data[54] == 134 and each.data[60:62] == b"\0\0").data
        option = last.index(b"\x05\x01\0\0", 70)
        assert int.from_bytes(last[option + 4 : option + 8], "big") == told
    finally:
        for interface in ("core0", "access0"):
            netns.ip("link", "set", interface, "mtu", "1500", namespace=place.maar)


def test_a_port_that_is_taken_starts_nothing(place: Site, own: Running) -> None:
    def taken() -> socket.socket:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.bind(("::", 547))
        return sock

    before = place.snapshot()
    with netns.inside(place.maar, taken):
        done = own.command("run")
        assert done.returncode == 2
        assert done.stderr == (
            "relay-maar: cannot open the sockets: Address already in use "
            "(another relay agent or DHCPv6 server?)\n"
        )
        assert place.snapshot() == before


def test_a_directory_that_cannot_be_written_starts_nothing(
    place: Site, own: Running, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    before = place.snapshot()
    text = own.config.read_text()
    for key in ("state-directory", "runtime-directory"):
        lines = [
            f'{key} = "{tmp_path}/file/below"' if line.startswith(key) else line
            for line in text.splitlines()
        ]
        own.config.write_text("\n".join(lines))
        done = own.command("run")
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "Not a directory" in done.stderr
        assert place.snapshot() == before
    own.config.write_text(text)


def test_without_the_right_to_it_starts_nothing(place: Site, own: Running) -> None:
    before = place.snapshot()
    done = run(place.maar, "run", str(own.config), before=("setpriv", "--bounding-set", "-all"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "CAP_NET_ADMIN is needed" in done.stderr
    assert place.snapshot() == before


def test_commands_without_a_daemon(place: Site, own: Running) -> None:
    for command in ("status", "restart"):
        done = own.command(command)
        assert done.returncode == 1
        assert done.stderr == f"relay-maar: no relay-maar runs in {own.directory}/run\n"
    done = run(place.maar, "check", str(own.config))
    assert (done.returncode, done.stdout) == (0, f"{own.config}: good\n")


def test_status_is_for_people_too(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    busy(place, own)
    done = own.command("status")
    assert done.returncode == 0
    assert (
        "maar1: endpoint 2001:db8:f1::1, driver seg6, 2 peers, 2 sessions, 1 tunnels" in done.stdout
    )
    assert "served" in done.stdout
    assert "anchored" in done.stdout
    told = json.loads(own.command("status", "--json").stdout)
    assert [each["prefixes"][0]["role"] for each in told["sessions"]] == ["local", "anchored"]
    assert told["tunnels"] == ["2001:db8:f2::1"]
    assert told["counters"]["pbu.accepted"] == 1


def test_an_idle_daemon_sleeps(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    busy(place, own)
    place.peer.clear()
    # An access link that goes down under it is no reason to spin either.
    netns.ip("link", "set", "h1", "down", namespace=place.hosts)
    try:
        used, start = processor_time(own.pid), time.monotonic()
        time.sleep(1.0)  # the time measured, not a wait for something
        share = (processor_time(own.pid) - used) / (time.monotonic() - start)
        assert share < 0.05
    finally:
        netns.ip("link", "set", "h1", "up", namespace=place.hosts)


def test_an_access_interface_that_goes_away_costs_that_link_only(place: Site, own: Running) -> None:
    place.cable("access9", "h9", place.hosts)
    own.config.write_text(own.config.read_text().replace("access1", "access9"))
    in_its_domain(place, own)
    there = place.node("h9")
    place.exchange(
        there, dmm.Visit(place.generation(), bytes(16)), dmm.AnchoredPrefix(there.prefix(), 9, 99)
    )
    netns.ip("link", "del", "access9", namespace=place.maar)
    used, start = processor_time(own.pid), time.monotonic()
    node = place.node()
    place.exchange(
        node, dmm.Visit(place.generation(), bytes(16)), dmm.AnchoredPrefix(node.prefix(), 9, 99)
    )
    assert place.routes(node.prefix())
    time.sleep(0.5)  # the time measured, not a wait for something
    assert (processor_time(own.pid) - used) / (time.monotonic() - start) < 0.1
