"""The figures of RFC 8885 sections 3.1 to 3.4, and which of their messages is which one on the wire.

Where a MAAR is fed by DHCPv6 its Relay-forward stands for the PBU that it would send to the CMD, the Relay-reply for
the CMD's PBA: PREVIOUS_MAAR says what the Previous MAAR option says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from dmm_wire import dmm
from dmm_wire import mobility as mh
from lab.messages import Message
from lab.names import CMD_NAME

S_MAAR, P_MAAR, CMD = "S-MAAR", "P-MAAR", "CMD"

_STANDS_FOR = {"Relay-forward": "PBU", "Relay-reply": "PBA"}
_NEW: dict[type[object], str] = {
    mh.AnchoredPrefixOption: "Anchored Prefix",
    mh.LocalPrefix: "Local Prefix",
    mh.PreviousMaarOption: "Previous MAAR",
    mh.ServingMaar: "Serving MAAR",
    mh.DlifLinkLocal: "DLIF link-local",
    mh.DlifLinkLayer: "DLIF link-layer",
    dmm.PreviousMaar: "PREVIOUS_MAAR",
}


@dataclass(frozen=True, slots=True)
class Arrow:
    """A message of a figure: PBU or PBA, from whom to whom; `new`: the figure has it with a new mobility option (*)."""

    name: str
    sender: str
    receiver: str
    new: bool = False

    @property
    def kind(self) -> tuple[str, str, str]:
        """Name, sender and receiver."""
        return self.name, self.sender, self.receiver

    def __str__(self) -> str:
        return f"{self.sender} → {self.receiver} {self.name}{'*' if self.new else ''}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure: rows of arrows. What is in a row comes after all of the rows above, in any order among itself.

    `beside`: what is sent besides.
    """

    name: str
    title: str
    rows: tuple[tuple[Arrow, ...], ...]
    beside: tuple[Arrow, ...] = ()

    @property
    def arrows(self) -> tuple[Arrow, ...]:
        """All of its arrows, from the top."""
        return tuple(arrow for row in self.rows for arrow in row)


@dataclass(frozen=True, slots=True)
class Told:
    """A message of the wire and its arrow; None where the figure has none."""

    message: Message
    arrow: Arrow | None
    beside: bool
    """Without an arrow, but to be expected."""
    peer: str
    """The P-MAAR that it was exchanged with; empty for one between S-MAAR and CMD."""


_REGISTER = Arrow("PBU", S_MAAR, CMD)
_UPDATE = Arrow("PBU", CMD, P_MAAR, new=True)
_AGREE = Arrow("PBA", P_MAAR, CMD, new=True)
_ANSWER = Arrow("PBA", CMD, S_MAAR, new=True)
_PLAIN_ANSWER = Arrow("PBA", CMD, S_MAAR)

ATTACH = Figure(
    "RFC 8885 figure 1",
    "section 3.1, first attachment",
    ((_REGISTER,), (_PLAIN_ANSWER,)),
)
_MOVES = {
    "relay": Figure(
        "RFC 8885 figure 2",
        "section 3.2, the CMD as relay",
        ((_REGISTER,), (_UPDATE,), (_AGREE,), (_ANSWER,)),
    ),
    "locator": Figure(
        "RFC 8885 figure 3",
        "section 3.3, the CMD as locator; beside it the answer that the S-MAAR waits for",
        ((_REGISTER,), (_UPDATE,), (Arrow("PBA", P_MAAR, S_MAAR), _AGREE)),
        # The node, and the S-MAAR, wait for an answer. The RFC's CMD does without one.
        beside=(_PLAIN_ANSWER,),
    ),
    "proxy": Figure(
        "RFC 8885 figure 4",
        "section 3.4, the CMD as proxy",
        ((_REGISTER,), (_ANSWER, _UPDATE), (_AGREE,)),
    ),
    "direct": Figure(
        "mode direct",
        "in no figure of RFC 8885: as its figure 4, but the PBUs are the S-MAAR's",
        (
            (_REGISTER,),
            (_ANSWER,),
            (Arrow("PBU", S_MAAR, P_MAAR, new=True),),
            (Arrow("PBA", P_MAAR, S_MAAR, new=True),),
        ),
    ),
}


