"""What must be in the database after the scenario: the history row by row, and the bindings that it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dmm_wire.address import Prefix
from lab.daemons import Cmd
from lab.topology import MaarPlan

if TYPE_CHECKING:
    from lab.scenario import MainJob


def history(job: MainJob, cmd: Cmd) -> None:
    """The history has the trail, row by row, and nothing else; the bindings are what it leads to."""
    rows = cmd.query(
        "SELECT event, kind, prefix, anchor, from_maar, to_maar FROM events ORDER BY id"
    )
    found: list[list[str]] = []
    for row in rows:
        if row["event"] == "handover":
            found.append([f"handover {row['from_maar']}→{row['to_maar']}"])
        elif found:
            name = job.names.prefix(Prefix.parse(row["prefix"]))
            found[-1].append(f"{row['event']} {row['kind']} {name} at {row['anchor']}")
        else:
            found.append([str(row)])
    expected = []
    previous: MaarPlan | None = None
    addresses = {entry.anchor: entry.address for entry in job.lab.node.addresses()}
    for seen in job.steps:
        events = [_event("assigned", *held) for held in _holdings(job, seen.plan, addresses)]
        if previous is not None:
            events += [_event("deprecated", *held) for held in _holdings(job, previous, addresses)]
        origin = previous.name if previous else None
        expected.append([f"handover {origin}→{seen.plan.name}", *events])
        previous = seen.plan
    moves = " → ".join(seen.plan.name.upper() for seen in job.steps)
    job.checks.that(
        f"history: {moves}, each prefix assigned and deprecated, no other row",
        [(group[0], sorted(group[1:])) for group in found]
        == [(group[0], sorted(group[1:])) for group in expected],
        "\n".join(" | ".join(group) for group in found),
    )
    states = {
        (row["prefix"], row["kind"]): (row["state"], row["anchor"], row["serving"])
        for row in cmd.query("SELECT prefix, kind, state, anchor, serving FROM bindings")
    }
    last = job.steps[-1].plan
    wanted = {
        (str(prefix), kind): (
            "active" if plan == last else "deprecated",
            plan.name,
            last.name,
        )
        for plan in job.visited
        for kind, prefix in _held(job, plan, addresses)
    }
    job.checks.that(
        f"bindings: those of {last.name.upper()} active, the others deprecated and anchored",
        states == wanted,
        states,
    )


def _holdings(
    job: MainJob, plan: MaarPlan, addresses: Mapping[MaarPlan | None, bytes]
) -> list[tuple[str, str, MaarPlan]]:
    """What a MAAR has given to the node: kind, name, MAAR."""
    held = _held(job, plan, addresses)
    return [(kind, job.names.prefix(prefix), plan) for kind, prefix in held]


def _held(
    job: MainJob, plan: MaarPlan, addresses: Mapping[MaarPlan | None, bytes]
) -> list[tuple[str, Prefix]]:
    """The same as kind and prefix. Of a node that makes its addresses itself the CMD knows the prefix alone."""
    on_link, *delegated = job.prefixes[plan]
    given = [("link", on_link), *(("delegated", prefix) for prefix in delegated)]
    if not job.lab.registers:
        given.append(("address", Prefix(addresses.get(plan, bytes(16)), 128)))
    return given


def _event(event: str, kind: str, name: str, plan: MaarPlan) -> str:
    return f"{event} {kind} {name} at {plan.name}"
