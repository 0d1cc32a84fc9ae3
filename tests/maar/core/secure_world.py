"""CMD and MAARs that share keys: worlds in every mode, and what happened in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dmm_wire.dmm import SignallingMode
from dmm_wire.mobility import BindingAcknowledgement, Key, KeyStore, decode
from dmm_wire.mobility.security import Security
from tests.maar.core.modes_world import CMD, Loses, ModesWorld
from tests.maar.core.pmip_world import PmipWorld
from tests.maar.core.world import Packet, World

PROXY, LOCATOR, RELAY = SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY
MODES = [PROXY, LOCATOR, RELAY]

KEY, NEW, OTHER = Key(1001, b"k" * 32), Key(1002, b"n" * 32), Key(1001, b"w" * 32)
SECURE = Security(KeyStore([KEY]), require=True)
WRONG = Security(KeyStore([OTHER]), require=True)
CHANGE = [
    Security(),
    Security(KeyStore([KEY]), require=False),
    Security(KeyStore([KEY]), require=True),
    Security(KeyStore([KEY, NEW]), require=True),
    Security(KeyStore([NEW, KEY]), require=True),
    Security(KeyStore([NEW]), require=True),
]
"""How a first key comes into a domain, and another one takes its place (docs/security.md)."""
NUMBERS = (1, 2, 3)

Make = Callable[..., ModesWorld]


def secure(
    kind: Make, mode: SignallingMode, loses: Loses | None = None, **changes: Any
) -> ModesWorld:
    """A world of three MAARs with one key for all, unless said otherwise."""
    own = {n: {"security": SECURE} for n in NUMBERS} | changes.pop("own", {})
    return kind(mode, 3, loses, **{"own": own, "security": SECURE, **changes})


def registering() -> PmipWorld:
    """One in which all MAARs register nodes, in mode proxy."""
    own = {n: {"security": SECURE} for n in NUMBERS}
    return PmipWorld(PROXY, 3, own=own, security=SECURE)


def walk(world: ModesWorld, *numbers: int, pause: float = 20.0) -> None:
    for number in numbers:
        world.attach(number)
        world.go_on(pause)


def mobility(world: ModesWorld) -> list[Packet]:
    return [packet for packet in world.sent if packet.kind == "mobility"]


def statuses(world: ModesWorld) -> list[int]:
    messages = [decode(each.data, each.source, each.destination) for each in mobility(world)]
    return [each.status for each in messages if isinstance(each, BindingAcknowledgement)]


def counters(world: ModesWorld, number: int) -> Mapping[str, int]:
    found: dict[str, int] = world.maars[number].agent.status(world.now)["counters"]
    return found


def refused(world: ModesWorld) -> dict[int, dict[str, int]]:
    """What was refused where; 0 is the CMD."""
    found = {
        n: {k: v for k, v in counters(world, n).items() if k.startswith("auth.")} for n in NUMBERS
    }
    found[0] = {k: v for k, v in world.signaller.outcomes.items() if k.startswith("auth-")}
    return {number: counts for number, counts in found.items() if counts}


def state(world: ModesWorld) -> object:
    """Whatever a forged or repeated message could change."""
    tables = world.store.tables
    return (
        {n: dict(maar.kernel.items) for n, maar in world.maars.items()},
        {n: world.roles(n) for n in NUMBERS},
        dict(tables.nodes),
        dict(tables.bindings),
        dict(tables.signals),
    )


def hear(world: ModesWorld, *packets: Packet) -> None:
    """These come from somebody who is none of them."""
    for packet in packets:
        if packet.destination == CMD:
            world.hear(packet.source, packet.data)
        else:
            World.deliver(world, packet)
        world.settle()


def again(world: ModesWorld, packets: list[Packet]) -> None:
    """Somebody sends these again, twice."""
    hear(world, *packets * 2)


def restart_cmd(world: ModesWorld) -> None:
    world.start_cmd()
    world.settle()
