"""Mobility options of RFC 5094, RFC 5213, RFC 7148 and RFC 8885 that scapy lacks."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

from scapy.fields import (
    ByteEnumField,
    ByteField,
    FieldLenField,
    IntField,
    LongField,
    PacketLenField,
    XByteField,
    XShortField,
)
from scapy.layers.inet6 import (
    IP6Field,
    MIP6OptMNID,
    MIP6OptUnknown,
    _MIP6OptAlign,
    moboptcls,
)

from tools.scapy_dmm.fields import ACCESS, HANDOFFS, IDENTIFIERS, LinkLayerField
from tools.scapy_dmm.suboptions import DMMOptVisit, suboption


class _Option(_MIP6OptAlign):
    """A mobility option; `sizes` are those that its data may have, x and y its alignment xn+y."""

    kind: ClassVar[int]
    sizes: ClassVar[range]
    x = y = 0


def _option(kind: int, size: int | None = None) -> list[Any]:
    length = (
        FieldLenField("olen", None, length_of="lladdr", fmt="B", adjust=lambda _, n: n + 2)
        if size is None
        else ByteField("olen", size)
    )
    return [ByteField("otype", kind), length]


def _prefix_option(kind: int) -> list[Any]:
    return [
        *_option(kind, 18),
        XByteField("reserved", 0),
        ByteField("plen", 64),
        IP6Field("prefix", "::"),
    ]


class _PrefixOption(_Option):
    sizes = range(18, 19)
    x, y = 8, 4


class _AddressOption(_Option):
    sizes = range(16, 17)
    x, y = 8, 6


class _LinkLayerOption(_Option):
    sizes = range(3, 256)

    def alignment_delta(self, curpos: int) -> int:
        """An address whose size is a multiple of 8 or 4 falls on that boundary (section 6.2.1)."""
        size = len(self.lladdr)
        width = next(width for width in (8, 4, 2, 1) if width == 2 or size % width == 0)
        offset = 0 if width == 2 else width - 4
        return int((offset - curpos) % width)


def _link_layer_option(kind: int) -> list[Any]:
    lladdr = LinkLayerField("lladdr", b"", length_from=lambda packet: packet.olen - 2)
    return [*_option(kind), XShortField("reserved", 0), lladdr]


class _SubOptionField(PacketLenField):
    """A sub-option with a code of one octet, and no length: the option has that already."""

    def m2i(self, pkt: Any, m: bytes) -> Any:
        return suboption(struct.pack("!HH", m[0], len(m) - 1) + m[1:], pkt.enterprise)

    def i2m(self, pkt: Any, i: Any) -> bytes:
        whole = bytes(i)
        return whole[1:2] + whole[4:]

    def i2len(self, pkt: Any, i: Any) -> int:
        return len(self.i2m(pkt, i))


class MIP6OptVendorSpecific(_Option):
    name = "Mobility Option - Vendor Specific"  # RFC 5094 section 3
    kind, sizes = 19, range(5, 256)
    x, y = 4, 2
    fields_desc = [
        ByteField("otype", 19),
        FieldLenField("olen", None, length_of="suboption", fmt="B", adjust=lambda _, n: n + 4),
        IntField("enterprise", 32473),
        _SubOptionField(
            "suboption", DMMOptVisit(), DMMOptVisit, length_from=lambda packet: packet.olen - 4
        ),
    ]


class MIP6OptHomeNetworkPrefix(_PrefixOption):
    name = "Mobility Option - Home Network Prefix"  # RFC 5213 section 8.3
    kind, fields_desc = 22, _prefix_option(22)


class MIP6OptHandoffIndicator(_Option):
    name = "Mobility Option - Handoff Indicator"  # RFC 5213 section 8.4
    kind, sizes = 23, range(2, 3)
    fields_desc = [
        *_option(23, 2),
        XByteField("reserved", 0),
        ByteEnumField("handoff", 4, HANDOFFS),
    ]


class MIP6OptAccessTechnology(_Option):
    name = "Mobility Option - Access Technology Type"  # RFC 5213 section 8.5
    kind, sizes = 24, range(2, 3)
    fields_desc = [*_option(24, 2), XByteField("reserved", 0), ByteEnumField("access", 4, ACCESS)]


class MIP6OptLinkLayerId(_LinkLayerOption):
    name = "Mobility Option - Mobile Node Link-layer Identifier"  # RFC 5213 section 8.6
    kind, fields_desc = 25, _link_layer_option(25)


class MIP6OptLinkLocalAddr(_AddressOption):
    name = "Mobility Option - Link-local Address"  # RFC 5213 section 8.7
    kind, fields_desc = 26, [*_option(26, 16), IP6Field("address", "fe80::1")]


class MIP6OptTimestamp(_Option):
    name = "Mobility Option - Timestamp"  # RFC 5213 section 8.8
    kind, sizes = 27, range(8, 9)
    x, y = 8, 2
    fields_desc = [*_option(27, 8), LongField("timestamp", 0)]


class MIP6OptDelegatedPrefix(_PrefixOption):
    name = "Mobility Option - Delegated Mobile Network Prefix"  # RFC 7148 section 4.1, IPv6 only
    y = 2
    kind, fields_desc = 55, _prefix_option(55)


class MIP6OptAnchoredPrefix(_PrefixOption):
    name = "Mobility Option - Anchored Prefix"  # RFC 8885 section 4.3
    kind, fields_desc = 65, _prefix_option(65)


class MIP6OptLocalPrefix(_PrefixOption):
    name = "Mobility Option - Local Prefix"  # RFC 8885 section 4.4
    kind, fields_desc = 66, _prefix_option(66)


class MIP6OptPreviousMAAR(_Option):
    name = "Mobility Option - Previous MAAR"  # RFC 8885 section 4.5
    kind, sizes = 67, range(34, 35)
    x, y = 8, 4
    fields_desc = [
        *_option(67, 34),
        XByteField("reserved", 0),
        ByteField("plen", 64),
        IP6Field("endpoint", "::"),
        IP6Field("prefix", "::"),
    ]


class MIP6OptServingMAAR(_AddressOption):
    name = "Mobility Option - Serving MAAR"  # RFC 8885 section 4.6
    kind, fields_desc = 68, [*_option(68, 16), IP6Field("endpoint", "::")]


class MIP6OptDLIFLinkLocal(_AddressOption):
    name = "Mobility Option - DLIF Link-Local Address"  # RFC 8885 section 4.7
    kind, fields_desc = 69, [*_option(69, 16), IP6Field("address", "fe80::1")]


class MIP6OptDLIFLinkLayer(_LinkLayerOption):
    name = "Mobility Option - DLIF Link-Layer Address"  # RFC 8885 section 4.8
    kind, fields_desc = 70, _link_layer_option(70)


_OPTIONS: dict[int, type[_Option]] = {
    each.kind: each
    for each in globals().values()
    if isinstance(each, type) and issubclass(each, _Option) and "kind" in vars(each)
}
MIP6OptMNID.fields_desc[2].i2s.update(IDENTIFIERS)
MIP6OptMNID.fields_desc[2].s2i.update({name: number for number, name in IDENTIFIERS.items()})


def _mobility_option(cls: Any, /, data: bytes = b"", *_: Any, **fields: Any) -> Any:
    ours = _OPTIONS.get(data[0]) if data else None
    if ours is not None:
        return ours if len(data) > 1 and data[1] in ours.sizes and len(data) >= 2 + data[1] else cls
    return moboptcls.get(data[0], cls) if data else cls


MIP6OptUnknown.dispatch_hook = classmethod(_mobility_option)
