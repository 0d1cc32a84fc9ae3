"""PBAs that answer no PBU: which of them are believed, and of what."""

from __future__ import annotations

import pytest

from dmm_wire.address import Prefix, parse_address
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    AccessTechnology,
    BindingAcknowledgement,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    MobileNodeIdentifier,
    MobilityOption,
    PreviousMaarOption,
    Timestamp,
    encode,
)
from relay_maar.core.unsolicited import EARLY, MOST_EARLY
from tests.maar.core.modes_world import CMD, ModesWorld
from tests.maar.core.world import NODE_ID, World, endpoint, pools

FROM_ONE = Prefix.parse("2001:db8:1:177::/64")
"""A prefix of MAAR 1 that nobody has."""


@pytest.fixture
def world() -> ModesWorld:
    """The node has moved from MAAR 1 to MAAR 2, which has not heard from MAAR 1."""
    world = ModesWorld(SignallingMode.LOCATOR, 3, lambda what, before: "maar1 > maar2" in what)
    world.attach(1)
    world.go_on(30.0)
    world.attach(2)
    world.go_on(0.5)
    return world


def generation(world: ModesWorld) -> int:
    (node,) = world.store.tables.nodes.values()
    return node.generation


def say(
    world: World,
    source: bytes,
    *prefixes: MobilityOption,
    at: int,
    node: Identity = NODE_ID,
    status: int = 0,
    lifetime: int = 1200,
    dmm: bool = True,
    sequence: int = 7,
) -> None:
    """A PBA to MAAR 2."""
    options = (
        MobileNodeIdentifier(node),
        *prefixes,
        HandoffIndicator(0),
        AccessTechnology(1),
        Timestamp(at),
    )
    answer = BindingAcknowledgement(status, sequence, lifetime, options, dmm=dmm)
    data = encode(answer, source, endpoint(2))
    maar = world.maars[2]
    world.run(maar, maar.agent.mobility_datagram(source, data, world.now))


def counted(world: World, name: str) -> int:
    return int(world.maars[2].agent.status(world.now)["counters"].get(f"pba.{name}", 0))


def served(world: World) -> set[Prefix]:
    return {prefix for prefix, role in world.roles(2).items() if role == "served"}


def test_what_an_anchor_says_of_its_own_is_believed(world: ModesWorld) -> None:
    assert served(world) == set()
    delegated = Prefix.parse("2001:db8:1:2f0::/60")
    say(
        world,
        endpoint(1),
        HomeNetworkPrefix(FROM_ONE),
        DelegatedPrefix(delegated),
        at=generation(world),
    )
    assert served(world) == {FROM_ONE, delegated}
    (session,) = world.maars[2].agent.status(world.now)["sessions"]
    entries = {each["prefix"]: each for each in session["prefixes"]}
    assert entries[str(delegated)]["delegated"]
    assert entries[str(FROM_ONE)]["anchor"] == "2001:db8:1::1"
    assert entries[str(FROM_ONE)]["lifetime"] == 1200
    world.go_on(5.0)
    assert not [line for line in world.record if "Information-request" in line and "0.5" in line]


@pytest.mark.parametrize(
    ("source", "change"),
    [
        ("2001:db8:77::1", {}),
        ("2001:db8:1::1", {"dmm": False}),
        ("2001:db8:1::1", {"status": 130}),
        ("2001:db8:1::1", {"at": 1}),
        ("2001:db8:1::1", {"at": 1 << 62}),
        ("2001:db8:1::1", {"node": Identity(IdentitySubtype.DUID, b"\0\3\0\1another")}),
    ],
)
def test_what_is_not_believed_changes_nothing(
    world: ModesWorld, source: str, change: dict[str, int]
) -> None:
    before = world.maars[2].agent.status(world.now)["sessions"]
    what = {"at": generation(world), **change}
    say(world, parse_address(source), HomeNetworkPrefix(FROM_ONE), **what)  # type: ignore[arg-type]
    assert world.maars[2].agent.status(world.now)["sessions"] == before
    assert sum(counted(world, name) for name in ("unmatched", "stale", "early")) == 1


def test_only_what_can_be_the_nodes_is_believed(world: ModesWorld) -> None:
    mine, _ = pools(2)
    (local,) = [p for p, role in world.roles(2).items() if role == "local" and p.length == 64]
    wrong = [mine, local, Prefix.parse("2001:db8::/32"), Prefix.parse("ff02::/64")]
    wrong.append(Prefix.parse("8000::/1"))
    say(world, endpoint(1), *map(HomeNetworkPrefix, wrong), at=generation(world))
    assert served(world) == set()
    assert counted(world, "bad-prefix") == len(wrong)
    # Nor what another anchor has said is its own.
    say(world, endpoint(1), HomeNetworkPrefix(FROM_ONE), at=generation(world))
    say(world, endpoint(3), HomeNetworkPrefix(FROM_ONE), at=generation(world))
    (session,) = world.maars[2].agent.status(world.now)["sessions"]
    anchors = {e["anchor"] for e in session["prefixes"] if e["prefix"] == str(FROM_ONE)}
    assert anchors == {"2001:db8:1::1"}


