"""A P-MAAR that does not anchor one of several prefixes: only that one ends (RFC 5213 section 5.3.6: it echoes all)."""

from __future__ import annotations

import pytest

from dmm_wire import dmm
from dmm_wire.address import Prefix
from dmm_wire.dmm import DEFAULT_ENTERPRISE, SignallingMode
from dmm_wire.mobility import (
    BindingUpdate,
    DelegatedPrefix,
    HomeNetworkPrefix,
    MobileNodeIdentifier,
    Status,
    UnknownOption,
    VendorSpecific,
    encode,
)
from dmm_wire.mobility.answers import acknowledge
from dmm_wire.mobility.serving import refusal_options, refused_prefixes
from relay_maar.core.session import MAX_PREFIXES
from tests.maar.core.modes_world import ModesWorld
from tests.maar.core.world import (
    NODE_ID,
    World,
    delegated_prefix,
    endpoint,
    link_prefix,
    pools,
)

NAMED = ((link_prefix(1), False), (delegated_prefix(1), True))


def lose_the_delegated_pool(world: World) -> None:
    """MAAR 1 starts anew, without its records and with its LINK pool alone."""
    maar = world.maars[1]
    maar.file = {key: each for key, each in maar.file.items() if not key.startswith("duid")}
    world.own[1] = {"pools": pools(1)[:1]}
    world.restart(1)
    world.settle()


def test_only_the_refused_one_ends_in_mode_direct() -> None:
    world = World()
    world.attach(1)
    lose_the_delegated_pool(world)
    world.attach(2)
    assert world.cmd.reports == [dmm.AnchorFailed(delegated_prefix(1), endpoint(1))]
    assert world.roles(1) == {link_prefix(1): "anchored"}
    assert world.trace(link_prefix(1))[-1] == "node"
    assert world.roles(2)[link_prefix(1)] == "served"


@pytest.mark.parametrize(
    "mode", [SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY]
)
def test_only_the_refused_one_ends_where_the_cmd_signals(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 2)
    world.attach(1)
    world.go_on(5.0)
    lose_the_delegated_pool(world)
    world.attach(2)
    world.go_on(10.0)
    kept = [b.kind for b in world.store.bindings.values() if b.anchor == 1 and b.state != "ended"]
    assert sorted(kept) == ["address", "link"]
    assert list(world.roles(1).values()) == ["anchored"]
    world.check()


def refusal(*options: VendorSpecific | UnknownOption) -> list[Prefix]:
    """What a refusal with these options is about."""
    update = BindingUpdate(1, 600, (MobileNodeIdentifier(NODE_ID),))
    answer = acknowledge(update, Status.NOT_AUTHORIZED_FOR_HOME_NETWORK_PREFIX, beside=options)
    return refused_prefixes(answer, NAMED, DEFAULT_ENTERPRISE)


def test_what_a_refusal_is_about() -> None:
    both = [prefix for prefix, _ in NAMED]
    (said,) = refusal_options([delegated_prefix(1)], endpoint(1), DEFAULT_ENTERPRISE)
    (strange,) = refusal_options([link_prefix(3)], endpoint(1), DEFAULT_ENTERPRISE)
    assert isinstance(said, VendorSpecific)
    assert isinstance(strange, VendorSpecific)
    assert refusal(said) == [delegated_prefix(1)]
    assert refusal(said, strange) == [delegated_prefix(1)], "only what was named"
    # Of who does not say, it is about all: a MAAR of another make, or another enterprise.
    assert refusal() == both
    assert refusal(strange) == both
    assert refusal(VendorSpecific(1, said.subtype, said.data)) == both
    assert refusal(VendorSpecific(DEFAULT_ENTERPRISE, said.subtype, b"\0")) == both
    assert refusal(VendorSpecific(DEFAULT_ENTERPRISE, 5, said.data)) == both


def test_a_refusal_of_all_that_can_be_named_fits() -> None:
    prefixes = [Prefix.of(bytes((0x20, 1, n)) + bytes(13), 64) for n in range(MAX_PREFIXES)]
    named = [HomeNetworkPrefix(each) for each in prefixes[:16]]
    named += [DelegatedPrefix(each) for each in prefixes[16:]]  # type: ignore[misc]
    update = BindingUpdate(1, 600, (MobileNodeIdentifier(NODE_ID), *named))
    said = refusal_options(prefixes, endpoint(1), DEFAULT_ENTERPRISE)
    answer = acknowledge(update, 155, beside=said)
    assert len(encode(answer, endpoint(1), endpoint(2))) <= 2048
    # The others are refused the next time.
    found = refused_prefixes(answer, [(each, False) for each in prefixes], DEFAULT_ENTERPRISE)
    assert found == prefixes[:16]
