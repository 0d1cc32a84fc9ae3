"""Real `ipv6-dhcpd` processes, started from configs/cmd.conf with the paths of a test in it."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dhcp_cmd.core.model import Kind
from dhcp_cmd.plugin import counters
from dhcp_cmd.store import create_database, open_store
from dhcp_cmd.store.admin import MaarSpec, PoolSpec, add_maars, default_relay_id
from dmm_wire.address import Prefix, parse_address
from tests.cmd.plugin.waiting import wait_for

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "configs/cmd.conf"
QUIET = "ignore:pkg_resources is deprecated as an API:UserWarning"
"""What setuptools 81 says to whoever imports the module that dhcpkit needs."""
GROUP = "dhcpkit.ipv6.server.extensions"

MAARS = {
    "maar1": MaarSpec(
        "maar1",
        parse_address("2001:db8:ffff::11"),
        (Prefix.parse("2001:db8:a1::/64"),),
        (
            PoolSpec(Kind.LINK, Prefix.parse("2001:db8:1::/52"), 64, 1000, 2000),
            PoolSpec(Kind.DELEGATED, Prefix.parse("2001:db8:1:8000::/52"), 60, 1000, 2000),
        ),
    ),
    "maar2": MaarSpec(
        "maar2",
        parse_address("2001:db8:ffff::12"),
        (Prefix.parse("2001:db8:a2::/64"),),
        (
            PoolSpec(Kind.LINK, Prefix.parse("2001:db8:2::/52"), 64, 1000, 2000),
            PoolSpec(Kind.DELEGATED, Prefix.parse("2001:db8:2:8000::/52"), 60, 1000, 2000),
        ),
    ),
}
RELAY_IDS = {name: default_relay_id(name) for name in MAARS}


def user() -> str:
    """Whom the server runs as: nobody where that user can read the interpreter, else who we are."""
    if os.geteuid() == 0:
        needed = (sys.executable, os.path.realpath(sys.executable), sysconfig.get_path("stdlib"))
        parents = {parent for path in needed for parent in Path(path).parents}
        if all(parent.stat().st_mode & 0o001 for parent in parents):
            return "nobody"
    return pwd.getpwuid(os.geteuid()).pw_name


def make_configuration(
    state: Path, *, address: str, changes: Sequence[tuple[str, str]] = ()
) -> Path:
    """The example with this test's paths, address and user; then `changes` to it, each of which has to apply."""
    account = pwd.getpwnam(user())
    text = EXAMPLE.read_text()
    for old, new in (
        ("user dhcp-cmd", f"user {account.pw_name}"),
        ("group dhcp-cmd", f"group {grp.getgrgid(account.pw_gid).gr_name}"),
        ("/var/lib/dhcp-cmd/", f"{state}/"),
        ("/run/dhcp-cmd", f"{state}/status"),
        ("/run/ipv6-dhcpd.pid", f"{state}/server.pid"),
        ("/run/ipv6-dhcpd.sock", f"{state}/server.sock"),
        ("2001:db8:0:1::53", address),
        *changes,
    ):
        assert old in text, old
        text = text.replace(old, new)
    path = state / "cmd.conf"
    path.write_text(text)
    return path


def make_database(state: Path, maars: Sequence[MaarSpec] = tuple(MAARS.values())) -> Path:
    """A database with these MAARs, owned by the server's user."""
    path = state / "cmd.sqlite"
    create_database(f"sqlite:///{path}")
    store = open_store(f"sqlite:///{path}")
    add_maars(store, maars)
    store.close()
    account = pwd.getpwnam(user())
    for entry in (state, *state.glob("cmd.sqlite*")):
        os.chown(entry, account.pw_uid, account.pw_gid)
    return path


def environment(directory: Path) -> dict[str, str]:
    """The environment in which `ipv6-dhcpd` finds this source tree and its entry point, installed or not."""
    search = [str(ROOT)]
    if not entry_points(group=GROUP, name="central-mobility-database"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        info = directory / "path" / "distributed_mobility-0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: distributed-mobility\nVersion: 0\n"
        )
        lines = (f"{name} = {target}\n" for name, target in project["entry-points"][GROUP].items())
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")
        search.append(str(info.parent))
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(search),
        "PYTHONWARNINGS": QUIET,
        "TMPDIR": str(directory),  # what a killed server leaves goes with the rest
    }


def program() -> str:
    """dhcpkit's own command, as pip installed it."""
    found = shutil.which("ipv6-dhcpd", path=str(Path(sys.executable).parent))
    assert found is not None
    return found


class Server:
    """A running server. Its processes are in a session of their own."""

    def __init__(self, configuration: Path, command: Sequence[str]) -> None:
        self.status = configuration.parent / "status"
        self.log = configuration.parent / "log"
        with self.log.open("a") as log:
            before = log.tell()
            self.process = subprocess.Popen(
                [*command, str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(configuration.parent),
                start_new_session=True,
            )
        wait_for(lambda: self._ready(before))

    def _ready(self, since: int) -> bool:
        text = self.log.read_text()[since:]
        assert self.process.poll() is None, text
        return "is ready to handle requests" in text

    def processes(self) -> set[int]:
        """The pids of the server: main process, forkserver, workers, resource tracker."""
        return {
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _session(int(entry.name)) == self.process.pid
        }

    def counters(self) -> Any:
        """What it has counted, by outcome."""
        return counters.read(str(self.status))["counters"]

    def kill(self) -> None:
        """kill -9, all of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not self.processes())

    def stop(self) -> int:
        """Ask it to stop; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(timeout=30)
        if self.processes():
            wait_for(lambda: not self.processes())
        return status


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@contextmanager
def running(configuration: Path, *, namespace: str | None = None) -> Iterator[Server]:
    """A server for the length of a test."""
    enter = ["ip", "netns", "exec", namespace] if namespace else []
    server = Server(configuration, [*enter, program()])
    try:
        yield server
    finally:
        if server.process.poll() is None:
            try:
                server.stop()
            finally:
                if server.processes():
                    server.kill()
