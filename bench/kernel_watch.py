"""What the kernels of several MAARs say of the routes to and from nodes, heard as they say it by a process of its own.

`python -m bench.kernel_watch NAMESPACE ...` keeps it until the line `forget` on standard input, and answers the line
`said` with one line of JSON: for each change the number of the namespace, what it is, the prefix in hex and the time.
It ends with its standard input. It has a process of its own, and goes first on its processor, for a kernel gives no
times with what it says: it was said when it was heard. What was heard is read when somebody asks, for whoever goes
first takes the processor from what is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import sys
import time
from types import TracebackType
from typing import Final, Self

from bench.attach_clock import Said
from bench.kernel_events import Monitor, What, changes
from lab.program import Program
from lab.topology import Topology

_SAID: Final = "said"
_FORGET: Final = "forget"


class KernelWatch:
    """The process, between `with` and its end. Raises LabError when it has ended: a kernel may have said more than it
    could keep."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._program: Program | None = None

    def __enter__(self) -> Self:
        namespaces = [self._topology.namespace(plan.node) for plan in self._topology.plans]
        self._program = Program(namespaces[0], "bench.kernel_watch", *namespaces)
        try:
            self.said()  # it listens
        except BaseException:
            self._program.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._program is not None:
            self._program.close()

    def forget(self) -> None:
        """What was said up to now."""
        assert self._program is not None
        self._program.ask(_FORGET)

    def said(self) -> list[Said]:
        """What was said since. Raises LabError."""
        assert self._program is not None
        self._program.ask(_SAID)
        plans = self._topology.plans
        return [
            Said(plans[number], What(what), bytes.fromhex(address), at)
            for number, what, address, at in self._program.line(_SAID)[_SAID]
        ]


def main(namespaces: list[str]) -> None:
    """The program. Raises OSError where something was lost (ENOBUFS)."""
    monitors = [Monitor(namespace) for namespace in namespaces]
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    heard: list[tuple[int, int, bytes]] = []
    with selectors.DefaultSelector() as waiting:
        waiting.register(sys.stdin, selectors.EVENT_READ)
        for number, monitor in enumerate(monitors):
            waiting.register(monitor.socket, selectors.EVENT_READ, number)
        while True:
            # What a kernel says comes before what is asked.
            for key, _ in sorted(waiting.select(), key=lambda ready: ready[0].data is None):
                if key.data is not None:
                    said_now = monitors[key.data].heard()
                    heard.extend((key.data, time.time_ns(), data) for data in said_now)
                    continue
                asked = os.read(sys.stdin.fileno(), 4096).split()
                if not asked:
                    return
                for word in asked:
                    if word == _FORGET.encode():
                        heard.clear()
                    else:
                        said = [
                            (number, what, address.hex(), at)
                            for number, at, data in heard
                            for what, address in changes(data)
                        ]
                        print(json.dumps({_SAID: said}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
