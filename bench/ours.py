"""The CMD: `dhcp-cmd serve`, and `ipv6-dhcpd` with our extension."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import copyfile

from bench import domain, prefill
from bench.domain import SERVER
from bench.network import INTERFACE
from bench.packets import SERVER_IDENTIFIER
from bench.servers import OnPostgresql, Server, Unavailable
from dhcp_cmd.store import SchemaMismatch, StoreError, open_store
from lab import netns
from lab.daemons import SERVER_COMMAND
from lab.postgres import Postgres

_ROOT = Path(__file__).resolve().parents[1]
_DHCP_CMD = [sys.executable, "-W", "ignore", "-m", "dhcp_cmd.cli"]

# Started as the program that it is: with -m the source in this folder would go before what was compiled.
_COMPILED = _ROOT / ".venv-compiled" / "bin" / "dhcp-cmd"

_CONFIGURATION = """\
user root
group root
workers {workers}
pid-file {directory}/ipv6-dhcpd.pid
control-socket {directory}/ipv6-dhcpd.sock
allow-rapid-commit yes

<duid-en server-id>
    enterprise-number 32473
    identifier {identifier}
</duid-en>

<logging>
    <console>
        level warning
    </console>
</logging>

<listen-unicast {address} />

<listen-interface {interface} />

<central-mobility-database>
    database {database}
    status-directory {directory}/status
    # A benchmark moves nodes faster than persons do.
    flap-interval 0s
</central-mobility-database>
"""


class OurServer(Server):
    """What the hosts of the CMD have in common. Durability and history are as they are by default."""

    command: tuple[str, ...]
    workers = 2
    """For ipv6-dhcpd; `serve` has one process on SQLite, whatever it says."""

    def configure(self, database: str) -> Path:
        """Write the configuration file into `directory`."""
        path = self.directory / "cmd.conf"
        path.write_text(
            _CONFIGURATION.format(
                workers=self.workers,
                directory=self.directory,
                identifier=SERVER_IDENTIFIER.hex(":"),
                address=SERVER,
                interface=INTERFACE,
                database=database,
            )
        )
        return path

    def dhcp_cmd(self, database: str, *arguments: str) -> None:
        """`dhcp-cmd` on this database. Raises LabError."""
        command = [*_DHCP_CMD, "--database", database, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=_ROOT)
        if done.returncode:
            raise netns.LabError(f"dhcp-cmd {' '.join(arguments)}: {done.stderr.strip()}")

    def populate(self, database: str, size: int) -> None:
        """Make the schema, register the domain, bind the nodes."""
        self.dhcp_cmd(database, "db", "upgrade")
        maars = self.network.directory / "maars.toml"
        maars.write_text(domain.registration())
        self.dhcp_cmd(database, "maar", "import", str(maars))
        if size:
            prefill.bind(database, size)


class OnSqlite(OurServer):
    """On SQLite."""

    rival = "kea-memfile"

    def prepare(self, size: int) -> None:
        """One database file for each number of nodes."""
        image = self.image("sqlite", size)
        if not image.exists():
            making = image.with_suffix(".making")
            making.unlink(missing_ok=True)  # of a run that was ended
            self.populate(f"sqlite:///{making}", size)
            for rest in ("-wal", "-shm"):  # the last connection has written it all into the file
                Path(f"{making}{rest}").unlink(missing_ok=True)
            making.rename(image)

    def state(self, size: int) -> list[str]:
        """A copy of the file."""
        image = self.image("sqlite", size)
        database = self.directory / "cmd.sqlite"
        copyfile(image, database)
        with database.open("rb") as copy:
            os.fsync(copy.fileno())  # its pages are not for the server's commits to write
        return [*self.command, str(self.configure(f"sqlite:///{database}"))]

    def database_url(self) -> str:
        """The database file."""
        return f"sqlite:///{self.directory / 'cmd.sqlite'}"


class ServeOnSqlite(OnSqlite):
    """`dhcp-cmd serve` on SQLite."""

    name = "serve-sqlite"
    title = "serve, SQLite"
    command = (*_DHCP_CMD, "serve")


class CompiledOnSqlite(OnSqlite):
    """The same, compiled."""

    name = "compiled-sqlite"
    title = "serve compiled, SQLite"
    command = (str(_COMPILED), "serve")

    def prepare(self, size: int) -> None:
        """As interpreted."""
        need_compiled()
        super().prepare(size)


class DhcpdOnSqlite(OnSqlite):
    """`ipv6-dhcpd` with our extension, on SQLite."""

    name = "ipv6-dhcpd"
    title = "ipv6-dhcpd, SQLite"
    command = tuple(SERVER_COMMAND)


_PROCESSORS = len(os.sched_getaffinity(0))


class ServeOnPostgresql(OnPostgresql, OurServer):
    """`dhcp-cmd serve` on PostgreSQL, one process."""

    name = "serve-postgresql"
    kind = "cmd-postgresql"
    title = "serve, PostgreSQL"
    workers = 1
    rival = "kea-postgresql"
    command = (*_DHCP_CMD, "serve")

    def populate_database(self, postgres: Postgres, database: str, size: int) -> None:
        """As on SQLite."""
        try:
            open_store(postgres.url(database)).close()
        except SchemaMismatch:
            pass  # it is empty, as it should be
        except (StoreError, ImportError) as error:
            raise Unavailable(str(error)) from error
        self.populate(postgres.url(database), size)

    def state(self, size: int) -> list[str]:
        """A copy of the database."""
        self.copy(size)
        return [*self.command, str(self.configure(self.database_url()))]

    def database_url(self) -> str:
        """The copy."""
        return self._need().url(self.name)


class CompiledOnPostgresql(ServeOnPostgresql):
    """The same, compiled."""

    name = "compiled-postgresql"
    title = "serve compiled, PostgreSQL"
    command = (str(_COMPILED), "serve")

    def prepare(self, size: int) -> None:
        """As interpreted."""
        need_compiled()
        super().prepare(size)


class WorkersOnPostgresql(CompiledOnPostgresql):
    """The same with a worker for each processor."""

    name = "workers-postgresql"
    title = f"serve compiled, PostgreSQL, {_PROCESSORS} workers"
    workers = _PROCESSORS

    def prepare(self, size: int) -> None:
        """As one process."""
        if _PROCESSORS == 1:
            raise Unavailable("there is one processor")
        super().prepare(size)


def need_compiled() -> None:
    """Raises Unavailable where nothing is compiled."""
    if not _COMPILED.exists():
        raise Unavailable(
            "it was not compiled: ./dev compiled does, as root with a compiler by apt"
        )
