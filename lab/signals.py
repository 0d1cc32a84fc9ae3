"""Ctrl-C, SIGTERM and SIGHUP end the lab like any exception does: it tidies up first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: end, but tidy up first."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def tidy_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP become an exception, like SIGINT is one, so that every `with` ends as it should.

    SIGINT too, also where it was ignored when we were started (in the background of a shell script).
    """

    def raise_it(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: raise_it,
        signal.SIGHUP: raise_it,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Tidying up is short and must come to its end: an impatient second Ctrl-C waits for it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
