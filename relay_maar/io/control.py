"""The control socket: how `relay-maar status`, `stop`, `attach` ... speak to the running daemon.

One JSON object a line, over a Unix stream socket in the runtime directory; its file mode says who may.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relay_maar.io.client import SOCKET_NAME

_LONGEST_REQUEST = 4096
_BACKLOG = 100

Handler = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers requests `{"command": NAME, ...}` with what `handler(NAME, {...})` returns.

    An access point's word of a node is as urgent as the node's own frame. It is there when its connection is, mostly:
    so it is read and answered at once, and only who is slow is waited for (asyncio's streams take four rounds of the
    event loop until they have read a line).
    """

    def __init__(self, directory: Path, handler: Handler) -> None:
        self._path = directory / SOCKET_NAME
        self._handler = handler
        self._socket: socket.socket | None = None
        self._readers: set[socket.socket] = set()
        self._writers: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Listen, in the running event loop. A socket file that an earlier, killed process left is replaced. Raises
        OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._socket.bind(str(self._path))
        self._path.chmod(0o660)
        self._socket.listen(_BACKLOG)
        asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return  # The other side is gone again.
        connection.setblocking(False)
        self._read(connection, bytearray())

    def _read(self, connection: socket.socket, request: bytearray) -> None:
        """`request` is what has come so far."""
        try:
            data = connection.recv(_LONGEST_REQUEST)
        except BlockingIOError:
            self._wait(connection, request)
            return
        except OSError:
            self._end(connection)
            return
        request += data
        line, newline, _ = request.partition(b"\n")
        if len(line) > _LONGEST_REQUEST:
            self._end(connection)  # It does not speak our language: its own loss.
        elif newline or not data:
            self._stop_reading(connection)
            try:
                answer = json.dumps(self._answer(line)).encode() + b"\n"
            except BaseException:
                connection.close()
                raise
            self._write(connection, answer)
        else:
            self._wait(connection, request)

    def _wait(self, connection: socket.socket, request: bytearray) -> None:
        if connection not in self._readers:
            self._readers.add(connection)
            asyncio.get_running_loop().add_reader(connection, self._read, connection, request)

    def _stop_reading(self, connection: socket.socket) -> None:
        if connection in self._readers:
            self._readers.remove(connection)
            asyncio.get_running_loop().remove_reader(connection)

    def _end(self, connection: socket.socket) -> None:
        self._stop_reading(connection)
        connection.close()

    def _write(self, connection: socket.socket, answer: bytes) -> None:
        try:
            sent = connection.send(answer)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(answer)
        if sent == len(answer):
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(_write_all(connection, answer[sent:]))
        self._writers.add(task)
        task.add_done_callback(self._writers.discard)

    def _answer(self, line: bytes | bytearray) -> dict[str, Any]:
        try:
            arguments = dict(json.loads(line))
            command = arguments.pop("command")
        except (ValueError, KeyError, TypeError):
            return {"error": 'a request is {"command": NAME, ...}'}
        return self._handler(str(command), arguments)

    def close(self) -> None:
        """Stop listening and remove the socket file."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for connection in list(self._readers):
            self._end(connection)
        for task in self._writers:
            task.cancel()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


async def _write_all(connection: socket.socket, answer: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        await asyncio.get_running_loop().sock_sendall(connection, answer)
