"""A running daemon notices a node by its first frame, and has all ready before the node asks for anything."""

from __future__ import annotations

import subprocess

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix, format_address, format_mac, parse_address
from dmm_wire.mobility import (
    AccessTechnology,
    BindingUpdate,
    HandoffIndicator,
    HandoffIndicatorValue,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    ServingMaar,
    Timestamp,
)
from lab import netns
from tests.maar.daemon.actors import PEER, ROUTER_MAC, Speaker, attachment_of
from tests.maar.daemon.monitor import Event
from tests.maar.daemon.running import Running, run
from tests.maar.daemon.site import Site

pytestmark = pytest.mark.root

ADVERTISEMENT, SOLICITATION = 134, 135


def local(host: Speaker) -> Prefix:
    return Prefix.parse(f"2001:db8:1:1{host.mac[-1]:02x}::/64")


def served(host: Speaker, maar: int = 2) -> Prefix:
    return Prefix.parse(f"2001:db8:{maar:x}:1{host.mac[-1]:02x}::/64")


def told(host: Speaker, generation: int) -> tuple[dmm.SubOption, ...]:
    """What the CMD answers: it came from PEER."""
    return (
        dmm.Status(0),
        dmm.MobileNode(host.duid),
        dmm.Visit(generation, PEER),
        dmm.AnchoredPrefix(local(host), 1800, 3600),
        dmm.PreviousMaar(served(host), 0, 3000, False, PEER),
    )


def test_an_mld_report_is_enough(place: Site, maar: Running) -> None:
    host = place.speaker()
    host.report()
    # The router first: that waits for nobody.
    advertisement = host.take_message(ADVERTISEMENT)
    assert advertisement[6:12] == ROUTER_MAC
    assert advertisement[38:54] == host.link_local
    query = place.cmd.take_arrival(host.mac).data
    attached = attachment_of(query)
    assert attached is not None
    assert (attached.handoff, attached.access_technology, attached.hardware_type) == (4, 4, 1)
    assert attached.age_ms < 1000
    monitor = place.monitor()
    place.cmd.answer_arrival(query, *told(host, place.generation()))
    update = place.peer.take(lambda each: host.duid.value in each.data).data
    assert served(host).address in update
    assert {
        Event("put", "route", str(local(host))),
        Event("put", "route", str(served(host))),
        Event("put", "source", str(served(host))),
        Event("put", "neighbour", format_address(host.link_local)),
    } <= set(monitor.read())
    for prefix in (local(host), served(host)):
        (route,) = place.routes(prefix)
        assert route["gateway"] == format_address(host.link_local)
    # It is told its prefixes, none of which is on-link; there was no DHCPv6 in all this.
    advertisement = host.take_message(ADVERTISEMENT)
    assert local(host).address in advertisement
    assert not [each for each in place.cmd.arrived() if host.duid.value in each.data]
    # Later frames say nothing new.
    asked = maar.count("attach.asked")
    host.report()
    host.advertise(host.link_local)
    maar.counts("seen.na")
    assert maar.count("attach.asked") == asked


@pytest.mark.parametrize("has_address", [True, False])
def test_so_is_a_router_solicitation(place: Site, maar: Running, has_address: bool) -> None:
    """Also before the host has an address; then its prefixes are told to all nodes, in a frame to this one."""
    host = place.speaker()
    host.look_for_router(host.link_local if has_address else bytes(16))
    arrived(place, host)
    advertisement = host.take(
        lambda each: each.data[:6] == host.mac and local(host).address in each.data
    ).data
    assert advertisement[54] == ADVERTISEMENT
    to = host.link_local if has_address else parse_address("ff02::1")
    assert advertisement[38:54] == to
    (route,) = place.routes(local(host))
    assert place.neighbours()[route["gateway"]]["lladdr"] == format_mac(host.mac)


def arrived(place: Site, host: Speaker) -> int:
    """The node is served at the MAAR under test. Returns the visit's generation."""
    generation = place.generation()
    query = place.cmd.take_arrival(host.mac).data
    place.cmd.answer_arrival(query, *told(host, generation))
    # The PBU of this visit, and not the answer to one of the peer's: the kernel is done by then.
    visit = generation.to_bytes(8, "big")
    place.peer.take(lambda each: host.duid.value in each.data and visit in each.data)
    return generation


def goes(place: Site, maar: Running, host: Speaker) -> None:
    """It is at PEER now, as that one says."""
    before = maar.count("pbu.accepted")
    place.peer.send(update_of(host, place.generation(), local(host)))
    maar.counts("pbu.accepted", before + 1)


def update_of(host: Speaker, generation: int, *prefixes: Prefix) -> BindingUpdate:
    options: list[MobilityOption] = [
        MobileNodeIdentifier(host.duid),
        *map(HomeNetworkPrefix, prefixes),
        HandoffIndicator(HandoffIndicatorValue.BETWEEN_GATEWAYS),
        AccessTechnology(4),
        LinkLayerIdentifier(host.mac),
        Timestamp(generation),
        ServingMaar(PEER),
    ]
    return BindingUpdate(77, 1200, tuple(options))


