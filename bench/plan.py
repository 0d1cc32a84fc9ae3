"""Which servers are measured with what, and how many bound nodes; and at which rate a search begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.kea import KeaMemfile, KeaPostgresql
from bench.ours import (
    CompiledOnPostgresql,
    CompiledOnSqlite,
    DhcpdOnSqlite,
    OurServer,
    ServeOnPostgresql,
    ServeOnSqlite,
    WorkersOnPostgresql,
)
from bench.servers import Server
from bench.workloads import Workload, workloads

SERVERS: tuple[type[Server], ...] = (
    KeaMemfile,
    CompiledOnSqlite,
    ServeOnSqlite,
    KeaPostgresql,
    CompiledOnPostgresql,
    WorkersOnPostgresql,
    ServeOnPostgresql,
    DhcpdOnSqlite,
)
SIZES = (10_000, 100_000, 1_000_000)
SCALED = ("pd-relayed", "handover")
"""Measured with every number of bound nodes; the rest with the first only."""
SLOW = {DhcpdOnSqlite.name: 0.05}
"""Servers that do a small part of what the others do."""
BRIEF = (ServeOnSqlite.name, ServeOnPostgresql.name, WorkersOnPostgresql.name, *SLOW)
"""Measured with SCALED and the first size only: what was compiled from the same source, in one process, stands for it;
or it is SLOW."""


class Unknown(ValueError):
    """A name that is none; the text says which there are."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement."""

    server: type[Server]
    workload: Workload
    size: int


def plan(
    servers: Sequence[str] = (), traffic: Sequence[str] = (), sizes: Sequence[int] = ()
) -> list[Step]:
    """What is to be done, by size, then traffic: those that are compared are measured one after the other, for a
    machine that others use, too, is not as fast in each minute. Without names: what `./dev bench cmd` is about; what is
    named is measured with everything else that is. Raises Unknown.
    """
    every = workloads()
    _check(servers, [each.name for each in SERVERS])
    _check(traffic, [each.name for each in every])
    sizes = sizes or SIZES
    return [
        Step(server, workload, size)
        for size in sizes
        for workload in every
        for server in SERVERS
        if (not servers or server.name in servers)
        and (workload.name in traffic if traffic else _is_due(server, workload, size == sizes[0]))
        and (issubclass(server, OurServer) or not workload.mobile)
    ]


def _is_due(server: type[Server], workload: Workload, first: bool) -> bool:
    if server.name in BRIEF:
        return first and workload.name in SCALED
    return first or workload.name in SCALED


def _check(given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise Unknown(f"{name!r} is none of {', '.join(known)}")


class Starts:
    """Where searches begin: near what the server did before."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], float] = {}
        self._speeds: dict[str, float] = dict(SLOW)

    def start(self, step: Step) -> float:
        """The rate of the first trial: what the server did under the same traffic, or is likely to do from how it was
        under other traffic.
        """
        found = self._found.get((step.server.name, step.workload.name))
        return found or step.workload.start * self._speeds.get(step.server.name, 1.0)

    def learn(self, step: Step, capacity: float) -> None:
        """What it was."""
        if capacity:
            self._found[step.server.name, step.workload.name] = capacity
            self._speeds[step.server.name] = capacity / step.workload.start
