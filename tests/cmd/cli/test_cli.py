"""`dhcp-cmd` as the operator meets it: what it prints, on which stream, with which exit status."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from dhcp_cmd import cli
from dhcp_cmd.audit import Answer
from dhcp_cmd.commands import context
from dhcp_cmd.commands.output import Format, table, write
from dhcp_cmd.pmip.sockets import Claim
from dhcp_cmd.store import SCHEMA_VERSION, open_store
from dmm_wire.address import format_address, format_mac, parse_address
from dmm_wire.router_identity import of_anchor
from tests.cmd.cli.commuter import MINUTE, commuter
from tests.cmd.store.domain import T0, opened

POOLS = (
    "--pool",
    "link=2001:db8:100::/40",
    "--pool",
    "delegated=2001:db8:8000::/36,unit=56,preferred=1d,valid=2d",
)
MAAR1 = ("add", "maar1", "--endpoint", "2001:db8:ffff::1", "--link", "2001:db8:1::/64", *POOLS)


class Said(NamedTuple):
    status: int
    out: str
    err: str


class Shell:
    def __init__(self, file: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self._capture = capture

    def __call__(self, *arguments: str) -> Said:
        self._capture.readouterr()
        status = cli.run(["--database", str(self.file), *arguments])
        return Said(status, *self._capture.readouterr())

    def ok(self, *arguments: str) -> str:
        said = self(*arguments)
        assert (said.status, said.err) == (0, "")
        return said.out


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.delenv(context.ENVIRONMENT, raising=False)
    return Shell(tmp_path / "cmd.sqlite", capsys)


@pytest.fixture
def lived(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A database with the commuter's history; it is 25 minutes after its beginning, then what is due is late."""
    with opened("sqlite", shell.file.parent) as store:
        commuter(store)
    monkeypatch.setattr(context, "now", lambda: T0 + 25 * MINUTE)
    for module in ("audit", "db", "maar", "running"):
        monkeypatch.setattr(f"dhcp_cmd.commands.{module}.now", lambda: T0 + 25 * MINUTE)
    return shell


# --- db ---


def test_upgrade_makes_and_says_so(shell: Shell) -> None:
    assert shell.ok("db", "upgrade") == f"made, schema version {SCHEMA_VERSION}\n"
    assert shell.ok("db", "upgrade") == f"schema version {SCHEMA_VERSION} already\n"
    assert shell.ok("db", "check") == "sound\n"


def test_check_fails_on_a_broken_database(lived: Shell) -> None:
    connection = sqlite3.connect(lived.file)
    connection.execute("DELETE FROM binding WHERE kind = 'delegated'")
    connection.commit()
    connection.close()
    said = lived("db", "check")
    assert said.status == 1
    assert said.out == (
        "replay: the history says 2001:db8:101:30::/60 is 2001:db8:101:30::/60 delegated active "
        "of node 1 at MAAR 1 iaid 1, but it has no row\n"
    )


def test_prune(lived: Shell) -> None:
    assert lived.ok("db", "prune", "--older-than", "4m") == (
        "pruned 6 events and 0 nodes from before 2027-01-15T08:21:00.000000Z\n"
    )
    assert lived.ok("db", "check") == "sound\n"
    note = "dhcp-cmd: note: the history before 2027-01-15T08:21:00.000000Z was pruned\n"
    for command in (
        ("who-had", "::1", "--at", "-5m"),
        ("trace", "02:00:00:00:00:01"),
        ("handovers",),
    ):
        assert lived("audit", *command).err == note
    lived.ok("audit", "who-had", "::1", "--at", "-4m")
    assert "history pruned before 2027-01-15T08:21:00.000000Z" in lived.ok("status")