def test_a_packet_is_enough_and_then_they_go_by_unseen(place: Site, maar: Running) -> None:
    host = place.speaker()
    destination = parse_address("2001:db8:c::2")
    source = served(host).address[:15] + b"\7"
    host.say(source, destination)
    arrived(place, host)
    (route,) = place.routes(served(host))
    # It has not shown a link-local address, and is reached all the same.
    neighbour = place.neighbours()[route["gateway"]]
    assert neighbour["lladdr"] == format_mac(host.mac)
    netns.wait_for(
        lambda: not _are_seen(maar, host, source, destination),
        timeout=10,
        what="the filter to know the node",
    )
    # Whatever time that takes: they cost the daemon none, for not one of them comes to it.
    assert not _are_seen(maar, host, source, destination, 20_000)
    host.solicit(parse_address("fe80::1"), host.link_local)
    netns.wait_for(
        lambda: place.routes(served(host))[0]["gateway"] == format_address(host.link_local),
        timeout=10,
        what="its own address to be known",
    )


def _are_seen(
    maar: Running, host: Speaker, source: bytes, destination: bytes, packets: int = 1
) -> bool:
    before = maar.status()["counters"]
    for _ in range(packets):
        host.say(source, destination)
    host.solicit(parse_address("fe80::99"), host.link_local)  # comes after it, and is counted
    maar.counts("seen.ns", before.get("seen.ns", 0) + 1)
    after = maar.status()["counters"]
    keys = ("seen.data", "attach.packets-paused")
    return any(after.get(key, 0) != before.get(key, 0) for key in keys)


def test_a_late_frame_is_probed_and_silence_leaves_the_node_where_it_is(
    place: Site, maar: Running
) -> None:
    host = place.speaker()
    host.report()
    arrived(place, host)
    goes(place, maar, host)
    assert leads_away(place, host)
    silent = maar.count("attach.silent-arrival")
    host.report()
    probe = host.take_message(SOLICITATION)
    assert (probe[6:12], probe[38:54], probe[62:78]) == (
        ROUTER_MAC,
        host.link_local,
        host.link_local,
    )
    maar.counts("attach.silent-arrival", silent + 1)
    assert leads_away(place, host)
    assert not [
        e for e in place.cmd.arrived() if (a := attachment_of(e.data)) and a.address == host.mac
    ]


def leads_away(place: Site, host: Speaker) -> bool:
    (route,) = place.routes(local(host))
    return bool(route.get("segs") == [format_address(PEER)])


def test_a_node_that_answers_is_back(place: Site, maar: Running) -> None:
    host = place.speaker()
    host.report()
    arrived(place, host)
    goes(place, maar, host)
    host.take_message(SOLICITATION)
    host.advertise(host.link_local)
    arrived(place, host)
    (route,) = place.routes(local(host))
    assert route["gateway"] == format_address(host.link_local)


def test_an_access_points_word(place: Site, maar: Running) -> None:
    host = place.speaker()
    mac = format_mac(host.mac)
    place.cmd.clear()
    done = hook(maar, "attach", "access0", mac)
    assert (done.returncode, done.stderr) == (0, "")
    arrived(place, host)
    routes = place.routes(local(host))
    assert hook(maar, "detach", "access0", mac).returncode == 0
    maar.counts("attach.silent-detach")
    # The CMD is asked whether it is elsewhere; it is not.
    question = place.cmd.take_query()
    assert dmm.MobileNode(host.duid).body() in question.data
    session = next(s for s in maar.status()["sessions"] if s["identity"] == str(host.duid))
    assert (session["here"], session["present"]) == (True, False)
    assert place.routes(local(host)) == routes
    rows = [line for line in maar.command("status").stdout.splitlines() if str(host.duid) in line]
    assert len(rows) == 2
    assert all("access0 (silent)" in row for row in rows)
    # Elsewhere after all: nothing is served here any more, and nothing loops.
    place.cmd.answer_arrival(question.data, dmm.Status(int(dmm.DmmStatus.STALE)))
    maar.counts("attach.was-elsewhere")
    assert place.routes(local(host)) == []
    (route,) = place.routes(served(host))
    assert route["type"] == "unreachable"


@pytest.mark.parametrize("command", ["attach", "detach"])
@pytest.mark.parametrize(
    ("interface", "mac", "said"),
    [
        ("eth9", "02:00:5e:00:53:aa", "'eth9' is no access interface of this MAAR"),
        ("access0", "nonsense", "not a link-layer address: 'nonsense'"),
        (
            "access0",
            "33:33:00:00:00:01",
            "not the link-layer address of one node: '33:33:00:00:00:01'",
        ),
        (
            "access0",
            "00:00:00:00:00:00",
            "not the link-layer address of one node: '00:00:00:00:00:00'",
        ),
    ],
)
def test_an_access_points_word_that_makes_no_sense(
    maar: Running, command: str, interface: str, mac: str, said: str
) -> None:
    done = hook(maar, command, interface, mac)
    assert (done.returncode, done.stderr) == (2, f"relay-maar: {said}\n")


def hook(maar: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    command, *rest = arguments
    return run(maar.namespace, command, str(maar.config), *rest)
