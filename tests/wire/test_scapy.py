"""What scapy builds, we read; what we write, scapy reads. Scapy runs in a child process."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from dmm_wire import dmm, mobility
from dmm_wire.address import Prefix, format_address, format_mac, parse_address
from dmm_wire.dhcpv6.codes import MessageType, OptionCode, StatusCode
from dmm_wire.dhcpv6.message import ClientMessage, RelayMessage, parse, unwrap
from dmm_wire.dhcpv6.options import (
    ClientLinkLayerAddress,
    ElapsedTime,
    IaAddress,
    IaNa,
    IaPd,
    IaPrefix,
    OptionRequest,
    StatusOption,
    VendorOpts,
)
from dmm_wire.identity import Identity, IdentitySubtype

from .oracle import Oracle, matches, scapy
from .strategies import binding_acknowledgements, binding_updates, hexed, unhurried

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("scapy") is None, reason="not run: needs scapy (extra dev)"
)

LINK = parse_address("2001:db8:1::1")
PEER = parse_address("fe80::5eff:fe00:5301")
MAC = hexed("02005e005301")
DUID = hexed("0003000102005e005301")
ADDRESS = parse_address("2001:db8:1::53")
PREFIX = Prefix.parse("2001:db8:40::/56")


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with scapy() as child:
        yield child


def has(layer: dict[str, Any], **expected: Any) -> bool:
    """Whether scapy's layer has these fields with these values."""
    assert {name: layer[name] for name in expected} == expected
    return True


# Each client option as scapy's layer and as ours.
CLIENT_OPTIONS: list[tuple[dict[str, Any], tuple[int, bytes]]] = [
    (
        {
            "layer": "DHCP6OptClientId",
            "duid": {"layer": "DUID_LL", "lladdr": format_mac(MAC)},
        },
        (OptionCode.CLIENTID, DUID),
    ),
    (
        {
            "layer": "DHCP6OptIA_NA",
            "iaid": 0x01020304,
            "T1": 1800,
            "T2": 2880,
            "ianaopts": [
                {
                    "layer": "DHCP6OptIAAddress",
                    "addr": format_address(ADDRESS),
                    "preflft": 3600,
                    "validlft": 0xFFFFFFFF,
                },
                {"layer": "DHCP6OptStatusCode", "statuscode": 4, "statusmsg": "away"},
            ],
        },
        IaNa(
            0x01020304,
            1800,
            2880,
            (
                IaAddress(ADDRESS, 3600, 0xFFFFFFFF).encode(),
                StatusOption(StatusCode.NOT_ON_LINK, "away").encode(),
            ),
        ).encode(),
    ),
    (
        {
            "layer": "DHCP6OptIA_PD",
            "iaid": 7,
            "T1": 0,
            "T2": 0,
            "iapdopt": [
                {
                    "layer": "DHCP6OptIAPrefix",
                    "preflft": 0,
                    "validlft": 7200,
                    "plen": 56,
                    "prefix": format_address(PREFIX.address),
                }
            ],
        },
        IaPd(7, 0, 0, (IaPrefix(PREFIX, 0, 7200).encode(),)).encode(),
    ),
    ({"layer": "DHCP6OptOptReq", "reqopts": [23, 24, 82]}, OptionRequest((23, 24, 82)).encode()),
    ({"layer": "DHCP6OptElapsedTime", "elapsedtime": 1234}, ElapsedTime(1234).encode()),
    ({"layer": "DHCP6OptRapidCommit"}, (OptionCode.RAPID_COMMIT, b"")),
    (
        {"layer": "DHCP6OptStatusCode", "statuscode": 6, "statusmsg": "none left"},
        StatusOption(StatusCode.NO_PREFIX_AVAIL, "none left").encode(),
    ),
    (
        {
            "layer": "DHCP6OptVendorSpecificInfo",
            "enterprisenum": 9,
            "vso": [
                {"layer": "VENDOR_SPECIFIC_OPTION", "optcode": 258, "optdata": {"hex": "0102"}}
            ],
        },
        VendorOpts(9, hexed("0102 0002 0102")).encode(),
    ),
]

RELAY_OPTIONS: list[tuple[dict[str, Any], tuple[int, bytes]]] = [
    ({"layer": "DHCP6OptIfaceId", "ifaceid": {"hex": "61636330"}}, (18, b"acc0")),
    (
        {"layer": "DHCP6OptClientLinkLayerAddr", "lltype": 1, "clladdr": format_mac(MAC)},
        ClientLinkLayerAddress(1, MAC).encode(),
    ),
]

