"""The control socket answers each request, and survives those that make no sense."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay_maar.io.client import SOCKET_NAME, NotRunning, ask
from relay_maar.io.control import ControlServer, Handler


def echo(command: str, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"echo": command, **more}


def serve_while(directory: Path, work: Any, handler: Handler = echo) -> Any:
    async def run() -> Any:
        server = ControlServer(directory, handler)
        server.open()
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


def test_a_line_in_pieces_is_waited_for_and_nobody_waits_for_it(tmp_path: Path) -> None:
    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / SOCKET_NAME))
            sock.sendall(b'{"command": ')
            meanwhile = ask(tmp_path, "status")
            sock.sendall(b'"attach"}\n')
            return json.loads(sock.makefile().readline()), meanwhile

    assert serve_while(tmp_path, work) == ({"echo": "attach"}, {"echo": "status"})


def test_who_reads_slowly_gets_a_long_answer_whole(tmp_path: Path) -> None:
    sessions = ["x" * 1000] * 2000

    def work() -> tuple[dict[str, Any], dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / SOCKET_NAME))
            sock.sendall(b'{"command": "status"}\n')
            meanwhile = ask(tmp_path, "status")
            return json.loads(sock.makefile().readline()), meanwhile

    whole = {"sessions": sessions}
    assert serve_while(tmp_path, work, lambda *_: whole) == (whole, whole)


def test_a_fault_costs_its_own_connection(tmp_path: Path) -> None:
    def handler(command: str, more: Mapping[str, Any]) -> dict[str, Any]:
        if command == "fault":
            raise RuntimeError("a fault of ours")
        return echo(command, more)

    def work() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / SOCKET_NAME))
            sock.sendall(b'{"command": "fault"}\n')
            assert sock.recv(100) == b""
        return ask(tmp_path, "status")

    assert serve_while(tmp_path, work, handler) == {"echo": "status"}
