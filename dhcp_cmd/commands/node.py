"""`dhcp-cmd node`: who the mobile nodes are."""

from __future__ import annotations

from typing import Annotated

import typer

from dhcp_cmd.audit import Answer, Value, iso
from dhcp_cmd.commands.context import Mistake, chosen, database, now
from dhcp_cmd.commands.output import Format, FormatOption, write
from dhcp_cmd.core.link import Unknown
from dhcp_cmd.service import Cmd
from dhcp_cmd.store import nodes
from dmm_wire.errors import WireError
from dmm_wire.identity import Identity

app = typer.Typer(no_args_is_help=True, help="Who the mobile nodes are.")


def identity(text: str) -> Identity:
    """`duid:0003...`, `eui48:02:...`, `nai:user@realm`; without a kind a link-layer address or a DUID.

    Raises Mistake.
    """
    try:
        if text.partition(":")[0].lower() in ("duid", "eui48", "eui64", "nai"):
            return Identity.parse(text)
        kind = "eui48" if len(text.split(":")) == 6 else "duid"
        return Identity.parse(f"{kind}:{text}")
    except WireError as error:
        raise Mistake(f"{text!r} is no identifier: {error.detail}") from error


First = Annotated[str, typer.Argument(metavar="DUID", help="duid:0003..., or nai:user@realm.")]
Second = Annotated[str, typer.Argument(metavar="MAC", help="Its link-layer address, or another.")]


@app.command()
def link(context: typer.Context, first: First, second: Second) -> None:
    """Say that two identifiers are one node's: by DHCPv6 at one MAAR and by PMIPv6 at another.

    That may be said before the node is known, and stays so until `node unlink`. Where two nodes are known by them, what
    one holds becomes the other's. In the modes in which the CMD signals, give --config: the MAARs are told. (Without it
    only where they are owed something about one of the two.)
    """
    one, other = _two(first, second)
    with database(context) as store:
        cmd = Cmd(store, chosen(context).settings())
        at = now()
        is_news, is_known = nodes.keep_link(store, one, other, at), True
        try:
            is_news |= cmd.link(one, other, at)
        except Unknown:
            is_known = False
    print(
        f"{one} and {other} {'are' if is_known else 'will be'} one node{'' if is_news else ' already'}"
    )


@app.command()
def unlink(context: typer.Context, first: First, second: Second) -> None:
    """Take back a `node link`. What a known node holds stays with the first; the second is nobody's until it is seen
    again, and then a node of its own."""
    one, other = _two(first, second)
    with database(context) as store:
        was_said = nodes.drop_link(store, one, other, now())
        if other in nodes.linked_with(store, one):
            raise Mistake(f"{one} and {other} are still one node, by other links: see `node list`")
        was_one = Cmd(store, chosen(context).settings()).unlink(one, other)
    if not was_said and not was_one:
        raise Mistake(f"{one} and {other} are not linked")
    print(f"{one} and {other} are not one node any more")


@app.command("list")
def list_nodes(context: typer.Context, form: FormatOption = Format.TABLE) -> None:
    """All nodes: by what they are known, where they are, how much they have. `to come`: linked, and not known yet."""
    with database(context) as store:
        found = nodes.known(store)
    columns = ("identities", "state", "serving", "since", "holds")
    write(Answer(columns, tuple(map(_row, found))), form)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="IDENTIFIER", help="Any of the node's.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """What a node has, by any of its identifiers. A table has a line about the node above it."""
    wanted = str(identity(name))
    with database(context) as store:
        node = next((each for each in nodes.known(store) if wanted in each.identities), None)
        if node is None:
            raise Mistake(f"no node is known by {wanted}")
        held = [] if node.id is None else nodes.held(store, node.id)
    if form is Format.TABLE:
        identities, state, serving, since, _ = _row(node)
        at = "" if since is None else f", {serving or 'nowhere'} since {since}"
        print(f"{identities}: {state}{at}")
    rows = tuple(
        (
            str(each.prefix),
            each.kind,
            each.state,
            each.anchor,
            node.serving,
            None if each.valid_until is None else iso(each.valid_until),
        )
        for each in held
    )
    columns = ("prefix", "kind", "state", "anchor", "serving", "valid_until")
    write(Answer(columns, rows), form)


def _two(first: str, second: str) -> tuple[Identity, Identity]:
    one, other = identity(first), identity(second)
    if one == other:
        raise Mistake(f"{one} is one identifier")
    return one, other


def _row(node: nodes.Known) -> tuple[Value, ...]:
    state = "known" if node.id is not None else "to come"
    since = None if node.since is None else iso(node.since)
    return " ".join(node.identities), state, node.serving, since, node.holds
