"""A router for each anchor (RFC 8885 section 3.7): what the kernel is to hold, and what the nodes are told by whom."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from dmm_wire import dmm
from dmm_wire.address import format_address, format_mac, parse_address
from dmm_wire.dhcpv6.codes import INFINITY, MessageType
from dmm_wire.mobility import BindingAcknowledgement, DlifLinkLayer, DlifLinkLocal
from dmm_wire.mobility.answers import first
from dmm_wire.mobility.security import Security
from dmm_wire.router_identity import ETHERNET, FIXED, RouterIdentity, chosen, fault, of_anchor
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import Dlif
from relay_maar.core.router import ALL_NODES, PrefixInformation, advertisement
from tests.maar.core.secure_world import SECURE
from tests.maar.core.test_relay import visit_reply
from tests.maar.core.world import (
    ACCESS,
    MAC,
    NODE,
    SERVER,
    World,
    client_message,
    endpoint,
    link_prefix,
    settings,
)

ONE, TWO, THREE = (of_anchor(endpoint(number)) for number in (1, 2, 3))
LINK = settings(1).access[0]


def test_an_identity_is_stable_and_of_its_own() -> None:
    """The octets are what all MAARs of a domain have to agree on, of whatever version they are."""
    assert of_anchor(endpoint(1)).link_layer.hex(":") == "b6:30:5a:1e:3c:98"
    many = [of_anchor(bytes(12) + number.to_bytes(4, "big")) for number in range(2000)]
    assert len(set(many)) == 2000
    for link_local, link_layer in many:
        assert link_layer[0] & 0x03 == 0x02, "unicast, locally administered"
        assert link_local[:8] == b"\xfe\x80" + bytes(6)
        assert link_local[8:] == (
            bytes((link_layer[0] ^ 2,)) + link_layer[1:3] + b"\xff\xfe" + link_layer[3:]
        )
    assert FIXED not in many


def test_an_operator_may_choose_it() -> None:
    """Both addresses, one or none; what is not chosen follows from the other, or from the endpoint."""
    t, link_local, mac = endpoint(1), parse_address("fe80::1"), bytes.fromhex("02005e005301")
    assert chosen(t) == of_anchor(t)
    assert chosen(t, link_local) == (link_local, of_anchor(t).link_layer)
    assert chosen(t, None, mac) == (parse_address("fe80::5eff:fe00:5301"), mac)
    assert chosen(t, link_local, mac) == (link_local, mac)
    assert fault(chosen(t)) is None
    assert fault(chosen(t, None, bytes(8))) == "link-layer"


def shown(world: World, number: int) -> set[RouterIdentity]:
    items = world.maars[number].kernel.items.values()
    return {item.identity for item in items if isinstance(item, Dlif)}


def test_the_anchors_follow_the_node() -> None:
    world = World(dlif=True)
    world.attach(1)
    assert [shown(world, number) for number in (1, 2, 3)] == [set(), set(), set()]
    world.attach(2)
    assert [shown(world, number) for number in (1, 2, 3)] == [set(), {ONE}, set()]
    world.attach(3)
    assert [shown(world, number) for number in (1, 2, 3)] == [set(), set(), {ONE, TWO}]
    world.attach(1)
    assert [shown(world, number) for number in (1, 2, 3)] == [{TWO, THREE}, set(), set()]


@pytest.mark.parametrize("kill", [True, False])
def test_a_restart_touches_none_of_them(kill: bool) -> None:
    world = World(dlif=True)
    for number in (1, 2, 3):
        world.attach(number)
    before = dict(world.maars[3].kernel.items)
    world.restart(3, kill=kill)
    assert world.maars[3].kernel.items == before
    assert shown(world, 3) == {ONE, TWO}


def test_the_other_choice_from_a_restart_on() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    for identity, expected in ((TWO, {ONE}), (None, set())):
        world.own = {2: {"identity": identity}}
        world.restart(2, kill=True)
        assert shown(world, 2) == expected
    assert world.roles(2)[link_prefix(1)] == "served"


def test_without_the_choice_there_is_none() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    assert shown(world, 2) == set()
    assert all(each.sender is None for each in world.maars[2].advertisements)


# What the nodes are told


def started() -> Agent:
    agent = Agent(settings(1, dlif=True), jitter=lambda: 0.5)
    agent.start(frozenset(), [], 0.0)
    agent.client_datagram(ACCESS, NODE, MAC, client_message(1), 0.5)
    return agent


def told(
    agent: Agent, now: float, generation: int, *named: dmm.SubOption
) -> dict[RouterIdentity | None, act.SendRouterAdvertisement]:
    """What comes of an answer that names these prefixes, by sender."""
    actions = agent.server_datagram(SERVER, visit_reply(generation, *named), now)
    for apply in [each for each in actions if isinstance(each, act.Apply)]:
        assert not advertised(actions), "nothing before the kernel has confirmed"
        actions += agent.applied(apply.token, {}, now)
    sent = advertised(actions)
    assert len({each.sender for each in sent}) == len(sent)
    return {each.sender: each for each in sent}


def advertised(actions: Iterable[act.Action]) -> list[act.SendRouterAdvertisement]:
    return [each for each in actions if isinstance(each, act.SendRouterAdvertisement)]


LOCAL = dmm.AnchoredPrefix(link_prefix(1), 3600, 7200)


def away(number: int, valid: int = 7200) -> dmm.PreviousMaar:
    return dmm.PreviousMaar(link_prefix(number), 0, valid, False, endpoint(number))


def test_each_anchor_advertises_its_own_prefix() -> None:
    sent = told(started(), 1.0, 5, LOCAL, away(2), away(3, 600))
    assert set(sent) == {None, TWO, THREE}
    ours = PrefixInformation(link_prefix(1), 7200, 7200)
    assert sent[None].data == advertisement(LINK, 1800, [ours])
    assert sent[TWO].data == advertisement(
        LINK, 1800, [PrefixInformation(link_prefix(2), 7200, 0)], router=TWO
    )
    # Not a router for longer than it has a prefix of the node.
    assert sent[THREE].data == advertisement(
        LINK, 600, [PrefixInformation(link_prefix(3), 600, 0)], router=THREE
    )
    assert TWO.link_layer in sent[TWO].data, "its source link-layer address"
    assert LINK.link_layer not in sent[TWO].data
    for each in sent.values():
        assert (each.interface, each.destination, each.link_layer) == (ACCESS, NODE, MAC)


def test_a_prefix_without_end() -> None:
    sent = told(started(), 1.0, 5, LOCAL, away(2, INFINITY))
    prefix = PrefixInformation(link_prefix(2), INFINITY, 0)
    assert sent[TWO].data == advertisement(LINK, 1800, [prefix], router=TWO)


def test_an_anchor_whose_prefix_has_ended_takes_its_leave() -> None:
    agent = started()
    told(agent, 1.0, 5, LOCAL, away(2), away(3))
    sent = told(agent, 10.0, 5, LOCAL, away(3))
    assert set(sent) == {None, TWO, THREE}
    assert sent[TWO].data == advertisement(LINK, 0, router=TWO)
    assert set(told(agent, 20.0, 5, LOCAL)) == {None, THREE}


def test_a_node_hears_of_them_again_in_time() -> None:
    """Nothing is multicast for them: their lifetimes as routers would end."""
    agent = started()
    moments = (1.0, 1.4, 1.5, 1.9, 2.5, 3.5, 602.4, 602.5, 610.0)
    sent = {now: set(told(agent, now, 5, LOCAL, away(2))) for now in moments}
    # One can be lost, so three at first, whenever there is reason to speak of them.
    heard = [now for now, senders in sent.items() if senders == {None, TWO}]
    assert heard == [1.0, 1.5, 2.5, 602.5]
    assert all(not sent[now] for now in moments if now not in heard)
    # Of our own it hears by the multicast ones.
    agent = started()
    told(agent, 1.0, 5, LOCAL)
    assert told(agent, 1000.0, 5, LOCAL) == {}


def test_what_is_multicast_is_ours_alone() -> None:
    agent = started()
    told(agent, 1.0, 5, LOCAL, away(2))
    moments = [agent.tick(float(moment)) for moment in range(2, 100)]
    sent = [each for actions in moments for each in advertised(actions)]
    assert sent
    assert {(each.destination, each.sender) for each in sent} == {(ALL_NODES, None)}


def test_a_node_that_is_seen_is_told_by_all() -> None:
    agent = started()
    told(agent, 1.0, 5, LOCAL, away(2))
    sent = advertised(agent.seen(ACCESS, NODE, MAC, "mld", 50.0))
    assert [each.sender for each in sent] == [None, TWO]
    assert all(each.link_layer == MAC for each in sent)


def test_who_has_to_be_looked_for_is_told_all_by_us() -> None:
    """The kernel resolves an address as the router that it is."""
    agent = Agent(settings(1, dlif=True), jitter=lambda: 0.5)
    agent.start(frozenset(), [], 0.0)
    agent.client_datagram(ACCESS, NODE, None, client_message(1), 0.5)
    sent = told(agent, 1.0, 5, LOCAL, away(2))
    prefixes = [
        PrefixInformation(link_prefix(1), 7200, 7200),
        PrefixInformation(link_prefix(2), 7200, 0),
    ]
    assert set(sent) == {None}
    assert sent[None].data == advertisement(LINK, 1800, prefixes)


# What is said of identities, and by whom

OTHER = RouterIdentity(parse_address("fe80::2"), bytes.fromhex("02005e005302"))
ANOTHER = RouterIdentity(parse_address("fe80::22"), bytes.fromhex("02005e005322"))


def away_as(number: int, router: RouterIdentity, hardware_type: int = ETHERNET) -> dmm.PreviousMaar:
    link_local, link_layer = router
    mac = (hardware_type, link_layer)
    return replace(away(number), dlif_link_local=link_local, dlif_link_layer=mac)


def counted(agent: Agent, name: str) -> int:
    return int(agent.status(0.0)["counters"].get(name, 0))


def test_an_anchor_is_shown_as_the_cmd_says() -> None:
    world = World(dlif=True, own={1: {"identity": OTHER}})
    world.cmd.routers = {1: OTHER}
    world.attach(1)
    world.place = 2
    for kind in (MessageType.SOLICIT, MessageType.REQUEST):
        world.talk(kind)  # no PBA has come yet
    assert shown(world, 2) == {OTHER}
    world.settle()
    world.attach(3)
    assert shown(world, 3) == {OTHER, TWO}
    # A MAAR of before that does not hear of it goes on as it did.
    world.cmd.routers = {}
    world.talk(MessageType.RENEW)
    assert shown(world, 3) == {OTHER, TWO}
    world.restart(3, kill=True)
    assert shown(world, 3) == {OTHER, TWO}


def test_what_the_cmd_says_is_nothing_where_all_are_one() -> None:
    world = World()
    world.cmd.routers = {1: OTHER}
    for number in (1, 2):
        world.attach(number)
    assert shown(world, 2) == set()
    assert all(each.sender is None for each in world.maars[2].advertisements)


def test_an_anchor_that_is_another_router_from_now_on() -> None:
    """It is one for all its nodes, and takes its leave as the one that it was."""
    agent = started()
    told(agent, 1.0, 5, LOCAL, away(2))
    sent = told(agent, 10.0, 5, LOCAL, away_as(2, OTHER))
    assert set(sent) == {None, TWO, OTHER}
    assert sent[TWO].data == advertisement(LINK, 0, router=TWO)
    prefix = PrefixInformation(link_prefix(2), 7200, 0)
    assert sent[OTHER].data == advertisement(LINK, 1800, [prefix], router=OTHER)


@pytest.mark.parametrize(
    ("router", "reason"),
    [
        (OTHER._replace(link_local=parse_address("ff02::2")), "link-local"),
        (OTHER._replace(link_local=parse_address("2001:db8::2")), "link-local"),
        (OTHER._replace(link_local=parse_address("fe80:1::2")), "link-local"),
        (OTHER._replace(link_local=parse_address("fe80::")), "link-local"),
        (OTHER._replace(link_layer=bytes.fromhex("33335e005302")), "link-layer"),
        (OTHER._replace(link_layer=bytes(6)), "link-layer"),
        (OTHER._replace(link_layer=bytes(5) + b"\1\2\3"), "link-layer"),
        (OTHER._replace(link_local=ONE.link_local), "own"),
        (OTHER._replace(link_layer=ONE.link_layer), "own"),
        (OTHER._replace(link_local=THREE.link_local), "taken"),
        (OTHER._replace(link_layer=THREE.link_layer), "taken"),
    ],
)
def test_what_no_router_can_be_is_refused(router: RouterIdentity, reason: str) -> None:
    """The prefix is served all the same, by the router that nobody chose."""
    agent = started()
    sent = told(agent, 1.0, 5, LOCAL, away(3), away_as(2, router))
    assert set(sent) == {None, TWO, THREE}
    assert counted(agent, f"router.refused-{reason}") == 1


def test_half_an_identity_is_none() -> None:
    agent = started()
    half = replace(away_as(2, OTHER), dlif_link_layer=None)
    assert set(told(agent, 1.0, 5, LOCAL, half)) == {None, TWO}
    assert counted(agent, "router.refused-incomplete") == 1
    other = away_as(2, OTHER, hardware_type=32)  # InfiniBand
    assert set(told(agent, 5.0, 5, LOCAL, other)) == {None, TWO}
    assert counted(agent, "router.refused-link-layer") == 1


def differing() -> World:
    """A CMD that says something else of MAAR1 than it says of itself."""
    world = World(dlif=True, own={1: {"identity": OTHER}})
    world.cmd.routers = {1: ANOTHER}
    world.attach(1)
    world.attach(2)
    return world


def test_an_anchor_says_itself_as_which_router_it_is_shown() -> None:
    world = World(dlif=True, own={1: {"identity": OTHER}})
    world.attach(1)
    world.attach(2)  # the CMD says nothing of it; its PBA does
    assert [shows(each) for each in answers(world, 1)] == [OTHER]
    assert shown(world, 2) == {OTHER}
    senders = [each.sender for each in world.maars[2].advertisements if each.sender is not None]
    assert senders[-1] == OTHER
    assert "router.differs" not in world.maars[2].agent.status(world.now)["counters"]


def test_what_an_anchor_says_itself_counts_at_once() -> None:
    """In its first PBA, and without another word of the CMD."""
    world = World(dlif=True, own={1: {"identity": OTHER}})
    world.attach(1)
    world.place = 2
    world.talk(MessageType.SOLICIT)
    assert shown(world, 2) == {ONE}, "what follows from its endpoint, until it has spoken"
    world.settle()
    assert shown(world, 2) == {OTHER}
    data = world.maars[2].advertisements[-1]
    assert (data.sender, link_prefix(1).address in data.data) == (OTHER, True)


def test_of_two_words_the_latest_news_counts() -> None:
    world = differing()
    assert shown(world, 2) == {OTHER}
    assert counted(world.maars[2].agent, "router.differs") == 1
    assert len([line for line in world.maars[2].log if "do not agree" in line]) == 1
    world.talk(MessageType.RENEW)  # the CMD repeats itself
    assert shown(world, 2) == {OTHER}
    new = OTHER._replace(link_local=parse_address("fe80::222"))
    world.cmd.routers = {1: new}
    world.talk(MessageType.RENEW)
    assert shown(world, 2) == {new}


# Order, the end, and what people read


def test_a_node_hears_of_its_routers_before_all_that_can_wait() -> None:
    """At its first frame before the CMD is asked; when the kernel is ready before its Reply and the PBUs."""
    agent = Agent(settings(1, dlif=True), jitter=lambda: 0.5)
    agent.start(frozenset(), [], 0.0)
    first = agent.seen(ACCESS, NODE, MAC, "mld", 10.0)
    kinds = [type(each) for each in first]
    assert kinds.index(act.SendRouterAdvertisement) < kinds.index(act.SendToServers)
    other = Agent(settings(1, dlif=True), jitter=lambda: 0.5)
    other.start(frozenset(), [], 0.0)
    asked = other.client_datagram(ACCESS, NODE, MAC, client_message(1), 10.0)
    assert [type(each) for each in asked[:2]] == [act.SendRouterAdvertisement, act.SendToServers]

    agent = started()
    actions = agent.server_datagram(SERVER, visit_reply(5, LOCAL, away(2), away(3)), 1.0)
    (apply,) = [each for each in actions if isinstance(each, act.Apply)]
    assert not advertised(actions)
    said = [type(each) for each in agent.applied(apply.token, {}, 1.0)]
    order = [*[act.SendRouterAdvertisement] * 3, act.SendToClient, *[act.SendMobility] * 2]
    assert [kind for kind in said if kind in order] == order


def test_who_stops_is_no_router_any_more() -> None:
    """RFC 4861 section 6.2.5: as none of those that were shown."""
    agent = started()
    told(agent, 1.0, 5, LOCAL, away(2), away(3))
    last = advertised(agent.stop(10.0, keep=False))
    assert {each.sender: each.data for each in last} == {
        None: advertisement(LINK, 0),
        TWO: advertisement(LINK, 0, router=TWO),
        THREE: advertisement(LINK, 0, router=THREE),
    }
    assert {each.destination for each in last} == {ALL_NODES}
    agent = started()
    told(agent, 1.0, 5, LOCAL, away(2))
    assert advertised(agent.stop(10.0, keep=True)) == [], "who comes next goes on"


def test_a_node_that_goes_takes_its_routers_along() -> None:
    """They are there for it elsewhere: nobody says that they are not."""
    world = World(dlif=True)
    for number in (1, 2):
        world.attach(number)
    heard = len(world.maars[2].advertisements)
    world.attach(3)
    assert shown(world, 2) == set()
    assert len(world.maars[2].advertisements) == heard


def test_what_is_shown_can_be_read() -> None:
    agent = started()
    told(agent, 1.0, 5, LOCAL, away(2), away_as(3, OTHER))

    def row(router: RouterIdentity, anchor: int, nodes: int) -> dict[str, object]:
        return {
            "interface": ACCESS,
            "link_local": format_address(router.link_local),
            "link_layer": format_mac(router.link_layer),
            "anchor": format_address(endpoint(anchor)),
            "nodes": nodes,
        }

    own = ONE._replace(link_layer=LINK.link_layer)
    assert agent.status(1.0)["routers"] == [row(own, 1, 1), row(TWO, 2, 1), row(OTHER, 3, 1)]
    agent = Agent(settings(1), jitter=lambda: 0.5)
    assert agent.status(0.0)["routers"] == [row(FIXED, 1, 0)]


# What the MAARs tell each other (sections 4.7 and 4.8)


def shows(message: BindingAcknowledgement) -> RouterIdentity | None:
    local, layer = first(message, DlifLinkLocal), first(message, DlifLinkLayer)
    assert (local is None) == (layer is None)
    return RouterIdentity(local.address, layer.value) if local and layer else None


def answers(world: World, number: int) -> list[BindingAcknowledgement]:
    said = [each.message for each in world.maars[number].said]
    return [each for each in said if isinstance(each, BindingAcknowledgement)]


@pytest.mark.parametrize("signed", [True, False])
def test_an_anchor_says_in_its_pba_as_which_router_it_is_shown(signed: bool) -> None:
    world = World(dlif=True, security=SECURE if signed else Security())
    world.attach(1)
    world.attach(2)
    world.attach(3)
    assert [shows(each) for each in answers(world, 1)] == [ONE, ONE]
    # To MAAR3, which serves what MAAR2 anchors.
    assert [shows(each) for each in answers(world, 2)] == [TWO]
    for number in (2, 3):
        counters = world.maars[number].agent.status(world.now)["counters"]
        assert counters["pba.accepted"] >= 1


def test_who_anchors_nothing_shows_nothing() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    assert [shows(each) for each in answers(world, 1)] == [None]
