"""Network namespaces: enter one, run a program or open a socket in it, remove it with all that runs in it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

_T = TypeVar("_T")

_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab cannot be built, or something in it did not do what it must; the text says what."""


class Busy(LabError):
    """Another process uses the same prefix."""


def inside(namespace: str, action: Callable[[], _T]) -> _T:
    """Call `action` with `namespace` as the network namespace, and return or raise what it does.

    In a thread of its own: setns(2) moves one thread, and this one is not used for anything afterwards. A socket that
    `action` opens stays in the namespace.
    """
    outcome: list[_T] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            descriptor = os.open(_NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, f"setns {namespace}: {os.strerror(number)}")
            finally:
                os.close(descriptor)
            outcome.append(action())
        except BaseException as problem:  # handed to the caller
            problems.append(problem)

    thread = threading.Thread(target=work, name=f"inside-{namespace}")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return outcome[0]


def ip(*arguments: str, namespace: str | None = None) -> str:
    """Run iproute2's `ip` and return its output. Raises LabError with what it said."""
    where = ["-n", namespace] if namespace else []
    return _run(["ip", *where, *arguments])


def run_in(namespace: str, *command: str) -> str:
    """Run a program in a namespace to its end and return its output. Raises LabError with what it said."""
    return _run(["ip", "netns", "exec", namespace, *command])


def ip_json(*arguments: str, namespace: str) -> list[dict[str, Any]]:
    """`ip -j`: the rows. Raises LabError."""
    rows = json.loads(ip("-j", *arguments, namespace=namespace) or "[]")
    return [row for row in rows if row]


def batch(lines: Iterable[str], *, namespace: str | None = None) -> None:
    """Run many `ip` commands in one process; the first that fails raises LabError and ends it."""
    where = ["-n", namespace] if namespace else []
    _run(["ip", *where, "-batch", "-"], "".join(f"{line}\n" for line in lines))


def names() -> list[str]:
    """The named network namespaces of this machine."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry.name for entry in _NETNS.iterdir())
    return []


def write_sysctls(namespace: str, values: dict[str, str]) -> None:
    """Write sysctls such as `net/ipv6/conf/all/forwarding` of a namespace."""

    def write() -> None:
        for name, value in values.items():
            Path("/proc/sys", name).write_text(value)

    inside(namespace, write)


def start(
    namespace: str,
    command: Sequence[str],
    *,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    environment: dict[str, str] | None = None,
    directory: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a namespace: in a session of its own (Ctrl-C is ours to handle), killed if we are (setpriv).

    Call it from the main thread: the kernel kills the child when the *thread* that started it ends.
    """
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL", "--", *command],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=directory,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], *, patience: float = 5.0) -> int:
    """SIGTERM, after `patience` seconds SIGKILL to its whole session; returns the exit status."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    kill(process)
    return process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a process and whatever of its session is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def remove(namespaces: Iterable[str]) -> None:
    """Kill what runs in these namespaces and delete them; those that do not exist are passed over."""
    there = [name for name in namespaces if (_NETNS / name).exists()]
    deadline = time.monotonic() + 5.0
    while (pids := _processes(there)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    for name in there:
        subprocess.run(["ip", "netns", "del", name], check=True, capture_output=True)


def lock(name: str) -> socket.socket:
    """A lock that the kernel gives up when we die, however that happens. Raises Busy."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(f"\0{name}")
    except OSError:
        holder.close()
        raise Busy(f"another run uses the prefix {name!r}; choose another one") from None
    return holder


def wait_for(
    condition: Callable[[], _T], *, timeout: float, what: str, interval: float = 0.02
) -> _T:
    """Ask until `condition` gives something true, and return that. Raises LabError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(interval)


def _processes(namespaces: Iterable[str]) -> set[int]:
    """All processes in these namespaces (not only those that `ip netns exec` started)."""
    wanted = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            wanted.add((_NETNS / name).stat().st_ino)
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "ns/net").stat().st_ino in wanted:
                    found.add(int(entry.name))
    return found


def _run(command: Sequence[str], text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
