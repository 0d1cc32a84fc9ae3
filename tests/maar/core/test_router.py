"""Router Advertisements: their octets, and when which link gets one (RFC 4861 sections 4.2 and 6.2)."""

from __future__ import annotations

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix
from relay_maar.core import actions as act
from relay_maar.core import router as router_module
from relay_maar.core.agent import Agent
from relay_maar.core.items import Neighbour
from relay_maar.core.noticed import made_link_local
from relay_maar.core.router import (
    ALL_NODES,
    MIN_DELAY_BETWEEN_RAS,
    UNICAST_RATE,
    PrefixInformation,
    Router,
    advertisement,
)
from tests.maar.core.attach_world import AttachWorld
from tests.maar.core.test_relay import visit_reply
from tests.maar.core.world import (
    ACCESS,
    MAC,
    NODE,
    SERVER,
    Maar,
    World,
    client_message,
    endpoint,
    link_prefix,
    pools,
    settings,
)

SOLICITATION = bytes((133, 0)) + bytes(6)
"""A Router Solicitation without options."""


def started(now: float = 0.0) -> Agent:
    agent = Agent(settings(1), jitter=lambda: 0.5)
    agent.start(frozenset(), [], now)
    return agent


def advertised(actions: list[act.Action]) -> list[tuple[str, bytes]]:
    return [
        (each.interface, each.destination)
        for each in actions
        if isinstance(each, act.SendRouterAdvertisement)
    ]


def test_octets() -> None:
    prefix = PrefixInformation(Prefix.parse("2001:db8:1:101::/64"), 7200, 3600)
    assert advertisement(settings(1).access[0], 1800, [prefix]).hex(" ", 4) == (
        "86000000 40800708 00000000 00000000 "  # RA, hop limit 64, M, 1800 s
        "01010000 5e005213 "  # source link-layer address
        "05010000 000005b4 "  # MTU 1460
        "03044000 00001c20 00000e10 00000000 "  # prefix information, neither L nor A
        "20010db8 00010101 00000000 00000000"
    )


def test_the_first_ones_come_fast() -> None:
    agent = started()
    moments = []
    while (when := agent.deadline()) is not None and when < 200:
        sent = [e for e in agent.tick(when) if isinstance(e, act.SendRouterAdvertisement)]
        # By the link's own socket, as ourselves, to all.
        assert all((e.destination, e.link_layer, e.sender) == (ALL_NODES, None, None) for e in sent)
        moments += [when] * len(sent)
    # Half of MAX_RA_DELAY_TIME, three intervals of at most 16 s, then 40 s: half way from 20 to 60.
    assert moments == [0.25, 16.25, 32.25, 48.25, 88.25, 128.25, 168.25]


def test_a_node_that_attaches_is_told_at_once_and_not_again_for_a_while() -> None:
    agent = started()
    for trigger in ("mld", "ns"):
        node = NODE[:-1] + bytes((len(trigger),))
        assert advertised(agent.seen(ACCESS, node, MAC, trigger, 0.1)) == [(ACCESS, node)]
        assert advertised(agent.seen(ACCESS, node, MAC, trigger, 3.0)) == []
        assert advertised(agent.seen(ACCESS, node, MAC, trigger, 3.2)) == [(ACCESS, node)]
    actions = agent.client_datagram(ACCESS, NODE, MAC, client_message(1), 0.1)
    assert advertised(actions) == [(ACCESS, NODE)]


def test_a_node_that_is_known_here_is_not_told_with_every_dhcpv6_message() -> None:
    world = World()
    world.attach(1)
    world.now += 100
    agent = world.maars[1].agent
    assert advertised(agent.client_datagram(ACCESS, NODE, MAC, client_message(5), world.now)) == []


def test_it_is_told_at_once_when_its_prefixes_change_and_only_then() -> None:
    agent = started()
    local = dmm.AnchoredPrefix(link_prefix(1), 100, 200)
    remote = dmm.PreviousMaar(link_prefix(2), 0, 200, False, endpoint(2))
    told = []
    for moment, named in ((1.0, [local]), (1.1, [local, remote]), (60.0, [local, remote])):
        actions = agent.server_datagram(SERVER, visit_reply(5, *named), moment)
        for apply in [each for each in actions if isinstance(each, act.Apply)]:
            actions += agent.applied(apply.token, {}, moment)
        told.append(len(advertised(actions)))
    assert told == [1, 1, 0]


