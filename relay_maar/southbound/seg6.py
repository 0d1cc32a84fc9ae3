"""Tunnels by the kernel's segment routing: plain IPv6-in-IPv6 (RFC 2473) on the wire.

One segment and mode encap.red leave no segment routing header (RFC 8986 section 5.2); End.DT6
(section 4.6) decapsulates a packet without one and looks the inner destination up in one table,
past all rules. No tunnel device, no state in the kernel but the routes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pyroute2.netlink import CTRL_CMD_GETFAMILY, GENL_ID_CTRL, ctrlmsg, genlmsg
from pyroute2.netlink.rtnl.rtmsg import (
    LWTUNNEL_ENCAP_SEG6,
    LWTUNNEL_ENCAP_SEG6_LOCAL,
    rtmsg,
)

from dmm_wire.address import format_address, parse_address
from relay_maar.southbound.api import DriverUnavailable, SouthboundSettings
from relay_maar.southbound.found import Note, Notebook
from relay_maar.southbound.kernel import KernelSouthbound
from relay_maar.southbound.layout import LOOPBACK_INDEX, NOTES_TABLE, Layout
from relay_maar.southbound.messages import (
    RT_TABLE_MAIN,
    drop_route,
    nested,
    out_of,
    packed,
    put_route,
)
from relay_maar.southbound.netlink import Attributes, Message, Netlink, Refused, message

_NETLINK_GENERIC = 16
_ENCAP_RED = 3
_SET_TUNNEL_SOURCE = 3
_GET_TUNNEL_SOURCE = 4

# pyroute2 0.9.7 does not know this mode and would silently send plain `encap`, with a header.
rtmsg.seg6_encap_info.ipv6_sr_hdr.encapmodes["encap.red"] = _ENCAP_RED


@lru_cache(maxsize=1024)
def _encap_red(index: int, segment: bytes) -> bytes:
    header = {"mode": "encap.red", "segs": [format_address(segment)]}
    return nested(
        [
            ("RTA_OIF", index),
            ("RTA_ENCAP_TYPE", LWTUNNEL_ENCAP_SEG6),
            ("RTA_ENCAP", {"attrs": [("SEG6_IPTUNNEL_SRH", header)]}),
        ]
    )


@lru_cache
def _end_dt6(index: int) -> bytes:
    action = [
        ("SEG6_LOCAL_ACTION", {"value": "End.DT6"}),
        ("SEG6_LOCAL_TABLE", {"value": RT_TABLE_MAIN}),
    ]
    return nested(
        [
            ("RTA_OIF", index),
            ("RTA_ENCAP_TYPE", LWTUNNEL_ENCAP_SEG6_LOCAL),
            ("RTA_ENCAP", {"attrs": action}),
        ]
    )


class _Seg6(genlmsg):
    """A command of the generic netlink family SEG6 (include/uapi/linux/seg6_genl.h)."""

    __slots__ = ()
    nla_map = (("SEG6_ATTR_UNSPEC", "none"), ("SEG6_ATTR_DST", "ip6addr"))


class Seg6Southbound(KernelSouthbound):
    """The `seg6` driver: Linux with SRv6 and lightweight tunnels."""

    name = "seg6"

    def encapsulation(self, peer: bytes) -> bytes:
        """One segment: the peer's endpoint becomes the outer destination."""
        return _encap_red(self.core_index, peer)

    def decapsulation(self) -> bytes:
        """End.DT6 into the main table, past all rules."""
        return _end_dt6(self.core_index)

    def peer_of(self, route: Message) -> bytes | None:
        """The one segment of an encap.red route."""
        if route.get_attr("RTA_ENCAP_TYPE") != LWTUNNEL_ENCAP_SEG6:
            return None
        header = route.get_attr("RTA_ENCAP").get_attr("SEG6_IPTUNNEL_SRH")
        if header["encapmode"] != _ENCAP_RED or len(header["segs"]) != 1:
            return None
        return parse_address(header["segs"][0])

    def set_up(self, notebook: Notebook) -> None:
        """The namespace's tunnel source: else the outer source is the core interface's address."""
        with _TunnelSource() as source:
            before = source.get()
            if before == self.settings.endpoint:
                return
            if not notebook.read(Note.TUNNEL_SOURCE):
                notebook.write(Note.TUNNEL_SOURCE, before)
            source.set(self.settings.endpoint)

    def tear_down(self, notebook: Notebook) -> None:
        """The tunnel source that was there before."""
        for before in notebook.read(Note.TUNNEL_SOURCE):
            with _TunnelSource() as source:
                source.set(before)


class _TunnelSource:
    """`ip sr tunsrc`, one address for the namespace."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_GENERIC)
        family = message(
            ctrlmsg,
            GENL_ID_CTRL,
            0,
            {"cmd": CTRL_CMD_GETFAMILY, "version": 1},
            [("CTRL_ATTR_FAMILY_NAME", "SEG6")],
        )
        try:
            self._family = self._netlink.get(family).get_attr("CTRL_ATTR_FAMILY_ID")
        except Refused:
            self._netlink.close()
            raise DriverUnavailable("seg6: this kernel has no segment routing") from None

    def __enter__(self) -> _TunnelSource:
        return self

    def __exit__(self, *_: Any) -> None:
        self._netlink.close()

    def get(self) -> bytes:
        """The address; `::` is the kernel's choice. Raises Refused."""
        return packed(self._netlink.get(self._command(_GET_TUNNEL_SOURCE, ())), "SEG6_ATTR_DST")

    def set(self, address: bytes) -> None:
        """Raises Refused."""
        attributes = [("SEG6_ATTR_DST", format_address(address))]
        self._netlink.request(self._command(_SET_TUNNEL_SOURCE, attributes))

    def _command(self, command: int, attributes: Attributes) -> Message:
        return message(_Seg6, self._family, 0, {"cmd": command, "version": 1}, attributes)


def probe(settings: SouthboundSettings) -> None:
    """Ask the kernel for one route of each kind, where no packet looks, and take it back.

    Raises DriverUnavailable, naming what is missing, if this kernel cannot carry the driver.
    """
    with _TunnelSource():
        pass
    layout, netlink = Layout(settings), Netlink()
    wanted = {
        "mode encap.red (Linux 6.1)": (_encap_red(LOOPBACK_INDEX, settings.endpoint), None),
        "End.DT6": (_end_dt6(LOOPBACK_INDEX), None),
        "source-specific routes (CONFIG_IPV6_SUBTREES)": (out_of(LOOPBACK_INDEX), layout.endpoint),
    }
    try:
        for what, (attributes, source) in wanted.items():
            where = (layout.endpoint, NOTES_TABLE, Note.PROBE, settings.protocol)
            try:
                netlink.request(put_route(*where, attributes, source=source))
                netlink.request(drop_route(*where, source))
            except Refused as refused:
                raise DriverUnavailable(f"seg6: {what}: {refused.reason}") from None
    finally:
        netlink.close()
