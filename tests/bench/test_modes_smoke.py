"""`./dev bench modes` in the mode with the longest ladder, on real daemons and kernels, for a few handovers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import cli
from bench.modes import expected_messages
from lab import netns
from tests.house.import_rules import ROOT

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("setpriv")]

PREFIX = f"benchm{os.getpid()}"
D = 0.01
COUNT = 2
ANCHORS = "1,5"
"""Moves between the two that are measured: with no rest before each, the CMD holds back what MAAR1 is owed."""


def test_a_quick_run_of_one_mode(tmp_path: Path) -> None:
    options = ["--quick", "--modes", "relay", "--delays", str(D * 1000), "--p-maars", ANCHORS]
    options += ["--handovers", str(COUNT), "--output", str(tmp_path), "--prefix", PREFIX]
    assert cli.run(["modes", *options]) == 0
    found = json.loads((tmp_path / "modes.json").read_text())
    assert [(point["anchors"], point["handovers"]) for point in found["points"]] == [
        (1, COUNT),
        (5, COUNT),
    ]
    assert found["held_back"] == {"relay": 0}
    for each in found["handovers"]:
        assert each["messages"] == expected_messages("relay", each["anchors"])
        at = each["seconds"]
        # The ladder of RFC 8885 section 3.2: nothing can be there before what it waits for.
        assert 2 * D <= at["updates"] < at["acknowledged"] < at["reply"] == at["known"]
        assert at["acknowledged"] >= 3 * D
        assert at["reply"] >= 4 * D
        assert at["known"] < min(at["client"], at["up"])
        assert at["open"] == max(at["up"], at["down"]) < 2
    held = found["delays"][0]
    # Each message of a handover that crosses to the CMD or comes from it (a MAAR may ask for the domain meanwhile).
    assert held["count"] >= COUNT * sum(2 + 2 * anchors for anchors in (1, 5))
    assert D <= held["median"] < 1.5 * D
    assert not [name for name in netns.names() if name.startswith(PREFIX)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_goes_without_a_trace_when_it_is_interrupted(
    number: signal.Signals, tmp_path: Path
) -> None:
    """While a node moves in two domains, side by side."""
    command = [sys.executable, "-m", "bench", "modes", "--modes", "direct,proxy", "--p-maars", "1"]
    command += ["--output", str(tmp_path), "--prefix", PREFIX]
    log = Path("/run", f"{PREFIX}-proxy-lab", "maar2", "maar.log")
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and " came from maar " in log.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number
    assert b"everything is removed" in said
    assert not [name for name in netns.names() if name.startswith(PREFIX)]
    assert not list(Path("/run").glob(f"{PREFIX}*"))
    assert list(tmp_path.iterdir()) == []
