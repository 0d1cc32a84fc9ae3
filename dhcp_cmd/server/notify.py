"""Telling systemd how the service is (sd_notify(3)); without systemd nothing happens."""

from __future__ import annotations

import os
import socket
import time


def notify(*lines: str) -> None:
    """Send a state, such as "READY=1"."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path or path[0] not in "/@":
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto("\n".join(lines).encode(), address)
    except OSError:
        pass  # the service goes on without whoever listens there


def reloading() -> None:
    """The configuration is being read again; `notify("READY=1")` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
