"""The import rules hold in this tree; and the checker that says so sees a breach of each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.import_rules import PRODUCT, RULES, sources, tree_violations, uses, violations


def test_this_tree_keeps_the_rules() -> None:
    broken = tree_violations()
    assert not broken, "\n" + "\n".join(broken)


def test_the_checker_reads_every_package() -> None:
    seen = {module.partition(".")[0] for module, _ in sources()}
    assert seen >= {*PRODUCT, "tests"}


BREACHES = [
    # (module, source, words of the rule that must be named)
    ("dmm_wire.address", "import rich", "standard library only"),
    ("dmm_wire.address", "from dhcp_cmd.core import model", "standard library only"),
    ("dmm_wire.address", "import socket", "no IO"),
    ("dmm_wire.address", "data = open('x').read()", "no IO"),
    ("dhcp_cmd.cli", "import relay_maar", "never import each other"),
    ("dhcp_cmd.plugin.handler", "from relay_maar.core import agent", "never import each other"),
    ("relay_maar.cli", "from dhcp_cmd import core", "never import each other"),
    ("schema.migrations.env", "import relay_maar.io", "never import each other"),
    ("dhcp_cmd.core.decide", "import asyncio", "is pure"),
    ("dhcp_cmd.core.decide", "import os.path", "is pure"),
    ("dhcp_cmd.core.decide", "def f():\n    from time import time", "is pure"),
    ("dhcp_cmd.core.decide", "from sqlalchemy import select", "is pure"),
    (
        "dhcp_cmd.core.decide",
        "import datetime\nnow = datetime.datetime.now(datetime.UTC)",
        "is pure",
    ),
    ("dhcp_cmd.core.decide", "from datetime import date\nday = date.today()", "is pure"),
    ("dhcp_cmd.core.decide", "socket = __import__('socket')", "is pure"),
    ("dhcp_cmd.core.decide", "import importlib", "is pure"),
    ("relay_maar.core.sessions.table", "import random", "is pure"),
    ("relay_maar.core.agent", "from pyroute2 import AsyncIPRoute", "is pure"),
    ("relay_maar.core.agent", "import secrets as s", "is pure"),
    ("relay_maar.core.agent", "from relay_maar.southbound import seg6", "no other part"),
    ("dhcp_cmd.core.decide", "from ..store import engine", "no other part"),
    ("dhcp_cmd.core.decide", "from .. import store", "no other part"),
    ("dhcp_cmd.cli", "import sqlalchemy as sa", "SQLAlchemy"),
    ("dhcp_cmd.plugin.worker", "from alembic import command", "SQLAlchemy"),
    ("dhcp_cmd.service", "import psycopg", "psycopg"),
    ("relay_maar.io.netlink", "import pyroute2.netlink", "pyroute2"),
    ("dhcp_cmd.store.engine", "import dhcpkit", "dhcpkit"),
    ("dhcp_cmd.server.options", "from ZConfig import loadConfig", "dhcpkit"),
    ("relay_maar.cli", "from lab import topology", "nothing of lab/"),
    ("relay_maar.io.capture", "from scapy.all import sniff", "scapy"),
    ("tests.wire.test_options", "import scapy.layers.dhcp6", "scapy"),
    ("lab.capture", "import scapy", "scapy"),
    ("dhcp_cmd.scapy_oracle", "import scapy", "scapy"),
    ("tests.wire.scapy_oracle", "import scapy\nimport dhcpkit", "neither dhcpkit"),
    ("tests.wire.scapy_oracle", "from dhcp_cmd.plugin import mend", "neither dhcpkit"),
    ("tests.wire.test_options", "from tests.wire import scapy_oracle", "nobody imports"),
    ("tests.wire.test_options", "import tools.scapy_dmm.options", "only what is beside scapy"),
    ("dhcp_cmd.cli", "import tools.scapy_dmm", "only what is beside scapy"),
    ("tools.scapy_dmm.options", "import dhcpkit", "neither dhcpkit"),
    ("tools.scapy_dmm.options", "from dmm_wire import dmm", "does not know dmm_wire"),
]


@pytest.mark.parametrize(("module", "source", "rule"), BREACHES)
def test_a_breach_is_seen(module: str, source: str, rule: str) -> None:
    broken = violations(module, source)
    assert any(rule in line for line in broken), broken
    assert all(line.startswith(f"{module}:") for line in broken)


def test_every_rule_has_a_breach_above() -> None:
    seen = "\n".join(line for module, source, _ in BREACHES for line in violations(module, source))
    assert [rule.text for rule in RULES if rule.text not in seen] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "dmm_wire.dhcpv6.message",
            "import struct\nfrom dmm_wire.errors import WireError\nfrom . import codes",
        ),
        (
            "dhcp_cmd.core.decide",
            "from dmm_wire.dhcpv6 import message\nfrom .model import Snapshot",
        ),
        (
            "dhcp_cmd.core.decide",
            "from datetime import timedelta\nstart = request.now\nwhen = clock.now()",
        ),
        (
            "dhcp_cmd.store.engine",
            "import os\nimport time\nfrom sqlalchemy import select\nimport dhcp_cmd.core",
        ),
        (
            "schema.migrations.env",
            "from alembic import context\nimport sqlalchemy\nfrom dhcp_cmd import store",
        ),
        ("dhcp_cmd.plugin.worker", "import dhcpkit.ipv6\nfrom dhcp_cmd.store import engine"),
        ("relay_maar.southbound.seg6", "import pyroute2\nimport socket"),
        ("tests.plugin.test_mends", "import dhcpkit\nimport dhcp_cmd.plugin"),
        ("tests.wire.scapy_oracle", "from scapy.all import IPv6\nimport json"),
        ("tests.wire.scapy_oracle", "import tools.scapy_dmm.options"),
        ("tools.scapy_dmm.options", "from scapy.packet import Packet\nfrom tools import scapy_dmm"),
        ("lab.topology", "import pyroute2\nimport relay_maar.config"),
    ],
)
def test_what_is_allowed_is_not_reported(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(
    ("module", "is_package", "source", "name"),
    [
        ("a.b.c", False, "from . import d", "a.b.d"),
        ("a.b.c", False, "from ..x import d", "a.x.d"),
        ("a.b", True, "from . import d", "a.b.d"),
        ("a.b", True, "from .. import d", "a.d"),
        ("a.b", True, "from .c import d", "a.b.c.d"),
    ],
)
def test_relative_imports_are_resolved(
    module: str, is_package: bool, source: str, name: str
) -> None:
    assert [use.name for use in uses(module, source, is_package)] == [name]


def test_a_breach_in_a_tree_is_found_with_its_line(tmp_path: Path) -> None:
    core = tmp_path / "relay_maar" / "core"
    core.mkdir(parents=True)
    (core / "__init__.py").write_text('"""Fine."""\n')
    (core / "agent.py").write_text('"""Not fine."""\n\nimport socket\n')
    assert [line.split(": ")[0] for line in tree_violations(tmp_path)] == [
        "relay_maar.core.agent:3"
    ]


def test_a_file_that_is_no_python_is_reported_and_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "broken.py").write_text("x = (\n")
    [line] = tree_violations(tmp_path)
    assert line.startswith("lab.broken:1: is no Python: ")
