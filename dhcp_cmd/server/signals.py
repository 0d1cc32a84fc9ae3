"""Signals that wake a loop, which acts on them when it has a moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Loop(Protocol):
    """What is woken."""

    stopping: bool

    def wake_on(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call `call` when there is something to read from `descriptor`."""
        ...


@contextmanager
def signals(loop: Loop, handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Signals wake the loop, which acts on them between two batches. That it is to stop (SIGTERM, SIGINT) it knows at
    once: it does not begin anything else that a database that is silent would make it wait for.
    """
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def act() -> None:
        for number in dict.fromkeys(drain_pipe(read)):
            if number in handlers:
                handlers[signal.Signals(number)]()

    def stop(*_: object) -> None:
        loop.stopping = True

    stops = {signal.SIGTERM, signal.SIGINT} - handlers.keys()
    before = {number: signal.signal(number, lambda *_: None) for number in handlers}
    before |= {number: signal.signal(number, stop) for number in stops}
    woken = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    loop.wake_on(read, act)
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)
        os.close(read)


def drain_pipe(descriptor: int) -> bytes:
    """Everything in a non-blocking pipe."""
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""
