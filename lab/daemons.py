"""What is under test, as an operator runs it: the CMD (`ipv6-dhcpd` with our extension), a `relay-maar` on each MAAR.

Configurations are written to the lab's directory; what the programs say is kept there in a log each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dhcp_cmd.plugin import counters
from dmm_wire.address import format_address, format_mac
from dmm_wire.dhcpv6.codes import SERVER_PORT
from dmm_wire.mobility.codes import MOBILITY_HEADER
from lab import netns
from lab.topology import CMD, MaarPlan, Topology
from relay_maar.io.client import NotRunning, ask

_BIN = Path(sys.executable).parent
_ROOT = Path(__file__).resolve().parent.parent
_PATIENCE = 20.0
_LEAVES_IT_TO_THE_CMD = 3
"""The number of a MAAR that registers nodes without naming a prefix."""
_LOG_TAIL = 15

# On Python 3.12 dhcpkit fails while it is imported, before it could load an extension: then our own entry comes first.
SERVER_COMMAND = (
    [str(_BIN / "ipv6-dhcpd")]
    if sys.version_info < (3, 12)
    else [sys.executable, "-m", "dhcp_cmd.plugin"]
)

# Root, because the lab must also run from a source tree that nobody else may read. configs/ shows it with a user.
_CMD_CONFIGURATION = """\
user root
group root
workers 1
pid-file {directory}/cmd.pid
control-socket {directory}/cmd.sock
allow-rapid-commit yes

<duid-en server-id>
    enterprise-number 32473
    identifier {identifier}
</duid-en>

<logging>
    <console>
        level info
    </console>
</logging>

<listen-unicast {address} />

<central-mobility-database>
    database {database}
    status-directory {directory}/status
{mode}</central-mobility-database>
"""

DIRECT = "direct"
FIXED = "fixed"
DLIF = "dlif"

_MAAR_CONFIGURATION = """\
name = "{plan.name}"
endpoint = "{endpoint}"
{servers}core-interface = "{plan.core_interface}"
driver = "{driver}"
pools = ["{plan.link_pool}", "{plan.delegated_pool}"]
state-directory = "{directory}/state"
runtime-directory = "{directory}/run"

[[access]]
interface = "{plan.access_interface}"
link-address = "{link_address}"
"""

_REGISTRATION = """\
[[maar]]
name = "{plan.name}"
endpoint = "{endpoint}"
links = ["{plan.link_prefix}"]
{router}
[[maar.pool]]
kind = "link"
prefix = "{plan.link_pool}"
unit = 64

[[maar.pool]]
kind = "delegated"
prefix = "{plan.delegated_pool}"
unit = 56

