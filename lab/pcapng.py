"""Writing pcapng, as far as a capture of several Ethernet links needs it (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_ENHANCED_PACKET = 6
_BYTE_ORDER = 0x1A2B3C4D
_UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF
_ETHERNET = 1
_IF_NAME = 2
_IF_TSRESOL = 9
_NANOSECONDS = b"\x09"


class PcapNgWriter:
    """A pcapng file with one interface per link, times in nanoseconds. Raises OSError like any file."""

    def __init__(self, path: Path, links: Sequence[str]) -> None:
        self._file = path.open("wb")
        self._block(_SECTION_HEADER, struct.pack("<IHHQ", _BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH))
        for link in links:
            options = (
                _option(_IF_NAME, link.encode()) + _option(_IF_TSRESOL, _NANOSECONDS) + bytes(4)
            )
            self._block(_INTERFACE_DESCRIPTION, struct.pack("<HHI", _ETHERNET, 0, 0) + options)

    def write(self, link: int, at: int, frame: bytes) -> None:
        """Add a frame: `link` counts the links from 0, `at` is nanoseconds since the epoch."""
        high, low = divmod(at, 1 << 32)
        head = struct.pack("<IIIII", link, high, low, len(frame), len(frame))
        self._block(_ENHANCED_PACKET, head + _padded(frame))

    def close(self) -> None:
        """Write what is buffered and close. Idempotent."""
        self._file.close()

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", kind) + length + body + length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
