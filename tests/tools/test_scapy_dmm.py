"""tools/scapy_dmm: scapy reads what dmm_wire writes and builds the same; dmm_wire reads what scapy builds."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmm_wire import dmm, mobility
from dmm_wire.address import format_address, parse_address
from dmm_wire.dhcpv6.message import RelayMessage
from tests.tools.shown import scapy_option, scapy_suboption
from tests.wire.oracle import Oracle, matches, scapy
from tests.wire.strategies import (
    binding_acknowledgements,
    binding_updates,
    mobility_options,
    mutated,
    suboptions,
    unhurried,
)
from tests.wire.test_dmm import VECTORS
from tests.wire.test_mobility import PBA, PBU

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("scapy") is None, reason="not run: needs scapy (extra dev)"
)

MAAR = parse_address("2001:db8:ff::1")
CMD = parse_address("2001:db8:ff::c")
LAYERS = tuple(f"tools.scapy_dmm.{name}" for name in ("suboptions", "options", "messages"))


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with scapy(*LAYERS) as child:
        yield child


def relay(options: tuple[tuple[int, bytes], ...]) -> bytes:
    return RelayMessage(12, 0, bytes(16), MAAR, options).encode()


def vendor_option(some: tuple[dmm.SubOption, ...]) -> dict[str, Any]:
    return {
        "layer": "DHCP6OptVendorSpecificInfo",
        "enterprisenum": dmm.DEFAULT_ENTERPRISE,
        "vso": [scapy_suboption(suboption) for suboption in some],
    }


def both_ways(oracle: Oracle, some: tuple[dmm.SubOption, ...]) -> None:
    ours = relay((dmm.to_option(dmm.DEFAULT_ENTERPRISE, some),))
    spec = vendor_option(some)
    header = {"layer": "DHCP6_RelayForward", "linkaddr": "::", "peeraddr": format_address(MAAR)}
    assert oracle.build({**header, "payload": spec}) == ours
    _, option = oracle.dissect("DHCP6_RelayForward", ours)
    assert matches(option, spec), option
    for computed in (False, True):
        assert oracle.rebuild("DHCP6_RelayForward", ours, computed) == ours


def test_each_suboption(oracle: Oracle) -> None:
    for suboption, _ in VECTORS:
        both_ways(oracle, (suboption,))


@settings(unhurried, max_examples=60)
@given(st.lists(suboptions, max_size=5).map(tuple))
def test_suboptions(oracle: Oracle, some: tuple[dmm.SubOption, ...]) -> None:
    both_ways(oracle, some)


def test_another_vendors_options_are_not_ours(oracle: Oracle) -> None:
    _, option = oracle.dissect("DHCP6_RelayForward", relay((dmm.to_option(9, (dmm.Status(0),)),)))
    [inside] = option["vso"]
    assert matches(inside, {"layer": "VENDOR_SPECIFIC_OPTION", "optdata": {"hex": "0000"}})


@settings(unhurried, max_examples=60)
@given(mutated(st.lists(suboptions, min_size=1, max_size=3).map(dmm.encode)))
def test_what_is_malformed_is_built_again_as_it_was(oracle: Oracle, data: bytes) -> None:
    ours = relay(((17, dmm.DEFAULT_ENTERPRISE.to_bytes(4, "big") + data),))
    assert oracle.rebuild("DHCP6_RelayForward", ours, computed=False) == ours


Proxy = mobility.BindingUpdate | mobility.BindingAcknowledgement


def message_spec(message: Proxy) -> dict[str, Any]:
    is_update = isinstance(message, mobility.BindingUpdate)
    status = {} if isinstance(message, mobility.BindingUpdate) else {"status": message.status}
    return {
        "layer": "MIP6MH_PBU" if is_update else "MIP6MH_PBA",
        "seq": message.sequence,
        "flags": int(message.flags),
        "mhtime": message.lifetime // 4,
        **status,
        "options": [scapy_option(option) for option in message.options],
    }


def packet(data: bytes) -> bytes:
    """An IPv6 packet from the MAAR to the CMD, with a Mobility Header."""
    return b"\x60\0\0\0" + len(data).to_bytes(2, "big") + b"\x87\x40" + MAAR + CMD + data


def message_both_ways(oracle: Oracle, message: Proxy) -> None:
    data = mobility.encode(message, MAAR, CMD)
    spec = message_spec(message)
    addresses = {"src": format_address(MAAR), "dst": format_address(CMD)}
    built = oracle.build({"layer": "IPv6", **addresses, "payload": spec})
    assert built == packet(data)
    assert mobility.decode(built[40:], MAAR, CMD) == message
    layers = oracle.dissect("IPv6", packet(data))
    found = {
        **layers[1],
        "options": [each for each in layers[1]["options"] if each["layer"] not in ("Pad1", "PadN")],
    }
    assert matches(found, spec), found
    for computed in (False, True):
        assert oracle.rebuild("IPv6", packet(data), computed) == packet(data)


@pytest.mark.parametrize("message", [PBU, PBA], ids=["PBU", "PBA"])
def test_each_message(oracle: Oracle, message: Proxy) -> None:
    message_both_ways(oracle, message)


def is_unsigned(message: Proxy) -> bool:
    """Of the places where an authentication option may be, scapy takes the first, and dmm_wire the one at the end."""
    return not any(isinstance(o, mobility.MessageAuthentication) for o in message.options)


@settings(unhurried, max_examples=60)
@given((binding_updates | binding_acknowledgements).filter(is_unsigned))
def test_messages(oracle: Oracle, message: Proxy) -> None:
    message_both_ways(oracle, replace(message, proxy=True))


@pytest.mark.parametrize("kind", ["MIP6MH_BU", "MIP6MH_BA"])
def test_what_is_not_proxy_is_scapys_own(oracle: Oracle, kind: str) -> None:
    message: Proxy = replace(PBU, proxy=False) if kind == "MIP6MH_BU" else replace(PBA, proxy=False)
    layers = oracle.dissect("IPv6", packet(mobility.encode(message, MAAR, CMD)))
    assert [layer["layer"] for layer in layers] == ["IPv6", kind]


@settings(unhurried, max_examples=60)
@given(mobility_options, st.data())
def test_a_mobility_option_of_a_wrong_size_is_built_again_as_it_was(
    oracle: Oracle, option: mobility.MobilityOption, data: st.DataObject
) -> None:
    body = data.draw(mutated(st.just(option.body())))[:255]
    damaged = mobility.UnknownOption(option.option_type, body)
    ours = packet(mobility.encode(mobility.BindingUpdate(1, 4, (damaged,)), MAAR, CMD))
    assert oracle.rebuild("IPv6", ours, computed=False) == ours
