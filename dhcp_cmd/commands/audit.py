"""`dhcp-cmd audit`: who had what when, in SQL that is in schema/audit."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dhcp_cmd import audit
from dhcp_cmd.commands.context import Mistake, database, now
from dhcp_cmd.commands.output import Format, FormatOption, write
from dhcp_cmd.core.model import Micros
from dhcp_cmd.store import SqlStore
from dhcp_cmd.store.admin import find_maar, read_domain

app = typer.Typer(
    no_args_is_help=True,
    help="Questions to the history: who had what, where a node was.",
)

_TIME = "TIME"
_TIME_HELP = "ISO 8601 with a zone (2026-01-31T12:00:00Z), 'now', or so long ago: -2h."


def _time(option: str, text: str) -> Micros:
    try:
        return audit.parse_time(text, now())
    except (ValueError, OverflowError) as error:
        raise Mistake(f"{option}: {error}") from None


def _note_pruned(store: SqlStore, since: Micros | None) -> None:
    """Say so where the answer reaches back to a time whose history was pruned."""
    from dhcp_cmd.store.maintenance import pruned_before

    before = pruned_before(store)
    if before is not None and (since is None or since < before):
        print(f"dhcp-cmd: note: the history before {audit.iso(before)} was pruned", file=sys.stderr)


@app.command("who-had")
def who_had(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ADDRESS|PREFIX")],
    at: Annotated[str, typer.Option(metavar=_TIME, help=_TIME_HELP)] = "now",
    form: FormatOption = Format.TABLE,
) -> None:
    """Who held an address, or any part of a prefix, at a time."""
    moment = _time("--at", at)
    with database(context) as store:
        write(audit.who_had(store, what, moment), form)
        _note_pruned(store, moment)


@app.command()
def trace(
    context: typer.Context,
    node: Annotated[
        str, typer.Argument(metavar="MN", help="A DUID (hex), link-layer address or NAI.")
    ],
    form: FormatOption = Format.TABLE,
) -> None:
    """All moves of a mobile node, and what became of its prefixes."""
    identity = audit.parse_node(node)
    with database(context) as store:
        write(audit.trace(store, identity), form)
        _note_pruned(store, None)


@app.command()
def anchors(
    context: typer.Context,
    maar: Annotated[
        str | None, typer.Argument(metavar="[MAAR]", help="Its name; all without.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """What a MAAR anchors, and for whom."""
    with database(context) as store:
        if maar is not None:
            find_maar(read_domain(store), maar)
        write(audit.anchors(store, maar), form)


@app.command()
def handovers(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(metavar=_TIME, help=_TIME_HELP)] = None,
    until: Annotated[str | None, typer.Option(metavar=_TIME, help=_TIME_HELP)] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """How many handovers between each pair of MAARs, and when."""
    first = None if since is None else _time("--since", since)
    last = None if until is None else _time("--until", until)
    with database(context) as store:
        write(audit.handovers(store, first, last), form)
        _note_pruned(store, first)
