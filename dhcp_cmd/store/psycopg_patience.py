"""A PostgreSQL that is there and does not answer: waited for as long as said, and no longer.

What bounds a statement in the server (`statement_timeout`, `lock_timeout`) does nothing where that one is stopped, or
its disk is, or the standby is that it waits for; and keepalives say only that the machine is up.
"""

from __future__ import annotations

import logging
import time
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.waiting import Ready

_Result = TypeVar("_Result")

# What it warns of (a pipeline that ended with its connection) comes as an error, too.
logging.getLogger("psycopg").setLevel(logging.ERROR)
# So does what SQLAlchemy's pool meets when it takes back a connection that was cut.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is given up when one exchange with the server takes longer than `patience`, in seconds. What
    it was about to commit is committed or is not: nobody knows.
    """

    patience: float

    @classmethod
    def to(cls, patience: float, *arguments: Any, **named: Any) -> PatientConnection:
        """Connect, as psycopg.connect does."""
        connection = cls.connect(*arguments, **named)
        connection.patience = patience
        return connection

    def wait(self, gen: PQGen[_Result], *arguments: Any, **named: Any) -> _Result:
        """See psycopg.Connection. Raises OperationalError when patience ends."""
        return super().wait(self._bounded(gen), *arguments, **named)

    def _bounded(self, gen: PQGen[_Result]) -> PQGen[_Result]:
        deadline = time.monotonic() + self.patience
        try:
            wanted = next(gen)
            while True:
                # psycopg looks in ten times a second, with NONE where the socket had nothing.
                ready = yield wanted
                if ready == Ready.NONE and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: _Result = done.value
            return result
