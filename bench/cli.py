"""`./dev bench`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import report
from bench.kea import KeaMemfile
from bench.measure import Bench
from bench.network import Network
from bench.ours import DhcpdOnSqlite, ServeOnSqlite
from bench.report import Results
from bench.servers import Unavailable
from bench.workloads import WORKLOADS
from lab.netns import LabError
from lab.signals import Terminated, tidy_on_signals

INTERRUPTED = 130
ROOT = Path(__file__).resolve().parents[1]
SERVERS = (ServeOnSqlite, KeaMemfile, DhcpdOnSqlite)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def benchmarks() -> None:
    """The benchmarks."""


@app.command()
def cmd(
    servers: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(
        each.name for each in SERVERS
    ),
    workloads: Annotated[str, typer.Option(help="Names, with commas.")] = ",".join(
        each.name for each in WORKLOADS
    ),
    sizes: Annotated[str, typer.Option(help="Nodes bound before, with commas.")] = "10000",
    seconds: Annotated[int, typer.Option(min=1, help="Length of a trial.")] = 4,
    precision: Annotated[float, typer.Option(min=0.005, max=0.5)] = 0.04,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = ROOT / "bench/results",
    directory: Annotated[Path, typer.Option(help="Where the databases are.")] = Path("/var/tmp"),
    prefix: Annotated[str, typer.Option(help="Of the namespaces' names.")] = "dmm-bench",
) -> None:
    """The CMD beside Kea: capacity, latency, memory, CPU."""
    if os.geteuid() != 0:
        raise SystemExit("bench: network namespaces need root")
    console = Console(highlight=False)
    chosen = [each for each in SERVERS if each.name in servers.split(",")]
    traffic = [each for each in WORKLOADS if each.name in workloads.split(",")]
    titles = {each.name: each.title for each in (*SERVERS, *WORKLOADS)}
    results = Results(titles, {each.name: each.rival for each in SERVERS})
    with (
        tidy_on_signals(),
        Network(prefix, directory) as network,
        console.status("begin") as status,
    ):
        bench = Bench(network, seconds, precision, lambda text: status.update(f"{doing}: {text}"))
        for size in map(int, sizes.split(",")):
            for make in chosen:
                server = make(network)
                doing = f"{server.title}, {size:,} bound"
                try:
                    status.update(f"{doing}: prepare")
                    server.prepare(size)
                except Unavailable as why:
                    console.print(f"{server.title}: not there: {why}")
                    continue
                for workload in traffic:
                    doing = f"{server.title}, {workload.title}, {size:,} bound"
                    measured = bench.measure(server, workload, size)
                    results.add(measured)
                    console.print(f"{doing}: {measured.capacity:,.0f}/s {measured.problem}")
    console.print(report.table(results))
    output.mkdir(parents=True, exist_ok=True)
    (output / "cmd.json").write_text(json.dumps(report.as_json(results, {}), indent=2) + "\n")
    (output / "cmd.md").write_text(report.markdown(results))


def main() -> None:
    """Run a benchmark. Exit status: 0, 1 when it failed, 130 after Ctrl-C."""
    try:
        app(standalone_mode=False)
    except LabError as error:
        raise SystemExit(f"bench: {error}") from error
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Terminated as end:
        sys.exit(128 + end.number)
