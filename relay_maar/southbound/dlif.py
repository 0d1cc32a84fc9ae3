"""Other anchors' identities on our access links (RFC 8885 section 3.7): a device for each, beside that of our own.

Packets that hosts send to such a router come in by its device, and go on like all others: by source. What is sent to
hosts goes out by our own device, whichever router they sent to.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from socket import AF_INET6
from typing import Final

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from dmm_wire.address import parse_address
from dmm_wire.router_identity import RouterIdentity
from relay_maar.core.items import Dlif, Key
from relay_maar.southbound import identity
from relay_maar.southbound.api import DriverUnavailable
from relay_maar.southbound.checks import Impossible
from relay_maar.southbound.identity import Link
from relay_maar.southbound.layout import Layout
from relay_maar.southbound.netlink import Message, Netlink, Refused, Request, message

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL})


class Dlifs:
    """The devices of one MAAR. `ending` is told the index of each that is about to be removed."""

    def __init__(self, netlink: Netlink, layout: Layout, ending: Callable[[int], None]) -> None:
        self._netlink = netlink
        self._layout = layout
        self._ending = ending
        self._links: dict[Key, Link] = {}

    @property
    def names(self) -> list[str]:
        """Of the devices that there are."""
        return [link.name for link in self._links.values()]

    def put(self, item: Dlif) -> None:
        """Make the device, or mend it. At once, and not in a batch with other changes: what it is to have takes its
        index. Raises Impossible."""
        before = self._links.get(item.key)
        if before is not None and before.link_layer != item.identity.link_layer:
            self.drop(item)  # two devices with one address would both answer for it
        try:
            link = self._links[item.key] = self._make(item)
            for refused in self._netlink.transact(self._layout.access_rules(link.name, put=True)):
                if refused is not None and refused.number != errno.EEXIST:
                    raise refused
        except Refused as refused:
            raise Impossible(f"{refused.reason} (access interface {item.interface})") from None
        except (DriverUnavailable, OSError) as problem:
            raise Impossible(str(problem)) from None

    def drop(self, item: Dlif) -> None:
        """Remove the device, or from one that shows another identity, too, this address. Raises Impossible."""
        link = self._links.pop(item.key, None)
        if link is None:
            return
        wanted: list[Message | Request]
        if any(link.number == other.number for other in self._links.values()):
            wanted = [identity.unassign(link.number, item.identity.link_local)]
        else:
            self._ending(link.number)
            wanted = [_removal(link), *self._layout.access_rules(link.name, put=False)]
        try:
            for refused in self._netlink.transact(wanted):
                if refused is not None and refused.number not in _GONE:
                    raise refused
        except Refused as refused:
            raise Impossible(refused.reason) from None
        except OSError as problem:
            raise Impossible(str(problem)) from None

    def read(self, interfaces: Collection[str]) -> tuple[dict[Key, Dlif], list[Request]]:
        """What there is on these access interfaces, and the removals of what is not whole. Raises Refused."""
        links = identity.links(self._netlink)
        names = {link.number: link.name for link in links}
        ours = [link for link in links if identity.is_dlif(link)]
        shown = _shown(self._netlink, ours) if ours else {}
        items: dict[Key, Dlif] = {}
        strays = []
        self._links = {}
        for link in ours:
            interface = names.get(link.parent or 0, "")
            address = shown.get(link.number)
            if address is not None and interface in interfaces:
                item = Dlif(interface, RouterIdentity(address, link.link_layer))
                if item.key not in items:
                    items[item.key], self._links[item.key] = item, link
                    continue
            self._ending(link.number)
            strays.append(_removal(link))
        return items, strays

    def _make(self, item: Dlif) -> Link:
        existing = {link.name: link for link in identity.links(self._netlink)}
        parent = existing.get(item.interface)
        if parent is None:
            raise Refused(errno.ENODEV)
        router = item.identity
        # Also one that was left half made: two of one address are refused.
        alike = (
            link
            for link in existing.values()
            if identity.is_dlif(link)
            and (link.parent, link.link_layer) == (parent.number, router.link_layer)
        )
        found = next(alike, None)
        own = identity.device_name(parent.number)
        names = (identity.dlif_name(own, number) for number in count())
        name = next(name for name in names if name not in existing) if found is None else found.name
        index = identity.make(self._netlink, router, name, parent, found)
        return Link(index, name, "macvlan", parent.number, router.link_layer, up=True)


def _shown(netlink: Netlink, links: Iterable[Link]) -> Mapping[int, bytes]:
    """Of those that are up, by index, the link-local address that each shows."""
    up = {link.number for link in links if link.up}
    found: dict[int, bytes] = {}
    for seen in netlink.dump(message(ifaddrmsg, RTM_GETADDR, 0, {"family": AF_INET6}, ())):
        if seen["index"] in up:
            found[int(seen["index"])] = parse_address(seen.get_attr("IFA_ADDRESS"))
    return found


def _removal(link: Link) -> Request:
    return Request(RTM_DELLINK, 0, struct.pack("=BxHiII", 0, 0, link.number, 0, 0))
