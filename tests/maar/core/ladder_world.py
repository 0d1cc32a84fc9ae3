"""The worlds of all modes on a wire that takes time, with all that goes in and comes out written down as a ladder.

A message is 5 ms under way, a kernel takes 1 ms. One that is lost or slow is named before it is sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count as numbers
from typing import Any, Final

from dhcp_cmd.core import model
from dmm_wire.dhcpv6.codes import MessageType
from dmm_wire.dmm import SignallingMode
from relay_maar.core import actions as act
from relay_maar.core.items import Change, Item, Key, Put
from tests.maar.core.ladder import Names, roles
from tests.maar.core.modes_world import EPOCH, ModesWorld
from tests.maar.core.pmip_world import PmipWorld
from tests.maar.core.world import NODE, Maar, Packet

WIRE: Final = 0.005
"""Seconds that a message is under way."""
KERNEL: Final = 0.001
"""Seconds until a kernel has confirmed."""

_WIDTH: Final = 120
_OUT: Final = " " * 13
"""In front of what comes out; what goes in has the time there."""


@dataclass
class Fault:
    """Messages that are lost, or (with `delay`) seconds under way: so many `times`, after the first `skip`."""

    what: str
    source: str | None
    to: str | None
    delay: float | None
    times: int
    skip: int

    def hits(self, what: str, source: str, to: str) -> bool:
        if self.what != what or self.source not in (None, source) or self.to not in (None, to):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if not self.times:
            return False
        self.times -= 1
        return True


class Ladder(ModesWorld):
    """What is written down begins with :meth:`begin`; :meth:`text` is all of it."""

    answer: str
    """What the CMD answers a MAAR by."""
    hello: str
    """How a MAAR notices the node."""

    def __init__(self, mode: SignallingMode, count: int, **changes: Any) -> None:
        self._faults: list[Fault] = []
        self._flight: list[tuple[float, int, Callable[[], None]]] = []
        self._order = numbers()
        self._kernels = {n: _Kernel() for n in range(1, count + 1)}
        self._lines: list[str] = []
        self._block: _Block | None = None
        self._written: list[model.Change] = []
        self._began = 0.0
        self.names = Names(count, lambda stamp: stamp / 65536 - EPOCH - self._began)
        super().__init__(mode, count, **changes)
        self.store.before_write = self._written.extend
        self.store.before_commit = self._commits
        self.slow_kernel = True

    # --- what is to go wrong ---

    def lose(
        self,
        what: str,
        *,
        source: str | None = None,
        to: str | None = None,
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """Messages of that kind (PBU, PBA, Relay-forward, Relay-reply) are lost."""
        self._faults.append(Fault(what, source, to, None, times, skip))

    def slow(
        self,
        what: str,
        delay: float,
        *,
        source: str | None = None,
        to: str | None = None,
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """Messages of that kind are `delay` seconds under way."""
        self._faults.append(Fault(what, source, to, delay, times, skip))

    # --- what the node does ---

    def come(self, number: int) -> None:
        """The node comes to a MAAR, and that one hears of it."""
        self._event(f"the node comes to maar{number}{self.hello}")
        self.attach(number)

    def renew(self) -> None:
        """The node's client renews."""
        self._event("the node says Renew")
        self.say(MessageType.RENEW)

    def give_back(self, anchored_at: int) -> None:
        """The node's client releases what it has from a MAAR."""
        self._event(f"the node says Release of all from maar{anchored_at}")
        self.release(anchored_at)

    # --- time and the wire ---

    def _later(self, delay: float, happens: Callable[[], None]) -> None:
        heappush(self._flight, (self.now + delay, next(self._order), happens))

    def _emit(self, packet: Packet) -> None:
        self.sent.append(packet)
        source, to = self.names.peer(packet.source), self.names.peer(packet.destination)
        what = self.names.short(packet).replace("(", " ").split()[0]
        fault = next((f for f in self._faults if f.hits(what, source, to)), None)
        delay = WIRE if fault is None else fault.delay
        arrow = "->" if fault is None else "-x" if delay is None else "~>"
        self._tell(f"{source} {arrow} {to}  {self.names.full(packet)}")
        if delay is not None:
            self._later(delay, lambda: self._arrives(packet))

    def _arrives(self, packet: Packet) -> None:
        source, to = self.names.peer(packet.source), self.names.peer(packet.destination)
        self._event(f"{to} <- {self.names.short(packet)} of {source}")
        self.deliver(packet)

    def told(self, packet: Packet) -> str:
        return self.names.short(packet)

    def go_on(self, seconds: float) -> None:
        """Let so much time pass, and all that happens in it."""
        end = self.now + seconds
        for _ in range(100_000):
            due, who = min(
                [(d, n) for n, m in self.maars.items() if (d := m.agent.deadline()) is not None]
                + [(d, 0) for d in self._cmd_deadlines()],
                default=(math.inf, 0),
            )
            flies = self._flight[0][0] if self._flight else math.inf
            if min(due, flies) > end:
                break
            self.now = max(self.now, min(due, flies))
            if flies <= due:
                heappop(self._flight)[2]()
            elif who:
                self._event(f"maar{who}: timer", quiet=True)
                maar = self.maars[who]
                self.run(maar, maar.agent.tick(self.now))
            else:
                self._event("cmd: timer", quiet=True)
                self._work()
        else:
            raise AssertionError("they never stop talking")
        self.now = end

    def reap(self) -> None:
        self._event("cmd: reaper", quiet=True)
        super().reap()

    # --- what a MAAR does ---

    def run(self, maar: Maar, actions: list[act.Action]) -> None:
        for action in actions:
            told = self._action(maar, action)
            if told is not None:
                self._tell(f"maar{maar.number} {told}")
            super().run(maar, [action])
            self._confirm_later(maar)

    def _confirm_later(self, maar: Maar) -> None:
        kernel = self._kernels[maar.number]

        def confirm() -> None:
            kernel.asked -= 1
            self._event(f"maar{maar.number}: kernel done", quiet=True)
            self.run_kernel(maar.number)

        while kernel.asked < len(maar.applies):
            kernel.asked += 1
            self._later(KERNEL, confirm)

    def _action(self, maar: Maar, action: act.Action) -> str | None:
        """What is told of an action; messages on the wire are told when they are sent."""
        match action:
            case act.Apply(_, changes):
                kernel = self._kernels[maar.number]
                return f"kernel: {self.names.changes(kernel.asks(changes))}"
            case act.SaveSession():
                return "saves the session"
            case act.ForgetSession():
                return "forgets the session"
            case act.SendToClient(data=data):
                return f"-> node  {self.names.reply(data)}"
            case act.SendRouterAdvertisement(destination=to, data=data) if to == NODE:
                return f"-> node  {self.names.advertisement(data)}"
            case act.SendNeighborSolicitation():
                return "-> node  NS"
        return None

    # --- what the CMD does ---

    def _commits(self) -> None:
        micros = self.clock()
        for line in self.names.rows(self._written, micros):
            self._tell(f"cmd commits {line}")
        self._written.clear()

    def check(self) -> None:
        """As in all worlds; and all that was to go wrong did."""
        super().check()
        assert [fault for fault in self._faults if fault.times] == []

    # --- what is written down ---

    def begin(self) -> None:
        """Write down what happens from here on."""
        self._event("")
        self._block = None
        self._lines.clear()
        self.names.forget_what_was_said()
        self._began = self.now

    def text(self) -> str:
        """All that has happened, and how it ends."""
        self._close()
        return "\n".join([*self._lines, *self._ends(), ""])

    def _ends(self) -> list[str]:
        found = {n: roles(self.roles(n), self.names) or "nothing" for n in self.maars}
        return [f"    end  maar{n}: {told}" for n, told in found.items()]

    def _event(self, what: str, *, quiet: bool = False) -> None:
        """Something goes in; what comes out is told after it. `quiet`: if nothing does, it is not told."""
        self._close()
        self._block = _Block(f"{self.now - self._began:7.3f}  {what}", quiet, self._owed(), [])

    def _tell(self, line: str) -> None:
        if self._block is not None:
            self._block.lines += _folded(line)

    def _close(self) -> None:
        block, self._block = self._block, None
        if block is None:
            return
        if done := block.owed - self._owed():
            maars = " ".join(f"maar{n}" for n in sorted(done))
            block.lines.append(f"{_OUT}cmd outbox: done with {maars}")
        if block.lines:
            self._lines += [block.head, *block.lines]
        elif not block.quiet:
            self._lines.append(f"{block.head}: nothing")

    def _owed(self) -> set[int]:
        return {maar for _, maar in self.store.tables.signals}


