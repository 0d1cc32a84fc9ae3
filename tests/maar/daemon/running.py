"""The daemon under test, as an operator has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab import netns
from relay_maar.io.client import NotRunning, ask
from tests.maar.daemon.actors import PATIENCE, Node

ROOT = Path(__file__).resolve().parents[3]

CONFIGURATION = """\
name = "maar1"
endpoint = "2001:db8:f1::1"
core-interface = "core0"
servers = ["2001:db8:c::547"]
pools = ["2001:db8:1:100::/56", "2001:db8:1:200::/56"]
driver = "seg6"
state-directory = "{directory}/state"
runtime-directory = "{directory}/run"

[[access]]
interface = "access0"
link-address = "2001:db8:1:100::1"

[[access]]
interface = "access1"
link-address = "2001:db8:1:101::1"
relays-below = true
"""
POOLS = ("2001:db8:1:100::/56", "2001:db8:1:200::/56")


class Running:
    """The daemon under test."""

    def __init__(self, namespace: str, directory: Path, configuration: str) -> None:
        self.namespace = namespace
        self.directory = directory
        directory.mkdir(parents=True)
        self.config = directory / "maar.toml"
        self.config.write_text(configuration.format(directory=directory))
        self.log = directory / "maar.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *before: str) -> None:
        """Start and wait until it serves. `before`: a program that runs the daemon in its turn."""
        self.launch(*before)
        self.wait_until_ready()

    def launch(self, *before: str) -> None:
        command = [*before, sys.executable, "-m", "relay_maar", "run", str(self.config)]
        with self.log.open("ab") as log:
            self.process = netns.start(
                self.namespace, command, stdout=log, stderr=log, directory=ROOT
            )

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                return "sessions" in self.status()
            except (NotRunning, OSError, ValueError):
                return False

        netns.wait_for(ready, timeout=PATIENCE, what="the daemon", interval=0.005)

    def status(self) -> dict[str, Any]:
        return ask(self.directory / "run", "status")

    def count(self, counter: str) -> int:
        return int(self.status()["counters"].get(counter, 0))

    def counts(self, counter: str, at_least: int = 1) -> None:
        """Wait until a counter has come that far."""
        netns.wait_for(
            lambda: self.count(counter) >= at_least,
            timeout=PATIENCE,
            what=f"{counter} to reach {at_least}: {self.status()['counters']}",
        )

    def counts_peers(self, number: int) -> None:
        """Wait until it knows so many other MAARs."""
        netns.wait_for(
            lambda: len(self.status()["domain"]["peers"]) == number,
            timeout=PATIENCE,
            what=f"{number} peers",
        )

    def session(self, node: Node) -> dict[str, Any] | None:
        """The session of a node as `status` tells it."""
        wanted = str(node.identity)
        found = [each for each in self.status()["sessions"] if each["identity"] == wanted]
        return found[0] if found else None

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`relay-maar COMMAND... CONFIG` in the MAAR's namespace."""
        return run(self.namespace, *arguments, str(self.config))

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process is not None:
            netns.kill(self.process)
        self.log.touch()
        assert "internal error" not in self.log.read_text(), self.log.read_text()


def run(
    namespace: str, *arguments: str, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """`relay-maar ARGUMENTS` in a namespace. `before`: a program that runs it in its turn."""
    daemon = [*before, sys.executable, "-m", "relay_maar", *arguments]
    command = ["ip", "netns", "exec", namespace, *daemon]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=30
    )


def resident(pid: int) -> int:
    """The resident memory of a process, octets."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor_time(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