MESSAGES = {
    "DHCP6_Solicit": MessageType.SOLICIT,
    "DHCP6_Advertise": MessageType.ADVERTISE,
    "DHCP6_Request": MessageType.REQUEST,
    "DHCP6_Confirm": MessageType.CONFIRM,
    "DHCP6_Renew": MessageType.RENEW,
    "DHCP6_Rebind": MessageType.REBIND,
    "DHCP6_Reply": MessageType.REPLY,
    "DHCP6_Release": MessageType.RELEASE,
    "DHCP6_Decline": MessageType.DECLINE,
    "DHCP6_InfoRequest": MessageType.INFORMATION_REQUEST,
}


def stacked(*layers: dict[str, Any]) -> dict[str, Any]:
    """Scapy layers, each the payload of the one before."""
    packet = dict(layers[-1])
    for layer in reversed(layers[:-1]):
        packet = {**layer, "payload": packet}
    return packet


@pytest.mark.parametrize(("name", "number"), MESSAGES.items())
def test_client_messages(oracle: Oracle, name: str, number: MessageType) -> None:
    header = {"layer": name, "trid": 0xABCDEF}
    specs = [spec for spec, _ in CLIENT_OPTIONS]
    ours = ClientMessage(number, hexed("abcdef"), tuple(option for _, option in CLIENT_OPTIONS))
    built = oracle.build(stacked(header, *specs))
    assert built == ours.encode()
    assert parse(built) == ours
    first, *options = oracle.dissect(name, ours.encode())
    assert matches(first, {**header, "msgtype": int(number)})
    assert len(options) == len(specs)
    for layer, spec in zip(options, specs, strict=True):
        assert matches(layer, spec), (layer, spec)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("DHCP6_RelayForward", MessageType.RELAY_FORW),
        ("DHCP6_RelayReply", MessageType.RELAY_REPL),
    ],
)
def test_relay_messages(oracle: Oracle, name: str, number: MessageType) -> None:
    client = ClientMessage(MessageType.RENEW, b"abc", (CLIENT_OPTIONS[0][1], CLIENT_OPTIONS[1][1]))
    client_spec = stacked(
        {"layer": "DHCP6_Renew", "trid": 0x616263}, CLIENT_OPTIONS[0][0], CLIENT_OPTIONS[1][0]
    )
    header = {
        "layer": name,
        "hopcount": 3,
        "linkaddr": format_address(LINK),
        "peeraddr": format_address(PEER),
    }
    specs = [spec for spec, _ in RELAY_OPTIONS]
    relay_message = {"layer": "DHCP6OptRelayMsg", "message": client_spec}
    relayed = (int(OptionCode.RELAY_MSG), client.encode())
    options = (*(option for _, option in RELAY_OPTIONS), relayed)
    ours = RelayMessage(number, 3, LINK, PEER, options)
    built = oracle.build(stacked(header, *specs, relay_message))
    assert built == ours.encode()
    assert unwrap(built) == ((ours,), client, client.encode())
    first, *layers = oracle.dissect(name, ours.encode())
    assert matches(first, {**header, "msgtype": int(number)})
    assert [layer["layer"] for layer in layers] == [
        *(spec["layer"] for spec in specs),
        "DHCP6OptRelayMsg",
    ]
    assert all(map(matches, layers, specs))
    assert matches(layers[-1]["message"], {"layer": "DHCP6_Renew", "trid": 0x616263})


def test_dmm_suboptions_are_well_formed_vendor_options(oracle: Oracle) -> None:
    suboptions = (
        dmm.Maar(LINK, dmm.CAP_PMIPV6),
        dmm.Attachment(20, 3, 4, 1, MAC),
        dmm.PreviousMaar(PREFIX, 0, 60, True, LINK, PEER, (1, MAC)),
        dmm.Status(0, "ok"),
        dmm.Signalling(dmm.SignallingMode.PROXY),
    )
    ours = RelayMessage(12, 0, LINK, PEER, (dmm.to_option(32473, suboptions),))
    _, option = oracle.dissect("DHCP6_RelayForward", ours.encode())
    assert matches(option, {"layer": "DHCP6OptVendorSpecificInfo", "enterprisenum": 32473})
    assert [(sub["optcode"], sub["optdata"]["hex"]) for sub in option["vso"]] == [
        (dmm.code_of(suboption), suboption.body().hex()) for suboption in suboptions
    ]


