"""What TCP gets through the tunnel, beside the same hops without one, by iperf3.

    CN --- core --- MAAR1 (anchor) --- core --- MAAR2 --- node

Plain forwarding takes the same way by policy routes: each packet crosses the anchor, the core twice, and the S-MAAR in
both cases, and what differs is the encapsulation. Segments are packets on every link, as on a wire.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from bench.attach_domain import AttachDomain
from bench.bars import Bar
from dmm_wire.address import format_address
from lab import netns
from lab.topology import CN1, MaarPlan, Topology

BAR: Final = 0.9
"""Of plain forwarding on the same way."""
ROUNDS: Final = 4
DIRECTIONS: Final = ("down", "up")
"""To the node, and from it."""

_PORT: Final = 5201
_TABLE: Final = 4000
_PREFERENCE: Final = 10
"""Before the rules of relay-maar."""
_PATIENCE: Final = 20.0


class Way(NamedTuple):
    """The way of the data, and what carries it."""

    direction: str
    tunnelled: bool


@dataclass(frozen=True, slots=True)
class Goodput:
    """Bits per second that TCP delivered in one trial."""

    direction: str
    tunnelled: bool
    rate: float


class Goodputs:
    """All trials of a run."""

    def __init__(self, trials: Sequence[Goodput]) -> None:
        self.trials = list(trials)

    def rate(self, way: Way) -> float:
        """The median of its trials."""
        return statistics.median(
            each.rate for each in self.trials if (each.direction, each.tunnelled) == way
        )

    def directions(self) -> list[str]:
        """Those that were measured."""
        return list(dict.fromkeys(each.direction for each in self.trials))

    def ratio(self, direction: str) -> float:
        """Through the tunnel, of plain forwarding."""
        return self.rate(Way(direction, True)) / self.rate(Way(direction, False))

    def bars(self) -> Iterator[Bar]:
        """Whether the tunnel reaches its share."""
        for direction in self.directions():
            ratio = self.ratio(direction)
            found = f"{ratio:.3f}" + (f" ({BAR - ratio:.3f} short)" if ratio < BAR else "")
            yield Bar(
                f"goodput through the tunnel, {direction}, of plain forwarding",
                found,
                f"≥ {BAR:g}",
                ratio >= BAR,
            )


def measure(prefix: str, seconds: float, rounds: int = ROUNDS) -> Goodputs:
    """Trials of so many seconds in turn: down and up, plain and tunnelled. Raises LabError."""
    if shutil.which("iperf3") is None:
        raise netns.LabError("iperf3 is not installed (Debian: iperf3)")
    trials = []
    with AttachDomain(prefix, nodes=1) as lab:
        address = format_address(lab.leave().addresses[lab.home])
        for _ in range(rounds):
            for direction in DIRECTIONS:
                with plain(lab, address):
                    rate = _trial(lab.topology, address, direction, seconds)
                trials.append(Goodput(direction, False, rate))
                rate = _trial(lab.topology, address, direction, seconds)
                trials.append(Goodput(direction, True, rate))
    return Goodputs(trials)


@contextmanager
def plain(lab: AttachDomain, address: str) -> Iterator[None]:
    """The same hops without a tunnel, until the end of this."""
    anchor, serving = lab.home, lab.away

    def core(plan: MaarPlan) -> str:
        return f"via 2001:db8:0:{plan.number}::1 dev {plan.core_interface}"

    def maar(plan: MaarPlan) -> str:
        return f"via {plan.core_address} dev {plan.node}"

    hops = (
        # down: the anchor sends it back to the core, which knows by where it comes from that it goes on to the S-MAAR,
        # which has the route to its node
        (anchor.node, f"iif {anchor.core_interface} to {address}", core(anchor)),
        ("core", f"iif {anchor.node} to {address}", maar(serving)),
        # up
        (serving.node, f"from {address}", core(serving)),
        ("core", f"iif {serving.node} from {address}", maar(anchor)),
        (anchor.node, f"iif {anchor.core_interface} from {address}", core(anchor)),
    )
    undo = []
    try:
        for number, (where, selector, route) in enumerate(hops, _TABLE):
            namespace = lab.topology.namespace(where)
            rule = f"{selector} lookup {number} pref {_PREFERENCE}"
            for kind, what in (("route", f"default {route} table {number}"), ("rule", rule)):
                netns.ip("-6", kind, "add", *what.split(), namespace=namespace)
                undo.append((namespace, kind, what))
        yield
    finally:
        for namespace, kind, what in undo:
            netns.ip("-6", kind, "del", *what.split(), namespace=namespace)


def _trial(topology: Topology, address: str, direction: str, seconds: float) -> float:
    """Bits per second that were delivered. What the trial before found out, the path's MTU above all, is forgotten:
    plain forwarding is not to send what fits a tunnel."""
    for node in ("mn", CN1.node):
        for forget in ("-6 route flush cache", "tcp_metrics flush"):
            netns.ip(*forget.split(), namespace=topology.namespace(node))
    server = netns.start(
        topology.namespace("mn"), ["iperf3", "-s", "-1", "-B", address, "-p", str(_PORT)]
    )
    try:
        netns.wait_for(
            lambda: _listens(topology), timeout=_PATIENCE, what="iperf3 to listen", interval=0.01
        )
        command = ["iperf3", "-J", "-c", address, "-B", CN1.address, "-p", str(_PORT)]
        command += ["-t", f"{seconds:g}", *(["-R"] if direction == "up" else [])]
        client = netns.start(
            topology.namespace(CN1.node), command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            said, _ = client.communicate(timeout=seconds + _PATIENCE)
        except subprocess.TimeoutExpired:
            raise netns.LabError(f"iperf3 {direction}: not done in time") from None
        finally:
            netns.kill(client)
    finally:
        netns.kill(server)
    return delivered(said.decode())


def delivered(text: str) -> float:
    """Bits per second that the receiver had, from what iperf3 prints with -J. Raises LabError."""
    try:
        found = json.loads(text)
    except ValueError:
        raise netns.LabError(f"iperf3: {text.strip()}") from None
    if "error" in found:
        raise netns.LabError(f"iperf3: {found['error']}")
    return float(found["end"]["sum_received"]["bits_per_second"])


def _listens(topology: Topology) -> bool:
    return bool(netns.run_in(topology.namespace("mn"), "ss", "-Hltn", f"sport = :{_PORT}").strip())
