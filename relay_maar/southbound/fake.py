"""A driver without a kernel: for tests, and to run the daemon where it may not touch the network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

from relay_maar.core.items import Change, Item, Key, Put
from relay_maar.southbound.api import AccessDevice, SouthboundError, SouthboundSettings, State
from relay_maar.southbound.checks import Impossible, check


class FakeKernel:
    """What outlives a process: drivers that share one see what the one before left."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self.history: list[Change] = []
        """Every change made, in order."""
        self.refuse: Callable[[Change], str | None] = lambda change: None
        """The kernel's mood: the reason why it refuses a change, or None."""
        self.gone: set[str] = set()
        """Interfaces that are not there any more."""
        self.disturbed = False
        """Whether somebody else was at work."""


class FakeSouthbound:
    """The `fake` driver. Access devices are the access interfaces themselves."""

    name = "fake"

    def __init__(self, settings: SouthboundSettings, kernel: FakeKernel | None = None) -> None:
        self.settings = settings
        self.kernel = kernel if kernel is not None else FakeKernel()
        self._closed = False

    def open(self) -> tuple[AccessDevice, ...]:
        """See `Southbound.open`. An interface that does not exist gets a made-up index."""
        return self.restore().access

    def dump(self) -> frozenset[Item]:
        """See `Southbound.dump`."""
        return frozenset(self.kernel.items.values())

    def apply(self, changes: Sequence[Change]) -> None:
        """See `Southbound.apply`."""
        failures: list[tuple[Change, str]] = []
        for change in changes:
            try:
                self._make(change)
            except Impossible as error:
                failures.append((change, str(error)))
        if failures:
            raise SouthboundError(failures)

    def _make(self, change: Change) -> None:
        items = self.kernel.items
        check(change, items, self.settings.access_interfaces, self.settings.endpoint)
        reason = self.kernel.refuse(change)
        if reason is not None:
            raise Impossible(reason)
        if isinstance(change, Put):
            items[change.item.key] = change.item
        else:
            items.pop(change.item.key, None)
        self.kernel.history.append(change)

    def watch(self) -> int:
        """See `Southbound.watch`."""
        return -1

    def disturbed(self) -> bool:
        """See `Southbound.disturbed`."""
        disturbed, self.kernel.disturbed = self.kernel.disturbed, False
        return disturbed

    def errors(self) -> int:
        """See `Southbound.errors`."""
        return -1

    def relay_errors(self) -> Mapping[str, int]:
        """See `Southbound.relay_errors`."""
        return {}

    def drops(self) -> Mapping[str, int]:
        """See `Southbound.drops`."""
        return {}

    def restore(self) -> State:
        """See `Southbound.restore`."""
        settings, gone = self.settings, self.kernel.gone
        access = tuple(
            AccessDevice(
                interface,
                interface,
                _index(interface, number),
                settings.router_link_local,
                settings.router_link_layer,
            )
            for number, interface in enumerate(settings.access_interfaces, 1)
            if interface not in gone
        )
        core = settings.core_interface
        core_index = 0 if core in gone else _index(core, len(settings.access_interfaces) + 1)
        return State(core_index, access, self.dump())

    def close(self, *, keep: bool) -> None:
        """See `Southbound.close`."""
        if not keep and not self._closed:
            self.kernel.items.clear()
        self._closed = True


def _index(interface: str, otherwise: int) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return otherwise
