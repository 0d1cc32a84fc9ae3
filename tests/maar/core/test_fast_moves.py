"""A node that moves for the fourth time within a second. What MAAR1, its first anchor, is owed then is held back (RFC
8885 section 3.6), and what can be open all the same is.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import pytest

from dhcp_cmd.core.model import Kind
from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import MAX_UPDATE_RATE
from tests.maar.core.modes_world import ModesWorld

DIRECT, PROXY = SignallingMode.DIRECT, SignallingMode.PROXY
LOCATOR, RELAY = SignallingMode.LOCATOR, SignallingMode.RELAY
OPEN_AT_ONCE: Final = {DIRECT: True, PROXY: True, LOCATOR: False, RELAY: False}
"""Whether what MAAR1 anchors leads to the node at a MAAR where it never was, before MAAR1 has its PBU."""
PAUSE: Final = 0.24
"""Seconds: longer than an answer waits in mode relay, and four of them are no second."""


def walked(mode: SignallingMode, *maars: int) -> ModesWorld:
    """A node that lived at MAAR 1 has gone from one of these to the next in less than a second."""
    world = ModesWorld(mode, max(maars))
    world.attach(1)
    world.go_on(60.0)
    world.mark()
    for number in maars:
        world.attach(number)
        world.go_on(PAUSE)
    return world


def leads_to_the_node(world: ModesWorld, anchor: int) -> bool:
    """Whether all that this MAAR anchors for it does."""
    mine = {
        row.prefix
        for row in world.store.bindings.values()
        if row.anchor == anchor and row.kind is not Kind.ADDRESS
    }
    assert mine
    return all(world.trace(prefix)[-1] == "node" for prefix in mine)


def updates(world: ModesWorld) -> dict[str, list[float]]:
    """When PBUs went, by sender and receiver."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for line in world.record:
        at, _, said = line.strip().partition("  ")
        if "PBU" in said:
            found[said.split("  PBU")[0].strip()].append(float(at))
    return found


@pytest.mark.parametrize("mode", OPEN_AT_ONCE)
def test_to_maars_where_it_never_was(mode: SignallingMode) -> None:
    world = walked(mode, 2, 3, 4, 5)
    assert world.signaller.outcomes["pbu-held-back"] == (mode is not DIRECT)
    assert leads_to_the_node(world, 1) == OPEN_AT_ONCE[mode]
    assert all(leads_to_the_node(world, anchor) for anchor in (2, 3, 4, 5))
    world.go_on(PAUSE)
    world.check()
    sent = updates(world)
    if mode is not DIRECT:
        # As soon as it may, and about where the node is now.
        assert sent["cmd > maar1"] == [0.0, PAUSE, 2 * PAUSE, 1.0]
        assert "PBU: at maar5" in [line for line in world.record if "cmd > maar1" in line][-1]
    for moments in sent.values():
        for start in moments:
            assert sum(start <= each < start + 1.0 for each in moments) <= MAX_UPDATE_RATE


@pytest.mark.parametrize("mode", OPEN_AT_ONCE)
def test_to_and_fro(mode: SignallingMode) -> None:
    """An S-MAAR serves on what it served before, and the MAAR just left sends it what comes from MAAR 1."""
    world = walked(mode, 2, 3, 2, 3)
    assert world.signaller.outcomes["pbu-held-back"] == (mode is not DIRECT)
    assert all(leads_to_the_node(world, anchor) for anchor in (1, 2, 3))
    world.go_on(PAUSE)
    world.check()
