"""So many nodes move from one MAAR to the other at once: how long until both kernels have it, and is all as it must be?

Measured from a node's first message, with a CMD that answers by a script: what is left is the MAARs' own share.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.kernel_events import Event, Monitor, What
from bench.maars import PATIENCE, Site
from bench.nodes import answer, endpoint, link_local, mac, prefix, request
from dmm_wire.address import format_address
from lab import netns

HOME, AWAY = 1, 2
"""The MAAR that anchors every prefix, and the other one."""
_IPV6: Final = 0x86DD
_SO_RCVBUFFORCE: Final = 33
_NEXT_HEADER, _MH_TYPE, _SEQUENCE = 20, 56, slice(62, 64)
"""Offsets in an Ethernet frame with a Mobility Header (RFC 6275 sections 6.1.1 and 6.1.8)."""
_MOBILITY_HEADER, _PBA = 135, 6
_REQ_TIMEOUT: Final = 1.0
"""Seconds until a client repeats what was not answered (RFC 9915 section 7.6)."""
_AT_ONCE: Final = 32
"""Probes on their way: a neighbour that is being resolved has room for no more than a few hundred packets."""


@dataclass(slots=True)
class Moved:
    """A crowd that has moved. Times are seconds, `took` from each node's own message to the last change of a kernel
    that is about it."""

    to: int
    took: list[float]
    last: float
    """From the first message to the last change in a kernel."""
    acknowledged: float
    """From the first message to the last PBA; 0 where there was nobody to tell."""
    cpu: dict[int, float]
    """Of each MAAR."""
    gaps: int
    """Routes to nodes that were taken away where they had to stay."""
    early: int
    """Nodes whose packets were sent after them before the MAAR that they went to could take them."""
    wrong: list[str]
    """What is not as it must be afterwards, one line each."""

    def quantile(self, part: float) -> float:
        """The time within which this part of the nodes was done."""
        ordered = sorted(self.took)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Crowd:
    """Nodes that move between the MAARs of a site, all at once. Each has one prefix, anchored at HOME."""

    def __init__(self, site: Site, nodes: Sequence[int]) -> None:
        self._site = site
        self._nodes = nodes
        self._generation = int(time.time()) << 16
        self._place = 0
        self.repeated = 0
        """How many messages were sent once more."""
        self._monitors = {n: Monitor(maar.namespace) for n, maar in site.maars.items()}
        self._cables = {n: _cable(site, n) for n in site.maars}

    def close(self) -> None:
        """Hear no more of the kernels."""
        for monitor in self._monitors.values():
            monitor.close()
        for cable in self._cables.values():
            cable.close()

    def move(self, to: int) -> Moved:
        """All of them go to this MAAR. Raises LabError where they do not arrive."""
        left, self._place = self._place, to
        missing = _expected(self._nodes, to, left)
        self._generation += 1 << 16
        self._site.cmd.script = {
            link_local(n): answer(to, n, self._generation, (HOME,), left) for n in self._nodes
        }
        self._site.cmd.asked.clear()
        frames = [request(node) for node in self._nodes]
        for number in self._monitors:
            list(self._monitors[number].read())
            _acknowledgements(self._cables[number])
        before = {n: maar.cpu() for n, maar in self._site.maars.items()}
        said, events, answered = self._watch(frames, to, left, missing)
        cpu = {n: maar.cpu() - before[n] for n, maar in self._site.maars.items()}
        first = said[0]
        addresses = [prefix(HOME, node).address for node in self._nodes]
        done = dict.fromkeys(addresses, first)
        for _, event in events:
            done[event.address] = event.at
        return Moved(
            to,
            [done[address] - at for address, at in zip(addresses, said, strict=True)],
            max(done.values()) - first,
            answered - first if left else 0.0,
            cpu,
            sum(event.what is What.ROUTE_DROPPED and n in (HOME, to) for n, event in events),
            _early(events, to) if left else 0,
            list(self._wrong(to)),
        )

    def _watch(
        self,
        frames: Sequence[bytes],
        to: int,
        left: int,
        missing: set[tuple[int, What, bytes]],
    ) -> tuple[list[float], list[tuple[int, Event]], float]:
        """Send the frames, play the CMD. Returns when each was sent, what the kernels said, when the last PBA came."""
        site = self._site
        said: list[float] = []
        events: list[tuple[int, Event]] = []
        untold = len(frames) if left else 0
        answers: set[bytes] = set()
        answered = 0.0
        ours = {prefix(HOME, node).address for node in self._nodes}
        with selectors.DefaultSelector() as waiting:
            waiting.register(site.cmd.socket, selectors.EVENT_READ, None)
            for number, monitor in self._monitors.items():
                waiting.register(monitor.socket, selectors.EVENT_READ, number)
            if left:
                waiting.register(self._cables[left], selectors.EVENT_READ, self._cables[left])
            for frame in frames:
                said.append(time.monotonic())
                _send(site.links[to], frame)
            again = said[-1] + _REQ_TIMEOUT
            while missing or len(answers) < untold:
                ready = waiting.select(_REQ_TIMEOUT)
                now = time.monotonic()
                if now > again:
                    self._repeat(frames, to)
                    again = now + _REQ_TIMEOUT
                if now > said[0] + PATIENCE:
                    complaints = [line for n in site.maars for line in site.maars[n].complaints()]
                    raise netns.LabError(
                        f"{len(frames)} nodes to maar{to}: {len(missing)} changes and "
                        f"{untold - len(answers)} PBAs are missing after {PATIENCE:g} s; "
                        f"the MAARs say {complaints[-3:]}"
                    )
                for key, _ in ready:
                    match key.data:
                        case None:
                            site.cmd.serve()
                        case int():
                            # First the kernel that is changed last: what led to it is in the other one by then.
                            then = list(self._monitors[HOME + AWAY - to].read())
                            for number, found in (
                                (to, self._monitors[to].read()),
                                (HOME + AWAY - to, then),
                            ):
                                for event in found:
                                    if event.address in ours:
                                        events.append((number, event))
                                        missing.discard((number, event.what, event.address))
                        case cable:
                            answers |= _acknowledgements(cable)
                            answered = time.monotonic()
        return said, events, answered

    def _repeat(self, frames: Sequence[bytes], to: int) -> None:
        """A link drops what comes faster than its other end takes it (a macvlan keeps 1,000 multicast packets): clients
        send again what was not answered."""
        for node, frame in zip(self._nodes, frames, strict=True):
            if link_local(node) not in self._site.cmd.asked:
                self.repeated += 1
                _send(self._site.links[to], frame)

    def _wrong(self, to: int) -> Iterator[str]:
        maars = self._site.maars
        home, away, ruled = maars[HOME].routes(), maars[AWAY].routes(), maars[AWAY].ruled()
        tunnel = [format_address(endpoint(AWAY))]
        for node in self._nodes:
            name, here = str(prefix(HOME, node)), format_address(link_local(node))
            at_home, at_away = home.get(name, {}), away.get(name, {})
            if to == HOME:
                found = {
                    "is not with its node": at_home.get("gateway") != here,
                    "is left over": bool(at_away),
                    "has a way into the tunnel left over": name in ruled,
                }
            else:
                found = {
                    "is not in the tunnel": at_home.get("segs") != tunnel,
                    "is not with its node": at_away.get("gateway") != here,
                    "has no way into the tunnel": name not in ruled,
                }
            yield from (f"{name} {what}" for what, is_so in found.items() if is_so)

    def reached(self) -> int:
        """How many nodes get a packet that the core sends them, each one."""
        link = self._site.links[self._place]
        for _ in _drain(link):
            pass
        sock = netns.inside(
            self._site.core, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        )
        found: set[bytes] = set()
        with sock:
            for first in range(0, len(self._nodes), _AT_ONCE):
                nodes = self._nodes[first : first + _AT_ONCE]
                for node in nodes:
                    to = prefix(HOME, node).address[:15] + b"\x01"
                    sock.sendto(b"probe", (format_address(to), 9))
                wanted = {mac(node) for node in nodes}
                deadline = time.monotonic() + 1.0
                while not wanted <= found and time.monotonic() < deadline:
                    found |= {frame[:6] for frame in _drain(link) if frame.endswith(b"probe")}
                    time.sleep(0.001)
        return len(found & {mac(node) for node in self._nodes})


def _early(events: Sequence[tuple[int, Event]], to: int) -> int:
    """How many nodes were given up where they had been before all was ready where they went."""
    needed = {What.ROUTE_PUT, What.SOURCE_PUT} if to == AWAY else {What.ROUTE_PUT}
    ready: dict[bytes, set[What]] = {}
    early: set[bytes] = set()
    for number, event in events:
        if number == to:
            ready.setdefault(event.address, set()).add(event.what)
        elif not needed <= ready.get(event.address, set()):
            early.add(event.address)
    return len(early)


def _expected(nodes: Sequence[int], to: int, left: int) -> set[tuple[int, What, bytes]]:
    """What the kernels have to say of a move."""
    changes: tuple[tuple[int, What], ...]
    if to == AWAY:
        changes = ((HOME, What.ROUTE_PUT), (AWAY, What.ROUTE_PUT), (AWAY, What.SOURCE_PUT))
    elif left:
        changes = ((HOME, What.ROUTE_PUT), (AWAY, What.ROUTE_DROPPED), (AWAY, What.SOURCE_DROPPED))
    else:
        changes = ((HOME, What.ROUTE_PUT),)
    return {(maar, what, prefix(HOME, n).address) for n in nodes for maar, what in changes}


def _cable(site: Site, maar: int) -> socket.socket:
    """The frames that come from this MAAR to the core."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        sock.bind((f"c{maar}", _IPV6))
        return sock

    sock = netns.inside(site.core, opened)
    sock.setblocking(False)
    return sock


def _acknowledgements(cable: socket.socket) -> set[bytes]:
    """The sequence numbers of the PBAs that are there."""
    return {
        frame[_SEQUENCE]
        for frame in _drain(cable)
        if frame[_NEXT_HEADER] == _MOBILITY_HEADER and frame[_MH_TYPE] == _PBA
    }


def _drain(sock: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield sock.recv(2048)
        except BlockingIOError:
            return


def _send(sock: socket.socket, frame: bytes) -> None:
    while True:
        try:
            sock.send(frame)
        except BlockingIOError:
            time.sleep(0.0002)
        else:
            return
