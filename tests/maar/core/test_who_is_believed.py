"""Who may tell a MAAR where a node is, in each mode, and when the mode changes (docs/security.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dhcp_cmd.core.model import Kind
from dmm_wire.address import Prefix, parse_address
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import SignallingMode
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    BindingAcknowledgement,
    BindingUpdate,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    MobilityOption,
    ServingMaar,
    Status,
    Timestamp,
    decode,
    encode,
)
from tests.maar.core.modes_world import CMD, ModesWorld
from tests.maar.core.pmip_world import PmipWorld, walked
from tests.maar.core.world import MAC, NODE_ID, endpoint

DIRECT, PROXY = SignallingMode.DIRECT, SignallingMode.PROXY
SIGNALLED = (SignallingMode.PROXY, SignallingMode.LOCATOR, SignallingMode.RELAY)
STRANGER = parse_address("2001:db8:77::1")
ANOTHER = Identity(IdentitySubtype.DUID, b"\0\3\0\1another")
UNAUTHORIZED = Status.MAG_NOT_AUTHORIZED_FOR_PROXY_REG


def last_update(world: ModesWorld, to: int) -> BindingUpdate:
    """The last PBU to this MAAR."""
    for packet in reversed(world.sent):
        if packet.kind == "mobility" and packet.destination == endpoint(to):
            message = decode(packet.data, packet.source, packet.destination)
            if isinstance(message, BindingUpdate):
                return message
    raise AssertionError("there was none")


def forged(update: BindingUpdate, *others: MobilityOption) -> BindingUpdate:
    """The same with these options in place of those of their kind."""
    kinds = {type(other): other for other in others}
    options = tuple(kinds.get(type(option), option) for option in update.options)
    return replace(update, sequence=update.sequence + 1, options=options)


def later(update: BindingUpdate, seconds: int) -> Timestamp:
    """A generation that is later than that of the PBU."""
    (told,) = (o.value for o in update.options if isinstance(o, Timestamp))
    return Timestamp(told + (seconds << 16))


def tell(world: ModesWorld, to: int, source: bytes, update: BindingUpdate) -> int:
    """The status that MAAR `to` gives the PBU of `source`."""
    maar = world.maars[to]
    maar.said.clear()
    data = encode(update, source, endpoint(to))
    world.run(maar, maar.agent.mobility_datagram(source, data, world.now))
    (answer,) = (a.message for a in maar.said if isinstance(a.message, BindingAcknowledgement))
    return answer.status


def peers(world: ModesWorld, number: int) -> set[bytes]:
    return set(map(parse_address, world.maars[number].agent.status(world.now)["domain"]["peers"]))


def mode_known(world: ModesWorld, number: int) -> str:
    return str(world.maars[number].agent.status(world.now)["domain"]["mode"])


def change_mode(world: ModesWorld, mode: SignallingMode, *hear: int) -> None:
    """The CMD is started again in another mode, of which these MAARs hear at once."""
    world.mode = mode
    world.server.settings = replace(world.server.settings, mode=mode)
    world.start_cmd()
    for number in hear:
        tell(world, number, STRANGER, last_update(world, 1))  # it makes them ask
    world.go_on(0.0)
    assert {mode_known(world, number) for number in hear} == {mode.name.lower()}


def moved(mode: SignallingMode) -> ModesWorld:
    """A node has gone from MAAR 1 to MAAR 2; it has never been at MAAR 3."""
    world = ModesWorld(mode, 3)
    for number in (1, 2):
        world.attach(number)
        world.go_on(30.0)
    world.check()
    return world


def to_three(world: ModesWorld) -> BindingUpdate:
    """What MAAR 3 would have to say to MAAR 1 to get the node's packets."""
    update = last_update(world, 1)
    return forged(update, later(update, 5), ServingMaar(endpoint(3)))


@pytest.mark.parametrize("mode", SIGNALLED)
def test_where_the_cmd_signals_no_maar_moves_a_node(mode: SignallingMode) -> None:
    world = moved(mode)
    before = world.roles(1)
    assert endpoint(3) in peers(world, 1)
    assert tell(world, 1, endpoint(3), to_three(world)) == UNAUTHORIZED
    # Nor the S-MAAR itself, of a visit that the CMD signalled.
    update = last_update(world, 1)
    assert tell(world, 1, endpoint(2), forged(update)) == UNAUTHORIZED
    assert tell(world, 1, endpoint(2), forged(update, later(update, 5))) == UNAUTHORIZED
    assert world.roles(1) == before
    world.check()


@pytest.mark.parametrize("fed", [(), (1, 2, 3)])
@pytest.mark.parametrize("mode", SIGNALLED)
def test_where_the_cmd_signals_no_maar_gives_a_node_another_name(
    mode: SignallingMode, fed: tuple[int, ...]
) -> None:
    world = walked(PmipWorld(mode, 3, fed=fed), 1, 2, 1, 2)
    assert endpoint(2) in peers(world, 1)
    names = [each["identity"] for each in world.maars[1].agent.status(world.now)["sessions"]]
    update = last_update(world, 1)
    named = forged(update, later(update, 5), MobileNodeIdentifier(ANOTHER))
    speaker = replace(named, options=(*named.options, LinkLayerIdentifier(MAC)))
    assert tell(world, 1, endpoint(2), speaker) == UNAUTHORIZED
    after = [each["identity"] for each in world.maars[1].agent.status(world.now)["sessions"]]
    assert after == names


def test_in_mode_direct_any_maar_of_the_domain_may() -> None:
    world = moved(DIRECT)
    assert tell(world, 1, STRANGER, to_three(world)) == UNAUTHORIZED
    assert tell(world, 1, endpoint(3), to_three(world)) == Status.ACCEPTED


