"""`[security]`: the keys that PBUs and PBAs are signed with (RFC 4285), inline or in files of their own."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dmm_wire.mobility import Algorithm, Key, KeyStore
from dmm_wire.mobility.authentication import LEAST_SPI
from dmm_wire.mobility.guard import TOLERANCE
from relay_maar.config_fields import ConfigError, Table, Unicast, not_empty
from relay_maar.core.settings import SecuritySettings


def exposed(path: Path) -> str | None:
    """What is wrong with the permissions of a file that holds a secret; None if nothing is. Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o027:
        return f"its mode is {mode:o}: must be 600, or 640 for the group of the daemon"
    return None


def _octets(text: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        # Without what was there: it may be a secret all the same.
        raise ValueError("a secret must be hexadecimal digits") from None


def _secret(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be hexadecimal digits in quotes")
    return _octets(value)


def _algorithm(value: object) -> Algorithm:
    try:
        return Algorithm(str(value))
    except ValueError:
        raise ValueError(f"no algorithm {value!r}: there are {', '.join(Algorithm)}") from None


class KeyTable(Table):
    """`[[security.key]]`: one key, in `secret` or in `secret_file`."""

    spi: Annotated[int, Field(ge=LEAST_SPI, le=0xFFFFFFFF)]
    algorithm: Annotated[Algorithm, BeforeValidator(_algorithm)] = Algorithm.HMAC_SHA256_128
    secret: Annotated[bytes | None, BeforeValidator(_secret), Field(repr=False)] = None
    secret_file: Annotated[str, Field(min_length=1)] | None = None
    peers: Annotated[tuple[Unicast, ...], Field(strict=False), AfterValidator(not_empty)] | None = (
        None
    )

    @model_validator(mode="after")
    def _one_secret(self) -> KeyTable:
        if (self.secret is None) == (self.secret_file is None):
            raise ValueError("needs one of secret and secret-file")
        if self.secret is not None:
            Key(self.spi, self.secret, self.algorithm)
        return self

    def key(self) -> Key:
        """The key. Raises ConfigError, naming the file, for a secret that cannot be had or used."""
        if self.secret is not None:
            return Key(self.spi, self.secret, self.algorithm)
        path = Path(str(self.secret_file))
        try:
            if fault := exposed(path):
                raise ValueError(fault)
            return Key(self.spi, _octets(path.read_text("ascii")), self.algorithm)
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}"]) from None
        except ValueError as error:
            # Text that is not ASCII is such an error, too, and names an octet of it.
            reason = "a secret must be hexadecimal digits"
            if not isinstance(error, UnicodeDecodeError):
                reason = str(error)
            raise ConfigError([f"{path}: {reason}"]) from None


class SecurityTable(Table):
    """`[security]`."""

    require: bool = True
    tolerance: Annotated[float, Field(gt=3, le=3600, strict=False)] = TOLERANCE
    key: Annotated[tuple[KeyTable, ...], Field(strict=False), AfterValidator(not_empty)]

    @model_validator(mode="after")
    def _coherent(self) -> SecurityTable:
        self._store([(table, Key(table.spi, bytes(16))) for table in self.key])
        return self

    @property
    def inline(self) -> bool:
        """Whether a secret stands in the file itself."""
        return any(table.secret is not None for table in self.key)

    def settings(self) -> SecuritySettings:
        """What the core needs. Raises ConfigError as `KeyTable.key` does."""
        keys = self._store([(table, table.key()) for table in self.key])
        return SecuritySettings(keys, self.require, self.tolerance)

    @staticmethod
    def _store(keys: list[tuple[KeyTable, Key]]) -> KeyStore:
        default = [key for table, key in keys if table.peers is None]
        peers: dict[bytes, list[Key]] = {}
        for table, key in keys:
            for peer in table.peers or ():
                peers.setdefault(peer, []).append(key)
        return KeyStore(default, peers)
