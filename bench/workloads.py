"""What is measured with."""

from __future__ import annotations

from dataclasses import dataclass

from bench import perfdhcp
from bench.domain import SERVER
from bench.network import INTERFACE, Network
from bench.search import Trial


@dataclass(frozen=True, slots=True)
class Workload:
    """Traffic by perfdhcp. `name` is for the command line, `title` for tables."""

    name: str
    title: str
    options: perfdhcp.Options
    start: float
    """Exchanges per second of the first trial."""

    def run(self, network: Network, rate: float, seconds: int, timings: bool = False) -> Trial:
        """Offer so many exchanges per second. Raises LabError."""
        return perfdhcp.run(
            self.options,
            namespace=network.client,
            interface=INTERFACE,
            server=SERVER,
            rate=rate,
            seconds=seconds,
            timings=timings,
        )


WORKLOADS = (
    Workload("pd-relayed", "IA_PD, relayed, four-way", perfdhcp.Options("prefix-only", True), 6000),
)
