"""The machine that a benchmark ran on, for the reader of its figures."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

_WRITES = 300
_BLOCK = 16_384
"""Octets appended before each fdatasync: about what a small commit is."""


def host() -> dict[str, str]:
    """The machine itself, as it is now."""
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{_cpu()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load before": f"{os.getloadavg()[0]:.1f} (what else it did: everything here is slower by that)",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """What our own programs run on."""
    return {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}


def disk(directory: Path) -> dict[str, str]:
    """How fast the disk is that the databases are on, in `directory`."""
    half, most = sync_times(directory)
    return {
        "disk": f"{_BLOCK >> 10} KiB and fdatasync in {half * 1000:.2f} ms (median), {most * 1000:.2f} ms (p99)"
    }


def describe(directory: Path) -> dict[str, str]:
    """All to know of it; `directory` is on the disk that the databases are on."""
    return {
        **host(),
        **disk(directory),
        "Kea": _version(["kea-dhcp6", "-v"]),
        "PostgreSQL": _version(["postgres", "--version"]),
        **versions(),
    }


def sync_times(directory: Path) -> tuple[float, float]:
    """How long appending to a file and fdatasync(2) take: median and 99th percentile, seconds."""
    path = directory / "fdatasync"
    times = []
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(_WRITES):
            before = time.perf_counter()
            os.write(descriptor, bytes(_BLOCK))
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - before)
    finally:
        os.close(descriptor)
        path.unlink()
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def _cpu() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _version(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    found = re.search(r"\d+(\.\d+)+", done.stdout)
    return found[0] if found else "unknown"
