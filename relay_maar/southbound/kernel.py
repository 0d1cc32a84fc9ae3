"""What all tunnel drivers share: opening, changing, reading and closing; `layout` says what goes where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from dmm_wire.address import UNSPECIFIED, Prefix, format_address, parse_mac
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Item,
    Key,
    Neighbour,
    Route,
    SourceRule,
    ToNode,
    ToPeer,
    Tunnel,
    Unreachable,
)
from relay_maar.southbound import identity
from relay_maar.southbound.api import (
    AccessDevice,
    DriverUnavailable,
    SouthboundError,
    SouthboundSettings,
    State,
)
from relay_maar.southbound.checks import Impossible
from relay_maar.southbound.dlif import Dlifs
from relay_maar.southbound.dumped import NEIGHBOUR, ROUTE, RULE, Dumped
from relay_maar.southbound.errors import TunnelErrors
from relay_maar.southbound.found import Note, Notebook, restore_forwarding, turn_on_forwarding
from relay_maar.southbound.ingress import IngressFilter
from relay_maar.southbound.layout import Layout
from relay_maar.southbound.messages import (
    RT_TABLE_MAIN,
    RTN_UNREACHABLE,
    all_neighbours,
    all_routes,
    all_rules,
    drop_found_route,
    drop_found_rule,
    drop_neighbour,
    packed,
    route_prefix,
    route_source,
    unless_there,
)
from relay_maar.southbound.monitor import Monitor
from relay_maar.southbound.netlink import Message, Netlink, Refused, Request
from relay_maar.southbound.nft import NftError
from relay_maar.southbound.plan import EXISTS, GONE, Planner, Step


class _Found(NamedTuple):
    """The kernel's state in our words."""

    items: dict[Key, Item]
    strays: list[Request]
    """Removals of what carries our number but is no item of this configuration."""


