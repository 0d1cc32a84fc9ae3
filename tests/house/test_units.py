"""The systemd units in configs/: what they start exists, and systemd understands them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.import_rules import ROOT

UNITS = ROOT / "configs" / "systemd"
INSTALLED = "/opt/distributed-mobility/bin/"
SERVICES = sorted(UNITS.glob("*.service"))


def commands(unit: Path) -> list[list[str]]:
    """The command lines of ExecStart and ExecStartPre, as lists of words."""
    return [
        shlex.split(line)
        for line in re.findall(r"^ExecStart(?:Pre)?=(.*)$", unit.read_text(), flags=re.MULTILINE)
    ]


STARTED = [pytest.param(line, id=" ".join(line)) for unit in SERVICES for line in commands(unit)]


@pytest.mark.parametrize("command", STARTED)
def test_what_a_unit_starts_is_a_command_of_ours(command: list[str]) -> None:
    program = command[0].removeprefix(INSTALLED)
    assert program in {"relay-maar", "dhcp-cmd", "ipv6-dhcpd"}
    here = Path(sys.executable).with_name(program)
    shown = subprocess.run(
        [here, *command[1:], "--help"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    # typer refuses an option that it does not have, with --help too; argparse does not.
    if program == "ipv6-dhcpd":
        assert all(word in shown.stdout for word in command if word.startswith("--"))


def test_every_timer_has_its_service() -> None:
    timers = sorted(UNITS.glob("*.timer"))
    assert [timer.stem for timer in timers] == ["dhcp-cmd-prune", "dhcp-cmd-reap"]
    assert all(timer.with_suffix(".service") in SERVICES for timer in timers)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_no_unit_runs_as_root_or_with_more_than_it_needs(unit: Path) -> None:
    text = unit.read_text()
    users = re.findall(r"^User=(.*)$", text, flags=re.MULTILINE)
    assert users in (["relay-maar"], ["dhcp-cmd"])
    declared = (UNITS / "distributed-mobility.sysusers").read_text()
    assert re.search(rf"^u {users[0]}\s", declared, flags=re.MULTILINE)
    [allowed] = re.findall(r"^CapabilityBoundingSet=(.*)$", text, flags=re.MULTILINE)
    assert set(allowed.split()) == {
        "relay-maar": {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"},
        "dhcp-cmd": {"CAP_NET_BIND_SERVICE"},
        "dhcp-cmd-serve": {"CAP_NET_BIND_SERVICE"},
        "dhcp-cmd-signal": {"CAP_NET_RAW"},
    }.get(unit.stem, set())
    assert "\nNoNewPrivileges=yes\n" in text


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_them(tmp_path: Path) -> None:
    """In a root directory of its own, where all programs that the units name are there."""
    system = tmp_path / "etc" / "systemd" / "system"
    system.mkdir(parents=True)
    units = [*SERVICES, *UNITS.glob("*.timer")]
    programs = ["/bin/kill", *(command[0] for unit in SERVICES for command in commands(unit))]
    for unit in units:
        shutil.copy(unit, system)
    for target in ("basic", "multi-user", "network-online", "shutdown", "sysinit", "timers"):
        (system / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    for program in programs:
        path = tmp_path / program.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    checked = subprocess.run(
        ["systemd-analyze", f"--root={tmp_path}", "verify", *(unit.name for unit in units)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
