"""Which PBU gets which status (RFC 5213 sections 5.3.1 and 8.9), and what a PBA echoes (section 5.3.6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    AccessTechnology,
    BindingAcknowledgement,
    BindingError,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    ServingMaar,
    Status,
    Timestamp,
    UnknownOption,
    decode,
    encode,
)
from relay_maar.core import actions as act
from relay_maar.core.items import Route, ToPeer
from tests.maar.core.world import (
    MAC,
    NODE_ID,
    World,
    delegated_prefix,
    endpoint,
    fix_checksum,
    link_prefix,
    pools,
)

STRANGER = parse_address("2001:db8:bad::1")
OTHER_NODE = Identity(IdentitySubtype.DUID, bytes.fromhex("00030001020000000bbb"))


def update(**changes: Any) -> BindingUpdate:
    """A PBU from MAAR 2 that moves all of the node's prefixes at MAAR 1 there. `without` and `extra` change its
    options."""
    without = changes.pop("without", ())
    extra = changes.pop("extra", ())
    generation = changes.pop("generation", 7)
    serving = changes.pop("serving", endpoint(2))
    options: tuple[MobilityOption, ...] = (
        MobileNodeIdentifier(NODE_ID),
        HomeNetworkPrefix(link_prefix(1)),
        DelegatedPrefix(delegated_prefix(1)),
        HandoffIndicator(3),
        AccessTechnology(4),
        LinkLayerIdentifier(MAC),
        Timestamp(generation),
        ServingMaar(serving),
    )
    kept = tuple(each for each in options if not isinstance(each, without)) + tuple(extra)
    return BindingUpdate(changes.pop("sequence", 9), 600, kept, **changes)


def at_maar1(world: World, message: BindingUpdate, source: bytes = endpoint(2)) -> None:
    """MAAR 1 receives it; what it sends is lost."""
    maar = world.maars[1]
    data = encode(message, source, endpoint(1))
    before = len(world.wire)
    world.run(maar, maar.agent.mobility_datagram(source, data, world.now))
    del world.wire[before:]


def answer(
    world: World, message: BindingUpdate, source: bytes = endpoint(2)
) -> BindingAcknowledgement:
    maar = world.maars[1]
    maar.said.clear()
    at_maar1(world, message, source)
    (said,) = maar.said
    assert said.destination == source
    assert isinstance(said.message, BindingAcknowledgement)
    return said.message


@pytest.fixture
def world() -> World:
    """The node is at MAAR 1, generation 1."""
    world = World()
    world.attach(1)
    return world


def many_prefixes(count: int) -> list[Prefix]:
    """Prefixes out of MAAR 1's pool."""
    first = int.from_bytes(pools(1)[1].address, "big")
    return [Prefix.of((first + (n << 56)).to_bytes(16, "big"), 72) for n in range(count)]


def of_other_node(prefix: str) -> dict[str, Any]:
    """The changes that make it a PBU for this prefix of a node that nobody knows here."""
    return {
        "without": (MobileNodeIdentifier, HomeNetworkPrefix, DelegatedPrefix),
        "extra": [MobileNodeIdentifier(OTHER_NODE), HomeNetworkPrefix(Prefix.parse(prefix))],
    }