def test_backup(lived: Shell, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite"
    assert lived.ok("db", "backup", str(copy)) == f"{copy}: {copy.stat().st_size} bytes\n"
    open_store(str(copy)).close()
    assert lived("db", "backup", str(copy)) == (1, "", f"dhcp-cmd: {copy}: File exists\n")


# --- maar ---


T1 = parse_address("2001:db8:ffff::1")


def test_maars(shell: Shell) -> None:
    shell.ok("db", "upgrade")
    assert shell.ok("maar", *MAAR1) == "added maar1\n"
    assert shell.ok("maar", "drain", "maar1") == "maar1 is draining\n"
    assert shell.ok("maar", "drain", "maar1") == "maar1 is draining already\n"
    (listed,) = json.loads(shell.ok("maar", "list", "--format", "json"))
    assert listed == {
        "name": "maar1",
        "state": "draining",
        "endpoint": "2001:db8:ffff::1",
        "relay_address": "2001:db8:ffff::1",
        "relay_id": "000200007ed96d61617231",
        "links": "2001:db8:1::/64",
        "pools": "link=2001:db8:100::/40,unit=64,preferred=3600s,valid=7200s"
        " delegated=2001:db8:8000::/36,unit=56,preferred=86400s,valid=172800s",
        "router_link_local": format_address(of_anchor(T1).link_local),
        "router_link_layer": format_mac(of_anchor(T1).link_layer),
    }
    assert shell.ok("maar", "undrain", "maar1") == "maar1 is active\n"
    assert shell.ok("maar", "remove", "maar1") == "removed maar1\n"
    assert shell.ok("maar", "list", "-f", "json") == "[]\n"


def test_overlap_is_one_line_that_names_both(shell: Shell) -> None:
    shell.ok("db", "upgrade")
    shell.ok("maar", *MAAR1)
    second = ("maar", "add", "maar2", "--endpoint", "2001:db8:ffff::2", "--link", "2001:db8:2::/64")
    assert shell(*second, "--pool", "link=2001:db8:1ff::/48") == (
        2,
        "",
        "dhcp-cmd: pool 2001:db8:1ff::/48 of MAAR maar2 overlaps pool 2001:db8:100::/40 of MAAR maar1\n",
    )


TOML = """
[[maar]]
name = "maar1"
endpoint = "2001:db8:ffff::1"
links = ["2001:db8:1::/64"]
[[maar.pool]]
kind = "link"
prefix = "2001:db8:100::/40"
valid = "infinite"

[[maar]]
name = "maar2"
endpoint = "2001:db8:ffff::2"
relay-id = "00:03:00:01:02:00:5e:00:53:01"
router-link-local = "fe80::2"
router-link-layer = "02:00:5e:00:53:02"
relay-address = "2001:db8::2"
links = ["2001:db8:2::/64"]
pool = [{ kind = "delegated", prefix = "2001:db8:8000::/36", unit = 56, preferred = 60, valid = "2m" }]
"""


def test_import(shell: Shell, tmp_path: Path) -> None:
    shell.ok("db", "upgrade")
    file = tmp_path / "maars.toml"
    file.write_text(TOML)
    assert shell.ok("maar", "import", str(file)) == "added 2 of 2 MAARs; 0 were there\n"
    assert shell.ok("maar", "import", str(file)) == "added 0 of 2 MAARs; 2 were there\n"
    assert shell.ok("maar", "list", "-f", "csv") == (
        "name,state,endpoint,relay_address,relay_id,links,pools,router_link_local,router_link_layer\n"
        "maar1,active,2001:db8:ffff::1,2001:db8:ffff::1,000200007ed96d61617231,2001:db8:1::/64,"
        '"link=2001:db8:100::/40,unit=64,preferred=3600s,valid=4294967295s",'
        f"{format_address(of_anchor(T1).link_local)},{format_mac(of_anchor(T1).link_layer)}\n"
        "maar2,active,2001:db8:ffff::2,2001:db8::2,0003000102005e005301,2001:db8:2::/64,"
        '"delegated=2001:db8:8000::/36,unit=56,preferred=60s,valid=120s",'
        "fe80::2,02:00:5e:00:53:02\n"
    )


def test_which_router_a_maar_is(shell: Shell) -> None:
    shell.ok("db", "upgrade")
    mac = ("--router-link-layer", "02:00:5e:00:53:01")
    shell.ok("maar", *MAAR1, *mac)
    second = ("maar", "add", "maar2", "--endpoint", "2001:db8:ffff::2", "--link", "2001:db8:2::/64")
    taken = (
        "dhcp-cmd: MAAR maar2: router link-layer address 02:00:5e:00:53:01 is that of MAAR maar1\n"
    )
    assert shell(*second, *mac) == (2, "", taken)
    shell.ok(*second)
    assert shell("maar", "router", "maar2", *mac) == (2, "", taken)
    chosen = shell.ok(
        "maar", "router", "maar2", "--router-link-local", "fe80::2", *mac[:1], "2:0:0:0:0:2"
    )
    assert chosen == "maar2 is router fe80::2 02:00:00:00:00:02\n"
    assert shell.ok("maar", "router", "maar1") == (
        f"maar1 is router {format_address(of_anchor(T1).link_local)} {format_mac(of_anchor(T1).link_layer)}\n"
    )
    listed = json.loads(shell.ok("maar", "list", "--format", "json"))
    assert [each["router_link_local"] for each in listed] == [
        format_address(of_anchor(T1).link_local),
        "fe80::2",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"maar2"', "7", "maar 2: name is not a text"),
        ('"2001:db8:ffff::2"', '"x"', "maar 2 (maar2): endpoint: text: 'x' is not an IPv6 address"),
        (
            "relay-address",
            "relay_address",
            "maar 2: unknown key 'relay_address' (known: name, endpoint, ",
        ),
        ("unit = 56", "unit = true", "maar 2 (maar2): pool 1: unit is not a number"),
        ('"2m"', '"2y"', "maar 2 (maar2): pool 1: valid: '2y' is not a duration such as"),
        (
            '"delegated"',
            '"address"',
            "maar 2 (maar2): pool 1: kind 'address' is neither link nor delegated",
        ),
        (
            '"02:00:5e:00:53:02"',
            '"x"',
            "maar 2 (maar2): router-link-layer: text: 'x' is not a link-layer address",
        ),
        ('["2001:db8:2::/64"]', "[1]", "maar 2 (maar2): links: 1 is not text"),
        ("[[maar]]", "[maar", ": "),
        ("[[maar]]", "[[marr]]", "has to hold tables [[maar]] and nothing else"),
        ('kind = "link"', "", "maar 1 (maar1): pool 1: kind is missing"),
    ],
)
def test_a_file_that_is_wrong(
    shell: Shell, tmp_path: Path, old: str, new: str, message: str
) -> None:
    shell.ok("db", "upgrade")
    file = tmp_path / "maars.toml"
    assert old in TOML
    file.write_text(TOML.replace(old, new))
    said = shell("maar", "import", str(file))
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith(f"dhcp-cmd: {file}: ")
    assert message in said.err
    assert shell.ok("maar", "list", "-f", "json") == "[]\n"


