"""`dhcp-cmd db`: make, upgrade, check, prune and back up the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dhcp_cmd.audit import iso, parse_duration
from dhcp_cmd.commands.context import FAILURE, Mistake, chosen, database, now
from dhcp_cmd.core.model import MICROS

app = typer.Typer(
    no_args_is_help=True, help="Make, upgrade, check, prune and back up the database."
)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Make the database, or bring it to this program's schema version.

    On PostgreSQL the database itself has to be there, empty (createdb).
    """
    from dhcp_cmd.store import SCHEMA_VERSION, create_database, database_exists
    from dhcp_cmd.store import upgrade as upgrade_database

    url = chosen(context).url()
    if not database_exists(url):
        create_database(url)
        print(f"made, schema version {SCHEMA_VERSION}")
        return
    before, after = upgrade_database(url)
    if before == after:
        print(f"schema version {after} already")
    else:
        print(f"schema version {before or 'none'} -> {after}")


@app.command()
def check(context: typer.Context) -> None:
    """Check that the database is sound; a line for each problem.

    File integrity, references, overlaps, and that the history replays to the bindings. Reads all of it, while the
    CMD goes on.
    """
    from dhcp_cmd.store.maintenance import check as check_database

    with database(context) as store:
        problems = check_database(store)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(FAILURE)
    print("sound")


@app.command()
def prune(
    context: typer.Context,
    older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="Forget what ended or changed so long ago: 90d, 12h, 2w."),
    ],
) -> None:
    """Forget old history, and nodes of which nothing is left.

    What is held now stays known. The CMD goes on meanwhile.
    """
    from dhcp_cmd.store.prune import prune as prune_database

    try:
        age = parse_duration(older_than)
    except ValueError as error:
        raise Mistake(f"--older-than: {error}") from None
    moment = now()
    before = moment - age * MICROS
    with database(context) as store:
        pruned = prune_database(store, before, moment)
    print(f"pruned {pruned.events} events and {pruned.nodes} nodes from before {iso(before)}")


@app.command()
def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy; must not exist.")],
) -> None:
    """Copy the database as it is at one moment. The CMD goes on meanwhile.

    On PostgreSQL by pg_dump, in its custom format: pg_restore puts it back.
    """
    from dhcp_cmd.store.maintenance import backup as backup_database

    with database(context) as store:
        size = backup_database(store, file)
    print(f"{file}: {size} bytes")
