"""`./dev demo`: one mobile node, three moves, its flows go on, and SQL knows it all.

Exit status: 0 when every assertion held, 1 when one did not or the lab could not be built, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from lab import expect, trail
from lab.checks import Checks
from lab.daemons import DIRECT, DLIF, FIXED
from lab.host import MobileNode
from lab.lab import Lab
from lab.netns import LabError
from lab.report import WIDTH, Report
from lab.scenario import MOVES, MainJob
from lab.signals import Terminated, tidy_on_signals
from lab.topology import CN1, MAAR_PLANS

INTERRUPTED = 130
STOCK = "ipv6-dhcpd"
SERVE = "serve"
PMIP = "pmip"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _options(arguments)
    console = _console()
    if problem := _obstacle(options):
        console.print(Text(f"demo: {problem}", style="bold red"))
        return 1
    with tidy_on_signals():
        try:
            return _run(console, options)
        except LabError as error:
            console.print(Text(f"demo: {error}", style="bold red"), soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            console.print("demo: interrupted; everything is removed")
            return INTERRUPTED
        except Terminated as end:
            console.print(f"demo: {end}; everything is removed")
            return 128 + end.number


def _run(console: Console, options: argparse.Namespace) -> int:
    started = time.monotonic()
    report = Report(console)
    checks = Checks(tell=report.check)
    with Lab(
        options.prefix,
        pcap=options.pcap,
        driver=options.driver,
        mode=options.mode,
        stock=options.server == STOCK,
        registers=MAAR_PLANS if options.signalling == PMIP else (),
        router=options.router_identity,
    ) as lab:
        try:
            report.introduction(lab)
            with MainJob(lab, checks, report) as job:
                report.job = job
                job.run(options.moves)
                console.print()
                console.rule("[bold]The end of the flows", align="left", style="blue")
                counts = job.finish()
                report.database(lab.daemons.cmd, lab.node)
                trail.history(job, lab.daemons.cmd)
                if options.keep:
                    _hold(console, lab)
                for maar in lab.daemons.maars.values():
                    checks.equal(f"{maar.name}: stops with exit status 0", maar.stop(), 0)
                expect.kernels_are_clean(job)
        except LabError:
            console.print(Text(lab.daemons.tails()), soft_wrap=True)
            raise
        if checks.failed:
            console.print(Text(lab.daemons.tails()), soft_wrap=True)
    seconds = time.monotonic() - started
    report.summary(checks.made, job.steps, seconds)
    if options.json is not None:
        names = ("mode", "server", "signalling", "router_identity")
        measured = {name: getattr(options, name) for name in names}
        measured |= _measured(job, checks, seconds)
        measured["flows"] = {name: asdict(count) for name, count in counts.items()}
        options.json.write_text(json.dumps(measured, indent=2) + "\n")
    return 1 if checks.failed else 0


def _hold(console: Console, lab: Lab) -> None:
    """--keep: wait for Ctrl-C, with everything running."""
    topology = lab.topology
    console.print()
    console.rule("[bold]Look around; Ctrl-C ends it and removes everything", align="left")
    console.print(
        f"  ip netns exec {topology.namespace('m1')} ip -6 route\n"
        f"  ip netns exec {topology.namespace('mn')} ping {CN1.address}\n"
        f"  {sys.executable} -m relay_maar status {topology.directory}/maar1/maar.toml\n"
        f"  sqlite3 -box {lab.daemons.cmd.database} 'SELECT * FROM events'\n"
        f"  logs: {topology.directory}/*/*.log",
        soft_wrap=True,
        highlight=False,
    )
    signal.pause()


def _measured(job: MainJob, checks: Checks, seconds: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 3),
        "moves": [
            {
                "from": step.left.name,
                "to": step.plan.name,
                "interruption_ms": round(step.interruption.milliseconds, 3),
                "pings_lost": step.interruption.lost,
                "shares_ms": asdict(step.shares) if step.shares else None,
                "messages": [
                    {"ms": round((m.at - step.began) / 1e6, 3), "from": m.sender, "to": m.receiver}
                    | {"message": m.title}
                    for m in step.messages
                ],
            }
            for step in job.steps
            if step.left is not None and step.interruption is not None
        ],
        "assertions": [
            {"what": check.what, "held": check.held, "found": check.found} for check in checks.made
        ],
    }


def _console() -> Console:
    """100 columns, also where there is no terminal; Rich leaves out control codes there by itself."""
    width = shutil.get_terminal_size((WIDTH, 40)).columns if sys.stdout.isatty() else WIDTH
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace", line_buffering=True)
    return Console(width=max(WIDTH, min(width, 120)), highlight=False, emoji=False)


def _obstacle(options: argparse.Namespace) -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "sqlite3") if shutil.which(name) is None]
    if options.signalling != PMIP:
        missing += MobileNode.missing()
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: iproute2 sqlite3 dhcpcd-base)"
    return None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.mode is None:
        options.mode = "proxy" if options.signalling == PMIP else DIRECT
    if options.mode == DIRECT and options.signalling == PMIP:
        parser.error(f"mode {DIRECT}: the CMD takes no PBUs, so {PMIP} needs another mode")
    if options.server is None:
        options.server = SERVE if options.mode == "relay" else STOCK
    elif options.server == STOCK and options.mode == "relay":
        parser.error(f"mode relay: {STOCK} cannot hold an answer back, only {SERVE} can")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev demo",
        description="One mobile node, three moves, its flows go on: shown in network namespaces, "
        "asserted on the wire, in the kernels and in the database.",
    )
    parser.add_argument(
        "--mode",
        choices=("direct", "proxy", "locator", "relay"),
        help="who tells the previous MAARs (RFC 8885 sections 3.2 to 3.4; default: direct, with "
        f"--signalling {PMIP}: proxy)",
    )
    parser.add_argument(
        "--signalling",
        choices=("dhcp", PMIP),
        default="dhcp",
        help=f"the MAARs relay DHCPv6 (default), or register nodes by PBU and have no DHCPv6 ({PMIP})",
    )
    parser.add_argument(
        "--server",
        choices=(STOCK, SERVE),
        help=f"the CMD's program: {STOCK}, with `dhcp-cmd signal` beside it where the CMD sends PBUs, or `dhcp-cmd "
        f"{SERVE}` (default: {STOCK}; with --mode relay: {SERVE})",
    )
    parser.add_argument(
        "--router-identity",
        choices=(FIXED, DLIF),
        default=FIXED,
        help=f"all MAARs are one and the same router to the node (RFC 6543, default), or each is one of its own, which "
        f"follows the node (RFC 8885 section 3.7, {DLIF})",
    )
    parser.add_argument(
        "--prefix", default="dmm", help="of the namespaces' names (default: %(default)s)"
    )
    parser.add_argument("--pcap", type=Path, metavar="FILE", help="keep all packets (pcapng)")
    parser.add_argument(
        "--moves",
        type=int,
        choices=range(1, MOVES + 1),
        default=MOVES,
        help="how many of the three moves (default: all)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write measurements")
    parser.add_argument("--keep", action="store_true", help="at the end wait for Ctrl-C")
    parser.add_argument("--driver", default="auto", help="the MAARs' tunnel driver")
    return parser


if __name__ == "__main__":
    sys.exit(main())
