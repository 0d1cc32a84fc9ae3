"""The DMM sub-options, bound to scapy's Vendor-specific Information option."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from scapy.fields import (
    ByteEnumField,
    ByteField,
    FieldLenField,
    FlagsField,
    IntField,
    PacketListField,
    ShortEnumField,
    ShortField,
    StrLenField,
    XByteField,
    XLongField,
    XShortField,
)
from scapy.layers.dhcp6 import VENDOR_SPECIFIC_OPTION
from scapy.layers.inet6 import IP6Field, IP6ListField
from scapy.packet import Packet

from tools.scapy_dmm.fields import ACCESS, HANDOFFS, IDENTIFIERS, LinkLayerField

ENTERPRISES = {32473}
"""Enterprise numbers whose vendor options are ours; add the one that you have configured."""

MODES = {0: "direct", 1: "relay", 2: "locator", 3: "proxy"}
STATUSES = {
    0: "success",
    1: "unknown MAAR",
    2: "endpoint mismatch",
    3: "unknown node",
    4: "identity conflict",
    5: "stale",
    6: "unavailable",
}


class _SubOption(Packet):
    """A sub-option; `sizes` are those that its data may have."""

    code: ClassVar[int]
    sizes: ClassVar[range]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


def _head(code: int, variable: str = "", fixed: int = 0) -> list[Any]:
    """Code and length: of `fixed` octets and, if there is one, of the field `variable`."""
    if not variable:
        return [ShortField("optcode", code), ShortField("optlen", fixed)]
    length = FieldLenField(
        "optlen", None, length_of=variable, fmt="!H", adjust=lambda _, octets: octets + fixed
    )
    return [ShortField("optcode", code), length]


def _rest(fixed: int) -> Any:
    return lambda packet: packet.optlen - fixed


_ANCHORED = [
    FlagsField("flags", 0, 8, [*(f"r{bit}" for bit in range(6)), "awaited", "delegated"]),
    ByteField("plen", 64),
    XShortField("reserved", 0),
    IntField("preferred", 3600),
    IntField("valid", 7200),
    IP6Field("prefix", "::"),
]


class DMMOptMAAR(_SubOption):
    name = "DMM MAAR (1)"
    code, sizes = 1, range(18, 19)
    fields_desc = [
        *_head(1, fixed=18),
        IP6Field("endpoint", "::"),
        FlagsField(
            "capabilities",
            0xC000,
            16,
            [*(f"r{bit}" for bit in range(12)), "no_sessions", "slaac", "pmipv6", "ipv6_in_ipv6"],
        ),
    ]


class DMMOptAttachment(_SubOption):
    name = "DMM ATTACHMENT (2)"
    code, sizes = 2, range(8, 65536)
    fields_desc = [
        *_head(2, "lladdr", fixed=8),
        IntField("age", 0),
        ByteEnumField("handoff", 4, HANDOFFS),
        ByteEnumField("access", 4, ACCESS),
        ShortField("lltype", 1),
        LinkLayerField("lladdr", b"", length_from=_rest(8)),
    ]


class DMMOptAnchoredPrefix(_SubOption):
    name = "DMM ANCHORED_PREFIX (3)"
    code, sizes = 3, range(28, 29)
    fields_desc = [*_head(3, fixed=28), *_ANCHORED]


class DMMOptDLIFLinkLocal(_SubOption):
    name = "DMM DLIF_LINK_LOCAL (6)"  # inside PREVIOUS_MAAR
    code, sizes = 6, range(16, 17)
    fields_desc = [*_head(6, fixed=16), IP6Field("address", "fe80::1")]


class DMMOptDLIFLinkLayer(_SubOption):
    name = "DMM DLIF_LINK_LAYER (7)"  # inside PREVIOUS_MAAR
    code, sizes = 7, range(3, 65536)
    fields_desc = [
        *_head(7, "lladdr", fixed=2),
        ShortField("lltype", 1),
        LinkLayerField("lladdr", b"", length_from=_rest(2)),
    ]


_NESTED = {kind.code: kind for kind in (DMMOptDLIFLinkLocal, DMMOptDLIFLinkLayer)}


def _suboption_class(data: bytes, kinds: dict[int, type[_SubOption]]) -> Any:
    """The class for the sub-option that `data` begins with, scapy's own where it is none of ours."""
    if len(data) >= 4:
        code, size = struct.unpack_from("!HH", data)
        kind = kinds.get(code)
        if kind is not None and size in kind.sizes and len(data) >= 4 + size:
            return kind
    return VENDOR_SPECIFIC_OPTION


