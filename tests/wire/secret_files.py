"""Files with a secret, as `openssl rand -hex 16` writes them, and what makes one unusable: for CMD and MAAR alike."""

from __future__ import annotations

from pathlib import Path

SECRET = "000102030405060708090a0b0c0d0e0f"

SHUT = [0o600, 0o400, 0o640, 0o440]
OPEN = [0o644, 0o604, 0o660, 0o602, 0o601]
"""Modes of a file that others may read or change, or whose group may change it."""

UNUSABLE = [
    (None, "No such file or directory"),
    (b"", "the secret of SPI 1001 has 0 octets: hmac-sha256-128 takes 16 to 64"),
    (b"something secret", "a secret must be hexadecimal digits"),
    (b"\xff" * 16, "a secret must be hexadecimal digits"),
]
"""A content (None: there is no file), and what is said about it."""


def make(folder: Path) -> Path:
    """A good one."""
    path = folder / "1001.key"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def fill(path: Path, content: bytes | None) -> None:
    """Make it what UNUSABLE says."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


def is_open(path: Path, mode: int) -> str:
    """What is said about one of a mode that is OPEN."""
    return f"{path}: its mode is {mode:o}: must be 600, or 640 for the group of the daemon"
