"""The control socket answers each request, and survives those that make no sense."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from relay_maar.io.client import SOCKET_NAME, NotRunning, ask
from relay_maar.io.control import ControlServer


def serve_while(directory: Path, work: Any) -> Any:
    async def run() -> Any:
        server = ControlServer(directory, lambda command, more: {"echo": command, **more})
        await server.open()
        try:
            return await asyncio.to_thread(work)
        finally:
            server.close()

    return asyncio.run(run())


def test_a_command_is_answered(tmp_path: Path) -> None:
    assert serve_while(tmp_path, lambda: ask(tmp_path, "status")) == {"echo": "status"}


def test_what_a_command_is_about_goes_with_it(tmp_path: Path) -> None:
    about = {"interface": "access0", "link-layer": "02:00:00:00:00:0a"}
    answer = serve_while(tmp_path, lambda: ask(tmp_path, "attach", about))
    assert answer == {"echo": "attach", **about}


def test_only_owner_and_group_may_speak_to_it(tmp_path: Path) -> None:
    """Who may say that a node has come moves it."""
    path = tmp_path / SOCKET_NAME
    assert serve_while(tmp_path, lambda: stat.S_IMODE(path.stat().st_mode)) == 0o660


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no relay-maar runs in"):
        ask(tmp_path, "status")


def test_a_socket_file_left_by_a_killed_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / SOCKET_NAME))
    with pytest.raises(NotRunning):
        ask(tmp_path, "status")
    assert serve_while(tmp_path, lambda: ask(tmp_path, "status")) == {"echo": "status"}


@pytest.mark.parametrize("noise", [b"\n", b"{}\n", b"[]\n", b"\xff\xfe\n", b'{"command"\n'])
def test_noise_gets_an_error_and_the_next_is_served(tmp_path: Path, noise: bytes) -> None:
    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / SOCKET_NAME))
            sock.sendall(noise)
            answer = json.loads(sock.makefile().readline())
        return answer, ask(tmp_path, "status")

    error, answer = serve_while(tmp_path, work)
    assert set(error) == {"error"}
    assert answer == {"echo": "status"}


def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    def work() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / SOCKET_NAME))
            try:
                sock.sendall(b"x" * 1_000_000)
                assert sock.recv(100) == b""
            except (BrokenPipeError, ConnectionResetError):
                pass  # cut off while we were still talking
        return ask(tmp_path, "status")

    assert serve_while(tmp_path, work) == {"echo": "status"}