def of_step(mode: str, *, moved: bool) -> Figure:
    """The figure of a mode's move, or of a first attachment, which is the same in all modes."""
    return _MOVES[mode] if moved else ATTACH


def told(
    figure: Figure, messages: Sequence[Message], serving: str, anchors: Iterable[str]
) -> list[Told]:
    """The registration at the CMD with its answer, and all PBUs and PBAs, in the order of time; names of MAARs as in
    messages."""
    roles = {**dict.fromkeys(anchors, P_MAAR), serving: S_MAAR, CMD_NAME: CMD}
    exchange = _exchange(messages, serving)
    found = []
    for message in messages:
        if message.mobility is None and message not in exchange:
            continue
        ends = roles.get(message.sender, ""), roles.get(message.receiver, "")
        kind = (_STANDS_FOR.get(message.name, message.name), *ends)
        arrow = next((each for each in figure.arrows if each.kind == kind), None)
        beside = any(each.kind == kind for each in figure.beside)
        peers = {message.sender, message.receiver} - {serving, CMD_NAME}
        found.append(Told(message, arrow, beside, next(iter(peers), "")))
    return found


def by_turns(seen: Iterable[Told]) -> tuple[list[Told], list[Told]]:
    """Each message of a figure when it was said first, with all that is not in it; and what was said again later: what
    was repeated, or longer lifetimes."""
    first: list[Told] = []
    later: list[Told] = []
    said: set[tuple[str, str, str]] = set()
    for each in seen:
        kind = each.message.name, each.message.sender, each.message.receiver
        is_again = kind in said and (each.arrow is not None or each.beside)
        (later if is_again else first).append(each)
        said.add(kind)
    return first, later


def is_renewal(message: Message) -> bool:
    """Whether a PBU tells of lifetimes, and not of a move (RFC 5213 section 8.4)."""
    update = message.mobility
    return isinstance(update, mh.BindingUpdate) and any(
        isinstance(option, mh.HandoffIndicator)
        and option.value == mh.HandoffIndicatorValue.NOT_CHANGED
        for option in update.options
    )


def is_followed(figure: Figure, seen: Sequence[Told], anchors: Sequence[str]) -> bool:
    """Whether each arrow was seen, for each P-MAAR if it has one, after all that is above it for that P-MAAR; with an
    option of RFC 8885 where the figure has a new one; and no other message."""
    if any(each.arrow is None and not each.beside for each in seen):
        return False
    if any(each.arrow and each.arrow.new and not new_options(each.message) for each in seen):
        return False
    times: dict[tuple[Arrow, str], int] = {}
    for each in seen:
        if each.arrow is not None:
            times.setdefault((each.arrow, each.peer), each.message.at)
    rows = [list(_expected(row, anchors)) for row in figure.rows]
    if any(key not in times for row in rows for key in row):
        return False
    return all(
        times[above] <= times[below]
        for number, row in enumerate(rows)
        for above, below in product(row, (key for later in rows[number + 1 :] for key in later))
        if "" in (above[1], below[1]) or above[1] == below[1]
    )


def new_options(message: Message) -> list[str]:
    """The options of RFC 8885 in a message, or what stands for them, each kind once."""
    parts: tuple[object, ...] = message.mobility.options if message.mobility else message.suboptions
    return list(dict.fromkeys(_NEW[type(part)] for part in parts if type(part) in _NEW))


def _expected(row: Iterable[Arrow], anchors: Iterable[str]) -> Iterator[tuple[Arrow, str]]:
    for arrow in row:
        peers = anchors if P_MAAR in (arrow.sender, arrow.receiver) else ("",)
        yield from ((arrow, peer) for peer in peers)


def _exchange(messages: Sequence[Message], serving: str) -> list[Message]:
    """The Relay-reply that begins the visit, and the Relay-forward that it answers, when that was first sent."""
    for reply in messages:
        visit = any(isinstance(each, dmm.Visit) for each in reply.suboptions)
        if visit and (reply.name, reply.receiver) == ("Relay-reply", serving):
            asked = [m for m in messages if m.name == "Relay-forward" and _is_answer(reply, m)]
            return [*asked[:1], reply]
    return []


def _is_answer(reply: Message, asked: Message) -> bool:
    one, other = reply.dhcpv6, asked.dhcpv6
    return one is not None and other is not None and one.transaction_id == other.transaction_id
