"""A part of a report: its title, the names of its columns, and rows of text; the first column is text, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from rich.table import Table

Rows: TypeAlias = Iterator[tuple[str, ...]]
Section: TypeAlias = tuple[str, tuple[str, ...], Rows]


def table(title: str, columns: Sequence[str], rows: Rows) -> Table:
    """For a terminal."""
    made = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        made.add_column(name, justify="right" if index else "left")
    for row in rows:
        made.add_row(*row)
    return made
