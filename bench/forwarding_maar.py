"""What an S-MAAR's kernel holds for so many nodes, put there by the driver and no daemon.

`PYTHONPATH=TREE python bench/forwarding_maar.py NODES MAC`, in the MAAR's namespace, takes the driver from that tree.
It answers with a line of JSON, the seconds that it took to put the ways from the nodes' prefixes; at the end of its
standard input with another one, those to drop them. MAC is the hosts'. One node more is from here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from bench.nodes import endpoint, link_local, pool, prefix
from dmm_wire.address import parse_mac
from relay_maar.core.items import (
    AcceptFrom,
    Change,
    Drop,
    Neighbour,
    Put,
    Route,
    SourceRule,
    ToNode,
    Tunnel,
    Unreachable,
)
from relay_maar.southbound.api import SouthboundSettings
from relay_maar.southbound.seg6 import Seg6Southbound

HERE, ELSEWHERE = 1, 2
"""Whose pools the prefixes are out of, as :mod:`bench.nodes` counts MAARs."""
P_MAARS = [endpoint(number) for number in range(2, 12)]


def main(nodes: int, mac: bytes) -> None:
    """See above."""
    settings = SouthboundSettings(endpoint(HERE), "core0", ("access0",), (pool(HERE),))
    driver = Seg6Southbound(settings)
    driver.open()

    def apply(changes: Sequence[Change]) -> float:
        start = time.perf_counter()
        driver.apply(changes)
        return time.perf_counter() - start

    node, every = link_local(1), range(1, nodes + 1)
    try:
        apply([Put(item) for peer in P_MAARS for item in (Tunnel(peer), AcceptFrom(peer))])
        served = [prefix(ELSEWHERE, number) for number in every]
        apply(
            [
                Put(Route(pool(HERE), Unreachable())),
                Put(Neighbour("access0", node, mac)),
                *(Put(Route(each, ToNode("access0", node))) for each in (prefix(HERE, 1), *served)),
            ]
        )
        sources = [
            SourceRule(each, P_MAARS[number % len(P_MAARS)]) for number, each in enumerate(served)
        ]
        print(json.dumps(apply([Put(source) for source in sources])), flush=True)
        sys.stdin.read()
        print(json.dumps(apply([Drop(source) for source in sources])), flush=True)
    finally:
        driver.close(keep=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), parse_mac(sys.argv[2]))
