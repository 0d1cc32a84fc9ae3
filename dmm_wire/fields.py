"""Small checks that the codecs share: a value must fit its field, data must have its size."""

from __future__ import annotations

from struct import Struct
from struct import error as struct_error
from typing import Any

from dmm_wire.errors import WireError


def pack(layout: Struct, *values: Any) -> bytes:
    """The octets of `values`. Raises WireError `range` for one that does not fit its field."""
    try:
        return layout.pack(*values)
    except struct_error as problem:
        raise WireError("range", str(problem)) from None


def at_least(what: str, body: bytes, size: int) -> None:
    """Raises WireError `length` if `body`, the data of `what`, is shorter than `size`."""
    if len(body) < size:
        raise WireError("length", f"{what} with {len(body)} octets")


def exactly(what: str, body: bytes, size: int) -> None:
    """Raises WireError `length` if `body`, the data of `what`, has not `size` octets."""
    if len(body) != size:
        raise WireError("length", f"{what} with {len(body)} octets")
