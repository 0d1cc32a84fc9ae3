"""The stories that are recorded, of each mode; recorded/README.md says how to read one. After a change that is meant,
record all of them anew, and read the difference:

    python -m tests.maar.core.stories
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from dmm_wire.dmm import SignallingMode
from tests.maar.core.ladder_world import DhcpLadder, Ladder, PmipLadder

RECORDED: Final = Path(__file__).with_name("recorded")
COUNTS: Final = (1, 2, 8)

DIRECT, RELAY = SignallingMode.DIRECT, SignallingMode.RELAY
LOCATOR, PROXY = SignallingMode.LOCATOR, SignallingMode.PROXY

LONG: Final = 20.0
"""Seconds after which all has been said."""


class Story(NamedTuple):
    """The node has been at so many MAARs, and then that happens."""

    title: str
    anchors: int
    happens: Callable[[Ladder, int], None]
    before: float = 60.0
    """Seconds at the last of them."""


class Cast(NamedTuple):
    """The file of the recording, and who plays."""

    name: str
    mode: SignallingMode
    kind: type[Ladder]

    @property
    def path(self) -> Path:
        return RECORDED / f"{self.name}.txt"


CASTS: Final = (
    *(Cast(mode.name.lower(), mode, DhcpLadder) for mode in (DIRECT, RELAY, LOCATOR, PROXY)),
    *(Cast(f"{mode.name.lower()}-pmip", mode, PmipLadder) for mode in (RELAY, LOCATOR, PROXY)),
)


# --- what happens ---


def comes(world: Ladder, count: int) -> None:
    world.come(count + 1)
    world.go_on(LONG)


def loses(world: Ladder, count: int) -> None:
    """To the odd ones the first PBU is lost, from the even ones the first PBA; of maar1 both."""
    for number in range(1, count + 1, 2):
        world.lose("PBU", to=f"maar{number}")
    for number in (1, *range(2, count + 1, 2)):
        world.lose("PBA", source=f"maar{number}")
    comes(world, count)


def loses_five(world: Ladder, count: int) -> None:
    """Five transmissions are answered in vain, with all copies; the sixth comes after 31 s."""
    copies = 2 if world.mode is LOCATOR else 1
    world.lose("PBA", source="maar1", times=5 * copies)
    world.come(count + 1)
    world.go_on(2 * LONG)


def is_overtaken(world: Ladder, count: int) -> None:
    """All PBUs of the first visit arrive after those of the second."""
    for number in range(1, count + 1):
        world.slow("PBU", 0.8, to=f"maar{number}")
    world.come(count + 1)
    world.go_on(0.4)
    world.come(count + 2)
    world.go_on(LONG)


def pba_overtakes(world: Ladder, count: int) -> None:
    """The first PBA arrives while the second PBU is under way."""
    world.slow("PBA", 1.1, source="maar1")
    world.slow("PBU", 0.5, to="maar1", skip=1)
    comes(world, count)


def again_overtakes(world: Ladder, count: int) -> None:
    """The first PBU arrives when the second has been answered."""
    world.slow("PBU", 1.5, to="maar1")
    comes(world, count)


def again_too_late(world: Ladder, count: int) -> None:
    """The first PBU is lost; the second arrives when the node has moved on, and the anchor knows."""
    world.lose("PBU", to="maar1")
    world.slow("PBU", 2.0, to="maar1")
    world.come(count + 1)
    world.go_on(1.5)
    world.come(count + 2)
    world.go_on(LONG)


def slow_answer(world: Ladder, count: int) -> None:
    """Whatever the P-MAARs say is there before the CMD's answer."""
    world.slow(world.answer, 0.3, source="cmd", to=f"maar{count + 1}")
    comes(world, count)


def returns(world: Ladder, count: int) -> None:
    world.come(1)
    world.go_on(LONG)


def releases(world: Ladder, count: int) -> None:
    world.give_back(1)
    world.go_on(LONG)
    world.give_back(2)
    world.go_on(LONG)


def renews(world: Ladder, count: int) -> None:
    world.renew()
    world.go_on(LONG)


