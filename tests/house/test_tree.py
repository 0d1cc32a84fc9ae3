"""What is in the tree, and what must not be in it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.import_rules import PRODUCT, ROOT

# Put together from parts, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile(
    "|".join(
        (
            r"(?<![\w.~-])/(?:home|Users)" + r"/\w",
            r"(?<![\w.~-])/root" + r"/\w",
            r"(?<![\w.~-])/work" + r"/\w",
            r"(?<![\w.~-])/tmp/(?:brief|house|bash_jobs)" + r"\b",
            r"\b[A-Z]:\\Users" + r"\\",
            r"\bpkg" + r"\.dev\b",
        )
    )
)


def is_made(path: Path) -> bool:
    """True for what tools leave in the tree: environments, caches, build output."""
    hidden = {part for part in path.parts if part.startswith(".")} - {".ci", ".gitignore"}
    return bool(
        hidden or {"__pycache__", "build", "dist"} & set(path.parts) or ".egg-info" in str(path)
    )


def files_of_ours() -> list[Path]:
    """What git has or would take; the whole tree where there is no git (a release's archive)."""
    paths = [path for path in ROOT.rglob("*") if not is_made(path.relative_to(ROOT))]
    if shutil.which("git") and (ROOT / ".git").exists():
        git = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
        listed = subprocess.run(
            [*git, "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return sorted(path for path in paths if path.is_file())


def test_the_folders_of_the_house_are_there() -> None:
    wanted = {*PRODUCT, "schema", "configs", "tests", "docs", "packaging", "lab"}
    assert {path.name for path in ROOT.iterdir() if path.is_dir()} >= wanted


def test_nothing_of_a_developers_machine_is_in_a_file() -> None:
    found = []
    for path in files_of_ours():
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}: {match.group()}"
            for number, line in enumerate(lines, 1)
            if (match := MACHINE_PATHS.search(line))
        ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("see " + "/home" + "/joe/x", True),
        ("/work" + "/main/.venv", True),
        ("/var/lib/dhcp-cmd/cmd.sqlite", False),
        ("docs/home/index, a/work/b, ~/root", False),
    ],
)
def test_the_search_for_machine_paths_works(line: str, seen: bool) -> None:
    assert bool(MACHINE_PATHS.search(line)) is seen


@pytest.mark.parametrize("package", PRODUCT)
def test_every_folder_with_code_is_a_package(package: str) -> None:
    """What has no `__init__.py` would be missing from the wheel, and from nothing else."""
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
    assert (ROOT / package / "py.typed").is_file()


def compiled_modules() -> set[Path]:
    """What pyproject.toml says is to be compiled."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["distributed-mobility"]["compiled"]
    found = {pattern: set(ROOT.glob(pattern)) for pattern in patterns}
    assert [pattern for pattern, paths in found.items() if not paths] == []
    return {path for each in found.values() for path in each if path.name != "__init__.py"}


def bases(path: Path) -> dict[str, set[str]]:
    """The classes of a module, each with the names that it derives from."""
    classes = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    return {
        each.name: {ast.unparse(base).split(".")[-1] for base in each.bases} for each in classes
    }


def test_what_derives_from_a_compiled_class_is_compiled() -> None:
    """It would be refused, but only by the compiled build. An exception may, and a named tuple."""
    compiled = compiled_modules()
    known = {name: names for path in compiled for name, names in bases(path).items()}

    def is_free(name: str) -> bool:
        above = known.get(name, {name})
        return bool(above & {"Exception", "ValueError", "NamedTuple"}) or (
            name in known and any(map(is_free, above))
        )

    found = {
        f"{path.relative_to(ROOT)}: {name}({base})"
        for product in PRODUCT
        for path in {*(ROOT / product).rglob("*.py")} - compiled
        for name, names in bases(path).items()
        for base in names & known.keys()
        if not is_free(base)
    }
    assert found == set()
    assert "SqlTransaction" in known


@pytest.mark.parametrize(("script", "shell"), [("dev", "sh"), (".ci/run", "bash")])
def test_scripts_parse_and_are_executable(script: str, shell: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith(f"#!/bin/{shell}\n")
    subprocess.run([shell, "-n", path], check=True)


def test_the_maar_needs_nothing_of_the_cmd() -> None:
    """The base install is the MAAR (what an access router carries); the CMD's parts are an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in project["dependencies"]}
    assert names == {"pydantic", "pyroute2", "rich", "typer"}


def test_every_dependency_is_pinned_to_a_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["cmd"], *extras["postgresql"], *extras["dev"]]
    lines = (ROOT / "packaging" / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    pinned = {pin.partition("==")[0].lower() for pin in pins}
    assert {re.split(r"[^A-Za-z0-9-]", line)[0].lower() for line in asked} <= pinned


def test_the_interpreter_is_one_that_we_promise() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert sys.version_info >= (3, 11)
