"""`dhcp-cmd`: the operator's way to the Central Mobility Database.

Exit status: 0 done, 1 it failed (the database did not do it, a check found something), 2 the operator's mistake. An
error is one line on standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dhcp_cmd.commands import audit, db, maar, node, running, serve, signal
from dhcp_cmd.commands.context import ENVIRONMENT, FAILURE, OPERATOR_MISTAKE, Chosen, Mistake
from dhcp_cmd.core.ports import StoreError
from dhcp_cmd.store.admin import AdminError
from dmm_wire.errors import WireError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The Central Mobility Database (CMD, RFC 8885): its MAARs, its database, its history.",
)
app.add_typer(db.app, name="db")
app.add_typer(maar.app, name="maar")
app.add_typer(node.app, name="node")
app.add_typer(audit.app, name="audit")
app.command()(running.status)
app.command()(running.reap)
app.command()(serve.serve)
app.command()(signal.signal)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from dhcp_cmd.build import build

        print(f"dhcp-cmd {version('distributed-mobility')}, {build()}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="sqlite:////path/to/file, or the path; postgresql://user@host/name. Without: --config,"
            f" then ${ENVIRONMENT}.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The configuration of ipv6-dhcpd, which names the database."
        ),
    ] = None,
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Say which version this is, and whether it is compiled.",
        ),
    ] = False,
) -> None:
    """The options that all commands have."""
    context.obj = Chosen(database, config)


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit status. Writes errors as one line to standard error."""
    try:
        status = app(list(arguments), prog_name="dhcp-cmd", standalone_mode=False)
        sys.stdout.flush()
    except (Mistake, AdminError, WireError) as error:
        return _say(error, OPERATOR_MISTAKE)
    except StoreError as error:
        return _say(error, FAILURE)
    except BrokenPipeError:
        # The reader has seen enough (`| head`). Nothing more can be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        return _say(error, FAILURE)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # A wrong command line. (Its class has moved between versions of typer, what it offers has not.)
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
            return OPERATOR_MISTAKE
        return _say(error, OPERATOR_MISTAKE)
    return status if isinstance(status, int) else 0


def _say(error: BaseException, status: int) -> int:
    message = getattr(error, "format_message", error.__str__)()
    if message:
        print(f"dhcp-cmd: {' '.join(str(message).split())}", file=sys.stderr)
    return status


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
