"""What a PBA says to the MAAR that registered a node, to and from the sub-options of a Relay-reply."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dmm_wire import dmm
from dmm_wire.address import UNSPECIFIED, Prefix, parse_address
from dmm_wire.dhcpv6.codes import INFINITY
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity, IdentitySubtype
from dmm_wire.mobility import (
    LIFETIME_INFINITY,
    BindingAcknowledgement,
    BindingUpdate,
    DelegatedPrefix,
    DlifLinkLayer,
    DlifLinkLocal,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLocalAddress,
    MobileNodeIdentifier,
    PreviousMaarOption,
    Timestamp,
    UnknownOption,
    VendorSpecific,
    decode,
    encode,
)
from dmm_wire.mobility.answers import ALL_ZERO, acknowledge
from dmm_wire.mobility.registration import (
    forgot_option,
    has_forgotten,
    later_generation,
    later_option,
    shortest,
    told,
    told_options,
)
from dmm_wire.mobility.routers import router_options, routers_in
from dmm_wire.router_identity import ETHERNET, RouterIdentity, of_anchor

ENTERPRISE = 32473
CMD, MAAR = parse_address("2001:db8::53"), parse_address("2001:db8::1")
ANCHOR = parse_address("2001:db8::2")
NAI = Identity(IdentitySubtype.NAI, b"anna@example.org")
DUID = Identity(IdentitySubtype.DUID, bytes.fromhex("0003000102005e005301"))
LOCAL, AWAY = Prefix.parse("2001:db8:1:1::/64"), Prefix.parse("2001:db8:2:1::/64")
SITE, AWAY_SITE = Prefix.parse("2001:db8:1:100::/56"), Prefix.parse("2001:db8:2:100::/56")

SAID: tuple[dmm.SubOption, ...] = (
    dmm.Status(0),
    dmm.MobileNode(DUID),
    dmm.Visit(7 << 16, ANCHOR),
    dmm.AnchoredPrefix(LOCAL, 1800, 3600),
    dmm.AnchoredPrefix(SITE, 1000, 2000, True),
    dmm.PreviousMaar(AWAY, 0, 600, False, ANCHOR),
    dmm.PreviousMaar(AWAY_SITE, 0, 500, True, ANCHOR),
    dmm.Signalling(3),
)


def sent(
    *said: dmm.SubOption, lifetime: int = 400, lifetimes: bool = True
) -> BindingAcknowledgement:
    """A PBA, as it comes out of the wire."""
    update = BindingUpdate(5, 3600, (MobileNodeIdentifier(NAI), ALL_ZERO, Timestamp(9 << 16)))
    options = told_options(said, ENTERPRISE, lifetimes=lifetimes)
    answer = acknowledge(update, 0, lifetime, told=options)
    read = decode(encode(answer, CMD, MAAR), CMD, MAAR)
    assert isinstance(read, BindingAcknowledgement)
    return read


def test_it_says_the_same() -> None:
    assert set(told(sent(*SAID), ENTERPRISE)) == set(SAID[1:])


OTHER = parse_address("2001:db8::3")
ONE, TWO = of_anchor(ANCHOR), of_anchor(OTHER)


def shown(prefix: Prefix, anchor: bytes, router: RouterIdentity) -> dmm.PreviousMaar:
    link_local, link_layer = router
    return dmm.PreviousMaar(prefix, 0, 600, False, anchor, link_local, (ETHERNET, link_layer))


def test_behind_an_anchor_stands_as_which_router_it_is_shown() -> None:
    """RFC 8885 sections 4.7 and 4.8 leave open whose they are where there are several."""
    said = (
        shown(AWAY, ANCHOR, ONE),
        dmm.PreviousMaar(Prefix.parse("2001:db8:5::/64"), 0, 600, False, MAAR),
        shown(Prefix.parse("2001:db8:3::/64"), OTHER, TWO),
        shown(Prefix.parse("2001:db8:4::/64"), ANCHOR, ONE),
    )
    answer = sent(dmm.AnchoredPrefix(LOCAL, 1800, 3600), *said)
    kinds = (PreviousMaarOption, DlifLinkLocal, DlifLinkLayer)
    assert [type(o) for o in answer.options if isinstance(o, kinds)] == [
        *kinds,
        PreviousMaarOption,
        *kinds,
        PreviousMaarOption,  # of one that was named before
    ]
    assert set(said) <= set(told(answer, ENTERPRISE))
    assert routers_in(answer.options) == {ANCHOR: tuple(ONE), OTHER: tuple(TWO)}
    plain = told_options(said, ENTERPRISE, routers=False)
    assert not [o for o in plain if isinstance(o, DlifLinkLocal | DlifLinkLayer)]


def test_in_its_own_pba_an_anchor_speaks_of_itself() -> None:
    options = (*router_options(ONE), PreviousMaarOption(OTHER, AWAY), *router_options(TWO))
    assert routers_in(options, ANCHOR) == {ANCHOR: tuple(ONE)}, "the first counts"
    assert routers_in(options) == {OTHER: tuple(TWO)}, "before all others it is nobody's"
    assert routers_in((DlifLinkLayer(TWO.link_layer),), ANCHOR) == {ANCHOR: (None, TWO.link_layer)}
    assert router_options(None) == []


def test_a_maar_of_any_make_reads_what_it_needs() -> None:
    options = sent(*SAID).options
    delegated = {o.prefix for o in options if isinstance(o, DelegatedPrefix)}
    assert [o.prefix for o in options if isinstance(o, HomeNetworkPrefix)] == [LOCAL]
    assert delegated == {SITE, AWAY_SITE}
    previous = [o for o in options if isinstance(o, PreviousMaarOption)]
    assert previous == [PreviousMaarOption(ANCHOR, AWAY), PreviousMaarOption(ANCHOR, AWAY_SITE)]


@pytest.mark.parametrize("enterprise", [ENTERPRISE, 1])
def test_without_its_own_lifetime_a_prefix_has_the_pbas(enterprise: int) -> None:
    read = told(sent(*SAID, lifetimes=enterprise != ENTERPRISE), enterprise)
    lifetimes = {
        each.prefix: each.valid
        for each in read
        if isinstance(each, dmm.AnchoredPrefix | dmm.PreviousMaar)
    }
    assert lifetimes == dict.fromkeys((LOCAL, SITE, AWAY, AWAY_SITE), 400)


def test_without_options_of_ours_the_timestamp_orders_the_visits() -> None:
    read = told(sent(*SAID), 1)
    assert dmm.Visit(9 << 16, UNSPECIFIED) in read
    assert dmm.MobileNode(NAI) in read
    assert dmm.Signalling(dmm.SignallingMode.PROXY) in read


def test_infinite_lifetimes() -> None:
    said = (dmm.AnchoredPrefix(LOCAL, INFINITY, INFINITY),)
    assert shortest(said, 1 << 30) == LIFETIME_INFINITY
    answer = sent(*said, lifetime=LIFETIME_INFINITY, lifetimes=False)
    assert dmm.AnchoredPrefix(LOCAL, INFINITY, INFINITY) in told(answer, ENTERPRISE)


@pytest.mark.parametrize(("ends", "lifetime"), [(600, 500), (300, 300), (4, 4), (3, 500), (0, 500)])
def test_the_lifetime_is_the_shortest_but_no_end(ends: int, lifetime: int) -> None:
    said = (*SAID, dmm.PreviousMaar(LOCAL, 0, ends, False, ANCHOR))
    assert shortest(said, 3600) == lifetime
    assert shortest(said, 100) == min(100, lifetime)


def test_an_option_that_cannot_be_read_is_passed_over() -> None:
    bad = VendorSpecific(ENTERPRISE, 5, b"\1")
    unknown = VendorSpecific(ENTERPRISE, 99, b"")
    other = VendorSpecific(ENTERPRISE, 10, b"")
    answer = BindingAcknowledgement(0, 1, 4, (bad, unknown, other, ALL_ZERO))
    assert set(told(answer, ENTERPRISE)) == {
        dmm.Visit(0, UNSPECIFIED),
        dmm.Signalling(dmm.SignallingMode.PROXY),
    }


def test_a_name_that_is_too_long_is_not_said() -> None:
    long = Identity(IdentitySubtype.NAI, b"n" * 254)
    read = told(sent(dmm.MobileNode(long), dmm.Visit(7, ANCHOR)), ENTERPRISE)
    assert dmm.MobileNode(NAI) in read
    assert dmm.Visit(7, ANCHOR) in read


@pytest.mark.parametrize("lifetimes", [True, False])
def test_what_is_awaited_only_a_maar_of_ours_sees(lifetimes: bool) -> None:
    late = Prefix.parse("2001:db8:3:1::/64"), Prefix.parse("2001:db8:3:100::/56")
    awaited = {
        dmm.PreviousMaar(prefix, 0, 700, prefix.length < 64, ANCHOR, awaited=True)
        for prefix in late
    }
    answer = sent(*SAID, *awaited, lifetimes=lifetimes)
    assert awaited < set(told(answer, ENTERPRISE))
    assert not any(getattr(option, "prefix", None) in late for option in answer.options)
    assert not any(isinstance(e, dmm.PreviousMaar) and e.awaited for e in told(answer, 1))


def test_what_is_named_is_not_awaited() -> None:
    away = dmm.PreviousMaar(AWAY, 0, 600, False, ANCHOR)
    read = told(sent(away, replace(away, awaited=True)), ENTERPRISE)
    assert [each for each in read if isinstance(each, dmm.PreviousMaar)] == [away]


def test_what_a_pba_echoes() -> None:
    own = LinkLocalAddress(parse_address("fe80::1"))
    update = BindingUpdate(3, 60, (HandoffIndicator(4), own, HomeNetworkPrefix(LOCAL)))
    answer = acknowledge(update, 160)
    assert answer.options == (
        UnknownOption(8, b"\1"),  # a zero-length identifier (RFC 5213 section 5.3.6)
        HomeNetworkPrefix(LOCAL),
        HandoffIndicator(4),
        answer.options[3],
        own,
    )
    assert answer.options[3].body() == b"\0\0"


def test_the_vendor_specific_option() -> None:
    option = VendorSpecific(ENTERPRISE, 5, b"\xaa\xbb")
    assert option.body().hex() == "00007ed9" + "05" + "aabb"
    assert VendorSpecific.decode(option.body()) == option
    data = encode(BindingUpdate(1, 4, (option,)), MAAR, CMD)
    assert data[12:23].hex() == "0100" + "1307" + option.body().hex()  # at 4n + 2
    with pytest.raises(WireError, match="length"):
        VendorSpecific.decode(b"\0\0\0\1")
    with pytest.raises(WireError, match="range"):
        VendorSpecific(1 << 32, 0, b"").body()


@pytest.mark.parametrize(
    ("asked", "status", "answered"),
    [
        ("::", 0, "fe80::200:5eff:fe00:5213"),
        ("::", 1, "fe80::200:5eff:fe00:5213"),  # accepted but prefix discovery necessary
        ("::", 130, "::"),
        ("fe80::1", 0, "fe80::1"),
        ("fe80::1", 130, "fe80::1"),
    ],
)
def test_who_asks_for_a_link_local_address_gets_the_domains(
    asked: str, status: int, answered: str
) -> None:
    """RFC 5213 section 5.3.6: all-zero in what is accepted is answered with an address."""
    update = BindingUpdate(3, 60, (LinkLocalAddress(parse_address(asked)),))
    answer = acknowledge(update, status)
    (said,) = [o for o in answer.options if isinstance(o, LinkLocalAddress)]
    assert said.address == parse_address(answered)


def test_a_maar_that_knows_nobody_says_so() -> None:
    option = forgot_option(MAAR, ENTERPRISE)
    assert option.body().hex() == "00007ed9" + "01" + MAAR.hex() + "1000"
    assert has_forgotten(BindingUpdate(1, 4, (option,)), ENTERPRISE)
    for other in (
        forgot_option(MAAR, 1),
        VendorSpecific(ENTERPRISE, 1, dmm.Maar(MAAR, 0xC000).body()),
        VendorSpecific(ENTERPRISE, 1, b"damaged"),
        VendorSpecific(ENTERPRISE, 5, option.data),
        VendorSpecific(ENTERPRISE, 99, option.data),
    ):
        assert not has_forgotten(BindingUpdate(1, 4, (other,)), ENTERPRISE)
    assert not has_forgotten(BindingUpdate(1, 4, ()), ENTERPRISE)


def test_a_maar_that_knows_a_later_visit_says_so() -> None:
    option = later_option(dmm.Visit(0x0000_6B03_F726_510D, ANCHOR), ENTERPRISE)
    assert option.body().hex() == "00007ed9" + "05" + "00006b03f726510d" + ANCHOR.hex()
    forgot = forgot_option(MAAR, ENTERPRISE)
    both = decode(encode(BindingUpdate(1, 4, (forgot, option)), MAAR, CMD), MAAR, CMD)
    assert isinstance(both, BindingUpdate)
    assert later_generation(both, ENTERPRISE) == 0x0000_6B03_F726_510D
    assert has_forgotten(both, ENTERPRISE)
    for other in (
        forgot,
        VendorSpecific(1, 5, option.data),
        VendorSpecific(ENTERPRISE, 5, option.data + b"damaged"),
        VendorSpecific(ENTERPRISE, 99, option.data),
    ):
        assert later_generation(BindingUpdate(1, 4, (other,)), ENTERPRISE) is None
    assert later_generation(BindingUpdate(1, 4, ()), ENTERPRISE) is None