def _nested(data: bytes) -> Any:
    return _suboption_class(data, _NESTED)(data)


class DMMOptPreviousMAAR(_SubOption):
    name = "DMM PREVIOUS_MAAR (4)"  # `dlif` has sub-options 6 and 7
    code, sizes = 4, range(44, 65536)
    fields_desc = [
        *_head(4, "dlif", fixed=44),
        *_ANCHORED,
        IP6Field("endpoint", "::"),
        PacketListField("dlif", [], _nested, length_from=_rest(44)),
    ]


class DMMOptVisit(_SubOption):
    name = "DMM VISIT (5)"  # `generation` is a RFC 5213 timestamp
    code, sizes = 5, range(24, 25)
    fields_desc = [*_head(5, fixed=24), XLongField("generation", 0), IP6Field("left", "::")]


class DMMOptStatus(_SubOption):
    name = "DMM STATUS (8)"
    code, sizes = 8, range(2, 65536)
    fields_desc = [
        *_head(8, "text", fixed=2),
        ShortEnumField("status", 0, STATUSES),
        StrLenField("text", b"", length_from=_rest(2)),
    ]


class DMMOptMobileNode(_SubOption):
    name = "DMM MOBILE_NODE (9)"
    code, sizes = 9, range(1, 65536)
    fields_desc = [
        *_head(9, "id", fixed=1),
        ByteEnumField("subtype", 8, IDENTIFIERS),
        StrLenField("id", b"", length_from=_rest(1)),
    ]


class DMMOptDomain(_SubOption):
    name = "DMM DOMAIN (10)"
    code, sizes = 10, range(0, 65536, 16)
    fields_desc = [
        *_head(10, "endpoints"),
        IP6ListField("endpoints", [], length_from=_rest(0)),
    ]


class DMMOptAnchorFailed(_SubOption):
    name = "DMM ANCHOR_FAILED (11)"
    code, sizes = 11, range(36, 37)
    fields_desc = [
        *_head(11, fixed=36),
        ByteField("plen", 64),
        *(XByteField(f"reserved{number}", 0) for number in range(3)),
        IP6Field("prefix", "::"),
        IP6Field("endpoint", "::"),
    ]


class DMMOptSignalling(_SubOption):
    name = "DMM SIGNALLING (12)"
    code, sizes = 12, range(1, 2)
    fields_desc = [*_head(12, fixed=1), ByteEnumField("mode", 0, MODES)]


_SUBOPTIONS = {kind.code: kind for kind in _SubOption.__subclasses__() if kind.code not in _NESTED}


def suboption(data: bytes, enterprise: int) -> Any:
    """The sub-option that `data` begins with, as a packet; scapy's own kind if it is none of ours."""
    kinds = _SUBOPTIONS if enterprise in ENTERPRISES else {}
    return _suboption_class(data, kinds)(data)


def _vendor_option(
    cls: Any, /, data: bytes = b"", *_: Any, _parent: Any = None, **fields: Any
) -> Any:
    ours = _parent is not None and _parent.enterprisenum in ENTERPRISES
    return _suboption_class(data, _SUBOPTIONS) if data and ours else cls


VENDOR_SPECIFIC_OPTION.dispatch_hook = classmethod(_vendor_option)
