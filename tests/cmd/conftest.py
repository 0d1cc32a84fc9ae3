"""What the tests of the CMD share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cmd.store import databases


@pytest.fixture(scope="session", autouse=True)
def _no_server_is_left() -> Iterator[None]:
    yield
    databases.stop()
