"""Programs of ours that run in a namespace and are told what to do line by line."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab import netns

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE = 15.0


class Program:
    """One of our programs in a namespace, `python -m MODULE`, spoken to through its standard input and output."""

    def __init__(self, namespace: str, module: str, *arguments: str) -> None:
        self._name = f"{module} {' '.join(arguments)} in {namespace}"
        self._process = netns.start(
            namespace,
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            directory=ROOT,
        )
        self._buffer = b""

    def ask(self, question: str) -> None:
        """Write a line; a program that has ended is found out by `line`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{question}\n".encode())
            self._process.stdin.flush()

    def line(self, key: str, *, final: bool = False) -> dict[str, Any]:
        """The next JSON line that has `key` (and is final, if asked for). Raises LabError."""
        while True:
            values: dict[str, Any] = json.loads(self.text() or "null") or self._fail()
            if key in values and (not final or values["final"]):
                return values

    def text(self, timeout: float | None = _PATIENCE) -> str:
        """The next line, "" at the end of a program that ended well. Raises LabError when it failed or is silent."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._buffer:
            pause = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], pause)[0]:
                raise netns.LabError(f"{self._name}: silent for {timeout:g} s")
            data = os.read(descriptor, 65536)
            if not data:
                return ""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def end_input(self) -> None:
        """Tell the program to end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """End it, whatever it is doing."""
        netns.kill(self._process)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _fail(self) -> dict[str, Any]:
        netns.kill(self._process)
        assert self._process.stderr is not None
        said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        raise netns.LabError(f"{self._name} ended: {said[-1] if said else 'without a word'}")
