"""Who has just come to our links, by the frames that are seen there: whom the CMD is asked about, and
who is first asked himself whether he is there.

A node is known by its link-layer address. One that is not known to be here is asked for at once. One
that has been seen elsewhere a moment ago may be known by a frame that is late: it is asked for when
it answers a neighbour probe. That a link went down ends nothing (RFC 8885 section 3.5, RFC 8987 S-2).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from dmm_wire.timers import Timers
from relay_maar.core.noticed import Ask, Gone, Pace, Place, Probe, Why
from relay_maar.core.rates import Rates
from relay_maar.core.settings import AttachSettings

MOST_OPEN: Final = 8192
"""Nodes of one link that something is being found out about; what comes beyond is passed over."""

MOST_REMEMBERED: Final = MOST_OPEN
"""Nodes of which it is remembered that they were seen, or left, a moment ago."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 32.0
"""Seconds until a node that the CMD refused to move is probed and asked for again, doubling."""

FIRST_DOUBT: Final = 0.1
"""Seconds until a node is probed that the CMD says a second time is elsewhere, doubling: the first time
it is at once. Where the CMD goes by our clock, that of the MAAR before may be ahead."""

STRANGER_PAUSE: Final = 30.0
"""Seconds for which a node is not asked for that the CMD does not know, or that has nothing."""

AGAIN: Final = 1.0
"""Seconds until it is asked again, at most, when the node has been seen once more meanwhile."""

PROBE_PAUSE: Final = 0.02
"""Seconds between two probes of a node, however many frames there are of it."""

RETRANS_TIMER: Final = 1.0
"""Seconds between the last probes of a node before it is given up (RFC 4861 section 10)."""

REACHABLE_TIME: Final = 30.0
"""Seconds for which a node that was seen is taken to be there (RFC 4861 section 10)."""


_T = TypeVar("_T")


_STILL: Final = frozenset({Why.KEEP, Why.END})


class _Doing(Enum):
    ASK = "ask"
    PROBE = "probe"
    PAUSE = "pause"


@dataclass(slots=True)
class _Entry:
    place: Place
    why: Why
    doing: _Doing
    seen: float
    transaction_id: bytes = b""
    times: int = 0
    asked: int = 0
    wait: float = 0.0
    probed: float = float("-inf")
    sent: float = float("-inf")
    is_news: bool = False
    pause: float = FIRST_PAUSE
    tries_again: bool = False
    doubt: float = 0.0
    doubted: bool = False
    goes_on: bool = False
    """It is probed in the middle of a question, which goes on if it answers."""


@dataclass(slots=True)
class _Question:
    """What it is about, and when it was asked first."""

    place: Place
    first: float
    repeated: bool = False


