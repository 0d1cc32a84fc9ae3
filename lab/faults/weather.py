"""What happens to each PBU and PBA: which are lost, which come twice, which are overtaken. Pure, by a seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Weather:
    """Shares of all messages, and seconds. A message that is held back, and the second copy of one that comes twice,
    is overtaken by what is sent meanwhile."""

    lost: float = 0.20
    doubled: float = 0.10
    held: float = 0.30
    longest: float = 0.5
    longest_copy: float = 3.0


FAIR = Weather(0, 0, 0)
"""Nothing happens to anything."""


class Fates:
    """The fate of the messages of each direction, in their order: the same for the same seed."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self._seed = seed
        self._weather = weather
        self._draws: dict[tuple[bytes, bytes], Random] = {}

    def next(self, source: bytes, destination: bytes) -> tuple[float, ...]:
        """For the next message from `source` to `destination`: after how many seconds each copy arrives; none, if it is
        lost."""
        way = source, destination
        if way not in self._draws:
            self._draws[way] = Random(f"{self._seed} {source.hex()} {destination.hex()}")
        # Always the same number of draws, so that one fate does not change the next one's.
        lost, doubled, held, delay, copy = (self._draws[way].random() for _ in range(5))
        weather = self._weather
        if lost < weather.lost:
            return ()
        first = delay * weather.longest if held < weather.held else 0.0
        return (first, copy * weather.longest_copy) if doubled < weather.doubled else (first,)
