"""The way of packets, from what the links carried: each packet is followed from link to link by its identity."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from lab.names import NODES, Names
from lab.packets import Packet


@dataclass(frozen=True, slots=True)
class Hop:
    """One link of a way: from node to node; `tunnel` as in Packet."""

    link: str
    sender: str
    receiver: str
    tunnel: tuple[bytes, bytes] | None = None


Way = tuple[Hop, ...]
"""The links that one packet crossed, in the order of time."""


def ways(packets: Iterable[Packet]) -> Counter[Way]:
    """The ways that the packets took, and how many of them each."""
    seen: dict[object, list[Packet]] = defaultdict(list)
    for packet in packets:
        seen[packet.identity].append(packet)
    return Counter(way for copies in seen.values() for way in _split(copies))


def _split(copies: list[Packet]) -> Iterator[Way]:
    """The ways of one packet: TCP sends it again, and then it sets out from its first link once more."""
    copies.sort(key=lambda packet: packet.at)
    hops = [Hop(packet.link, packet.sender, packet.receiver, packet.tunnel) for packet in copies]
    starts = [index for index, hop in enumerate(hops) if hop == hops[0]]
    for start, end in pairwise([*starts, len(hops)]):
        yield tuple(hops[start:end])


def of_flow(
    packets: Iterable[Packet], source: bytes, destination: bytes, *, since: int, until: int
) -> Counter[Way]:
    """The ways of a flow's user data in one direction: packets that set out from `since` to `until`.

    `packets` must reach far enough behind `until` for the last of them to have arrived.
    """
    flow = [
        packet
        for packet in packets
        if packet.source == source and packet.destination == destination and packet.is_user_data
    ]
    departed: dict[object, int] = {}
    for packet in flow:
        departed.setdefault(packet.identity, packet.at)
    return ways(packet for packet in flow if since <= departed[packet.identity] < until)


def text(way: Way, names: Names) -> str:
    """One line: `MN ── MAAR2 ══ core ══ MAAR1 ── core ── CN1`, doubled where it is encapsulated."""
    if not way:
        return "nowhere"
    parts = [NODES[way[0].sender]]
    for hop in way:
        parts += ["══▶" if hop.tunnel else "──▶", NODES[hop.receiver]]
    tunnels = dict.fromkeys(hop.tunnel for hop in way if hop.tunnel)
    ends = [f"{names.address(source)}→{names.address(to)}" for source, to in tunnels]
    return " ".join(parts) + (f"  tunnel {', '.join(ends)}" if ends else "")


def direct(*nodes: str) -> Way:
    """The plain way through these nodes, for comparison; see `link_between`."""
    return tuple(Hop(link_between(a, b), a, b) for a, b in pairwise(nodes))


def tunnelled(way: Way, start: str, end: str, tunnel: tuple[bytes, bytes]) -> Way:
    """`way` with the hops between the nodes `start` and `end` inside a tunnel."""
    inside = False
    hops = []
    for hop in way:
        inside = inside or hop.sender == start
        hops.append(Hop(hop.link, hop.sender, hop.receiver, tunnel) if inside else hop)
        if hop.receiver == end:
            inside = False
    return tuple(hops)


def link_between(a: str, b: str) -> str:
    """The name of the link between two nodes of the topology."""
    if "mn" in (a, b):
        maar = b if a == "mn" else a
        return f"access{maar.removeprefix('m')}"
    return b if a == "core" else a
