"""`dhcp-cmd signal`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from dhcp_cmd.commands.context import Mistake, chosen
from dhcp_cmd.commands.serve import Level


def signal(
    context: typer.Context,
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="The configuration file of ipv6-dhcpd.")
    ],
    log_level: Annotated[Level, typer.Option(help="What is logged.")] = Level.INFO,
) -> None:
    """Send Proxy Binding Updates beside ipv6-dhcpd, in the modes locator and proxy.

    `dhcp-cmd serve` sends them by itself. SIGTERM stops; whatever was not acknowledged goes on with the next start.
    """
    given = chosen(context)
    if given.database is not None or given.config is not None:
        raise Mistake("signal: the database is the one that CONFIG names")

    from dhcp_cmd.plugin.config import ConfigError
    from dhcp_cmd.pmip.daemon import Daemon

    level = logging.getLevelNamesMapping()[log_level.upper()]
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")
    try:
        daemon = Daemon(config)
    except ConfigError as error:
        raise Mistake(str(error)) from error
    try:
        daemon.run()
    finally:
        daemon.close()
