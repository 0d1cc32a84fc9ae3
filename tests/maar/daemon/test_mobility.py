"""A running daemon as S-MAAR and as P-MAAR: what it has in the kernel, what it says to its peers, in which order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix, format_address
from dmm_wire.mobility import (
    AccessTechnology,
    BindingAcknowledgement,
    BindingErrorStatus,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HandoffIndicatorValue,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    ServingMaar,
    Status,
    Timestamp,
    checksum,
    decode_binding_error,
    encode,
)
from tests.maar.daemon.actors import ENDPOINT, HOST_MAC, OTHER, PEER, STRANGER, Maar, Node
from tests.maar.daemon.monitor import Event
from tests.maar.daemon.running import Running, resident
from tests.maar.daemon.site import Site

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

ACCESS_TECHNOLOGY = AccessTechnology(4)


def update(
    node: Node,
    sequence: int,
    generation: int,
    *prefixes: Prefix,
    lifetime: int = 1200,
    serving: bytes = PEER,
) -> BindingUpdate:
    """A PBU of an S-MAAR: the node is there now."""
    options: list[MobilityOption] = [
        MobileNodeIdentifier(node.identity),
        *map(HomeNetworkPrefix, prefixes),
        HandoffIndicator(HandoffIndicatorValue.BETWEEN_GATEWAYS),
        ACCESS_TECHNOLOGY,
        LinkLayerIdentifier(HOST_MAC),
        Timestamp(generation),
        ServingMaar(serving),
    ]
    return BindingUpdate(sequence, lifetime, tuple(options))


def without(message: BindingUpdate, kind: type[MobilityOption]) -> BindingUpdate:
    return replace(message, options=tuple(o for o in message.options if not isinstance(o, kind)))


def lies_behind(route: dict[str, object], node: Node) -> bool:
    return route.get("gateway") == format_address(node.link_local) and "encap" not in route


def leads_to(route: dict[str, object], endpoint: bytes) -> bool:
    return route.get("encap") == "seg6" and route.get("segs") == [format_address(endpoint)]


def test_a_node_that_comes_is_in_the_kernel_before_it_hears_so_and_its_anchors_are_told(
    place: Site, maar: Running
) -> None:
    node, generation = place.node(), place.generation()
    local, served, delegated = node.prefix(1), node.prefix(2), node.delegated(3)
    node.send(node.message())
    forward = place.cmd.take_from(node).data
    monitor = place.monitor()
    place.cmd.reply(
        forward,
        node.reply(),
        dmm.Status(0),
        dmm.Visit(generation, PEER),
        dmm.AnchoredPrefix(local, 1800, 3600),
        dmm.PreviousMaar(served, 0, 3000, False, PEER),
        dmm.PreviousMaar(delegated, 0, 2400, True, OTHER),
    )
    assert node.take().data == node.reply()
    first, first_at = place.peer.take_update(node)
    other, _ = place.other.take_update(node)
    # The kernel tells of a change when it makes it: what is not in here now came later than the messages.
    assert {
        Event("put", "route", str(local)),
        Event("put", "route", str(served)),
        Event("put", "route", str(delegated)),
        Event("put", "source", str(served)),
        Event("put", "source", str(delegated)),
        Event("put", "neighbour", format_address(node.link_local)),
    } <= set(monitor.read())

    for prefix in (local, served, delegated):
        (route,) = place.routes(prefix)
        assert lies_behind(route, node)
        assert (route["protocol"], route["type"]) == ("213", "unicast")
    for prefix, anchor in ((served, PEER), (delegated, OTHER)):
        tunnel, last = place.ways(prefix)
        assert leads_to(tunnel, anchor)
        assert last["type"] == "unreachable"
    assert place.ways(local) == []
    neighbour = place.neighbours()[format_address(node.link_local)]
    assert neighbour["lladdr"] == "02:00:00:00:00:0a"

    assert first.lifetime in (2996, 3000)
    assert first == BindingUpdate(
        first.sequence,
        first.lifetime,
        (
            MobileNodeIdentifier(node.identity),
            HomeNetworkPrefix(served),
            HandoffIndicator(HandoffIndicatorValue.BETWEEN_GATEWAYS),
            ACCESS_TECHNOLOGY,
            LinkLayerIdentifier(HOST_MAC),
            Timestamp(generation),
            PreviousMaarOption(OTHER, delegated),
            ServingMaar(ENDPOINT),
        ),
    )
    assert other.options[1] == DelegatedPrefix(delegated)
    assert PreviousMaarOption(PEER, served) in other.options

    # OTHER answers, PEER does not: one is left alone, the other is told again after 1 s and 2 s more.
    place.other.send(accepted(other))
    second, second_at = place.peer.take_update(node)
    third, third_at = place.peer.take_update(node)
    assert 0.95 <= second_at - first_at <= 1.6
    assert 1.95 <= third_at - second_at <= 2.7
    # RFC 6275 section 11.8: a sequence number of its own for each; else the same message.
    assert first.sequence < second.sequence < third.sequence
    assert replace(third, sequence=first.sequence, lifetime=first.lifetime) == first
    assert not [each for each in place.other.arrived() if node.duid in each.data]

    unmatched = maar.count("pba.unmatched")
    place.stranger.send(accepted(third))
    maar.counts("pba.unmatched", unmatched + 1)
    assert acknowledged(maar, node) == {format_address(PEER): False, format_address(OTHER): True}
    # An answer to an earlier transmission is an answer.
    place.peer.send(accepted(second))
    maar.counts("pba.accepted", 2)
    assert acknowledged(maar, node) == {format_address(PEER): True, format_address(OTHER): True}
    log = [line for line in maar.log.read_text().splitlines() if str(node.identity) in line]
    assert len(log) == 1, "one line for a move"


def accepted(message: BindingUpdate, status: int = 0) -> BindingAcknowledgement:
    """The PBA to a PBU."""
    return BindingAcknowledgement(status, message.sequence, message.lifetime, message.options[:4])


def acknowledged(maar: Running, node: Node) -> dict[str, bool]:
    session = maar.session(node)
    assert session is not None
    return {peer["endpoint"]: peer["acknowledged"] for peer in session["peers"]}


def test_what_an_anchor_refuses_is_reported_to_the_cmd(place: Site, maar: Running) -> None:
    node = place.node()
    served = node.prefix(2)
    place.exchange(
        node,
        dmm.Visit(place.generation(), PEER),
        dmm.PreviousMaar(served, 0, 3000, False, PEER),
    )
    message, _ = place.peer.take_update(node)
    place.peer.send(accepted(message, Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX))
    failed = dmm.AnchorFailed(served, PEER)
    report = place.cmd.take(lambda each: failed.body() in each.data)
    assert dmm.MobileNode(node.identity).body() in report.data


def test_an_anchor_forwards_before_it_acknowledges_and_never_stops_between(
    place: Site, maar: Running
) -> None:
    node = place.node()
    local = node.prefix(1)
    place.exchange(node, dmm.Visit(place.generation(), bytes(16)), dmm.AnchoredPrefix(local, 1, 60))
    monitor = place.monitor()
    message = update(node, 7, place.generation(), local)
    place.peer.send(message)
    answer = place.peer.take_answer(7)
    assert monitor.read().count(Event("put", "route", str(local))) == 1
    (route,) = place.routes(local)
    assert leads_to(route, PEER)
    assert monitor.dropped(local) == []
    assert format_address(node.link_local) not in place.neighbours(), "it is not here any more"
    assert answer == BindingAcknowledgement(
        Status.ACCEPTED,
        7,
        1200,
        (
            MobileNodeIdentifier(node.identity),
            HomeNetworkPrefix(local),
            HandoffIndicator(HandoffIndicatorValue.BETWEEN_GATEWAYS),
            ACCESS_TECHNOLOGY,
            message.options[5],
            LinkLayerIdentifier(HOST_MAC),
            ServingMaar(PEER),
        ),
    )
    # It comes back: local again, in one step.
    place.exchange(node, dmm.Visit(place.generation(), PEER), dmm.AnchoredPrefix(local, 1, 60))
    (route,) = place.routes(local)
    assert lies_behind(route, node)
    assert monitor.dropped(local) == []
    # The MAAR just left anchors nothing and is told all the same.
    told, _ = place.peer.take_update(node)
    assert not [o for o in told.options if isinstance(o, HomeNetworkPrefix)]
    place.peer.send(accepted(told))


def test_an_end_leaves_unreachable_behind(place: Site, maar: Running) -> None:
    node = place.node()
    local = node.prefix(1)
    place.peer.send(update(node, 1, place.generation(), local))
    assert place.peer.take_answer(1).accepted
    (route,) = place.routes(local)
    assert leads_to(route, PEER)
    place.peer.send(update(node, 2, place.generation(), local, lifetime=0))
    assert place.peer.take_answer(2).accepted
    assert place.routes(local) == []
    (pool,) = place.routes("2001:db8:1:100::/56")
    assert pool["type"] == "unreachable"


BadUpdate = Callable[[BindingUpdate], BindingUpdate]

REFUSED: list[tuple[str, Status, BadUpdate]] = [
    (
        "a MAG's, without the D flag",
        Status.NOT_LMA_FOR_THIS_MOBILE_NODE,
        lambda u: replace(u, dmm=False),
    ),
    (
        "a mobile node's own, without the P flag",
        Status.HOME_REGISTRATION_NOT_SUPPORTED,
        lambda u: replace(u, proxy=False),
    ),
    (
        "no mobile node",
        Status.MISSING_MN_IDENTIFIER_OPTION,
        lambda u: without(u, MobileNodeIdentifier),
    ),
    (
        "no handoff indicator",
        Status.MISSING_HANDOFF_INDICATOR_OPTION,
        lambda u: without(u, HandoffIndicator),
    ),
    (
        "no access technology",
        Status.MISSING_ACCESS_TECH_TYPE_OPTION,
        lambda u: without(u, AccessTechnology),
    ),
    ("no timestamp", Status.TIMESTAMP_MISMATCH, lambda u: without(u, Timestamp)),
    (
        "for another S-MAAR",
        Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG,
        lambda u: replace(without(u, ServingMaar), options=(*u.options[:-1], ServingMaar(OTHER))),
    ),
    (
        "a prefix of another's pool",
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
        lambda u: replace(
            u,
            options=(*u.options, HomeNetworkPrefix(Prefix.parse("2001:db8:2:100::/64"))),
        ),
    ),
]


@pytest.mark.parametrize(
    ("status", "change"),
    [(status, change) for _, status, change in REFUSED],
    ids=[name for name, _, _ in REFUSED],
)
def test_a_pbu_that_is_refused_gets_the_status_and_changes_nothing(
    place: Site, maar: Running, status: Status, change: BadUpdate
) -> None:
    node = place.node()
    monitor = place.monitor()
    place.peer.send(change(update(node, 11, place.generation(), node.prefix(1))))
    assert place.peer.take_status(11) == status
    assert monitor.read() == []
    assert maar.session(node) is None


def test_a_stranger_is_told_to_stay_away(place: Site, maar: Running) -> None:
    node = place.node()
    monitor = place.monitor()
    message = update(node, 12, place.generation(), node.prefix(1), serving=STRANGER)
    place.stranger.send(message)
    assert place.stranger.take_answer(12).status == 154
    assert monitor.read() == []
    assert maar.session(node) is None


def test_an_overtaken_pbu_hears_which_visit_counts(place: Site, maar: Running) -> None:
    node = place.node()
    old, current = place.generation(), place.generation()
    place.exchange(node, dmm.Visit(current, bytes(16)), dmm.AnchoredPrefix(node.prefix(1), 1, 60))
    place.peer.send(update(node, 13, old, node.prefix(1)))
    answer = place.peer.take_answer(13)
    assert answer.status == 157
    assert Timestamp(current) in answer.options
    # This very visit is ours, and nobody else's.
    place.peer.send(update(node, 14, current, node.prefix(1)))
    assert place.peer.take_answer(14).status == 157
    (route,) = place.routes(node.prefix(1))
    assert lies_behind(route, node)


def test_a_bad_checksum_is_counted_and_not_answered(place: Site, maar: Running) -> None:
    node = place.node()
    header = bytearray(encode(update(node, 15, place.generation(), node.prefix(1)), PEER, ENDPOINT))
    header[7] ^= 0x40  # the sequence number
    before = maar.count("mobility.checksum")
    monitor = place.monitor()
    place.peer.send_raw(bytes(header))
    maar.counts("mobility.checksum", before + 1)
    assert_still_works(place, place.peer)
    assert not [each for each in place.peer.arrived() if node.duid in each.data]
    assert not [each for each in monitor.read() if each.of == str(node.prefix(1))]


def assert_still_works(place: Site, peer: Maar) -> None:
    """A PBU is accepted and answered. Mobility Headers are answered in order, so what came before was seen to."""
    node = place.node()
    peer.send(update(node, 99, place.generation(), node.prefix(1)))
    assert peer.take_answer(99).accepted
    (route,) = place.routes(node.prefix(1))
    assert leads_to(route, PEER)


def test_an_unknown_kind_of_mobility_header_gets_a_binding_error(
    place: Site, maar: Running
) -> None:
    header = bytearray(encode(update(place.node(), 16, 1), PEER, ENDPOINT))
    header[4:6] = b"\0\0"
    header[2] = 200
    header[4:6] = checksum(bytes(header), PEER, ENDPOINT).to_bytes(2, "big")
    place.peer.send_raw(bytes(header))
    answer = place.peer.take(lambda each: each.data[2] == 7)
    error = decode_binding_error(answer.data, ENDPOINT, PEER)
    assert error.status == BindingErrorStatus.UNRECOGNIZED_MH_TYPE
    assert error.home_address == bytes(16)
    # RFC 6275 section 9.3.3: not more often than once in a while.
    place.peer.send_raw(bytes(header))
    maar.counts("mobility.type", 2)
    assert_still_works(place, place.peer)
    assert not [each for each in place.peer.arrived() if each.data[2] == 7]


def test_a_flood_of_garbage_costs_the_peers_nothing(place: Site, maar: Running) -> None:
    source = random.Random(135)
    good = encode(update(place.node(), 17, 1), PEER, ENDPOINT)
    before = resident(maar.pid)
    monitor = place.monitor()
    for number in range(3000):
        junk = (
            bytearray(good)
            if number % 3
            else bytearray(source.randbytes(source.randrange(4, 1200)))
        )
        for _ in range(4):
            junk[source.randrange(len(junk))] = source.randrange(256)
        (place.peer if number % 2 else place.stranger).send_raw(bytes(junk))
    assert_still_works(place, place.peer)
    counters = maar.status()["counters"]
    seen = sum(count for name, count in counters.items() if name.startswith("mobility."))
    assert seen > 2000
    assert "internal-error" not in counters
    assert resident(maar.pid) - before < 16 << 20
    assert len({each.of for each in monitor.read() if each.kind == "route"}) <= 2
