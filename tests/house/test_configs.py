"""The examples in configs/ run as they are (cmd.conf has its tests beside the plugin's, the units in test_units)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmm_wire.address import Prefix
from lab import netns
from relay_maar.config import AccessTable, AttachTable, Config, RouterTable, load, parse
from relay_maar.config_fields import Table
from relay_maar.config_security import KeyTable, SecurityTable
from relay_maar.io.client import NotRunning, ask
from tests.house.import_rules import ROOT

CONFIGS = ROOT / "configs"
MAAR = CONFIGS / "maar.toml"
DOMAIN = CONFIGS / "domain.toml"

DEFAULT = re.compile(r"^# (?=[a-z-]+ = )", flags=re.MULTILINE)
"""What stands before a key that is shown with its default."""


def dhcp_cmd(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dhcp_cmd.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_maars_example_is_good() -> None:
    command = [sys.executable, "-m", "relay_maar", "check", str(MAAR)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, f"{MAAR}: good\n", "")


def test_what_the_maars_example_calls_a_default_is_one() -> None:
    text = MAAR.read_text()
    assert len(DEFAULT.findall(text)) == 29
    before, security, after = in_parts(text)
    assert parse(DEFAULT.sub("", before + after), "all keys") == load(MAAR)
    # What is commented out there is all or nothing.
    used = re.sub(r"^#(?=[a-z\[])(?!secret =)", "", security, flags=re.MULTILINE)
    assert used.count("\n[") == 1
    assert parse(DEFAULT.sub("", before + used + after), "all keys") == parse(
        before + used + after, "what has no default"
    )


def in_parts(text: str) -> tuple[str, str, str]:
    """What stands before the example's table `security`, that table, and what is behind it."""
    before, found, rest = text.partition("#[security]\n")
    security, end, after = rest.partition("\n\n# One table for each access link")
    assert found
    assert end
    return before, found + security, end + after


TABLES: list[type[Table]] = [
    Config,
    RouterTable,
    AttachTable,
    AccessTable,
    SecurityTable,
    KeyTable,
]


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.__name__)
def test_the_maars_example_shows_every_key(table: type[Table]) -> None:
    shown = re.findall(r"^(?:#\s?)?([a-z-]+) = ", MAAR.read_text(), flags=re.MULTILINE)
    for tables in re.findall(r"^#?\[{1,2}([a-z.-]+)\]", MAAR.read_text(), flags=re.MULTILINE):
        shown += tables.split(".")
    assert {str(field.alias) for field in table.model_fields.values()} <= set(shown)


def test_the_domain_can_be_imported_and_imported_again(tmp_path: Path) -> None:
    database = tmp_path / "cmd.sqlite"
    dhcp_cmd("--database", database, "db", "upgrade")
    command = ("--database", database, "maar", "import", DOMAIN)
    assert dhcp_cmd(*command) == "added 3 of 3 MAARs; 0 were there\n"
    assert dhcp_cmd(*command) == "added 0 of 3 MAARs; 3 were there\n"
    assert dhcp_cmd("--database", database, "db", "check") == "sound\n"


def test_the_examples_are_of_one_domain() -> None:
    """The MAAR's own file agrees with the CMD's about it, and asks the address at which that listens."""
    from dhcp_cmd.commands.maar_file import read_maars

    maar, [registered, *_] = load(MAAR), read_maars(DOMAIN)
    assert (maar.name, maar.endpoint) == (registered.name, registered.endpoint)
    assert set(maar.pools) == {pool.prefix for pool in registered.pools}
    assert all(
        any(link.contains(access.link_address) for link in registered.links)
        for access in maar.access
    )
    [listens] = re.findall(
        r"^<listen-unicast (\S+)/>", (CONFIGS / "cmd.conf").read_text(), re.MULTILINE
    )
    assert [Prefix.parse(f"{listens}/128").address] == list(maar.servers)


@pytest.fixture
def namespace() -> Iterator[str]:
    """One with the interfaces that the example names."""
    name = f"dmmconf{os.getpid()}"
    netns.ip("netns", "add", name)
    try:
        netns.ip("link", "set", "lo", "up", namespace=name)
        for interface in ("core0", "access0"):
            netns.ip(
                *f"link add {interface} type veth peer name {interface}p".split(), namespace=name
            )
            netns.ip("link", "set", interface, "up", namespace=name)
        yield name
    finally:
        netns.remove([name])


@pytest.mark.root
def test_a_maar_starts_with_the_example(namespace: str, tmp_path: Path) -> None:
    config = tmp_path / "maar.toml"
    shutil.copy(MAAR, config)
    text = config.read_text()
    for key in ("state", "runtime"):
        shown = re.compile(rf'^# {key}-directory = ".*"$', flags=re.MULTILINE)
        text, count = shown.subn(f'{key}-directory = "{tmp_path / key}"', text)
        assert count == 1
        (tmp_path / key).mkdir()
    config.write_text(text)

    log = tmp_path / "log"
    with log.open("wb") as output:
        daemon = netns.start(
            namespace,
            [sys.executable, "-m", "relay_maar", "run", str(config)],
            stderr=output,
            directory=ROOT,
        )

    def answer() -> dict[str, object] | None:
        assert daemon.poll() is None, log.read_text()
        try:
            return ask(tmp_path / "runtime", "status")
        except (NotRunning, OSError):
            return None

    try:
        status = netns.wait_for(answer, timeout=20, what="relay-maar to answer")
        assert status is not None
        assert (status["name"], status["endpoint"]) == ("maar1", "2001:db8:ff::1")
        unreachable = netns.ip("-6", "route", "show", "type", "unreachable", namespace=namespace)
        assert "2001:db8:100::/40" in unreachable
        assert netns.stop(daemon, patience=15) == 0
    finally:
        netns.kill(daemon)
    assert "2001:db8:100::/40" not in netns.ip("-6", "route", namespace=namespace)
