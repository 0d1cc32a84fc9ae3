"""tools/wireshark/dmm.lua in tshark: it shows what dmm_wire wrote, and complains where dmm_wire would."""

from __future__ import annotations

from struct import pack
from xml.etree.ElementTree import Element

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dmm_wire import dmm, mobility
from dmm_wire.address import UNSPECIFIED, format_address
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage
from dmm_wire.identity import Identity, IdentitySubtype
from tests.tools.shown import Fields, option_fields, suboption_fields
from tests.tools.tshark import (
    MAAR,
    PEER,
    dhcpv6,
    dissect,
    fields,
    ipv6,
    is_malformed,
    mobility_header,
    named,
    run,
    trees,
)
from tests.wire.strategies import (
    binding_acknowledgements,
    binding_updates,
    suboptions,
    unhurried,
)
from tests.wire.test_dmm import VECTORS
from tests.wire.test_mobility import PBA, PBU

pytestmark = [pytest.mark.needs("tshark"), pytest.mark.slow]

# tshark takes a second to start: few examples of many frames each, and no search for a smaller one.
batches = settings(unhurried, max_examples=4, phases=[Phase.explicit, Phase.reuse, Phase.generate])
SOLICIT = ClientMessage(1, b"abc", ((1, b"\0\3\0\1\2\0\x5e\0\x53\1"),))
RELAY_MSG = 9
Proxy = mobility.BindingUpdate | mobility.BindingAcknowledgement


def option(some: tuple[dmm.SubOption, ...]) -> tuple[int, bytes]:
    return dmm.to_option(dmm.DEFAULT_ENTERPRISE, some)


def relay(options: tuple[tuple[int, bytes], ...], kind: int = 12) -> RelayMessage:
    return RelayMessage(kind, 0, UNSPECIFIED, MAAR, options)


def relayed(some: tuple[dmm.SubOption, ...]) -> bytes:
    return dhcpv6(relay((option(some), (RELAY_MSG, SOLICIT.encode()))).encode())


def expected(some: tuple[dmm.SubOption, ...]) -> Fields:
    return sorted(field for suboption in some for field in suboption_fields(suboption))


# --- DHCPv6 ---


def test_each_suboption() -> None:
    packets = dissect(relayed((suboption,)) for suboption, _ in VECTORS)
    for packet, (suboption, _) in zip(packets, VECTORS, strict=True):
        [tree] = trees(packet)
        assert tree.get("showname") == "Distributed Mobility Management: Relay-forward"
        assert fields(tree) == expected((suboption,))
        assert not is_malformed(packet)


@batches
@given(st.lists(st.lists(suboptions, max_size=4).map(tuple), min_size=15, max_size=40))
def test_suboptions(batch: list[tuple[dmm.SubOption, ...]]) -> None:
    for packet, some in zip(dissect(map(relayed, batch)), batch, strict=True):
        [tree] = trees(packet)
        assert fields(tree) == expected(some)
        assert not is_malformed(packet)


def test_at_every_relay_level_and_in_replies() -> None:
    inner, middle, outer = ((dmm.Status(number),) for number in range(3))
    message = relay((option(inner), (RELAY_MSG, SOLICIT.encode())), 13)
    message = relay(((RELAY_MSG, message.encode()), option(middle)), 13)
    message = relay((option(outer), dmm.to_option(9, inner), (RELAY_MSG, message.encode())), 13)
    [packet] = dissect([dhcpv6(message.encode())])
    assert [fields(tree) for tree in trees(packet)] == [expected(x) for x in (outer, middle, inner)]
    assert {tree.get("showname", "").split(": ")[1] for tree in trees(packet)} == {"Relay-reply"}


def test_a_message_in_fragments() -> None:
    endpoints = tuple(bytes(14) + pack("!H", number) for number in range(1, 201))
    datagram = relayed((dmm.Domain(endpoints),))[54:]
    first, rest = datagram[:1400], datagram[1400:]
    frames = [
        ipv6(44, pack("!BBHI", 17, 0, offset | more, 7) + part)
        for offset, more, part in ((0, 1, first), (1400, 0, rest))
    ]
    one, other = dissect(frames)
    assert trees(one) == []
    assert fields(trees(other)[0]) == expected((dmm.Domain(endpoints),))


def test_in_a_clients_message_it_is_misplaced() -> None:
    client = ClientMessage(1, b"abc", (option((dmm.Status(0),)),))
    relayed_client = relay(((RELAY_MSG, client.encode()),))
    for packet in dissect([dhcpv6(client.encode()), dhcpv6(relayed_client.encode())]):
        assert len(named(packet, "dmm.misplaced")) == 1
        assert len(trees(packet)) == 1
    assert named(dissect([relayed((dmm.Status(0),))])[0], "dmm.misplaced") == []


