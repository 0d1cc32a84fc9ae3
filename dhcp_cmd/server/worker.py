"""A worker: a process that shares its listeners with others, and what it and its parent have to say to each other.

Between the two is a pair of sockets. The worker says that it serves, why it gave up, how the database is, and what is
for the log: a file that is rotated has one writer. The parent says nothing: when its end is closed, by it or by its
death, the worker leaves.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from dhcp_cmd.core.inquire import LANES
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.plugin import counters
from dhcp_cmd.server.loop import Limits, Loop, Share
from dhcp_cmd.server.outage import OutageOfWorker
from dhcp_cmd.server.plan import Plan
from dhcp_cmd.server.responder import Responder
from dhcp_cmd.server.signals import signals
from dhcp_cmd.server.sockets import Listener
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import open_store

SERVES, GAVE_UP, FAILS, WORKS, LOG = "serves", "gave-up", "fails", "works", "log"
"""What a worker says. FAILS and WORKS are the methods of outage.Told, with their arguments; LOG comes with what
`record` makes a log record of."""

OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that are blocked where a worker is forked, until it has handlers of its own."""

_LONGEST = 8_000
"""Characters of a text that is said."""
_LARGEST = 1 << 18


class Channel:
    """One end of what is between a worker and its parent. Waits for nothing."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    def fileno(self) -> int:
        """For selectors."""
        return self._end.fileno()

    def say(self, what: str, *arguments: float | str) -> bool:
        """Say something; whether the other one could be told right now."""
        short = [word[:_LONGEST] if isinstance(word, str) else word for word in arguments]
        try:
            self._end.send(json.dumps([what, *short]).encode())
        except OSError:  # too much has not been heard yet, or nobody is there
            return False
        return True

    def hear(self) -> list[Any] | None:
        """What was said next: the word and its arguments; empty: nothing yet; None: the other one is gone."""
        try:
            said = self._end.recv(_LARGEST)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return list(json.loads(said)) if said else None

    def leave(self) -> None:
        """Let the other end find that nobody is here, and go on hearing it."""
        self._end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end."""
        self._end.close()


def channel() -> tuple[Channel, Channel]:
    """The two ends. Raises OSError."""
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(first), Channel(second)


class ToParent(logging.Handler):
    """Hands on to the parent what is for the log; to standard error where that one cannot hear it."""

    def __init__(self, parent: Channel) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        trace = _FORMATTER.formatException(record.exc_info) if record.exc_info else ""
        said = (record.name, record.levelno, record.getMessage(), trace, record.created)
        if not self._parent.say(LOG, *said, record.processName or "", record.process or 0):
            sys.stderr.write(f"{record.getMessage()}\n{trace}")


_FORMATTER = logging.Formatter()


def record(
    name: str, level: int, text: str, trace: str, created: float, process: str, pid: int
) -> logging.LogRecord:
    """What a worker said with LOG."""
    return logging.makeLogRecord(
        {
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": text,
            "exc_text": trace or None,
            "created": created,
            "msecs": created % 1 * 1000,
            "processName": process,
            "process": pid,
        }
    )


def work(
    plan: Plan,
    listeners: Sequence[Listener],
    limits: Limits,
    share: Share,
    lane: int,
    parent: Channel,
) -> int:
    """Serve until told to stop or to leave; the exit status. To be called in a process that was just forked, with
    `OURS` blocked."""
    logging.getLogger().handlers = [ToParent(parent)]  # those that were there are the parent's
    try:
        store = open_store(plan.database, serving=True)
    except StoreError as error:
        parent.say(GAVE_UP, str(error))
        return 1
    loop = Loop(
        Responder(Cmd(store, plan.settings, (lane + share.seat) % LANES), plan),
        listeners,
        limits,
        counters.count_all,
        share=share,
        database=OutageOfWorker(parent.say),
    )
    loop.wake_on(parent.fileno(), loop.leave)  # there is nothing to hear but that nobody is there
    # A terminal's Ctrl-C is for the parent, which then stops its workers.
    with signals(loop, {signal.SIGHUP: _nothing, signal.SIGINT: _nothing}):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS)
        parent.say(SERVES)
        loop.run()
    loop.close()
    store.close()
    return 0


def _nothing() -> None:
    pass
