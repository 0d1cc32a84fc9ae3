"""A node whose frames are seen: it reports, sends, answers probes, moves. Whatever way the MAARs ask their CMD by."""

from __future__ import annotations

from typing import Any, NamedTuple

from dmm_wire.address import Prefix
from relay_maar.core import actions as act
from tests.maar.core.world import ACCESS, MAC, NODE, Maar, World


class Question(NamedTuple):
    """A MAAR has asked the CMD about the node; `known`: as about one that is still there."""

    maar: int
    known: bool


class Noticing(World):
    """`awake`: the node answers probes. `probes` are the MAARs that asked it, `quiet` whose packets say nothing new."""

    def __init__(self, *arguments: Any, **changes: Any) -> None:
        self.awake = True
        self.probes: list[int] = []
        self.quiet: dict[int, frozenset[bytes] | None] = {}
        self._answers = 0
        super().__init__(*arguments, **changes)

    # --- what happens ---

    def doing(self, maar: Maar, action: act.Action) -> None:
        super().doing(maar, action)
        match action:
            case act.WatchPackets():
                self.quiet[maar.number] = action.quiet
            case act.SendNeighborSolicitation(link_layer=link_layer) if link_layer == MAC:
                self.probes.append(maar.number)
                self._answers += self.awake and self.place == maar.number

    def run(self, maar: Maar, actions: list[act.Action]) -> None:
        super().run(maar, actions)
        while self._answers:
            self._answers -= 1
            self.frame("na")

    def frame(self, trigger: str, at: int | None = None, source: bytes = NODE) -> None:
        """A frame of the node is seen where it is, or `at` a MAAR where it is not any more."""
        number = self.place if at is None else at
        assert number is not None
        maar = self.maars[number]
        self.run(maar, maar.agent.seen(ACCESS, source, MAC, trigger, self.now))

    def move(self, number: int, trigger: str = "mld") -> None:
        """The node goes there and shows itself."""
        self.place = number
        self.frame(trigger)

    def send_packet(self, source: Prefix) -> bool:
        """The node sends a packet. Returns whether the MAAR's filter let it through."""
        assert self.place is not None
        quiet = self.quiet.get(self.place)
        if quiet is None or MAC in quiet:
            return False
        self.frame("data", source=source.address[:15] + b"\5")
        return True

    def settled_at(self, number: int) -> Noticing:
        """The node has been at a MAAR for a minute, and has prefixes there."""
        raise NotImplementedError

    # --- how it is ---

    def questions(self) -> list[Question]:
        """What the CMD was asked about the node, and has heard."""
        raise NotImplementedError

    def handovers(self) -> list[tuple[int | None, int | None]]:
        """The moves that the CMD knows of."""
        raise NotImplementedError

    def live(self) -> dict[Prefix, int]:
        """The node's prefixes, and where each is anchored, as the CMD has it."""
        raise NotImplementedError

    def counters(self, number: int) -> dict[str, int]:
        found: dict[str, int] = self.maars[number].agent.status(self.now)["counters"]
        return found

    def served_at(self) -> list[int]:
        """The MAARs that take the node to be on their links."""
        return [
            number
            for number, maar in self.maars.items()
            for session in maar.agent.status(self.now)["sessions"]
            if session["here"]
            and any(each["role"] in ("local", "served") for each in session["prefixes"])
        ]

    def check_place(self, ends: tuple[str, ...] = ("node",)) -> None:
        """The node is served where it is and nowhere else, and every prefix leads there from the core; from the MAARs
        to one of `ends`."""
        assert self.served_at() == [self.place]
        live = self.live()
        assert live
        for prefix in live:
            assert self.trace(prefix)[-1] == "node", self.trace(prefix)
            for start in (1, 2, 3):
                assert self.trace(prefix, start)[-1] in ends, self.trace(prefix, start)
        self.check_no_loop()
