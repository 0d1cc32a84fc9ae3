"""A wheel is complete: it alone can make and upgrade a database, and starts both programs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from tests.house.import_rules import PRODUCT, ROOT

SCHEMA_FILES = {".sql", ".py", ".mako", ".ini"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without the network, from a copy: a build writes into its source."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in (*PRODUCT, "schema"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, tree)
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    built = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", out, tree],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return next(out.glob("distributed_mobility-*.whl"))


def schema_files(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.suffix in SCHEMA_FILES and "__pycache__" not in path.parts
    }


def test_the_wheel_has_all_code_and_all_of_the_schema(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(path.relative_to(ROOT)) for name in PRODUCT for path in (ROOT / name).rglob("*.py")
    }
    wanted |= {
        str(path.relative_to(ROOT)) for name in PRODUCT for path in (ROOT / name).rglob("*.xml")
    }
    wanted |= {f"dhcp_cmd/schema/{name}" for name in schema_files(ROOT / "schema")}
    assert any(name.endswith(".sql") for name in wanted)
    assert wanted - inside == set()


def test_the_wheel_has_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PRODUCT)


def test_the_schema_is_found_in_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    # -I -S: neither this tree nor its editable install can answer in the wheel's place.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from importlib.resources import files\n"
        "print(files('dhcp_cmd.schema'))"
    )
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, tmp_path / "site"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    found = Path(answer.stdout.strip())
    assert found == tmp_path / "site" / "dhcp_cmd" / "schema"
    assert schema_files(found) == schema_files(ROOT / "schema")


def test_the_schema_is_found_in_the_editable_install() -> None:
    assert Path(str(files("dhcp_cmd.schema"))) == ROOT / "schema"


def test_the_wheel_names_its_programs_and_its_dhcpkit_extension(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
    text = archive.read(name).decode()
    assert "dhcp-cmd = dhcp_cmd.cli:main" in text
    assert "relay-maar = relay_maar.__main__:main" in text
    group = text.partition("[dhcpkit.ipv6.server.extensions]")[2]
    assert group.split("[")[0].strip() == "central-mobility-database = dhcp_cmd.plugin"


def test_nothing_in_this_environment_is_missing_or_at_odds() -> None:
    """`pip check`: above all dhcpkit's requirement of `netifaces`, which packaging/netifaces fulfils."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    shown = subprocess.run([*pip, "show", "netifaces"], capture_output=True, text=True, check=True)
    assert "Version: 0.11.0+netifaces2" in shown.stdout


def test_importing_dhcpkit_leaves_typing_alone() -> None:
    """packaging/netifaces/dhcpkit-typing.pth; without it dhcpkit puts a copy in the place of typing."""
    code = "import sys, typing as genuine, dhcpkit; print(sys.modules['typing'] is genuine)"
    shown = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "True\n"


def test_the_stock_dhcp_server_command_starts_on_this_python() -> None:
    command = Path(sys.executable).with_name("ipv6-dhcpd")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "usage: ipv6-dhcpd" in shown.stdout
