"""Kea: its memfile backend, and its PostgreSQL backend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any

from bench.domain import LIFETIMES, PLAIN, SERVER
from bench.network import INTERFACE
from bench.packets import duid, mac
from bench.servers import OnPostgresql, Server, Unavailable, connect
from dmm_wire.address import Prefix
from lab import netns
from lab.postgres import ROLE, Postgres

_SUBNET = "2001:db8:1::/48"
_ADDRESSES = "2001:db8:1:1::/64"
_LEASES_HEADER = (
    "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,"
    "fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source\n"
)


class Kea(Server):
    """kea-dhcp6. `threads`: whether it uses several."""

    threads = False
    rival = ""

    def lease_database(self) -> dict[str, Any]:
        """Its configuration's `lease-database`."""
        raise NotImplementedError

    def check_installed(self) -> None:
        """Raises Unavailable where it is not."""
        missing = [name for name in ("kea-dhcp6", "kea-admin") if shutil.which(name) is None]
        if missing:
            raise Unavailable(f"{', '.join(missing)}: not installed")

    def configure(self) -> list[str]:
        """Write the configuration; the command."""
        path = self.directory / "kea.json"
        path.write_text(json.dumps(self._configuration(), indent=2))
        places = (f"{name}={self.directory}" for name in ("KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR"))
        return ["env", *places, "kea-dhcp6", "-c", str(path)]

    def _configuration(self) -> dict[str, Any]:
        preferred, valid = LIFETIMES
        delegated = Prefix.parse(PLAIN.delegated_pool)
        return {
            "Dhcp6": {
                "interfaces-config": {"interfaces": [INTERFACE, f"{INTERFACE}/{SERVER}"]},
                "lease-database": self.lease_database(),
                "multi-threading": {"enable-multi-threading": self.threads},
                "preferred-lifetime": preferred,
                "valid-lifetime": valid,
                "subnet6": [
                    {
                        "id": 1,
                        "subnet": _SUBNET,
                        "interface": INTERFACE,
                        "rapid-commit": True,
                        "pools": [{"pool": _ADDRESSES}],
                        "pd-pools": [
                            {
                                "prefix": str(delegated).partition("/")[0],
                                "prefix-len": delegated.length,
                                "delegated-len": 64,
                            }
                        ],
                    }
                ],
                "loggers": [
                    {
                        "name": "kea-dhcp6",
                        "severity": "ERROR",
                        "output_options": [{"output": str(self.directory / "kea.log")}],
                    }
                ],
            }
        }

    def note(self) -> str:
        """Whether it ran with several threads."""
        return f"multi-threading {'on' if self.threads else 'off'}"


def prefilled(node: int) -> str:
    """The prefix of a node that is bound before a measurement. From the upper half of the pool: Kea gives out prefixes
    from its beginning, and would else have to pass over all of these first.
    """
    first = Prefix.parse(PLAIN.delegated_pool).address
    slot = (1 << 31) + node
    number = int.from_bytes(first, "big") + (slot << 64)
    return str(Prefix(number.to_bytes(16, "big"), 64)).partition("/")[0]


class KeaMemfile(Kea):
    """Kea with memfile: leases in memory, and appended to a file that is not synced."""

    name = "kea-memfile"
    title = "Kea memfile"

    def lease_database(self) -> dict[str, Any]:
        """A file of leases, never cleaned up while it is measured."""
        leases = str(self.directory / "leases.csv")
        return {"type": "memfile", "persist": True, "name": leases, "lfc-interval": 0}

    def prepare(self, size: int) -> None:
        """A file of leases for each number of nodes."""
        self.check_installed()
        image = self.image("memfile", size)
        if not image.exists():
            making = image.with_suffix(".making")
            preferred, valid = LIFETIMES
            expire = int(time.time()) + valid
            with making.open("w") as file:
                file.write(_LEASES_HEADER)
                for node in range(size):
                    file.write(
                        f"{prefilled(node)},{duid(node).hex(':')},{valid},{expire},1,{preferred},2,1,64,0,0,,"
                        f"{mac(node).hex(':')},0,,1,2\n"
                    )
            making.rename(image)

    def state(self, size: int) -> list[str]:
        """A copy of the file."""
        leases = self.directory / "leases.csv"
        copyfile(self.image("memfile", size), leases)
        _sync(leases)
        return self.configure()


class KeaPostgresql(OnPostgresql, Kea):
    """Kea with PostgreSQL, over a Unix socket."""

    name = "kea-postgresql"
    title = "Kea PostgreSQL"

    def lease_database(self) -> dict[str, Any]:
        """The copy of the image."""
        host = str(self._need().directory)
        return {"type": "postgresql", "host": host, "name": self.name, "user": ROLE}

    def populate_database(self, postgres: Postgres, database: str, size: int) -> None:
        """Kea's own schema, and COPY."""
        self.check_installed()
        where = ["-h", str(postgres.directory), "-u", ROLE, "-n", database]
        done = subprocess.run(
            ["kea-admin", "db-init", "pgsql", *where], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise netns.LabError(f"kea-admin: {done.stderr.strip() or done.stdout.strip()}")
        with (
            connect(postgres, database) as session,
            session.cursor() as cursor,
            cursor.copy(f"COPY lease6 ({', '.join(_COLUMNS)}) FROM STDIN") as copy,
        ):
            for row in _rows(size):
                copy.write_row(row)

    def state(self, size: int) -> list[str]:
        """A copy of the database."""
        self.copy(size)
        return self.configure()


_COLUMNS = (
    *("address", "duid", "valid_lifetime", "expire", "subnet_id", "pref_lifetime", "lease_type"),
    *("iaid", "prefix_len", "fqdn_fwd", "fqdn_rev", "hostname", "state"),
    *("hwaddr", "hwtype", "hwaddr_source", "user_context"),
)


def _rows(size: int) -> Iterator[tuple[object, ...]]:
    """Bound nodes, as Kea writes them."""
    preferred, valid = LIFETIMES
    expire = datetime.now(UTC) + timedelta(seconds=valid)
    for node in range(size):
        where = (prefilled(node), duid(node), valid, expire, 1, preferred, 2)
        yield (*where, 1, 64, False, False, "", 0, mac(node), 1, 2, "")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
