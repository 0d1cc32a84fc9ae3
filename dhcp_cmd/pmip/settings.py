"""What the operator chose about the CMD's signalling."""

from __future__ import annotations

from dataclasses import dataclass

PACING = 500
"""PBUs per second where nothing else is configured."""


@dataclass(frozen=True, slots=True)
class PmipSettings:
    """`endpoint` is the CMD's own address for PMIPv6 (16 octets), `pacing` how many PBUs it sends per second at most.

    `owner` is the name by which the outbox knows this sender.
    """

    endpoint: bytes
    owner: str
    pacing: int = PACING