class KernelSouthbound(ABC):
    """A driver but for its tunnels: a subclass says how a peer is reached and how T decapsulates."""

    name: str
    relays_errors = False
    """Whether the kernel itself tells the senders of inner packets what became of them in the tunnel."""

    def __init__(self, settings: SouthboundSettings) -> None:
        self.settings = settings
        self.layout = Layout(settings)
        self.core_index = 0
        """The index of the core interface, from `open` on."""
        self._closed = False
        self._netlink = Netlink()
        self._monitor: Monitor | None = None
        self._errors: TunnelErrors | None = None
        self._filter = IngressFilter(settings)
        self._notebook = Notebook(self._netlink, self.layout)
        self._dlifs = Dlifs(self._netlink, self.layout, self._ending)
        self._planner = Planner(self.layout, self, self._notebook, self._dlifs)

    # What a driver adds

    @abstractmethod
    def encapsulation(self, peer: bytes) -> bytes:
        """The route attributes that send packets through the tunnel to `peer`."""

    @abstractmethod
    def decapsulation(self) -> bytes:
        """The route attributes that let packets to T out of a tunnel."""

    @abstractmethod
    def peer_of(self, route: Message) -> bytes | None:
        """The peer that a dumped route leads to, if it is of the kind `encapsulation` makes."""

    @abstractmethod
    def set_up(self, notebook: Notebook) -> None:
        """What the tunnels need once per namespace, noting first what was there. Raises Refused."""

    @abstractmethod
    def tear_down(self, notebook: Notebook) -> None:
        """Undo `set_up`, whichever process did it. Raises Refused."""

    # The contract

    def open(self) -> tuple[AccessDevice, ...]:
        """See `Southbound.open`."""
        if self.settings.table_base > self.layout.highest_base:
            raise DriverUnavailable(
                f"table_base {self.settings.table_base} is above {self.layout.highest_base}: its "
                "rules would come after the main table's, priority 32766"
            )
        try:
            self._notebook.load(self._routes())
            self._find_interfaces()
            turn_on_forwarding(self._notebook)
            self.set_up(self._notebook)
            devices = self._prepare_access(_insist)
            self._filter.put(devices)
            self._make(
                [
                    Step(self.layout.own_route()),
                    *(Step(rule, EXISTS) for rule in self.layout.own_rules(self._device_names())),
                ]
            )
            self._make([Step(removal, GONE) for removal in self._read().strays])
            self._adopt()
        except Refused as refused:
            raise DriverUnavailable(f"{self.name}: {refused.reason}") from None
        except NftError as error:
            raise DriverUnavailable(f"{self.name}: ingress filter: {error}") from None
        return devices

    def dump(self) -> frozenset[Item]:
        """See `Southbound.dump`. Raises DriverUnavailable where the kernel does not answer."""
        try:
            self._adopt()
        except Refused as refused:
            raise DriverUnavailable(f"{self.name}: {refused.reason}") from None
        return frozenset(self._planner.items.values())

    def watch(self) -> int:
        """See `Southbound.watch`."""
        if self._monitor is None:
            try:
                self._monitor = Monitor(self.settings, self._netlink.port)
            except OSError as error:
                raise DriverUnavailable(f"{self.name}: notifications: {error.strerror}") from None
            self._monitor.assume(identity.links(self._netlink))
        return self._monitor.fileno()

    def disturbed(self) -> bool:
        """See `Southbound.disturbed`."""
        return self._monitor is not None and self._monitor.disturbed()

    def errors(self) -> int:
        """See `Southbound.errors`."""
        if self.relays_errors:
            return -1
        if self._errors is None:
            try:
                self._errors = TunnelErrors(self.settings.endpoint)
            except OSError as error:
                raise DriverUnavailable(f"{self.name}: tunnel errors: {error.strerror}") from None
        return self._errors.fileno()

    def relay_errors(self) -> Mapping[str, int]:
        """See `Southbound.relay_errors`."""
        return {} if self._errors is None else self._errors.relay(self._planner.items)

    def drops(self) -> Mapping[str, int]:
        """See `Southbound.drops`. Empty where the kernel does not answer."""
        try:
            return self._filter.drops()
        except NftError:
            return {}

    def restore(self) -> State:
        """See `Southbound.restore`. What the kernel refuses now, because an interface is down, say,
        is tried again when it is called next."""
        faults: list[str] = []
        try:
            core_index = self._interfaces().get(self.settings.core_interface, 0)
            self.core_index = core_index or self.core_index
            devices = self._prepare_access(lambda fault: faults.append(str(fault)))
            filters = self._restore_filter(devices, faults)
            route = unless_there(self.layout.own_route())
            own = [route, *self.layout.own_rules(self._device_names())]
            repaired = self._netlink.transact(own).count(None) + filters
            if strays := self._adopt().strays:
                self._netlink.transact(strays)
                self._adopt()
        except Refused as refused:
            raise DriverUnavailable(f"{self.name}: {refused.reason}") from None
        except OSError as error:
            raise DriverUnavailable(f"{self.name}: netlink: {error.strerror or error}") from None
        items = frozenset(self._planner.items.values())
        return State(core_index, devices, items, repaired, tuple(faults))

    def apply(self, changes: Sequence[Change]) -> None:
        """See `Southbound.apply`."""
        failures: dict[int, str] = {}
        steps: list[tuple[int, Step]] = []
        for number, change in enumerate(changes):
            try:
                steps += [(number, step) for step in self._planner.plan(change)]
            except Impossible as error:
                failures[number] = str(error)
        try:
            verdicts = self._netlink.transact([step.request for _, step in steps])
        except OSError as error:
            # Nobody knows how far it came: nothing counts as made, and every change may be repeated.
            failures = dict.fromkeys(range(len(changes)), f"netlink: {error.strerror or error}")
            verdicts, steps = [], []
        for (number, step), refusal in zip(steps, verdicts, strict=True):
            if refusal is not None and refusal.number not in step.tolerated:
                failures.setdefault(number, _explain(changes[number].item, refusal))
        if failures:
            with suppress(Refused, OSError):
                self._adopt()
            raise SouthboundError([(changes[n], reason) for n, reason in sorted(failures.items())])

    def close(self, *, keep: bool) -> None:
        """See `Southbound.close`; also without an `open`, after a process that was killed. A closed
        driver stays closed.

        Raises DriverUnavailable if something could not be put back.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if not keep:
                self._put_back()
        except Refused as refused:
            raise DriverUnavailable(f"{self.name}: {refused.reason}") from None
        finally:
            for each in (self._netlink, self._filter, self._monitor, self._errors):
                if each is not None:
                    each.close()

    # Opening and closing

    def _find_interfaces(self) -> None:
        links = {link.name: link for link in identity.links(self._netlink)}
        there = {name: link.number for name, link in links.items()}
        core = [("core", self.settings.core_interface)]
        access = [("access", interface) for interface in self.settings.access_interfaces]
        for kind, interface in core + access:
            if interface not in there:
                raise DriverUnavailable(f"{kind} interface {interface} does not exist")
        self.core_index = there[self.settings.core_interface]
        if not links[self.settings.core_interface].up:
            raise DriverUnavailable(f"core interface {self.settings.core_interface} is not up")
        index = identity.holder(self._netlink, self.settings.endpoint)
        if index is not None:
            holder = next((name for name, number in there.items() if number == index), index)
            raise DriverUnavailable(
                f"the tunnel endpoint {format_address(self.settings.endpoint)} is assigned to "
                f"{holder}: take it away, the driver makes it local itself"
            )

    def _interfaces(self) -> dict[str, int]:
        """The index of each device of the namespace by its name."""
        return {link.name: link.number for link in identity.links(self._netlink)}

    def _prepare_access(
        self, fault: Callable[[DriverUnavailable], None]
    ) -> tuple[AccessDevice, ...]:
        devices = identity.prepare(self._netlink, self.settings, fault)
        self._planner.devices = {device.interface: device for device in devices}
        return devices

    def _restore_filter(self, devices: Sequence[AccessDevice], faults: list[str]) -> int:
        """Returns how many filters were missing, 0 or 1."""
        try:
            return int(self._filter.restore(devices))
        except NftError as error:
            faults.append(f"ingress filter: {error}")
            return 0

    def _put_back(self) -> None:
        routes = self._notebook.load(self._routes())
        # Decapsulation ends first: from then on no packet can circle.
        self._make([Step(drop_found_rule(found), GONE) for found in self._rules()])
        self._make([Step(drop_found_route(route), GONE) for route in routes])
        self._make([Step(_drop_found(neighbour), GONE) for neighbour in self._neighbours()])
        try:
            self._filter.remove()
        except NftError as error:
            raise DriverUnavailable(f"{self.name}: ingress filter: {error}") from None
        for link in identity.links(self._netlink):
            if identity.is_ours(link) or identity.is_dlif(link):
                identity.remove(self._netlink, link)
        self.tear_down(self._notebook)
        restore_forwarding(self._notebook)
        self._make([Step(removal, GONE) for removal in self._notebook.erasing_all()])

    def _make(self, steps: Sequence[Step]) -> None:
        """Try all. Raises the first Refused that matters."""
        verdicts = self._netlink.transact([step.request for step in steps])
        for step, refusal in zip(steps, verdicts, strict=True):
            if refusal is not None and refusal.number not in step.tolerated:
                raise refusal

    # Reading the kernel

    def _routes(self) -> list[Message]:
        return self._netlink.dump(all_routes(self.settings.protocol), partial(Dumped, ROUTE))

    def _rules(self) -> list[Message]:
        ours = self.settings.protocol
        found = self._netlink.dump(all_rules(), partial(Dumped, RULE))
        return [rule for rule in found if rule.get_attr("FRA_PROTOCOL") == ours]

    def _neighbours(self) -> list[Message]:
        ours = self.settings.protocol
        found = self._netlink.dump(all_neighbours(), partial(Dumped, NEIGHBOUR))
        return [neighbour for neighbour in found if neighbour.get_attr("NDA_PROTOCOL") == ours]

    def _adopt(self) -> _Found:
        found = self._read()
        self._planner.items = found.items
        return found

    def _read(self) -> _Found:
        found = _Found({}, [])
        dlifs, strays = self._dlifs.read(self._planner.devices)
        found.items.update(dlifs)
        found.strays.extend(strays)
        routes = self._notebook.load(self._routes())
        tunnels = map(Tunnel, self._notebook.read(Note.TUNNEL))
        found.items.update((tunnel.key, tunnel) for tunnel in tunnels)
        found.strays.extend(self._notebook.erasing_unknown())
        self._read_routes(found, routes)
        names = self._device_names()
        rules = (seen for seen in self._rules() if not self.layout.is_own_rule(seen, names))
        found.strays.extend(map(drop_found_rule, rules))
        for seen in self._neighbours():
            neighbour = self._as_neighbour(seen)
            if neighbour is not None:
                found.items[neighbour.key] = neighbour
            else:
                found.strays.append(_drop_found(seen))
        return found

    def _read_routes(self, found: _Found, routes: Sequence[Message]) -> None:
        tunnelled: dict[Prefix, bytes | None] = {}
        ended: set[Prefix] = set()
        for route in routes:
            table = route.get_attr("RTA_TABLE")
            peer = self.peer_of(route)
            if (way := self.layout.way(route)) is not None:
                if way.last:
                    ended.add(way.source)
                else:
                    tunnelled[way.source] = peer
            elif table == RT_TABLE_MAIN and (item := self._as_route(route, peer)) is not None:
                found.items[item.key] = item
            elif (accepted := self.layout.accepted(route)) is not None:
                found.items[AcceptFrom(accepted).key] = AcceptFrom(accepted)
            elif not self.layout.is_own_route(route):
                found.strays.append(drop_found_route(route))
        for source in {**tunnelled, **dict.fromkeys(ended)}:
            # One that is not whole, as a link failure leaves it, leads to nobody: whoever wants it puts it again.
            peer = tunnelled.get(source) if source in ended else None
            rule = SourceRule(source, peer or UNSPECIFIED)
            found.items[rule.key] = rule

    def _as_route(self, route: Message, peer: bytes | None) -> Route | None:
        prefix = route_prefix(route)
        if route_source(route) is not None:
            return None
        if peer is not None:
            return Route(prefix, ToPeer(peer))
        if route["type"] == RTN_UNREACHABLE:
            return Route(prefix, Unreachable())
        interface = self._interface(route.get_attr("RTA_OIF"))
        if interface is None or route.get_attr("RTA_GATEWAY") is None:
            return None
        return Route(prefix, ToNode(interface, packed(route, "RTA_GATEWAY")))

    def _as_neighbour(self, seen: Message) -> Neighbour | None:
        interface = self._interface(seen["ifindex"])
        link_layer = seen.get_attr("NDA_LLADDR")
        if interface is None or link_layer is None:
            return None
        return Neighbour(interface, packed(seen, "NDA_DST"), parse_mac(link_layer))

    def _device_names(self) -> list[str]:
        ours = [device.device for device in self._planner.devices.values()]
        return ours + self._dlifs.names

    def _ending(self, index: int) -> None:
        if self._monitor is not None:
            self._monitor.ending(index)

    def _interface(self, index: int) -> str | None:
        for device in self._planner.devices.values():
            if device.index == index:
                return device.interface
        return None


def _insist(fault: DriverUnavailable) -> None:
    raise fault


def _explain(item: Item, refusal: Refused) -> str:
    """A device that is gone is an interface that is gone: the operator knows it by that name."""
    match item:
        case Route(target=ToNode(interface)) | Neighbour(interface):
            return f"{refusal.reason} (access interface {interface})"
        case _:
            return refusal.reason


def _drop_found(neighbour: Message) -> Request:
    return drop_neighbour(neighbour["ifindex"], packed(neighbour, "NDA_DST"))
