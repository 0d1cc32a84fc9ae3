"""`./dev bench handover`: moves in turn by each trigger, TCP through the tunnel, crowds, and the relay path."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from bench import crowd_moves, goodput, maars_alone, machine, relays
from bench.attach_clock import Step
from bench.attach_lab import NODES, AttachLab
from bench.attaching import TITLES, Trigger
from bench.handover import Findings
from bench.handover_report import Files
from bench.modes import turns
from lab.netns import LabError
from lab.topology import RUNTIME

PROGRAMS = 5
"""How often `relay-maar attach` is run as a program."""
_WRITE_EVERY = 25
"""Rounds of moves."""


class HandoverRun:
    """The parts that are wanted, one after the other; what there is, is written as it comes."""

    def __init__(self, prefix: str, console: Console, files: Files) -> None:
        self._prefix = prefix
        self._console = console
        self._files = files
        self._began = time.monotonic()
        self.findings = Findings(machine.host() | machine.disk(RUNTIME) | machine.versions())

    def moves(self, triggers: Sequence[Trigger], count: int) -> None:
        """So many by each trigger, in turn; before them one that does not count. Raises LabError."""
        attaches = self.findings.attaches
        nodes = min(NODES, max(2, (count + 1) * len(triggers)))
        with AttachLab(f"{self._prefix}-m", nodes) as lab, self._console.status("begins") as status:
            self._tell(f"a domain with {nodes} nodes stands")
            try:
                for number, order in enumerate(turns(triggers, count + 1)):
                    status.update(f"move {number} of {count}, by each trigger")
                    for trigger in order:
                        attach = lab.move(trigger)
                        if number:
                            attaches.add(attach)
                    if number % _WRITE_EVERY == 0:
                        self._files.write(self.findings)
                if Trigger.HOOK in triggers:
                    self.findings.programs = [lab.hook_program() for _ in range(PROGRAMS)]
            except LabError as problem:
                raise LabError(f"{problem}\n{lab.tails()}") from problem
        for trigger in triggers:
            found = attaches.step(trigger, Step.OPEN)
            if found is not None:
                self._tell(f"{TITLES[trigger]}: {found.median * 1000:.1f} ms, {found.count} moves")
        self._files.write(self.findings)

    def goodput(self, seconds: float, rounds: int) -> None:
        """TCP, plain and tunnelled. Raises LabError."""
        self.findings.goodputs = goodput.measure(f"{self._prefix}-g", seconds, rounds)
        self._tell("goodput: measured")
        self._files.write(self.findings)

    def crowd(self, sizes: Sequence[int], most: int) -> None:
        """Nodes that move at once, `most` times each way at most. Raises LabError."""
        crowds = self.findings.crowds
        crowds.domain = crowd_moves.measure(f"{self._prefix}-c", sizes, self._tell, most)
        self._files.write(self.findings)
        crowds.maars = maars_alone.measure(f"{self._prefix}-a", sizes, None, self._tell, most)
        self._files.write(self.findings)

    def relay(self, seconds: float, rounds: int) -> None:
        """Relay agents. Raises LabError."""
        self.findings.relays = relays.measure(f"{self._prefix}-r", seconds, rounds, None)
        self._tell("relay agents: measured")
        self._files.write(self.findings)

    def _tell(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:4.0f} s: {text}")
