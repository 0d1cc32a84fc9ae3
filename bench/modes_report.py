"""The handovers of the four modes as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from bench.distribution import Distribution
from bench.modes import FORMULAS, MODES, Point, Results, expected_messages
from bench.output import replaced
from bench.phase_clock import Phase
from bench.report import markdown_table

PHASES: Final = {
    Phase.REPLY: "reply",
    Phase.CLIENT: "node's Reply",
    Phase.UPDATES: "PBUs",
    Phase.ACKNOWLEDGED: "PBAs",
    Phase.KNOWN: "anchors known",
    Phase.DOWN: "down",
    Phase.UP: "up",
    Phase.OPEN: "open",
}
"""As the tables call them."""
LEGEND: Final = (
    "D: one way between the CMD and each MAAR; M: between two MAARs, 0 here; k: the number of P-MAARs. "
    "All times count from the node's Rebind on its new link.\n"
    "reply: the Relay-reply is at the S-MAAR; node's Reply: at the node; PBUs: at every P-MAAR; PBAs: all where they "
    "go (direct: S-MAAR; proxy, relay: CMD; locator: both); anchors known: the S-MAAR has been told of all.\n"
    "down: a packet to the old address is on the new link; up: one from it is at the CN by way of its anchor; "
    "open: both. Of several P-MAARs those of the oldest and of the last one are watched; both must be through.\n"
    "sent back: packets per handover that the S-MAAR, which did not know them yet, sent back to the core, "
    "counted each time that they came; the anchor tunnels them to it again."
).splitlines()
_DETAILED: Final = (Phase.KNOWN, Phase.DOWN, Phase.UP, Phase.OPEN)

Rows = Iterator[tuple[str, ...]]
Section = tuple[str, tuple[str, ...], Rows, int]
"""Title, columns, rows, and how many columns hold text."""


def sections(results: Results) -> list[Section]:
    """The tables."""
    shown = results.points()
    phases = tuple(PHASES.values())
    return [
        ("What RFC 8885's figures say", ("mode", *phases, "messages"), _formulas(), 9),
        (
            "Expected → median, ms",
            ("D ms", "P-MAARs", "mode", *phases),
            _medians(results, shown),
            3,
        ),
        (
            "Median / 95th / 99th percentile, ms",
            (
                *("D ms", "P-MAARs", "mode", "handovers"),
                *(PHASES[phase] for phase in _DETAILED),
                *("PBU", "PBA", "all messages", "sent back"),
            ),
            _details(results, shown),
            3,
        ),
        (
            "Which was open first, of handovers made one after the other",
            (
                "D ms",
                "P-MAARs",
                "direct before proxy",
                "proxy before locator",
                "locator before relay",
            ),
            _order(results, shown),
            2,
        ),
        (
            "The delay as it was, ms",
            ("D", "messages", "median", "p95", "p99", "worst"),
            _delays(results),
            1,
        ),
    ]


def _formulas() -> Rows:
    for mode in MODES:
        count = {k: sum(expected_messages(mode, k).values()) for k in (1, 2)}
        each = count[2] - count[1]
        formulas = (str(FORMULAS[mode][phase]) for phase in PHASES)
        yield mode, *formulas, f"{count[1] - each} + {each} k"


def _rows(
    results: Results, points: Sequence[Point]
) -> Iterator[tuple[Point, str, tuple[str, ...]]]:
    for point in points:
        for mode in results.modes(point):
            yield point, mode, (f"{point.delay * 1000:g}", str(point.anchors), mode)


def _medians(results: Results, points: Sequence[Point]) -> Rows:
    for point, mode, head in _rows(results, points):
        cells = []
        for phase in PHASES:
            found = results.phase(point, mode, phase)
            wanted = FORMULAS[mode][phase].seconds(point.delay) * 1000
            cells.append(f"{wanted:g} → {_ms(found.median)}" if found else "never")
        yield *head, *cells


def _details(results: Results, points: Sequence[Point]) -> Rows:
    for point, mode, head in _rows(results, points):
        messages = results.messages(point, mode)
        done = sum(each.is_complete for each in results.at(point, mode))
        yield (
            *head,
            f"{done} of {len(results.at(point, mode))}",
            *(_percentiles(results.phase(point, mode, phase)) for phase in _DETAILED),
            *(f"{messages.get(kind, 0):.4g}" for kind in ("PBU", "PBA")),
            f"{sum(messages.values()):.4g}",
            f"{results.sent_back(point, mode):,.0f}",
        )


def _order(results: Results, points: Sequence[Point]) -> Rows:
    for point in points:
        duels = {(each.faster, each.slower): each for each in results.duels(point)}
        cells = []
        for pair in (("direct", "proxy"), ("proxy", "locator"), ("locator", "relay")):
            found = duels.get(pair)
            cells.append(f"{found.won} of {found.of}" if found else "")
        yield f"{point.delay * 1000:g}", str(point.anchors), *cells


def _delays(results: Results) -> Rows:
    for delay in sorted({point.delay for point in results.points()}):
        found = results.held(delay)
        if found is not None:
            times = (found.median, found.p95, found.p99, found.worst)
            yield f"{delay * 1000:g}", f"{found.count:,}", *(f"{each * 1000:.3f}" for each in times)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _percentiles(found: Distribution | None) -> str:
    if found is None:
        return "never"
    return " / ".join(_ms(each) for each in (found.median, found.p95, found.p99))


def tables(results: Results) -> list[Table]:
    """For a terminal."""
    made = []
    for title, columns, rows, text in sections(results):
        table = Table(title=title, title_justify="left")
        for index, name in enumerate(columns):
            table.add_column(name, justify="left" if index < text else "right")
        for row in rows:
            table.add_row(*row)
        made.append(table)
    return made


def as_markdown(results: Results) -> str:
    """For docs/performance.md."""
    parts = [markdown_table(("machine", ""), iter(results.machine.items()))]
    for title, columns, rows, text in sections(results):
        parts.append(f"**{title}**\n\n{markdown_table(columns, rows, text)}")
    notes = [*LEGEND]
    if missing := len(results.incomplete()):
        notes.append(
            f"Not all phases were seen in {missing} of {len(results.handovers)} handovers."
        )
    notes += [
        f"The CMD held {count} PBUs back (MAX_UPDATE_RATE): what mode {mode} took here is not the handover alone."
        for mode, count in results.held_back.items()
        if count
    ]
    parts.append("".join(f"- {note}\n" for note in notes))
    return "\n".join(parts)


def as_json(results: Results) -> str:
    """All points, and every handover; seconds."""
    found = {
        "machine": results.machine,
        "points": [
            _point(results, point, mode)
            for point in results.points()
            for mode in results.modes(point)
        ],
        "order": [
            point._asdict() | asdict(each)
            for point in results.points()
            for each in results.duels(point)
        ],
        "delays": [
            {"delay": delay} | asdict(held)
            for delay in sorted({point.delay for point in results.points()})
            if (held := results.held(delay)) is not None
        ],
        "held_back": results.held_back,
        "handovers": [
            {
                "mode": each.mode,
                "delay": each.delay,
                "anchors": each.anchors,
                "seconds": dict(each.seconds),
                "messages": dict(each.messages),
                "sent_back": each.sent_back,
            }
            for each in results.handovers
        ],
    }
    return json.dumps(found, indent=1) + "\n"


def _point(results: Results, point: Point, mode: str) -> dict[str, Any]:
    found = {phase: results.phase(point, mode, phase) for phase in Phase}
    return {
        "mode": mode,
        **point._asdict(),
        "handovers": len(results.at(point, mode)),
        "incomplete": sum(not each.is_complete for each in results.at(point, mode)),
        "expected": {p: FORMULAS[mode][p].seconds(point.delay) for p in Phase},
        "seconds": {p: asdict(each) for p, each in found.items() if each is not None},
        "messages": results.messages(point, mode),
        "sent_back": results.sent_back(point, mode),
    }


def write(results: Results, directory: Path, docs: Path | None) -> None:
    """modes.json and modes.md in a directory and, with `docs`, the section between its marker lines."""
    directory.mkdir(parents=True, exist_ok=True)
    text = as_markdown(results)
    (directory / "modes.json").write_text(as_json(results))
    (directory / "modes.md").write_text(text)
    if docs is not None:
        docs.write_text(replaced(docs.read_text(), text, "modes"))
