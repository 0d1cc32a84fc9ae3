"""`./dev bench`. Exit status: 0, 1 when it could not be done, 2 for what cannot be meant, 130 after Ctrl-C."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import (
    crowd_moves,
    crowd_report,
    forwarding,
    goodput,
    handover_report,
    maars_alone,
    modes_report,
    plan,
    relays,
    workloads,
)
from bench import handover as whole
from bench import modes as four
from bench.attaching import Trigger
from bench.handover_run import HandoverRun
from bench.images import kept
from bench.modes_run import ModesRun
from bench.network import Network
from bench.output import Files
from bench.run import Run
from lab.command import FAILED
from lab.command import run as run_command
from lab.netns import LabError
from lab.signals import tidy_on_signals

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 120
QUICK_SIZES = (10_000,)
WIDE = 200
QUICK_HANDOVERS, QUICK_DELAYS, QUICK_ANCHORS = 5, (0.0, 0.005), (1, 2)
QUICK_MOVES, QUICK_CROWD, QUICK_CROWDS = 8, 100, 5
QUICK_TRAFFIC = ("pd-relayed", "pd-relayed-rapid", "handover")

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def benchmarks() -> None:
    """The benchmarks of the project, in network namespaces on this machine."""


def _names(of: list[str]) -> str:
    return f"Some of {', '.join(of)}, with commas between them."


@app.command()
def cmd(
    servers: Annotated[str, typer.Option(help=_names([each.name for each in plan.SERVERS]))] = "",
    traffic: Annotated[
        str,
        typer.Option("--workloads", help=_names([each.name for each in workloads.workloads()])),
    ] = "",
    sizes: Annotated[
        str, typer.Option(help="Numbers of nodes that are bound before, with commas between them.")
    ] = "",
    seconds: Annotated[int, typer.Option(min=1, max=600, help="How long a trial offers.")] = 4,
    precision: Annotated[
        float, typer.Option(min=0.005, max=0.5, help="Of a capacity, relatively.")
    ] = 0.04,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few minutes: does it work? Coarse figures.")
    ] = False,
    output: Annotated[Path, typer.Option(help="The directory for cmd.json and cmd.md.")] = ROOT
    / "bench"
    / "results",
    update_docs: Annotated[
        bool, typer.Option("--update-docs", help="Put the tables into docs/performance.md.")
    ] = False,
    directory: Annotated[
        Path, typer.Option(help="Where the databases are made: the disk that is measured.")
    ] = Path("/var/tmp"),
    images: Annotated[
        Path | None,
        typer.Option(help="Keep the databases with bound nodes here, and use those that are here."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-bench",
) -> None:
    """The CMD beside Kea in one run: capacity, latency, CPU, memory, with few and with many bound nodes."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    if shutil.which("perfdhcp") is None:
        raise LabError("perfdhcp is not installed (Debian: kea-admin)")
    if quick:
        seconds, precision = min(seconds, 2), max(precision, 0.1)
    try:
        steps = plan.plan(
            _split(servers),
            _split(traffic) or (QUICK_TRAFFIC if quick else ()),
            [int(size) for size in _split(sizes)] or (QUICK_SIZES if quick else ()),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console = _console(WIDTH)
    files = Files(output, ROOT / "docs" / "performance.md" if update_docs else None)
    with tidy_on_signals(), Network(prefix, directory, kept(images)) as network:
        Run(network, console, seconds, precision, files).run(steps)


@app.command()
def crowd(
    sizes: Annotated[
        str, typer.Option(help="Numbers of nodes that move at once, with commas between them.")
    ] = ",".join(map(str, crowd_moves.SIZES)),
    parts: Annotated[str, typer.Option(help=_names([*crowd_report.PARTS]))] = "",
    moves: Annotated[
        int, typer.Option(min=1, max=1000, help="Of each size and each way, at most.")
    ] = crowd_moves.MOVES,
    beside: Annotated[
        Path | None,
        typer.Option(help="The tree of another version of the MAARs, for the part maars."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The directory for crowd.json.")] = ROOT
    / "bench"
    / "results",
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-crowd",
) -> int:
    """Nodes that move at once: when packets go both ways again; and what the MAARs take of that, alone."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    wanted = _split(parts) or crowd_report.PARTS
    try:
        if unknown := set(wanted) - set(crowd_report.PARTS):
            raise ValueError(
                f"{', '.join(sorted(unknown))}: none of {', '.join(crowd_report.PARTS)}"
            )
        numbers = _crowds(sizes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console = _console(WIDE)
    found = crowd_report.Crowds()
    with tidy_on_signals():
        if "domain" in wanted:
            found.domain = crowd_moves.measure(prefix, numbers, console.print, moves)
        if "maars" in wanted:
            name = f"{prefix}-m"
            found.maars = maars_alone.measure(name, numbers, beside, console.print, moves)
    crowd_report.write(found, output)
    return 0 if crowd_report.told(found, console) else FAILED


def _console(width: int) -> Console:
    return Console(width=width, highlight=False, emoji=False)


def _crowds(sizes: str) -> list[int]:
    """Raises ValueError."""
    numbers = [int(size) for size in _split(sizes)]
    if not numbers or not all(1 <= number <= crowd_moves.MOST for number in numbers):
        raise ValueError(f"crowds have 1 to {crowd_moves.MOST:,} nodes")
    return numbers


@app.command()
def relay(
    seconds: Annotated[float, typer.Option(min=0.2, max=60, help="How long a trial is.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="How often each has its turn.")] = 3,
    beside: Annotated[
        Path | None,
        typer.Option(help="The tree of another version, to be measured in the same run."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The directory for relay.json.")] = ROOT
    / "bench"
    / "results",
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-relay",
) -> int:
    """DHCPv6 packets per second through a MAAR and through ISC dhcrelay."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    with tidy_on_signals():
        figures = relays.measure(prefix, seconds, rounds, beside)
    relays.write(figures, output)
    return 0 if relays.told(figures, _console(WIDTH)) else FAILED


@app.command()
def forward(
    sizes: Annotated[
        str, typer.Option(help="Numbers of nodes that are served, with commas between them.")
    ] = ",".join(map(str, forwarding.SIZES)),
    seconds: Annotated[float, typer.Option(min=0.05, max=60, help="How long a trial is.")] = 0.5,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="How often each has its turn.")] = 3,
    beside: Annotated[
        Path | None,
        typer.Option(help="The tree of another version, to be measured in the same run."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The directory for forward.json.")] = ROOT
    / "bench"
    / "results",
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-forward",
) -> int:
    """Packets per second through an S-MAAR that serves few nodes, and through one that serves many."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    try:
        numbers = [int(size) for size in _split(sizes)]
        if not numbers or not all(1 <= number <= forwarding.MOST for number in numbers):
            raise ValueError(f"sizes: 1 to {forwarding.MOST:,} nodes")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with tidy_on_signals():
        figures = forwarding.measure(prefix, numbers, seconds, rounds, beside)
    forwarding.write(figures, output)
    return 0 if forwarding.told(figures, _console(WIDE)) else FAILED


@app.command()
def modes(
    only: Annotated[str, typer.Option("--modes", help=_names(list(four.MODES)))] = "",
    delays: Annotated[
        str,
        typer.Option(help="One way between the CMD and each MAAR, ms, with commas between them."),
    ] = "",
    p_maars: Annotated[
        str, typer.Option(help="Numbers of P-MAARs, 1 to 8, with commas between them.")
    ] = "",
    handovers: Annotated[
        int, typer.Option(min=1, max=10_000, help="In each mode, for each delay and number.")
    ] = 50,
    quick: Annotated[
        bool, typer.Option("--quick", help="Less than a minute: does it work? Coarse figures.")
    ] = False,
    output: Annotated[Path, typer.Option(help="The directory for modes.json and modes.md.")] = ROOT
    / "bench"
    / "results",
    update_docs: Annotated[
        bool, typer.Option("--update-docs", help="Put the tables into docs/performance.md.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-modes",
) -> None:
    """Handovers in the four modes, the CMD near and far: latency by phases, messages, beside RFC 8885's reasoning."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    chosen = _split(only) or four.MODES
    try:
        for mode in chosen:
            if mode not in four.MODES:
                raise ValueError(f"{mode!r} is none of {', '.join(four.MODES)}")
        ways = [float(each) / 1000 for each in _split(delays)]
        anchors = [int(each) for each in _split(p_maars)]
        if any(not 0 <= way <= 0.1 for way in ways):
            raise ValueError("delays: 0 to 100 ms")
        if any(not 1 <= each <= 8 for each in anchors):
            raise ValueError("P-MAARs: 1 to 8")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    ways = ways or list(QUICK_DELAYS if quick else four.DELAYS)
    anchors = anchors or list(QUICK_ANCHORS if quick else four.ANCHORS)
    console = _console(WIDE)
    with tidy_on_signals():
        run = ModesRun(prefix, chosen, ways, anchors)
        results = run.run(min(handovers, QUICK_HANDOVERS) if quick else handovers, console)
    docs = ROOT / "docs" / "performance.md" if update_docs else None
    modes_report.write(results, output, docs)
    for table in modes_report.tables(results):
        console.print(table)
    for line in modes_report.LEGEND:
        console.print(line)


@app.command()
def handover(
    only: Annotated[str, typer.Option("--triggers", help=_names([*Trigger]))] = "",
    parts: Annotated[str, typer.Option(help=_names([*whole.PARTS]))] = "",
    moves: Annotated[int, typer.Option(min=1, max=10_000, help="By each trigger.")] = 200,
    sizes: Annotated[
        str, typer.Option(help="Numbers of nodes that move at once, with commas between them.")
    ] = ",".join(map(str, crowd_moves.SIZES)),
    quick: Annotated[
        bool, typer.Option("--quick", help="About a minute: does it work? Coarse figures.")
    ] = False,
    output: Annotated[
        Path, typer.Option(help="The directory for handover.json, handover.md and handover.png.")
    ] = ROOT / "bench" / "results",
    update_docs: Annotated[
        bool, typer.Option("--update-docs", help="Put tables and picture into docs/.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-ho",
) -> None:
    """A handover by what it is noticed by: its steps. Also TCP through the tunnel, crowds, relaying."""
    if os.geteuid() != 0:
        raise LabError("network namespaces need root")
    chosen, wanted = _split(only) or [*Trigger], _split(parts) or whole.PARTS
    try:
        triggers = [Trigger(each) for each in chosen]
        if unknown := set(wanted) - set(whole.PARTS):
            raise ValueError(f"{', '.join(sorted(unknown))}: none of {', '.join(whole.PARTS)}")
        numbers = _crowds(sizes)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console = _console(WIDE)
    files = handover_report.Files(output, ROOT / "docs" / "performance.md" if update_docs else None)
    with tidy_on_signals():
        run = HandoverRun(prefix, console, files)
        if "moves" in wanted:
            run.moves(triggers, min(moves, QUICK_MOVES) if quick else moves)
        if "goodput" in wanted:
            run.goodput(1.0 if quick else 2.0, 1 if quick else goodput.ROUNDS)
        if "crowd" in wanted:
            small = [number for number in numbers if number <= QUICK_CROWD]
            run.crowd(small if quick else numbers, QUICK_CROWDS if quick else crowd_moves.MOVES)
        if "relay" in wanted:
            run.relay(1.0 if quick else 3.0, 1 if quick else 3)
    files.finish(run.findings)
    for table in handover_report.tables(run.findings):
        console.print(table)
    for line in handover_report.notes(run.findings):
        console.print(line)


def _split(text: str) -> list[str]:
    return [part for part in text.replace(" ", "").split(",") if part]


def run(arguments: Sequence[str]) -> int:
    """Run a benchmark; the exit status. An error is one line on standard error."""
    return run_command(app, "bench", arguments)


def main() -> None:
    """Run it with the arguments of the command line."""
    sys.exit(run(sys.argv[1:]))
