"""The message ladder: one line per message between the lifelines of the parties, with the time of its packet."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from lab.messages import Message
from lab.names import COLUMNS

_TIME = 9
_SPACING = 9
_FIRST = _TIME + 4
_DETAIL = _FIRST + _SPACING * (len(COLUMNS) - 1) + 4
_STYLES = {
    "PBU": "bold magenta",
    "PBA": "magenta",
    "Relay-forward": "bold cyan",
    "Relay-reply": "cyan",
    "RA": "green",
    "RS": "green",
    "MLDv2 report": "dim",
}


def head() -> Text:
    """The names over the lifelines."""
    line = [" "] * (_DETAIL + 2)
    _write(line, 0, "       ms")
    for index, name in enumerate(COLUMNS):
        _write(line, _x(index) - len(name) // 2, name)
    return Text("".join(line).rstrip(), style="bold")


class Ladder:
    """Turns messages into lines as they come. Times are milliseconds since `start` (nanoseconds), lines at most `width`
    columns wide. Messages that repeat the one before, such as MLD reports sent twice, share its line; so the last
    message waits for the next one, or for `flush`.
    """

    def __init__(self, start: int, width: int) -> None:
        self._start = start
        self._width = width
        self._last: Message | None = None
        self._count = 0

    def feed(self, messages: Iterable[Message]) -> list[Text]:
        """The lines that are complete now."""
        lines: list[Text] = []
        for message in messages:
            if self._last is not None and _repeats(self._last, message):
                self._count += 1
                continue
            lines += self.flush()
            self._last, self._count = message, 1
        return lines

    def flush(self) -> list[Text]:
        """The lines of the message that waits."""
        message, self._last = self._last, None
        if message is None:
            return []
        lines = []
        style = _STYLES.get(message.name, "bold" if message.dhcpv6 else "")
        for number, text in enumerate(_texts(message, self._count, self._width - _DETAIL)):
            line = _lifelines()
            if number == 0:
                _write(line, 0, f"{(message.at - self._start) / 1e6:9.1f}")
                _arrow(line, _column(message.sender), _column(message.receiver))
            rendered = Text("".join(line))
            rendered.append(text, style=style if number == 0 else "")
            lines.append(rendered)
        return lines


def note(text: str, at: float) -> Text:
    """A line for what is no message, `at` milliseconds."""
    line = _lifelines()
    _write(line, 0, f"{at:9.1f}")
    rendered = Text("".join(line))
    rendered.append(text, style="italic")
    return rendered


def _repeats(one: Message, other: Message) -> bool:
    return (
        (one.sender, one.receiver, one.title, one.details)
        == (other.sender, other.receiver, other.title, other.details)
        and one.dhcpv6 is None
        and one.mobility is None
    )


def _texts(message: Message, count: int, width: int) -> list[str]:
    """The title, then the details, as many on a line as fit."""
    title = message.title + (f" ×{count}" if count > 1 else "")
    lines = [title]
    for detail in message.details:
        separator = ": " if lines[-1] == title else "; "
        if len(lines[-1]) + len(separator) + len(detail) <= width:
            lines[-1] += separator + detail
        else:
            lines.extend(_folded(f"  {detail}", width))
    return lines


def _folded(text: str, width: int) -> list[str]:
    lines = []
    while len(text) > width:
        cut = text.rfind(" ", 4, width + 1)
        if cut < 0:
            cut = width
        lines.append(text[:cut])
        text = f"    {text[cut:].strip()}"
    return [*lines, text]


def _x(column: int) -> int:
    return _FIRST + _SPACING * column


def _column(party: str) -> int | None:
    return COLUMNS.index(party) if party in COLUMNS else None


def _lifelines() -> list[str]:
    line = [" "] * _DETAIL
    for index in range(len(COLUMNS)):
        line[_x(index)] = "│"
    return line


def _arrow(line: list[str], sender: int | None, receiver: int | None) -> None:
    if sender is None or receiver is None or sender == receiver:
        return
    left, right = sorted((_x(sender), _x(receiver)))
    line[left:right] = "─" * (right - left)
    if sender < receiver:
        line[left], line[right - 1], line[right] = "├", "▶", "│"
    else:
        line[left], line[left + 1], line[right] = "│", "◀", "┤"


def _write(line: list[str], at: int, text: str) -> None:
    line[at : at + len(text)] = text
