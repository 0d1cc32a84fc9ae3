"""PostgreSQL for the tests: one private server for a run, started when a test wants it; databases by copying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.postgres import Postgres, private

_stack = ExitStack()
_numbers = count(1)
_templates: set[str] = set()


@cache
def server() -> Postgres:
    """The server, which `stop` ends. It is not durable: what is to survive a crash needs a server of its own."""
    # Not pytest's own directory, which other users cannot enter.
    folder = _stack.enter_context(TemporaryDirectory(prefix="dmm-"))
    return _stack.enter_context(
        private(Path(folder), fsync="off", full_page_writes="off", max_wal_size="2GB")
    )


def stop() -> None:
    """End the server, if it was started."""
    server.cache_clear()
    _templates.clear()
    _stack.close()


@contextmanager
def new(template: str, fill: Callable[[str], None]) -> Iterator[str]:
    """The URL of a database that is removed afterwards: a copy of `template`, which `fill` filled once."""
    postgres = server()
    if template not in _templates:
        postgres.create(template)
        fill(postgres.url(template))
        _templates.add(template)
    name = f"test_{next(_numbers)}"
    postgres.create(name, template=template)
    try:
        yield postgres.url(name)
    finally:
        postgres.drop(name)
