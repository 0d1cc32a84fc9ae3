"""One server under one workload, with so many nodes bound before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import processes
from bench.network import Network
from bench.search import Capacity, Trial, find_capacity
from bench.servers import Server
from bench.verify import Verdict
from bench.workloads import Workload
from lab.netns import LabError

WARM_UP = 1
"""Seconds."""
WARM_UP_RATE = 0.1
"""Of the rate at which the search starts."""
GROWTH = 100_000
"""New nodes that a state may get, or a fifth of what it had, before a trial begins from a fresh one."""

REST = 0.3
"""Seconds over which it is seen whether a server is idle, that is, uses less than the part IDLE of a core."""
IDLE = 0.05
MOST_REST = 10.0


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time per exchange in seconds, and memory in octets: of the server, and of the database beside it."""

    server_cpu: float
    database_cpu: float
    server_memory: int
    database_memory: int


@dataclass(slots=True)
class Measurement:
    """What was found. `problem` says why there are no figures, or what is wrong with them."""

    server: str
    workload: str
    size: int
    note: str = ""
    problem: str = ""
    capacity: float = 0.0
    limited_by_generator: bool = False
    trials: list[tuple[float, float]] = field(default_factory=list)
    """Offered rate and lost part of each trial."""
    at_capacity: Usage | None = None
    half_rate: float = 0.0
    at_half: Usage | None = None
    mean: float | None = None
    p50: float | None = None
    p99: float | None = None
    worst: float | None = None
    """Latencies at half of the capacity, seconds."""
    verified: Verdict | None = None
    """What the database says of the messages that were answered, where that was asked."""


Tell = Callable[[str], None]


class Bench:
    """Measures. `tell` hears what is being done."""

    def __init__(self, network: Network, seconds: int, precision: float, tell: Tell) -> None:
        self.network = network
        self.seconds = seconds
        self.precision = precision
        self.tell = tell
        self._added = math.inf

    def measure(
        self, server: Server, workload: Workload, size: int, start: float | None = None
    ) -> Measurement:
        """Search the capacity, then look at latencies at half of it. A program that fails, and a database that does not
        hold what was answered, is a `problem`.
        """
        result = Measurement(server.name, workload.name, size, server.note())
        self._added = math.inf
        try:
            self._measure(server, workload, size, start or workload.start, result)
            self._settle(server, workload, result)
        except LabError as error:
            result.problem = f"failed: {error}"
            result.capacity = 0.0
            self.tell(f"{error}\n{server.tail()}")
        finally:
            server.discard()
        return result

    def _measure(
        self, server: Server, workload: Workload, size: int, start: float, result: Measurement
    ) -> None:
        usages: list[Usage] = []

        def attempt(rate: float) -> Trial:
            trial, usage = self._trial(server, workload, rate, result)
            usages.append(usage)
            result.trials.append((trial.offered, trial.lost))
            self.tell(f"{rate:,.0f}/s: {trial.lost:.2%} lost")
            return trial

        first = self._refresh(server, workload, start, result)
        if first is not None and not first.completed:
            result.problem = "not served"
            return
        found: Capacity = find_capacity(attempt, start, self.precision)
        result.capacity = found.rate
        result.limited_by_generator = found.limited_by_generator
        if found.best is None:
            result.problem = "not served at any rate"
            return
        result.at_capacity = usages[found.trials.index(found.best)]
        half, result.at_half = self._trial(server, workload, found.rate / 2, result, timings=True)
        result.half_rate = half.offered
        result.mean = half.mean_latency
        result.p50, result.p99, result.worst = map(half.latency, (0.5, 0.99, 1.0))

    def _trial(
        self,
        server: Server,
        workload: Workload,
        rate: float,
        result: Measurement,
        timings: bool = False,
    ) -> tuple[Trial, Usage]:
        self._refresh(server, workload, rate, result)
        ours, beside = server.processes(), server.database_processes()
        before = processes.cpu_seconds(ours), processes.cpu_seconds(beside)
        trial = workload.run(self.network, rate, self.seconds, timings)
        self._added += trial.begun
        done = max(trial.completed, 1)
        usage = Usage(
            (processes.cpu_seconds(ours) - before[0]) / done,
            (processes.cpu_seconds(beside) - before[1]) / done,
            processes.memory(ours),
            processes.memory(beside),
        )
        if not trial.passed:
            self._rest(server)
        return trial, usage

    def _rest(self, server: Server) -> None:
        """Let it work off what a trial has left in its queues, lest that be the next one's; else begin anew."""
        deadline = time.monotonic() + MOST_REST
        while time.monotonic() < deadline:
            before = processes.cpu_seconds(server.processes())
            time.sleep(REST)
            if processes.cpu_seconds(server.processes()) - before < IDLE * REST:
                return
        self._added = math.inf

    def _refresh(
        self, server: Server, workload: Workload, rate: float, result: Measurement
    ) -> Trial | None:
        """Start from a fresh state unless the one at hand is still about what it was; gives the warm-up, if any."""
        size = result.size
        if self._added + rate * self.seconds <= max(GROWTH, size // 5):
            return None
        self._settle(server, workload, result)
        server.start(size)
        workload.fresh(server, size)
        self._added = 0
        return workload.run(self.network, rate * WARM_UP_RATE, WARM_UP)

    def _settle(self, server: Server, workload: Workload, result: Measurement) -> None:
        """Stop the server, and look at what it leaves. Raises LabError for what is wrong in its database."""
        if not server.processes():
            return
        server.stop()
        verdict = workload.settle(server)
        if verdict is None:
            return
        if verdict.problems:
            raise LabError(f"the database: {'; '.join(verdict.problems)}")
        result.verified = (result.verified or Verdict()).and_also(verdict)
