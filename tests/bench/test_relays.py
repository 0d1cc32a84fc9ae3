"""A few packets through both relay agents, with what the figures are made of."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from bench import cli, relays
from bench.relays import Figures
from lab import netns
from lab.command import FAILED

PREFIX = f"relay{os.getpid()}"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.needs("dhcrelay")
def test_both_pass_packets_on(tmp_path: Path) -> None:
    arguments = ["--seconds", "0.3", "--rounds", "1", "--output", str(tmp_path)]
    assert cli.run(["relay", *arguments, "--prefix", PREFIX]) in (0, FAILED)
    found = json.loads((tmp_path / "relay.json").read_text())
    assert [each["relay"] for each in found] == ["relay-maar", "dhcrelay"]
    for each in found:
        assert each["packets"] > 2 * relays.WINDOW
        assert each["cpu"] > 0
        assert each["lost"] <= relays.WINDOW
    assert not [name for name in netns.names() if name.startswith(PREFIX)]


@pytest.mark.parametrize(("packets", "met"), [(499, False), (500, True)])
def test_the_bar_is_half_of_what_dhcrelay_passes_on(packets: int, met: bool) -> None:
    output = io.StringIO()
    figures = [Figures("relay-maar", packets, 1.0, 0.5, 0), Figures("dhcrelay", 1000, 1.0, 0.5, 0)]
    assert relays.told(figures, Console(file=output, width=200)) is met
    assert "0.50 x dhcrelay's packets/s, 0.50 x per CPU second" in output.getvalue()


def test_without_root_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("relay", "crowd"):
        assert cli.run([command]) == FAILED
        assert capsys.readouterr().err == "bench: network namespaces need root\n"