def _folded(line: str) -> list[str]:
    """The lines that one too long makes; nothing between two separators is torn apart."""
    lines = [_OUT]
    for part in re.split(r"(?<=[;,:]) ", line):
        if len(lines[-1]) + len(part) > _WIDTH:
            lines.append(_OUT + 4 * " ")
        lines[-1] += part + " "
    return [each.rstrip() for each in lines]


@dataclass
class _Block:
    """An event and what came of it; `owed` is to whom the CMD owed a PBU before."""

    head: str
    quiet: bool
    owed: set[int]
    lines: list[str]


class _Kernel:
    """What a MAAR has asked its kernel for; `asked` is how much of that it has not confirmed."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self.asked = 0

    def asks(self, changes: Iterable[Change]) -> Iterator[tuple[Change, Item | None]]:
        """Each change with what will have been there before it."""
        for change in changes:
            before = self.items.pop(change.item.key, None)
            if isinstance(change, Put):
                self.items[change.item.key] = change.item
            yield change, before


class DhcpLadder(Ladder):
    """The node speaks DHCPv6, and MAARs relay it."""

    answer = "Relay-reply"
    hello = " and says Rebind"

    def repeat(self) -> None:
        """The node's client sends its Rebind again."""
        self._event("the node says Rebind again")
        self._messages -= 1  # the same transaction id
        self.say(MessageType.REBIND)


class PmipLadder(Ladder, PmipWorld):
    """The node's frames are seen, and MAARs register it by PMIPv6."""

    answer = "PBA"
    hello = " and is seen"

    def seen(self) -> None:
        """A frame of the node is seen where it is."""
        self._event("the node is seen")
        self.show()
