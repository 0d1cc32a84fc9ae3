"""The compiled build does what the interpreted one does: tests of the CMD, run again against a compiled wheel.

They run in a copy of the tree that has the wheel's contents in the place of our sources, so that nothing interpreted
can answer in their stead. Left out is what is marked `interpreted`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import NOT_RUN, why_no_namespaces
from tests.house.import_rules import PRODUCT, ROOT
from tests.house.test_tree import compiled_modules

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("gcc"),
    pytest.mark.skipif(
        not Path(sysconfig.get_path("include"), "Python.h").exists(),
        reason=f"{NOT_RUN}needs Python.h, the C headers of this Python",
    ),
    pytest.mark.timeout(900),  # a C compiler on a busy machine
    pytest.mark.xdist_group("compiled"),  # built once
]

IN_PROCESS = (
    "tests/test_build.py",
    "tests/wire/test_address.py",
    "tests/wire/test_dhcpv6.py",
    "tests/wire/test_dmm.py",
    "tests/cmd/core",
    "tests/cmd/store/test_contract.py",
    "tests/cmd/server/test_differential.py",
    "tests/cmd/server/test_filters.py",
    "tests/cmd/server/test_waiting.py",
    "tests/cmd/plugin/test_handler.py",
    "tests/maar/core/test_with_the_cmd.py",
)
SERVERS = (
    "tests/cmd/server/test_serve.py::test_a_node_behind_a_maar_gets_its_lease",
    "tests/cmd/plugin/test_server.py::test_a_lease_and_a_move",
)
"""One of each host: `dhcp-cmd serve`, and `ipv6-dhcpd`, which pickles what it was configured with."""

IS_COMPILED = """
from dhcp_cmd.build import build

def test_this_is_the_compiled_build():
    assert build() == "compiled"
"""


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a compiled wheel into `folder`/wheel, from a copy in `folder`/tree, without the network."""
    tree = folder / "tree"
    for name in (*PRODUCT, "schema"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, tree)
    (tree / "packaging").mkdir()
    shutil.copy(ROOT / "packaging" / "constraints.txt", tree / "packaging")
    asked = {"DISTRIBUTED_MOBILITY_COMPILE": "1", "DISTRIBUTED_MOBILITY_OPTIMISE": "0"}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index"]
    return subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheel", tree],
        env={**os.environ, **asked, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def compiled() -> Iterator[Path]:
    """A tree with a compiled wheel's contents, tests and configurations."""
    # Not where pytest has its directories: a server that gives up root could not read it there.
    with TemporaryDirectory(prefix="compiled") as made:
        folder = Path(made)
        folder.chmod(0o755)
        built = build(folder)
        assert built.returncode == 0, built.stdout + built.stderr
        (wheel,) = (folder / "wheel").iterdir()
        site = folder / "site"
        zipfile.ZipFile(wheel).extractall(site)
        for name in ("tests", "lab", "configs"):
            shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", site)
        (site / "tests" / "test_build.py").write_text(IS_COMPILED)
        yield site


def run_there(site: Path, *chosen: str) -> None:
    """Run tests against the compiled build; they all have to pass."""
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest_, "-m", "not interpreted", *chosen],
        cwd=site,
        env={name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_wheel_has_what_is_listed_compiled_and_as_source(compiled: Path) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    found = {str(path.relative_to(compiled)) for path in compiled.rglob("*.so")}
    wanted = {str(path.relative_to(ROOT).with_suffix("")) for path in compiled_modules()}
    assert found == {f"{name}{suffix}" for name in (*wanted, "distributed_mobility__mypyc")}
    assert [name for name in wanted if not (compiled / f"{name}.py").is_file()] == []


def test_the_tests_of_the_cmd_pass_compiled(compiled: Path) -> None:
    run_there(compiled, *IN_PROCESS)


def test_both_hosts_serve_compiled(compiled: Path) -> None:
    obstacle = why_no_namespaces()
    if obstacle:
        pytest.skip(NOT_RUN + obstacle)
    run_there(compiled, *SERVERS)


def test_what_is_asked_for_and_fails_fails_the_build(tmp_path: Path) -> None:
    built = build(tmp_path, CC="false")
    assert built.returncode != 0
    assert re.search(r"error: command '.*false' failed", built.stderr), built.stderr
    assert not list(tmp_path.glob("wheel/*"))
