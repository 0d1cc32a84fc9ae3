"""The contract of every southbound driver; `tests/maar/southbound` holds the shared contract suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dmm_wire.address import Prefix, format_address
from dmm_wire.router_identity import FIXED, RouterIdentity
from relay_maar.core.items import Change, Item


@dataclass(frozen=True, slots=True)
class AccessDevice:
    """Where an access interface's packets really go in and out: the device that carries our router identity on top of
    the configured interface."""

    interface: str
    """The configured name."""
    device: str
    """The device's name, e.g. a macvlan on `interface`."""
    index: int
    link_local: bytes
    link_layer: bytes


@dataclass(frozen=True, slots=True)
class SouthboundSettings:
    """What a driver needs to know of this MAAR."""

    endpoint: bytes
    core_interface: str
    access_interfaces: tuple[str, ...]
    pools: tuple[Prefix, ...]
    protocol: int = 213
    """Route protocol number on everything we install, so that a start finds what was left (rtnetlink rtm_protocol)."""
    router: RouterIdentity = FIXED
    """Ours on the access links."""
    dlif: bool = False
    """Other anchors have identities of their own, which are put as `Dlif`."""
    unfiltered: frozenset[str] = frozenset()
    """Access interfaces whose hosts may send what they like."""
    table_base: int = 21300
    """First of the routing tables and rule priorities we use."""


@dataclass(frozen=True, slots=True)
class State:
    """What there is now: of interfaces, and of our items in the kernel."""

    core_index: int
    """0 where the core interface does not exist."""
    access: tuple[AccessDevice, ...]
    """Of the access interfaces that exist and carry the router identity."""
    items: frozenset[Item]
    repaired: int = 0
    """How much of what `open` had prepared was missing and is there again."""
    faults: tuple[str, ...] = ()
    """Why an access interface that exists could not be prepared, one line each."""


class SouthboundError(Exception):
    """The kernel refused. `failures` pairs each change that did not happen with the reason (errno name and text);
    the changes not named were made."""

    def __init__(self, failures: Sequence[tuple[Change, str]]) -> None:
        super().__init__("; ".join(f"{_name(change)}: {reason}" for change, reason in failures))
        self.failures = tuple(failures)


def _name(change: Change) -> str:
    words = (
        format_address(part) if isinstance(part, bytes) else str(part) for part in change.item.key
    )
    return " ".join([type(change).__name__.lower(), *words])


class DriverUnavailable(Exception):
    """This kernel or these privileges cannot carry the driver; the text names what is missing."""


class Southbound(Protocol):
    """A tunnel driver with its routes, rules and neighbours. Synchronous: a call returns when the kernel confirmed.

    A Tunnel is put before what uses it (ToPeer routes, SourceRules) and dropped after it; otherwise the change fails.
    """

    name: str

    def open(self) -> tuple[AccessDevice, ...]:
        """Prepare the namespace (router identity on the access links, tunnel source, decapsulation, forwarding). Finds
        and adopts what an earlier process left. Raises DriverUnavailable."""
        ...

    def dump(self) -> frozenset[Item]:
        """All items of ours that the kernel holds now. A SourceRule whose tunnel was lost leads to nobody, `::`: what
        is from there is unreachable."""
        ...

    def apply(self, changes: Sequence[Change]) -> None:
        """Make the changes in order. Raises SouthboundError after having tried all of them."""
        ...

    def watch(self) -> int:
        """From now on notice what others do to the kernel. Returns a file descriptor that is readable when
        `disturbed` has something to read, -1 if there is none. Idempotent. Raises DriverUnavailable."""
        ...

    def disturbed(self) -> bool:
        """Whether, since the last call, something of ours may have been lost or one of our interfaces has come or gone,
        and not by our own doing. Never blocks. A hint: not everything that is lost is announced."""
        ...

    def errors(self) -> int:
        """From now on hear of the ICMPv6 errors that tunnelled packets meet on their way (RFC 2473 section 8).
        Returns a file descriptor that is readable when `relay_errors` has something to relay, -1 where the
        kernel relays them itself. Idempotent. Raises DriverUnavailable."""
        ...

    def relay_errors(self) -> Mapping[str, int]:
        """Tell the senders of the inner packets: Packet Too Big, with the MTU that the tunnel leaves them, the end of a
        hop limit, or that the peer is unreachable. Some of what waits; never blocks. Returns how many, by what became
        of them (`too-big`, `hop-limit`, `unreachable`: relayed)."""
        ...

    def drops(self) -> Mapping[str, int]:
        """How many packets of hosts and peers were dropped since `open` because they may not send such, by reason."""
        ...

    def restore(self) -> State:
        """Put right what `open` prepared and others have undone, as far as the interfaces are there now; what is right
        is not touched. Items that are lost stay so: it is for the core to say what is still wanted. Raises
        DriverUnavailable."""
        ...

    def close(self, *, keep: bool) -> None:
        """`keep`: leave everything for the next process (restart). Otherwise put the kernel back as `open` found it:
        every item, device, rule and sysctl of ours goes. Idempotent."""
        ...
