"""A PostgreSQL of our own: from the installed binaries, as an unprivileged user, on a Unix socket, without TCP."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import netns

USER = "postgres"
"""The database's superuser; where we are root and the system has a user of that name, the one that it runs as, too."""
_INSTALLED = Path("/usr/lib/postgresql")


def program(name: str) -> str | None:
    """The path of one of PostgreSQL's programs, of the newest version installed; None where there is none."""
    versions = sorted(_INSTALLED.glob("*/bin"), key=lambda path: float(path.parent.name))
    return shutil.which(name, path=os.pathsep.join(map(str, reversed(versions)))) or shutil.which(
        name
    )


class Postgres:
    """A running server. `directory` holds its data, its log and its socket."""

    def __init__(self, directory: Path, settings: dict[str, str]) -> None:
        self.directory = directory
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The postmaster's. Raises LabError when it does not run."""
        if self._process is None:
            raise netns.LabError("PostgreSQL does not run")
        return self._process.pid

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.directory}"

    def create(self, database: str) -> None:
        """Make an empty database. Raises LabError."""
        self.sql(f'CREATE DATABASE "{database}"')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement with psql; what it prints. Raises LabError."""
        command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-U", USER]
        return _run([*command, "-d", database, "-c", statement])

    def start(self) -> None:
        """Start it; ready when this returns. Raises LabError."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_its_user(), _need("postgres"), "-D", str(self.directory / "data"), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
            )
        process = self._process

        def ready() -> bool:
            if process.poll() is not None:
                raise netns.LabError(f"PostgreSQL ended: see {self.directory}/log")
            command = [_need("pg_isready"), "-q", "-h", str(self.directory)]
            return subprocess.run(command, check=False).returncode == 0

        netns.wait_for(ready, timeout=60, what="PostgreSQL to be ready", interval=0.05)

    def stop(self) -> None:
        """Stop it (a fast shutdown); its databases stay. Idempotent."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            netns.kill(self._process)
        self._process = None


@contextmanager
def private(directory: Path, **settings: str) -> Iterator[Postgres]:
    """A new PostgreSQL in `directory` (which its user must be able to reach), running until the end of the `with`; its
    data stay. `settings` are those of postgresql.conf. Raises LabError.
    """
    directory.mkdir(exist_ok=True)
    if _is_root():
        shutil.chown(directory, _account().pw_uid, _account().pw_gid)
    initdb = [_need("initdb"), "-D", str(directory / "data"), "-U", USER, "-A", "trust", "-N"]
    initdb += ["-E", "UTF8", "--locale", "C"]
    _run([*_as_its_user(), *initdb])
    server = Postgres(directory, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _is_root() -> bool:
    return os.geteuid() == 0


def _account() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return pwd.getpwnam("nobody")


def _as_its_user() -> list[str]:
    """Begins a command: PostgreSQL refuses root. It ends when we do."""
    command = ["setpriv", "--pdeathsig", "KILL"]
    if _is_root():
        account = _account()
        command += [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    return [*command, "--"]


def _need(name: str) -> str:
    path = program(name)
    if path is None:
        raise netns.LabError(f"{name} is not installed (Debian: postgresql)")
    return path


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise netns.LabError(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
