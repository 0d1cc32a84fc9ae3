"""Fields and names that the sub-options and the mobility options share."""

from __future__ import annotations

from typing import Any

from scapy.fields import StrLenField

HANDOFFS = {  # RFC 5213 section 8.4
    1: "new interface",
    2: "between interfaces",
    3: "between MAGs",
    4: "unknown",
    5: "not changed",
}
ACCESS = {  # RFC 5213 section 8.5
    1: "virtual",
    2: "PPP",
    3: "IEEE 802.3",
    4: "IEEE 802.11",
    5: "IEEE 802.16e",
}
IDENTIFIERS = {  # RFC 4283 section 3.1, RFC 8371 section 6
    1: "NAI",
    2: "IPv6 address",
    3: "IMSI",
    4: "P-TMSI",
    5: "EUI-48",
    6: "EUI-64",
    7: "GUTI",
    8: "DUID",
}


class LinkLayerField(StrLenField):
    """A link-layer address of any size: octets, or text such as "02:00:5e:00:53:aa"."""

    def any2i(self, pkt: Any, x: Any) -> Any:
        return bytes.fromhex(x.replace(":", "")) if isinstance(x, str) else x

    def i2repr(self, pkt: Any, x: Any) -> str:
        return bytes(x).hex(":")
