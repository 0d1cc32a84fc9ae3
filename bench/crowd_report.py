"""What was found of nodes that move at once: in a whole domain, and at MAARs alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench import crowd_moves, maars_alone
from bench.bars import Bar
from bench.sections import Section, table

PARTS: Final = ("domain", "maars")


@dataclass(slots=True)
class Crowds:
    """What there is so far."""

    domain: Sequence[crowd_moves.Result] = ()
    maars: Sequence[maars_alone.Result] = ()

    def sections(self) -> Iterator[Section]:
        """The tables."""
        if self.domain:
            rows = (each.row() for each in self.domain)
            yield crowd_moves.TITLE, crowd_moves.COLUMNS, rows
        if self.maars:
            rows = (each.row() for each in self.maars)
            yield maars_alone.TITLE, maars_alone.COLUMNS, rows

    def notes(self) -> Sequence[str]:
        """What else is to be known."""
        return crowd_moves.LEGEND if self.domain else ()

    def bars(self) -> Iterator[Bar]:
        """What this run says of them."""
        yield from crowd_moves.bars(self.domain)
        if self.maars:
            wrong = sum(len(each.wrong) for each in self.maars if each.version != "beside")
            yield Bar(
                "crowds at MAARs alone: nodes wrong, stale routes", str(wrong), "0", not wrong
            )

    def as_json(self) -> dict[str, Any]:
        """All that was measured; seconds."""
        return {
            "domain": [each.as_json() for each in self.domain],
            "maars": [asdict(each) for each in self.maars],
        }

    def complaints(self) -> Iterator[str]:
        """The first things that were wrong of each kind of move."""
        wrong = [(each.move, each.nodes, each.wrong) for each in self.domain]
        wrong += [(each.move, each.nodes, each.wrong) for each in self.maars]
        for move, nodes, lines in wrong:
            for line in lines[:3]:
                yield f"wrong, {move} of {nodes:,}: {line}"


def told(crowds: Crowds, console: Console) -> bool:
    """Print the figures. Returns whether all bars are met."""
    for section in crowds.sections():
        console.print(table(*section))
    for line in (*crowds.notes(), *crowds.complaints(), *maars_alone.compared(crowds.maars)):
        console.print(line)
    bars = list(crowds.bars())
    for bar in bars:
        console.print(f"{bar.what}: {bar.found} ({bar.wanted}), {'met' if bar.met else 'missed'}")
    return all(bar.met for bar in bars)


def write(crowds: Crowds, directory: Path) -> None:
    """Put all that was measured into crowd.json."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "crowd.json").write_text(json.dumps(crowds.as_json(), indent=1) + "\n")
