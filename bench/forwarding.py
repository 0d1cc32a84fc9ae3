"""`./dev bench forward`: packets through an S-MAAR that serves few nodes, and through one that serves many.

    hosts namespace --- access0 [ S-MAAR ] core0 --- core namespace

The kernel holds what a daemon would put there for so many nodes from elsewhere and one from here
(:mod:`bench.forwarding_maar`). Single datagrams are sent one after the other; a cable of this kind hands each over at
once, so that it has crossed when it is sent. What is counted is what comes out at the other end.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.forwarding_maar import ELSEWHERE, HERE, P_MAARS
from bench.maars import ROOT
from bench.nodes import endpoint, prefix
from dmm_wire.address import format_mac, parse_address, parse_mac
from dmm_wire.router_identity import FIXED
from lab import netns

SIZES: Final = (10, 1000, 10_000)
MOST: Final = 60_000
BAR: Final = 0.5
"""Of the packets a second with the fewest nodes, with the most."""
FLOWS: Final = ("up, tunnel", "up", "down, tunnel", "down")
"""From a node and to it; `tunnel`: its prefix is from elsewhere."""
COLUMNS: Final = ("nodes", "put ms", "dropped ms", *(f"{flow}, packets/s" for flow in FLOWS))
_SENDERS: Final = 1000
"""Nodes whose prefixes are in the packets, one after the other; all of them, or some from everywhere among them."""
_HOSTS: Final = parse_mac("02:be:00:00:00:01")
_CN: Final = parse_address("2001:db8:99::2")
_IPV6: Final = 0x86DD
_UDP, _ENCAPSULATED = 17, 41
_TIMES: Final = 256
"""Packets between two looks at the clock."""


@dataclass(slots=True)
class Figures:
    """One version with so many nodes."""

    version: str
    nodes: int
    put: list[float] = field(default_factory=list)
    dropped: list[float] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=dict)
    """Packets per second of each flow."""
    lost: int = 0

    def rate(self, flow: str) -> float:
        """The best of all trials: what disturbs the machine makes none of them faster."""
        return max(self.rates[flow])

    def row(self) -> tuple[str, ...]:
        """As COLUMNS."""
        return (
            f"{self.nodes:,}{f' ({self.version})' if self.version else ''}",
            *(f"{statistics.median(each) * 1e3:,.1f}" for each in (self.put, self.dropped)),
            *(f"{self.rate(flow):,.0f}" for flow in FLOWS),
        )


def measure(
    name: str, sizes: Sequence[int], seconds: float, rounds: int, beside: Path | None
) -> list[Figures]:
    """Trials of so many seconds, rounds for all sizes in turn. `beside` is the tree of another version, which takes
    turns with this one. Raises LabError."""
    versions = {"": ROOT} if beside is None else {"this": ROOT, "beside": beside.resolve()}
    found = {(size, each): Figures(each, size) for size in sizes for each in versions}
    for _ in range(rounds):
        for (size, version), figures in found.items():
            with _site(name) as site:
                _round(site, size, versions[version], seconds, figures)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Site:
    maar: str
    core: str
    hosts: str


@contextmanager
def _site(name: str) -> Iterator[_Site]:
    site = _Site(*(f"{name}-{end}" for end in ("maar", "core", "hosts")))
    everything = site.maar, site.core, site.hosts
    lock = netns.lock(name)
    try:
        netns.remove(everything)
        netns.batch(f"netns add {each}" for each in everything)
        for device, end in (("core0", site.core), ("access0", site.hosts)):
            netns.ip(
                *f"link add {device} netns {site.maar} type veth peer {device}".split(),
                "netns",
                end,
            )
            for each in (site.maar, end):
                netns.ip("link", "set", device, "up", namespace=each)
        netns.batch(
            (
                "link set lo up",
                "addr add 2001:db8:c::1/64 dev core0 nodad",
                f"neigh add fe80::c lladdr {format_mac(_mac(site.core, 'core0'))} dev core0",
                "route add default via fe80::c dev core0",
            ),
            namespace=site.maar,
        )
        yield site
    finally:
        netns.remove(everything)
        lock.close()


def _round(site: _Site, size: int, source: Path, seconds: float, figures: Figures) -> None:
    program = ROOT / "bench" / "forwarding_maar.py"
    command = ["ip", "netns", "exec", site.maar, sys.executable, "-P", str(program)]
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}"}
    with subprocess.Popen(
        [*command, str(size), format_mac(_HOSTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as maar:
        assert maar.stdin is not None
        assert maar.stdout is not None
        try:
            figures.put.append(json.loads(maar.stdout.readline() or "null") or _failed(source))
            for flow, (frames, sender, receiver) in _flows(site, size).items():
                sent, came, took = _trial(frames, sender, receiver, seconds)
                figures.rates.setdefault(flow, []).append(came / took)
                figures.lost += max(0, sent - came)
            maar.stdin.close()
            figures.dropped.append(json.loads(maar.stdout.readline() or "null") or _failed(source))
        finally:
            maar.stdin.close()


def _failed(source: Path) -> float:
    raise netns.LabError(f"the driver of {source} did not do it")


_End = tuple[str, str]
"""A namespace and a device in it."""


def _flows(site: _Site, size: int) -> dict[str, tuple[list[bytes], _End, _End]]:
    """By FLOWS: the frames, where they are sent, and where they come out."""
    core, hosts = (site.core, "core0"), (site.hosts, "access0")
    up = FIXED.link_layer + _HOSTS
    down = _mac(site.maar, "core0") + _mac(*core)
    served = range(1, size + 1, -(-size // _SENDERS))

    def host(maar: int, node: int) -> bytes:
        return prefix(maar, node).address[:15] + b"\x10"

    def tunnelled(node: int) -> bytes:
        inner = _datagram(_CN, host(ELSEWHERE, node))
        return _packet(_ENCAPSULATED, P_MAARS[(node - 1) % len(P_MAARS)], endpoint(HERE), inner)

    kind = _IPV6.to_bytes(2, "big")
    packets = (
        [up + kind + _datagram(host(ELSEWHERE, node), _CN) for node in served],
        [up + kind + _datagram(host(HERE, 1), _CN)],
        [down + kind + tunnelled(node) for node in served],
        [down + kind + _datagram(_CN, host(HERE, 1))],
    )
    ways = (hosts, core), (hosts, core), (core, hosts), (core, hosts)
    return {flow: (frames, *way) for flow, frames, way in zip(FLOWS, packets, ways, strict=True)}


def _trial(
    frames: Sequence[bytes], sender: _End, receiver: _End, seconds: float
) -> tuple[int, int, float]:
    """How many were sent, how many came, and the seconds it took."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind((sender[1], 0))
        return sock

    with netns.inside(sender[0], opened) as sock:
        send: Callable[[bytes], int] = sock.send
        endless = itertools.cycle(frames)
        before, sent = _received(*receiver), 0
        start = now = time.perf_counter()
        while now - start < seconds:
            for frame in itertools.islice(endless, _TIMES):
                send(frame)
            sent += _TIMES
            now = time.perf_counter()
    return sent, _received(*receiver) - before, now - start