def test_it_learns_its_own_prefixes() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    world.now += 100
    agent = world.maars[2].agent
    (sent,) = [
        each
        for each in agent.seen(ACCESS, NODE, MAC, "mld", world.now)
        if isinstance(each, act.SendRouterAdvertisement)
    ]
    expected = [
        PrefixInformation(link_prefix(1), 7100, 0),
        PrefixInformation(link_prefix(2), 7100, 7100),
    ]
    assert sent.data == advertisement(settings(2).access[0], 1800, expected)


def test_a_solicitation_is_answered() -> None:
    agent = started()
    assert advertised(agent.router_solicitation(ACCESS, NODE, MAC, SOLICITATION, 0.1)) == [
        (ACCESS, NODE)
    ]


def test_without_an_address_it_is_answered_to_all_with_delay() -> None:
    agent = started()
    assert advertised(agent.tick(0.25)) == [(ACCESS, ALL_NODES)]
    assert agent.router_solicitation(ACCESS, UNSPECIFIED, None, SOLICITATION, 0.3) == []
    # Not before MIN_DELAY_BETWEEN_RAS has passed.
    when = 0.25 + MIN_DELAY_BETWEEN_RAS
    assert advertised(agent.tick(when - 0.01)) == []
    assert advertised(agent.tick(when)) == [(ACCESS, ALL_NODES)]
    agent.router_solicitation(ACCESS, UNSPECIFIED, None, SOLICITATION, 10.0)
    assert advertised(agent.tick(10.25)) == [(ACCESS, ALL_NODES)]


def test_a_crowd_gets_a_multicast_one() -> None:
    agent = started()
    nodes = [NODE[:-2] + number.to_bytes(2, "big") for number in range(300)]
    sent = [
        each
        for node in nodes
        for each in advertised(agent.router_solicitation(ACCESS, node, MAC, SOLICITATION, 0.1))
    ]
    assert len(sent) == UNICAST_RATE
    assert advertised(agent.tick(0.35)) == [(ACCESS, ALL_NODES)]


def test_each_of_a_crowd_hears_of_its_prefix() -> None:
    """No multicast advertisement names it."""
    world = AttachWorld(slaac=True)
    world.go_on(5)
    maar, before = world.maars[1], len(world.maars[1].advertisements)
    crowd = [b"\2\0\0\0\1" + bytes((number,)) for number in range(250)]
    for mac in crowd:
        node = made_link_local(mac)
        world.run(maar, maar.agent.seen(ACCESS, node, mac, "mld", world.now))
    world.settle()
    assert len(maar.advertisements) - before == UNICAST_RATE
    assert told_of_prefixes(maar) == set()
    world.go_on(2.5)
    assert told_of_prefixes(maar) == set(crowd)


def told_of_prefixes(maar: Maar) -> set[bytes | None]:
    start = pools(1)[0].address[:7]
    return {each.link_layer for each in maar.advertisements if start in each.data}


def test_there_is_room_again_a_second_later_in_the_order_of_coming() -> None:
    """For what a node has by then; who has left is told nothing."""
    router = Router(settings(1).access, settings(1).router, lambda: 0.5)
    nodes = [NODE[:-2] + number.to_bytes(2, "big") for number in range(UNICAST_RATE + 150)]
    valid = dict.fromkeys(nodes, 100)

    def prefixes(_: str, node: bytes, now: float) -> list[PrefixInformation]:
        found = valid.get(node)
        return [] if found is None else [PrefixInformation(link_prefix(1), found, found)]

    sent = [each for node in nodes for each in router.changed(ACCESS, node, 5.0, prefixes, MAC)]
    assert [each.destination for each in sent] == nodes[:UNICAST_RATE]
    waiting = nodes[UNICAST_RATE:]
    del valid[waiting[3]]
    valid[waiting[4]] = 50
    assert router.changed(ACCESS, nodes[-1], 5.9, prefixes, MAC) == []
    assert [e.destination for e in router.due(5.99)] == [ALL_NODES]
    assert router.changed(ACCESS, nodes[-1], 6.0, prefixes, MAC), "there is room"
    late = router.due(6.0)
    assert [each.destination for each in late] == waiting[:3] + waiting[4:-1]
    expected = [PrefixInformation(link_prefix(1), 50, 50)]
    assert late[3].data == advertisement(settings(1).access[0], 1800, expected)
    assert all(each.destination == ALL_NODES for each in router.due(60.0))


