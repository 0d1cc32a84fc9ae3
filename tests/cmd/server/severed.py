"""Between a CMD and its PostgreSQL: hands on what both say, and can lose the answer to a commit."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from dhcp_cmd.store.engine import parse_url

_SOCKET = ".s.PGSQL.5432"
_COMMIT = b"COMMIT\0"
_READY = b"Z\0\0\0\x05I"
"""How an answer ends after which the session is in no transaction."""


class Severed:
    """A Unix socket that leads to the server of `url`; usable in a `with`."""

    def __init__(self, url: str) -> None:
        self._folder = TemporaryDirectory(prefix="dmm-")
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        parsed = parse_url(url)
        self._server = f"{parsed.query['host']}/{_SOCKET}"
        self.url = parsed.update_query_dict({"host": str(folder)}).render_as_string(False)
        self.severed = 0
        """Answers that were lost."""
        self._armed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = self._socket()
        self._listener.bind(str(folder / _SOCKET))
        (folder / _SOCKET).chmod(0o777)
        self._listener.listen()

    def sever_after_commit(self) -> None:
        """The next COMMIT goes to the server, which answers; nobody hears that, and the connection is gone."""
        self._armed.set()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in [self._listener, *self._sockets]:
            each.close()
        self._folder.cleanup()

    def _socket(self) -> socket.socket:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._socket()
                server.connect(self._server)
                self._sockets += (client, server)
                losing = threading.Event()
                self._start(self._up, client, server, losing)
                self._start(self._down, client, server, losing)

    def _up(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                if _COMMIT in data and self._armed.is_set():
                    self._armed.clear()
                    losing.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _down(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                if not losing.is_set():
                    client.sendall(data)
                elif data.endswith(_READY):
                    self.severed += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
            client.shutdown(socket.SHUT_RDWR)
