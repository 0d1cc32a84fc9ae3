"""A PostgreSQL of our own: from the installed binaries, on a Unix socket in a directory, gone when we are.

No TCP, no service of the host, no configuration of it. PostgreSQL refuses to run as root: started by root it runs as
`postgres`, or as `nobody` where there is no such user. Whoever may enter the directory may connect (`trust`): processes
of other users, too.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from lab.netns import LabError, wait_for

ROLE = "postgres"
"""The database role that owns everything."""

_DEBIAN = Path("/usr/lib/postgresql")
_LONGEST_SOCKET = 107 - len("/.s.PGSQL.5432.lock")
_START = 60.0


def binaries() -> Path | None:
    """The folder with the programs of the newest PostgreSQL there is; None: there is none."""
    debian = [path.parent for path in _DEBIAN.glob("*/bin/postgres")]
    if debian:
        return max(debian, key=lambda folder: float(folder.parent.name))
    found = shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent


@contextlib.contextmanager
def private(directory: Path, **settings: str) -> Iterator[Postgres]:
    """A new server in `directory`, which it makes its own; `settings` are those of postgresql.conf.

    It ends with the `with`, at the latest when the thread that began it ends. Commits are durable unless `settings`
    say otherwise (fsync="off"). Raises LabError.
    """
    with _running(Postgres(directory, settings)) as server:
        yield server


@contextlib.contextmanager
def standby(directory: Path, primary: Postgres, **settings: str) -> Iterator[Postgres]:
    """A hot standby of `primary`: a copy of it that follows it, or whom the setting `primary_conninfo` names. Its name
    for `synchronous_standby_names` is the setting `cluster_name`. All else is as with `private`.
    """
    with _running(Postgres(directory, settings, primary)) as server:
        yield server


@contextlib.contextmanager
def _running(server: Postgres) -> Iterator[Postgres]:
    try:
        server.start()
        yield server
    finally:
        server.remove()


class Postgres:
    """The server; made by `private` and `standby`."""

    def __init__(
        self, directory: Path, settings: dict[str, str], primary: Postgres | None = None
    ) -> None:
        found = binaries()
        if found is None:
            raise LabError("PostgreSQL is not installed (Debian's package postgresql)")
        self._binaries = found
        self.directory = directory.absolute()
        """Where its socket is, and its log."""
        self._data = self.directory / "data"
        self._settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.directory),
            "dynamic_shared_memory_type": "mmap",  # in its folder, so that nothing is left of one that was killed
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._segment: str | None = None
        self._user = _user()
        if len(os.fsencode(self.directory)) > _LONGEST_SOCKET:
            raise LabError(f"{directory}: too long a path for a Unix socket")
        self._initialise(primary)

    @property
    def pid(self) -> int:
        """The process number of the postmaster."""
        if self._process is None:
            raise LabError("PostgreSQL is not running")
        return self._process.pid

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return (
            f"postgresql+psycopg:///{quote(database)}?host={quote(str(self.directory))}&user={ROLE}"
        )

    def create(self, database: str, template: str = "template0") -> None:
        """Make a database, a copy of `template` (which nobody may be connected to)."""
        self._client("createdb", f"--template={template}", database)

    def drop(self, database: str) -> None:
        """Remove a database; whoever is connected to it is cut off."""
        self._client("dropdb", "--force", "--if-exists", database)

    def start(self) -> None:
        """Start it, and wait until it takes connections. Raises LabError with the end of its log."""
        if self._process is not None:
            raise LabError("PostgreSQL is running")
        settings = [word for item in self._settings.items() for word in ("-c", "=".join(item))]
        with (self.directory / "postgres.log").open("ab") as log:
            # setpriv sets the signal after it changed the user, which would clear it.
            command = [str(self._binaries / "postgres"), "-D", str(self._data), *settings]
            self._process = subprocess.Popen(
                ["setpriv", *self._as_user(), "--pdeathsig", "INT", *command],
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is ours
            )
        try:
            wait_for(self._is_ready, timeout=_START, what="PostgreSQL to be ready", interval=0.01)
        except BaseException:
            self.kill()
            raise
        self._segment = self._status()[6].split()[1]

    def promote(self) -> None:
        """Make a standby a primary, and wait until it takes writes."""
        command = [str(self._binaries / "pg_ctl"), "promote", "--wait", "-D", str(self._data)]
        _run(["setpriv", *self._as_user(), *command], cwd="/")

    def stop(self) -> None:
        """A fast shutdown: transactions are rolled back, connections closed. Without effect if it is not running."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START)
            self._process = None

    def kill(self) -> None:
        """SIGKILL for the postmaster and every process of it, as by a power failure, but for what the kernel holds."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGSTOP)  # it starts no other one meanwhile
        pids = [*_children(self._process.pid), self._process.pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        wait_for(
            lambda: not any(_is_alive(pid) for pid in pids),
            timeout=_START,
            what="PostgreSQL's processes to end",
        )

    def remove(self) -> None:
        """Stop it, and remove its data; its log stays."""
        try:
            self.stop()
        finally:
            self.kill()
            if self._segment is not None:  # still there where it was killed and not started again
                subprocess.run(["ipcrm", "-m", self._segment], capture_output=True, check=False)
            shutil.rmtree(self._data, ignore_errors=True)

    def _initialise(self, primary: Postgres | None) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        if self._user is not None:
            os.chown(self.directory, self._user.pw_uid, self._user.pw_gid)
        if primary is None:
            command = [str(self._binaries / "initdb"), "--auth=trust", f"--username={ROLE}"]
            command += ["--encoding=UTF8", "--locale=C"]
        else:
            command = [str(self._binaries / "pg_basebackup"), f"--username={ROLE}"]
            command += ["-h", str(primary.directory), "--checkpoint=fast", "--write-recovery-conf"]
        # No flush: there is nothing in it that anybody could miss.
        command += ["--no-sync", "-D", str(self._data)]
        _run(["setpriv", *self._as_user(), *command], cwd="/")

    def _as_user(self) -> list[str]:
        if self._user is None:
            return ["--no-new-privs"]
        return [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]

    def _client(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-h", str(self.directory), "-U", ROLE]
        _run([*command, *arguments])

    def _status(self) -> list[str]:
        """The lines of postmaster.pid: the seventh names its memory segment, the eighth says how far it is."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = (self.directory / "postgres.log").read_text(errors="replace").splitlines()[-5:]
            raise LabError("PostgreSQL does not start: " + " | ".join(tail))
        status = self._status()
        return status[:1] == [str(self.pid)] and status[7:8] == ["ready   "]


def _user() -> pwd.struct_passwd | None:
    """As whom it runs; None: as we do."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LabError("there is neither a user postgres nor one nobody, and PostgreSQL refuses root")


def _environment() -> dict[str, str]:
    """Ours, without what would send PostgreSQL's programs elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _run(command: list[str], cwd: str | None = None) -> None:
    done = subprocess.run(
        command, cwd=cwd, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(FileNotFoundError):
        return [int(each) for each in found.read_text().split()]
    return []


def _is_alive(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
