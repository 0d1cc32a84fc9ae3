"""`relay-maar`: run the relay agent of a MAAR, ask it how it is, stop it.

What only some commands need is imported by these: the daemon and the kernel's libraries take longer to load than most
commands take.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from relay_maar.io.client import SOCKET_NAME, NotRunning, ask, runtime_directory

if TYPE_CHECKING:
    from relay_maar.config import Config

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The relay agent of a mobility anchor and access router (MAAR, RFC 8885), fed by the "
    "Central Mobility Database.",
)

OPERATOR_FAULT = 2
FAILURE = 1

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The MAAR's TOML file.")]


def _fail(status: int, *lines: str) -> NoReturn:
    for line in lines:
        print(f"relay-maar: {line}", file=sys.stderr)
    raise typer.Exit(status)


def _load(path: Path) -> Config:
    from relay_maar.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        _fail(OPERATOR_FAULT, *error.lines)


@app.command()
def run(config: ConfigPath) -> None:
    """Serve until SIGTERM or SIGINT, which put the kernel back as it was found; SIGHUP restarts in place."""
    import asyncio
    import logging

    from relay_maar.config import ConfigError
    from relay_maar.daemon import Daemon
    from relay_maar.host import StartError
    from relay_maar.southbound.api import DriverUnavailable

    settings = _load(config)
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(message)s",
        stream=sys.stderr,
    )
    try:
        again = asyncio.run(Daemon(settings, config).run())
    except ConfigError as error:
        _fail(OPERATOR_FAULT, *error.lines)
    except (StartError, DriverUnavailable) as error:
        _fail(OPERATOR_FAULT, str(error))
    if again:
        os.execv(sys.executable, [sys.executable, "-m", "relay_maar", "run", str(config)])


@app.command()
def check(config: ConfigPath) -> None:
    """Validate the configuration and start nothing."""
    from relay_maar.config import ConfigError

    try:
        _load(config).authentication()
    except ConfigError as error:
        _fail(OPERATOR_FAULT, *error.lines)
    print(f"{config}: good")


@app.command()
def status(
    config: ConfigPath,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
) -> None:
    """Show links, sessions, routers, anchors, tunnels and counters of the running daemon."""
    answer = _ask(_runtime(config), "status")
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        _print_status(answer)


@app.command()
def stop(
    config: ConfigPath,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave routes and tunnels for the next start.")
    ] = False,
) -> None:
    """Stop the daemon and put the kernel back as it was found, also when the daemon is gone already (kill -9)."""
    runtime = _runtime(config)
    try:
        pid = int(ask(runtime, "stop-keep" if keep else "stop")["pid"])
    except NotRunning:
        if not keep:
            _remove_leftovers(_load(config))
        return
    except OSError as error:
        _fail(FAILURE, f"the daemon does not answer: {error}")
    _wait_for_end(pid)


def _remove_leftovers(settings: Config) -> None:
    from relay_maar.host import StartError, remove_leftovers
    from relay_maar.southbound.api import DriverUnavailable

    try:
        remove_leftovers(settings)
    except (StartError, DriverUnavailable) as error:
        _fail(OPERATOR_FAULT, str(error))


Interface = Annotated[str, typer.Argument(metavar="INTERFACE", help="The access interface.")]
LinkLayer = Annotated[str, typer.Argument(metavar="MAC", help="The node's link-layer address.")]


@app.command()
def attach(config: ConfigPath, interface: Interface, mac: LinkLayer) -> None:
    """Say that a node has come to an access interface, as an access point knows: it counts as its first frame."""
    _hook(config, "attach", interface, mac)


@app.command()
def detach(config: ConfigPath, interface: Interface, mac: LinkLayer) -> None:
    """Say that a node has left an access interface: it is probed; its prefixes stay for their lifetimes."""
    _hook(config, "detach", interface, mac)


def _hook(config: Path, command: str, interface: str, mac: str) -> None:
    answer = _ask(_runtime(config), command, {"interface": interface, "link-layer": mac})
    if "error" in answer:
        _fail(OPERATOR_FAULT, str(answer["error"]))


@app.command()
def restart(config: ConfigPath) -> None:
    """Restart the daemon in place with its configuration read anew; traffic goes on through the kernel meanwhile."""
    runtime = _runtime(config)
    before = _listening_since(runtime)
    answer = _ask(runtime, "restart")
    if "error" in answer:
        _fail(OPERATOR_FAULT, str(answer["error"]))
    _wait_for_successor(int(answer["pid"]), runtime, before)


def _runtime(config: Path) -> Path:
    """Where the daemon listens. Of a configuration that it cannot be read from all faults are told."""
    return Path(runtime_directory(config) or _load(config).runtime_directory)


def _ask(runtime: Path, command: str, arguments: Mapping[str, str] | None = None) -> dict[str, Any]:
    try:
        return ask(runtime, command, arguments)
    except NotRunning as error:
        _fail(FAILURE, str(error))
    except OSError as error:
        _fail(FAILURE, f"the daemon does not answer: {error}")


def _wait_for_end(pid: int, patience: float = 15.0) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([process], [], [], patience)[0]:
            _fail(FAILURE, f"process {pid} still runs after {patience:g} s")
    finally:
        os.close(process)


def _wait_for_successor(
    pid: int, runtime: Path, before: int | None, patience: float = 15.0
) -> None:
    """The process stays the same; its new life begins with a new control socket."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        _fail(FAILURE, "the daemon ended instead of starting anew; its log says why")
    try:
        deadline = time.monotonic() + patience
        while _listening_since(runtime) in (None, before):
            if select.select([process], [], [], 0.05)[0]:
                _fail(FAILURE, "the daemon ended instead of starting anew; its log says why")
            if time.monotonic() > deadline:
                _fail(FAILURE, f"the daemon is not back after {patience:g} s")
    finally:
        os.close(process)


