"""The section `<pmip-security>`: the keys that PBUs and PBAs are signed with (RFC 4285), here or in files of their own.

What is wrong with one is said in the words of relay-maar's `[security]` (`dmm_wire.mobility.security`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from dmm_wire.address import is_routable, parse_address
from dmm_wire.errors import WireError
from dmm_wire.mobility.authentication import LEAST_SPI, Algorithm
from dmm_wire.mobility.guard import TOLERANCE
from dmm_wire.mobility.security import (
    LONGEST_TOLERANCE,
    TOLERANCE_ABOVE,
    Declared,
    KeyEntry,
    algorithm,
    exposure,
    octets,
)

SECTION: Final = "pmip-security"
KEY_SECTION: Final = "pmip-key"

_YES: Final = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}

# --- datatypes of the keys: component.xml names them ---


def spi(text: str) -> int:
    """A Security Parameter Index that RFC 4285 does not reserve."""
    most = 0xFFFFFFFF
    if not text.isascii() or not text.isdigit() or not LEAST_SPI <= int(text) <= most:
        raise ValueError(f"spi: {text!r} is not a number from {LEAST_SPI} to {most}")
    return int(text)


def key_algorithm(text: str) -> Algorithm:
    """How the authentication data are made."""
    return _named("algorithm", algorithm, text.lower())


def secret(text: str) -> bytes:
    """Hexadecimal digits."""
    return _named("secret", octets, text)


def secret_file(text: str) -> PurePath:
    """A path; a relative one starts at the configuration file."""
    return PurePath(text)


def peers(text: str) -> tuple[bytes, ...]:
    """Endpoints, in any number but none."""
    found = []
    for word in text.split():
        try:
            found.append(parse_address(word))
        except WireError:
            raise ValueError(f"peers: {word!r} is not an address") from None
        if not is_routable(found[-1]):
            raise ValueError(f"peers: must be a global unicast address, not {word}")
    if not found:
        raise ValueError("peers: at least one is needed")
    return tuple(found)


def require(text: str) -> bool:
    """Whether what is not signed is refused."""
    if text.lower() not in _YES:
        raise ValueError(f"require: {text!r} is not yes or no")
    return _YES[text.lower()]


def tolerance(text: str) -> float:
    """Seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not TOLERANCE_ABOVE < value <= LONGEST_TOLERANCE:
        above, most = int(TOLERANCE_ABOVE), int(LONGEST_TOLERANCE)
        raise ValueError(f"tolerance: {text!r} is not above {above} and at most {most} seconds")
    return value


def _named(key: str, convert: Callable[[str], Any], text: str) -> Any:
    try:
        return convert(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


# --- the sections ---


def key_entry(section: Any) -> KeyEntry:
    """A section `<pmip-key>`."""
    if section.spi is None:
        raise ValueError(f"spi: missing in <{KEY_SECTION}>")
    chosen = section.algorithm or Algorithm.HMAC_SHA256_128
    try:
        return KeyEntry(section.spi, chosen, section.secret, section.secret_file, section.peers)
    except ValueError as error:
        # ZConfig names the line where the section around it ends.
        raise ValueError(f"<{KEY_SECTION}> with spi {section.spi}: {error}") from None


def declared(section: Any) -> Declared:
    """A section `<pmip-security>`."""
    if not section.keys:
        raise ValueError(f"<{SECTION}>: at least one <{KEY_SECTION}> is needed")
    try:
        return Declared(
            tuple(section.keys),
            True if section.require is None else section.require,
            section.tolerance or TOLERANCE,
        )
    except ValueError as error:
        raise ValueError(f"<{SECTION}>: {error}") from None


# --- files ---


def located(found: Declared, directory: str) -> Declared:
    """The same, with the paths of its files made absolute."""
    return replace(
        found,
        entries=tuple(
            entry
            if entry.secret_file is None
            else replace(entry, secret_file=PurePath(directory, entry.secret_file))
            for entry in found.entries
        ),
    )


def read_secret(path: PurePath) -> tuple[int, bytes]:
    """See `dmm_wire.mobility.security.ReadSecret`."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mode, file.read()


def included(loader: Any) -> list[str]:
    """The paths of what a ZConfig loader includes, as it comes upon them."""
    found: list[str] = []
    include = loader.includeConfiguration

    def note(section: Any, url: str, defines: Any) -> Any:
        found.append(unquote(urlsplit(url).path))
        return include(section, url, defines)

    loader.includeConfiguration = note
    return found


def check_exposure(paths: Iterable[str]) -> None:
    """Raise ValueError unless these files of a configuration with a secret in it are shut to others. Raises OSError."""
    for path in paths:
        if fault := exposure(Path(path).stat().st_mode):
            raise ValueError(f"{path}: holds a secret, and {fault}")
