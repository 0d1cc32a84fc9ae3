"""The mobile node: a host with one interface and an unmodified DHCPv6 client, dhcpcd, which nobody tells anything."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dmm_wire.address import format_address
from lab import netns
from lab.topology import MN_INTERFACE, PLANS, MaarPlan, Topology

CONFIGURATION = f"""\
# A host's plain configuration: router discovery, an address, a prefix. Nothing about mobility.
duid
interface {MN_INTERFACE}
  ipv6rs
  ia_na 1
  ia_pd 2
"""

# dhcpcd keeps its lease and its DUID in /var/lib/dhcpcd and its sockets in /run: it gets its own of both, in the mount
# namespace that `ip netns exec` makes. /dev/log: nothing of this goes to the machine's log. -n: no trace in /run/mount.
_SCRIPT = """\
set -e
exec 3<"$1"
shift
mount -n --make-rprivate /
mount -n -t tmpfs -o mode=0755 tmpfs /run
mount -n -t tmpfs -o mode=0755 tmpfs /var/lib/dhcpcd
if [ -e /dev/log ]; then mount -n --bind /dev/null /dev/log; fi
cat <&3 >/run/dhcpcd.conf
exec 3<&-
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A global address of the mobile node with the seconds left; `preferred` 0: deprecated, not for new flows."""

    address: bytes
    preferred: int
    valid: int

    @property
    def anchor(self) -> MaarPlan | None:
        """The MAAR out of whose pool it is."""
        return next((plan for plan in PLANS if plan.anchors(self.address)), None)

    def __str__(self) -> str:
        return format_address(self.address)


class SlaacNode:
    """A mobile node without any client: its kernel makes its addresses (RFC 4862), and nobody tells it anything."""

    def __init__(self, topology: Topology) -> None:
        self._namespace = topology.namespace("mn")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def addresses(self) -> list[HostAddress]:
        """The global addresses it has now, in the order of the MAARs that anchor them."""
        rows = self._ip("-6", "addr", "show", "dev", MN_INTERFACE, "scope", "global")
        found = [
            HostAddress(
                IPv6Address(entry["local"]).packed,
                0 if entry.get("deprecated") else entry["preferred_life_time"],
                entry["valid_life_time"],
            )
            for row in rows
            for entry in row["addr_info"]
            if "local" in entry and not entry.get("tentative")
        ]
        return sorted(found, key=lambda entry: entry.address)

    def address_of(self, plan: MaarPlan) -> HostAddress | None:
        """Its address that this MAAR anchors."""
        return next((entry for entry in self.addresses() if entry.anchor == plan), None)

    def is_at(self, plan: MaarPlan) -> bool:
        """Whether it has a preferred address of this MAAR and all others are deprecated: it knows where it is."""
        addresses = self.addresses()
        return any(entry.anchor == plan for entry in addresses) and all(
            (entry.preferred > 0) == (entry.anchor == plan) for entry in addresses
        )

    def default_routers(self) -> list[str]:
        """The next hops of its default routes."""
        rows = self._ip("-6", "route", "show", "default")
        hops = [hop for row in rows for hop in row.get("nexthops", [row])]
        return sorted({str(hop["gateway"]) for hop in hops if "gateway" in hop})

    def _ip(self, *arguments: str) -> list[dict[str, Any]]:
        return netns.ip_json(*arguments, namespace=self._namespace)


class MobileNode(SlaacNode):
    """dhcpcd in the mobile node's namespace, between `with` and its end. Needs the program; see `missing`."""

    def __init__(self, topology: Topology) -> None:
        super().__init__(topology)
        self._log = topology.directory / "dhcpcd.log"
        self._configuration = topology.directory / "dhcpcd.conf"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> list[str]:
        """The programs that the mobile node needs and this machine lacks."""
        return [name for name in ("dhcpcd", "mount", "setpriv") if shutil.which(name) is None]

    def __enter__(self) -> Self:
        self._configuration.write_text(CONFIGURATION)
        client = ["dhcpcd", "-6", "-B", "-d", "-f", "/run/dhcpcd.conf", "-c", "/bin/true"]
        with self._log.open("wb") as log:
            self._process = netns.start(
                self._namespace,
                ["sh", "-c", _SCRIPT, "sh", str(self._configuration), *client, MN_INTERFACE],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            netns.stop(self._process)

    @property
    def pid(self) -> int:
        """dhcpcd's process; it stays the same as long as nobody restarts it."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether the client that was started in the beginning still runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """What dhcpcd said."""
        return self._log