class Attaching:
    """All nodes that something is being found out about. What becomes of each is counted in `counters`.

    `is_here` says whether a node is known to be at a place, `transaction_id` makes ids of questions.
    """

    def __init__(
        self,
        settings: AttachSettings,
        pace: Pace,
        is_here: Callable[[Place], bool],
        transaction_id: Callable[[], bytes],
        counters: Counter[str],
    ) -> None:
        self._settings = settings
        self._pace = pace
        self._is_here = is_here
        self._transaction_id = transaction_id
        self._counters = counters
        self._entries: dict[bytes, _Entry] = {}
        self._asked: OrderedDict[bytes, _Question] = OrderedDict()
        """By transaction id, also those that are not open any more."""
        self._reached = float("-inf")
        """The CMD has come as far as the questions that were first asked then."""
        self._took = pace.first
        self._patience = float("-inf")
        """How long it took for the last answer of which that is known, and until when the next one may come."""
        self._timers: Timers[bytes] = Timers()
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._left: OrderedDict[bytes, tuple[float, Place]] = OrderedDict()
        """When a node left us for another MAAR or another link, and where it had been."""
        self._away: OrderedDict[bytes, None] = OrderedDict()
        """Nodes that left without a word: their next frame is a first one."""
        self._open_on: Counter[str] = Counter()
        """How many of the entries are for each link."""
        self._arriving: Counter[str] = Counter()
        """How many nodes come to each link."""
        self._rates = Rates(settings.rate, settings.burst)
        self.stirred: set[str] = set()
        """The links on which :meth:`quiet` is another than when somebody last looked."""

    def __len__(self) -> int:
        return len(self._entries)

    # --- what is seen, and what others say ---

    def seen(self, place: Place, trigger: str, now: float) -> None:
        """A frame of a node. `trigger` is its kind: "na" for an answer to a probe, "hook" for the
        word of an access point."""
        mac = place.link_layer
        _remember(self._seen, mac, now)
        entry = self._entries.get(mac)
        if entry is not None and entry.place.interface == place.interface:
            self._seen_again(entry, place, trigger, now)
        elif mac not in self._away and self._is_here(place):
            if entry is not None:
                self._drop(entry)  # it was thought to have gone to another link
        elif trigger not in self._settings.triggers:
            self._counters["attach.not-a-trigger"] += 1
        else:
            self._came(place, trigger, now)

    def _came(self, place: Place, trigger: str, now: float) -> None:
        mac = place.link_layer
        if (entry := self._entries.get(mac)) is not None:
            self._left_at(entry.place, now)
            self._drop(entry)
        self._away.pop(mac, None)
        when, before = self._left.get(mac, (float("-inf"), place))
        if place.is_guessed:
            shown = place.address if place.address != place.link_local else before.address
            place = Place(place.interface, mac, before.link_local, shown)
        if trigger != "hook" and now < when + self._settings.late:
            self._counters["attach.late"] += 1
            self._open(place, Why.ARRIVAL, _Doing.PROBE, now)
        else:
            self._ask(self._open(place, Why.ARRIVAL, _Doing.ASK, now), now)

    def _seen_again(self, entry: _Entry, place: Place, trigger: str, now: float) -> None:
        if entry.place.is_guessed or not place.is_guessed:
            entry.place = place
        entry.seen = now
        if entry.doing is not _Doing.PROBE:
            self._counters["attach.debounced"] += 1
            if entry.doing is _Doing.ASK and entry.times and self._pace.dated:
                # What is asked again from now on tells more than before, and is another question.
                entry.is_news, entry.times, entry.wait = True, 1, min(entry.wait, AGAIN)
                due = self._timers.when(place.link_layer) or now
                self._timers.set(place.link_layer, min(due, max(now, entry.sent + AGAIN)))
        elif trigger not in ("na", "hook") and entry.why not in _STILL and not entry.goes_on:
            # The probes that it did not answer may be older than its coming.
            self._counters["attach.late"] += 1
            entry.times = 0
            self._timers.set(place.link_layer, max(now, entry.probed + PROBE_PAUSE))
        elif entry.why is Why.DETACH:
            self._counters["attach.stayed"] += 1
            self._drop(entry)
        else:
            self._counters["attach.answered-probe"] += 1
            if entry.goes_on:
                entry.doing, entry.goes_on, entry.times = _Doing.ASK, False, entry.asked
                self._timers.set(place.link_layer, now)
            else:
                self._ask(entry, now)

    def came(self, interface: str, link_layer: bytes) -> None:
        """The CMD says, by whatever message, that the node is here: nothing is to be found out any more."""
        if link_layer in self._away:
            del self._away[link_layer]
            self.stirred.add(interface)
        entry = self._entries.get(link_layer)
        if entry is not None and entry.why is Why.ARRIVAL and entry.doing is not _Doing.ASK:
            self._drop(entry)

    def left(self, place: Place, now: float) -> None:
        """The node of this place is elsewhere now, as a PBU or a frame says. It is asked itself: it may be
        back already, and the PBU may have crossed with its return."""
        self._left_at(place, now)
        self._away.pop(place.link_layer, None)
        entry = self._entries.get(place.link_layer)
        if entry is not None and entry.why is not Why.ARRIVAL:
            self._drop(entry)
            entry = None
        if entry is None:
            self._open(place, Why.ARRIVAL, _Doing.PROBE, now)

    def _left_at(self, place: Place, now: float) -> None:
        _remember(self._left, place.link_layer, (now, place))

    def look_after(self, place: Place, why: Why, now: float) -> None:
        """Find out whether the node is still here."""
        if place.link_layer in self._entries:
            return
        recent = now <= self.last_seen(place.link_layer) + REACHABLE_TIME
        if why in _STILL and recent:
            self._ask(self._open(place, why, _Doing.ASK, now), now)
        else:
            self._open(place, why, _Doing.PROBE, now)

    def last_seen(self, link_layer: bytes) -> float:
        """When a frame of this node was seen last, for all that is remembered."""
        return self._seen.get(link_layer, float("-inf"))

    def is_away(self, link_layer: bytes) -> bool:
        """Whether this node left without a word."""
        return link_layer in self._away

    def quiet(self, interface: str) -> set[bytes]:
        """Whose packets on this link say nothing new, because of what is being found out."""
        return {mac for mac, e in self._entries.items() if e.place.interface == interface}

    def knows(self, place: Place) -> bool:
        """Whether something is being found out about this node on this link."""
        entry = self._entries.get(place.link_layer)
        return entry is not None and entry.place.interface == place.interface

    def arriving(self, interface: str) -> int:
        """How many nodes may be coming to this link."""
        return self._arriving[interface]

    def away(self) -> set[bytes]:
        """The nodes that left without a word."""
        return set(self._away)

    # --- what the CMD says ---

    def answered(self, transaction_id: bytes, now: float) -> Place | None:
        """The place that the question with this answer is, or was, about; None where it is none of ours. A
        late answer to one that is not open any more still says where the CMD takes the node to be."""
        asked = self._asked.get(transaction_id)
        if asked is None:
            return None
        self._reached = max(self._reached, asked.first)
        if not asked.repeated:  # else nobody knows which of them is answered (RFC 6298 section 3)
            self._took = min(max(now - asked.first, self._pace.first), self._pace.longest)
        self._patience = now + self._took
        return asked.place

    def is_open(self, transaction_id: bytes) -> bool:
        """Whether the answer to this question is waited for."""
        return self._waiting(transaction_id) is not None

    def settled(self, transaction_id: bytes) -> None:
        """The CMD told where the node is, and that was taken in."""
        if (entry := self._waiting(transaction_id)) is not None:
            self._drop(entry)

    def refused(self, transaction_id: bytes, now: float) -> None:
        """The CMD does not move the node, now: it is asked again if the node is still here then."""
        if (entry := self._waiting(transaction_id)) is not None:
            self._wait(entry, entry.pause, now, tries_again=True)
            entry.pause = min(2 * entry.pause, LONGEST_PAUSE)

    def doubted(self, transaction_id: bytes, now: float) -> None:
        """The CMD knows of a later visit than the frame: the node itself is asked."""
        if (entry := self._waiting(transaction_id)) is not None:
            entry.doubted = True
            if entry.doubt:
                self._wait(entry, entry.doubt, now, tries_again=True)
            else:
                self._probe(entry, now)
            entry.doubt = min(max(2 * entry.doubt, FIRST_DOUBT), LONGEST_PAUSE)

    def again(self, transaction_id: bytes, now: float) -> None:
        """The CMD says what was wrong with the question: it is asked otherwise at once."""
        if (entry := self._waiting(transaction_id)) is not None:
            if entry.goes_on:
                entry.doing, entry.goes_on, entry.times = _Doing.ASK, False, entry.asked
            entry.sent = float("-inf")  # it was seen for this one
            self._timers.set(entry.place.link_layer, now)

    def unknown(self, transaction_id: bytes, now: float) -> None:
        """There is nothing to serve the node with: DHCPv6 will say when there is."""
        if (entry := self._waiting(transaction_id)) is not None:
            self._wait(entry, STRANGER_PAUSE, now)

    def _waiting(self, transaction_id: bytes) -> _Entry | None:
        """The node that waits for the answer to this question."""
        entry = self._entries.get(self._asked[transaction_id].place.link_layer)
        is_open = entry is not None and (entry.doing is _Doing.ASK or entry.goes_on)
        return entry if is_open and entry and entry.transaction_id == transaction_id else None

    # --- time ---

    def deadline(self) -> float | None:
        """When :meth:`due` has something to do."""
        return self._timers.deadline()

    def due(self, now: float) -> list[Ask | Probe | Gone]:
        """What is to be sent now, and who is gone."""
        found: list[Ask | Probe | Gone] = []
        for mac in self._timers.due(now):
            entry = self._entries[mac]
            match entry.doing:
                case _Doing.ASK if entry.times and self._is_in_turn(entry, now):
                    self._counters["attach.in-turn"] += 1
                    self._timers.set(mac, self._patience)
                case _Doing.ASK if entry.times < self._pace.times:
                    found += self._ask_now(entry, now)
                case _Doing.ASK:
                    self._counters["attach.unanswered"] += 1
                    self._drop(entry)
                case _Doing.PROBE if entry.times < self._settings.probes:
                    entry.times, entry.probed = entry.times + 1, now
                    self._counters["attach.probed"] += 1
                    self._timers.set(mac, now + self._probe_interval(entry))
                    found.append(Probe(entry.place))
                case _Doing.PROBE:
                    found += self._silent(entry)
                case _Doing.PAUSE if entry.tries_again:
                    self._probe(entry, now)
                    found += self.due(now)
                case _Doing.PAUSE:
                    self._drop(entry)
        return found

    def _ask_now(self, entry: _Entry, now: float) -> list[Ask | Probe | Gone]:
        mac = entry.place.link_layer
        if (earliest := self._rates.earliest(mac)) > now:
            self._timers.set(mac, earliest)
            return []
        if not self._pace.dated and entry.times and entry.seen <= entry.sent:
            entry.asked = entry.times
            self._probe(entry, now)
            entry.goes_on = True
            return self.due(now)
        return [self._transmit(entry, now)]

    def _is_in_turn(self, entry: _Entry, now: float) -> bool:
        """Whether the question may still wait at the CMD, which has answered a moment ago, and none that
        was asked later. Of a crowd most do: to repeat them would make the others wait longer."""
        return entry.sent >= self._reached and now < self._patience

    def _probe_interval(self, entry: _Entry) -> float:
        """Where silence ends what the node has, one that sleeps has the time to wake up."""
        interval = self._settings.probe_interval
        return max(interval, RETRANS_TIMER) if entry.why is Why.END else interval

    def _silent(self, entry: _Entry) -> list[Ask | Probe | Gone]:
        self._drop(entry)
        self._counters[f"attach.silent-{entry.why.value}"] += 1
        if entry.why is Why.ARRIVAL:
            return []
        _remember(self._away, entry.place.link_layer, None)
        return [Gone(entry.place, entry.why)]

    # --- the parts ---

    def _open(self, place: Place, why: Why, doing: _Doing, now: float) -> _Entry:
        entry = _Entry(place, why, doing, now)
        if self._open_on[place.interface] >= MOST_OPEN:
            self._counters["attach.full"] += 1
            return entry
        self._entries[place.link_layer] = entry
        self._open_on[place.interface] += 1
        self._arriving[place.interface] += why is Why.ARRIVAL
        self.stirred.add(place.interface)
        self._timers.set(place.link_layer, now)
        return entry

    def _ask(self, entry: _Entry, now: float) -> None:
        mac = entry.place.link_layer
        if self._entries.get(mac) is not entry:
            return
        if not self._rates.may_ask(entry.place.interface, now, spare=entry.why in _STILL):
            self._counters["attach.limited"] += 1
            self._drop(entry)
            return
        entry.doing, entry.times, entry.wait, entry.seen = _Doing.ASK, 0, self._pace.first, now
        entry.is_news = True
        self._timers.set(mac, now)

    def _transmit(self, entry: _Entry, now: float) -> Ask:
        if entry.is_news:
            entry.transaction_id = self._transaction_id()
            _remember(self._asked, entry.transaction_id, _Question(entry.place, now))
        elif (asked := self._asked.get(entry.transaction_id)) is not None:
            asked.repeated = True
        entry.times, entry.sent, entry.is_news = entry.times + 1, now, False
        mac = entry.place.link_layer
        self._rates.asked(mac, now)
        self._counters["attach.asked" if entry.times == 1 else "attach.asked-again"] += 1
        self._timers.set(mac, now + entry.wait)
        entry.wait = min(2 * entry.wait, self._pace.longest)
        known = entry.why in _STILL and not entry.doubted
        return Ask(entry.place, entry.transaction_id, now - entry.seen, known, entry.times)

    def _probe(self, entry: _Entry, now: float) -> None:
        entry.doing, entry.goes_on, entry.times = _Doing.PROBE, False, 0
        self._timers.set(entry.place.link_layer, now)

    def _wait(self, entry: _Entry, pause: float, now: float, *, tries_again: bool = False) -> None:
        entry.doing, entry.goes_on, entry.tries_again = _Doing.PAUSE, False, tries_again
        self._timers.set(entry.place.link_layer, now + pause)

    def _drop(self, entry: _Entry) -> None:
        self._timers.cancel(entry.place.link_layer)
        del self._entries[entry.place.link_layer]
        self._open_on[entry.place.interface] -= 1
        self._arriving[entry.place.interface] -= entry.why is Why.ARRIVAL
        self.stirred.add(entry.place.interface)


def _remember(where: OrderedDict[bytes, _T], mac: bytes, what: _T) -> None:
    where[mac] = what
    where.move_to_end(mac)
    if len(where) > MOST_REMEMBERED:
        where.popitem(last=False)