"""


def _registration(plan: MaarPlan, router: str) -> str:
    endpoint = format_address(plan.endpoint)
    return _REGISTRATION.format(plan=plan, endpoint=endpoint, router=_router_keys(plan, router))


def _router_keys(plan: MaarPlan, router: str) -> str:
    """What its operator chose, the same keys at the CMD as at the MAAR."""
    chosen = plan.chosen_router
    if chosen is None or router != DLIF:
        return ""
    return (
        f'router-link-local = "{format_address(chosen.link_local)}"\n'
        f'router-link-layer = "{format_mac(chosen.link_layer)}"\n'
    )


class Daemon:
    """A program in a namespace that can be killed and started again; its log goes on."""

    def __init__(self, name: str, namespace: str, command: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._namespace = namespace
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; not yet ready when this returns."""
        with self.log.open("ab") as log:
            self._process = netns.start(
                self._namespace,
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                # What a killed server leaves in its temporary directory goes with the lab.
                environment=os.environ | {"TMPDIR": str(self.log.parent)},
                directory=_ROOT,
            )

    @property
    def pid(self) -> int:
        """Its process. Raises LabError when it was not started."""
        if self._process is None:
            raise netns.LabError(f"{self.name} was not started")
        return self._process.pid

    def stop(self) -> int:
        """End it as an operator does (SIGTERM) and return its exit status; 0 when it did not run."""
        return netns.stop(self._process, patience=15.0) if self._process is not None else 0

    def kill(self) -> None:
        """SIGKILL, for the whole session: nothing of it gets the chance to tidy up."""
        if self._process is not None:
            netns.kill(self._process)

    def check(self) -> None:
        """Raises LabError, with the end of its log, when it has ended."""
        if self._process is None or self._process.poll() is not None:
            status = "not started" if self._process is None else self._process.returncode
            raise netns.LabError(f"{self.name} ended ({status}):\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join(f"  {line}" for line in lines[-_LOG_TAIL:])


class Cmd(Daemon):
    """The CMD with its SQLite database, in the given mode. `stock`: on `ipv6-dhcpd`, else on `dhcp-cmd serve`. `more`
    stands at the end of its section. `router` is the MAARs' router identity."""

    def __init__(
        self,
        topology: Topology,
        mode: str = DIRECT,
        more: str = "",
        *,
        stock: bool = True,
        router: str = FIXED,
    ) -> None:
        directory = topology.directory / "cmd"
        directory.mkdir()
        self._plans = topology.plans
        self._router = router
        self.database = directory / "cmd.sqlite"
        self.url = f"sqlite:///{self.database}"
        configuration = self.configuration = directory / "cmd.conf"
        lines = f"    mode {mode}\n    endpoint {CMD.address}\n" if mode != DIRECT else ""
        lines += f"    router-identity {router}\n"
        configuration.touch(mode=0o600)
        configuration.write_text(
            _CMD_CONFIGURATION.format(
                directory=directory,
                identifier=b"lab".hex(":"),
                address=CMD.address,
                database=self.url,
                mode=lines + more,
            )
        )
        serve = [sys.executable, "-m", "dhcp_cmd.cli", "serve"]
        super().__init__(
            "CMD",
            topology.namespace("cmd"),
            [*(SERVER_COMMAND if stock else serve), str(configuration)],
            directory / "cmd.log",
        )

    def populate(self) -> None:
        """Make the database and register the MAARs with their links and pools, as an operator does."""
        self.command("db", "upgrade")
        file = self.database.parent / "maars.toml"
        file.write_text("".join(_registration(plan, self._router) for plan in self._plans))
        self.command("maar", "import", str(file))

    def command(self, *arguments: str) -> str:
        """`dhcp-cmd` on this database; returns what it prints. Raises LabError."""
        command = [sys.executable, "-m", "dhcp_cmd.cli", "--database", self.url, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
        if done.returncode:
            raise netns.LabError(f"dhcp-cmd {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """The rows that a `dhcp-cmd` question answers with. Raises LabError."""
        rows: list[dict[str, Any]] = json.loads(self.command(*arguments, "--format", "json"))
        return rows

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a read-only query, by the `sqlite3` of the machine: SQL that anybody can run. Raises LabError."""
        command = ["sqlite3", "-readonly", "-json", str(self.database), sql]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise netns.LabError(f"sqlite3: {done.stderr.strip()}")
        rows: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        return rows

    def counters(self) -> Mapping[str, int]:
        """What became of messages since its start, `dhcp-cmd signal` included; this may be a second old."""
        found: Mapping[str, int] = counters.read(str(self.database.parent / "status"))["counters"]
        return found

    def wait_until_ready(self) -> None:
        """Until it listens on the DHCPv6 server port. Raises LabError."""

        def listens() -> bool:
            self.check()
            return netns.inside(self._namespace, lambda: SERVER_PORT in udp_ports())

        netns.wait_for(listens, timeout=_PATIENCE, what=f"{self.name} to listen", interval=0.05)


class Signaller(Daemon):
    """`dhcp-cmd signal` beside a stock CMD."""

    def __init__(self, topology: Topology, cmd: Cmd) -> None:
        super().__init__(
            "signal",
            topology.namespace("cmd"),
            [sys.executable, "-m", "dhcp_cmd.cli", "signal", str(cmd.configuration)],
            cmd.log.parent / "signal.log",
        )

    def wait_until_ready(self) -> None:
        """Until it listens for Mobility Headers. Raises LabError."""

        def listens() -> bool:
            self.check()
            return netns.inside(self._namespace, lambda: MOBILITY_HEADER in raw_protocols())

        netns.wait_for(listens, timeout=_PATIENCE, what=f"{self.name} to listen", interval=0.05)


class Maar(Daemon):
    """One MAAR's `relay-maar`. `mode` is the CMD's, `more` stands at the end of its configuration. `registers`: it
    registers its nodes by PMIPv6; then `relays` says whether it relays DHCPv6 all the same. `router` is its router
    identity."""

    def __init__(
        self,
        topology: Topology,
        plan: MaarPlan,
        driver: str,
        mode: str = DIRECT,
        more: str = "",
        *,
        registers: bool = False,
        relays: bool = False,
        router: str = FIXED,
    ) -> None:
        self.plan = plan
        self._peers = len(topology.plans) - 1
        self._is_told = relays or not registers
        lines = ['signalling = "pmip"'] if registers else []
        lines += [f'servers = ["{CMD.address}"]'] if self._is_told else []
        lines += [f'router-identity = "{router}"', *_router_keys(plan, router).splitlines()]
        lines += [f'cmds = ["{CMD.address}"]'] if mode != DIRECT else []
        # Who chooses a node's prefix: the MAAR, as in RFC 8885 section 3.1, or the CMD. Both are seen.
        chooses = registers and plan.number != _LEAVES_IT_TO_THE_CMD
        lines += [f'own-prefixes = "{plan.link_pool}"'] if chooses else []
        directory = topology.directory / plan.name
        directory.mkdir()
        for name in ("state", "run"):
            (directory / name).mkdir()
        self._runtime = directory / "run"
        self.configuration = configuration = directory / "maar.toml"
        text = _MAAR_CONFIGURATION.format(
            plan=plan,
            endpoint=format_address(plan.endpoint),
            link_address=format_address(plan.link_address),
            servers="".join(f"{line}\n" for line in lines),
            driver=driver,
            directory=directory,
        )
        configuration.touch(mode=0o600)
        configuration.write_text(text + more)
        super().__init__(
            plan.name.upper(),
            topology.namespace(plan.node),
            [sys.executable, "-m", "relay_maar", "run", str(configuration)],
            directory / "maar.log",
        )

    def status(self) -> dict[str, Any]:
        """What `relay-maar status --json` says. Raises LabError when it does not answer."""
        try:
            return ask(self._runtime, "status")
        except (NotRunning, OSError) as problem:
            raise netns.LabError(f"{self.name}: {problem}\n{self.tail()}") from None

    def wait_until_ready(self, *, peers: bool = True) -> None:
        """Until it answers and, with `peers`, has learnt from the CMD which MAARs there are (one without
        DHCPv6 learns that from its registrations). Raises LabError."""

        def ready() -> bool:
            self.check()
            try:
                status = ask(self._runtime, "status")
            except (NotRunning, OSError):
                return False
            return not peers or not self._is_told or len(status["domain"]["peers"]) == self._peers

        netns.wait_for(ready, timeout=_PATIENCE, what=f"{self.name} to be ready", interval=0.05)


class Daemons:
    """CMD and MAARs, between `with` and its end, ready when entered. `driver` is the MAARs' tunnel driver, `mode` and
    `stock` as of Cmd, `registers` those MAARs that register nodes, `relays` those of them that relay DHCPv6 all the
    same, `router` as of Maar, `more` what a MAAR's configuration has besides, by its number, and the CMD's by 0."""

    def __init__(
        self,
        topology: Topology,
        driver: str = "auto",
        mode: str = DIRECT,
        more: Mapping[int, str] | None = None,
        *,
        stock: bool = True,
        registers: Collection[MaarPlan] = (),
        relays: Collection[MaarPlan] = (),
        router: str = FIXED,
    ) -> None:
        self.cmd = Cmd(topology, mode, (more or {}).get(0, ""), stock=stock, router=router)
        self.signaller = Signaller(topology, self.cmd) if stock and mode != DIRECT else None
        self._maars = {
            plan: Maar(
                topology,
                plan,
                driver,
                mode,
                (more or {}).get(plan.number, ""),
                registers=plan in registers,
                relays=plan in relays,
                router=router,
            )
            for plan in topology.plans
        }
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.cmd.populate()
            for daemon in self:
                self._undo.callback(daemon.kill)
                daemon.start()
            self.wait_until_ready()
        except BaseException:
            self._undo.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def __iter__(self) -> Iterator[Daemon]:
        beside = () if self.signaller is None else (self.signaller,)
        return iter((self.cmd, *beside, *self._maars.values()))

    @property
    def maars(self) -> Mapping[MaarPlan, Maar]:
        """The `relay-maar` of each MAAR."""
        return self._maars

    @property
    def driver(self) -> str:
        """The tunnel driver that the MAARs have chosen."""
        return ", ".join(sorted({maar.status()["driver"] for maar in self._maars.values()}))

    def wait_until_ready(self) -> None:
        """Until all of them serve. Raises LabError."""
        self.cmd.wait_until_ready()
        if self.signaller is not None:
            self.signaller.wait_until_ready()
        for maar in self._maars.values():
            maar.wait_until_ready()

    def tails(self) -> str:
        """The ends of all logs, for a person who wants to know what went wrong."""
        return "\n".join(f"{daemon.name}:\n{daemon.tail()}" for daemon in self)


def udp_ports() -> set[int]:
    """Local ports of the calling thread's network namespace that UDP over IPv6 listens on."""
    return _bound("udp6")


def raw_protocols() -> set[int]:
    """Protocols that raw IPv6 sockets of the calling thread's network namespace listen for."""
    return _bound("raw6")


def _bound(kind: str) -> set[int]:
    """What stands behind the local addresses of its sockets."""
    lines = Path("/proc/thread-self/net", kind).read_text().splitlines()[1:]
    return {int(line.split()[1].rpartition(":")[2], 16) for line in lines}
