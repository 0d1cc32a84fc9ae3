"""Where a node is: whose link-layer address counts, who may have whose place, and which of two
places is the later one."""

from __future__ import annotations

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType
from relay_maar.core import actions as act
from relay_maar.core.agent import Agent
from relay_maar.core.items import Neighbour, Route, ToNode
from relay_maar.core.settings import AccessLink
from tests.maar.core.test_relay import LINK_ADDRESS, relay_forward, relay_reply
from tests.maar.core.world import (
    ACCESS,
    DUID,
    MAC,
    NODE,
    SERVER,
    Maar,
    World,
    client_message,
    endpoint,
    link_prefix,
)

SECOND = "access1"
OTHER_MAC = bytes.fromhex("0200000000bb")
OTHER_DUID = bytes.fromhex("00030001") + OTHER_MAC
PREFIX = link_prefix(1)
OTHER_PREFIX = Prefix.parse("2001:db8:1:155::/64")


class Site:
    """MAAR 1 with two access links, and a CMD that says what a test wants it to."""

    def __init__(self) -> None:
        links = tuple(
            AccessLink(name, address, name.encode(), MAC, relays_below=True)
            for name, address in ((ACCESS, LINK_ADDRESS), (SECOND, parse_address("2001:db8:1::2")))
        )
        self.world = World(access=links)
        self.maar: Maar = self.world.maars[1]

    @property
    def agent(self) -> Agent:
        return self.maar.agent

    @property
    def counters(self) -> dict[str, int]:
        found = self.agent.status(self.world.now)["counters"]
        assert isinstance(found, dict)
        return found

    def say(
        self,
        duid: bytes = DUID,
        link_layer: bytes | None = MAC,
        transaction: bytes = b"abc",
        interface: str = ACCESS,
    ) -> None:
        """A client's message from the node's link-local address."""
        data = client_message(MessageType.REQUEST, duid, transaction)
        now = self.world.now
        self.world.run(
            self.maar, self.agent.client_datagram(interface, NODE, link_layer, data, now)
        )

    def hear(
        self,
        duid: bytes = DUID,
        transaction: bytes = b"abc",
        interface: str = ACCESS,
        *,
        generation: int = 5,
        prefix: Prefix | None = PREFIX,
    ) -> act.SendToClient:
        """The CMD's answer, which reaches the client whatever it says to us."""
        named = () if prefix is None else (dmm.AnchoredPrefix(prefix, 100, 200),)
        inner = client_message(MessageType.REPLY, duid, transaction)
        visit = dmm.Visit(generation, UNSPECIFIED)
        reply = relay_reply(inner, visit, *named, interface=interface.encode())
        self.maar.client.clear()
        self.world.run(self.maar, self.agent.server_datagram(SERVER, reply, self.world.now))
        (delivered,) = self.maar.client
        assert delivered == act.SendToClient(interface, NODE, 546, inner)
        return delivered

    def neighbour(self, interface: str = ACCESS) -> bytes | None:
        """The link-layer address to which the kernel sends what is for the node."""
        found = self.maar.kernel.items.get(Neighbour(interface, NODE, MAC).key)
        return found.link_layer if isinstance(found, Neighbour) else None

    def holds(self, prefix: Prefix, interface: str = ACCESS) -> bool:
        """Whether the kernel routes `prefix` to the node's address on `interface`."""
        return Route(prefix, ToNode(interface, NODE)) in self.maar.kernel.items.values()

    def log_of(self, word: str) -> list[str]:
        return [line for line in self.maar.log if word in line]


@pytest.fixture
def site() -> Site:
    """The node is here and has its prefix."""
    site = Site()
    site.say()
    site.hear()
    assert site.holds(PREFIX)
    assert site.neighbour() == MAC
    return site


@pytest.mark.parametrize("link_layer", [OTHER_MAC, None])
def test_a_host_with_anothers_address_does_not_get_its_packets(
    site: Site, link_layer: bytes | None
) -> None:
    before = dict(site.maar.kernel.items)
    site.say(OTHER_DUID, link_layer, b"xyz")
    site.hear(OTHER_DUID, b"xyz", generation=9, prefix=OTHER_PREFIX)
    assert site.maar.kernel.items == before
    assert site.counters["visit.link-local-conflict"] == 1
    (line,) = site.log_of("not served")
    assert DUID.hex() in line
    assert OTHER_DUID.hex() in line
    # The first holder stays who is there, for what is refreshed and advertised.
    assert site.agent.seen(ACCESS, NODE, OTHER_MAC, "ns", site.world.now + 60.0)
    assert site.counters["seen.link-layer-conflict"] == 1
    # Each is counted, but no host fills the log.
    site.hear(OTHER_DUID, b"xyz", generation=9, prefix=OTHER_PREFIX)
    assert site.counters["visit.link-local-conflict"] == 2
    assert len(site.log_of("not served")) == 1
    site.world.now += 10.0
    site.hear(OTHER_DUID, b"xyz", generation=9, prefix=OTHER_PREFIX)
    assert len(site.log_of("not served")) == 2


def test_the_same_host_under_another_name_takes_over(site: Site) -> None:
    site.say(OTHER_DUID, MAC, b"xyz")
    site.hear(OTHER_DUID, b"xyz", generation=9, prefix=OTHER_PREFIX)
    assert site.holds(OTHER_PREFIX)
    assert site.holds(PREFIX)
    assert "visit.link-local-conflict" not in site.counters