def _listening_since(runtime: Path) -> int | None:
    try:
        return (runtime / SOCKET_NAME).stat().st_ctime_ns
    except FileNotFoundError:
        return None


def _print_status(status: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # In a pipe nothing is cut: a DUID is of no use without its end. And :cd: in a link-layer address is no picture.
    width = None if sys.stdout.isatty() else 1000
    console = Console(width=width, emoji=False, markup=False)
    domain = status["domain"]
    console.print(
        Text(status["name"], "bold"),
        f"endpoint {status['endpoint']}, driver {status['driver']}, "
        f"{len(domain['peers'])} peers{'' if domain['known'] else ' (the CMD has not answered yet)'}, "
        f"{len(status['sessions'])} sessions, {len(status['tunnels'])} tunnels",
        sep=": ",
        soft_wrap=True,
    )
    console.print(", ".join(f"{name} {state}" for name, state in status["links"].items()))
    if status["sessions"]:
        table = Table(
            "mobile node", "where", "prefix", "role", "anchored at", "lifetime, s", box=None
        )
        for session in status["sessions"]:
            where = session["attachment"]["interface"] if session["here"] else session["serving"]
            if session["here"] and not session["present"]:
                where += " (silent)"
            for entry in session["prefixes"] or [None]:
                table.add_row(session["identity"], where, *_cells(entry))
        console.print(table)
    routers = Table("router", "link-layer address", "on", "anchor", "nodes", box=None)
    for router in status["routers"]:
        names = ("link_local", "link_layer", "interface", "anchor", "nodes")
        routers.add_row(*(str(router[name]) for name in names))
    console.print(routers)
    for peer in status["tunnels"]:
        console.print(f"tunnel to {peer}")
    if status["counters"]:
        counters = Table("counter", "count", box=None)
        for reason, count in status["counters"].items():
            counters.add_row(reason, str(count))
        console.print(counters)


def _cells(prefix: dict[str, Any] | None) -> tuple[str, ...]:
    """What is said of a prefix, or of there being none any more."""
    if prefix is None:
        return ("-",) * 4
    lifetime = prefix["lifetime"]
    left = "for ever" if lifetime is None else f"{lifetime:.0f}"
    return prefix["prefix"], prefix["role"], prefix["anchor"], left


def main() -> None:
    """Run the command line."""
    app()