def _received(namespace: str, device: str) -> int:
    (link,) = netns.ip_json("-s", "link", "show", device, namespace=namespace)
    return int(link["stats64"]["rx"]["packets"])


def _mac(namespace: str, device: str) -> bytes:
    (link,) = netns.ip_json("link", "show", device, namespace=namespace)
    return parse_mac(link["address"])


def _datagram(source: bytes, destination: bytes) -> bytes:
    """Nobody reads it: its checksum is not looked at on the way."""
    payload = bytes(12)
    header = struct.pack("!HHHH", 9, 9, 8 + len(payload), 1)
    return _packet(_UDP, source, destination, header + payload)


def _packet(kind: int, source: bytes, destination: bytes, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), kind, 64) + source + destination + payload


def told(results: Sequence[Figures], console: Console) -> bool:
    """Print the figures. Returns whether nothing was lost and many nodes cost no more than the bar allows."""
    table = Table(
        *COLUMNS, title="packets through an S-MAAR, and the ways from nodes' prefixes put"
    )
    for each in results:
        table.add_row(*each.row())
    console.print(table)
    ours = [each for each in results if each.version != "beside"]
    few, many = min(ours, key=lambda each: each.nodes), max(ours, key=lambda each: each.nodes)
    share = min(many.rate(flow) / few.rate(flow) for flow in FLOWS)
    verdict = "met" if share >= BAR else "missed"
    console.print(
        f"packets/s with {many.nodes:,} nodes, of those with {few.nodes:,}: {share:.2f} at least, "
        f"wanted ≥ {BAR:g}: {verdict}"
    )
    lost = sum(each.lost for each in ours)
    if lost:
        console.print(f"{lost:,} packets were lost")
    return share >= BAR and not lost


def write(results: Sequence[Figures], directory: Path) -> None:
    """Put all that was measured into forward.json."""
    directory.mkdir(parents=True, exist_ok=True)
    found = [asdict(each) for each in results]
    (directory / "forward.json").write_text(json.dumps(found, indent=1) + "\n")
