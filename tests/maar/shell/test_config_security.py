"""`[security]`: keys for all and for some, in files that others may not read; faults are told without the secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmm_wire.address import parse_address
from dmm_wire.mobility import Algorithm, Key
from dmm_wire.mobility.security import Security
from relay_maar.config import ConfigError, load, parse
from tests.maar.shell.test_config import GOOD, faults
from tests.wire import secret_files
from tests.wire.secret_files import SECRET

ONE, TWO = parse_address("2001:db8:ff::2"), parse_address("2001:db8:ff::3")

KEYS = f"""
[security]

[[security.key]]
spi = 1002
secret = "{SECRET * 2}"

[[security.key]]
spi = 1001
secret = "{SECRET}"
algorithm = "hmac-sha1-96"

[[security.key]]
spi = 1001
secret = "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff"
peers = ["2001:db8:ff::3"]
"""


def test_without_the_table_nothing_is_signed() -> None:
    settings = parse(GOOD, "maar.toml").authentication()
    assert not settings.keys
    assert not settings.require
    assert settings == Security(settings.keys)


def test_keys_for_everybody_and_for_one_peer() -> None:
    config = parse(GOOD + KEYS, "maar.toml")
    settings = config.agent(
        dict.fromkeys(("access0", "access1"), bytes(6)), {"access0": 1460, "access1": 1460}
    ).security
    assert (settings.require, settings.tolerance) == (True, 7.0)
    octets = bytes.fromhex(SECRET)
    assert settings.keys.sending(ONE) == Key(1002, octets * 2)
    assert settings.keys.accepted(ONE, 1001) == Key(1001, octets, Algorithm.HMAC_SHA1_96)
    own = settings.keys.sending(TWO)
    assert own is not None
    assert own.secret == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert settings.keys.accepted(TWO, 1002) is None
    # A configuration that finds its way into a log tells nothing.
    assert SECRET not in repr(config)
    assert repr(octets)[2:-1] not in repr(config)


FAULTS = [
    (
        "[security]\n\n[[security.key]]\n",
        "[[security.keys]]\n",
        "security.keys: is not a key of this file",
    ),
    (
        "spi = 1002",
        "spi = 255",
        ":20: security.key[0].spi: Input should be greater than or equal to 256",
    ),
    ("spi = 1002\n", "", ":19: security.key[0].spi: is missing"),
    (
        f'"{SECRET * 2}"',
        f'"{SECRET}x"',
        ":21: security.key[0].secret: a secret must be hexadecimal digits",
    ),
    (
        f'"{SECRET * 2}"',
        '"0011"',
        ":19: security.key[0]: the secret of SPI 1002 has 2 octets: hmac-sha256-128 takes 16 to 64",
    ),
    (
        f'secret = "{SECRET}"',
        f'secret = "{SECRET * 2}"',
        ":23: security.key[1]: the secret of SPI 1001 has 32 octets: hmac-sha1-96 takes 16",
    ),
    (
        "hmac-sha1-96",
        "md5",
        ":26: security.key[1].algorithm: no algorithm 'md5': there are hmac-sha1-96, hmac-sha256-128",
    ),
    (f'secret = "{SECRET}"\n', "", ":23: security.key[1]: needs one of secret and secret-file"),
    (
        f'secret = "{SECRET}"\n',
        f'secret = "{SECRET}"\nsecret-file = "x"\n',
        ":23: security.key[1]: needs one of secret and secret-file",
    ),
    ("spi = 1002", "spi = 1001", ":17: security: two keys of every peer with SPI 1001"),
    (
        "2001:db8:ff::3",
        "fe80::3",
        ":31: security.key[2].peers[0]: must be a global unicast address, not fe80::3",
    ),
    ('["2001:db8:ff::3"]', "[]", ":31: security.key[2].peers: at least one is needed"),
    (
        "[security]\n",
        "[security]\ntolerance = 2\n",
        ":18: security.tolerance: Input should be greater than 3",
    ),
]


@pytest.mark.parametrize(("old", "new", "line"), FAULTS)
def test_each_fault_is_one_line(old: str, new: str, line: str) -> None:
    assert old in KEYS
    (told,) = faults(GOOD + KEYS.replace(old, new, 1))
    assert told.removeprefix("maar.toml").endswith(line)
    assert SECRET not in told


def test_a_table_without_a_key_is_none() -> None:
    assert faults(GOOD + "[security]\n") == ["maar.toml:16: security.key: is missing"]
    assert faults(GOOD + "[security]\nkey = []\n") == [
        "maar.toml:17: security.key: at least one is needed"
    ]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return secret_files.make(tmp_path)


def with_file(path: Path) -> str:
    return f'{GOOD}[[security.key]]\nspi = 1001\nsecret-file = "{path}"\n'


@pytest.mark.parametrize("mode", secret_files.SHUT)
def test_a_secret_from_a_file(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    keys = parse(with_file(secret), "maar.toml").authentication().keys
    assert keys.sending(ONE) == Key(1001, bytes.fromhex(SECRET))


@pytest.mark.parametrize("mode", secret_files.OPEN)
def test_a_secret_that_others_may_read_or_change(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    config = parse(with_file(secret), "maar.toml")  # `relay-maar status` needs no secret
    with pytest.raises(ConfigError) as caught:
        config.authentication()
    assert caught.value.lines == [secret_files.is_open(secret, mode)]


@pytest.mark.parametrize(("content", "reason"), secret_files.UNUSABLE)
def test_a_file_that_holds_none(secret: Path, content: bytes | None, reason: str) -> None:
    secret_files.fill(secret, content)
    with pytest.raises(ConfigError) as caught:
        parse(with_file(secret), "maar.toml").authentication()
    assert caught.value.lines == [f"{secret}: {reason}"]


def test_a_secret_in_the_file_itself_asks_for_a_mode_of_it(tmp_path: Path) -> None:
    path = tmp_path / "maar.toml"
    path.write_text(GOOD + KEYS)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="holds a secret, and its mode is 644"):
        load(path)
    path.chmod(0o640)
    assert load(path).authentication().keys
    path.write_text(GOOD)
    path.chmod(0o644)
    assert load(path).security is None
