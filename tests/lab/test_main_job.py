"""The main job end to end: the demo's scenario and assertions, and the same while daemons are killed.

"What it must withstand": kill -9 of the CMD or a MAAR at any moment of the moves, restarted: the node ends in the right
place with the right routes, its flows whole, its history exact, the kernels clean after a stop.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import expect, messages, netns, trail
from lab.checks import Checks
from lab.daemons import Daemon
from lab.flows import ROOT
from lab.lab import Lab
from lab.messages import Message
from lab.names import Names
from lab.report import WIDTH
from lab.scenario import MainJob, Step
from lab.topology import CARRIER_GAP, MAAR_PLANS

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("dhcpcd", "nft", "sqlite3", "setpriv"),
    pytest.mark.timeout(180),
]

PREFIX = f"labe{os.getpid()}"
ONE, TWO, THREE = MAAR_PLANS


def commands() -> list[str]:
    """What runs on this machine, a command line each."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return sorted(lines)


def host_state() -> str:
    """What of the machine itself a run could touch: links, namespaces, processes of ours, dhcpcd's files, resolvers."""
    files = [
        str(path)
        for place in ("/run", "/var/lib/dhcpcd", "/var/lib/relay-maar", "/var/lib/dhcp-cmd")
        if Path(place).is_dir()
        for path in Path(place).iterdir()
        if path.name.startswith((PREFIX, "dhcpcd", "eth0", "mount"))
    ]
    links = [line for line in netns.ip("-o", "link").splitlines() if PREFIX in line]
    resolver = Path("/etc/resolv.conf")
    ours = [line for line in commands() if PREFIX in line]
    spaces = [name for name in netns.names() if name.startswith(PREFIX)]
    text = resolver.read_text() if resolver.exists() else ""
    return "\n".join([*links, *spaces, *sorted(files), *ours, text])


@pytest.fixture
def lab() -> Iterator[Lab]:
    before = host_state()
    with Lab(PREFIX) as lab:
        yield lab
    assert host_state() == before


def conclude(lab: Lab, job: MainJob, checks: Checks) -> None:
    """End the flows, look into the database, stop the MAARs; then everything must have held."""
    job.finish()
    trail.history(job, lab.daemons.cmd)
    for maar in lab.daemons.maars.values():
        checks.equal(f"{maar.name} stops", maar.stop(), 0)
    expect.kernels_are_clean(job)
    assert not checks.failed, "\n".join(
        [f"{check.what}: {check.found}" for check in checks.failed] + [lab.daemons.tails()]
    )


def test_the_demo(tmp_path: Path) -> None:
    """All of it, as a person runs it, into a file: every assertion holds, and it can be read."""
    before = host_state()
    demo = [sys.executable, "-m", "lab.demo", "--prefix", PREFIX]
    measured, packets = tmp_path / "demo.json", tmp_path / "demo.pcapng"
    done = subprocess.run(
        [*demo, "--json", str(measured), "--pcap", str(packets)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert host_state() == before
    lines = done.stdout.splitlines()
    assert not [line for line in lines if len(line) > WIDTH]
    assert not [char for line in lines for char in line if not char.isprintable()]
    assert [line for line in lines if "PBA: status 0" in line and "◀" in line]
    assert [line for line in lines if line.startswith("flow 1 down") and "tunnel T1→T2" in line]
    found = json.loads(measured.read_text())
    assert len(found["assertions"]) > 60
    assert all(assertion["held"] for assertion in found["assertions"])
    assert [(move["from"], move["to"]) for move in found["moves"]] == [
        ("maar1", "maar2"),
        ("maar2", "maar3"),
        ("maar3", "maar1"),
    ]
    assert all(move["interruption_ms"] >= 1000 * CARRIER_GAP - 20 for move in found["moves"])
    assert packets.stat().st_size > 1_000_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_interrupted(number: signal.Signals) -> None:
    """In the middle of a move, with everything running: gone at once, and the exit status says so."""
    before = host_state()
    with subprocess.Popen(
        [sys.executable, "-m", "lab.demo", "--prefix", PREFIX],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "carrier lost" in line:
                break
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(15) == 128 + number
    assert "everything is removed" in rest
    assert host_state() == before


Moment = Callable[[Message], bool]

MOMENTS: dict[str, Moment | None] = {
    "before-the-client-asks": None,
    "rebind-seen": lambda message: message.name == "Rebind",
    "relay-forward-seen": lambda message: message.name == "Relay-forward",
    "relay-reply-seen": lambda message: message.name == "Relay-reply",
    "pbu-seen": lambda message: message.name == "PBU",
    "pba-seen": lambda message: message.name == "PBA",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_and_restarted_in_a_move(lab: Lab, moment: str) -> None:
    """In each of three moves another one dies: the CMD, the MAAR the node comes to, the MAAR it leaves."""
    checks = Checks()
    maars = lab.daemons.maars
    with MainJob(lab, checks, counts_messages=False) as job:
        job.attach(ONE, "attach")
        job.move(TWO, "the CMD dies", killing(lab, lab.daemons.cmd, MOMENTS[moment]))
        job.move(THREE, "the MAAR that serves dies", killing(lab, maars[THREE], MOMENTS[moment]))
        job.move(ONE, "the MAAR just left dies", killing(lab, maars[THREE], MOMENTS[moment]))
        assert job.client_still_runs
        conclude(lab, job, checks)


def killing(lab: Lab, victim: Daemon, moment: Moment | None) -> Callable[[Step], None]:
    """Kill the victim as soon as the moment has come, and start it again."""

    def wait_kill_start(step: Step) -> None:
        def has_come() -> bool:
            found = messages.read(lab.capture.packets(step.plugged), Names())
            return moment is None or any(map(moment, found))

        netns.wait_for(has_come, timeout=20, what="the moment to kill", interval=0.0005)
        victim.kill()
        victim.start()

    return wait_kill_start


def test_all_restarted_while_nothing_moves(lab: Lab) -> None:
    """A restart after kill -9 goes on: flows, sessions, routes; and the next move works."""
    checks = Checks()
    with MainJob(lab, checks, counts_messages=False) as job:
        job.attach(ONE, "attach")
        job.move(TWO, "move")
        for daemon in lab.daemons:
            daemon.kill()
            daemon.start()
        lab.daemons.wait_until_ready()
        restarted = time.time_ns()
        netns.wait_for(lambda: job.pings.answered(restarted, 50), timeout=10, what="pings")
        pause = job.pings.interruption(restarted - 1_000_000_000, time.time_ns())
        assert pause.milliseconds < 500, "traffic must go on through the kernel"
        job.move(THREE, "move")
        conclude(lab, job, checks)
