"""A few packets through an S-MAAR, by all the ways that are compared, and what the figures are made of."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from bench import cli, forwarding
from bench.forwarding import FLOWS, Figures
from lab import netns
from lab.command import FAILED, MISTAKE
from tests.house.import_rules import ROOT

PREFIX = f"forward{os.getpid()}"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.needs("nft")
def test_every_packet_comes_out_at_the_other_end(tmp_path: Path) -> None:
    arguments = ["--sizes", "1,30", "--seconds", "0.05", "--rounds", "1", "--beside", str(ROOT)]
    arguments += ["--output", str(tmp_path), "--prefix", PREFIX]
    assert cli.run(["forward", *arguments]) in (0, FAILED)
    found = json.loads((tmp_path / "forward.json").read_text())
    assert [(each["version"], each["nodes"]) for each in found] == [
        ("this", 1),
        ("beside", 1),
        ("this", 30),
        ("beside", 30),
    ]
    for each in found:
        assert list(each["rates"]) == list(FLOWS)
        assert all(len(rates) == 1 and rates[0] > 0 for rates in each["rates"].values())
        assert each["lost"] == 0
        assert each["put"][0] > 0
        assert each["dropped"][0] > 0
    assert not [name for name in netns.names() if name.startswith(PREFIX)]


def figures(nodes: int, rate: float, lost: int = 0) -> Figures:
    return Figures("", nodes, [0.001], [0.002], {flow: [1.0, rate] for flow in FLOWS}, lost)


@pytest.mark.parametrize(
    ("many", "lost", "met"), [(499.0, 0, False), (500.0, 0, True), (900.0, 3, False)]
)
def test_the_bar_is_half_of_what_passes_with_few(many: float, lost: int, met: bool) -> None:
    output = io.StringIO()
    results = [figures(10, 1000.0), figures(10_000, many, lost)]
    assert forwarding.told(results, Console(file=output, width=200)) is met
    text = output.getvalue()
    assert f"packets/s with 10,000 nodes, of those with 10: {many / 1000:.2f} at least" in text
    assert ("3 packets were lost" in text) is bool(lost)


@pytest.mark.parametrize("sizes", ["0", "60001", "many"])
def test_a_mistake_is_one_line(
    sizes: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.run(["forward", "--sizes", sizes]) == MISTAKE
    said = capsys.readouterr().err
    assert said.startswith("bench: ")
    assert said.count("\n") == 1
