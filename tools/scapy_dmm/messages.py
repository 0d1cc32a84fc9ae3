"""Proxy Binding Update and Acknowledgement, with the flags that scapy's BU and BA lack."""

from __future__ import annotations

from typing import Any

from scapy.fields import ByteEnumField, FlagsField
from scapy.layers.inet6 import MIP6MH_BA, MIP6MH_BU, bastatus

_UPDATE_FLAGS = ["r0", "r1", "r2", "r3", *"DSBTFPRMKLHA"]
_ACKNOWLEDGEMENT_FLAGS = ["r0", *"DSBTPRK"]

STATUSES = {  # RFC 6275 section 6.1.8, RFC 5213 section 8.9, RFC 7148 section 4.2
    **bastatus,
    152: "Proxy registration not enabled",
    153: "Not LMA for this mobile node",
    154: "MAG not authorized for proxy registration",
    155: "Not authorized for HNP",
    156: "Timestamp mismatch",
    157: "Timestamp lower than previously accepted",
    158: "Missing Home Network Prefix option",
    159: "BCE and PBU prefix set do not match",
    160: "Missing MN identifier option",
    161: "Missing Handoff Indicator option",
    162: "Missing Access Technology Type option",
    174: "Invalid care-of address",
    177: "Not authorized for delegated MNP",
    178: "Requested DMNP in use",
}


class MIP6MH_PBU(MIP6MH_BU):
    """Proxy Binding Update: all flags that IANA has, A, H, P and D (RFC 8885) set at first."""

    name = "IPv6 Mobility Header - Proxy Binding Update"
    fields_desc = [
        *MIP6MH_BU.fields_desc[:6],
        FlagsField("flags", 0xC210, 16, _UPDATE_FLAGS),
        *MIP6MH_BU.fields_desc[8:],
    ]


class MIP6MH_PBA(MIP6MH_BA):
    """Proxy Binding Acknowledgement: all flags that IANA has, P and D (RFC 8885) set at first."""

    name = "IPv6 Mobility Header - Proxy Binding Acknowledgement"
    fields_desc = [
        *MIP6MH_BA.fields_desc[:5],
        ByteEnumField("status", 0, STATUSES),
        FlagsField("flags", 0x22, 8, _ACKNOWLEDGEMENT_FLAGS),
        *MIP6MH_BA.fields_desc[8:],
    ]

    def answers(self, other: Any) -> bool:
        """So that `sr1(IPv6()/MIP6MH_PBU(...))` finds its answer."""
        return isinstance(other, MIP6MH_PBU) and bool(self.seq == other.seq)


def _proxy(proxy: Any, octet: int, flag: int) -> Any:
    def choose(cls: Any, data: bytes = b"", *_: Any, **fields: Any) -> Any:
        return proxy if len(data) > octet and data[octet] & flag else cls

    return classmethod(choose)


MIP6MH_BU.dispatch_hook = _proxy(MIP6MH_PBU, 8, 0x02)
MIP6MH_BA.dispatch_hook = _proxy(MIP6MH_PBA, 7, 0x20)
