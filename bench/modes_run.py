"""`./dev bench modes`: a domain in each mode, side by side; a node moves in one, then in the next one, and so on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

from bench import machine
from bench.handover_lab import HandoverLab
from bench.modes import Results, turns
from lab.netns import LabError
from lab.topology import RUNTIME


class ModesRun:
    """Nodes walk from MAAR to MAAR, so that each move has one P-MAAR more than the one before; those with `anchors`
    P-MAARs are measured."""

    def __init__(
        self, prefix: str, modes: Sequence[str], delays: Sequence[float], anchors: Sequence[int]
    ) -> None:
        self._prefix = prefix
        self._modes = modes
        self._delays = delays
        self._anchors = frozenset(anchors)
        self._most = max(anchors)
        self._began = time.monotonic()

    def run(self, count: int, console: Console) -> Results:
        """`count` nodes for each delay, in each mode; before them one that does not count. Raises LabError."""
        results = Results(machine.host() | machine.disk(RUNTIME) | machine.versions())
        with ExitStack() as stack:
            status = stack.enter_context(console.status("begins"))
            labs = {}
            for mode in self._modes:
                self._tell(status, f"starts the domain in mode {mode}")
                lab = HandoverLab(f"{self._prefix}-{mode}", mode, self._most + 1)
                labs[mode] = stack.enter_context(lab)
            for number in range(count + 1):
                for delay in self._delays if number else self._delays[:1]:
                    what = f"node {number} of {count}" if number else "warms up"
                    self._tell(status, f"{what}, {delay * 1000:g} ms")
                    self._walk(labs, delay, number, results if number else Results())
            results.held_back = {mode: lab.held_back() for mode, lab in labs.items()}
        return results

    def _walk(
        self, labs: dict[str, HandoverLab], delay: float, number: int, results: Results
    ) -> None:
        for mode, lab in labs.items():
            lab.delay(delay)
            with _named(mode, lab):
                lab.attach()
        # Each step begins with another mode, and so does each walk.
        orders = list(turns(self._modes, number + self._most))[number:]
        for anchors, order in enumerate(orders, 1):
            for mode in order:
                with _named(mode, labs[mode]):
                    if anchors in self._anchors:
                        results.add(labs[mode].move())
                    else:
                        labs[mode].hop()

    def _tell(self, status: Status, text: str) -> None:
        minutes = (time.monotonic() - self._began) / 60
        status.update(Text(f"{minutes:.0f} min: {text}"))


@contextmanager
def _named(mode: str, lab: HandoverLab) -> Iterator[None]:
    """Says of a LabError which mode it was, and what the daemons said last."""
    try:
        yield
    except LabError as problem:
        raise LabError(f"mode {mode}: {problem}\n{lab.tails()}") from problem
