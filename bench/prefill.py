"""Nodes that are bound before a measurement: node n at MAAR n modulo 3, with one delegated prefix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice

from bench.domain import MAARS
from bench.packets import ENTERPRISE, SERVER_DUID, bound_first, mac, transaction_id
from dhcp_cmd.core.model import BindingRequest, Settings
from dhcp_cmd.core.request import read_request
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import open_store
from lab.netns import LabError

BATCH = 4000


def bind(database: str, size: int) -> None:
    """Bind the nodes 0 to `size` - 1 through the CMD's own code. Raises LabError when one of them gets nothing."""
    store = open_store(database)
    try:
        cmd = Cmd(store, Settings(SERVER_DUID))
        requests = _requests(size)
        while batch := list(islice(requests, BATCH)):
            cmd.handle(batch, lambda: time.time_ns() // 1000)
        if cmd.outcomes["reply"] != size:
            raise LabError(f"of {size} nodes to bind: {dict(cmd.outcomes)}")
    finally:
        store.close()


def _requests(size: int) -> Iterator[BindingRequest]:
    templates = [bound_first(maar) for maar in MAARS]
    sources = [maar.source for maar in MAARS]
    for node in range(size):
        at = node % len(MAARS)
        datagram = templates[at].fill(transaction_id(node), mac(node))
        yield read_request(datagram, sources[at], ENTERPRISE)
