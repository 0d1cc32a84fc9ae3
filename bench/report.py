"""The results for people and for programs: one table, the bars, JSON and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from bench.measure import Measurement, Usage

COLUMNS = (
    "bound nodes",
    "traffic",
    "server",
    "exchanges/s",
    "of Kea",
    "p50 ms",
    "p99 ms",
    "CPU µs",
    "memory MB",
)


class Results:
    """All measurements of a run. `titles` are the names for tables of servers and workloads; `rivals` says which
    server each is compared with.
    """

    def __init__(self, titles: Mapping[str, str], rivals: Mapping[str, str]) -> None:
        self.measurements: list[Measurement] = []
        self._titles = titles
        self._rivals = rivals

    def add(self, measurement: Measurement) -> None:
        """One more."""
        self.measurements.append(measurement)

    def find(self, server: str, workload: str, size: int) -> Measurement | None:
        """The measurement of a server, if it gave a capacity."""
        for each in self.measurements:
            if (each.server, each.workload, each.size) == (server, workload, size):
                return each if each.capacity else None
        return None

    def ratio(self, measurement: Measurement) -> float | None:
        """Its capacity in that of the Kea it is compared with."""
        rival = self._rivals.get(measurement.server, measurement.server)
        if rival == measurement.server or not measurement.capacity:
            return None
        other = self.find(rival, measurement.workload, measurement.size)
        return None if other is None else measurement.capacity / other.capacity

    def rows(self) -> Iterable[tuple[str, ...]]:
        """The cells of the table, by size, then workload."""
        order: dict[tuple[int, str], list[Measurement]] = {}
        for each in self.measurements:
            order.setdefault((each.size, each.workload), []).append(each)
        for (size, workload), group in order.items():
            for each in group:
                title = self._titles.get(each.server, each.server)
                head = (f"{size:,}", self._titles.get(workload, workload), title)
                if not each.capacity:
                    yield (*head, each.problem, "", "", "", "", "")
                    continue
                yield (*head, *self._figures(each))

    def _figures(self, each: Measurement) -> tuple[str, ...]:
        ratio = self.ratio(each)
        least = "≥ " if each.limited_by_generator else ""
        return (
            f"{least}{each.capacity:,.0f}",
            "" if ratio is None else f"{ratio:.2f}",
            _milliseconds(each.p50),
            _milliseconds(each.p99),
            _cpu(each.at_capacity),
            _memory(each.at_capacity),
        )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f}"


def _cpu(usage: Usage | None) -> str:
    if usage is None:
        return ""
    server = f"{usage.server_cpu * 1e6:.0f}"
    return server if not usage.database_memory else f"{server} + {usage.database_cpu * 1e6:.0f}"


def _memory(usage: Usage | None) -> str:
    if usage is None:
        return ""
    server = f"{usage.server_memory / 1e6:.0f}"
    return server if not usage.database_memory else f"{server} + {usage.database_memory / 1e6:.0f}"


def table(results: Results) -> Table:
    """For a terminal."""
    made = Table(title="CMD and Kea", title_justify="left")
    for index, name in enumerate(COLUMNS):
        made.add_column(name, justify="left" if index in (1, 2) else "right")
    for row in results.rows():
        made.add_row(*row)
    return made


def markdown(results: Results) -> str:
    """The same as a Markdown table."""
    return markdown_table(COLUMNS, results.rows())


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; text to the left, figures to the right."""
    lines = [f"| {' | '.join(columns)} |"]
    lines.append("|" + "".join("---|" if i in (1, 2) else "--:|" for i in range(len(columns))))
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def as_json(results: Results, machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "machine": dict(machine),
        "measurements": [
            asdict(each) | {"of_kea": results.ratio(each)} for each in results.measurements
        ],
    }
