"""`dhcp-cmd maar`: the MAARs of the mobility domain, their links and pools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dhcp_cmd.audit import Answer
from dhcp_cmd.commands.context import chosen, database, now
from dhcp_cmd.commands.maar_file import (
    hex_octets,
    parse_pool,
    read_maars,
)
from dhcp_cmd.commands.output import Format, FormatOption, write
from dhcp_cmd.core.model import MaarState
from dhcp_cmd.store import admin
from dmm_wire.address import Prefix, format_address, format_mac, parse_address, parse_mac

app = typer.Typer(
    no_args_is_help=True,
    help="The MAARs of the mobility domain, their links and pools. A running CMD sees a change at once.",
)

Name = Annotated[str, typer.Argument(metavar="NAME")]
RouterLinkLocal = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="As which router hosts see it (RFC 8885 section 3.7); made of the link-layer address if not given.",
    ),
]
RouterLinkLayer = Annotated[
    str | None,
    typer.Option(
        metavar="MAC",
        help="Its link-layer address as that router; made of the endpoint if not given.",
    ),
]


@app.command()
def add(
    context: typer.Context,
    name: Name,
    endpoint: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The one address of its tunnels and its signalling."),
    ],
    link: Annotated[
        list[str],
        typer.Option(
            metavar="PREFIX", help="An access link: its link-address lies in here. Repeatable."
        ),
    ],
    pool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POOL",
            help="link=PREFIX or delegated=PREFIX, then ,unit=64 ,preferred=1h ,valid=2h as wanted. Repeatable.",
        ),
    ] = None,
    relay_id: Annotated[
        str | None,
        typer.Option(
            metavar="HEX", help="Its DUID in Relay-ID options; made of the name if not given."
        ),
    ] = None,
    relay_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Source of what it relays; the endpoint if not given."
        ),
    ] = None,
    router_link_local: RouterLinkLocal = None,
    router_link_layer: RouterLinkLayer = None,
) -> None:
    """Register a MAAR."""
    spec = admin.MaarSpec(
        name=name,
        endpoint=parse_address(endpoint),
        links=tuple(map(Prefix.parse, link)),
        pools=tuple(map(parse_pool, pool or ())),
        relay_id=None if relay_id is None else hex_octets(relay_id),
        relay_address=None if relay_address is None else parse_address(relay_address),
        router_link_local=None if router_link_local is None else parse_address(router_link_local),
        router_link_layer=None if router_link_layer is None else parse_mac(router_link_layer),
    )
    enterprise = chosen(context).settings().enterprise
    with database(context) as store:
        admin.add_maars(store, [spec], enterprise)
    print(f"added {name}")


@app.command("import")
def import_file(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="TOML with a table [[maar]] for each.")
    ],
) -> None:
    """Register the MAARs of a file, all or none. Those there already, just so, are left alone."""
    specs = read_maars(file)
    enterprise = chosen(context).settings().enterprise
    with database(context) as store:
        added = admin.add_maars(store, specs, enterprise, skip_same=True)
    print(f"added {len(added)} of {len(specs)} MAARs; {len(specs) - len(added)} were there")


@app.command("list")
def list_maars(context: typer.Context, form: FormatOption = Format.TABLE) -> None:
    """The MAARs, with their links and pools."""
    with database(context) as store:
        domain = admin.read_domain(store)
    columns = (
        "name",
        "state",
        "endpoint",
        "relay_address",
        "relay_id",
        "links",
        "pools",
        "router_link_local",
        "router_link_layer",
    )
    rows = tuple(
        (
            maar.name,
            maar.state.value,
            format_address(maar.endpoint),
            format_address(maar.relay_address),
            maar.relay_id.hex(),
            " ".join(str(link.prefix) for link in domain.links if link.maar == maar.id),
            " ".join(
                f"{pool.kind}={pool.prefix},unit={pool.unit_length},"
                f"preferred={pool.preferred}s,valid={pool.valid}s"
                for pool in domain.pools[maar.id]
            ),
            format_address(maar.router.link_local),
            format_mac(maar.router.link_layer),
        )
        for maar in domain.maars.values()
    )
    write(Answer(columns, rows), form)


@app.command()
def drain(context: typer.Context, name: Name) -> None:
    """Let a MAAR anchor nothing new, and what it anchors run out."""
    _set_state(context, name, MaarState.DRAINING)


@app.command()
def undrain(context: typer.Context, name: Name) -> None:
    """Let a MAAR anchor new prefixes again."""
    _set_state(context, name, MaarState.ACTIVE)


def _set_state(context: typer.Context, name: str, state: MaarState) -> None:
    with database(context) as store:
        changed = admin.set_state(store, name, state)
    print(f"{name} is {state.value}{'' if changed else ' already'}")


@app.command()
def router(
    context: typer.Context,
    name: Name,
    router_link_local: RouterLinkLocal = None,
    router_link_layer: RouterLinkLayer = None,
) -> None:
    """Say as which router hosts see a MAAR, the same as in its own configuration. What is not given follows from its
    endpoint again."""
    with database(context) as store:
        shown = admin.set_router(
            store,
            name,
            None if router_link_local is None else parse_address(router_link_local),
            None if router_link_layer is None else parse_mac(router_link_layer),
        )
    print(f"{name} is router {format_address(shown.link_local)} {format_mac(shown.link_layer)}")


@app.command()
def remove(
    context: typer.Context,
    name: Name,
    force: Annotated[
        bool, typer.Option("--force", help="End the bindings that it anchors.")
    ] = False,
) -> None:
    """Take a MAAR, its links and pools out of the domain."""
    settings = chosen(context).settings()
    with database(context) as store:
        ended = admin.remove_maar(store, name, now(), force=force, settings=settings)
    print(f"removed {name}" + (f", ended {ended} bindings" if ended else ""))
