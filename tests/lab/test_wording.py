"""What the ladder says of each sub-option and mobility option."""

from __future__ import annotations

import pytest

from dmm_wire import dmm
from dmm_wire import mobility as mh
from dmm_wire.address import UNSPECIFIED, Prefix
from dmm_wire.identity import Identity
from dmm_wire.mobility.options import REGISTRY
from lab import messages, wording
from lab.names import Names
from lab.packets import MOBILITY
from lab.topology import CMD, MAAR_PLANS
from tests.lab.test_packets import ipv6, read
from tests.wire.test_dmm import VECTORS

T1, T2, _ = (plan.endpoint for plan in MAAR_PLANS)
LINK = Prefix.parse("2001:db8:100:7::/64")
DELEGATED = Prefix.parse("2001:db8:d100:700::/56")
GENERATION = 0x6B03F7268000

OPTIONS: list[tuple[mh.MobilityOption, str]] = [
    (mh.MobileNodeIdentifier(Identity(5, bytes(6))), "MN-ID(8) EUI-48"),
    (mh.MobileNodeIdentifier(Identity(99, bytes(6))), "MN-ID(8) subtype 99"),
    (mh.MessageAuthentication(1, 1001, bytes(12)), "authentication(9)"),
    (mh.ReplayProtection(1), "replay protection(10)"),
    (mh.VendorSpecific(32473, 12, b"\2"), "Vendor(19) SIGNALLING locator"),
    (mh.VendorSpecific(32473, 12, b"\2\1"), "Vendor(19) sub-type 12: length"),
    (mh.VendorSpecific(9, 12, b"\2"), "Vendor(19) 9, sub-type 12"),
    (mh.HomeNetworkPrefix(LINK), "HNP(22) Pref1"),
    (mh.HomeNetworkPrefix(Prefix(UNSPECIFIED, 0)), "HNP(22) all-zero"),
    (mh.HomeNetworkPrefix(Prefix(UNSPECIFIED, 64)), "HNP(22) all-zero"),
    (mh.HandoffIndicator(3), "HI(23) 3"),
    (mh.AccessTechnology(4), ""),
    (mh.LinkLayerIdentifier(bytes(6)), ""),
    (mh.LinkLocalAddress(T1), ""),
    (mh.Timestamp(GENERATION), "Timestamp(27) 08:19:50.500000"),
    (mh.Timestamp((1 << 64) - 1), "Timestamp(27) 0xffffffffffffffff"),
    (mh.DelegatedPrefix(DELEGATED), "DMNP(55) Del1"),
    (mh.AnchoredPrefixOption(LINK), "Anchored Prefix(65) Pref1"),
    (mh.LocalPrefix(LINK), "Local Prefix(66) Pref1"),
    (mh.PreviousMaarOption(T1, LINK), "Previous MAAR(67) Pref1 at T1"),
    (mh.ServingMaar(T2), "Serving MAAR(68) T2"),
    (mh.DlifLinkLocal(MAAR_PLANS[0].router.link_local), "DLIF link-local(69) R1"),
    (mh.DlifLinkLayer(bytes(6)), "DLIF link-layer(70)"),
    (mh.UnknownOption(200, b""), "option(200)"),
]


@pytest.mark.parametrize(("option", "text"), OPTIONS)
def test_mobility_options(option: mh.MobilityOption, text: str) -> None:
    assert wording.option(option, Names()) == text


def test_every_mobility_option_is_tried() -> None:
    assert {type(option) for option, _ in OPTIONS} == {*REGISTRY.values(), mh.UnknownOption}


def test_every_suboption_has_the_name_of_the_protocol() -> None:
    for suboption, _ in VECTORS:
        text = wording.suboption(suboption, Names()).split()[0]
        assert text.replace("_", "").lower() == type(suboption).__name__.lower()
        assert text == text.upper()


def test_fields_of_a_pba() -> None:
    flags = mh.AcknowledgementFlag.KEY_MANAGEMENT
    answer = mh.BindingAcknowledgement(157, 9, mh.LIFETIME_INFINITY, other_flags=flags)
    assert wording.binding(answer, Names()) == [
        "status 157 timestamp lower than prev accepted",
        "sequence 9",
        "flags KPD",
        "for ever",
    ]
    unknown = mh.BindingAcknowledgement(250, 9, 0, proxy=False, dmm=False)
    assert wording.binding(unknown, Names()) == ["status 250", "sequence 9", "flags none", "0 s"]


def test_between_the_cmd_and_a_maar() -> None:
    """PBU and PBA count where they arrive, at the CMD, too; so does a Binding Error."""
    update = mh.BindingUpdate(7, 60, (mh.ServingMaar(T2),))
    error = mh.BindingError(mh.BindingErrorStatus.UNRECOGNIZED_MH_TYPE)
    for message, name, text in (
        (update, "PBU", "Serving MAAR(68) T2"),
        (error, "Binding Error", "status 2 unrecognized mh type"),
    ):
        data = mh.encode(message, T1, CMD.packed)
        packet = ipv6(T1, CMD.packed, MOBILITY, data)
        (found,) = messages.read([read(packet, "cmd", "core", "cmd")], Names())
        assert (found.name, found.sender, found.receiver) == (name, "MAAR1", "CMD")
        assert text in found.details
        assert messages.read([read(packet, "m1", "m1", "core")], Names()) == []


def test_suboptions_of_the_domain() -> None:
    text = wording.suboption(dmm.Domain((T1, T2)), Names())
    assert text == "DOMAIN T1 T2"