def test_the_enterprise_number_is_a_preference() -> None:
    mine, other = option((dmm.Status(5),)), dmm.to_option(64999, (dmm.Status(6),))
    frames = [dhcpv6(relay((mine, other)).encode())]
    assert named(dissect(frames)[0], "dmm.status") == ["Status: stale (5)"]
    assert named(dissect(frames, "-odmm.enterprise:64999")[0], "dmm.status") == [
        "Status: unavailable (6)"
    ]


def test_numbers_have_names() -> None:
    statuses = [relayed((dmm.Status(status),)) for status in dmm.DmmStatus]
    modes = [relayed((dmm.Signalling(mode),)) for mode in dmm.SignallingMode]
    attachments = [
        relayed((dmm.Attachment(0, handoff, access, 1, b""),))
        for handoff, access in zip(
            mobility.HandoffIndicatorValue, mobility.AccessTechnologyValue, strict=True
        )
    ]
    sizes = {IdentitySubtype.IPV6_ADDRESS: 16, IdentitySubtype.EUI64: 8}
    nodes = [
        relayed((dmm.MobileNode(Identity(subtype, bytes(sizes.get(subtype, 6)))),))
        for subtype in IdentitySubtype
    ]
    packets = dissect([*statuses, *attachments, *nodes, *modes])
    for packet, status in zip(packets, dmm.DmmStatus, strict=False):
        name = status.name.lower().replace("_", " ").replace("maar", "MAAR")
        assert named(packet, "dmm.status") == [f"Status: {name} ({int(status)})"]
    for name in ("handoff", "access"):
        texts = [text for packet in packets for text in named(packet, f"dmm.attachment.{name}")]
        assert len(set(texts)) == 6
        assert not [text for text in texts if "Unknown" in text]
    subtypes = [text for packet in packets for text in named(packet, "dmm.node.subtype")]
    assert len(set(subtypes)) == len(IdentitySubtype)
    assert not [text for text in subtypes if "Unknown" in text]
    assert [text for packet in packets for text in named(packet, "dmm.signalling.mode")] == [
        f"Mode of the CMD: {mode.name.lower()} ({int(mode)})" for mode in dmm.SignallingMode
    ]
    [unknown] = dissect([relayed((dmm.Status(7),))])
    assert named(unknown, "dmm.status") == ["Status: Unknown (7)"]


def test_a_generation_is_shown_as_a_time() -> None:
    generations = (0x6B03F7268000, (1 << 64) - 1)
    one, far = dissect(relayed((dmm.Visit(number, MAAR),)) for number in generations)
    [text] = named(one, "dmm.visit.time")
    assert text == "Generation as a time: Nov 23, 2026 08:19:50.500000000 UTC"
    assert named(far, "dmm.visit.time")  # 48 bits of seconds, and no error


def test_the_list_of_packets_says_what_is_inside() -> None:
    plain = mobility.BindingUpdate(1, 4, dmm=False)
    messages: tuple[Proxy, ...] = (PBU, PBA, plain)
    frames = [
        relayed((dmm.Maar(MAAR, 0), dmm.Attachment(1, 2, 3, 1, b""))),
        *map(mobility_header, messages),
    ]
    lines = [line.rstrip() for line in run(frames, ["-Tfields", "-e_ws.col.Info"]).splitlines()]
    assert lines[0].endswith("; DMM: MAAR, ATTACHMENT")
    assert lines[1:] == [
        "Binding Update; DMM",
        "Binding Acknowledgement; DMM: status 157",
        "Binding Update",
    ]


def test_a_filter_finds_a_prefix() -> None:
    prefixes = [suboption for suboption, _ in VECTORS if isinstance(suboption, dmm.AnchoredPrefix)]
    frames = [relayed((dmm.Status(0),)), relayed(tuple(prefixes))]
    shown = run(frames, ["-Ydmm.prefix == 2001:db8:1::/48", "-Tfields", "-eframe.number"])
    assert shown.split() == ["2"]


# --- Mobility Header ---


def options_of(message: Proxy) -> Fields:
    return sorted(field for each in message.options for field in option_fields(each))


def in_place(packet: Element) -> Fields:
    """Our fields inside of Wireshark's own tree of the Mobility Header."""
    [tree] = [node for node in packet if node.get("name") == "ipv6"]
    return fields(tree)


def test_each_mobility_option() -> None:
    messages: tuple[Proxy, ...] = (PBU, PBA)
    for packet, message in zip(dissect(map(mobility_header, messages)), messages, strict=True):
        assert in_place(packet) == options_of(message)
        assert not is_malformed(packet)
    rfc8885 = {each.option_type for each in (*PBU.options, *PBA.options)} & set(range(65, 71))
    assert rfc8885 == set(range(65, 71))


