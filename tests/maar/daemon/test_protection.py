"""A running daemon holds its hosts to what is theirs, counts what is not, and tells senders the MTU of its tunnels."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmm_wire import dmm
from dmm_wire.address import format_address, parse_address
from lab import netns
from tests.maar.daemon.actors import CMD, PATIENCE, Mailbox, Node, udp_frame
from tests.maar.daemon.conftest import in_its_domain
from tests.maar.daemon.running import CONFIGURATION, Running
from tests.maar.daemon.site import Site
from tests.maar.daemon.test_mobility import update

pytestmark = [pytest.mark.root, pytest.mark.needs("nft")]

BAD = parse_address("2001:db8:bad::1")
IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO, IPV6_MTU = 23, 2, 24


class Wire:
    """The hosts' cable, and the core's side of the MAAR."""

    def __init__(self, place: Site, device: str = "h0") -> None:
        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((device, 0))
            return sock

        self._socket = netns.inside(place.hosts, opened)
        self._core: Mailbox = place.capture(place.core, "c0")
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def send(self, source: bytes) -> bytes:
        """A datagram to the CMD's machine; returns its payload."""
        self._number += 1
        payload = b"datagram %06d" % self._number
        self._socket.send(udp_frame(source, CMD, (4000, 4000), payload))
        return payload

    def passes(self, source: bytes) -> None:
        payload = self.send(source)
        self._core.take(lambda each: each.data.endswith(payload))

    def is_dropped(self, source: bytes, passing: bytes) -> None:
        """As one of `passing` that comes after it shows."""
        payload = self.send(source)
        self.passes(passing)
        assert not [each for each in self._core.arrived() if each.data.endswith(payload)]


@pytest.fixture
def wire(place: Site) -> Iterator[Wire]:
    with contextlib.closing(Wire(place)) as wire:
        yield wire


def address(node: Node) -> bytes:
    return node.prefix().address[:15] + b"\x07"


def arrives(place: Site, node: Node) -> None:
    place.exchange(
        node, dmm.Visit(place.generation(), bytes(16)), dmm.AnchoredPrefix(node.prefix(), 900, 999)
    )


def rules(place: Site) -> str:
    command = ["ip", "netns", "exec", place.maar, "nft", "-s", "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_source_passes_from_when_its_node_is_served(
    place: Site, own: Running, wire: Wire
) -> None:
    in_its_domain(place, own)
    here, later = place.node(), place.node()
    arrives(place, here)
    wire.passes(address(here))
    assert own.count("filter.source") == 0
    wire.is_dropped(address(later), address(here))
    wire.is_dropped(BAD, address(here))
    assert own.count("filter.source") == 2
    # The client has its answer when the kernel has confirmed: its first packet passes.
    arrives(place, later)
    wire.passes(address(later))
    assert own.count("filter.source") == 2


def test_it_stays_over_restarts_and_kills_and_goes_with_a_stop(
    place: Site, own: Running, wire: Wire
) -> None:
    before = rules(place)
    in_its_domain(place, own)
    node = place.node()
    arrives(place, node)
    put = rules(place)
    assert "table ip6 relay-maar" in put

    assert own.command("restart").returncode == 0
    assert rules(place) == put
    wire.is_dropped(BAD, address(node))
    assert own.count("filter.source") == 1

    own.kill()
    assert rules(place) == put
    wire.is_dropped(BAD, address(node))
    own.start()
    assert rules(place) == put
    wire.is_dropped(BAD, address(node))
    own.kill()
    assert own.command("stop").returncode == 0
    assert rules(place) == before


def test_it_is_put_again_when_others_have_removed_it(place: Site, own: Running, wire: Wire) -> None:
    in_its_domain(place, own)
    node = place.node()
    arrives(place, node)
    put = rules(place)
    netns.inside(place.maar, lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
    # nftables announces nothing to us: found by the next comparison, here after a rule that is missed.
    netns.ip(*["-6", "rule", "del", "priority", "21302"], namespace=place.maar)
    netns.wait_for(lambda: rules(place) == put, timeout=PATIENCE, what="the filter to be back")
    wire.is_dropped(BAD, address(node))
    assert own.count("kernel.repaired") >= 2


def test_a_link_without_it(place: Site, tmp_path: Path, wire: Wire) -> None:
    configuration = CONFIGURATION.replace(
        'interface = "access0"', 'interface = "access0"\ningress-filter = false'
    )
    daemon = place.daemon(tmp_path / "open", configuration)
    place.cmd.clear()
    in_its_domain(place, daemon)
    wire.passes(BAD)
    with contextlib.closing(Wire(place, "h1")) as filtered:
        filtered.send(BAD)
        daemon.counts("filter.source", 1)
    assert daemon.end() == 0


def test_a_sender_learns_the_mtu_of_the_tunnel(place: Site, own: Running) -> None:
    in_its_domain(place, own)
    node = place.node()
    place.peer.send(update(node, 1, place.generation(), node.prefix()))
    assert place.peer.take_answer(1).accepted
    sender = netns.inside(place.core, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with sender:
        sender.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
        sender.bind((format_address(CMD), 0))
        sender.connect((format_address(address(node)), 4000))
        sender.send(bytes(1460 - 48))
        sender.send(bytes(1461 - 48))
        netns.wait_for(
            lambda: sender.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) == 1460,
            timeout=PATIENCE,
            what="Packet Too Big",
        )
    assert own.count("tunnel.too-big") == 1