def goes_on(world: Ladder, count: int) -> None:
    """Three quarters of the registration's lifetime are over in a minute."""
    assert isinstance(world, PmipLadder)
    world.go_on(60.0)
    world.seen()
    world.go_on(60.0)


def is_gone(world: Ladder, count: int) -> None:
    """The node has left, and nobody has said so."""
    assert isinstance(world, PmipLadder)
    world.awake = False
    for _ in range(1100):
        world.go_on(1.0)
        world.reap()


def loses_registration(world: Ladder, count: int) -> None:
    world.lose("PBU", to="cmd")
    world.lose("PBA", source="cmd")
    comes(world, count)


def asks_again(world: Ladder, count: int) -> None:
    """The CMD has committed, and its answer is lost: the client says the same again."""
    assert isinstance(world, DhcpLadder)
    world.lose("Relay-reply")
    world.come(count + 1)
    world.go_on(1.0)
    world.repeat()
    world.go_on(LONG)


def loses_copies(world: Ladder, count: int) -> None:
    """The S-MAAR hears no PBA, and the CMD both."""
    world.lose("PBA", to=f"maar{count + 1}", source="maar1")
    world.lose("PBA", to=f"maar{count + 1}", source="maar2")
    comes(world, count)


def is_late(world: Ladder, count: int) -> None:
    """A PBA comes after the time-out of 200 ms."""
    world.slow("PBA", 0.3, source="maar1")
    comes(world, count)


def stories(cast: Cast) -> Iterator[Story]:
    """Those of one mode."""
    for count in COUNTS:
        yield Story("nothing is lost", count, comes)
        yield Story("PBUs and PBAs are lost", count, loses)
        yield Story("the PBUs of the next visit overtake", count, is_overtaken)
    yield Story("five PBAs are lost", 1, loses_five)
    yield Story("a PBA overtakes the PBU that is sent again", 1, pba_overtakes)
    yield Story("a PBU that is sent again overtakes the first", 1, again_overtakes)
    yield Story("a PBU that is sent again arrives after the next visit's", 2, again_too_late)
    yield Story("the CMD's answer is slow", 2, slow_answer)
    yield Story("the node returns to maar1", 2, returns)
    if cast.mode is LOCATOR:
        yield Story("the copies to the S-MAAR are lost", 2, loses_copies)
    if cast.mode is RELAY:
        yield Story("a PBA comes after the time-out", 2, is_late)
    if cast.kind is DhcpLadder:
        yield Story("the Relay-reply is lost", 1, asks_again)
        yield Story("the node renews after ten minutes", 2, renews, 600.0)
        yield Story("the node releases what it has", 2, releases)
    else:
        yield Story("the registration and its answer are lost", 1, loses_registration)
        yield Story("the node stays, and is registered again", 2, goes_on, 2600.0)
        yield Story("the node is gone", 2, is_gone, 2600.0)


def name(story: Story) -> str:
    plural = "" if story.anchors == 1 else "s"
    return f"{story.anchors} P-MAAR{plural}: {story.title}"


def play(cast: Cast, story: Story) -> Ladder:
    """It happens."""
    world = cast.kind(cast.mode, story.anchors + 2)
    for number in range(1, story.anchors + 1):
        world.come(number)
        world.go_on(60.0 if number < story.anchors else story.before)
    world.begin()
    story.happens(world, story.anchors)
    return world


def recorded(cast: Cast) -> dict[str, str]:
    """What is in the file, by the names of the stories."""
    parts = re.split(r"^== (.*) ==\n", cast.path.read_text(), flags=re.MULTILINE)
    return {n: text.rstrip("\n") + "\n" for n, text in zip(parts[1::2], parts[2::2], strict=True)}


def record(cast: Cast) -> None:
    """Write the file anew."""
    told = []
    for story in stories(cast):
        world = play(cast, story)
        world.check()
        told.append(f"== {name(story)} ==\n{world.text()}")
    cast.path.write_text("\n".join(told))


if __name__ == "__main__":
    RECORDED.mkdir(exist_ok=True)
    for each in CASTS:
        record(each)
        print(each.path.relative_to(Path.cwd()))