@pytest.mark.parametrize("mode", SIGNALLED)
def test_a_maar_that_registers_believes_the_cmd_alone(mode: SignallingMode) -> None:
    world = walked(PmipWorld(mode, 3), 1, 2)
    (own,) = (prefix for prefix, role in world.roles(2).items() if role == "local")
    before = world.roles(2)
    assert endpoint(1) in peers(world, 2)
    update = last_update(world, 1)
    steal = forged(update, HomeNetworkPrefix(own), later(update, 5), ServingMaar(endpoint(1)))
    assert tell(world, 2, endpoint(1), steal) == UNAUTHORIZED
    assert world.roles(2) == before


def test_a_maar_that_registers_believes_no_peer_whatever_it_takes_the_mode_for() -> None:
    """A CMD of another make says nothing of the mode."""
    world = walked(PmipWorld(PROXY, 3), 1, 2)
    world.maars[2].agent._domain.mode = int(DIRECT)
    test = forged(last_update(world, 1), ServingMaar(endpoint(1)))
    assert endpoint(1) in peers(world, 2)
    assert tell(world, 2, endpoint(1), forged(test, later(test, 5))) == UNAUTHORIZED


# --- the mode changes ---


@pytest.mark.parametrize("mode", SIGNALLED)
def test_a_visit_that_its_s_maar_signalled_is_its_own_until_the_cmd_speaks(
    mode: SignallingMode,
) -> None:
    world = moved(DIRECT)
    update = last_update(world, 1)
    change_mode(world, mode, 1, 2, 3)
    assert tell(world, 1, endpoint(2), forged(update)) == Status.ACCEPTED
    # It goes on with that visit, and does no more.
    assert tell(world, 1, endpoint(2), forged(update, later(update, 5))) == UNAUTHORIZED
    assert tell(world, 1, endpoint(3), to_three(world)) == UNAUTHORIZED
    strange = forged(update, ServingMaar(endpoint(3)))
    assert tell(world, 1, endpoint(3), strange) == UNAUTHORIZED
    world.check()
    world.say(MessageType.RENEW)
    world.go_on(5.0)
    world.check()
    assert [p for p in world.sent if (p.source, p.destination) == (CMD, endpoint(1))]
    assert tell(world, 1, endpoint(2), forged(update)) == UNAUTHORIZED
    world.attach(3)
    world.go_on(5.0)
    world.check()


@pytest.mark.parametrize("mode", SIGNALLED)
def test_what_an_anchor_had_not_heard_it_hears_with_the_nodes_next_message(
    mode: SignallingMode,
) -> None:
    lost = False
    world = ModesWorld(DIRECT, 3, lambda what, before: lost and "PBU" in what)
    world.attach(1)
    world.go_on(30.0)
    lost = True
    world.attach(2)
    world.go_on(20.0)
    (prefix, _) = live(world, 1)
    assert world.trace(prefix)[-1] == "absent"
    change_mode(world, mode, *world.maars)
    lost = False
    world.go_on(35.0)
    assert world.maars[1].agent.status(world.now)["counters"]["pbu.refused-154"] >= 1
    world.say(MessageType.RENEW)
    world.go_on(5.0)
    world.check()


@pytest.mark.parametrize("mode", SIGNALLED)
def test_back_to_direct_an_anchor_that_has_not_heard_of_it_asks(mode: SignallingMode) -> None:
    world = moved(mode)
    change_mode(world, DIRECT, 3)
    world.attach(3)
    world.go_on(0.5)
    assert mode_known(world, 1) == "direct"
    world.go_on(5.0)
    world.check()


def live(world: ModesWorld, anchor: int) -> list[Prefix]:
    """The node's on-link prefix from there, and the delegated one."""
    found: dict[Kind, Prefix] = {}
    for row in world.store.bindings.values():
        if row.anchor == anchor and row.kind is not Kind.ADDRESS:
            found[row.kind] = row.prefix
    return [found[Kind.LINK], found[Kind.DELEGATED]]


# --- PBAs that answer nothing ---


def offer(world: ModesWorld, source: bytes, free: Prefix) -> None:
    """`source` tells MAAR 2, where the node is, that it anchors `free` for it."""
    update = last_update(world, 1)
    timestamp = next(o for o in update.options if isinstance(o, Timestamp))
    options = (MobileNodeIdentifier(NODE_ID), HomeNetworkPrefix(free), timestamp)
    data = encode(BindingAcknowledgement(0, 7, 1200, options), source, endpoint(2))
    maar = world.maars[2]
    world.run(maar, maar.agent.mobility_datagram(source, data, world.now))


@pytest.mark.parametrize("mode", SIGNALLED)
def test_a_maar_speaks_for_what_it_anchors_in_mode_locator_only(mode: SignallingMode) -> None:
    world = ModesWorld(mode, 3, lambda what, before: "maar1 >" in what and "PBA" in what)
    for number in (1, 2):
        world.attach(number)
        world.go_on(0.5)
    (link,) = (p for p, r in world.roles(1).items() if r == "anchored" and p.length == 64)
    is_served = mode is SignallingMode.PROXY
    assert (link in world.roles(2)) == is_served
    offer(world, endpoint(1), link)
    is_locator = mode is SignallingMode.LOCATOR
    assert (link in world.roles(2)) == (is_locator or is_served)
    counters = world.maars[2].agent.status(world.now)["counters"]
    assert counters.get("pba.unmatched", 0) == (not is_locator)


@pytest.mark.parametrize("mode", SIGNALLED)
def test_of_what_the_cmd_has_not_named_no_maar_is_believed(mode: SignallingMode) -> None:
    world = moved(mode)
    free = Prefix.parse("2001:db8:3:177::/64")
    offer(world, endpoint(3), free)
    assert free not in world.roles(2)
