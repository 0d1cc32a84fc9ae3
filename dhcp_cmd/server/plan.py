"""What a configuration file comes to, as plain data: no dhcpkit in it, nothing to look up while messages wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit

from dhcp_cmd.core.model import Settings
from dhcp_cmd.pmip.settings import PmipSettings
from dhcp_cmd.server.filters import Condition, StaticOption
from dmm_wire.mobility.security import Security


class ListenerPlan(NamedTuple):
    """A listener. Addresses are 16 octets.

    `interface` is the name of the interface of a multicast listener, which answers from the link-local address
    `reply_from`; a unicast listener has neither and answers from its `address`. `link_address` is the link that the
    listener stands for where no relay agent names one; filters look at it, and at `marks`.
    """

    address: bytes
    link_address: bytes
    marks: frozenset[str]
    interface: str = ""
    reply_from: bytes | None = None


@dataclass(frozen=True, slots=True)
class Ignore:
    """Messages of these types (None: of any type) are not answered where all `conditions` (indices) hold."""

    types: frozenset[int] | None
    conditions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Echo:
    """Options of this code go from a Relay-forward into its Relay-reply where all `conditions` (indices) hold."""

    code: int
    conditions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """What becomes of a message beside the CMD's decision. The indices of conditions are those in `conditions`."""

    conditions: tuple[Condition, ...] = ()
    options: tuple[StaticOption, ...] = ()
    """In the order in which dhcpkit applies their handlers."""
    ignores: tuple[Ignore, ...] = ()
    echoes: tuple[Echo, ...] = ()
    unicast: tuple[tuple[int, ...], ...] = ()
    """Clients may send by unicast where all conditions of one of these hold."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration file, read."""

    database: str
    """SQLAlchemy URL."""
    status_directory: str
    settings: Settings
    listeners: tuple[ListenerPlan, ...]
    rules: Rules
    account: Account
    configure_logging: Callable[[int | None], None]
    """Takes the lowest level to log at, None for the file's own."""
    pmip: PmipSettings | None = None
    """None where the CMD speaks no PMIPv6."""
    workers: int | None = None
    """As configured."""
    security: Security = field(default_factory=Security)
    """The keys of PMIPv6, read from their files."""

    def processes(self) -> int:
        """How many serve: on PostgreSQL as many as configured, else one for each processor. SQLite has one writer; and
        where the CMD speaks PMIPv6, one process sends and waits for what its own batches wrote."""
        if self.pmip is not None or urlsplit(self.database).scheme.startswith("sqlite"):
            return 1
        return self.workers or len(os.sched_getaffinity(0))