NAI = mobility.MobileNodeIdentifier(Identity(IdentitySubtype.NAI, b"mn@example.com"))
HNP = mobility.HomeNetworkPrefix(PREFIX)


def test_binding_update_that_scapy_builds(oracle: Oracle) -> None:
    packet = {
        "layer": "MIP6MH_BU",
        "seq": 0x1234,
        "flags": 0x61,  # A, H and P: scapy's "PRMKLHA" from the low bit up
        "mhtime": 1800,
        "options": [
            {"layer": "MIP6OptMNID", "subtype": 1, "id": "mn@example.com"},
            {"layer": "MIP6OptMobNetPrefix", "plen": 56, "prefix": "2001:db8:40::"},
            {"layer": "MIP6OptUnknown", "otype": 23, "odata": {"hex": "0003"}},
        ],
    }
    header = {
        "layer": "IPv6",
        "src": format_address(LINK),
        "dst": format_address(ADDRESS),
        "payload": packet,
    }
    data = oracle.build(header)[40:]
    update = mobility.decode(data, LINK, ADDRESS)  # and so scapy's checksum is right for us
    network_prefix = mobility.UnknownOption(6, hexed("00 38") + PREFIX.address)
    options = (NAI, network_prefix, mobility.HandoffIndicator(3))
    assert update == mobility.BindingUpdate(0x1234, 7200, options, dmm=False)


def test_binding_acknowledgement_that_scapy_builds(oracle: Oracle) -> None:
    packet = {
        "layer": "IPv6",
        "src": format_address(LINK),
        "dst": format_address(ADDRESS),
        "payload": {
            "layer": "MIP6MH_BA",
            "status": 157,
            "flags": 0x5,  # K and P: scapy's "PRK" from the low bit up
            "res2": 0,
            "seq": 77,
            "mhtime": 15,
            "options": [{"layer": "MIP6OptUnknown", "otype": 200, "odata": {"hex": "01"}}],
        },
    }
    flags = mobility.AcknowledgementFlag.KEY_MANAGEMENT
    options = (mobility.UnknownOption(200, b"\1"),)
    assert mobility.decode(oracle.build(packet)[40:], LINK, ADDRESS) == (
        mobility.BindingAcknowledgement(157, 77, 60, options, dmm=False, other_flags=flags)
    )


def test_binding_error_both_ways(oracle: Oracle) -> None:
    packet = {
        "layer": "IPv6",
        "src": format_address(LINK),
        "dst": format_address(PEER),
        "payload": {"layer": "MIP6MH_BE", "status": 2, "ha": format_address(ADDRESS)},
    }
    ours = mobility.BindingError(mobility.BindingErrorStatus.UNRECOGNIZED_MH_TYPE, ADDRESS)
    assert mobility.encode(ours, LINK, PEER) == oracle.build(packet)[40:]


def option_types(layers: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """The options that scapy found in a mobility message, without padding."""
    options = [(option["otype"], option) for option in layers[0]["options"]]
    return [(number, option) for number, option in options if number > 1]


@settings(unhurried, max_examples=40)
@given(message=binding_updates | binding_acknowledgements)
def test_messages_that_scapy_dissects(
    oracle: Oracle, message: mobility.BindingUpdate | mobility.BindingAcknowledgement
) -> None:
    data = mobility.encode(message, LINK, PEER)
    update = isinstance(message, mobility.BindingUpdate)
    (layer,) = layers = oracle.dissect("MIP6MH_BU" if update else "MIP6MH_BA", data)
    assert has(layer, nh=59, len=len(data) // 8 - 1, mhtype=5 if update else 6)
    assert has(layer, seq=message.sequence, cksum=int.from_bytes(data[4:6], "big"))
    assert layer["cksum"] == oracle.checksum(data[:4] + bytes(2) + data[6:], LINK, PEER)
    found = option_types(layers)
    assert [number for number, _ in found] == [each.option_type for each in message.options]
    for (_, option), each in zip(found, message.options, strict=True):
        if isinstance(each, mobility.MobileNodeIdentifier):
            assert has(option, subtype=each.identity.subtype, id={"hex": each.identity.value.hex()})
        elif option["layer"] == "MIP6OptUnknown":
            assert has(option, odata={"hex": each.body().hex()})
    if isinstance(message, mobility.BindingAcknowledgement):
        assert has(layer, status=message.status, flags=message.flags >> 5)
        assert layer["mhtime"] == message.lifetime // 4
    else:
        assert has(layer, flags=message.flags >> 9, reserved=message.flags & 0x1FF)
        assert layer["mhtime"] == message.lifetime // 4
