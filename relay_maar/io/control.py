"""The control socket: how `relay-maar status`, `stop`, `attach` ... speak to the running daemon.

One JSON object a line, over a Unix stream socket in the runtime directory; its file mode says who may.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from relay_maar.io.client import SOCKET_NAME

_LONGEST_REQUEST = 4096

Handler = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers requests `{"command": NAME, ...}` with what `handler(NAME, {...})` returns."""

    def __init__(self, directory: Path, handler: Handler) -> None:
        self._path = directory / SOCKET_NAME
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen. A socket file that an earlier, killed process left is replaced. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._server = await asyncio.start_unix_server(
            self._serve, self._path, limit=_LONGEST_REQUEST
        )
        self._path.chmod(0o660)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            answer = self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, asyncio.LimitOverrunError):
            pass  # The other side is gone or does not speak our language: its own loss.
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            arguments = dict(json.loads(line))
            command = arguments.pop("command")
        except (ValueError, KeyError, TypeError):
            return {"error": 'a request is {"command": NAME, ...}'}
        return self._handler(str(command), arguments)

    def close(self) -> None:
        """Stop listening and remove the socket file."""
        if self._server is not None:
            self._server.close()
            self._server = None
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
