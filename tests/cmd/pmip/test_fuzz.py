"""Noise on the CMD's way in by PMIPv6: nothing is raised, and where keys are required, nothing is believed."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

from hypothesis import given, settings
from hypothesis import strategies as st

from dmm_wire.address import UNSPECIFIED
from dmm_wire.dmm import DEFAULT_ENTERPRISE, SignallingMode, Visit
from dmm_wire.mobility import encode
from dmm_wire.mobility.registration import forgot_option, later_option
from dmm_wire.mobility.security import Security
from tests.maar.core.modes_world import CMD, ModesWorld
from tests.maar.core.pmip_world import PmipWorld
from tests.maar.core.secure_world import NUMBERS, mobility, secure, state, walk
from tests.maar.core.world import endpoint, fix_checksum
from tests.wire.strategies import mutated

SOURCES = st.one_of(
    st.sampled_from([*map(endpoint, NUMBERS), endpoint(9), UNSPECIFIED, b"\xff\x02" + bytes(14)]),
    st.binary(min_size=16, max_size=16),
)
MODES = st.sampled_from([SignallingMode.PROXY, SignallingMode.RELAY])


@cache
def walked(pmip: bool, mode: SignallingMode, is_secure: bool) -> ModesWorld:
    """A node has moved, by DHCPv6 or by PMIPv6 alone, and one PBU is on its way that nobody has answered."""
    make = partial(secure, PmipWorld if pmip else ModesWorld)
    changes = {} if is_secure else {"own": {n: {} for n in NUMBERS}, "security": Security()}
    world = make(mode, lambda what, before: what.startswith("maar3 > cmd    PBA"), **changes)
    walk(world, 1, 2, 3)
    world.attach(2)
    world.settle()
    return world


@cache
def corpus(pmip: bool, mode: SignallingMode, is_secure: bool) -> list[bytes]:
    """What the CMD was told, and what was lost on the way to it; and what it may be told besides in a registration."""
    world = walked(pmip, mode, is_secure)
    heard = [packet.data for packet in mobility(world) if packet.destination == CMD]
    for source, update in world.registered[-1:] if isinstance(world, PmipWorld) else ():
        later = later_option(Visit(1 << 47, source), DEFAULT_ENTERPRISE)
        forgot = forgot_option(source, DEFAULT_ENTERPRISE)
        told = replace(update, options=(*update.options, later, forgot))
        heard.append(encode(told, source, CMD))
    return heard


@st.composite
def noise(draw: st.DrawFn, heard: list[bytes]) -> tuple[bytes, bytes]:
    """A source, and octets: some of what was heard, damaged, or any at all; some with a right checksum."""
    source = draw(SOURCES)
    octets = draw(mutated(st.sampled_from(heard)) | st.binary(max_size=80))
    if len(octets) >= 8 and draw(st.booleans()):
        octets = fix_checksum(octets, source, CMD)
    return source, octets


@settings(deadline=None)
@given(st.data(), st.booleans(), MODES)
def test_where_keys_are_required_noise_changes_nothing(
    data: st.DataObject, pmip: bool, mode: SignallingMode
) -> None:
    world = walked(pmip, mode, True)
    # What was lost on its way here is genuine: damaged in nothing that is signed, it would be right to believe it.
    octets = [each for each in corpus(pmip, mode, True) if each not in _unheard(world)]
    before = state(world)
    for source, each in data.draw(st.lists(noise(octets), min_size=1, max_size=8)):
        world.hear(source, each)
    world.settle()
    assert state(world) == before
    assert world.server.outcomes["internal-error"] == 0


def _unheard(world: ModesWorld) -> list[bytes]:
    sent = mobility(world)
    return [p.data for p in sent if (p.source, p.destination) == (endpoint(3), CMD)]


@settings(deadline=None)
@given(st.data(), st.booleans(), MODES, st.booleans())
def test_nothing_is_raised(
    data: st.DataObject, pmip: bool, mode: SignallingMode, is_secure: bool
) -> None:
    world = walked(pmip, mode, is_secure)
    for source, each in data.draw(st.lists(noise(corpus(pmip, mode, is_secure)), max_size=8)):
        world.hear(source, each)
    assert world.server.outcomes["internal-error"] == 0
    assert not world.signaller.failure
