"""The tunnel drivers by name: a new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from relay_maar.southbound import seg6
from relay_maar.southbound.api import DriverUnavailable, Southbound, SouthboundSettings
from relay_maar.southbound.fake import FakeSouthbound


class _Driver(NamedTuple):
    make: Callable[[SouthboundSettings], Southbound]
    probe: Callable[[SouthboundSettings], None] | None
    """Raises DriverUnavailable where the kernel cannot carry it; None: `auto` does not choose it."""


_DRIVERS = {
    "seg6": _Driver(seg6.Seg6Southbound, seg6.probe),
    "fake": _Driver(FakeSouthbound, None),
}

AUTO = "auto"
"""The first driver that the kernel can carry."""
NAMES = (AUTO, *_DRIVERS)


def open_driver(name: str, settings: SouthboundSettings) -> Southbound:
    """The driver of that name, or the first that the kernel can carry for `auto`; not opened yet.

    Raises DriverUnavailable, in one line, for an unknown name or a kernel that lacks what it needs.
    """
    if name == AUTO:
        return _first(settings)
    if name not in _DRIVERS:
        raise DriverUnavailable(f"no southbound driver {name!r}: there are {', '.join(NAMES)}")
    driver = _DRIVERS[name]
    if driver.probe is not None:
        driver.probe(settings)
    return driver.make(settings)


def _first(settings: SouthboundSettings) -> Southbound:
    reasons = []
    for driver in _DRIVERS.values():
        if driver.probe is None:
            continue
        try:
            driver.probe(settings)
        except DriverUnavailable as unavailable:
            reasons.append(str(unavailable))
            continue
        return driver.make(settings)
    raise DriverUnavailable(f"no southbound driver works here: {'; '.join(reasons)}")
