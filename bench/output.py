"""Files with results: JSON, Markdown, and the section of docs/performance.md that is between two marker lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.bars import bars
from bench.report import COLUMNS, LEGEND, Results, markdown_table, rows


def marker(benchmark: str, end: str) -> str:
    """The line where the section of a benchmark has its "begin" or its "end"."""
    return f"<!-- written by ./dev bench {benchmark} --update-docs: {end} -->"


BEGIN = marker("cmd", "begin")
END = marker("cmd", "end")


class Files:
    """Where the results of a run go: a directory and, with `docs`, a document that has the marker lines."""

    def __init__(self, directory: Path, docs: Path | None) -> None:
        self._directory = directory
        self._docs = docs

    def write(self, results: Results) -> None:
        """Write what there is so far."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "cmd.json").write_text(as_json(results))
        (self._directory / "cmd.md").write_text(as_markdown(results))

    def finish(self, results: Results) -> None:
        """Write all there is; the document, too."""
        self.write(results)
        if self._docs is not None:
            self._docs.write_text(replaced(self._docs.read_text(), as_markdown(results)))


def replaced(document: str, section: str, benchmark: str = "cmd") -> str:
    """The document with `section` between a benchmark's marker lines. Raises ValueError where they are missing."""
    first, last = marker(benchmark, "begin"), marker(benchmark, "end")
    head, begin, rest = document.partition(f"{first}\n")
    _, end, tail = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"the document lacks the lines {first!r} and {last!r}")
    return f"{head}{begin}\n{section}\n{end}{tail}"


def as_json(results: Results) -> str:
    """Everything that was measured, latencies in seconds, memory in octets."""
    found = {
        "machine": dict(results.machine),
        "notes": results.notes,
        "measurements": [
            asdict(each) | {"of_kea": results.ratio(each)} for each in results.measurements
        ],
        "bars": [asdict(bar) for bar in bars(results)],
    }
    return json.dumps(found, indent=2) + "\n"


def as_markdown(results: Results) -> str:
    """The machine, the figures, the bars, and what else is to be known."""
    verdicts = (
        (bar.what, bar.found, bar.wanted, "met" if bar.met else "**missed**")
        for bar in bars(results)
    )
    parts = [
        markdown_table(("machine", ""), iter(results.machine.items())),
        markdown_table(COLUMNS, rows(results)),
        "".join(f"- {note}\n" for note in (*LEGEND, *results.notes)),
        markdown_table(("bar", "found", "wanted", ""), verdicts, text=1),
    ]
    return "\n".join(parts)
