"""What is measured: a server, and the database that it may have beside it."""

from __future__ import annotations

import contextlib
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from shutil import rmtree

import psycopg

from bench import processes
from bench.network import Network
from dmm_wire.dhcpv6.codes import SERVER_PORT
from lab import netns
from lab.daemons import Daemon, udp_ports
from lab.postgres import ROLE, Postgres


class Unavailable(Exception):
    """This server cannot be measured here; the text says why."""


class Server(ABC):
    """A server with its state. `prepare` makes the state with so many bound nodes once (an image); `start` begins from
    a fresh copy of it.

    Every method may raise LabError, when a program does not do what it must.
    """

    name: str
    """What it is called on the command line."""
    title: str
    """What it is called in tables."""
    rival: str
    """The Kea that it is compared with; its own name: none."""

    def __init__(self, network: Network, postgres: Postgres | None = None) -> None:
        self.network = network
        self.postgres = postgres
        """Runs for as long as the benchmark does; None where it is not installed."""
        self.directory = network.directory / self.name
        """The state of the running server."""
        self._daemon: Daemon | None = None

    def note(self) -> str:
        """What a reader of the tables should know of it."""
        return ""

    @abstractmethod
    def prepare(self, size: int) -> None:
        """Make the image with `size` bound nodes if it is not there. Raises
        Unavailable when the server cannot be measured here.
        """

    @abstractmethod
    def state(self, size: int) -> list[str]:
        """Put a fresh copy of the image into `directory`, and give the command that starts the server on it."""

    def start(self, size: int) -> None:
        """Start from a fresh copy of the image; ready when this returns."""
        self.stop()
        if self.directory.exists():
            rmtree(self.directory)
        self.directory.mkdir(mode=0o755)
        command = self.state(size)
        daemon = Daemon(self.title, self.network.server, command, self.directory / "server.log")
        self._daemon = daemon
        daemon.start()

        def listens() -> bool:
            daemon.check()
            return netns.inside(self.network.server, lambda: SERVER_PORT in udp_ports())

        netns.wait_for(listens, timeout=300, what=f"{self.title} to listen", interval=0.05)

    def stop(self) -> None:
        """Stop it; its state stays as it is. Idempotent."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def discard(self) -> None:
        """Stop it and give up its state; the images stay."""
        self.stop()
        with contextlib.suppress(FileNotFoundError):
            rmtree(self.directory)

    def processes(self) -> list[int]:
        """The server's processes."""
        return [] if self._daemon is None else processes.tree(self._daemon.pid)

    def database_processes(self) -> list[int]:
        """Those of the database server beside it."""
        return []

    def database_url(self) -> str | None:
        """Where a CMD's rows are."""
        return None

    def tail(self) -> str:
        """The last lines of its log."""
        return "" if self._daemon is None else self._daemon.tail()

    def image(self, kind: str, size: int) -> Path:
        """The file of an image, whether it is there or not."""
        return self.network.images / f"{kind}-{size}"


def connect(postgres: Postgres, database: str = "postgres") -> psycopg.Connection:
    """A session in which every statement is a transaction of its own."""
    return psycopg.connect(
        host=str(postgres.directory), user=ROLE, dbname=database, autocommit=True
    )


class OnPostgresql(Server):
    """A server with PostgreSQL beside it; an image is a database that fresh ones are copies of."""

    def prepare(self, size: int) -> None:
        """One database for each number of nodes."""
        postgres = self._need()
        image, making = self._image(size), f"{self.name}-making"
        with connect(postgres) as session:
            if session.execute("SELECT FROM pg_database WHERE datname = %s", (image,)).rowcount:
                return
        postgres.drop(making)
        postgres.create(making)
        dump = self.image(self.name, size)
        if dump.exists():
            self._client("pg_restore", "--jobs=2", "-d", making, str(dump))
        else:
            self.populate_database(postgres, making, size)
            if self.network.keeps_images:
                part = dump.with_suffix(".making")
                self._client("pg_dump", "--format=custom", "-Z1", "-f", str(part), making)
                part.rename(dump)
        with connect(postgres, making) as session:
            session.execute("VACUUM ANALYZE")  # lest autovacuum do it while something is measured
        with connect(postgres) as session:
            session.execute(f'ALTER DATABASE "{making}" RENAME TO "{image}"')

    @abstractmethod
    def populate_database(self, postgres: Postgres, database: str, size: int) -> None:
        """Make the schema in an empty database, and bind the nodes. Raises Unavailable."""

    def copy(self, size: int) -> str:
        """Make the database `self.name` a fresh copy of the image; gives its name."""
        postgres = self._need()
        postgres.drop(self.name)
        with connect(postgres) as session:
            session.execute(
                f'CREATE DATABASE "{self.name}" TEMPLATE "{self._image(size)}" STRATEGY FILE_COPY'
            )
            session.execute("CHECKPOINT")
        return self.name

    def discard(self) -> None:
        """The database goes, too."""
        super().discard()
        if self.postgres is not None:
            self.postgres.drop(self.name)

    def database_processes(self) -> list[int]:
        """PostgreSQL's."""
        return processes.tree(self._need().pid)

    def _image(self, size: int) -> str:
        return f"{self.name}-{size}"

    def _client(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's own programs, on the server's socket. Raises LabError."""
        where = ["-h", str(self._need().directory), "-U", ROLE]
        done = subprocess.run(
            [program, *where, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise netns.LabError(f"{program}: {done.stderr.strip()}")

    def _need(self) -> Postgres:
        if self.postgres is None:
            raise Unavailable("PostgreSQL is not installed (Debian: postgresql)")
        return self.postgres
