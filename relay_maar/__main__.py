"""`python -m relay_maar`, and the console script `relay-maar`.

What programs call again and again, an access point's hooks and `status --json`, is done without the command line's
library, the daemon and all that it stands on. A configuration that cannot be read is :mod:`relay_maar.cli`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main() -> None:
    """Run the command line."""
    status = quick(sys.argv[1:])
    if status is None:
        from relay_maar.cli import main as run

        run()
    else:
        sys.exit(status)


def quick(words: Sequence[str]) -> int | None:
    """Do what takes no more than the control socket. Returns the exit status, None for a call of another kind."""
    match words:
        case ["attach" | "detach" as command, config, interface, mac]:
            about = {"interface": interface, "link-layer": mac}
        case ["status" as command, config, "--json"] | ["status" as command, "--json", config]:
            about = {}
        case _:
            return None
    if any(word.startswith("-") for word in (config, *about.values())):
        return None
    from relay_maar.io.client import NotRunning, ask, runtime_directory

    directory = runtime_directory(config)
    if directory is None:
        return None
    try:
        answer = ask(directory, command, about)
    except NotRunning as error:
        return _fail(1, str(error))
    except OSError as error:
        return _fail(1, f"the daemon does not answer: {error}")
    if "error" in answer:
        return _fail(2, answer["error"])
    if command == "status":
        import json

        print(json.dumps(answer, indent=2))
    return 0


def _fail(status: int, line: str) -> int:
    print(f"relay-maar: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
