"""Waiting for a condition, never for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Return as soon as `condition` holds; fail when it does not within `timeout` seconds, which is long:
    a machine may be busy with other things."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.01)
