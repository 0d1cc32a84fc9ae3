"""`dhcp-cmd status` and `dhcp-cmd reap`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from dhcp_cmd.audit import Answer, iso
from dhcp_cmd.commands.context import chosen, database, now
from dhcp_cmd.commands.output import Format, write

BATCH = 1_000
"""Bindings reaped in one transaction."""


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What the database holds; with --config also the counters.

    The counters say what became of the messages, by outcome and by reason.
    """
    from dhcp_cmd.store.maintenance import status as read_status

    with database(context) as store:
        found = read_status(store)
    if found["last_event"] is not None:
        found["last_event"]["at"] = iso(found["last_event"]["at"])
    if found["pruned_before"] is not None:
        found["pruned_before"] = iso(found["pruned_before"])
    counters = _counters(chosen(context).config)
    if counters is not None:
        found["counters"] = counters
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(found)


def _counters(config: str | None) -> dict[str, Any] | None:
    """The counters of the server that the configuration file describes."""
    if config is None:
        return None
    from dhcp_cmd.plugin.config import status_directory
    from dhcp_cmd.plugin.counters import read

    return dict(read(status_directory(config)))


def _print(found: Mapping[str, Any]) -> None:
    print(f"schema version {found['schema_version']}, domain version {found['domain_version']}")
    bindings = ", ".join(f"{count} {state}" for state, count in found["bindings"].items())
    print(f"{found['nodes']} nodes; bindings: {bindings}")
    last = found["last_event"]
    if last is not None:
        print(f"last event: {last['at']} {last['event']} node {last['node']} ({last['cause']})")
    if found["pruned_before"] is not None:
        print(f"history pruned before {found['pruned_before']}")
    columns = ("maar", "state", "endpoint", "nodes", "active", "deprecated", "ended")
    rows = tuple(
        (
            maar["name"],
            maar["state"],
            maar["endpoint"],
            maar["nodes"],
            *(maar["bindings"].get(state, 0) for state in ("active", "deprecated", "ended")),
        )
        for maar in found["maars"]
    )
    if rows:
        print()
        write(Answer(columns, rows), Format.TABLE)
    if found.get("counters"):
        print()
        write(Answer(("counter", "value"), tuple(_flat(found["counters"]))), Format.TABLE)


def _flat(counters: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in counters.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{before}{name}.")
        else:
            rows.append((f"{before}{name}", "-" if value is None else str(value)))
    return rows


def reap(
    context: typer.Context,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Stop after so many bindings; all that are due without."
        ),
    ] = None,
) -> None:
    """Record ends that are due, and free what nobody relies on.

    To be run from a timer, beside ipv6-dhcpd.
    """
    from dhcp_cmd.service import Cmd

    settings = chosen(context).settings()
    moment = now()
    reaped = 0
    with database(context) as store:
        cmd = Cmd(store, settings)
        while limit is None or reaped < limit:
            batch = BATCH if limit is None else min(BATCH, limit - reaped)
            done = cmd.reap(moment, batch)
            reaped += done
            if done < batch:
                break
    print(f"reaped {reaped}")
