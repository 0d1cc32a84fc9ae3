"""Which workers there are to be: what happens to them goes in, what is to be done comes out. No processes, no clock.

Each worker has a seat, from 0 on, and serves one generation of the configuration. A reload replaces them one after
the other: the next one begins when the one before serves, and only then the old one leaves. One that dies is replaced,
no more often than `PAUSE` says. At the start one that dies is the end: the operator is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple, TypeAlias

PAUSE = 1.0
"""Seconds between two forks for one seat, at least; twice as long each time that a worker died before it served."""
LONGEST_PAUSE = 32.0
PATIENCE = 12.0
"""Seconds that workers have to stop; for a silent database they wait some six."""


class Fork(NamedTuple):
    """Fork a worker for this seat, with the newest configuration; then tell `forked` or `unforked`."""

    seat: int


class Leave(NamedTuple):
    """Have it answer what it took, and end."""

    pid: int


class Stop(NamedTuple):
    """Have it end after the batch at hand."""

    pid: int


class Kill(NamedTuple):
    """End it."""

    pid: int


class Complete(NamedTuple):
    """All workers serve the newest configuration, and nobody an older one."""

    first: bool
    """This is the start."""


class Report(NamedTuple):
    """Something for the log."""

    text: str


class End(NamedTuple):
    """No worker is left; with `error`, because they could not go on."""

    error: str | None


Action: TypeAlias = Fork | Leave | Stop | Kill | Complete | Report | End


class _State(Enum):
    STARTING = auto()
    SERVING = auto()
    LEAVING = auto()


@dataclass(slots=True)
class _Worker:
    seat: int
    generation: int
    state: _State = _State.STARTING


@dataclass(slots=True)
class _Seat:
    forked: float | None = None
    """When a worker was forked for it last, seconds."""
    failures: int = 0
    """How many died before they served, since one did."""

    def due(self) -> float:
        """When a worker may be forked for it."""
        if self.forked is None:
            return 0.0
        pause: float = PAUSE * 2 ** min(self.failures, 10)
        return self.forked + min(pause, LONGEST_PAUSE)


@dataclass(slots=True)
class Supervision:
    """The state. Every method gives what is to be done next; `now` is in seconds of any steady clock."""

    number: int
    """How many workers there are to be."""
    _generation: int = 0
    _complete: int = -1
    """The generation for which `Complete` was said."""
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _seats: dict[int, _Seat] = field(default_factory=dict)
    _kill_at: float | None = None
    """Not None: they stop, and whoever still runs then is killed."""
    _error: str | None = None

    def reload(self, number: int, now: float) -> list[Action]:
        """There is a new configuration, with so many workers."""
        self.number = number
        self._generation += 1
        for seat in self._seats.values():  # the pauses were for the old one
            seat.forked, seat.failures = None, 0
        return self.proceed(now)

    def forked(self, seat: int, pid: int, now: float) -> list[Action]:
        """The worker is there."""
        self._workers[pid] = _Worker(seat, self._generation)
        self._seat(seat).forked = now
        return self.proceed(now)

    def unforked(self, seat: int, error: str, now: float) -> list[Action]:
        """It could not be forked."""
        return self._failed(seat, f"a worker could not be started: {error}", now)

    def serves(self, pid: int, now: float) -> list[Action]:
        """The worker is ready."""
        worker = self._workers[pid]
        if worker.state is _State.STARTING:
            worker.state = _State.SERVING
            self._seat(worker.seat).failures = 0
        return self.proceed(now)

    def died(self, pid: int, status: int, reason: str | None, now: float) -> list[Action]:
        """It has ended, with this exit status (negative: by that signal); `reason` is what it said about it."""
        worker = self._workers.pop(pid)
        text = f"worker {pid} {_how(status, reason)}"
        if self._kill_at is not None or worker.state is _State.LEAVING:
            # Of a start that failed, the first reason says it all.
            told = status != 0 and self._error is None
            return ([Report(text)] if told else []) + self.proceed(now)
        if worker.state is _State.STARTING:
            return self._failed(worker.seat, text, now)
        return [Report(f"{text}; another one takes its place"), *self.proceed(now)]

    def stop(self, now: float) -> list[Action]:
        """It is to end. The second time says nothing new."""
        if self._kill_at is not None:
            return []
        self._kill_at = now + PATIENCE
        return [*(Stop(pid) for pid in self._workers), *self.proceed(now)]

    def wake(self, now: float) -> float | None:
        """When `proceed` has something to do though nothing happens, if ever."""
        if self._kill_at is not None:
            return self._kill_at
        dues = [self._seat(seat).due() for seat in self._behind()]
        return min((due for due in dues if due > now), default=None)

    def proceed(self, now: float) -> list[Action]:
        """What there is to do by now."""
        if self._kill_at is not None:
            return self._stopping(now)
        actions: list[Action] = []
        for pid, worker in self._workers.items():
            if worker.state is not _State.LEAVING and self._is_over(worker):
                worker.state = _State.LEAVING
                actions.append(Leave(pid))
        forks = [seat for seat in self._behind() if self._seat(seat).due() <= now]
        # Where somebody still serves there is no hurry.
        vacant = [seat for seat in forks if not self._in(seat)]
        if vacant:
            actions.append(Fork(vacant[0]))
        elif forks and not any(w.state is _State.STARTING for w in self._workers.values()):
            actions.append(Fork(forks[0]))
        if self._complete != self._generation and self._is_complete():
            actions.append(Complete(self._complete < 0))
            self._complete = self._generation
        return actions

    def _failed(self, seat: int, text: str, now: float) -> list[Action]:
        """A worker did not come to serve: told for the first of several."""
        if self._complete < 0:
            self._error = self._error or text
            return self.stop(now)
        self._seat(seat).forked = now
        self._seat(seat).failures += 1
        first = self._seat(seat).failures == 1
        return ([Report(f"{text}; it is tried again")] if first else []) + self.proceed(now)

    def _stopping(self, now: float) -> list[Action]:
        assert self._kill_at is not None
        if not self._workers:
            return [End(self._error)]
        if now < self._kill_at:
            return []
        self._kill_at = now + PATIENCE
        return [Kill(pid) for pid in self._workers]

    def _behind(self) -> list[int]:
        """The seats for which nobody serves the newest configuration, or is about to."""
        there = {w.seat for w in self._workers.values() if self._is_new(w)}
        return [seat for seat in range(self.number) if seat not in there]

    def _is_over(self, worker: _Worker) -> bool:
        """Whether it may leave: nobody is to be at its seat, or somebody newer serves there."""
        if worker.seat >= self.number:
            return True
        if self._is_new(worker):
            return False
        return worker.state is _State.STARTING or any(
            w.state is _State.SERVING and self._is_new(w) for w in self._in(worker.seat)
        )

    def _is_complete(self) -> bool:
        workers = self._workers.values()
        return len(workers) == self.number and all(
            self._is_new(w) and w.state is _State.SERVING for w in workers
        )

    def _is_new(self, worker: _Worker) -> bool:
        return worker.generation == self._generation and worker.state is not _State.LEAVING

    def _in(self, seat: int) -> list[_Worker]:
        return [
            w for w in self._workers.values() if w.seat == seat and w.state is not _State.LEAVING
        ]

    def _seat(self, seat: int) -> _Seat:
        return self._seats.setdefault(seat, _Seat())


def _how(status: int, reason: str | None) -> str:
    if reason is not None:
        return f"gave up: {reason}"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with status {status}" if status else "ended"
