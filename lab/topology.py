"""The lab's network: who is where, with which addresses, and how a mobile node moves.

```
   CMD        CN1        CN2
    |cmd       |cn1       |cn2          2001:db8:0:c0::/64, c1, c2: the core has ::1, the node ::2
  +-+----------+----------+-+
  |           core          |           a router; routes each T and each pool to its MAAR
  +-+----------+----------+-+
    |m1        |m2        |m3           2001:db8:0:1::/64, 2, 3; endpoints T: 2001:db8:ff::1, 2, 3
  MAAR1      MAAR2      MAAR3
    |access    |access    |access       no addresses of ours; the MAARs bring their router identity
  [link1]    [link2]    [link3]         bridges in the namespace "air"
        \\_______|________/
                MN eth0                 its other end is re-plugged from bridge to bridge
```

There can be up to nine MAARs. With `delayed` the CMD's cable is two, with the namespace "delay" between them, in which
`lab.delay` hands on what comes after a while.

Each MAAR N has a LINK pool 2001:db8:N00::/40, given out in /64, and a DELEGATED pool 2001:db8:dN00::/40, in /56.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Self

from dmm_wire.address import Prefix, parse_address, parse_mac
from dmm_wire.router_identity import RouterIdentity, of_anchor
from lab import netns
from lab.signals import uninterrupted

CARRIER_GAP = 0.3
"""How long the mobile node is without carrier in a move, seconds."""

MN_INTERFACE = "eth0"
CORE_INTERFACE = "core"
ACCESS_INTERFACE = "access"
MN_LINK_LAYER = "02:00:5e:00:53:aa"
_CHOSEN_ROUTERS = {3: RouterIdentity(parse_address("fe80::3"), parse_mac("02:00:5e:00:53:03"))}
MAARS = (1, 2, 3)
DELAY = "delay"
"""The namespace between the core and the CMD of a delayed lab; its interfaces are named after what they lead to."""
_MTU = 1500


RUNTIME = Path("/run")
"""Where a lab has its directory, and with it the CMD its database."""


@dataclass(frozen=True, slots=True)
class MaarPlan:
    """One MAAR's place in the network."""

    number: int

    @property
    def name(self) -> str:
        """Its name at the CMD."""
        return f"maar{self.number}"

    @property
    def node(self) -> str:
        """Its namespace without the lab's prefix; also the name of its link to the core."""
        return f"m{self.number}"

    @property
    def endpoint(self) -> bytes:
        """T, the one address for tunnels and signalling."""
        return parse_address(f"2001:db8:ff::{self.number}")

    @property
    def chosen_router(self) -> RouterIdentity | None:
        """What its operator chose that hosts see of it as a router of its own (`router-identity = "dlif"`)."""
        return _CHOSEN_ROUTERS.get(self.number)

    @property
    def router(self) -> RouterIdentity:
        """As which router hosts see it then."""
        return self.chosen_router or of_anchor(self.endpoint)

    @property
    def core_address(self) -> str:
        """Its address on the link to the core."""
        return f"2001:db8:0:{self.number}::2"

    @property
    def core_interface(self) -> str:
        """Its interface to the core."""
        return CORE_INTERFACE

    @property
    def access_interface(self) -> str:
        """Its interface to the mobile nodes."""
        return ACCESS_INTERFACE

    @property
    def access_link(self) -> str:
        """The name of its access link in captures."""
        return f"access{self.number}"

    @property
    def link_prefix(self) -> Prefix:
        """What the link-address of its Relay-forwards lies in: names the link, is given to nobody."""
        return Prefix.parse(f"2001:db8:a{self.number}::/64")

    @property
    def link_address(self) -> bytes:
        """The link-address of its Relay-forwards."""
        return parse_address(f"2001:db8:a{self.number}::1")

    @property
    def link_pool(self) -> Prefix:
        """Its /64 prefixes for mobile nodes."""
        return Prefix.parse(f"2001:db8:{self.number}00::/40")

    @property
    def delegated_pool(self) -> Prefix:
        """Its /56 prefixes for delegation."""
        return Prefix.parse(f"2001:db8:d{self.number}00::/40")

    def anchors(self, address: bytes | Prefix) -> bool:
        """Whether this address or prefix is out of one of its pools."""
        return self.link_pool.contains(address) or self.delegated_pool.contains(address)


