"""What tells a MAAR of a node, what was measured of each, and the bars of a handover."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bench.attach_clock import Step
from bench.bars import Bar
from bench.distribution import Distribution


class Trigger(StrEnum):
    """What the S-MAAR hears first. But for MLD the carrier is never lost."""

    MLD = "mld"
    """The carrier was lost and is back; the node's kernel reports its multicast groups, and says nothing else."""
    RS = "rs"
    """A Router Solicitation."""
    DATA = "data"
    """A packet of a flow: the node sends one a millisecond, and does not notice that it moved."""
    DHCP = "dhcp"
    """A Rebind, and nothing else."""
    HOOK = "hook"
    """An access point's word at the control socket; the node says nothing."""


TITLES: Final[Mapping[Trigger, str]] = {
    Trigger.MLD: "MLD report, carrier lost",
    Trigger.RS: "Router Solicitation",
    Trigger.DATA: "data packet",
    Trigger.DHCP: "DHCPv6 only",
    Trigger.HOOK: "access point's hook",
}

INTERRUPTION: Final = (0.025, 0.050)
"""Median and 95th percentile, seconds, from the carrier's return to the first packet through: bar."""
SHARE: Final = (0.005, 0.010)
"""The same of what the MAARs and the CMD take, from the first frame to both tunnel ends: bar."""
SENDS: Final = 0.010
"""Median, seconds, without carrier loss, for a host that sends: bar."""


@dataclass(frozen=True, slots=True)
class Attach:
    """One move: seconds from it until each step was done. What is missing was never seen."""

    trigger: Trigger
    node: int
    seconds: Mapping[Step, float]

    @property
    def share(self) -> float | None:
        """Seconds from the first frame until both kernels had confirmed the tunnel: the MAARs' and the CMD's own."""
        if Step.SET not in self.seconds or Step.FRAME not in self.seconds:
            return None
        return self.seconds[Step.SET] - self.seconds[Step.FRAME]

    @property
    def alone(self) -> float | None:
        """The same without the time from the S-MAAR's question to the CMD's answer."""
        share, seconds = self.share, self.seconds
        if share is None or Step.QUERY not in seconds or Step.ANSWER not in seconds:
            return None
        return share - (seconds[Step.ANSWER] - seconds[Step.QUERY])


class Attaches:
    """All moves of a run."""

    def __init__(self) -> None:
        self.all: list[Attach] = []
        self._of: defaultdict[Trigger, list[Attach]] = defaultdict(list)

    def add(self, attach: Attach) -> None:
        """One more."""
        self.all.append(attach)
        self._of[attach.trigger].append(attach)

    def triggers(self) -> list[Trigger]:
        """Those that something was measured of."""
        return [trigger for trigger in Trigger if trigger in self._of]

    def of(self, trigger: Trigger) -> list[Attach]:
        """Its moves."""
        return self._of.get(trigger, [])

    def incomplete(self, trigger: Trigger) -> int:
        """How many of its moves never had their flows open."""
        return sum(Step.OPEN not in each.seconds for each in self.of(trigger))

    def step(self, trigger: Trigger, step: Step) -> Distribution | None:
        """Seconds until it was done."""
        return Distribution.of(
            each.seconds[step] for each in self.of(trigger) if step in each.seconds
        )

    def share(self, trigger: Trigger) -> Distribution | None:
        """See `Attach.share`."""
        found = (each.share for each in self.of(trigger))
        return Distribution.of(each for each in found if each is not None)

    def alone(self, trigger: Trigger) -> Distribution | None:
        """See `Attach.alone`."""
        found = (each.alone for each in self.of(trigger))
        return Distribution.of(each for each in found if each is not None)


def bars(attaches: Attaches) -> Iterator[Bar]:
    """What this run says of them."""
    lost = attaches.step(Trigger.MLD, Step.OPEN)
    if lost is not None:
        what = "carrier return to the first packet through each way"
        yield at_most(f"{what}, median", lost.median, INTERRUPTION[0])
        yield at_most(f"{what}, p95", lost.p95, INTERRUPTION[1])
    for trigger in attaches.triggers():
        share = attaches.share(trigger)
        if share is not None:
            what = f"first frame to both tunnel ends, {TITLES[trigger]}"
            yield at_most(f"{what}, median", share.median, SHARE[0])
            yield at_most(f"{what}, p95", share.p95, SHARE[1])
    sends = attaches.step(Trigger.DATA, Step.OPEN)
    if sends is not None:
        what = "without carrier loss, a host that sends, flows open both ways, median"
        yield at_most(what, sends.median, SENDS)
    unseen = sum(attaches.incomplete(trigger) for trigger in attaches.triggers())
    if attaches.all:
        found = f"{unseen} of {len(attaches.all)}"
        yield Bar("moves whose flows never opened", found, "0", unseen == 0)


def at_most(what: str, seconds: float, most: float) -> Bar:
    """A bar in milliseconds; one that is missed says by how much."""
    found = f"{seconds * 1000:.1f} ms"
    if seconds > most:
        found += f" ({(seconds - most) * 1000:.1f} ms over)"
    return Bar(what, found, f"≤ {most * 1000:g} ms", seconds <= most)
