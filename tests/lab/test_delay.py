"""The delay before the CMD: the queue, and the program between two namespaces, timed by a capture at both its sides."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from bench.phase_clock import held
from lab import netns
from lab.capture import Capture
from lab.delay import Delay, DelayQueue
from lab.topology import CMD, CN1, MAAR_PLANS, PLANS, Topology

PREFIX = f"labd{os.getpid()}"
PORT = 4000
LATE = 0.02
"""Seconds that a busy machine may wake it too late, in a test; the benchmark tells how late it was."""


def test_each_waits_its_time_from_when_it_came() -> None:
    queue: DelayQueue[str] = DelayQueue(10)
    assert [queue.deadline] == [None]
    queue.put(100, "a")
    queue.put(104, "b")
    assert [queue.deadline] == [110]
    assert queue.due(109) == []
    assert queue.due(110) == ["a"]
    assert (queue.deadline, queue.due(200), queue.deadline) == (114, ["b"], None)


def test_a_shorter_delay_lets_nobody_overtake() -> None:
    queue: DelayQueue[str] = DelayQueue(10)
    queue.put(100, "a")
    queue.delay = 0
    queue.put(101, "b")
    assert queue.due(109) == []
    assert queue.due(110) == ["a", "b"]
    queue.put(120, "c")
    assert queue.due(120) == ["c"]


@pytest.fixture
def delayed() -> Iterator[Topology]:
    with Topology(PREFIX, maars=1, delayed=True) as topology:
        yield topology


def opened(topology: Topology, node: str, address: str) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        made.settimeout(5)
        made.bind((address, PORT))
        return made

    return netns.inside(topology.namespace(node), make)


@pytest.mark.root
def test_what_goes_to_the_cmd_and_comes_from_it_takes_its_time(delayed: Topology) -> None:
    with (
        Delay(delayed) as delay,
        Capture(delayed) as capture,
        opened(delayed, CMD.node, CMD.address) as cmd,
        opened(delayed, CN1.node, CN1.address) as peer,
    ):
        for seconds in (0.0, 0.015, 0.002):
            delay.set(seconds)
            since = time.time_ns()
            for number in range(20):
                data = b"%d %d" % (seconds * 1000, number)
                # The kernel leaves the checksum to the interface: only a whole datagram arrives.
                peer.sendto(data, (CMD.address, PORT))
                assert cmd.recvfrom(100)[:1] == (data,)
                cmd.sendto(data, (CN1.address, PORT))
                assert peer.recv(100) == data
            times = [each / 1e9 for each in held(capture.packets(since))]
            assert len(times) == 40
            assert seconds <= min(times)
            assert sorted(times)[20] < seconds + LATE


@pytest.mark.root
def test_a_lab_has_as_many_maars_as_it_is_told(delayed: Topology) -> None:
    here = [name for name in netns.names() if name.startswith(f"{PREFIX}-")]
    wanted = ("m1", "cmd", "cn1", "cn2", "delay", "core", "air", "mn")
    assert sorted(here) == sorted(map(delayed.namespace, wanted))
    with pytest.raises(netns.LabError, match="10 MAARs: 1 to 9"):
        Topology(f"{PREFIX}x", maars=10)
    addresses = {(plan.endpoint, plan.link_pool, plan.delegated_pool) for plan in PLANS}
    assert len(addresses) == 9
    assert PLANS[:3] == MAAR_PLANS
