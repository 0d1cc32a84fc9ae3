"""tools/wireshark/dmm.lua and what is malformed: it complains where dmm_wire would, and never fails itself."""

from __future__ import annotations

from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmm_wire import dmm, mobility
from dmm_wire.dhcpv6.message import encode_options
from dmm_wire.errors import WireError
from dmm_wire.identity import IdentitySubtype
from dmm_wire.mobility.options import REGISTRY
from tests.tools.test_wireshark import batches, option, relay, relayed
from tests.tools.tshark import dhcpv6, dissect, ipv6, is_malformed, mobility_header, named, trees
from tests.wire.strategies import (
    addresses,
    binding_acknowledgements,
    binding_updates,
    identities,
    link_layers,
    mutated,
    prefixes,
    suboptions,
    vendor_options,
)
from tests.wire.test_dmm import MAAR1, PREF1, VECTORS

pytestmark = [pytest.mark.needs("tshark"), pytest.mark.slow]


def is_bad(data: bytes) -> bool:
    try:
        dmm.decode(data)
    except WireError:
        return True
    return False


def complaints(batch: list[bytes]) -> list[bool]:
    """For each content of an option 17 of ours, whether the dissector complains."""
    number = pack("!I", dmm.DEFAULT_ENTERPRISE)
    packets = dissect(dhcpv6(relay(((17, number + data),)).encode()) for data in batch)
    return [is_malformed(packet) for packet in packets]


def edges(suboption: dmm.SubOption) -> list[tuple[int, bytes]]:
    """Its code, and its data at every size from none to two octets more, and with a prefix length of 128 and 129."""
    code, body = dmm.code_of(suboption), suboption.body()
    bodies = [(body + b"\0\0")[:size] for size in range(len(body) + 3)]
    where = {3: 1, 4: 1, 11: 0}.get(code)
    if where is not None:
        bodies += [body[:where] + bytes((length,)) + body[where + 1 :] for length in (128, 129)]
    return [(code, each) for each in bodies]


IDENTITY_SIZES = [
    (subtype, size)
    for subtype in (*IdentitySubtype, 9)
    for size in (0, 1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 130, 131, 254)
]


def test_at_every_size_of_a_suboption() -> None:
    batch = [encode_options((edge,)) for suboption, _ in VECTORS for edge in edges(suboption)]
    previous = dmm.PreviousMaar(PREF1, 1, 2, False, MAAR1).body()
    for code, sizes in ((6, (0, 15, 16, 17)), (7, (0, 2, 3, 9))):
        for size in sizes:
            inner = encode_options(((code, bytes(size)),))
            batch.append(encode_options(((4, previous + inner),)))
    batch += [
        encode_options(((9, bytes((subtype,)) + bytes(size)),)) for subtype, size in IDENTITY_SIZES
    ]
    verdicts = [is_bad(data) for data in batch]
    assert complaints(batch) == verdicts
    assert {True, False} == set(verdicts)


def test_an_option_17_without_an_enterprise_number_is_nobodys() -> None:
    packets = dissect(dhcpv6(relay(((17, bytes(size)),)).encode()) for size in range(4))
    assert [trees(packet) for packet in packets] == [[]] * 4


@batches
@given(
    st.lists(mutated(st.lists(suboptions, max_size=3).map(dmm.encode)), min_size=20, max_size=60)
)
def test_it_complains_of_what_dmm_wire_refuses(batch: list[bytes]) -> None:
    assert complaints(batch) == [is_bad(data) for data in batch]


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
    if number == 19 and body[:4] != pack("!I", dmm.DEFAULT_ENTERPRISE):
        return False  # left to Wireshark, too
    try:
        option = REGISTRY[number].decode(body)
        if isinstance(option, mobility.VendorSpecific):
            # To dmm_wire it counts as absent if the sub-option cannot be read.
            dmm.decode(encode_options(((option.subtype, option.data),)))
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
    vendor_options,
)


@st.composite
def damaged_options(draw: st.DrawFn) -> tuple[int, bytes]:
    option = draw(our_options)
    return option.option_type, draw(mutated(st.just(option.body())))[:255]


def option_complaints(batch: list[tuple[int, bytes]]) -> list[bool]:
    """For each mobility option, by type and data, whether the dissector complains."""
    updates = (
        mobility.BindingUpdate(1, 4, (mobility.UnknownOption(number, body),))
        for number, body in batch
    )
    return [is_malformed(packet) for packet in dissect(map(mobility_header, updates))]


def test_at_every_size_of_a_mobility_option() -> None:
    batch = [(number, bytes(size)) for number in range(65, 71) for size in range(37)]
    batch += [
        (number, bytes((0, length)) + bytes(rest))
        for number, rest in ((65, 16), (66, 16), (67, 32))
        for length in (128, 129)
    ]
    batch += [(8, bytes((subtype,)) + bytes(size)) for subtype, size in IDENTITY_SIZES]
    batch += [
        (19, mobility.VendorSpecific(dmm.DEFAULT_ENTERPRISE, code, body).body())
        for suboption, _ in VECTORS
        for code, body in edges(suboption)
    ]
    batch += [(19, pack("!I", dmm.DEFAULT_ENTERPRISE)[:size]) for size in range(5)]
    verdicts = [is_bad_option(*each) for each in batch]
    assert option_complaints(batch) == verdicts
    assert {True, False} == set(verdicts)


@batches
@given(st.lists(damaged_options(), min_size=20, max_size=60))
def test_it_complains_of_options_that_dmm_wire_refuses(batch: list[tuple[int, bytes]]) -> None:
    assert option_complaints(batch) == [is_bad_option(*each) for each in batch]


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
