"""Router Advertisements on the access links (RFC 4861 sections 4.2 and 6.2).

They make a MAAR the default router and send the host to DHCPv6 (M flag). A prefix is named with
neither L nor A: nothing is on-link, and addresses come from the CMD. At a MAAR that relays
no DHCPv6 the M flag is clear and the A flag set: hosts make their own addresses (RFC 4862). On a link
with `slaac` both are set: a host may do either.

With a router identity for each anchor (RFC 8885 section 3.7) a node gets one from each of its anchors,
with that one's prefixes, by unicast: other nodes have other anchors.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from struct import Struct
from typing import Final, NamedTuple

from dmm_wire.address import Prefix
from dmm_wire.dhcpv6.codes import INFINITY
from dmm_wire.router_identity import RouterIdentity
from dmm_wire.timers import Timers
from relay_maar.core.actions import SendNeighborSolicitation, SendRouterAdvertisement
from relay_maar.core.session import Role, Session, remaining
from relay_maar.core.settings import AccessLink, RouterSettings

ALL_NODES: Final = bytes.fromhex("ff020000000000000000000000000001")
ALL_NODES_FRAME: Final = bytes.fromhex("333300000001")
"""Where a frame to all nodes goes (RFC 2464 section 7)."""

MAX_INITIAL_RTR_ADVERTISEMENTS: Final = 3
MAX_INITIAL_RTR_ADVERT_INTERVAL: Final = 16.0
MIN_DELAY_BETWEEN_RAS: Final = 3.0
MAX_RA_DELAY_TIME: Final = 0.5
"""RFC 4861 section 10."""

UNICAST_RATE: Final = 200
"""Unicast advertisements per second and link; beyond, a multicast one serves everybody at once, and who has prefixes,
which no multicast one names, is told of them as soon as there is room."""
_REMEMBERED: Final = 4096
_AGAIN: Final = 0.5
"""Seconds between the first advertisements of routers that are not multicast."""

_ROUTER_SOLICITATION: Final = 133
_ROUTER_ADVERTISEMENT: Final = 134
_NEIGHBOR_SOLICITATION: Final = 135
_SOURCE_LINK_LAYER: Final = 1
_MANAGED: Final = 0x80
_AUTONOMOUS: Final = 0x40
_HOP_LIMIT: Final = 64
_HEADER: Final = Struct("!BBHBBHII")
_MTU: Final = Struct("!BBHI")
_PREFIX: Final = Struct("!BBBBIII16s")
_SOLICITATION: Final = Struct("!BBHI16s")


@dataclass(frozen=True, slots=True)
class PrefixInformation:
    """A Prefix Information option (section 4.6.2) with L clear; lifetimes in seconds. `router`: the
    anchor that advertises it where that is not ourselves (RFC 8885 section 3.7)."""

    prefix: Prefix
    valid: int
    preferred: int
    router: RouterIdentity | None = None


def solicitation_fault(source: bytes, data: bytes) -> str | None:
    """Why the ICMPv6 message `data` from `source` is no valid Router Solicitation, as a short slug;
    None if it is one (section 6.1.1, of which the hop limit and the checksum are not seen here)."""
    if len(data) < 8:
        return "truncated"
    if data[0] != _ROUTER_SOLICITATION or data[1] != 0:
        return "type"
    position = 8
    while position < len(data):
        size = 8 * data[position + 1] if position + 1 < len(data) else 0
        if size == 0 or position + size > len(data):
            return "option-length"
        if data[position] == _SOURCE_LINK_LAYER and not any(source):
            return "link-layer"
        position += size
    return None


def advertisement(
    link: AccessLink,
    lifetime: int,
    prefixes: Iterable[PrefixInformation] = (),
    *,
    autonomous: bool = False,
    router: RouterIdentity | None = None,
) -> bytes:
    """A whole Router Advertisement with the checksum left 0. `lifetime`: seconds as default router,
    0 for no longer. `autonomous`: hosts make their own addresses, and are not sent to DHCPv6.
    `router`: whose it is if it is not ours."""
    managed = 0 if autonomous else _MANAGED
    flags = _AUTONOMOUS if autonomous or link.slaac else 0
    parts = [
        _HEADER.pack(_ROUTER_ADVERTISEMENT, 0, 0, _HOP_LIMIT, managed, lifetime, 0, 0),
        _source_link_layer(link.link_layer if router is None else router.link_layer),
        _MTU.pack(5, 1, 0, link.mtu),
    ]
    parts += [
        _PREFIX.pack(
            3, 4, each.prefix.length, flags, each.valid, each.preferred, 0, each.prefix.address
        )
        for each in prefixes
    ]
    return b"".join(parts)


def neighbor_solicitation(link: AccessLink, target: bytes) -> bytes:
    """A whole Neighbor Solicitation (section 4.3) that asks whether `target` is there, with the
    checksum left 0."""
    data = _SOLICITATION.pack(_NEIGHBOR_SOLICITATION, 0, 0, 0, target)
    return data + _source_link_layer(link.link_layer)


def _source_link_layer(address: bytes) -> bytes:
    units = -(-(2 + len(address)) // 8)
    return bytes((_SOURCE_LINK_LAYER, units)) + address.ljust(8 * units - 2, b"\0")


PrefixesOf = Callable[[str, bytes, float], Iterable[PrefixInformation]]
"""What to tell a node, by interface and address, about its prefixes."""


class _Owed(NamedTuple):
    """What it takes to tell a node later what it could not be told at once."""

    prefixes: PrefixesOf
    link_layer: bytes | None
    settled: bool


@dataclass(slots=True)
class _Link:
    settings: AccessLink
    initial: int = MAX_INITIAL_RTR_ADVERTISEMENTS
    last_multicast: float = float("-inf")
    unicast_since: float = float("-inf")
    unicast_sent: int = 0
    owed: OrderedDict[bytes, _Owed] = field(default_factory=OrderedDict)
    """By their addresses, the nodes that there was no room for; the first is told first."""


_Gist = tuple[tuple[Prefix, bool, RouterIdentity | None], ...]


class _Told(NamedTuple):
    """What a node was last told of its prefixes, when, and how often."""

    at: float
    what: _Gist
    times: int

    def routers(self) -> dict[RouterIdentity, None]:
        """The other anchors that it was told of."""
        return {router: None for _, _, router in self.what if router is not None}


def on_link(session: Session | None, now: float) -> list[PrefixInformation]:
    """The node's own on-link prefixes: preferred the one from here, deprecated those from
    elsewhere."""
    found = []
    for entry in session.having(Role.LOCAL, Role.SERVED) if session is not None else ():
        if not entry.delegated:
            left = remaining(entry.expires, now)
            valid = INFINITY if math.isinf(left) else int(left)
            preferred = valid if entry.role is Role.LOCAL else 0
            router = entry.router if entry.role is Role.SERVED else None
            found.append(PrefixInformation(entry.prefix, valid, preferred, router))
    return found


def _by_whom(
    prefixes: Iterable[PrefixInformation], link_layer: bytes | None
) -> list[PrefixInformation]:
    """An address resolution is the kernel's, which asks as ourselves: where one is needed, we tell of
    all prefixes."""
    told = list(prefixes)
    return told if link_layer is not None else [replace(each, router=None) for each in told]


def _gist(prefixes: Iterable[PrefixInformation]) -> _Gist:
    """Which prefixes, and which of them are preferred: lifetimes run down and are no news."""
    return tuple(
        sorted(
            ((each.prefix, each.preferred > 0, each.router) for each in prefixes),
            key=itemgetter(0),
        )
    )


class Router:
    """When which link gets which advertisement. `jitter` gives numbers from 0 to 1."""

    def __init__(
        self,
        links: Iterable[AccessLink],
        settings: RouterSettings,
        jitter: Callable[[], float],
    ) -> None:
        self._links = {link.interface: _Link(link) for link in links}
        self._settings = settings
        self._jitter = jitter
        self._timers: Timers[str] = Timers()
        self._owing: Timers[str] = Timers()
        """When there is room on a link for those that are owed an advertisement."""
        self._recent: OrderedDict[tuple[str, bytes], _Told] = OrderedDict()

    def start(self, now: float) -> None:
        """Advertise on every link, the first time within half a second."""
        for interface in self._links:
            self._timers.set(interface, now + MAX_RA_DELAY_TIME * self._jitter())

    def deadline(self) -> float | None:
        """When :meth:`due` has something to send."""
        deadlines = (self._timers.deadline(), self._owing.deadline())
        return min((each for each in deadlines if each is not None), default=None)

    def due(self, now: float) -> list[SendRouterAdvertisement]:
        """The multicast advertisements to send now; the next ones are set (section 6.2.4). And those to nodes that many
        others came before."""
        owed = [each for interface in self._owing.due(now) for each in self._pay(interface, now)]
        return [*owed, *(self._multicast(interface, now) for interface in self._timers.due(now))]

    def attached(
        self,
        interface: str,
        node: bytes,
        now: float,
        prefixes: PrefixesOf,
        link_layer: bytes | None = None,
        *,
        settled: bool = True,
    ) -> list[SendRouterAdvertisement]:
        """A node was seen on the link: advertise to it at once, unless it was told the same in the
        last 3 s or too many came. Where its link-layer address is known, that waits for nothing.
        `settled`: `node` is an address that the node has for sure, and uses."""
        told = _by_whom(prefixes(interface, node, now), link_layer)
        last = self._recent.get((interface, node))
        recent = last is not None and now < last.at + MIN_DELAY_BETWEEN_RAS
        if recent and last is not None and last.what == _gist(told):
            return []
        return self._unicast(interface, node, now, told, _Owed(prefixes, link_layer, settled))

    def changed(
        self,
        interface: str,
        node: bytes,
        now: float,
        prefixes: PrefixesOf,
        link_layer: bytes | None = None,
        *,
        settled: bool = True,
    ) -> list[SendRouterAdvertisement]:
        """The node's prefixes may be others now: advertise to it at once if it was told otherwise."""
        told = _by_whom(prefixes(interface, node, now), link_layer)
        last = self._recent.get((interface, node))
        if last is not None and last.what == _gist(told) and not self._fades(last, now):
            return []
        return self._unicast(interface, node, now, told, _Owed(prefixes, link_layer, settled))

    def _fades(self, last: _Told, now: float) -> bool:
        """Whether the node is to be told again because nothing else tells it of its other routers:
        they are never multicast, as they are not there for everybody. One advertisement can be
        lost, or come before the host is ready for it, so the first ones are not far apart."""
        if not last.routers():
            return False
        is_initial = last.times < MAX_INITIAL_RTR_ADVERTISEMENTS
        pause = _AGAIN if is_initial else self._settings.router_lifetime / 3
        return now >= last.at + pause

    def renewed(
        self,
        interface: str,
        node: bytes,
        now: float,
        prefixes: PrefixesOf,
        link_layer: bytes | None = None,
        *,
        settled: bool = True,
    ) -> list[SendRouterAdvertisement]:
        """The lifetimes of the node's prefixes are others now: advertise to it at once."""
        told = _by_whom(prefixes(interface, node, now), link_layer)
        return self._unicast(interface, node, now, told, _Owed(prefixes, link_layer, settled))

    def probe(
        self, interface: str, node: bytes, link_layer: bytes | None = None
    ) -> SendNeighborSolicitation:
        """Ask a node whether it is there; it will answer, and be seen."""
        data = neighbor_solicitation(self._links[interface].settings, node)
        return SendNeighborSolicitation(interface, node, data, link_layer)

    def _unicast(
        self,
        interface: str,
        node: bytes,
        now: float,
        prefixes: list[PrefixInformation],
        owed: _Owed,
    ) -> list[SendRouterAdvertisement]:
        link, (_, link_layer, settled) = self._links[interface], owed
        if not _room(link, now):
            self._hasten(interface, now)
            if prefixes:
                self._owe(interface, node, owed)
            return []
        link.owed.pop(node, None)
        # The node may still be trying its address out, or have another than we think. All nodes is
        # an address of every node, and the frame goes to this one.
        to = node if link_layer is None or settled else ALL_NODES
        before = self._recent.get((interface, node))
        routers: dict[RouterIdentity | None, list[PrefixInformation]] = {None: []}
        if link_layer is not None and before is not None:
            routers |= {router: [] for router in before.routers()}
        for each in prefixes:
            routers.setdefault(each.router, []).append(each)
        sent = []
        for router, named in routers.items():
            data = self._advertisement(link, named, router)
            sent.append(SendRouterAdvertisement(interface, to, data, link_layer, router))
        link.unicast_sent += len(sent)
        gist = _gist(prefixes)
        times = before.times + 1 if before is not None and before.what == gist else 1
        self._recent[interface, node] = _Told(now, gist, times)
        self._recent.move_to_end((interface, node))
        if len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return sent

    def _owe(self, interface: str, node: bytes, owed: _Owed) -> None:
        """Have the node told when there is room."""
        link = self._links[interface]
        link.owed[node] = owed
        if len(link.owed) > _REMEMBERED:
            link.owed.popitem(last=False)
        self._owing.set(interface, link.unicast_since + 1.0)

    def _pay(self, interface: str, now: float) -> list[SendRouterAdvertisement]:
        """Tell those that are owed it what they have by now, as far as there is room."""
        link = self._links[interface]
        sent: list[SendRouterAdvertisement] = []
        while link.owed and _room(link, now):
            node, owed = link.owed.popitem(last=False)
            told = _by_whom(owed.prefixes(interface, node, now), owed.link_layer)
            if told:
                sent += self._unicast(interface, node, now, told, owed)
        if link.owed:
            self._owing.set(interface, link.unicast_since + 1.0)
        return sent

    def _advertisement(
        self,
        link: _Link,
        prefixes: Sequence[PrefixInformation] = (),
        router: RouterIdentity | None = None,
    ) -> bytes:
        """Another anchor is a router for as long as it has a prefix of the node; of one that has none
        any more this is the last word (section 6.2.5)."""
        settings = self._settings
        lifetime = settings.router_lifetime
        if router is not None:
            lifetime = min(lifetime, max((each.valid for each in prefixes), default=0))
        return advertisement(
            link.settings, lifetime, prefixes, autonomous=settings.autonomous, router=router
        )

    def solicited(
        self,
        interface: str,
        source: bytes,
        now: float,
        prefixes: PrefixesOf,
        link_layer: bytes | None = None,
    ) -> list[SendRouterAdvertisement]:
        """A Router Solicitation came. Whoever was not advertised to lately gets it at once, as one
        that attaches: the delay of section 6.2.6 keeps several routers from answering together, and
        a MAAR is alone on its link. All others, and those without an address, get a multicast one,
        delayed and limited as that section says."""
        sent = self.attached(interface, source, now, prefixes, link_layer) if any(source) else []
        if not sent:
            self._hasten(interface, now)
        return sent

    def _hasten(self, interface: str, now: float) -> None:
        """Have a multicast advertisement sent as soon as one may be."""
        delay = MAX_RA_DELAY_TIME * self._jitter()
        when = max(now + delay, self._links[interface].last_multicast + MIN_DELAY_BETWEEN_RAS)
        current = self._timers.when(interface)
        if current is None or when < current:
            self._timers.set(interface, when)

    def stop(self, others: Iterable[tuple[str, RouterIdentity]]) -> list[SendRouterAdvertisement]:
        """No longer a router here: one last advertisement with a lifetime of 0 on each link
        (section 6.2.5), and one of each of the `others` that we have shown there."""
        autonomous = self._settings.autonomous
        said = []
        for interface, link in self._links.items():
            self._timers.cancel(interface)
            self._owing.cancel(interface)
            data = advertisement(link.settings, 0, autonomous=autonomous)
            said.append(SendRouterAdvertisement(interface, ALL_NODES, data))
        for interface, router in others:
            link = self._links[interface]
            data = advertisement(link.settings, 0, autonomous=autonomous, router=router)
            said.append(
                SendRouterAdvertisement(interface, ALL_NODES, data, ALL_NODES_FRAME, router)
            )
        return said

    def _multicast(self, interface: str, now: float) -> SendRouterAdvertisement:
        link, settings = self._links[interface], self._settings
        spread = settings.max_interval - settings.min_interval
        interval = settings.min_interval + spread * self._jitter()
        if link.initial:
            link.initial -= 1
            interval = min(interval, MAX_INITIAL_RTR_ADVERT_INTERVAL)
        link.last_multicast = now
        self._timers.set(interface, now + max(interval, MIN_DELAY_BETWEEN_RAS))
        return SendRouterAdvertisement(interface, ALL_NODES, self._advertisement(link))


def _room(link: _Link, now: float) -> bool:
    """Whether the link may have one more unicast advertisement in this second."""
    if now >= link.unicast_since + 1.0:
        link.unicast_since, link.unicast_sent = now, 0
    return link.unicast_sent < UNICAST_RATE
