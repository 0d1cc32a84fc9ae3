"""Router identities on an access link: devices of our own on the operator's interface.

All mobile access gateways of a domain show the hosts one link-local address and one link-layer
address (RFC 6543), so that the default router a host has learned is still there after a move; or each
has its own, and those of the anchors of the nodes that are served follow them (RFC 8885 section 3.7).
Each identity lives on a macvlan in bridge mode: the interface itself keeps its own addresses, and
removing the device undoes everything.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import AF_INET6
from typing import NamedTuple

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from dmm_wire.address import format_address, format_mac, parse_address, parse_mac
from dmm_wire.router_identity import RouterIdentity
from relay_maar.southbound.api import AccessDevice, DriverUnavailable, SouthboundSettings
from relay_maar.southbound.netlink import Message, Netlink, Refused, Request, message

_NAME = "maar{}"
"""The device's name, from the interface's index: unique, and short enough for any interface name."""
_DLIF_NAME = "{}d{}"
"""One that shows another anchor, from the name of our own device there and a number."""
_BRIDGE_MODE = "bridge"
_ADDR_GEN_MODE_NONE = 1
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA, _IFLA_MACVLAN_BC_QUEUE_LEN = 18, 1, 2, 7
_MULTICAST_QUEUE = 16_384
_IFF_UP = 1
_IFA_F_NODAD = 2
_SYSCTLS = {"disable_ipv6": "0", "accept_ra": "0", "forwarding": "1"}
"""A router's interface; the defaults it was born with are the operator's."""


class Link(NamedTuple):
    """A network device as the kernel describes it."""

    number: int
    name: str
    kind: str | None
    parent: int | None
    link_layer: bytes
    up: bool


def links(netlink: Netlink) -> list[Link]:
    """Every device of the namespace."""
    return [_link(found) for found in netlink.dump(message(ifinfmsg, RTM_GETLINK, 0, {}, ()))]


def _link(found: Message) -> Link:
    info = found.get_attr("IFLA_LINKINFO")
    address = found.get_attr("IFLA_ADDRESS")
    return Link(
        found["index"],
        found.get_attr("IFLA_IFNAME"),
        info.get_attr("IFLA_INFO_KIND") if info is not None else None,
        found.get_attr("IFLA_LINK"),
        parse_mac(address) if address else b"",
        bool(found["flags"] & _IFF_UP),
    )


def holder(netlink: Netlink, address: bytes) -> int | None:
    """The index of the device that has `address` (packed IPv6), if any."""
    for found in netlink.dump(message(ifaddrmsg, RTM_GETADDR, 0, {"family": AF_INET6}, ())):
        text = found.get_attr("IFA_LOCAL") or found.get_attr("IFA_ADDRESS")
        if text and parse_address(text) == address:
            return int(found["index"])
    return None


def prepare(
    netlink: Netlink, settings: SouthboundSettings, fault: Callable[[DriverUnavailable], None]
) -> tuple[AccessDevice, ...]:
    """Make, mend or adopt the device of each access interface that exists; remove those of interfaces
    that are gone or no longer ours. `fault` is called for an interface that cannot be prepared."""
    existing = {link.name: link for link in links(netlink)}
    wanted = {
        _NAME.format(existing[interface].number): existing[interface]
        for interface in settings.access_interfaces
        if interface in existing
    }
    for link in list(existing.values()):
        kept = link.name in wanted and link.link_layer == settings.router.link_layer
        if is_ours(link) and not kept:
            remove(netlink, link)
            del existing[link.name]
    devices = []
    for name, parent in wanted.items():
        try:
            index = make(netlink, settings.router, name, parent, existing.get(name))
            devices.append(AccessDevice(parent.name, name, index, *settings.router))
        except DriverUnavailable as unavailable:
            fault(unavailable)
    return tuple(devices)


def device_name(interface_index: int) -> str:
    """What the device of our own identity is called on the interface with this index."""
    return _NAME.format(interface_index)


def is_dlif_name(name: str) -> bool:
    """Whether a device that shows another anchor could be called that."""
    own, _, number = name.rpartition("d")
    return number.isdecimal() and is_device_name(own)


def is_dlif(link: Link) -> bool:
    """Whether we made this device to show another anchor."""
    own, _, number = link.name.rpartition("d")
    mine = link.parent is not None and own == device_name(link.parent) and number.isdecimal()
    return mine and link.kind == "macvlan"


def dlif_name(own: str, number: int | str) -> str:
    """What a device is called that shows another anchor beside our `own`."""
    return _DLIF_NAME.format(own, number)


def is_device_name(name: str) -> bool:
    """Whether a device of ours could be called that."""
    return re.fullmatch(_NAME.format(r"\d+"), name) is not None


def is_ours(link: Link) -> bool:
    """Whether we made this device for our own identity: named after the index of the interface it sits on."""
    return link.kind == "macvlan" and link.name == _NAME.format(link.parent)


def remove(netlink: Netlink, link: Link) -> None:
    """Remove a device; one that is gone already is not an error. Raises Refused."""
    try:
        netlink.request(message(ifinfmsg, RTM_DELLINK, 0, {"index": link.number}, ()))
    except Refused as refused:
        if refused.number != errno.ENODEV:
            raise


def make(
    netlink: Netlink, router: RouterIdentity, name: str, parent: Link, found: Link | None
) -> int:
    """Make the device of that name, or mend what was `found` of it; returns its index. Raises DriverUnavailable."""
    try:
        if found is None:
            netlink.request(_creation(router, name, parent))
            (found,) = (link for link in links(netlink) if link.name == name)
            with suppress(Refused):  # before Linux 5.11 there is nothing to be set
                netlink.request(_room_for_multicast(found.number))
        elif not is_ours(found) and not is_dlif(found):
            raise DriverUnavailable(f"the name {name} is taken by a device that is not ours")
        if not found.up:
            netlink.request(_no_generated_address(found.number))
        _set_sysctls(name)
        if not found.up:
            netlink.request(_up(found.number))
        _assign(netlink, found.number, router.link_local)
    except Refused as refused:
        raise DriverUnavailable(f"router identity on {parent.name}: {refused.reason}") from None
    return found.number


def _creation(router: RouterIdentity, name: str, parent: Link) -> Message:
    return message(
        ifinfmsg,
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        {},
        [
            ("IFLA_IFNAME", name),
            ("IFLA_LINK", parent.number),
            ("IFLA_ADDRESS", format_mac(router.link_layer)),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "macvlan"),
                        (
                            "IFLA_INFO_DATA",
                            {"attrs": [("IFLA_MACVLAN_MODE", _BRIDGE_MODE)]},
                        ),
                    ]
                },
            ),
        ],
    )


def _room_for_multicast(index: int) -> Request:
    """A macvlan hands multicast packets on with a delay and keeps 1,000 of them meanwhile: the first message of each
    node of a crowd, and its MLD reports, are more. pyroute2 does not know the attribute."""
    room = _attribute(_IFLA_MACVLAN_BC_QUEUE_LEN, struct.pack("=I", _MULTICAST_QUEUE))
    kind = _attribute(_IFLA_INFO_KIND, b"macvlan\0")
    info = _attribute(_IFLA_LINKINFO, kind + _attribute(_IFLA_INFO_DATA, room))
    return Request(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + info)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) & 3)


def _up(index: int) -> Message:
    fields = {"index": index, "flags": _IFF_UP, "change": _IFF_UP}
    return message(ifinfmsg, RTM_NEWLINK, 0, fields, ())


def _no_generated_address(index: int) -> Message:
    """The link-local address of the identity is the only one: hosts must not see one router more."""
    inet6 = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_MODE_NONE)]}
    return message(
        ifinfmsg,
        RTM_NEWLINK,
        0,
        {"index": index},
        [("IFLA_AF_SPEC", {"attrs": [("AF_INET6", inet6)]})],
    )


def _assign(netlink: Netlink, index: int, address: bytes) -> None:
    """Without duplicate address detection: other gateways of the domain may have this address."""
    try:
        netlink.request(
            message(
                ifaddrmsg,
                RTM_NEWADDR,
                NLM_F_CREATE | NLM_F_EXCL,
                {"family": AF_INET6, "prefixlen": 64, "index": index, "flags": _IFA_F_NODAD},
                [("IFA_ADDRESS", format_address(address))],
            )
        )
    except Refused as refused:
        if refused.number != errno.EEXIST:
            raise


def unassign(index: int, address: bytes) -> Message:
    """The request that takes one link-local address from a device that keeps others."""
    fields = {"family": AF_INET6, "prefixlen": 64, "index": index}
    return message(ifaddrmsg, RTM_DELADDR, 0, fields, [("IFA_ADDRESS", format_address(address))])


def _set_sysctls(device: str) -> None:
    for name, value in _SYSCTLS.items():
        path = Path("/proc/sys/net/ipv6/conf") / device / name
        try:
            # Written only where needed: /proc/sys may be read-only for a confined service.
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as error:
            raise DriverUnavailable(
                f"net.ipv6.conf.{device}.{name}={value}: {error.strerror}"
            ) from None