def test_remove_needs_force(lived: Shell) -> None:
    assert lived("maar", "remove", "maar1") == (
        2,
        "",
        "dhcp-cmd: MAAR maar1 anchors 4 live bindings: drain it and wait, or end them with --force\n",
    )
    assert lived.ok("maar", "remove", "maar1", "--force") == "removed maar1, ended 4 bindings\n"
    assert lived.ok("db", "check") == "sound\n"


# --- audit ---


def test_who_had(lived: Shell) -> None:
    assert lived.ok("audit", "who-had", "2001:db8:100:2::1", "--at", "2027-01-15T08:06:00Z") == (
        "prefix                kind  node  identities                 since                        "
        "until                        event     anchor  serving\n"
        "2001:db8:100:2::/64   link  2     duid:00030001000000000002  2027-01-15T08:05:00.000000Z  "
        "2027-01-15T08:15:00.000000Z  assigned  maar1   maar1\n"
    ).replace("prefix                kind", "prefix               kind").replace(
        "/64   link", "/64  link"
    )
    rows = json.loads(
        lived.ok("audit", "who-had", "2001:db8:100::/40", "--at", "-19m", "-f", "json")
    )
    assert [row["node"] for row in rows] == [1, 1, 2, 1]
    assert json.loads(lived.ok("audit", "who-had", "2001:db8::1", "-f", "json")) == []


