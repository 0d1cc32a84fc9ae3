"""Databases with bound nodes that are kept from run to run, because a million nodes take minutes to bind."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_MAKERS = ("bench/domain.py", "bench/packets.py", "bench/prefill.py", "bench/kea.py")


def kept(directory: Path | None) -> Path | None:
    """The folder in `directory` for what this source tree makes; another schema, domain or bound node means another
    folder, and so does another week, for leases end.
    """
    if directory is None:
        return None
    digest = sha256(datetime.now(UTC).strftime("%G-%V").encode())
    for path in sorted([*(_ROOT / "schema").rglob("*.sql"), *(_ROOT / name for name in _MAKERS)]):
        digest.update(path.read_bytes())
    return directory.absolute() / digest.hexdigest()[:16]
