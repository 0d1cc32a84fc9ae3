"""Hypothesis strategies for everything that dmm_wire can write, and bytes that are almost right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dmm_wire import dmm, mobility
from dmm_wire.address import Prefix
from dmm_wire.dhcpv6 import message, options
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype

# A machine that is busy with other tests is not a failure: no property here is about time.
unhurried = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, (1 << 64) - 1)
addresses = st.binary(min_size=16, max_size=16)
prefixes = st.builds(Prefix.of, addresses, st.integers(0, 128))
link_layers = st.binary(min_size=1, max_size=20)
text = st.text(st.characters(codec="utf-8"), max_size=20)

identities = st.one_of(
    st.builds(Identity, st.just(int(IdentitySubtype.DUID)), st.binary(min_size=3, max_size=130)),
    st.builds(Identity, st.just(int(IdentitySubtype.EUI48)), st.binary(min_size=6, max_size=6)),
    st.builds(Identity, st.just(int(IdentitySubtype.EUI64)), st.binary(min_size=8, max_size=8)),
    st.builds(Identity, st.just(int(IdentitySubtype.NAI)), st.binary(min_size=1, max_size=254)),
    st.builds(Identity, st.integers(9, 255), st.binary(min_size=1, max_size=254)),
)

raw_options = st.lists(st.tuples(u16, st.binary(max_size=40)), max_size=6).map(tuple)
client_messages = st.builds(
    message.ClientMessage,
    u8.filter(lambda number: number not in (12, 13)),
    st.binary(min_size=3, max_size=3),
    raw_options,
)
relay_messages = st.builds(
    message.RelayMessage, st.sampled_from((12, 13)), u8, addresses, addresses, raw_options
)

typed_options: st.SearchStrategy[Any] = st.one_of(
    st.builds(options.IaNa, u32, u32, u32, raw_options),
    st.builds(options.IaPd, u32, u32, u32, raw_options),
    st.builds(options.IaAddress, addresses, u32, u32, raw_options),
    st.builds(options.IaPrefix, prefixes, u32, u32, raw_options),
    st.builds(options.StatusOption, u16, text),
    st.builds(options.OptionRequest, st.lists(u16, max_size=9).map(tuple)),
    st.builds(options.ElapsedTime, u16),
    st.builds(options.ClientLinkLayerAddress, u16, link_layers),
    st.builds(options.VendorOpts, u32, st.binary(max_size=30)),
)

suboptions: st.SearchStrategy[dmm.SubOption] = st.one_of(
    st.builds(dmm.Maar, addresses, u16),
    st.builds(dmm.Attachment, u32, u8, u8, u16, st.binary(max_size=20)),
    st.builds(dmm.AnchoredPrefix, prefixes, u32, u32, st.booleans()),
    st.builds(
        dmm.PreviousMaar,
        prefixes,
        u32,
        u32,
        st.booleans(),
        addresses,
        st.none() | addresses,
        st.none() | st.tuples(u16, link_layers),
        st.booleans(),
    ),
    st.builds(dmm.Visit, u64, addresses),
    st.builds(dmm.Status, u16, text),
    st.builds(dmm.MobileNode, identities),
    st.builds(dmm.Domain, st.lists(addresses, max_size=4).map(tuple)),
    st.builds(dmm.AnchorFailed, prefixes, addresses),
    st.builds(dmm.Signalling, u8),
)

vendor_options = st.builds(mobility.VendorSpecific, u32, u8, st.binary(max_size=40)) | (
    suboptions.filter(lambda suboption: len(suboption.body()) <= 250).map(
        lambda suboption: mobility.VendorSpecific(
            dmm.DEFAULT_ENTERPRISE, dmm.code_of(suboption), suboption.body()
        )
    )
)

mobility_options: st.SearchStrategy[mobility.MobilityOption] = st.one_of(
    st.builds(mobility.MobileNodeIdentifier, identities),
    st.builds(mobility.MessageAuthentication, u8, u32, st.binary(max_size=40)),
    st.builds(mobility.ReplayProtection, u64),
    st.builds(mobility.HomeNetworkPrefix, prefixes),
    st.builds(mobility.HandoffIndicator, u8),
    st.builds(mobility.AccessTechnology, u8),
    st.builds(mobility.LinkLayerIdentifier, link_layers),
    st.builds(mobility.LinkLocalAddress, addresses),
    st.builds(mobility.Timestamp, u64),
    st.builds(mobility.DelegatedPrefix, prefixes),
    st.builds(mobility.AnchoredPrefixOption, prefixes),
    st.builds(mobility.LocalPrefix, prefixes),
    st.builds(mobility.PreviousMaarOption, addresses, prefixes),
    st.builds(mobility.ServingMaar, addresses),
    st.builds(mobility.DlifLinkLocal, addresses),
    st.builds(mobility.DlifLinkLayer, link_layers),
    vendor_options,
    st.builds(mobility.UnknownOption, st.integers(100, 255), st.binary(max_size=40)),
)
some_mobility_options = st.lists(mobility_options, max_size=6).map(tuple)
lifetimes = st.integers(0, 0xFFFF).map(lambda units: units * 4)
binding_updates = st.builds(
    mobility.BindingUpdate,
    u16,
    lifetimes,
    some_mobility_options,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(
        (mobility.UpdateFlag(0), mobility.UpdateFlag.BULK, mobility.UpdateFlag(0x2DE0))
    ),
)
binding_acknowledgements = st.builds(
    mobility.BindingAcknowledgement,
    u8,
    u16,
    lifetimes,
    some_mobility_options,
    st.booleans(),
    st.booleans(),
    st.sampled_from((mobility.AcknowledgementFlag(0), mobility.AcknowledgementFlag(0xDC))),
)
binding_errors = st.builds(mobility.BindingError, u8, addresses, some_mobility_options)


@st.composite
def mutated(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Valid bytes, damaged in a few places: octets changed, taken out, put in, or the end cut."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("change", "delete", "insert", "cut"))):
            case "change" if where < len(data):
                data[where] = draw(u8)
            case "delete":
                del data[where : where + draw(st.integers(1, 8))]
            case "insert":
                data[where:where] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del data[where:]
    return bytes(data)


def reason_of(call: Callable[..., object], *arguments: object) -> str:
    """The reason of the WireError that `call` must raise."""
    with pytest.raises(WireError) as caught:
        call(*arguments)
    return caught.value.reason


def hexed(*lines: str) -> bytes:
    """Bytes from lines of hex, spaces free."""
    return bytes.fromhex("".join(lines))
