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


def awaited(world: World, anchor: int = 1) -> tuple[Prefix, Prefix]:
    """What that MAAR anchors: the prefix of the node's addresses, and the delegated one."""
    link, delegated = sorted(
        (p for p, role in world.roles(anchor).items() if role == "anchored"),
        key=lambda prefix: -prefix.length,
    )
    return link, delegated


def test_what_the_cmd_said_is_served_when_its_anchor_says_so(world: ModesWorld) -> None:
    assert served(world) == set()
    link, delegated = awaited(world)
    named = HomeNetworkPrefix(link), DelegatedPrefix(delegated)
    say(world, endpoint(1), *named, at=generation(world), lifetime=12_000)
    assert served(world) == {link, delegated}
    (session,) = world.maars[2].agent.status(world.now)["sessions"]
    entries = {each["prefix"]: each for each in session["prefixes"]}
    assert entries[str(delegated)]["delegated"]
    assert not entries[str(link)]["delegated"]
    assert entries[str(link)]["anchor"] == "2001:db8:1::1"
    assert entries[str(link)]["lifetime"] == 12_000
    world.mark()
    world.go_on(5.0)
    assert not [line for line in world.record if "Information-request" in line]


def test_the_cmd_says_the_lifetime_to_the_second(world: ModesWorld) -> None:
    link, _ = awaited(world)
    (signalled,) = (s.signalled for s in world.maars[2].agent._cache)
    assert signalled is not None
    (expires,) = (e.expires for e in signalled.awaited if e.prefix == link)
    say(world, endpoint(1), HomeNetworkPrefix(link), at=generation(world), lifetime=8)
    (session,) = world.maars[2].agent._cache
    entry = session.find(link)
    assert entry is not None
    assert entry.expires == expires


def test_what_its_anchor_does_not_name_is_asked_for(world: ModesWorld) -> None:
    link, delegated = awaited(world)
    say(world, endpoint(1), HomeNetworkPrefix(link), at=generation(world))
    assert served(world) == {link}
    world.mark()
    world.go_on(5.0)
    assert [line for line in world.record if "Relay-forward(Information-request)" in line]
    assert served(world) == {link, delegated}, "the CMD has heard of it meanwhile"


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


def test_only_what_the_cmd_has_named_is_believed(world: ModesWorld) -> None:
    """A second copy, late, may name what has ended since; and what an anchor makes up is nobody's."""
    mine, _ = pools(2)
    (local,) = [p for p, role in world.roles(2).items() if role == "local" and p.length == 64]
    wrong = [FROM_ONE, mine, local, Prefix.parse("2001:db8::/32"), Prefix.parse("8000::/1")]
    say(world, endpoint(1), *map(HomeNetworkPrefix, wrong), at=generation(world))
    assert served(world) == set()
    assert counted(world, "unnamed-prefix") == len(wrong)
    # Nor what is anchored at another one, awaited or served.
    link, _ = awaited(world)
    for count, speaker in ((1, 3), (1, 1), (2, 3)):
        say(world, endpoint(speaker), HomeNetworkPrefix(link), at=generation(world))
        assert counted(world, "unnamed-prefix") == len(wrong) + count
        assert served(world) == ({link} if count == 2 or speaker == 1 else set())
    (session,) = world.maars[2].agent.status(world.now)["sessions"]
    anchors = {e["anchor"] for e in session["prefixes"] if e["prefix"] == str(link)}
    assert anchors == {"2001:db8:1::1"}


def test_what_has_ended_stays_unreachable_while_its_anchor_still_sends_it(
    world: ModesWorld,
) -> None:
    link, _ = awaited(world)
    say(world, endpoint(1), HomeNetworkPrefix(link), at=generation(world), sequence=7)
    assert served(world) == {link}
    world.release(anchored_at=1)
    world.settle()
    assert world.roles(2)[link] == "ended"
    # Without the route what is under way, and what still comes, would go back to the anchor.
    say(world, endpoint(1), HomeNetworkPrefix(link), at=generation(world), sequence=8)
    assert world.roles(2)[link] == "ended"
    say(world, endpoint(1), at=generation(world), sequence=9)
    assert link not in world.roles(2)


def test_a_node_that_is_not_here_is_not_served_whoever_says_so(world: ModesWorld) -> None:
    """Of the very visit that it is known to be on elsewhere."""
    link, _ = awaited(world)
    world.attach(3)
    world.go_on(5.0)
    before = world.roles(2)
    tunnels = world.maars[2].agent.status(world.now)["tunnels"]
    for source in (endpoint(1), CMD):
        named = [HomeNetworkPrefix(link), PreviousMaarOption(endpoint(1), link)]
        say(world, source, *named, at=generation(world))
    assert world.roles(2) == before
    assert world.maars[2].agent.status(world.now)["tunnels"] == tunnels
    assert counted(world, "early") == 2
    assert counted(world, "unsolicited") == 0


def test_the_cmd_speaks_for_the_maars_of_the_domain(world: ModesWorld) -> None:
    stranger = parse_address("2001:db8:77::1")
    link, delegated = awaited(world)
    say(
        world,
        CMD,
        HomeNetworkPrefix(link),
        PreviousMaarOption(endpoint(1), link),
        PreviousMaarOption(stranger, delegated),
        at=generation(world),
    )
    assert served(world) == {link}


def test_one_that_comes_too_early_is_kept_for_a_while() -> None:
    for wait, is_kept in ((EARLY - 1.0, True), (EARLY + 1.0, False)):
        world = ModesWorld(SignallingMode.LOCATOR, 2, lambda what, before: "maar1 > maar2" in what)
        world.attach(1)
        world.go_on(30.0)
        (link,) = (p for p, r in world.roles(1).items() if r == "local" and p.length == 64)
        future = (1_800_000_000 + round(world.now + wait)) << 16
        say(world, endpoint(1), HomeNetworkPrefix(link), at=future)
        world.go_on(wait)
        world.attach(2)
        world.go_on(0.0)
        assert generation(world) == future
        assert served(world) == ({link} if is_kept else set())


def test_no_more_than_so_many_are_kept(world: ModesWorld) -> None:
    for number in range(MOST_EARLY + 10):
        node = Identity(IdentitySubtype.DUID, b"\0\3\0\1" + number.to_bytes(6, "big"))
        say(world, endpoint(1), HomeNetworkPrefix(FROM_ONE), at=1, node=node)
    assert counted(world, "early") == MOST_EARLY + 10
    assert len(world.maars[2].agent._unsolicited._early) == MOST_EARLY


def test_what_an_anchor_said_before_its_last_word_is_late(world: ModesWorld) -> None:
    at, one = generation(world), endpoint(1)
    link, _ = awaited(world)
    say(world, one, at=at, sequence=7)
    say(world, one, HomeNetworkPrefix(link), at=at, sequence=6)
    assert served(world) == set()
    assert counted(world, "overtaken") == 1
    say(world, one, HomeNetworkPrefix(link), at=at, sequence=8)
    assert served(world) == {link}


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
