"""What a configuration file comes to, and what of it is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dhcp_cmd.plugin.compile import read_plan
from dhcp_cmd.plugin.config import ConfigError
from tests.cmd.server.hosts import MOBILITY, plan_of, write_configuration
from tests.cmd.store.domain import sqlite_store


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_of(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ("<rate-limit>\n    rate 5\n    per 30\n</rate-limit>", "rate-limit"),
        ("<static-csv leases.csv/>", "static-csv"),
        ("<iana-timing-limits>\n    min-t1 5\n</iana-timing-limits>", "iana-timing-limits"),
        ("<listen-tcp>\n    address ::1\n</listen-tcp>", "listen-tcp"),
        (
            "<subnet 2001:db8::/32>\n    <iapd-timing-limits>\n    </iapd-timing-limits>\n</subnet>",
            "iapd-timing-limits",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name(
    tmp_path: Path, sections: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leases.csv").write_text("id,address,prefix\n")
    monkeypatch.chdir(tmp_path)
    if named == "listen-tcp":  # dhcpkit itself wants a global address that is there
        monkeypatch.setattr(
            "dhcpkit.ipv6.server.listeners.unicast_tcp.config.is_global_unicast", lambda _: True
        )
    line = refused(write_configuration(tmp_path, sections))
    assert f"<{named}>: use ipv6-dhcpd for this" in line


def test_the_cmd_inside_a_filter_is_refused(tmp_path: Path) -> None:
    sections = f"<subnet 2001:db8::/32>{MOBILITY}</subnet>"
    line = refused(write_configuration(tmp_path, sections, mobility=""))
    assert "<central-mobility-database> inside a filter: use ipv6-dhcpd for this" in line


def test_a_file_without_the_cmd_or_without_a_listener_is_refused(tmp_path: Path) -> None:
    line = refused(write_configuration(tmp_path, "", mobility=""))
    assert "<central-mobility-database>: missing" in line
    listener = "<listen-unicast ::1>\n    mark unmarked\n</listen-unicast>"
    assert "no listener" in refused(write_configuration(tmp_path, "", change=(listener, "")))


def test_a_mistake_in_the_file_is_one_line_with_its_place(tmp_path: Path) -> None:
    line = refused(write_configuration(tmp_path, "<sol-max-rt>\n    limit 5\n</sol-max-rt>"))
    assert "MAX_RT must be between" in line
    assert ", line " in line


def test_a_database_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = write_configuration(tmp_path, "")
    with pytest.raises(ConfigError, match="database: "):
        read_plan(str(path), starting=True)


def test_reading_a_file_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """For a moment it is read as the server's user, by dhcpkit's means, which restore less."""
    before = os.umask(0o022)
    try:
        groups = os.getgroups()
        plan_of(write_configuration(tmp_path, ""))
        assert os.umask(0o022) == 0o022
        assert os.getgroups() == groups
    finally:
        os.umask(before)


def test_the_rest_of_the_plan(tmp_path: Path) -> None:
    plan = plan_of(write_configuration(tmp_path, ""))
    assert plan.database == f"sqlite:///{tmp_path}/cmd.sqlite"
    assert plan.status_directory == str(tmp_path / "status")
    assert plan.settings.rapid_commit
    [listener] = plan.listeners
    assert listener.address == bytes(15) + b"\x01"
    assert listener.marks == {"unmarked"}
    assert plan.rules.options == ()


@pytest.mark.parametrize("program", ["missing.conf", "cmd.conf"])
def test_the_command_refuses_in_one_line_with_status_2(tmp_path: Path, program: str) -> None:
    sqlite_store(tmp_path).close()
    write_configuration(tmp_path, "<rate-limit>\n</rate-limit>")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "dhcp_cmd.cli", "serve", tmp_path / program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert program in done.stderr
    assert done.stdout == ""
