"""A MAAR's surroundings in namespaces, played by the tests byte by byte: the CMD, other MAARs, strangers and hosts.

core namespace --- core0 [ MAAR ] access0 --- h0 [ hosts ]
                                [ MAAR ] access1 --- h1        (access1 has relays below it)
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dmm_wire import dmm
from dmm_wire.address import Prefix, format_address
from dmm_wire.dhcpv6.codes import MessageType
from lab import netns
from tests.maar.daemon.actors import (
    CMD,
    OTHER,
    PEER,
    STRANGER,
    Cmd,
    Maar,
    Mailbox,
    Node,
    Speaker,
)
from tests.maar.daemon.monitor import Monitor
from tests.maar.daemon.running import CONFIGURATION, Running

_Closing = TypeVar("_Closing", Mailbox, Cmd, Maar, Node, Speaker, Monitor, Running)


class Site:
    """The namespaces and those who live in them."""

    def __init__(self, name: str) -> None:
        prefix = f"mdt{os.getpid()}{name}"
        self.maar, self.core, self.hosts = f"{prefix}-m", f"{prefix}-c", f"{prefix}-h"
        self._number = 0
        self._generation = int(time.time()) << 16
        self._closing = ExitStack()
        self._closing.callback(netns.remove, self._namespaces)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        netns.remove(self._namespaces)
        for namespace in self._namespaces:
            netns.ip("netns", "add", namespace)
            netns.ip("link", "set", "lo", "up", namespace=namespace)
        for here, there, other in (
            ("core0", "c0", self.core),
            ("access0", "h0", self.hosts),
            ("access1", "h1", self.hosts),
        ):
            self.cable(here, there, other)
        netns.batch(
            (
                "addr add fe80::c:1/64 dev core0 nodad",
                "addr add 2001:db8:c::1/64 dev core0 nodad",
                "route add default via 2001:db8:c::2",
            ),
            namespace=self.maar,
        )
        netns.batch(
            (
                "addr add fe80::c:2/64 dev c0 nodad",
                "addr add 2001:db8:c::2/64 dev c0 nodad",
                f"addr add {format_address(CMD)}/64 dev c0 nodad",
                *(
                    f"addr add {format_address(each)}/128 dev lo nodad"
                    for each in (PEER, OTHER, STRANGER)
                ),
                "route add 2001:db8:f1::/48 via 2001:db8:c::1",
                "route add 2001:db8:1::/48 via 2001:db8:c::1",
            ),
            namespace=self.core,
        )
        self.cmd = self._kept(Cmd(self.core))
        self.peer = self._kept(Maar(self.core, PEER))
        self.other = self._kept(Maar(self.core, OTHER))
        self.stranger = self._kept(Maar(self.core, STRANGER))

    def cable(self, here: str, there: str, other: str) -> None:
        """A link of the MAAR. Nothing generates addresses, so that nothing changes behind a test's back."""
        netns.ip(*f"link add {here} netns {self.maar} type veth peer {there} netns {other}".split())
        netns.batch(
            (f"link set {here} addrgenmode none", f"link set {here} up"), namespace=self.maar
        )
        mac = "address 02:00:00:00:00:0a" if there == "h0" else ""
        netns.batch(
            (f"link set {there} {mac} addrgenmode none", f"link set {there} up"), namespace=other
        )

    @property
    def _namespaces(self) -> tuple[str, ...]:
        return self.maar, self.core, self.hosts

    def _kept(self, made: _Closing) -> _Closing:
        self._closing.callback(made.close)
        return made

    def node(self, device: str = "h0") -> Node:
        """A mobile node that nobody has heard of."""
        self._number += 1
        return self._kept(Node(self.hosts, self._number, device))

    def speaker(self, device: str = "h0") -> Speaker:
        """A host that is played frame by frame, and that nobody has heard of."""
        self._number += 1
        return self._kept(Speaker(self.hosts, self._number, device))

    def generation(self) -> int:
        """The next generation of visits."""
        self._generation += 1 << 16
        return self._generation

    def capture(self, namespace: str, device: str) -> Mailbox:
        """Ethernet frames of a device, from now on."""

        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((device, 0x86DD))
            return sock

        return self._kept(Mailbox(netns.inside(namespace, opened)))

    def monitor(self) -> Monitor:
        return self._kept(Monitor(self.maar))

    def daemon(self, directory: Path, configuration: str = CONFIGURATION) -> Running:
        """A daemon, not started."""
        return self._kept(Running(self.maar, directory, configuration))

    def routes(self, prefix: Prefix | str) -> list[dict[str, Any]]:
        """The routes to exactly this prefix, in all tables."""
        return netns.ip_json(
            *f"-d -6 route show table all exact {prefix}".split(), namespace=self.maar
        )

    def ways(self, source: Prefix) -> list[dict[str, Any]]:
        """The routes from exactly this prefix, in the order in which the kernel takes them."""
        found = self.routes("::/0")
        return [each for each in found if each.get("from") == str(source)]

    def rules(self) -> list[dict[str, Any]]:
        return netns.ip_json("-d", "-6", "rule", "show", namespace=self.maar)

    def neighbours(self) -> dict[str, dict[str, Any]]:
        """The MAAR's permanent neighbours by address."""
        found = netns.ip_json("-d", "-6", "neigh", "show", "nud", "permanent", namespace=self.maar)
        return {each["dst"]: each for each in found}

    def snapshot(self) -> dict[str, Any]:
        """All of the MAAR's namespace that a daemon could leave changed, in a form that compares."""
        views: dict[str, Any] = {
            view: netns.ip_json(*view.split(), namespace=self.maar)
            for view in (
                "-d link show",
                "-d addr show",
                "-6 route show table all",
                "-d -6 rule show",
                "-6 neigh show nud permanent",
                "-6 maddr show",
            )
        }
        for row in views["-d link show"] + views["-d addr show"]:
            row.pop("operstate", None)  # the kernel's link watch is late with it
        views["tunnel source"] = netns.ip("sr", "tunsrc", "show", namespace=self.maar)
        views["sysctls"] = netns.inside(self.maar, _sysctls)
        return views

    def exchange(
        self,
        node: Node,
        *suboptions: dmm.SubOption,
        kind: int = MessageType.REQUEST,
    ) -> bytes:
        """A node's message goes up, the CMD answers with these sub-options, the node has its answer. Returns the
        Relay-forward."""
        node.send(node.message(kind))
        forward: bytes = self.cmd.take_from(node).data
        self.cmd.reply(forward, node.reply(), *suboptions)
        assert node.take().data == node.reply()
        return forward

    def close(self) -> None:
        self._closing.close()


def _sysctls() -> dict[str, str]:
    found = {}
    for path in sorted(Path("/proc/sys/net/ipv6").glob("conf/*/*")):
        try:
            found[str(path)] = path.read_text()
        except OSError:  # stable_secret is not set
            continue
    return found


@contextmanager
def site(name: str) -> Iterator[Site]:
    """A site, taken down afterwards."""
    made = Site(name)
    try:
        yield made
    finally:
        made.close()
