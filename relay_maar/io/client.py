"""The other end of the control socket. An access point's hook runs at each association: nothing is imported here but
what it takes to write a line to a socket and to read one.
"""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Mapping
from typing import Any, Final

SOCKET_NAME: Final = "control.sock"
RUNTIME_DIRECTORY: Final = "/run/relay-maar"
"""Where the control socket is if the configuration does not say."""


class NotRunning(Exception):
    """No daemon listens in that runtime directory."""


def runtime_directory(config: str | os.PathLike[str]) -> str | None:
    """The runtime directory that a configuration names, of which nothing else is looked at; None where it cannot be
    read."""
    try:
        with open(config, "rb") as file:
            found = tomllib.load(file).get("runtime-directory", RUNTIME_DIRECTORY)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def ask(
    directory: str | os.PathLike[str],
    command: str,
    arguments: Mapping[str, str] | None = None,
    timeout: float = 5.0,
) -> dict[str, Any]:
    """Send `command` to the daemon of `directory` and return its answer. Raises NotRunning; OSError on a time-out,
    or where it answers nothing, or nothing that makes sense: a request too long, a daemon that is just ending."""
    request = {**(arguments or {}), "command": command}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(os.path.join(directory, SOCKET_NAME))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(f"no relay-maar runs in {directory}") from None
        sock.sendall(json.dumps(request).encode() + b"\n")
        answer = bytearray()
        while chunk := sock.recv(65_536):
            answer += chunk
    if not answer:
        raise OSError("it has closed the connection")
    try:
        result = json.loads(answer)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise OSError("its answer makes no sense")
    return result
