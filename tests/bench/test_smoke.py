"""The handover benchmark against a real `dhcp-cmd serve` in a namespace, for a second."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from bench.network import Network
from bench.ours import ServeOnSqlite
from bench.verify import Verdict
from bench.workloads import workloads
from lab import netns

pytestmark = [pytest.mark.root, pytest.mark.slow]

PREFIX = f"bencht{os.getpid()}"
NODES = 1000
RATE = 150


@pytest.mark.parametrize("name", ["handover", "refresh"])
def test_every_reply_is_found_in_the_database_and_a_missing_row_is_noticed(
    name: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    traffic = next(each for each in workloads() if each.name == name)
    with Network(PREFIX, tmp_path) as network:
        server = ServeOnSqlite(network)
        server.prepare(NODES)
        server.start(NODES)
        assert server.processes()
        traffic.fresh(server, NODES)
        first = traffic.run(network, RATE, 1)
        second = traffic.run(network, RATE, 1)
        server.stop()
        assert (first.begun, first.completed) == (second.begun, second.completed) == (RATE, RATE)
        assert len(first.latencies) == RATE
        assert traffic.settle(server) == Verdict(answered=2 * RATE, written=2 * RATE)

        connection = sqlite3.connect(server.directory / "cmd.sqlite")
        with connection:
            connection.execute(
                "UPDATE mobile_node SET serving_id = previous_id WHERE id = "
                "(SELECT node_id FROM history WHERE type = 'handover' ORDER BY id DESC LIMIT 1)"
                if name == "handover"
                else "UPDATE binding SET valid_until = assigned_at "
                "WHERE prefix = (SELECT prefix FROM binding ORDER BY valid_until DESC LIMIT 1)"
            )
        connection.close()
        verdict = traffic.settle(server)
        assert verdict is not None
        assert verdict.problems == (
            (
                "1 nodes that are not where their last handover put them",
                "1 nodes without a prefix where they are",
            )
            if name == "handover"
            else ("1 nodes with a Reply and an old lease",)
        )
        server.discard()
    assert not [each for each in netns.names() if each.startswith(PREFIX)]
    assert list(tmp_path.iterdir()) == []