def is_unsigned(message: Proxy) -> bool:
    """Wireshark 4.0 takes the data of an authentication option for two octets shorter than they are; where there are
    none it gives up the rest of the message."""
    return not any(isinstance(o, mobility.MessageAuthentication) for o in message.options)


@batches
@given(
    st.lists(
        (binding_updates | binding_acknowledgements).filter(is_unsigned), min_size=10, max_size=30
    )
)
def test_mobility_messages(batch: list[Proxy]) -> None:
    for packet, message in zip(dissect(map(mobility_header, batch)), batch, strict=True):
        assert in_place(packet) == options_of(message)
        assert not is_malformed(packet)
        [tree] = trees(packet)
        name = "dmm.pbu" if isinstance(message, mobility.BindingUpdate) else "dmm.pba"
        assert fields(tree) == [(name, str(int(message.dmm)))]


def test_wireshark_shows_the_rest_itself() -> None:
    """What we leave to it: it would be shown twice, or nowhere, if another version did otherwise."""
    nai = mobility.MobileNodeIdentifier(Identity(IdentitySubtype.NAI, b"mn@example.com"))
    prefix = mobility.HomeNetworkPrefix(PBU.options[3].prefix)  # type: ignore[attr-defined]
    options = (
        nai,
        prefix,
        mobility.HandoffIndicator(3),
        mobility.AccessTechnology(4),
        mobility.LinkLayerIdentifier(b"\2\0\x5e\0\x53\1"),
        mobility.LinkLocalAddress(MAAR),
        mobility.Timestamp(0x6B03F7268000),
        mobility.DelegatedPrefix(prefix.prefix),
    )
    [packet] = dissect([mobility_header(mobility.BindingUpdate(1, 4, options))])
    assert in_place(packet) == []
    shown = {node.get("name"): node.get("show") for node in packet.iter("field")}
    values = {
        "mip6.mnid.identifier": "mn@example.com",
        "mip6.hi": "3",
        "mip6.att": "4",
        "mip6.mnlli.lli": "02:00:5e:00:53:01",
        "mip6.lila_lla": format_address(MAAR),
        "mip6.nemo.mnp.mnp": format_address(prefix.prefix.address),
        "mip6.timestamp_tmp": "Nov 23, 2026 08:19:50.500000000 UTC",
        "mip6.dmnp.dmnp_ipv6": format_address(prefix.prefix.address),
    }
    assert {name: shown.get(name) for name in values} == values


def test_a_mobile_node_identifier_without_an_identifier() -> None:
    """It says that there is none (RFC 5213 section 5.3.6), and is not malformed."""
    options = (mobility.UnknownOption(8, b"\x08"),)
    [packet] = dissect([mobility_header(mobility.BindingUpdate(1, 4, options))])
    names = ("dmm.node.subtype", "dmm.option", "dmm.option.length")
    assert in_place(packet) == list(zip(names, ("8", "8", "1"), strict=True))
    assert not is_malformed(packet)


def test_a_vendor_specific_option_of_the_enterprise_number_has_a_suboption() -> None:
    options = [
        mobility.VendorSpecific(enterprise, 12, b"\x02")
        for enterprise in (dmm.DEFAULT_ENTERPRISE, 64999)
    ]
    frames = [mobility_header(mobility.BindingAcknowledgement(0, 1, 4, tuple(options)))]
    [packet] = dissect(frames)
    assert named(packet, "dmm.signalling.mode") == ["Mode of the CMD: locator (2)"]
    assert named(packet, "mip6.vsm.subtype") == ["Subtype: Unknown (12)"]  # the other vendor's
    assert "SIGNALLING: locator" in run(frames, ["-V"])
    [packet] = dissect(frames, "-odmm.enterprise:64999")
    assert len(named(packet, "dmm.signalling.mode")) == 1
    unknown = mobility.VendorSpecific(dmm.DEFAULT_ENTERPRISE, 99, b"x")
    [packet] = dissect([mobility_header(mobility.BindingUpdate(1, 4, (unknown,)))])
    assert len(named(packet, "dmm.unknown")) == 1


def test_option_numbers_are_preferences() -> None:
    body = mobility.ServingMaar(PEER).body()
    update = mobility.BindingUpdate(1, 4, (mobility.UnknownOption(210, body), *PBU.options[-1:]))
    frames = [mobility_header(update)]
    assert len(named(dissect(frames)[0], "dmm.serving_maar")) == 1
    [packet] = dissect(frames, "-odmm.option68:210")
    assert named(packet, "dmm.serving_maar") == [f"S-MAAR: {format_address(PEER)}"]
