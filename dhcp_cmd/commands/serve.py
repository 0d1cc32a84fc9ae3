"""`dhcp-cmd serve`."""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Annotated

import typer

from dhcp_cmd.commands.context import Mistake, chosen


class Level(StrEnum):
    """What is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    context: typer.Context,
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="The configuration file of ipv6-dhcpd.")
    ],
    log_level: Annotated[
        Level | None, typer.Option(help="Instead of the levels in the file.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=10_000, help="Datagrams answered from one transaction.")
    ] = 128,
    waiting: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Datagrams of a listener that may wait in each worker; the oldest go.",
        ),
    ] = 8192,
    age: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=60,
            help="Seconds that a datagram may wait; ten times as long what is not soon repeated.",
        ),
    ] = 0.5,
) -> None:
    """Answer DHCPv6 messages, many in one transaction: the fast host of the CMD.

    SIGHUP reads the configuration again, SIGTERM stops. On PostgreSQL as many processes serve as the file says with
    `workers`, without that one for each processor; on SQLite, which has one writer, it is one. Of the file it does not
    use what is about ipv6-dhcpd's own processes: pid-file, control-socket, statistics, max-exceptions.
    """
    given = chosen(context)
    if given.database is not None or given.config is not None:
        raise Mistake("serve: the database is the one that CONFIG names")

    from dhcp_cmd.plugin.config import ConfigError
    from dhcp_cmd.server.loop import Limits
    from dhcp_cmd.server.sockets import ListenerError
    from dhcp_cmd.server.start import start
    from dhcp_cmd.server.workers import WorkersFailed

    level = None if log_level is None else logging.getLevelNamesMapping()[log_level.upper()]
    try:
        server = start(config, Limits(batch, waiting, age), level)
    except ConfigError as error:
        raise Mistake(str(error)) from error
    except ListenerError as error:
        raise OSError(str(error)) from error
    try:
        server.run()
    except WorkersFailed as error:
        raise OSError(str(error)) from error
    finally:
        server.close()
