"""Errors from inside the tunnels are relayed in portions, with pauses in which the service does its work."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import cast

import pytest

from relay_maar.io.errors import PAUSE, ErrorRelay
from relay_maar.southbound.api import Southbound
from relay_maar.southbound.errors import AT_ONCE
from tests.maar.shell.test_watch import Loop


class Driver:
    """Relays what a test says; `descriptor` is -1 where the kernel does it itself."""

    def __init__(self, descriptor: int = 7) -> None:
        self.descriptor = descriptor
        self.relays: list[Mapping[str, int]] = []

    def errors(self) -> int:
        return self.descriptor

    def relay_errors(self) -> Mapping[str, int]:
        return self.relays.pop(0)


def make(loop: Loop, driver: Driver) -> tuple[ErrorRelay, Counter[str]]:
    counters: Counter[str] = Counter()
    both = cast(asyncio.AbstractEventLoop, loop), cast(Southbound, driver)
    return ErrorRelay(*both, counters), counters


def test_a_portion_then_a_pause() -> None:
    loop, driver = Loop(), Driver()
    _, counters = make(loop, driver)
    driver.relays = [{"too-big": 16}, {"too-big": 2, "narrow": 1}]
    for _ in range(2):
        loop.readers[7]()
        assert not loop.readers, "what is readable meanwhile would call again and again"
        loop.run_until(loop.now + PAUSE)
    assert set(loop.readers) == {7}
    assert counters == {"tunnel.too-big": 18, "tunnel.narrow": 1}


def test_no_host_has_more_than_so_many_of_them_in_a_second() -> None:
    """RFC 4443 section 2.4 (f): an error is limited in rate, also one that is passed on."""
    assert pytest.approx(800) == AT_ONCE / PAUSE


def test_no_more_calls_once_closed() -> None:
    for is_pausing in (False, True):
        loop, driver = Loop(), Driver()
        relay, _ = make(loop, driver)
        if is_pausing:
            driver.relays = [{}]
            loop.readers[7]()
        relay.close()
        loop.run_until(loop.now + 2 * PAUSE)
        assert not loop.readers


def test_a_kernel_that_relays_them_itself() -> None:
    loop = Loop()
    relay, _ = make(loop, Driver(-1))
    relay.close()
    assert not loop.readers
