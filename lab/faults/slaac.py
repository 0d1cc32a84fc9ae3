"""A host without any client, as a pure state machine: Router Solicitations, and addresses by what Router Advertisements
say (RFC 4861, RFC 4862)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random

from dmm_wire.address import Prefix
from lab.faults import frames

_HEADER = 16
_PREFIX_INFORMATION = 3
_INFORMATION = struct.Struct("!BBBBIII16s")
_FIRST_WAIT = 4.0
_LONGEST_WAIT = 3600.0


class Host:
    """What a `Client` is, without asking for anything. `leases` are the prefixes that it has addresses of."""

    def __init__(self, mac: bytes, draws: Random) -> None:
        self.mac = mac
        self.leases: dict[Prefix, bool] = {}
        self.problems: list[str] = []
        self._draws = draws
        self._again: float | None = None
        self._wait = 0.0

    def attach(self, now: float, *, afresh: bool) -> list[bytes]:
        """There is a new link."""
        self._wait = _FIRST_WAIT
        return self._solicit(now)

    def renew(self, now: float) -> list[bytes]:
        """Nothing: nobody is asked."""
        return []

    def release(self, now: float, leases: set[Prefix]) -> list[bytes]:
        """Nothing: nobody is told."""
        return []

    def detach(self) -> None:
        """The link is gone."""
        self._again = None

    @property
    def busy(self) -> bool:
        """Whether no router has told it of a preferred prefix on this link."""
        return self._again is not None

    @property
    def prefixes(self) -> dict[Prefix, bool]:
        """The prefixes that it has addresses of, and whether they are preferred."""
        return dict(self.leases)

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """A Router Advertisement (RFC 4861 section 4.2)."""
        for prefix, preferred, valid in _prefixes(data):
            if valid:
                self.leases[prefix] = preferred > 0
            else:
                self.leases.pop(prefix, None)
            if preferred:
                self._again = None
        return []

    def deadline(self) -> float | None:
        """When it solicits again."""
        return self._again

    def due(self, now: float) -> list[bytes]:
        """Solicit again (RFC 7559)."""
        return [] if self._again is None or now < self._again else self._solicit(now)

    def _solicit(self, now: float) -> list[bytes]:
        self._again = now + self._wait * (1 + self._draws.uniform(-0.1, 0.1))
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
        return [frames.router_solicitation(self.mac)]


def _prefixes(advertisement: bytes) -> Iterator[tuple[Prefix, int, int]]:
    """Prefix, preferred and valid lifetime of each Prefix Information option."""
    offset = _HEADER
    while offset + 2 <= len(advertisement) and advertisement[offset + 1]:
        size = 8 * advertisement[offset + 1]
        option = advertisement[offset : offset + size]
        if option[0] == _PREFIX_INFORMATION and len(option) == _INFORMATION.size:
            _, _, length, _, valid, preferred, _, address = _INFORMATION.unpack(option)
            yield Prefix.of(address, length), preferred, valid
        offset += size