REFUSED: dict[str, tuple[dict[str, Any], bytes, Status]] = {
    "a stranger": ({"serving": STRANGER}, STRANGER, Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG),
    "not a proxy": ({"proxy": False}, endpoint(2), Status.HOME_REGISTRATION_NOT_SUPPORTED),
    "without D": ({"dmm": False}, endpoint(2), Status.NOT_LMA_FOR_THIS_MOBILE_NODE),
    "no identifier": (
        {"without": MobileNodeIdentifier},
        endpoint(2),
        Status.MISSING_MN_IDENTIFIER_OPTION,
    ),
    "no handoff indicator": (
        {"without": HandoffIndicator},
        endpoint(2),
        Status.MISSING_HANDOFF_INDICATOR_OPTION,
    ),
    "no access technology": (
        {"without": AccessTechnology},
        endpoint(2),
        Status.MISSING_ACCESS_TECH_TYPE_OPTION,
    ),
    "no timestamp": ({"without": Timestamp}, endpoint(2), Status.TIMESTAMP_MISMATCH),
    "no serving MAAR": ({"without": ServingMaar}, endpoint(2), Status.NOT_LMA_FOR_THIS_MOBILE_NODE),
    "for another MAAR": (
        {"serving": endpoint(3)},
        endpoint(2),
        Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG,
    ),
    "an old generation": (
        {"generation": 0},
        endpoint(2),
        Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
    ),
    "the generation of the visit here": (
        {"generation": 1},
        endpoint(2),
        Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
    ),
    "an old generation, and no handoff indicator": (
        {"generation": 0, "without": HandoffIndicator},
        endpoint(2),
        Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED,
    ),
    "a prefix of another MAAR, and no access technology": (
        {"without": AccessTechnology, "extra": [HomeNetworkPrefix(link_prefix(3))]},
        endpoint(2),
        Status.MISSING_ACCESS_TECH_TYPE_OPTION,
    ),
    "a prefix of another MAAR": (
        {"extra": [HomeNetworkPrefix(link_prefix(3))]},
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "a request for any prefix": (
        {"without": HomeNetworkPrefix, "extra": [HomeNetworkPrefix(Prefix(UNSPECIFIED, 0))]},
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "another node's prefix": (
        {"without": MobileNodeIdentifier, "extra": [MobileNodeIdentifier(OTHER_NODE)]},
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "a part of another node's prefix": (
        of_other_node("2001:db8:1:101::5/128"),
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "what another node's prefix is a part of": (
        of_other_node("2001:db8:1:100::/60"),
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "a whole pool": (
        of_other_node("2001:db8:1:200::/56"),
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "what our pool is a part of": (
        of_other_node("2001:db8:1::/48"),
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "one more, that is another's place": (
        {"extra": [HomeNetworkPrefix(Prefix.parse("2001:db8:1:100::/60"))]},
        endpoint(2),
        Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX,
    ),
    "more prefixes than a node may have": (
        {
            "extra": [
                DelegatedPrefix(prefix) for prefix in many_prefixes(40)
            ]
        },
        endpoint(2),
        Status.INSUFFICIENT_RESOURCES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(world: World, case: str) -> None:
    changes, source, status = REFUSED[case]
    sent = update(**changes)
    kernel, roles = dict(world.maars[1].kernel.items), world.roles(1)
    said = answer(world, sent, source)
    assert said.status == status
    assert (said.sequence, said.lifetime, said.proxy, said.dmm) == (9, 0, True, True)
    # Nothing has changed, and the reason is counted.
    assert world.maars[1].kernel.items == kernel
    assert world.roles(1) == roles
    counters = world.maars[1].agent.status(world.now)["counters"]
    assert counters[f"pbu.refused-{int(status)}"] == 1


def test_a_refusal_echoes_what_came(world: World) -> None:
    said = answer(world, update(generation=0))
    assert said.options == (
        MobileNodeIdentifier(NODE_ID),
        HomeNetworkPrefix(link_prefix(1)),
        DelegatedPrefix(delegated_prefix(1)),
        HandoffIndicator(3),
        AccessTechnology(4),
        Timestamp(1),  # ours, which is ahead
        LinkLayerIdentifier(MAC),
        ServingMaar(endpoint(2)),
    )


def test_a_refusal_has_the_mandatory_options_even_if_the_request_did_not(world: World) -> None:
    bare = BindingUpdate(3, 600, (Timestamp(9),))
    said = answer(world, bare)
    # Such an answer can be read: its receiver sees that it is about no node.
    assert decode(encode(said, endpoint(1), endpoint(2)), endpoint(1), endpoint(2)) == said
    assert said.options == (
        UnknownOption(8, b"\x01"),  # a zero-length identifier
        HomeNetworkPrefix(Prefix(UNSPECIFIED, 0)),
        HandoffIndicator(0),
        AccessTechnology(0),
        Timestamp(9),
    )


def test_a_strangers_update_makes_the_maar_ask_for_the_domain(world: World) -> None:
    world.pass_time(10.0)
    world.sent.clear()
    maar = world.maars[1]
    data = encode(update(), STRANGER, endpoint(1))
    world.run(maar, maar.agent.mobility_datagram(STRANGER, data, world.now))
    assert [packet.kind for packet in world.sent] == ["mobility", "up"]
    # Not for each of them.
    world.run(maar, maar.agent.mobility_datagram(STRANGER, data, world.now))
    assert [packet.kind for packet in world.sent] == ["mobility", "up", "mobility"]


def test_accepted(world: World) -> None:
    said = answer(world, update())
    assert (said.status, said.sequence, said.lifetime) == (Status.ACCEPTED, 9, 600)
    assert said.options == (
        MobileNodeIdentifier(NODE_ID),
        HomeNetworkPrefix(link_prefix(1)),
        DelegatedPrefix(delegated_prefix(1)),
        HandoffIndicator(3),
        AccessTechnology(4),
        Timestamp(7),
        LinkLayerIdentifier(MAC),
        ServingMaar(endpoint(2)),  # RFC 8885 section 3.2, 3
    )
    items = world.maars[1].kernel.items.values()
    for prefix in (link_prefix(1), delegated_prefix(1)):
        assert Route(prefix, ToPeer(endpoint(2))) in items
    assert set(world.roles(1).values()) == {"anchored"}


def test_a_refresh_comes_from_the_s_maar_of_that_visit_only(world: World) -> None:
    assert answer(world, update()).status == Status.ACCEPTED
    assert answer(world, update(sequence=10)).status == Status.ACCEPTED
    other = update(serving=endpoint(3))
    assert answer(world, other, endpoint(3)).status == Status.TIMESTAMP_LOWER_THAN_PREV_ACCEPTED


def test_what_is_not_named_is_withdrawn(world: World) -> None:
    answer(world, update())
    answer(world, update(sequence=10, without=DelegatedPrefix))
    assert world.roles(1) == {link_prefix(1): "anchored"}


def test_lifetime_zero_ends_everything(world: World) -> None:
    answer(world, update())
    said = answer(world, replace(update(sequence=10), lifetime=0))
    assert (said.status, said.lifetime) == (Status.ACCEPTED, 0)
    assert world.roles(1) == {}
    assert not [
        i
        for i in world.maars[1].kernel.items.values()
        if isinstance(i, Route) and isinstance(i.target, ToPeer)
    ]


def test_a_lost_session_is_believed_when_the_prefix_is_ours(world: World) -> None:
    maar = world.maars[1]
    maar.file = {key: each for key, each in maar.file.items() if not key.startswith("duid")}
    world.restart(1)
    world.settle()
    assert answer(world, update()).status == Status.ACCEPTED
    assert set(world.roles(1).values()) == {"anchored"}


def test_a_node_nobody_knows_is_believed_to_have_what_nobody_has(world: World) -> None:
    free = Prefix.parse("2001:db8:1:177::/64")
    assert answer(world, update(**of_other_node(str(free)))).status == Status.ACCEPTED
    assert Route(free, ToPeer(endpoint(2))) in world.maars[1].kernel.items.values()
    # From now on it is known, and has this one only, as long as it is on this visit.
    more = update(**of_other_node("2001:db8:1:178::/64"))
    assert answer(world, more).status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a_later_visit_may_bring_one_more_that_nobody_has(world: World) -> None:
    """The Relay-reply that gave it was lost; the CMD named it to the next S-MAAR, which names it here."""
    assert answer(world, update()).status == Status.ACCEPTED
    free = HomeNetworkPrefix(Prefix.parse("2001:db8:1:177::/64"))
    same_visit = update(sequence=10, extra=[free])
    assert answer(world, same_visit).status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX
    later = update(sequence=11, extra=[free], generation=8)
    assert answer(world, later).status == Status.ACCEPTED
    assert Route(free.prefix, ToPeer(endpoint(2))) in world.maars[1].kernel.items.values()
    # What is another node's by now, no MAAR takes from it.
    taken = update(**of_other_node("2001:db8:1:177::/64"), generation=9)
    assert answer(world, taken).status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_a_lost_reply_before_a_move_cuts_nothing_off() -> None:
    world = World()
    world.attach(1)
    more = Prefix.parse("2001:db8:1:220::/60")
    world.cmd.prefixes[more] = (1, True, world.now + world.cmd.valid)  # in a reply that never came
    world.attach(2)
    assert world.cmd.reports == []
    assert more in world.roles(1)
    for start in (None, 1, 2, 3):
        assert world.trace(more, start)[-1] == "node"
    world.check_reached()


def test_nobody_has_a_whole_pool() -> None:
    said = answer(World(), update(**of_other_node("2001:db8:1:200::/56")))
    assert said.status == Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX


def test_one_node_more_than_there_is_room_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay_maar.core.cache.MAX_SESSIONS", 1)
    more = update(**of_other_node("2001:db8:1:177::/64"))
    assert answer(world, more).status == Status.INSUFFICIENT_RESOURCES
    assert answer(world, update()).status == Status.ACCEPTED


def test_a_session_without_prefixes_knows_nothing_of_them(world: World) -> None:
    # The node's visit is known, but the reply that had its prefixes was lost.
    world.cmd.prefixes.clear()
    world.talk(MessageType.SOLICIT)
    assert world.roles(1) == {}
    assert answer(world, update()).status == Status.ACCEPTED


def test_without_the_a_flag_nothing_is_said_but_refusals(world: World) -> None:
    maar = world.maars[1]
    at_maar1(world, update(acknowledge=False))
    assert maar.said == []
    assert set(world.roles(1).values()) == {"anchored"}
    assert answer(world, update(acknowledge=False, generation=0)).status == 157


def test_the_maar_just_left_that_anchors_nothing_is_told_too() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    # The node goes on to MAAR 3, which serves one of the two prefixes that MAAR 1 anchors.
    message = BindingUpdate(
        5,
        4,
        (
            MobileNodeIdentifier(NODE_ID),
            HandoffIndicator(3),
            AccessTechnology(4),
            Timestamp(9),
            PreviousMaarOption(endpoint(1), link_prefix(1)),
            ServingMaar(endpoint(3)),
        ),
    )
    maar = world.maars[2]
    data = encode(message, endpoint(3), endpoint(2))
    world.run(maar, maar.agent.mobility_datagram(endpoint(3), data, world.now))
    answers = [e.message for e in maar.said if isinstance(e.message, BindingAcknowledgement)]
    assert answers[-1].status == Status.ACCEPTED
    assert world.roles(2) == {link_prefix(1): "forwarded", delegated_prefix(1): "ended"}


@pytest.mark.parametrize("source", ["::", "::1", "fe80::2", "ff02::1", "ff0e::2"])
def test_nobody_is_answered_at_an_address_that_is_no_maars(world: World, source: str) -> None:
    maar = world.maars[1]
    sender = parse_address(source)
    data = encode(update(), sender, endpoint(1))
    assert maar.agent.mobility_datagram(sender, data, world.now) == []
    assert maar.agent.status(world.now)["counters"]["mobility.source"] == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:4] + bytes((data[4] ^ 1,)) + data[5:], "checksum"),
        (lambda data: data[:7], "truncated"),
        (lambda data: b"", "truncated"),
    ],
)
def test_unreadable_is_dropped_silently(world: World, spoil: Any, reason: str) -> None:
    maar = world.maars[1]
    data = spoil(encode(update(), endpoint(2), endpoint(1)))
    assert maar.agent.mobility_datagram(endpoint(2), data, world.now) == []
    assert maar.agent.status(world.now)["counters"][f"mobility.{reason}"] == 1


def test_an_unknown_mh_type_gets_a_binding_error_but_not_each(world: World) -> None:
    maar = world.maars[1]
    data = fix_checksum(bytes((59, 0, 99, 0, 0, 0, 0, 0)), endpoint(2), endpoint(1))
    said = maar.agent.mobility_datagram(endpoint(2), data, world.now)
    assert said == [act.SendMobility(endpoint(2), BindingError(2))]
    assert maar.agent.mobility_datagram(endpoint(2), data, world.now) == []
    assert len(maar.agent.mobility_datagram(endpoint(2), data, world.now + 1.0)) == 1


def test_a_slow_kernel_is_waited_for_and_a_duplicate_does_not_double() -> None:
    world = World(slow_kernel=True)
    world.attach(1)
    maar = world.maars[1]
    for sequence in (9, 10):
        data = encode(update(sequence=sequence), endpoint(2), endpoint(1))
        world.run(maar, maar.agent.mobility_datagram(endpoint(2), data, world.now))
    assert maar.said == []
    assert len(maar.applies) == 1
    world.run_kernel(1)
    (said,) = maar.said
    assert isinstance(said.message, BindingAcknowledgement)
    assert (said.message.status, said.message.sequence) == (Status.ACCEPTED, 10)


def test_what_the_kernel_refuses_is_not_acknowledged_and_tried_again(world: World) -> None:
    kernel = world.maars[1].kernel
    key = Route(link_prefix(1), ToPeer(endpoint(2))).key
    kernel.refuse = {key}
    assert answer(world, update()).status == Status.INSUFFICIENT_RESOURCES
    kernel.refuse = set()
    world.pass_time(1.1)
    assert kernel.items[key] == Route(link_prefix(1), ToPeer(endpoint(2)))
    assert answer(world, update(sequence=10)).status == Status.ACCEPTED
    assert world.maars[1].agent.status(world.now)["counters"]["kernel.refused"] == 1


def test_a_cmd_may_speak_for_a_maar() -> None:
    cmd = parse_address("2001:db8:ffff::1")
    world = World(cmds=(cmd,))
    world.attach(1)
    assert answer(world, update(), cmd).status == Status.ACCEPTED
    assert Route(link_prefix(1), ToPeer(endpoint(2))) in world.maars[1].kernel.items.values()


def test_the_node_is_not_at_the_maar_that_is_told_so() -> None:
    cmd = parse_address("2001:db8:ffff::1")
    world = World(cmds=(cmd,))
    world.attach(1)
    assert answer(world, update(serving=endpoint(1)), cmd).status == Status.INVALID_CARE_OF_ADDRESS