def test_trace_anchors_handovers(lived: Shell) -> None:
    table = list(
        csv.reader(io.StringIO(lived.ok("audit", "trace", "02:00:00:00:00:01", "-f", "csv")))
    )
    assert table[0][:5] == ["at", "until", "event", "from_maar", "to_maar"]
    assert [row[4] for row in table if row[2] == "handover"] == ["maar1", "maar2", "maar1"]
    anchored = lived.ok("audit", "anchors", "maar2").splitlines()
    assert anchored[1].split()[:5] == ["maar2", "2001:db8:200::/64", "link", "deprecated", "maar1"]
    assert lived.ok("audit", "handovers", "--since", "-20m", "--until", "now", "-f", "csv") == (
        "from_maar,to_maar,handovers,first,last\n"
        ",maar1,1,2027-01-15T08:05:00.000000Z,2027-01-15T08:05:00.000000Z\n"
        "maar1,maar2,1,2027-01-15T08:10:00.000000Z,2027-01-15T08:10:00.000000Z\n"
        "maar2,maar1,1,2027-01-15T08:20:00.000000Z,2027-01-15T08:20:00.000000Z\n"
    )


# --- status, reap ---


def test_status(lived: Shell) -> None:
    found = json.loads(lived.ok("status", "--json"))
    assert found["schema_version"] == SCHEMA_VERSION
    assert found["nodes"] == 3
    assert found["bindings"] == {"active": 4, "deprecated": 1, "ended": 0}
    assert found["maars"][0] == {
        "name": "maar1",
        "endpoint": "2001:db8:ffff::1",
        "state": "active",
        "nodes": 3,
        "bindings": {"active": 4},
    }
    assert found["last_event"] == {
        "at": "2027-01-15T08:33:00.000000Z",
        "event": "assigned",
        "node": 3,
        "cause": "request",
    }
    assert lived.ok("status").splitlines()[1:3] == [
        "3 nodes; bindings: 4 active, 1 deprecated, 0 ended",
        "last event: 2027-01-15T08:33:00.000000Z assigned node 3 (request)",
    ]


