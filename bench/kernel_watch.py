"""A thread that hears what the kernels of several MAARs say of nodes' routes and rules, as soon as they say it."""

from __future__ import annotations

import os
import selectors
import threading
import time
from types import TracebackType
from typing import Self

from bench.attach_clock import Said
from bench.kernel_events import Monitor
from lab import netns
from lab.topology import Topology


class KernelWatch:
    """Hears between `with` and its end."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._said: list[Said] = []
        self._lock = threading.Lock()
        self._monitors: list[Monitor] = []
        self._wake_reader, self._wake_writer = os.pipe()
        self._thread = threading.Thread(target=self._work, name="kernel-watch", daemon=True)
        self._selector = selectors.DefaultSelector()
        self._problem: OSError | None = None

    def __enter__(self) -> Self:
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        for plan in self._topology.plans:
            monitor = Monitor(self._topology.namespace(plan.node))
            self._monitors.append(monitor)
            self._selector.register(monitor.socket, selectors.EVENT_READ, (plan, monitor))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.write(self._wake_writer, b"!")
        self._thread.join()
        self._selector.close()
        for monitor in self._monitors:
            monitor.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
        if kind is None and self._problem is not None:
            raise netns.LabError(f"what a kernel said was lost: {self._problem}") from self._problem

    def forget(self) -> None:
        """What was said up to now."""
        with self._lock:
            self._said = []

    def said(self) -> list[Said]:
        """What was said since."""
        with self._lock:
            return list(self._said)

    def _work(self) -> None:
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.data is None:
                        return
                    plan, monitor = key.data
                    found = list(monitor.read())
                    offset = time.time_ns() - time.monotonic_ns()
                    with self._lock:
                        self._said += [
                            Said(plan, e.what, e.address, round(e.at * 1e9) + offset) for e in found
                        ]
        except (
            OSError
        ) as problem:  # something was lost: the moves that follow lack it, and the end tells
            self._problem = problem
