"""./dev: what it installs, when, and what it says where it may not.

It runs here in a copy of the tree's outline, with stand-ins for apt-get, id and the virtual environment's Python, so
that every way through it can be seen without a network and without touching this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.house.import_rules import PRODUCT, ROOT

HELD = (
    "pyproject.toml",
    "setup.py",
    "packaging/constraints.txt",
    "packaging/netifaces/pyproject.toml",
    "packaging/netifaces/setup.py",
    "packaging/netifaces/dhcpkit-typing.pth",
)


class Outline:
    """A tree in which ./dev can run, and the log of what it called."""

    def __init__(self, path: Path) -> None:
        self.path = path / "tree"
        self.bin = path / "bin"
        self.policy = path / "policy-rc.d"
        self.no_cluster = path / "etc" / "createcluster.d" / "distributed-mobility.conf"
        self.calls = path / "calls"
        self.bin.mkdir()
        for name in HELD:
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        text = (ROOT / "dev").read_text()
        policy = "policy=/usr/sbin/policy-rc.d\n"
        programs = next(line for line in text.splitlines() if line.startswith("programs="))
        no_cluster = next(line for line in text.splitlines() if line.startswith("no_cluster="))
        testers = next(line for line in text.splitlines() if line.startswith("test_programs="))
        assert policy in text
        text = text.replace(policy, f"policy={self.policy}\n")
        text = text.replace(no_cluster, f"no_cluster={self.no_cluster}")
        text = text.replace(programs, "programs='sh:dash no-such-program:its-package'")
        text = text.replace(testers, "test_programs='no-such-tester:its-tester'")
        (self.path / "dev").write_text(text)
        (self.path / "dev").chmod(0o755)
        self.stub("id", "echo 0")
        self.apt("exit 0")
        self.stub("python3", "exit 0", where=self.path / ".venv" / "bin", name="python")

    def stub(self, program: str, body: str, where: Path | None = None, name: str = "") -> None:
        """A shell script that logs its name, arguments and whether services are held back, then runs `body`."""
        path = (where or self.bin) / (name or program)
        path.parent.mkdir(parents=True, exist_ok=True)
        held = f"$([ -x {self.policy} ] && echo '[held]')"
        path.write_text(f'#!/bin/sh\necho "{program} $* {held}" >>{self.calls}\n{body}\n')
        path.chmod(0o755)

    def apt(self, body: str) -> None:
        self.stub("apt-get", body)

    def dev(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path / "dev", *arguments],
            cwd=cwd or self.path,
            env={
                **os.environ,
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "TMPDIR": str(self.path),  # who is killed leaves what it had there
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def called(self, program: str) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line for line in lines if line.startswith(program + " ")]


@pytest.fixture
def outline(tmp_path: Path) -> Outline:
    return Outline(tmp_path)


def test_help_names_every_command_and_no_command_is_an_error(outline: Outline) -> None:
    shown = outline.dev("help")
    assert shown.returncode == 0
    for command in ("setup", "demo", "faults", "test", "check", "bench", "run", "compiled"):
        assert f"\n  {command} " in shown.stdout
    wrong = outline.dev("tset")
    assert wrong.returncode == 1
    assert "no such command: tset" in wrong.stderr


def test_as_root_it_gets_what_is_missing_and_no_daemon_starts(outline: Outline) -> None:
    done = outline.dev("setup")
    assert done.returncode == 0, done.stderr
    [call] = outline.called("apt-get")
    assert " install --no-install-recommends its-package [held]" in call
    assert "dash" not in call
    assert not outline.policy.exists()


def test_what_only_the_tests_start_is_got_for_them(outline: Outline) -> None:
    outline.dev("setup")
    outline.dev("test")
    first, second = outline.called("apt-get")
    assert "its-tester" not in first
    assert " install --no-install-recommends its-package its-tester [held]" in second


def test_postgresql_makes_no_cluster_on_the_host(outline: Outline) -> None:
    script = outline.path / "dev"
    script.write_text(script.read_text().replace("its-package", "postgresql"))
    outline.apt(
        f'cp {outline.no_cluster} {outline.bin}/seen; case "$*" in *update*) ;; *) exit 1 ;; esac'
    )
    outline.dev("setup")
    assert len(outline.called("apt-get")) == 3
    assert (outline.bin / "seen").read_text().endswith("\ncreate_main_cluster = false\n")
    assert not outline.no_cluster.parent.parent.exists()


def test_package_lists_are_fetched_only_when_the_install_needs_them(outline: Outline) -> None:
    outline.apt(
        f'case "$*" in *update*) touch {outline.bin}/lists ;; *) test -e {outline.bin}/lists ;; esac'
    )
    assert outline.dev("setup").returncode == 0
    steps = ["update" if " update " in call else "install" for call in outline.called("apt-get")]
    assert steps == ["install", "update", "install"]
    assert not outline.policy.exists()


def test_it_goes_on_where_apt_fails_and_takes_its_policy_away(outline: Outline) -> None:
    outline.apt("echo E: no such package; exit 100")
    done = outline.dev("setup")
    assert done.returncode == 0
    assert "E: no such package" in done.stderr
    assert "going on with what runs without them" in done.stderr
    assert not outline.policy.exists()


def test_an_administrators_policy_is_left_alone(outline: Outline) -> None:
    outline.policy.write_text("#!/bin/sh\nexit 101\n")
    outline.policy.chmod(0o755)
    assert outline.dev("setup").returncode == 0
    assert outline.policy.read_text() == "#!/bin/sh\nexit 101\n"


def test_a_policy_left_by_a_killed_run_is_taken_away(outline: Outline) -> None:
    # apt-get is killed together with the script that waits for it: no trap runs.
    outline.apt("kill -9 $PPID $(cut -d' ' -f4 /proc/$PPID/stat)")
    assert outline.dev("setup").returncode == -signal.SIGKILL
    assert outline.policy.exists()
    outline.apt("exit 0")
    outline.dev("setup")
    assert not outline.policy.exists()


def test_without_root_it_says_what_to_install_and_goes_on(outline: Outline) -> None:
    outline.stub("id", "echo 1000")
    done = outline.dev("setup")
    assert done.returncode == 0
    assert "sudo apt-get install --no-install-recommends its-package" in done.stderr
    assert outline.called("apt-get") == []


def test_without_root_there_is_no_demo(outline: Outline) -> None:
    outline.stub("id", "echo 1000")
    done = outline.dev("demo")
    assert done.returncode == 1
    assert "needs root" in done.stderr


def test_set_up_is_done_once_until_something_it_reads_changes(outline: Outline) -> None:
    first = outline.dev("setup")
    assert "set up: done" in first.stderr
    installs = [call for call in outline.called("python3") if " install " in call]
    names = [call.split(".txt ")[1].split(" [")[0].strip() for call in installs]
    assert names == ["setuptools", "./.venv/netifaces", "--editable .[cmd,postgresql,dev,bench]"]

    assert "set up" not in outline.dev("setup").stderr

    with (outline.path / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert "set up: done" in outline.dev("setup").stderr


def test_a_failed_set_up_shows_why_and_is_tried_again(outline: Outline) -> None:
    python = outline.path / ".venv" / "bin"
    broken = 'case "$*" in *editable*) echo "ERROR: no route to the index"; exit 1 ;; esac'
    outline.stub("python3", broken, where=python, name="python")
    done = outline.dev("setup")
    assert done.returncode == 1
    assert "ERROR: no route to the index" in done.stderr
    outline.stub("python3", "exit 0", where=python, name="python")
    again = outline.dev("setup")
    assert again.returncode == 0
    assert "set up: done" in again.stderr


def test_it_works_from_any_directory_and_hands_on_arguments_and_status(
    outline: Outline, tmp_path: Path
) -> None:
    outline.stub(
        "tool",
        f'pwd >{tmp_path}/where; printf "%s\\n" "$@" >{tmp_path}/got; exit 7',
        outline.path / ".venv/bin",
    )
    done = outline.dev("run", "tool", "two words", "*", cwd=Path("/"))
    assert done.returncode == 7
    assert (tmp_path / "where").read_text().strip() == str(outline.path)
    assert (tmp_path / "got").read_text() == "two words\n*\n"


COMPILED = ".venv-compiled"


@pytest.fixture
def compilable(outline: Outline) -> Outline:
    """The outline with sources, a compiler, and an environment for the compiled build whose Python has headers."""
    for folder in (*PRODUCT, "schema"):
        (outline.path / folder).mkdir()
        (outline.path / folder / "a.py").write_text("A = 1\n")
    for name in ("README.md", "LICENSE"):
        (outline.path / name).touch()
    outline.stub("gcc", "exit 0")
    where = outline.path / COMPILED / "bin"
    asked = f'echo "asked: $DISTRIBUTED_MOBILITY_COMPILE $*" >>{outline.calls}'
    outline.stub("python3", asked, where=where, name="python")
    outline.stub("tool", "exit 7", where)
    return outline


def test_the_compiled_build_is_asked_for_and_renewed_when_a_source_changes(
    compilable: Outline,
) -> None:
    first = compilable.dev("compiled", "tool", "x")
    assert first.returncode == 7, first.stderr
    assert compilable.called("tool") == ["tool x "]
    installs = [call for call in compilable.called("asked:") if " install " in call]
    names = [call.split(".txt ")[1] for call in installs]
    source = f"./{COMPILED}/source[cmd,postgresql]"
    assert names == ["setuptools", f"./{COMPILED}/netifaces", "mypy", source]
    assert all(call.startswith("asked: 1 ") for call in installs)
    assert not (compilable.path / COMPILED / "source").exists()

    assert "set up" not in compilable.dev("compiled").stderr
    (compilable.path / "dhcp_cmd" / "a.py").write_text("A = 2\n")
    again = compilable.dev("compiled")
    assert (again.returncode, "set up: done" in again.stderr) == (0, True)
    assert compilable.called("apt-get") == []
    assert "set up" in compilable.dev("setup").stderr  # the other environment is another one


def test_a_compiler_is_got_only_where_there_is_none(compilable: Outline) -> None:
    headers = compilable.path / "headers"
    python = compilable.path / COMPILED / "bin"
    has_headers = f'case "$*" in *Python.h*) test -e {headers} ;; esac'
    compilable.stub("python3", has_headers, where=python, name="python")
    failed = compilable.dev("compiled")
    assert failed.returncode == 1
    assert "no C headers (Python.h)" in failed.stderr
    compilable.apt(f"touch {headers}")
    assert compilable.dev("compiled").returncode == 0
    calls = [call for call in compilable.called("apt-get") if " install " in call]
    assert all(" gcc libc6-dev python3-dev [held]" in call for call in calls)
    assert len(calls) == 2


def test_tests_run_in_parallel_and_take_arguments(outline: Outline) -> None:
    assert outline.dev("test", "tests/wire", "-k", "truncated").returncode == 0
    assert re.match(
        r"python3 -m pytest -n \d+ --dist loadgroup tests/wire -k truncated",
        outline.called("python3")[-1],
    )


def test_check_runs_every_check_though_one_fails(outline: Outline) -> None:
    where = outline.path / ".venv" / "bin"
    outline.stub("ruff", 'case "$*" in format*) echo would reformat; exit 1 ;; esac', where)
    outline.stub("mypy", "exit 0", where)
    done = outline.dev("check")
    assert done.returncode == 1
    assert "would reformat" in done.stderr
    assert "check: format: FAILED" in done.stderr
    for passed in ("lint", "types", "import rules"):
        assert f"check: {passed}: ok" in done.stderr
    assert done.stderr.endswith("check: FAILED: format\n")
