"""What the core asks the shell to do. Actions of one list run in order; the result of an `Apply` is fed back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dmm_wire.identity import Identity
from dmm_wire.mobility import BindingAcknowledgement, BindingError, BindingUpdate
from dmm_wire.router_identity import RouterIdentity
from relay_maar.core.items import Change


@dataclass(frozen=True, slots=True)
class SendToServers:
    """A Relay-forward for every configured server (UDP port 547 to 547, from the tunnel endpoint)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SendToClient:
    """A DHCPv6 message for a client (port 546) or a relay below us (port 547) on an access interface."""

    interface: str
    destination: bytes
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SendMobility:
    """A Mobility Header message from our endpoint to a peer's."""

    destination: bytes
    message: BindingUpdate | BindingAcknowledgement | BindingError


@dataclass(frozen=True, slots=True)
class SendRouterAdvertisement:
    """A whole ICMPv6 Router Advertisement (checksum left 0), to all nodes or to one. With `link_layer` it goes to that
    address, and waits for no address resolution. `sender`: another anchor's identity that it comes from, not ours; only
    with `link_layer`."""

    interface: str
    destination: bytes
    data: bytes
    link_layer: bytes | None = None
    sender: RouterIdentity | None = None


@dataclass(frozen=True, slots=True)
class SendNeighborSolicitation:
    """A whole ICMPv6 Neighbor Solicitation (checksum left 0) to one node, `link_layer` as above."""

    interface: str
    destination: bytes
    data: bytes
    link_layer: bytes | None = None


@dataclass(frozen=True, slots=True)
class WatchPackets:
    """From now on, packets on this access link that come from none of the link-layer addresses `quiet` show a node that
    is not known there. None: there are too many, packets show nothing."""

    interface: str
    quiet: frozenset[bytes] | None


@dataclass(frozen=True, slots=True)
class Apply:
    """Bring these changes into the kernel as one batch, then call `Agent.applied(token, ...)`: what must not be said
    before the kernel confirmed (a PBA, a PBU, the client's reply) comes out of that call."""

    token: int
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class SaveSession:
    """Write this session to the session file before anything after it in the list is done (RFC 8987 S-1). `record` is
    JSON-ready; its lifetimes are remaining seconds as of the call's `now`."""

    identity: Identity
    record: dict[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class ForgetSession:
    """Remove the session from the file."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the operator; level as in `logging` ("info", "warning", "error"). What makes a line is called when
    it is written: no other machine waits for that."""

    level: str
    text: str | Callable[[], str]

    @property
    def line(self) -> str:
        """The line."""
        return self.text if isinstance(self.text, str) else self.text()


Action: TypeAlias = (
    SendToServers
    | SendToClient
    | SendMobility
    | SendRouterAdvertisement
    | SendNeighborSolicitation
    | WatchPackets
    | Apply
    | SaveSession
    | ForgetSession
    | Log
)
