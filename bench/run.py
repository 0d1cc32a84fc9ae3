"""One run: everything that is planned, told to a person as it happens."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import groupby

from rich.console import Console
from rich.status import Status
from rich.text import Text

from bench import machine
from bench.kea import Kea
from bench.measure import Bench, Measurement
from bench.network import Network
from bench.output import Files
from bench.plan import SERVERS, Starts, Step
from bench.report import Results, tables, told
from bench.servers import OnPostgresql, Server, Unavailable
from bench.workloads import workloads
from dhcp_cmd.store import StoreError
from lab import postgres
from lab.netns import LabError
from lab.postgres import Postgres

CHOICE = "pd-relayed"
"""The traffic by which it is decided whether a Kea is faster with several threads."""
CHOICE_PRECISION = 0.08


class Run:
    """Does the steps of a plan in a network, and writes what comes of it."""

    def __init__(
        self, network: Network, console: Console, seconds: int, precision: float, files: Files
    ) -> None:
        self._network = network
        self._console = console
        self._files = files
        self._bench = Bench(network, seconds, precision, self._tell)
        every = workloads()
        self._traffic = {each.name: each for each in every}
        self._results = Results(
            {each.name: each.title for each in SERVERS} | {each.name: each.title for each in every},
            {each.name: each.rival for each in SERVERS},
        )
        self._threads: dict[str, bool] = {}
        self._starts = Starts()
        self._status: Status = console.status("begins")
        self._doing = ""
        self._began = time.monotonic()

    def run(self, steps: list[Step]) -> None:
        """Do them. Raises LabError when the machine does not do its part."""
        self._results.machine = machine.describe(self._network.directory)
        done = 0
        with ExitStack() as stack:
            database = self._database(stack, steps)
            stack.enter_context(self._status)
            for (make, size), group in groupby(steps, lambda step: (step.server, step.size)):
                server = make(self._network, database)
                todo = list(group)
                try:
                    self._does(done, len(steps), f"{server.title}, {size:,} bound")
                    self._prepare(server, size)
                    for number, step in enumerate(todo, done):
                        what = f"{server.title}, {step.workload.title}, {size:,} bound"
                        self._does(number, len(steps), what)
                        self._add(
                            step,
                            self._bench.measure(
                                server, step.workload, size, self._starts.start(step)
                            ),
                        )
                except Unavailable as why:
                    self._note(f"{server.title} is not there: {why}")
                # In making its database: the others can still be measured.
                except (LabError, StoreError) as problem:
                    self._note(f"{server.title}, {size:,} bound: failed: {problem}")
                done += len(todo)
        self._files.finish(self._results)
        for table in tables(self._results):
            self._console.print(table)

    def _database(self, stack: ExitStack, steps: list[Step]) -> Postgres | None:
        """A PostgreSQL if one is needed and installed; its settings are those of a fresh installation."""
        wanted = any(issubclass(step.server, OnPostgresql) for step in steps)
        if not wanted or postgres.binaries() is None:
            return None
        return stack.enter_context(postgres.private(self._network.directory / "postgresql"))

    def _prepare(self, server: Server, size: int) -> None:
        self._tell("binds the nodes")
        began = time.monotonic()
        server.prepare(size)
        seconds = time.monotonic() - began
        if seconds > 5:
            self._console.print(Text(f"{server.title}: {size:,} nodes bound in {seconds:.0f} s"))
        if isinstance(server, Kea):
            if server.name not in self._threads:
                self._threads[server.name] = self._is_faster_with_threads(server, size)
            server.threads = self._threads[server.name]

    def _is_faster_with_threads(self, server: Kea, size: int) -> bool:
        """Try both, so that it is compared with Kea at its best."""
        bench = Bench(self._network, self._bench.seconds, CHOICE_PRECISION, self._tell)
        found = []
        for server.threads in (False, True):
            self._tell(f"tries {server.note()}")
            found.append(bench.measure(server, self._traffic[CHOICE], size).capacity)
        faster = found[1] > found[0]
        self._note(
            f"{server.title}: {found[0]:,.0f} exchanges/s without and {found[1]:,.0f} with multi-threading "
            f"(coarsely, {self._traffic[CHOICE].title}); measured with multi-threading {'on' if faster else 'off'}"
        )
        return faster

    def _add(self, step: Step, measured: Measurement) -> None:
        self._starts.learn(step, measured.capacity)
        self._results.add(measured)
        self._console.print(Text(told(self._results, measured)))
        self._files.write(self._results)

    def _note(self, text: str) -> None:
        if text in self._results.notes:  # a server's turn comes with each kind of traffic
            return
        self._results.notes.append(text)
        self._console.print(Text(text))

    def _does(self, done: int, steps: int, what: str) -> None:
        minutes = (time.monotonic() - self._began) / 60
        self._doing = f"{done + 1}/{steps}, {minutes:.0f} min: {what}"
        self._status.update(Text(self._doing))

    def _tell(self, text: str) -> None:
        self._status.update(Text(f"{self._doing}: {text}"))
