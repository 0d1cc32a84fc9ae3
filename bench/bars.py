"""What the CMD has to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.report import Results

FOUR_WAY = ("pd-relayed", "na-relayed", "pd-direct", "na-direct")
ON_SQLITE = ("serve-sqlite", "compiled-sqlite")
ON_POSTGRESQL = ("serve-postgresql", "compiled-postgresql", "workers-postgresql")
RATIOS = {**dict.fromkeys(ON_SQLITE, 1.0), **dict.fromkeys(ON_POSTGRESQL, 6.0)}
"""Capacity in that of the Kea that it is compared with, four-way."""
AT_A_MILLION = 0.8
"""Of the capacity with 10 thousand bound nodes."""
MEMORY_GROWTH = 1.1
"""Of the memory with 10 thousand: what is left to chance."""
P99 = 0.010
"""Seconds at half of the capacity, on SQLite."""
FEW, MANY = 10_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Bar:
    """One of them."""

    what: str
    found: str
    wanted: str
    met: bool


def bars(results: Results) -> list[Bar]:
    """All that this run says something about."""
    return [*_ratios(results), *_scaling(results), *_latencies(results)]


def _ratios(results: Results) -> Iterator[Bar]:
    for each in results.measurements:
        ratio, least = results.ratio(each), RATIOS.get(each.server)
        if ratio is not None and least is not None and each.workload in FOUR_WAY:
            what = f"{results.title(each.server)} to Kea, {results.title(each.workload)}, {each.size:,} bound"
            yield Bar(what, f"{ratio:.2f}", f"≥ {least:g}", ratio >= least)


def _scaling(results: Results) -> Iterator[Bar]:
    for few in results.measurements:
        many = results.find(few.server, few.workload, MANY)
        if few.size != FEW or many is None or few.server not in RATIOS or not few.capacity:
            continue
        what = (
            f"{results.title(few.server)}, {results.title(few.workload)}, a million to 10,000 bound"
        )
        ratio = many.capacity / few.capacity
        yield Bar(f"{what}: capacity", f"{ratio:.2f}", f"≥ {AT_A_MILLION:g}", ratio >= AT_A_MILLION)
        if few.at_capacity is not None and many.at_capacity is not None:
            growth = many.at_capacity.server_memory / few.at_capacity.server_memory
            yield Bar(
                f"{what}: memory of the server",
                f"{growth:.2f}",
                f"≤ {MEMORY_GROWTH:g}",
                growth <= MEMORY_GROWTH,
            )


def _latencies(results: Results) -> Iterator[Bar]:
    for each in results.measurements:
        if each.server in ON_SQLITE and each.p99 is not None:
            what = (
                f"{results.title(each.server)}, {results.title(each.workload)}, {each.size:,} bound"
            )
            what += ": p99 at half of its capacity"
            yield Bar(what, f"{each.p99 * 1000:.1f} ms", f"≤ {P99 * 1000:g} ms", each.p99 <= P99)
