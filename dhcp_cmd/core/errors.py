"""The errors of the CMD's core; malformed bytes are `dmm_wire.errors.WireError`."""

from __future__ import annotations


class CmdError(Exception):
    """The root of what the core raises on purpose."""


class Rejected(CmdError):
    """A well-formed message that RFC 9915 section 16 tells a server to discard.

    `reason` is a short slug for the counters: "message-type", "no-client-id", "server-id", ...
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Undecidable(CmdError):
    """A decision still asked for more after as many reads as a batch may cost."""
