from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import cli
from lab import netns
from lab.command import FAILED, MISTAKE
from tests.house.import_rules import ROOT

PREFIX = f"benchc{os.getpid()}"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--servers", "isc"], "'isc' is none of kea-memfile"),
        (["--sizes", "many"], "invalid literal"),
        (["--seconds", "0"], "'--seconds'"),
    ],
)
def test_a_mistake_is_one_line(
    options: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert cli.run(["cmd", *options]) == MISTAKE
    one_line(capsys, text)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--modes", "anchor"], "'anchor' is none of direct, proxy, locator, relay"),
        (["--delays", "5,far"], "could not convert string to float: 'far'"),
        (["--delays", "0,101"], "delays: 0 to 100 ms"),
        (["--p-maars", "0"], "P-MAARs: 1 to 8"),
        (["--p-maars", "9"], "P-MAARs: 1 to 8"),
        (["--handovers", "0"], "'--handovers'"),
    ],
)
def test_a_mistake_about_modes_is_one_line(
    options: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.run(["modes", *options]) == MISTAKE
    one_line(capsys, text)


def one_line(capsys: pytest.CaptureFixture[str], text: str) -> None:
    said = capsys.readouterr().err
    assert text in said
    assert said.startswith("bench: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("benchmark", ["cmd", "modes"])
def test_without_root_it_says_so(
    benchmark: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.run([benchmark]) == FAILED
    assert capsys.readouterr().err == "bench: network namespaces need root\n"


@pytest.mark.root
@pytest.mark.needs("perfdhcp")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_goes_without_a_trace_when_it_is_interrupted(
    number: signal.Signals, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    command = [sys.executable, "-m", "bench", "cmd", "--servers", "serve-sqlite", "--sizes", "1000"]
    command += ["--directory", str(tmp_path), "--output", str(tmp_path / "out"), "--prefix", PREFIX]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(f"{PREFIX}-*/serve-sqlite/server.log")):
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
    assert list(tmp_path.iterdir()) == []
