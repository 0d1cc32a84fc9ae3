"""`<pmip-security>`: keys for all and for some, in files that others may not read; faults tell no secret."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dhcp_cmd.plugin import config
from dmm_wire.address import parse_address
from dmm_wire.mobility import Algorithm, Key
from dmm_wire.mobility.security import Security
from tests.cmd.plugin.test_config import ROOT, write
from tests.wire import secret_files
from tests.wire.secret_files import SECRET

ONE, TWO = parse_address("2001:db8:ff::2"), parse_address("2001:db8:ff::3")
MODE = ("mode proxy", "endpoint 2001:db8::135")

KEYS = f"""<pmip-security>
<pmip-key>
spi 1002
secret {SECRET * 2}
</pmip-key>
<pmip-key>
spi 1001
secret {SECRET}
algorithm HMAC-SHA1-96
</pmip-key>
<pmip-key>
spi 1001
secret 00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff
peers 2001:db8:ff::3
</pmip-key>
</pmip-security>"""


def configured(directory: Path, keys: str, mode: Sequence[str] = MODE, bits: int = 0o600) -> str:
    """A configuration file; the first line of `keys` is its fourth."""
    path = write(directory, *mode, *keys.splitlines())
    Path(path).chmod(bits)
    return path


def secured(path: str) -> Security:
    return config.security(config.read(path))


def fault(path: str) -> str:
    with pytest.raises(config.ConfigError) as caught:
        secured(path)
    told = str(caught.value)
    assert SECRET not in told
    assert "\n" not in told
    return told


def test_without_the_section_nothing_is_signed(tmp_path: Path) -> None:
    security = secured(configured(tmp_path, "", bits=0o644))
    assert not security.keys
    assert not security.require


def test_keys_for_everybody_and_for_one_peer(tmp_path: Path) -> None:
    path = configured(tmp_path, KEYS)
    security = secured(path)
    assert (security.require, security.tolerance, security.mode) == (True, 7.0, "required")
    octets = bytes.fromhex(SECRET)
    assert security.keys.sending(ONE) == Key(1002, octets * 2)
    assert security.keys.accepted(ONE, 1001) == Key(1001, octets, Algorithm.HMAC_SHA1_96)
    own = security.keys.sending(TWO)
    assert own is not None
    assert own.secret == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert security.keys.accepted(TWO, 1002) is None
    # A configuration that finds its way into a log tells nothing.
    assert SECRET not in repr(config.read(path))
    assert repr(octets)[2:-1] not in repr(config.read(path))


def test_while_keys_are_brought_out(tmp_path: Path) -> None:
    keys = KEYS.replace("<pmip-security>", "<pmip-security>\nrequire no\ntolerance 12.5", 1)
    security = secured(configured(tmp_path, keys))
    assert (security.require, security.tolerance, security.mode) == (False, 12.5, "offered")


def test_in_mode_direct_the_cmd_says_nothing_that_could_be_signed(tmp_path: Path) -> None:
    path = configured(tmp_path, with_file(tmp_path / "not there"), mode=())
    assert not secured(path).keys
    # What it says has to be right all the same.
    assert "needs one of" in fault(configured(tmp_path, KEYS.replace("secret", "#"), mode=()))


FAULTS = [
    ("spi 1002", "spi 255", "line 6: spi: '255' is not a number from 256 to 4294967295"),
    ("spi 1002\n", "", "line 18: spi: missing in <pmip-key>"),
    (SECRET * 2, f"{SECRET}x", "line 7: secret: a secret must be hexadecimal digits"),
    (
        SECRET * 2,
        "0011",
        "line 19: <pmip-key> with spi 1002: the secret of SPI 1002 has 2 octets: hmac-sha256-128 takes 16 to 64",
    ),
    (
        f"secret {SECRET}\n",
        f"secret {SECRET * 2}\n",
        "line 19: <pmip-key> with spi 1001: the secret of SPI 1001 has 32 octets: hmac-sha1-96 takes 16",
    ),
    (
        "HMAC-SHA1-96",
        "md5",
        "line 12: algorithm: no algorithm 'md5': there are hmac-sha1-96, hmac-sha256-128",
    ),
    (
        f"secret {SECRET}\n",
        "",
        "line 18: <pmip-key> with spi 1001: needs one of secret and secret-file",
    ),
    (
        f"secret {SECRET}\n",
        f"secret {SECRET}\nsecret-file x\n",
        "line 20: <pmip-key> with spi 1001: needs one of secret and secret-file",
    ),
    (
        "spi 1002",
        "spi 1001",
        "line 21: <pmip-security>: two keys of every peer with SPI 1001",
    ),
    (
        "2001:db8:ff::3",
        "fe80::3",
        "line 17: peers: must be a global unicast address, not fe80::3",
    ),
    ("2001:db8:ff::3", "maar3", "line 17: peers: 'maar3' is not an address"),
    (
        "<pmip-security>\n",
        "<pmip-security>\ntolerance 3\n",
        "line 5: tolerance: '3' is not above 3 and at most 3600 seconds",
    ),
    (
        "<pmip-security>\n",
        "<pmip-security>\ntolerance nan\n",
        "line 5: tolerance: 'nan' is not above 3 and at most 3600 seconds",
    ),
    (
        "<pmip-security>\n",
        "<pmip-security>\nrequire maybe\n",
        "line 5: require: 'maybe' is not yes or no",
    ),
    ("secret", "secrets", "line 7: 'secrets' is not a known key name"),
]


@pytest.mark.parametrize(("old", "new", "line"), FAULTS)
def test_each_fault_is_one_line(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert old in KEYS
    path = configured(tmp_path, KEYS.replace(old, new, 1))
    assert fault(path) == f"{path}, {line}"


def test_a_section_without_a_key_is_none(tmp_path: Path) -> None:
    path = configured(tmp_path, "<pmip-security>\n</pmip-security>")
    told = fault(path)
    assert told == f"{path}, line 7: <pmip-security>: at least one <pmip-key> is needed"


# --- files ---


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return secret_files.make(tmp_path)


def with_file(path: Path | str) -> str:
    key = f"<pmip-key>\nspi 1001\nsecret-file {path}\n</pmip-key>"
    return f"<pmip-security>\n{key}\n</pmip-security>"


@pytest.mark.parametrize("mode", secret_files.SHUT)
def test_a_secret_from_a_file(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    for name in (secret, secret.name):  # a relative path starts at the configuration file
        keys = secured(configured(secret.parent, with_file(name), bits=0o644)).keys
        assert keys.sending(ONE) == Key(1001, bytes.fromhex(SECRET))


@pytest.mark.parametrize("mode", secret_files.OPEN)
def test_a_secret_that_others_may_read_or_change(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    path = configured(secret.parent, with_file(secret))
    config.read(path)  # an operator who asks for a node needs no secret
    assert fault(path) == secret_files.is_open(secret, mode)


@pytest.mark.parametrize(("content", "reason"), secret_files.UNUSABLE)
def test_a_file_that_holds_none(secret: Path, content: bytes | None, reason: str) -> None:
    secret_files.fill(secret, content)
    assert fault(configured(secret.parent, with_file(secret))) == f"{secret}: {reason}"


def test_a_secret_in_the_file_itself_asks_for_a_mode_of_it(tmp_path: Path) -> None:
    path = configured(tmp_path, KEYS, bits=0o644)
    assert fault(path).startswith(f"{path}: holds a secret, and its mode is 644")
    assert secured(configured(tmp_path, KEYS, bits=0o640)).keys


def test_so_does_one_in_a_file_that_is_included(tmp_path: Path) -> None:
    included = tmp_path / "keys of the domain.conf"
    included.write_text(KEYS)
    included.chmod(0o644)
    path = configured(tmp_path, f"%include {included.name.replace(' ', '%20')}")
    assert fault(path).startswith(f"{included}: holds a secret, and its mode is 644")
    included.chmod(0o600)
    assert secured(path).keys


# --- the example ---


def test_the_example_shows_every_key_and_works_with_it(secret: Path) -> None:
    text = (ROOT / "configs" / "cmd.conf").read_text()
    start, end = text.index("    #<pmip-security>"), text.index("    #</pmip-security>\n")
    shown = text[start:end]
    space = "{https://raw.githubusercontent.com/zopefoundation/ZConfig/master/doc/schema.dtd}"
    tree = ElementTree.parse(ROOT / "dhcp_cmd/plugin/component.xml")
    names = {
        str(key.get("name"))
        for section in tree.iter(f"{space}sectiontype")
        if str(section.get("name")).startswith("pmip-")
        for key in section.iter(f"{space}key")
    }
    assert names == set(
        re.findall(r"^    # +(?:# )?([a-z][a-z-]+) [^ ]+$", shown, re.MULTILINE)
    ) | {"peers"}
    used = re.sub(
        r"^    #", "    ", text[start:end] + "    #</pmip-security>\n", flags=re.MULTILINE
    )
    used = used.replace("/etc/dhcp-cmd/1001.key", str(secret))
    path = configured(secret.parent, used.rstrip("\n"), bits=0o644)
    keys = secured(path)
    assert (keys.require, keys.tolerance) == (True, 7.0)
    assert keys.keys.sending(ONE) == Key(1001, bytes.fromhex(SECRET))
