"""An access point's hooks: as a command that loads next to nothing, and as a line to the control socket."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from relay_maar.__main__ import quick
from relay_maar.io.client import SOCKET_NAME, runtime_directory
from relay_maar.io.control import ControlServer

ROOT = Path(__file__).resolve().parents[3]
MAC = "02:00:5e:00:53:aa"
ATTACH = {"command": "attach", "interface": "access0", "link-layer": MAC}
HEAVY = ("asyncio", "typer", "rich", "pydantic", "pyroute2", "relay_maar.config", "relay_maar.core")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "maar.toml"
    text = (ROOT / "configs" / "maar.toml").read_text()
    path.write_text(f'runtime-directory = "{tmp_path}"\n{text}')
    return path


def served(
    directory: Path, work: Callable[[], Any], answer: Mapping[str, Any]
) -> tuple[Any, list[dict[str, Any]]]:
    """What `work` returns while somebody answers at the control socket, and what was asked there."""
    asked: list[dict[str, Any]] = []

    def handler(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        asked.append({"command": command, **arguments})
        return dict(answer)

    async def run() -> Any:
        server = ControlServer(directory, handler)
        server.open()
        try:
            return await asyncio.to_thread(work)
        finally:
            server.close()

    return asyncio.run(run()), asked


def program(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "relay_maar", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# --- the command ---


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_a_hook_loads_neither_the_daemon_nor_the_command_line(config: Path, command: str) -> None:
    words = (command, str(config), "access0", MAC)
    done, asked = served(config.parent, lambda: program(*words), {"pid": 1})
    assert done.returncode == 0
    assert asked == [{**ATTACH, "command": command}]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "relay_maar.io.client" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("words", [("status", "CONFIG", "--json"), ("status", "--json", "CONFIG")])
def test_so_does_the_status_for_programs(config: Path, words: tuple[str, ...]) -> None:
    words = tuple(str(config) if word == "CONFIG" else word for word in words)
    done, _ = served(config.parent, lambda: program(*words), {"name": "maar1", "sessions": []})
    assert (done.returncode, json.loads(done.stdout)) == (0, {"name": "maar1", "sessions": []})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded.isdisjoint(HEAVY)


def test_what_the_daemon_finds_wrong_is_said(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attach", str(config), "elsewhere", MAC]
    answer = {"error": "'elsewhere' is no access interface of this MAAR"}
    status, _ = served(config.parent, lambda: quick(words), answer)
    assert status == 2
    said = capsys.readouterr().err
    assert said == "relay-maar: 'elsewhere' is no access interface of this MAAR\n"


def test_nobody_listens(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quick(["attach", str(config), "access0", MAC]) == 1
    assert capsys.readouterr().err == f"relay-maar: no relay-maar runs in {config.parent}\n"


def test_a_daemon_that_says_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It answers no line that is too long."""
    words = ["attach", str(config), "access0", 5000 * "0"]
    status, asked = served(config.parent, lambda: quick(words), {})
    assert (status, asked) == (1, [])
    said = capsys.readouterr().err
    assert said.startswith("relay-maar: the daemon does not answer: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("answer", [b"", b"\n", b'{"pid": ', b"[1]\n"])
def test_an_answer_that_makes_no_sense(config: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(config.parent / SOCKET_NAME))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert quick(["detach", str(config), "access0", MAC]) == 1
        thread.join()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["attach"],
        ["attach", "--help"],
        ["attach", "CONFIG", "access0"],
        ["attach", "CONFIG", "access0", "--help"],
        ["attach", "CONFIG", "access0", MAC, "more"],
        ["status", "CONFIG"],
        ["status", "--json", "--help"],
        ["stop", "CONFIG"],
        ["attach", "/nowhere/maar.toml", "access0", MAC],
    ],
)
def test_all_else_is_the_command_lines(config: Path, words: list[str]) -> None:
    assert quick([str(config) if word == "CONFIG" else word for word in words]) is None


@pytest.mark.parametrize("text", ["runtime-directory = [", "runtime-directory = 7", "\xff"])
def test_a_configuration_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "maar.toml"
    path.write_bytes(text.encode("latin-1"))
    assert runtime_directory(path) is None


def test_where_the_configuration_says_nothing_of_it() -> None:
    assert runtime_directory(ROOT / "configs" / "maar.toml") == "/run/relay-maar"


# --- what docs/attach.md has for hostapd ---


def scripts() -> list[str]:
    """The scripts there, as they stand."""
    page = (ROOT / "docs" / "attach.md").read_text()
    found = re.findall(r"^```sh\n(#!/bin/sh\n.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    return found


def hook(
    config: Path, text: str, event: str
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """hostapd_cli calls the script."""
    text = text.replace("exec relay-maar", f"exec {sys.executable} -m relay_maar")
    text = text.replace("/etc/relay-maar/maar.toml", str(config))
    text = text.replace("/run/relay-maar", str(config.parent))
    path = config.parent / "maar-station"
    path.write_text(text)
    path.chmod(0o755)

    def call() -> subprocess.CompletedProcess[str]:
        words = [str(path), "wlan0", event, MAC]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)

    done: subprocess.CompletedProcess[str]
    done, asked = served(config.parent, call, {"pid": 42})
    return done, asked


@pytest.mark.needs("socat")
@pytest.mark.parametrize("text", scripts(), ids=["command", "socket"])
def test_the_scripts(config: Path, text: str) -> None:
    for event, command in (("AP-STA-CONNECTED", "attach"), ("AP-STA-DISCONNECTED", "detach")):
        done, asked = hook(config, text, event)
        assert (done.returncode, done.stderr) == (0, "")
        assert asked == [{**ATTACH, "command": command}]
    done, asked = hook(config, text, "AP-STA-POLL-OK")
    assert (done.returncode, asked) == (0, [])


@pytest.mark.needs("nc")
def test_by_netcat(config: Path) -> None:
    (other,) = re.findall(r"`(nc [^`]*)`", (ROOT / "docs" / "attach.md").read_text())
    text = re.sub(r"socat .*", other, scripts()[1])
    done, asked = hook(config, text, "AP-STA-CONNECTED")
    assert (done.returncode, json.loads(done.stdout), asked) == (0, {"pid": 42}, [ATTACH])
