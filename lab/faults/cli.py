"""`./dev faults`. Exit status: 0 when everything was right in every mode, 1 when it was not or the lab could not be
built, 2 for what cannot be meant, 130 after Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.command import FAILED
from lab.command import run as run_command
from lab.faults.run import MODES, FaultRun, Result, Settings
from lab.netns import LabError
from lab.signals import tidy_on_signals

WIDTH = 120
_SEEDS = 1 << 32

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def faults(
    mode: Annotated[
        str, typer.Option(help=f"{', '.join(MODES)}, some of them with commas between, or all.")
    ] = "all",
    moves: Annotated[int, typer.Option(min=0, help="Of all nodes together.")] = 1000,
    nodes: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    seed: Annotated[
        int | None, typer.Option(help="Repeat the run that said it had this seed.")
    ] = None,
    stock: Annotated[
        bool, typer.Option("--stock", help="The CMD on ipv6-dhcpd instead of dhcp-cmd serve.")
    ] = False,
    pmip: Annotated[
        bool, typer.Option("--pmip", help="MAARs that speak only PMIPv6, hosts without a client.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-faults",
) -> None:
    """Nodes move at random while PBUs and PBAs are lost (20 %), repeated (10 %) and overtake each other. No packet may
    go round in a circle, and in the end the kernel of every MAAR must hold what it has to, and nothing else."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    if missing := [name for name in ("ip", "setpriv", "sqlite3") if shutil.which(name) is None]:
        raise LabError(f"not installed: {', '.join(missing)}")
    known = MODES[1:] if pmip else MODES
    modes = known if mode == "all" else tuple(mode.replace(" ", "").split(","))
    if unknown := set(modes) - set(known):
        raise typer.BadParameter(f"no such mode: {', '.join(sorted(unknown))}")
    if stock and (pmip or "relay" in modes):
        raise typer.BadParameter("mode relay and PMIPv6 need dhcp-cmd serve")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    console = Console(width=WIDTH, highlight=False, emoji=False)
    seed = secrets.randbelow(_SEEDS) if seed is None else seed
    console.print(f"seed {seed}")
    results: list[Result] = []
    with tidy_on_signals():
        for each in modes:
            settings = Settings(each, moves, nodes, seed, stock=stock, registers=pmip)
            run = FaultRun(settings, prefix, partial(console.print, f"{settings.name}:"))
            results.append(run.run())
    console.print(table(results))
    for result in results:
        for problem in result.problems:
            console.print(Text(f"{result.settings.name}: {problem}", style="red"), soft_wrap=True)
    if output is not None:
        output.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    if any(result.problems for result in results):
        raise typer.Exit(FAILED)


def table(results: Sequence[Result]) -> Table:
    """What was seen, a column for each run."""
    made = Table(title="fault run", title_justify="left")
    made.add_column("")
    for result in results:
        made.add_column(result.settings.name, justify="right")
    for name, values in rows(results):
        made.add_row(name, *values)
    return made


def rows(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """The rows of the table."""

    def text(value: object) -> str:
        if value is None:
            return "-"
        return f"{value:.1f} s" if isinstance(value, float) else str(value)

    def row(name: str, *values: object) -> tuple[str, list[str]]:
        return name, [text(value) for value in values]

    counts = (
        ("registrations sent", "registration"),
        ("PBUs sent", "pbu"),
        ("of these again about a visit", "again"),
        ("PBAs sent", "pba"),
        ("of these refusals", "refused"),
        ("lost", "lost"),
        ("doubled", "doubled"),
        ("overtaken", "overtaken"),
    )
    return [
        row("moves", *(r.moves for r in results)),
        row("prefixes in the end", *(r.prefixes for r in results)),
        row("answers to nodes", *(r.answered for r in results)),
        row("answers that found no node", *(r.missed for r in results)),
        *(row(name, *(r.counts.get(key, 0) for r in results)) for name, key in counts),
        row("probe packets", *(r.probes for r in results)),
        row("went round in circles", *(r.circled for r in results)),
        row("all right after", *(r.converged for r in results)),
        row("after the Releases", *(r.gone for r in results)),
        row("last trace gone after", *(r.faded for r in results)),
        row("all of it", *(r.seconds for r in results)),
        row("problems", *(len(r.problems) for r in results)),
    ]


def run(arguments: Sequence[str]) -> int:
    """Run it; the exit status. An error is one line on standard error."""
    return run_command(app, "faults", arguments)


def main() -> None:
    """Run it with the arguments of the command line."""
    sys.exit(run(sys.argv[1:]))
