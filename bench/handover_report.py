"""What `./dev bench handover` found, as tables, JSON, a picture and a section of docs/performance.md."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from shutil import copyfile
from statistics import median
from typing import Any, Final

from rich.table import Table

from bench import relays
from bench.attach_clock import Step
from bench.attaching import TITLES
from bench.distribution import Distribution
from bench.goodput import Way
from bench.handover import Findings
from bench.handover_plot import draw
from bench.output import replaced
from bench.report import markdown_table
from bench.sections import Rows, Section, table

STEPS: Final = {
    Step.FRAME: "first frame",
    Step.QUERY: "asked",
    Step.ANSWER: "answer",
    Step.UPDATE: "PBU",
    Step.ACKNOWLEDGED: "PBA",
    Step.SERVING: "S-MAAR's kernel",
    Step.ANCHOR: "anchor's kernel",
    Step.SET: "tunnel set",
    Step.DOWN: "down",
    Step.UP: "up",
    Step.OPEN: "open",
}
"""As the tables call them."""
LEGEND: Final = (
    "All times count from the carrier's return or, where it was never lost, from the node's cable in its new link.\n"
    "first frame: on the new link (hook: the access point's word); asked: the question, or the Relay-forward, leaves "
    "the S-MAAR; answer: it is there; PBU: at the anchor; PBA: at the S-MAAR.\n"
    "S-MAAR's kernel: has the route to the node and the one from it into the tunnel; anchor's kernel: "
    "has the route into the tunnel; "
    "tunnel set: both; MAARs' share: from the first frame to that, the CMD's part in it too; without the CMD: "
    "less the time from the question to the answer.\n"
    "down: a packet to the node is on its new link; up: one from it is at the CN by way of its anchor; open: both. But "
    "for the data packet the node sends nothing until it gets something, and answers that: up comes after down.\n"
    "A host that neither sends, nor is asked, nor loses its carrier is seen by nobody but its access point."
).splitlines()
_PICTURE: Final = "handover.png"


def sections(findings: Findings) -> list[Section]:
    """The tables that there is something for; the first column of each is text."""
    found: list[Section] = []
    if findings.triggers():
        four = ("median", "p95", "p99", "worst")
        heads = (
            *(f"open {name}" for name in four),
            *(f"MAARs' share {name}" for name in four[:3]),
            *(f"without the CMD {name}" for name in four[:2]),
            *(f"first frame {name}" for name in four[:3]),
        )
        found += [
            ("Handover, ms", ("trigger", "moves", *heads), _distributions(findings)),
            ("Median of each step, ms", ("trigger", *STEPS.values()), _medians(findings)),
        ]
    found += findings.crowds.sections()
    if findings.goodputs is not None:
        columns = ("TCP goodput", "plain Mbit/s", "tunnel Mbit/s", "tunnel/plain")
        found.append(("Tunnel and plain forwarding, the same hops", columns, _goodput(findings)))
    if findings.relays:
        found.append(("Relay agents", relays.COLUMNS, relays.rows(findings.relays)))
    return found


def _distributions(findings: Findings) -> Rows:
    attaches = findings.attaches
    for trigger in findings.triggers():
        wanted = (
            (attaches.step(trigger, Step.OPEN), 4),
            (attaches.share(trigger), 3),
            (attaches.alone(trigger), 2),
            (attaches.step(trigger, Step.FRAME), 3),
        )
        cells = [cell for found, count in wanted for cell in _cells(found, count)]
        yield TITLES[trigger], str(len(attaches.of(trigger))), *cells


def _cells(found: Distribution | None, count: int) -> list[str]:
    if found is None:
        return ["never"] * count
    return [_ms(each) for each in (found.median, found.p95, found.p99, found.worst)[:count]]


def _medians(findings: Findings) -> Rows:
    for trigger in findings.triggers():
        cells = []
        for step in STEPS:
            found = findings.attaches.step(trigger, step)
            cells.append(_ms(found.median) if found else "never")
        yield TITLES[trigger], *cells


def _goodput(findings: Findings) -> Rows:
    assert findings.goodputs is not None
    for direction in findings.goodputs.directions():
        rates = [findings.goodputs.rate(Way(direction, tunnelled)) for tunnelled in (False, True)]
        cells = (f"{rate / 1e6:,.0f}" for rate in rates)
        yield direction, *cells, f"{findings.goodputs.ratio(direction):.3f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def notes(findings: Findings) -> list[str]:
    """What else is to be known."""
    found = list(LEGEND) if findings.triggers() else []
    found += findings.crowds.notes()
    if findings.programs:
        found.append(
            f"The hook is a line at the control socket. The program `relay-maar attach` takes "
            f"{median(findings.programs) * 1000:.0f} ms (median of {len(findings.programs)}), most of it to start."
        )
    return found


def tables(findings: Findings) -> list[Table]:
    """For a terminal: the figures, then the bars."""
    made = [table(*section) for section in sections(findings)]
    verdicts = Table("", "found", "wanted", "", title="The bars", title_justify="left")
    for bar in findings.bars():
        verdicts.add_row(bar.what, bar.found, bar.wanted, "met" if bar.met else "missed")
    return [*made, verdicts]


def as_markdown(findings: Findings, picture: str) -> str:
    """For docs/performance.md, which the picture is beside."""
    parts = [markdown_table(("machine", ""), iter(findings.machine.items()))]
    for title, columns, rows in sections(findings):
        parts.append(f"**{title}**\n\n{markdown_table(columns, rows, text=1)}")
    if findings.triggers():
        parts.append(f"![How long handovers take, by what they are noticed by]({picture})\n")
    parts.append("".join(f"- {note}\n" for note in notes(findings)))
    verdicts = (
        (bar.what, bar.found, bar.wanted, "met" if bar.met else "**missed**")
        for bar in findings.bars()
    )
    parts.append(markdown_table(("bar", "found", "wanted", ""), verdicts, text=1))
    return "\n".join(parts)


def as_json(findings: Findings) -> str:
    """Distributions, bars, and everything that was measured; seconds, bits per second."""
    attaches = findings.attaches
    found: dict[str, Any] = {
        "machine": dict(findings.machine),
        "triggers": {
            trigger: {
                "moves": len(attaches.of(trigger)),
                "incomplete": attaches.incomplete(trigger),
                "share": _asdict(attaches.share(trigger)),
                "alone": _asdict(attaches.alone(trigger)),
                "steps": {step: _asdict(attaches.step(trigger, step)) for step in Step},
            }
            for trigger in findings.triggers()
        },
        "programs": findings.programs,
        "goodput": [asdict(each) for each in findings.goodputs.trials] if findings.goodputs else [],
        "crowds": findings.crowds.as_json(),
        "relays": [asdict(each) for each in findings.relays],
        "bars": [asdict(bar) for bar in findings.bars()],
        "moves": [
            {"trigger": each.trigger, "node": each.node, "seconds": dict(each.seconds)}
            for each in attaches.all
        ],
    }
    return json.dumps(found, indent=1) + "\n"


def _asdict(found: Distribution | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


class Files:
    """handover.json, .md and .png in a directory and, with `docs`, the section of that document and its picture."""

    def __init__(self, directory: Path, docs: Path | None) -> None:
        self._directory = directory
        self._docs = docs

    def write(self, findings: Findings) -> None:
        """What there is so far."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "handover.json").write_text(as_json(findings))
        (self._directory / "handover.md").write_text(as_markdown(findings, _PICTURE))

    def finish(self, findings: Findings) -> None:
        """All there is; the picture and the document, too."""
        self.write(findings)
        if findings.triggers():
            draw(findings.attaches, self._directory / _PICTURE)
        if self._docs is not None:
            text = as_markdown(findings, _PICTURE)
            self._docs.write_text(replaced(self._docs.read_text(), text, "handover"))
            if findings.triggers():
                copyfile(self._directory / _PICTURE, self._docs.with_name(_PICTURE))