def test_no_anchor_names_what_is_in_a_pool_of_ours() -> None:
    """Nor what a pool of ours is in: neither is anybody's, so that nothing else would stop it."""
    unused = Prefix.parse("2001:db8:7700::/48")
    world = ModesWorld(SignallingMode.LOCATOR, 3, own={2: {"pools": (*pools(2), unused)}})
    for number in (1, 2):
        world.attach(number)
        world.go_on(30.0)
    before = world.roles(2)
    wrong = [
        HomeNetworkPrefix(Prefix.parse("2001:db8:7700:77::/64")),
        DelegatedPrefix(Prefix.parse("2001:db8:2:2f0::/60")),
        HomeNetworkPrefix(Prefix.parse("2001:db8:7700::/40")),
    ]
    for each in wrong:
        say(world, endpoint(1), each, at=generation(world))
    assert world.roles(2) == before
    assert counted(world, "bad-prefix") == 3


def test_a_node_that_is_not_here_is_not_served_whoever_says_so(world: ModesWorld) -> None:
    """Of the very visit that it is known to be on elsewhere."""
    world.attach(3)
    world.go_on(5.0)
    before = world.roles(2)
    tunnels = world.maars[2].agent.status(world.now)["tunnels"]
    for source in (endpoint(1), CMD):
        named = [HomeNetworkPrefix(FROM_ONE), PreviousMaarOption(endpoint(1), FROM_ONE)]
        say(world, source, *named, at=generation(world))
    assert world.roles(2) == before
    assert world.maars[2].agent.status(world.now)["tunnels"] == tunnels
    assert counted(world, "early") == 2
    assert counted(world, "unsolicited") == 0


def test_the_cmd_speaks_for_the_maars_of_the_domain(world: ModesWorld) -> None:
    stranger = parse_address("2001:db8:77::1")
    other = Prefix.parse("2001:db8:77:1::/64")
    say(
        world,
        CMD,
        HomeNetworkPrefix(FROM_ONE),
        PreviousMaarOption(endpoint(1), FROM_ONE),
        PreviousMaarOption(stranger, other),
        at=generation(world),
    )
    assert served(world) == {FROM_ONE}


def test_one_that_comes_too_early_is_kept_for_a_while() -> None:
    for wait, expected in ((EARLY - 1.0, {FROM_ONE}), (EARLY + 1.0, set())):
        world = ModesWorld(SignallingMode.LOCATOR, 2, lambda what, before: "maar1 > maar2" in what)
        world.attach(1)
        world.go_on(30.0)
        future = (1_800_000_000 + round(world.now + wait)) << 16
        say(world, endpoint(1), HomeNetworkPrefix(FROM_ONE), at=future)
        world.go_on(wait)
        world.attach(2)
        world.go_on(0.0)
        assert generation(world) == future
        assert served(world) == expected


def test_no_more_than_so_many_are_kept(world: ModesWorld) -> None:
    for number in range(MOST_EARLY + 10):
        node = Identity(IdentitySubtype.DUID, b"\0\3\0\1" + number.to_bytes(6, "big"))
        say(world, endpoint(1), HomeNetworkPrefix(FROM_ONE), at=1, node=node)
    assert counted(world, "early") == MOST_EARLY + 10
    assert len(world.maars[2].agent._unsolicited._early) == MOST_EARLY


def test_what_an_anchor_said_before_its_last_word_is_late(world: ModesWorld) -> None:
    """That prefix ended before anybody here had heard of it."""
    at, one = generation(world), endpoint(1)
    say(world, one, at=at, sequence=7)
    say(world, one, HomeNetworkPrefix(FROM_ONE), at=at, sequence=6)
    assert served(world) == set()
    assert counted(world, "overtaken") == 1
    say(world, one, HomeNetworkPrefix(FROM_ONE), at=at, sequence=8)
    assert served(world) == {FROM_ONE}


def test_where_the_s_maar_signals_nobody_else_is_believed() -> None:
    world = World()
    world.attach(1)
    world.attach(2)
    before = world.roles(2)
    say(world, endpoint(1), HomeNetworkPrefix(FROM_ONE), at=world.cmd.generation)
    assert world.roles(2) == before
    assert counted(world, "unmatched") == 1


def test_a_node_that_comes_back_is_served_on_until_the_anchor_has_spoken() -> None:
    lost = False
    world = ModesWorld(
        SignallingMode.LOCATOR, 3, lambda what, before: lost and "PB" in what and "maar1" in what
    )
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(30.0)
    of_one = {p for p, role in world.roles(1).items() if role == "anchored"}
    assert {role for p, role in world.roles(2).items() if p in of_one} == {"forwarded"}
    lost = True
    world.attach(2)
    world.go_on(0.5)
    assert of_one <= served(world)
    # What the anchor does not name when it speaks has ended.
    say(world, endpoint(1), at=generation(world))
    assert not of_one & served(world)
    lost = False
    world.go_on(40.0)
    world.check()
