"""The results as tables, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table

from bench.measure import Measurement, Usage

COLUMNS = (
    "traffic",
    "server",
    "bound nodes",
    "exchanges/s",
    "of Kea",
    "p50 ms",
    "p99 ms",
    "CPU µs",
    "memory MB",
)
LEGEND = (
    "exchanges/s: the highest offered rate with at most 1 % lost; of Kea: in that of the Kea with such a database.",
    "4-way: Solicit, Advertise, Request, Reply; the others are one message and its Reply; + Renew: half and half.",
    "p50, p99: from a message to its answer, at half of that rate.",
    "CPU for each exchange, and memory (PSS), at that rate: of the server + of the PostgreSQL beside it.",
)


class Results:
    """All measurements of a run. `titles` are the names for tables of servers and workloads; `rivals` says which
    server each is compared with.
    """

    def __init__(self, titles: Mapping[str, str], rivals: Mapping[str, str]) -> None:
        self.measurements: list[Measurement] = []
        self.machine: Mapping[str, str] = {}
        self.notes: list[str] = []
        self._titles = titles
        self._rivals = rivals

    def add(self, measurement: Measurement) -> None:
        """One more."""
        self.measurements.append(measurement)

    def title(self, name: str) -> str:
        """What a server or a workload is called in tables."""
        return self._titles.get(name, name)

    def find(self, server: str, workload: str, size: int) -> Measurement | None:
        """The measurement of a server, if it gave a capacity."""
        for each in self.measurements:
            if (each.server, each.workload, each.size) == (server, workload, size):
                return each if each.capacity else None
        return None

    def ratio(self, measurement: Measurement) -> float | None:
        """Its capacity in that of the Kea it is compared with."""
        rival = self._rivals.get(measurement.server)
        if not rival or not measurement.capacity:
            return None
        other = self.find(rival, measurement.workload, measurement.size)
        return None if other is None else measurement.capacity / other.capacity


def rows(results: Results) -> Iterator[tuple[str, ...]]:
    """The cells of the table, those of one kind of traffic and one number of nodes together."""
    order: dict[tuple[int, str], list[Measurement]] = {}
    for each in results.measurements:
        order.setdefault((each.size, each.workload), []).append(each)
    for group in order.values():
        for each in group:
            yield _row(results, each)


def _row(results: Results, each: Measurement) -> tuple[str, ...]:
    head = (results.title(each.workload), results.title(each.server), f"{each.size:,}")
    if not each.capacity:
        return (*head, each.problem, *[""] * (len(COLUMNS) - len(head) - 1))
    ratio = results.ratio(each)
    least = "≥ " if each.limited_by_generator else ""
    return (
        *head,
        f"{least}{each.capacity:,.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        _milliseconds(each.p50),
        _milliseconds(each.p99),
        *_usage(each.at_capacity),
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f}"


def _usage(usage: Usage | None) -> tuple[str, str]:
    if usage is None:
        return "", ""
    cpu, memory = f"{usage.server_cpu * 1e6:.0f}", f"{usage.server_memory / 1e6:.0f}"
    if not usage.database_memory:
        return cpu, memory
    return (
        f"{cpu} + {usage.database_cpu * 1e6:.0f}",
        f"{memory} + {usage.database_memory / 1e6:.0f}",
    )


def told(results: Results, each: Measurement) -> str:
    """One line, for who watches."""
    what = f"{results.title(each.server)}, {results.title(each.workload)}, {each.size:,} bound: "
    if not each.capacity:
        return what + each.problem
    ratio = results.ratio(each)
    p99 = "" if each.p99 is None else f", p99 {each.p99 * 1000:.1f} ms"
    checked = ""
    if each.verified is not None:
        checked = f"; {each.verified.answered:,} replies checked in the database"
    of_kea = "" if ratio is None else f", {ratio:.2f} of Kea"
    return f"{what}{each.capacity:,.0f}/s{of_kea}{p99}{checked}"


def tables(results: Results) -> list[Table]:
    """For a terminal: the figures, and the bars."""
    from bench.bars import bars

    figures = Table(title="The CMD and Kea", title_justify="left", caption="\n".join(LEGEND))
    for index, name in enumerate(COLUMNS):
        figures.add_column(name, justify="left" if index < 2 else "right")
    for row in rows(results):
        figures.add_row(*row)
    verdicts = Table(title="The bars", title_justify="left")
    for name in ("", "found", "wanted", ""):
        verdicts.add_column(name)
    for bar in bars(results):
        verdicts.add_row(bar.what, bar.found, bar.wanted, "met" if bar.met else "missed")
    return [figures, verdicts] if verdicts.row_count else [figures]


def markdown_table(columns: Sequence[str], cells: Iterator[Sequence[str]], text: int = 2) -> str:
    """A table in Markdown; the first `text` columns hold text, the others figures."""
    lines = [f"| {' | '.join(columns)} |"]
    lines.append("|" + "".join("---|" if i < text else "--:|" for i in range(len(columns))))
    lines += [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join(lines) + "\n"
