"""README.md and docs/: the commands they quote work, what they link to is there, their packet is one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dmm_wire.address import parse_address
from dmm_wire.mobility import (
    AccessTechnology,
    BindingUpdate,
    DelegatedPrefix,
    HandoffIndicator,
    HomeNetworkPrefix,
    LinkLayerIdentifier,
    MobileNodeIdentifier,
    ServingMaar,
    Timestamp,
    decode,
    encode,
)
from tests.house.import_rules import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)


def shell_lines(page: Path) -> list[list[str]]:
    """The command lines of its `sh` blocks, as lists of words, in order."""
    blocks = [text for language, text in BLOCK.findall(page.read_text()) if language == "sh"]
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments with which its `sh` blocks start `program`, whatever stands before it."""
    found = []
    for words in shell_lines(page):
        names = [Path(word).name for word in words]
        start = names.index("--") + 1 if "--" in names else 0
        if names[start : start + 1] == [program]:
            found.append(words[start + 1 :])
    return found


def inline(page: Path) -> Iterator[list[str]]:
    """The words of each `dhcp-cmd ...` and `relay-maar ...` in the text."""
    prose = BLOCK.sub("", page.read_text())
    for quoted in re.findall(r"`((?:dhcp-cmd|relay-maar)\s[^`]*)`", prose):
        yield quoted.split()


# --- The operator's commands ---


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that stands for a CMD's machine, with a configuration and a database of three MAARs."""
    conf = (ROOT / "configs" / "cmd.conf").read_text()
    conf = conf.replace("/var/lib/dhcp-cmd", str(tmp_path)).replace("/run/dhcp-cmd", str(tmp_path))
    (tmp_path / "cmd.conf").write_text(conf)
    for arguments in (["db", "upgrade"], ["maar", "import", str(ROOT / "configs/domain.toml")]):
        done = dhcp_cmd(tmp_path, ["--database", "cmd.sqlite", *arguments])
        assert done.returncode == 0, done.stderr
    return tmp_path


def dhcp_cmd(place: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dhcp_cmd.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
        env={**os.environ, "DHCP_CMD_DATABASE": "cmd.sqlite", "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_dhcp_cmd_commands_of_a_page_work(page: Path, place: Path) -> None:
    here = {
        "/etc/dhcp-cmd/domain.toml": str(ROOT / "configs" / "domain.toml"),
        "/etc/dhcp-cmd/cmd.conf": "cmd.conf",
    }
    for arguments in commands(page, "dhcp-cmd"):
        words = [
            here.get(word, re.sub("^/var/(lib/dhcp-cmd|backups)/", "", word)) for word in arguments
        ]
        done = dhcp_cmd(place, words)
        assert done.returncode == 0, (arguments, done.stderr)


def test_there_are_commands_to_try() -> None:
    """A page whose commands are not found would pass every test."""
    assert len(commands(PAGES[0], "dhcp-cmd")) >= 10
    assert len(commands(PAGES[0], "relay-maar")) >= 3
    assert sum(len(list(inline(page))) for page in PAGES) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_relay_maar_commands_of_a_page_are_there(page: Path) -> None:
    for arguments in commands(page, "relay-maar"):
        command = [sys.executable, "-m", "relay_maar", *arguments, "--help"]
        shown = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_in_passing_is_a_command(page: Path) -> None:
    from dhcp_cmd.cli import app as cmd
    from relay_maar.cli import app as maar

    for program, *words in inline(page):
        command: Any = typer.main.get_command(cmd if program == "dhcp-cmd" else maar)
        options = {option for each in command.params for option in each.opts}
        while words:
            word = words.pop(0)
            if word.startswith("-"):
                assert word in options, (program, word)
            elif word in getattr(command, "commands", {}):
                command = command.commands[word]
                options |= {option for each in command.params for option in each.opts}
            else:
                # An argument of a command, or the value of an option such as --config.
                assert not getattr(command, "commands", {}) or "." in word, (program, word)


# --- The rest of the machine ---


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_and_units_in_a_pages_commands_are_there(page: Path) -> None:
    units = {path.name for path in (ROOT / "configs" / "systemd").iterdir()}
    for words in shell_lines(page):
        for word in words:
            if re.match(r"(\./)?(configs|packaging)/", word):
                assert list(ROOT.glob(word.removeprefix("./"))), word
        if words[0] == "systemctl":
            named = {word for word in words[1:] if word.endswith((".service", ".timer"))}
            assert named <= units, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_dev_has_the_commands_that_a_page_names(page: Path) -> None:
    usage = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True)
    known = set(re.findall(r"^  (\w+)", usage.stdout, flags=re.MULTILINE))
    assert set(re.findall(r"\./dev (\w+)", page.read_text())) <= known


# --- Links ---


def slug(heading: str) -> str:
    """The anchor of a heading, as a forge makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(), flags=re.MULTILINE)
            assert anchor in map(slug, headings), target


# --- The packet ---


def test_the_pbu_in_the_protocol_is_one() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    [block] = [block for _, block in BLOCK.findall(text) if block.startswith("3b 0f 05")]
    octets = [re.match(r"(?:[0-9a-f]{2} )+", line) for line in block.splitlines()]
    assert all(octets)
    data = bytes.fromhex("".join(each.group() for each in octets if each))
    source, destination = parse_address("2001:db8:ff::2"), parse_address("2001:db8:ff::1")
    update = decode(data, source, destination)
    assert isinstance(update, BindingUpdate)
    assert [type(option) for option in update.options] == [
        MobileNodeIdentifier,
        HomeNetworkPrefix,
        DelegatedPrefix,
        HandoffIndicator,
        AccessTechnology,
        LinkLayerIdentifier,
        Timestamp,
        ServingMaar,
    ]
    assert encode(update, source, destination) == data
