"""tools/wireshark/dmm.lua and what is malformed: it complains where dmm_wire would, and never fails itself."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire import dmm, mobility
from dmm_wire.errors import WireError
from dmm_wire.identity import IdentitySubtype
from dmm_wire.mobility.options import REGISTRY
from tests.tools.test_wireshark import batches, option, relay, relayed
from tests.tools.tshark import dhcpv6, dissect, ipv6, is_malformed, mobility_header, named
from tests.wire.strategies import (
    addresses,
    binding_acknowledgements,
    binding_updates,
    identities,
    link_layers,
    mutated,
    prefixes,
    suboptions,
)

pytestmark = [pytest.mark.needs("tshark"), pytest.mark.slow]


def is_bad(data: bytes) -> bool:
    try:
        dmm.decode(data)
    except WireError:
        return True
    return False


@batches
@given(
    st.lists(mutated(st.lists(suboptions, max_size=3).map(dmm.encode)), min_size=20, max_size=60)
)
def test_it_complains_of_what_dmm_wire_refuses(batch: list[bytes]) -> None:
    number = pack("!I", dmm.DEFAULT_ENTERPRISE)
    packets = dissect(dhcpv6(relay(((17, number + data),)).encode()) for data in batch)
    assert [is_malformed(packet) for packet in packets] == [is_bad(data) for data in batch]


def test_two_of_one_enterprise_are_malformed() -> None:
    mine, other = option((dmm.Status(0),)), dmm.to_option(9, ())
    two, one = dissect(
        [dhcpv6(relay((mine, mine)).encode()), dhcpv6(relay((mine, other)).encode())]
    )
    assert (is_malformed(two), is_malformed(one)) == (True, False)


def test_what_is_unknown_is_said_to_be_skipped() -> None:
    strange = (17, pack("!IHH", dmm.DEFAULT_ENTERPRISE, 99, 1) + b"x")
    [packet] = dissect([dhcpv6(relay((strange,)).encode())])
    assert len(named(packet, "dmm.unknown")) == 1
    assert not is_malformed(packet)


def is_bad_option(number: int, body: bytes) -> bool:
    if number == 8 and len(body) > 1 and body[0] == IdentitySubtype.NAI:
        return False  # left to Wireshark
    try:
        REGISTRY[number].decode(body)
    except WireError:
        return True
    return False


our_options: st.SearchStrategy[mobility.MobilityOption] = st.one_of(
    st.builds(mobility.MobileNodeIdentifier, identities),
    st.builds(mobility.AnchoredPrefixOption, prefixes),
    st.builds(mobility.LocalPrefix, prefixes),
    st.builds(mobility.PreviousMaarOption, addresses, prefixes),
    st.builds(mobility.ServingMaar, addresses),
    st.builds(mobility.DlifLinkLocal, addresses),
    st.builds(mobility.DlifLinkLayer, link_layers),
)


@st.composite
def damaged_options(draw: st.DrawFn) -> tuple[int, bytes]:
    option = draw(our_options)
    return option.option_type, draw(mutated(st.just(option.body())))[:255]


@batches
@given(st.lists(damaged_options(), min_size=20, max_size=60))
def test_it_complains_of_options_that_dmm_wire_refuses(batch: list[tuple[int, bytes]]) -> None:
    updates = (
        mobility.BindingUpdate(1, 4, (mobility.UnknownOption(number, body),))
        for number, body in batch
    )
    packets = dissect(map(mobility_header, updates))
    assert [is_malformed(packet) for packet in packets] == [is_bad_option(*each) for each in batch]


@batches
@given(
    st.lists(
        mutated(st.lists(suboptions, max_size=3).map(lambda some: relayed(tuple(some))[62:])).map(
            dhcpv6
        )
        | mutated(
            (binding_updates | binding_acknowledgements).map(
                lambda message: mobility_header(message)[54:]
            )
        ).map(lambda data: ipv6(mobility.MOBILITY_HEADER, data)),
        min_size=30,
        max_size=80,
    )
)
def test_damaged_messages_are_no_error_of_the_dissector(batch: list[bytes]) -> None:
    assert len(dissect(batch)) == len(batch)


def test_an_error_of_the_dissector_would_be_seen(tmp_path: Path) -> None:
    broken = tmp_path / "broken.lua"
    broken.write_text(
        'local p = Proto("broken", "Broken")\n'
        "function p.dissector(tvb, pinfo, tree) tree:add(nothing.here) end\n"
        "register_postdissector(p)\n"
    )
    with pytest.raises(AssertionError, match="nothing"):
        dissect([relayed(())], scripts=[broken])
    broken.write_text("this is no Lua")
    with pytest.raises(AssertionError, match="Lua"):
        dissect([relayed(())], scripts=[broken])
