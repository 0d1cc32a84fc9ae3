"""`[security]`: the keys that PBUs and PBAs are signed with (RFC 4285), inline or in files of their own."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dmm_wire.mobility import Algorithm
from dmm_wire.mobility.authentication import LEAST_SPI
from dmm_wire.mobility.guard import TOLERANCE
from dmm_wire.mobility.security import (
    LONGEST_TOLERANCE,
    TOLERANCE_ABOVE,
    Declared,
    KeyEntry,
    Security,
    algorithm,
    exposure,
    octets,
)
from relay_maar.config_fields import ConfigError, Table, Unicast, not_empty


def exposed(path: Path) -> str | None:
    """What is wrong with the permissions of a file that holds a secret; None if nothing is. Raises OSError."""
    return exposure(path.stat().st_mode)


def _read(path: PurePath) -> tuple[int, bytes]:
    file = Path(path)
    return file.stat().st_mode, file.read_bytes()


def _secret(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be hexadecimal digits in quotes")
    return octets(value)


def _algorithm(value: object) -> Algorithm:
    return algorithm(str(value))


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
    def _coherent(self) -> KeyTable:
        self.entry()
        return self

    def entry(self) -> KeyEntry:
        """The key as it is configured."""
        file = None if self.secret_file is None else PurePath(self.secret_file)
        return KeyEntry(self.spi, self.algorithm, self.secret, file, self.peers)


class SecurityTable(Table):
    """`[security]`."""

    require: bool = True
    tolerance: Annotated[float, Field(gt=TOLERANCE_ABOVE, le=LONGEST_TOLERANCE, strict=False)] = (
        TOLERANCE
    )
    key: Annotated[tuple[KeyTable, ...], Field(strict=False), AfterValidator(not_empty)]

    @model_validator(mode="after")
    def _coherent(self) -> SecurityTable:
        self._declared()
        return self

    def _declared(self) -> Declared:
        entries = tuple(table.entry() for table in self.key)
        return Declared(entries, self.require, self.tolerance)

    @property
    def inline(self) -> bool:
        """Whether a secret stands in the file itself."""
        return self._declared().inline

    def settings(self) -> Security:
        """What the core needs. Raises ConfigError, naming the file, for a secret that cannot be had or used."""
        try:
            return self._declared().read(_read)
        except ValueError as error:
            raise ConfigError([str(error)]) from None
