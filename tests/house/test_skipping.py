"""A test that cannot run here is skipped and counted in the last lines (tests/conftest.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.import_rules import ROOT

TESTS = """
import os
import pytest

@pytest.mark.root
@pytest.mark.parametrize("number", range(3))
def test_in_a_namespace(number, pytestconfig):
    with open("ran", "a") as log:
        log.write(os.environ.get("PYTEST_XDIST_WORKER", "alone") + "\\n")

@pytest.mark.needs("sh", "no-such-program")
def test_with_a_program():
    raise AssertionError("must not run")

@pytest.mark.needs("sh")
def test_with_what_is_there():
    pass

@pytest.mark.skip(reason="of its own accord")
def test_skipped_for_another_reason():
    raise AssertionError("must not run")
"""


def run(where: Path, may_make_namespaces: bool, *arguments: str) -> str:
    """pytest's output for TESTS, on a machine that lets us make namespaces or not."""
    (where / "test_some.py").write_text(TESTS)
    shutil.copy(ROOT / "tests" / "conftest.py", where)
    shutil.copy(ROOT / "pyproject.toml", where)
    unshare = where / "bin" / "unshare"
    unshare.parent.mkdir()
    unshare.write_text(f"#!/bin/sh\nexit {0 if may_make_namespaces else 1}\n")
    unshare.chmod(0o755)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, "test_some.py"],
        cwd=where,
        env={**environment, "PATH": f"{unshare.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_what_was_not_run_is_counted_with_its_reason(tmp_path: Path, workers: str) -> None:
    shown = run(tmp_path, False, workers)
    why = "the right to make network namespaces" if os.geteuid() == 0 else "root"
    summary = shown[shown.index("NOT RUN") :]
    assert f"3 tests not run: needs {why}" in summary
    assert "1 test not run: needs no-such-program" in summary
    assert "1 passed, 5 skipped" in summary
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(
    os.geteuid() != 0, reason="what a user may not do cannot be granted by a stand-in"
)
def test_as_root_they_run_and_all_on_one_worker(tmp_path: Path) -> None:
    shown = run(tmp_path, True, "-n2", "--dist", "loadgroup")
    assert "needs root" not in shown
    workers = (tmp_path / "ran").read_text().split()
    assert len(workers) == 3
    assert len(set(workers)) == 1
