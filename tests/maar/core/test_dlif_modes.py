"""As which routers anchors are shown where the CMD signals (RFC 8885 sections 3.2 to 3.4, 4.7, 4.8): said by the CMD or
by the anchors, in DHCPv6 or in PMIPv6.
"""

from __future__ import annotations

import logging

import pytest

from dmm_wire.address import parse_address
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import BindingAcknowledgement, PreviousMaarOption, decode
from dmm_wire.mobility.routers import routers_in
from dmm_wire.router_identity import RouterIdentity, of_anchor
from relay_maar.core.items import Dlif
from tests.maar.core.modes_world import CMD
from tests.maar.core.pmip_world import PmipWorld, walked
from tests.maar.core.world import endpoint

MODES = [SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY]
CHOSEN = {
    1: RouterIdentity(parse_address("fe80::1"), bytes.fromhex("02005e005301")),
    3: RouterIdentity(parse_address("fe80::3"), bytes.fromhex("02005e005303")),
}
COUNT = 4


def router_of(number: int) -> RouterIdentity:
    return CHOSEN.get(number) or of_anchor(endpoint(number))


def shown(world: PmipWorld, number: int) -> set[RouterIdentity]:
    items = world.maars[number].kernel.items.values()
    return {item.identity for item in items if isinstance(item, Dlif)}


def counters(world: PmipWorld, number: int) -> dict[str, int]:
    found: dict[str, int] = world.maars[number].agent.status(world.now)["counters"]
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fed", [(), (1, 2, 3, 4), (2, 4)])
def test_each_anchor_is_shown_as_itself(mode: SignallingMode, fed: tuple[int, ...]) -> None:
    world = PmipWorld(mode, COUNT, fed=fed, routers=CHOSEN)
    visited: set[int] = set()
    for number in (1, 2, 3, 4, 1):
        walked(world, number)
        visited.add(number)
        assert shown(world, number) == {router_of(other) for other in visited - {number}}
        world.check()
        assert not [name for name in counters(world, number) if name.startswith("router.")]


@pytest.mark.parametrize("mode", MODES)
def test_in_a_pba_the_cmd_says_it_behind_the_p_maar(mode: SignallingMode) -> None:
    world = walked(PmipWorld(mode, COUNT, routers=CHOSEN), 1, 2, 3)
    world.sent.clear()
    walked(world, 4, pause=40)
    said: dict[bytes, tuple[bytes | None, bytes | None]] = {}
    for packet in world.sent:
        if packet.kind == "mobility" and packet.destination == endpoint(4):
            answer = decode(packet.data, packet.source, packet.destination)
            assert isinstance(answer, BindingAcknowledgement)
            named = {o.endpoint for o in answer.options if isinstance(o, PreviousMaarOption)}
            found = routers_in(answer.options, None if packet.source == CMD else packet.source)
            assert set(found) == (named if packet.source == CMD else {packet.source})
            said |= found
    assert said == {endpoint(number): tuple(router_of(number)) for number in (1, 2, 3)}


def test_what_is_late_in_mode_relay_says_it_too() -> None:
    is_lost = False
    world = PmipWorld(
        SignallingMode.RELAY,
        2,
        lambda what, before: is_lost and "PBU: at maar" in what and not before,
        routers=CHOSEN,
    )
    walked(world, 1)
    is_lost = True
    world.forget_what_was_said()
    walked(world, 2)
    assert "PBA: status 0, 1 prefixes, of maar1" in world.record[-1]
    assert shown(world, 2) == {router_of(1)}


@pytest.mark.parametrize("mode", MODES)
def test_a_maar_that_is_another_router_than_is_registered(
    mode: SignallingMode, caplog: pytest.LogCaptureFixture
) -> None:
    """The CMD hears it from its PBA, and says so once."""
    real = of_anchor(endpoint(1))
    with caplog.at_level(logging.WARNING):
        world = PmipWorld(mode, 3, routers=CHOSEN, own={1: {"identity": real}})
        walked(world, 1, 2, 3)
    lines = [line for line in caplog.messages if "another router" in line]
    assert len(lines) == 1
    assert world.signaller.outcomes["pba-router-differs"] == 2
    # In mode locator the anchor itself told the S-MAAR, too; what was news last counts.
    assert len(shown(world, 3)) == 2
    assert shown(world, 3) <= {CHOSEN[1], real, router_of(2)}


@pytest.mark.parametrize("fed", [(), (1, 2, 3)])
def test_where_all_are_one_nobody_says_anything(fed: tuple[int, ...]) -> None:
    world = walked(PmipWorld(SignallingMode.LOCATOR, 3, fed=fed), 1, 2, 3)
    answers = [
        decode(packet.data, packet.source, packet.destination)
        for packet in world.sent
        if packet.kind == "mobility"
    ]
    assert answers
    assert not any(routers_in(each.options, CMD) for each in answers)
    assert shown(world, 3) == set()