def test_a_place_without_prefixes_is_nobodys() -> None:
    site = Site()
    site.say()
    site.hear(prefix=None)
    site.say(OTHER_DUID, OTHER_MAC, b"xyz")
    site.hear(OTHER_DUID, b"xyz", generation=9, prefix=OTHER_PREFIX)
    assert site.holds(OTHER_PREFIX)
    assert site.neighbour() == OTHER_MAC


def test_two_without_a_link_layer_address_may_be_two_hosts() -> None:
    site = Site()
    site.say(link_layer=None)
    site.hear()
    site.say(OTHER_DUID, None, b"xyz")
    site.hear(OTHER_DUID, b"xyz", generation=9, prefix=OTHER_PREFIX)
    assert not site.holds(OTHER_PREFIX)


def test_the_place_of_a_node_that_is_only_served_is_its_own() -> None:
    site = Site()
    site.say()
    remote = dmm.PreviousMaar(link_prefix(2), 0, 200, False, endpoint(2))
    reply = relay_reply(client_message(MessageType.REPLY), dmm.Visit(5, endpoint(2)), remote)
    site.world.run(site.maar, site.agent.server_datagram(SERVER, reply, site.world.now))
    assert site.holds(link_prefix(2))
    site.say(OTHER_DUID, OTHER_MAC, b"xyz")
    site.hear(OTHER_DUID, b"xyz", generation=9, prefix=OTHER_PREFIX)
    assert site.neighbour() == MAC
    assert site.counters["visit.link-local-conflict"] == 1


@pytest.mark.parametrize("transaction", [b"abc", b"xyz"])
def test_a_frame_between_message_and_reply_does_not_steal_the_neighbour(transaction: bytes) -> None:
    site = Site()
    site.say()
    site.say(OTHER_DUID, OTHER_MAC, transaction)
    site.hear()
    assert site.neighbour() == MAC


def test_a_node_that_answers_from_another_link_layer_address_is_known_by_it(site: Site) -> None:
    site.say(link_layer=OTHER_MAC, transaction=b"xyz")
    site.hear(transaction=b"xyz")
    assert site.neighbour() == OTHER_MAC
    assert len(site.log_of("moved from access0")) == 1


def test_a_message_that_is_not_remembered_leaves_the_link_layer_address_as_it_is(
    site: Site,
) -> None:
    site.hear(transaction=b"???")
    assert site.neighbour() == MAC
    site.world.restart(1)
    site.hear()
    assert site.neighbour() == MAC


def test_a_repeated_message_brings_the_link_layer_address_that_the_first_lacked() -> None:
    site = Site()
    site.say(link_layer=None)
    site.say()
    site.hear()
    assert site.neighbour() == MAC


def test_a_flood_of_messages_is_not_remembered_for_ever() -> None:
    site = Site()
    site.say()
    for number in range(5000):
        site.say(OTHER_DUID, OTHER_MAC, number.to_bytes(3, "big"))
    site.hear()
    # The link-layer address is lost, not wrong; the node's next frame brings it.
    assert site.holds(PREFIX)
    assert site.neighbour() is None
    site.world.run(site.maar, site.agent.seen(ACCESS, NODE, MAC, "ns", site.world.now))
    assert site.neighbour() == MAC


def test_a_late_reply_does_not_bring_the_node_back_to_the_link_it_left(site: Site) -> None:
    site.say(transaction=b"new", interface=SECOND)
    site.hear(transaction=b"new", interface=SECOND)
    assert site.holds(PREFIX, SECOND)
    assert site.neighbour(ACCESS) is None
    before = dict(site.maar.kernel.items)
    # A duplicate of the first reply, which the core held back; also if the CMD's order was another.
    for generation in (5, 6):
        site.hear(generation=generation)
        assert site.maar.kernel.items == before
    (line,) = site.log_of("moved")
    assert "from access0" in line
    assert "to access1" in line


def test_the_replies_in_another_order_than_the_messages() -> None:
    site = Site()
    site.say()
    site.say(transaction=b"new", interface=SECOND)
    site.hear(transaction=b"new", interface=SECOND)
    site.hear()
    assert site.holds(PREFIX, SECOND)


def test_a_node_that_comes_back_repeats_its_message(site: Site) -> None:
    site.say(transaction=b"new", interface=SECOND)
    site.hear(transaction=b"new", interface=SECOND)
    site.say()
    site.hear()
    assert site.holds(PREFIX, ACCESS)
    assert len(site.log_of("moved")) == 2


def test_a_refresh_on_the_same_link_is_no_move(site: Site) -> None:
    site.say(transaction=b"new")
    site.hear(transaction=b"new")
    assert site.log_of("moved") == []


@pytest.mark.parametrize(
    ("source", "known"), [(NODE, MAC), (parse_address("fe80::1d2a"), None)], ids=["its", "own"]
)
def test_the_frame_of_a_relay_agent_below_is_the_nodes_if_it_has_its_address(
    source: bytes, known: bytes | None
) -> None:
    site = Site()
    up = relay_forward(client_message(MessageType.REQUEST))
    site.world.run(site.maar, site.agent.client_datagram(ACCESS, source, MAC, up, site.world.now))
    down = relay_reply(
        relay_reply(client_message(MessageType.REPLY), interface=None, link=UNSPECIFIED),
        dmm.Visit(5, UNSPECIFIED),
        dmm.AnchoredPrefix(PREFIX, 100, 200),
        peer=source,
    )
    site.world.run(site.maar, site.agent.server_datagram(SERVER, down, site.world.now))
    assert site.holds(PREFIX)
    assert site.neighbour() == known
