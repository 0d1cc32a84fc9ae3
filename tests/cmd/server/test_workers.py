"""`dhcp-cmd serve` with several workers on one PostgreSQL: they share the load, and each may go."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmm_wire.dhcpv6.message import unwrap
from tests.cmd.plugin import messages as m
from tests.cmd.plugin.network import SERVER_NAMESPACE, Relay, inside
from tests.cmd.plugin.server import Server
from tests.cmd.plugin.waiting import wait_for
from tests.cmd.server.serving import (
    Ledger,
    a_database,
    configured,
    has_lines,
    load,
    log_lines,
    node,
    serving,
    wide,
)

pytestmark = [pytest.mark.root, pytest.mark.needs("postgres")]

WORKERS = 3
SECOND = "2001:db8:ffff::2"


@pytest.fixture
def configuration(state: Path, link: None) -> Iterator[Path]:
    with a_database("postgresql", state, [wide()]) as url:
        yield configured(state, url, workers=WORKERS)


def workers(server: Server) -> set[int]:
    """The pids of the workers."""
    return {
        int(pid)
        for pid in Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        .read_text()
        .split()
    }


def test_all_of_them_serve(configuration: Path, maar1: Relay) -> None:
    with serving(configuration) as server:
        assert len(workers(server)) == WORKERS
        assert maar1.ask(node(1, m.RAPID_COMMIT, m.ia_pd()))
        assert server.stop() == 0
