"""How answers are written: a table for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from shutil import get_terminal_size
from textwrap import wrap
from typing import Annotated

import typer

from dhcp_cmd.audit import Answer, Value


class Format(StrEnum):
    """What an answer looks like."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[
    Format,
    typer.Option("--format", "-f", help="table, json (a list of objects) or csv (with a header)."),
]


def write(answer: Answer, form: Format) -> None:
    """Write an answer to standard output."""
    if form is Format.JSON:
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif form is Format.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.columns)
        writer.writerows(answer.rows)
    else:
        cells = [[_cell(value) for value in row] for row in answer.rows]
        width = get_terminal_size().columns if sys.stdout.isatty() else None
        for line in table(answer.columns, cells, width):
            print(line)


def _cell(value: Value) -> str:
    """What a cell shows: nothing for NULL, and nothing that would move a terminal's cursor."""
    text = "" if value is None else str(value)
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None
) -> Iterator[str]:
    """The lines of a table: aligned columns, a line for each row. Where that is wider than `width` (None: no limit),
    each row is written as a record instead, for a table broken in its cells cannot be read and not be copied.
    """
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    if width is not None and rows and sum(widths) + 2 * (len(widths) - 1) > width:
        for row in rows:
            yield from _record(columns, row, width)
        return
    for row in (columns, *rows):
        yield "  ".join(map(str.ljust, row, widths)).rstrip()
    if not rows:
        yield "(none)"


def _record(columns: Sequence[str], row: Sequence[str], width: int) -> Iterator[str]:
    """One row as `name: value` of what is not empty, in lines that fit; a value is broken at spaces, if at all."""
    line = ""
    for name, value in zip(columns, row, strict=True):
        if not value:
            continue
        item = f"{name}: {value}"
        if line and len(line) + 2 + len(item) <= width:
            line = f"{line}  {item}"
            continue
        if line:
            yield line
        indent = "    " if line else ""
        *full, line = wrap(
            item,
            width,
            initial_indent=indent,
            subsequent_indent="        ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from full
    yield line
