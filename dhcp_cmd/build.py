"""Which build of the program this is: its hot path compiled to C (docs/deployment.md), or all of it interpreted."""

from __future__ import annotations

from dhcp_cmd import service


def build() -> str:
    """What it is, "compiled" or "interpreted", as a module that was loaded shows."""
    return "interpreted" if (service.__file__ or "").endswith(".py") else "compiled"
