"""What an operator chooses about authentication: keys, whether they are required, and the rules for both.

Secrets may stand in files of their own. Whoever needs the keys gives `Declared.read` a way to read
these; nothing else here needs one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, TypeAlias

from dmm_wire.mobility.authentication import Algorithm, Key, KeyStore
from dmm_wire.mobility.guard import TOLERANCE

TOLERANCE_ABOVE: Final = 3.0
"""A tolerance has to be more than so many seconds."""
LONGEST_TOLERANCE: Final = 3600.0
"""Seconds."""

ReadSecret: TypeAlias = Callable[[PurePath], tuple[int, bytes]]
"""Gives the mode and the content of a file. Raises OSError."""

_NOT_HEXADECIMAL: Final = "a secret must be hexadecimal digits"


@dataclass(frozen=True, slots=True)
class Security:
    """What PBUs and PBAs are authenticated by (RFC 4285); see `dmm_wire.mobility.guard`."""

    keys: KeyStore = field(default_factory=KeyStore)
    require: bool = False
    tolerance: float = TOLERANCE

    @property
    def mode(self) -> str:
        """For people: "required", "offered" (what is signed is checked) or "off"."""
        return "required" if self.require else "offered" if self.keys else "off"


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key as it is configured: its secret is here or in `secret_file`. `peers` None: it is for everybody.
    Raises ValueError unless it is in one of them, and fits the algorithm."""

    spi: int
    algorithm: Algorithm = Algorithm.HMAC_SHA256_128
    secret: bytes | None = field(default=None, repr=False)
    secret_file: PurePath | None = None
    peers: tuple[bytes, ...] | None = None

    def __post_init__(self) -> None:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("needs one of secret and secret-file")
        if self.secret is not None:
            Key(self.spi, self.secret, self.algorithm)

    def key(self, read: ReadSecret) -> Key:
        """The key. Raises ValueError, naming the file, for a secret that cannot be had or used."""
        if self.secret_file is None:
            return Key(self.spi, self.secret or b"", self.algorithm)
        try:
            mode, content = read(self.secret_file)
            if fault := exposure(mode):
                raise ValueError(fault)
            return Key(self.spi, octets(content.decode("ascii")), self.algorithm)
        except OSError as error:
            raise ValueError(f"{self.secret_file}: {error.strerror}") from None
        except UnicodeDecodeError:  # its text would name an octet of the secret
            raise ValueError(f"{self.secret_file}: {_NOT_HEXADECIMAL}") from None
        except ValueError as error:
            raise ValueError(f"{self.secret_file}: {error}") from None


@dataclass(frozen=True, slots=True)
class Declared:
    """All of it as it is configured. Raises ValueError for two keys of one peer with the same SPI."""

    entries: tuple[KeyEntry, ...] = ()
    require: bool = True
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        self._store([Key(entry.spi, bytes(16)) for entry in self.entries])

    @property
    def inline(self) -> bool:
        """Whether a secret stands in the configuration itself."""
        return any(entry.secret is not None for entry in self.entries)

    def read(self, read: ReadSecret) -> Security:
        """With the secrets that are in files. Raises ValueError as `KeyEntry.key` does."""
        keys = self._store([entry.key(read) for entry in self.entries])
        return Security(keys, self.require, self.tolerance)

    def _store(self, keys: Sequence[Key]) -> KeyStore:
        both: Iterable[tuple[KeyEntry, Key]] = list(zip(self.entries, keys, strict=True))
        default = [key for entry, key in both if entry.peers is None]
        peers: dict[bytes, list[Key]] = {}
        for entry, key in both:
            for peer in entry.peers or ():
                peers.setdefault(peer, []).append(key)
        return KeyStore(default, peers)


def exposure(mode: int) -> str | None:
    """What is wrong with the permissions of a file that holds a secret; None if nothing is."""
    mode &= 0o7777
    if mode & 0o027:
        return f"its mode is {mode:o}: must be 600, or 640 for the group of the daemon"
    return None


def octets(text: str) -> bytes:
    """A secret in hexadecimal digits. Raises ValueError, without what was there: it may be a secret all the same."""
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise ValueError(_NOT_HEXADECIMAL) from None


def algorithm(text: str) -> Algorithm:
    """The algorithm of this name. Raises ValueError."""
    try:
        return Algorithm(text)
    except ValueError:
        raise ValueError(f"no algorithm {text!r}: there are {', '.join(Algorithm)}") from None