@dataclass(frozen=True, slots=True)
class CoreNode:
    """A host on a link of its own to the core: CMD, CN1 or CN2."""

    node: str
    subnet: str

    @property
    def address(self) -> str:
        """Its address as text."""
        return f"2001:db8:0:{self.subnet}::2"

    @property
    def packed(self) -> bytes:
        """Its address."""
        return parse_address(self.address)


PLANS = tuple(MaarPlan(number) for number in range(1, 10))
"""All MAARs that there are addresses for."""
MAAR_PLANS = PLANS[: len(MAARS)]
"""Those of a lab that is not told how many."""
CMD = CoreNode("cmd", "c0")
CN1 = CoreNode("cn1", "c1")
CN2 = CoreNode("cn2", "c2")


class Topology:
    """The network, between `with` and its end. Removes first what a killed run with the same prefix has left.

    `prefix` starts the name of every namespace; two labs with different prefixes do not meet. Raises Busy when another
    living process uses the prefix, LabError when the kernel refuses. `maars` of `PLANS` take part.
    """

    def __init__(
        self, prefix: str = "dmm", *, maars: int = len(MAARS), delayed: bool = False
    ) -> None:
        if not prefix.replace("-", "").isalnum() or len(prefix) > 32:
            raise netns.LabError(f"prefix {prefix!r}: letters, digits and hyphens, at most 32")
        if not 1 <= maars <= len(PLANS):
            raise netns.LabError(f"{maars} MAARs: 1 to {len(PLANS)}")
        self.prefix = prefix
        self.plans = PLANS[:maars]
        self.delayed = delayed
        self.directory = RUNTIME / f"{prefix}-lab"
        """For configurations, sockets and logs; only while the lab lives."""
        self.attached: MaarPlan | None = None
        self._lock: socket.socket | None = None

    def namespace(self, node: str) -> str:
        """The namespace of "cmd", "m1", "core", "mn"..."""
        return f"{self.prefix}-{node}"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """All namespaces of this lab."""
        return tuple(self.namespace(node) for node in self._nodes)

    @property
    def core_links(self) -> tuple[str, ...]:
        """The links of the core; each is named as the core's interface on it."""
        return (*(plan.node for plan in self.plans), CMD.node, CN1.node, CN2.node)

    @property
    def _nodes(self) -> tuple[str, ...]:
        between = (DELAY,) if self.delayed else ()
        return (*self.core_links, *between, "core", "air", "mn")

    def __enter__(self) -> Self:
        self._lock = netns.lock(f"{self.prefix}-lab")
        try:
            self.remove()
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with uninterrupted():
                self.remove()
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    def remove(self) -> None:
        """Remove all of this lab: processes, namespaces (their interfaces go with them), files. Idempotent."""
        netns.remove(self.namespaces)
        with contextlib.suppress(FileNotFoundError):
            rmtree(self.directory)

    # --- the mobile node's link ---

    def plug(self, plan: MaarPlan) -> None:
        """Put the mobile node's cable into the access link of this MAAR: carrier comes."""
        air = self.namespace("air")
        netns.batch([f"link set mn master link{plan.number}", "link set mn up"], namespace=air)
        self.attached = plan

    def unplug(self) -> None:
        """Carrier goes."""
        netns.batch(["link set mn down", "link set mn nomaster"], namespace=self.namespace("air"))
        self.attached = None

    def move(self, plan: MaarPlan) -> None:
        """Re-plug the mobile node: carrier is lost for `CARRIER_GAP` seconds. Nobody tells the node."""
        self.unplug()
        time.sleep(CARRIER_GAP)
        self.plug(plan)

    # --- building ---

    def _build(self) -> None:
        self.directory.mkdir(mode=0o755)
        netns.batch(f"netns add {name}" for name in self.namespaces)
        for node in self._nodes:
            if node != "mn":  # it is not ours: it keeps what its kernel does by itself
                values = _CABLE if node in ("air", DELAY) else _ROUTER_OR_HOST
                netns.write_sysctls(self.namespace(node), values)
        netns.batch(self._cables())
        for node, lines in self._commands().items():
            netns.batch(["link set lo up", *lines], namespace=self.namespace(node))
        netns.write_sysctls(self.namespace("core"), {"net/ipv6/conf/all/forwarding": "1"})
        for plan in self.plans:
            netns.wait_for(
                partial(self._is_wired, plan), timeout=5, what=f"the links of {plan.name}"
            )

    def _is_wired(self, plan: MaarPlan) -> bool:
        """Whether both its interfaces have carrier and their link-local address: then nothing changes by itself."""
        rows = netns.ip_json("addr", "show", namespace=self.namespace(plan.node))
        scopes = {
            row["ifname"]: {entry["scope"] for entry in row["addr_info"]}
            for row in rows
            if "LOWER_UP" in row["flags"]
        }
        wanted = (plan.core_interface, plan.access_interface)
        return all("link" in scopes.get(name, ()) for name in wanted)

    def _cables(self) -> list[str]:
        """veth pairs, made in their namespaces; link-layer addresses that say whose they are."""

        def cable(node: str, name: str, far: str, far_name: str, tail: str) -> str:
            return (
                f"link add {name} address {tail} mtu {_MTU} netns {self.namespace(node)} type veth "
                f"peer name {far_name} mtu {_MTU} netns {self.namespace(far)}"
            )

        lines = []
        for plan in self.plans:
            n = plan.number
            lines.append(cable(plan.node, "core", "core", plan.node, f"02:00:5e:00:53:{n:02x}"))
            lines.append(cable(plan.node, "access", "air", plan.node, f"02:00:5e:00:53:a{n}"))
        for index, host in enumerate((CMD, CN1, CN2)):
            tail = f"02:00:5e:00:53:c{index}"
            if self.delayed and host == CMD:
                lines.append(cable(host.node, "core", DELAY, host.node, tail))
                lines.append(cable(DELAY, "core", "core", host.node, "02:00:5e:00:53:d0"))
            else:
                lines.append(cable(host.node, "core", "core", host.node, tail))
        lines.append(cable("mn", MN_INTERFACE, "air", "mn", MN_LINK_LAYER))
        return lines

    def _commands(self) -> dict[str, list[str]]:
        commands: dict[str, list[str]] = {"core": [], "air": []}
        if self.delayed:
            commands[DELAY] = [*_up("core"), *_up(CMD.node)]
        for plan in self.plans:
            subnet = f"2001:db8:0:{plan.number}"
            commands[plan.node] = [
                *_up("core"),
                *_up("access"),
                f"addr add {plan.core_address}/64 dev core nodad",
                f"route add default via {subnet}::1 dev core",
            ]
            via = f"via {plan.core_address} dev {plan.node}"
            commands["core"] += [
                *_up(plan.node),
                f"addr add {subnet}::1/64 dev {plan.node} nodad",
                f"route add {Prefix(plan.endpoint, 128)} {via}",
                f"route add {plan.link_pool} {via}",
                f"route add {plan.delegated_pool} {via}",
            ]
            commands["air"] += [
                f"link add link{plan.number} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set {plan.node} master link{plan.number}",
                *_up(plan.node),
                *_up(f"link{plan.number}"),
            ]
        for host in (CMD, CN1, CN2):
            subnet = f"2001:db8:0:{host.subnet}"
            commands[host.node] = [
                *_up("core"),
                f"addr add {host.address}/64 dev core nodad",
                f"route add default via {subnet}::1 dev core",
            ]
            commands["core"] += [*_up(host.node), f"addr add {subnet}::1/64 dev {host.node} nodad"]
        # Up, but its other end is not: no carrier until the first `plug`.
        commands["mn"] = _up(MN_INTERFACE)
        return commands

    @property
    def mn_link_layer(self) -> bytes:
        """The mobile node's link-layer address."""
        return parse_mac(MN_LINK_LAYER)


# Link-local addresses from the link-layer address whatever this machine's default is, and at once, without DAD.
_ROUTER_OR_HOST = {
    "net/ipv6/conf/default/addr_gen_mode": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/dad_transmits": "0",
}
# Bridges, and what delays, are cables: they say nothing of their own.
_CABLE = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}


def _up(interface: str) -> list[str]:
    """Up; segments stay packets as a real link carries them, so that captures count what would be on a wire."""
    return [f"link set {interface} gso_max_segs 1 up"]