def test_those_who_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest of them: who came before them learns its prefixes with its next frame."""
    monkeypatch.setattr(router_module, "_REMEMBERED", 50)
    router = Router(settings(1).access, settings(1).router, lambda: 0.5)
    nodes = [NODE[:-2] + number.to_bytes(2, "big") for number in range(UNICAST_RATE + 150)]
    told = [PrefixInformation(link_prefix(1), 100, 100)]
    for node in nodes:
        router.changed(ACCESS, node, 5.0, lambda *_: told, MAC)
    late = [e.destination for e in router.due(6.5) if e.destination != ALL_NODES]
    assert late == nodes[-50:]


@pytest.mark.parametrize("source", [b"\xff\x02" + bytes(14), b"\x20" + bytes(15)])
def test_what_is_no_node_on_the_link(source: bytes) -> None:
    agent = started()
    assert agent.router_solicitation(ACCESS, source, MAC, SOLICITATION, 0.1) == []
    assert agent.seen("eth9", NODE, MAC, "ns", 0.1) == []
    assert agent.seen(ACCESS, b"\xff\x02" + bytes(14), MAC, "ns", 0.1) == []
    for nobody in (None, bytes(6), b"\x33\x33" + bytes(4), bytes(7)):
        assert agent.seen(ACCESS, NODE, nobody, "ns", 0.1) == []
    counters = agent.status(0.1)["counters"]
    assert counters == {"rs.source": 1, "seen.interface": 1, "seen.source": 5}


def test_a_frame_fills_in_a_link_layer_address_but_does_not_change_one() -> None:
    world = World()
    world.place = 1
    maar = world.maars[1]
    for kind in (1, 3):
        data = client_message(kind)
        world.run(maar, maar.agent.client_datagram(ACCESS, NODE, None, data, world.now))
        world.settle()
    key = Neighbour(ACCESS, NODE, MAC).key
    assert key not in maar.kernel.items
    world.run(maar, maar.agent.seen(ACCESS, NODE, MAC, "ns", world.now))
    assert maar.kernel.items[key] == Neighbour(ACCESS, NODE, MAC)
    world.run(maar, maar.agent.seen(ACCESS, NODE, b"\2" + bytes(5), "ns", world.now))
    assert maar.kernel.items[key] == Neighbour(ACCESS, NODE, MAC)
    counters = maar.agent.status(world.now)["counters"]
    assert counters["seen.link-layer-conflict"] == 1


LINK_LAYER = b"\x01\x01" + MAC
"""A Source Link-Layer Address option."""


@pytest.mark.parametrize(
    ("source", "data", "reason"),
    [
        (NODE, b"", "truncated"),
        (NODE, SOLICITATION[:7], "truncated"),
        (NODE, b"\x86" + SOLICITATION[1:], "type"),
        (NODE, b"\x85\x01" + SOLICITATION[2:], "type"),
        (NODE, SOLICITATION + bytes(8), "option-length"),
        (NODE, SOLICITATION + LINK_LAYER + b"\x0e\x00" + bytes(6), "option-length"),
        (NODE, SOLICITATION + LINK_LAYER[:7], "option-length"),
        (NODE, SOLICITATION + b"\x01\x02" + bytes(6), "option-length"),
        (NODE, SOLICITATION + b"\x01", "option-length"),
        (UNSPECIFIED, SOLICITATION + LINK_LAYER, "link-layer"),
        (UNSPECIFIED, SOLICITATION + b"\x0e\x01" + bytes(6) + LINK_LAYER, "link-layer"),
    ],
)
def test_solicitations_that_are_not_valid(source: bytes, data: bytes, reason: str) -> None:
    agent = started()
    agent.tick(0.25)
    deadline = agent.deadline()
    assert agent.router_solicitation(ACCESS, source, MAC, data, 10.0) == []
    assert agent.deadline() == deadline
    assert agent.status(0.1)["counters"] == {f"rs.{reason}": 1}


@pytest.mark.parametrize("option", [LINK_LAYER, b"\xc8\x02" + bytes(14)])
def test_options_of_a_valid_solicitation_do_not_matter(option: bytes) -> None:
    agent = started()
    data = SOLICITATION + option
    assert advertised(agent.router_solicitation(ACCESS, NODE, MAC, data, 0.1)) == [(ACCESS, NODE)]
    assert agent.status(0.1)["counters"]["rs.received"] == 1