def test_reap(lived: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lived.ok("reap") == "reaped 0\n"
    monkeypatch.setattr("dhcp_cmd.commands.running.now", lambda: T0 + 60 * MINUTE)
    assert lived.ok("reap", "--limit", "2") == "reaped 2\n"
    assert lived.ok("reap") == "reaped 3\n"
    assert json.loads(lived.ok("status", "--json"))["bindings"]["ended"] == 5
    monkeypatch.setattr("dhcp_cmd.commands.running.now", lambda: T0 + 600 * MINUTE)
    assert lived.ok("reap") == "reaped 5\n"
    assert lived.ok("db", "check") == "sound\n"


# --- what an answer looks like ---

ANSWER = Answer(
    ("node", "prefix", "anchor", "identities"),
    ((1, "2001:db8::/64", None, "duid:0003 eui48:02:00"), (12, None, "maar1", "a\x1b[2Jb")),
)


def test_a_table_is_aligned_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    write(ANSWER, Format.TABLE)
    assert capsys.readouterr().out == (
        "node  prefix         anchor  identities\n"
        "1     2001:db8::/64          duid:0003 eui48:02:00\n"
        "12                   maar1   a\\x1b[2Jb\n"
    )


@pytest.mark.parametrize("width", [49, 50])
def test_on_a_terminal_too_narrow_for_the_table_rows_are_records(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    write(ANSWER, Format.TABLE)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    if width == 50:
        assert out.startswith("node  prefix ")
    else:
        assert out == (
            "node: 1  prefix: 2001:db8::/64\n"
            "    identities: duid:0003 eui48:02:00\n"
            "node: 12  anchor: maar1  identities: a\\x1b[2Jb\n"
        )


def test_a_value_too_long_for_a_line_is_broken_at_spaces() -> None:
    pools = "link=2001:db8:100::/40 delegated=2001:db8:d100::/40"
    assert list(table(("name", "pools", "state"), [("maar1", pools, "active")], 40)) == [
        "name: maar1",
        "    pools: link=2001:db8:100::/40",
        "        delegated=2001:db8:d100::/40",
        "    state: active",
    ]


def test_no_rows_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    write(Answer(("node", "prefix"), ()), Format.TABLE)
    assert capsys.readouterr().out == "node  prefix\n(none)\n"


# --- mistakes and failures ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("maar", "add", "x"), "Missing option '--endpoint'"),
        (("maar", "add", "x", "--endpoint", "y", "--link", "::/0"), "'y' is not an IPv6 address"),
        (("maar", "add", "x", "--endpoint", "2001:db8::1", "--link", "::1/8"), "host bits set"),
        (("maar", *MAAR1[:6], "--pool", "2001:db8::/32"), "does not begin with link=PREFIX"),
        (("maar", *MAAR1[:6], "--pool", "link=2001:db8::/32,size=4"), "'size' is none of unit="),
        (("maar", *MAAR1[:6], "--relay-id", "xx"), "'xx' is not hexadecimal"),
        (("maar", "drain", "x"), "no MAAR x"),
        (("audit", "anchors", "x"), "no MAAR x"),
        (("audit", "who-had", "10.0.0.1"), "'10.0.0.1' is not an IPv6 address"),
        (("audit", "who-had", "::1", "--at", "noon"), "--at: 'noon' is not a time"),
        (("audit", "who-had", "::1", "--at", "2027-01-15T08:00"), "has no zone"),
        (("audit", "trace", "me"), "'me' is no DUID, link-layer address or NAI"),
        (("audit", "handovers", "--format", "xml"), "'xml'"),
        (("db", "prune", "--older-than", "soon"), "--older-than: 'soon' is not a duration"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    shell: Shell, arguments: tuple[str, ...], message: str
) -> None:
    shell.ok("db", "upgrade")
    said = shell(*arguments)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert said.err.startswith("dhcp-cmd: ")
    assert message in said.err


def test_a_failure_is_one_line_and_1(shell: Shell, tmp_path: Path) -> None:
    assert shell("status") == (1, "", f"dhcp-cmd: {shell.file}: unable to open database file\n")
    assert not shell.file.exists()
    shell.file.write_text("no database at all, but long enough to be one" * 100)
    assert shell("status") == (1, "", f"dhcp-cmd: {shell.file}: file is not a database\n")


def test_another_schema_version(shell: Shell) -> None:
    shell.ok("db", "upgrade")
    connection = sqlite3.connect(shell.file)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    newer = (
        f"schema version 9999 is newer than this program's {SCHEMA_VERSION}; upgrade the program"
    )
    for command in (("status",), ("db", "upgrade"), ("db", "check")):
        assert shell(*command) == (1, "", f"dhcp-cmd: {shell.file}: {newer}\n")


def test_which_database(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["status"]) == 2
    assert "which database?" in capsys.readouterr().err
    monkeypatch.setenv(context.ENVIRONMENT, str(shell.file))
    assert cli.run(["db", "upgrade"]) == 0
    assert cli.run(["--database", "mysql://host/x", "status"]) == 2
    capsys.readouterr()
    monkeypatch.setattr("dhcp_cmd.plugin.config.database_url", lambda path: f"/nowhere/{path}")
    assert (
        cli.run(["--config", "cmd.conf", "maar", "list"]) == 1
    )  # --config goes before the environment
    assert "/nowhere/cmd.conf" in capsys.readouterr().err


def test_a_reader_that_leaves_early(lived: Shell) -> None:
    command = (
        f"{sys.executable} -m dhcp_cmd.cli --database {lived.file} audit trace 02:00:00:00:00:01"
    )
    done = subprocess.run(
        ["sh", "-c", f"{command} | head -n 1"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("at ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [
        ("mode direct", "mode: direct: the MAARs signal themselves"),
        ("mode relay\n    endpoint 2001:db8::135", "dhcp-cmd serve signals by itself"),
        ("mode proxy", "endpoint: missing"),
    ],
)
def test_signal_says_why_it_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, complaint: str
) -> None:
    example = (Path(__file__).parents[3] / "configs" / "cmd.conf").read_text()
    path = tmp_path / "cmd.conf"
    path.write_text(example.replace("# mode direct", mode))
    assert cli.run(["signal", str(path)]) == context.OPERATOR_MISTAKE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dhcp-cmd: {path}")
    assert complaint in line


def test_signal_does_not_start_beside_another_sender(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = (Path(__file__).parents[3] / "configs" / "cmd.conf").read_text()
    path = tmp_path / "cmd.conf"
    path.write_text(
        example.replace("# mode direct", "mode proxy\n    endpoint 2001:db8:ffff::c1a3")
    )
    serving = Claim(parse_address("2001:db8:ffff::c1a3"))
    try:
        assert cli.run(["signal", str(path)]) == context.FAILURE
    finally:
        serving.close()
    told = "dhcp-cmd: endpoint 2001:db8:ffff::c1a3: dhcp-cmd serve or signal speaks PMIPv6 there\n"
    assert capsys.readouterr().err == told
