"""Whom the S-MAAR has heard of, message by message: what comes early or twice must not pass for what is missing."""

from __future__ import annotations

from dmm_wire.dmm import SignallingMode
from tests.maar.core.modes_world import ModesWorld
from tests.maar.core.pmip_world import PmipWorld, walked
from tests.maar.core.world import endpoint

LOCATOR, RELAY = SignallingMode.LOCATOR, SignallingMode.RELAY


def served(world: ModesWorld, number: int) -> set[int]:
    """The anchors of what is served at this MAAR."""
    anchors = {b.prefix: b.anchor for b in world.store.bindings.values()}
    return {anchors[p] for p, role in world.roles(number).items() if role == "served"}


def again(world: ModesWorld, number: int, to: int) -> None:
    """The second copy of the first PBA from one MAAR to another one comes."""
    copies = [
        packet
        for packet in world.sent
        if (packet.source, packet.destination) == (endpoint(number), endpoint(to))
    ]
    world.wire.append(copies[0])
    world.settle()


def test_what_overtakes_the_visit_is_not_counted_twice() -> None:
    """The PBA about MAAR 1 comes before the VISIT that names it, too; that about MAAR 2 is lost. (Seen in the fault
    run.)"""
    on = False
    lost = {
        "cmd > maar1  PBU: at maar3, 1 prefixes, of maar2": 1,
        "cmd > maar2  PBU: at maar3, 1 prefixes, of maar1": 3,
        "cmd > maar3  PBA: status 0, 1 prefixes": 1,  # the registration's
        "cmd > maar3  PBA: status 0, 1 prefixes, of maar2": 1,
    }
    world = PmipWorld(RELAY, 3, lambda what, before: on and before < lost.get(what.strip(), 0))
    walked(world, 1, 2)
    on = True
    world.mark()
    world.forget_what_was_said()
    walked(world, 3, pause=40.0)
    assert [line for line in world.record if "cmd > maar3" in line] == [
        "  0.200    cmd > maar3  PBA: status 0, 1 prefixes  LOST",
        "  1.000    cmd > maar3  PBA: status 0, 1 prefixes, of maar1",
        "  1.200    cmd > maar3  PBA: status 0, 1 prefixes, of maar1",
        "  2.000    cmd > maar3  PBA: status 0, 1 prefixes, of maar2  LOST",
        "  2.200    cmd > maar3  PBA: status 0, 1 prefixes, of maar1 maar2",
    ]
    world.check()


def waiting() -> ModesWorld:
    """At MAAR 3 in mode locator: it has heard from MAAR 1, by a copy and by the CMD, and not from MAAR 2."""
    deaf: set[str] = set()
    world = ModesWorld(LOCATOR, 3, lambda what, _: any(f"{each}  PBU" in what for each in deaf))
    for number in (1, 2):
        world.attach(number)
        world.go_on(10.0)
    deaf.add("maar2")
    world.attach(3)
    world.go_on(2.5)
    assert "Relay-reply(Reply): maar1, 1 to come" in world.record[-1]
    return world


def test_what_comes_twice_is_not_counted_twice() -> None:
    world = waiting()
    again(world, 1, to=3)
    world.mark()
    world.go_on(10.0)
    assert any("maar3 > cmd    Relay-forward" in line for line in world.record), "it still asks"
    assert served(world, 3) == {1}


def test_what_has_ended_does_not_come_back() -> None:
    """Whether the CMD still waits for others or not."""
    world = waiting()
    world.release(anchored_at=1)
    world.settle()
    assert served(world, 3) == set()
    again(world, 1, to=3)
    assert served(world, 3) == set()
    world.release(anchored_at=2)
    world.settle()
    again(world, 1, to=3)
    assert served(world, 3) == set()
    assert "served" not in world.roles(3).values()


def test_a_first_word_that_comes_too_late_is_nobody_elses() -> None:
    """MAAR 1 says that it sends something, which ends before that is heard; MAAR 2 is still missing."""
    on = False
    world = ModesWorld(
        LOCATOR, 3, lambda what, _: on and ("maar2  PBU" in what or "maar1 > maar3" in what)
    )
    for number in (1, 2):
        world.attach(number)
        world.go_on(10.0)
    on = True
    world.attach(3)
    world.settle()
    world.release(anchored_at=1)
    world.settle()
    again(world, 1, to=3)
    assert served(world, 3) == set()
    world.mark()
    world.go_on(10.0)
    assert any("maar3 > cmd    Relay-forward" in line for line in world.record), "it still asks"
    on = False
    world.go_on(40.0)
    assert served(world, 3) == {2}
    world.check()


def test_who_says_that_it_serves_nothing_is_not_counted() -> None:
    """What the node had from MAAR 1 ends before MAAR 1 was heard of; that it says so is no word of MAAR 3."""
    deaf: set[str] = set()
    world = ModesWorld(LOCATOR, 3, lambda what, _: any(f"{each}  PBU" in what for each in deaf))
    for number in (1, 2, 3):
        world.attach(number)
        world.go_on(10.0)
    deaf.update(("maar1", "maar3"))
    world.attach(2)
    world.settle()
    world.release(anchored_at=1)
    world.settle()
    answer, update = world.record[-2:]
    assert "Relay-reply(Reply), 1 to come" in answer
    assert "cmd > maar1  PBU: at maar2, 0 prefixes" in update
    deaf.remove("maar1")
    world.go_on(2.0)
    assert any("maar1 > maar2  PBA: status 0, 0 prefixes" in line for line in world.record)
    world.mark()
    world.go_on(40.0)
    assert any("maar2 > cmd    Relay-forward" in line for line in world.record), "it still asks"
