"""Scapy in a child process, and what a test asks it (see scapy_oracle.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmm_wire.address import format_address
from tests.house.import_rules import ROOT


class Oracle:
    """The child process and its questions."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(json.dumps(request), file=self.child.stdin, flush=True)
        line = self.child.stdout.readline()
        assert line, "the oracle died; its own message is above"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def build(self, packet: dict[str, Any]) -> bytes:
        return bytes.fromhex(self.ask(do="build", packet=packet)["octets"])

    def rebuild(self, kind: str, octets: bytes, computed: bool) -> bytes:
        """What scapy builds from what it dissected: with `computed`, lengths, padding and checksums are its own."""
        request = {"do": "rebuild", "as": kind, "octets": octets.hex(), "computed": computed}
        return bytes.fromhex(self.ask(**request)["octets"])

    def dissect(self, kind: str, octets: bytes) -> list[dict[str, Any]]:
        answer = self.ask(**{"do": "dissect", "as": kind, "octets": octets.hex()})
        assert answer["rest"] == "", "scapy could not read all of it"
        layers: list[dict[str, Any]] = answer["layers"]
        return layers

    def checksum(self, octets: bytes, source: bytes, destination: bytes) -> int:
        addresses = {"source": format_address(source), "destination": format_address(destination)}
        number = self.ask(do="checksum", octets=octets.hex(), **addresses)["checksum"]
        assert isinstance(number, int)
        return number


@contextmanager
def scapy(*modules: str) -> Iterator[Oracle]:
    """An oracle that knows scapy's own layers and those of `modules`."""
    program = Path(__file__).with_name("scapy_oracle.py")
    command = [sys.executable, str(program), *modules]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        try:
            yield Oracle(child)
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(10)
    assert child.returncode == 0


def matches(layer: Any, spec: Any) -> bool:
    """Whether what scapy dissected has everything that the specification of a layer says."""
    if isinstance(spec, dict) and "layer" in spec:
        return all(matches(layer[name], value) for name, value in spec.items())
    if isinstance(spec, list):
        return len(layer) == len(spec) and all(map(matches, layer, spec))
    if isinstance(spec, str) and isinstance(layer, dict):
        return bytes.fromhex(layer["hex"]) == spec.encode()
    return bool(layer == spec)
