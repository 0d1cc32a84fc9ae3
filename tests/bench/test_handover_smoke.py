"""`./dev bench handover` for a few moves by two triggers, on real daemons and kernels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import cli
from bench.air import GAP
from bench.attach_clock import Step
from lab import netns

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("setpriv")]

PREFIX = f"benchh{os.getpid()}"
MOVES = 2


def test_a_quick_run_of_two_triggers(tmp_path: Path) -> None:
    options = ["--quick", "--triggers", "mld,data", "--parts", "moves", "--moves", str(MOVES)]
    options += ["--output", str(tmp_path), "--prefix", PREFIX]
    assert cli.run(["handover", *options]) == 0
    found = json.loads((tmp_path / "handover.json").read_text())
    assert [each["trigger"] for each in found["moves"]] == ["data", "mld", "mld", "data"]
    for each in found["moves"]:
        at = each["seconds"]
        assert set(at) == set(Step)
        order = (Step.FRAME, Step.QUERY, Step.ANSWER, Step.UPDATE, Step.ANCHOR, Step.DOWN)
        times = [at[step] for step in order]
        assert times == sorted(times)
        assert at["answer"] < at["serving"] <= at["open"] < GAP, "the next carrier loss is not it"
        if each["trigger"] == "mld":
            assert at["frame"] > 0.005, "the kernel waits before it reports its groups"
            assert at["down"] < at["up"], "it answers what it gets"
    assert (tmp_path / "handover.png").exists()
    assert not [name for name in netns.names() if name.startswith(PREFIX)]
