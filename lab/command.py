"""A command of ours as a program: its errors are one line on standard error, and say so by the exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from lab.netns import LabError
from lab.signals import Terminated

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130


def run(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Run what is called by `./dev NAME`; the exit status."""
    try:
        status = app(list(arguments), prog_name=f"./dev {name}", standalone_mode=False)
    except LabError as error:
        return _say(name, str(error), FAILED)
    except Terminated as end:
        return _say(name, f"{end}; everything is removed", 128 + end.number)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except Exception as error:
        # A wrong command line. (Its class has moved between versions of typer, what it offers has not.)
        if not hasattr(error, "format_message"):
            raise
        return _say(name, error.format_message(), MISTAKE)
    if status == INTERRUPTED:  # typer makes it of a Ctrl-C
        return _say(name, "interrupted; everything is removed", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _say(name: str, text: str, status: int) -> int:
    print(f"{name}: {text}", file=sys.stderr)
    return status
