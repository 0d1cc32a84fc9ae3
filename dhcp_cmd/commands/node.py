"""`dhcp-cmd node`: who the mobile nodes are."""

from __future__ import annotations

from typing import Annotated

import typer

from dhcp_cmd.commands.context import Mistake, chosen, database, now
from dhcp_cmd.core.link import Unknown
from dhcp_cmd.service import Cmd
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


@app.command()
def link(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="DUID", help="duid:0003..., or nai:user@realm.")],
    second: Annotated[
        str, typer.Argument(metavar="MAC", help="Its link-layer address, or another.")
    ],
) -> None:
    """Say that two identifiers are one node's: by DHCPv6 at one MAAR and by PMIPv6 at another.

    Where two nodes are known by them, what one holds becomes the other's. In the modes in which the CMD signals, give
    --config: the MAARs are told. (Without it only where they are owed something about one of the two.)
    """
    one, other = identity(first), identity(second)
    with database(context) as store:
        cmd = Cmd(store, chosen(context).settings())
        try:
            news = cmd.link(one, other, now())
        except Unknown as error:
            raise Mistake(str(error)) from error
    print(f"{one} and {other} are one node" + ("" if news else " already"))
