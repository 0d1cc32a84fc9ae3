"""Two namespaces and the cable between them: the server in one, all that sends to it in the other."""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import TracebackType
from typing import Self

from bench.domain import CLIENT, ENDPOINTS, MAARS, SERVER
from lab import netns
from lab.signals import uninterrupted

INTERFACE = "eth0"
"""The cable's end, in both."""


class Network:
    """Between `with` and its end; removes first what a killed run with the same prefix has left.

    `directory` is for everything that a run writes and goes with it; it is made in `parent`, on the disk that the
    databases are to be measured on. `images` is for databases with bound nodes; where none is given they go with the
    rest. Raises Busy when another living process uses the prefix, LabError when the kernel
    refuses.
    """

    def __init__(self, prefix: str, parent: Path, images: Path | None = None) -> None:
        self.server = f"{prefix}-server"
        self.client = f"{prefix}-client"
        self.directory = Path()
        self.images = Path()
        self._given_images = images
        self._prefix = prefix
        self._parent = parent
        self._lock: socket.socket | None = None

    def __enter__(self) -> Self:
        self._lock = netns.lock(self._prefix)
        try:
            self.remove()
            for left in self._parent.glob(f"{self._prefix}-*"):
                rmtree(left, ignore_errors=True)
            self.directory = Path(mkdtemp(prefix=f"{self._prefix}-", dir=self._parent))
            self.directory.chmod(0o755)  # PostgreSQL runs as somebody else
            self.images = self._given_images or self.directory / "images"
            self.images.mkdir(parents=True, exist_ok=True)
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with uninterrupted():
            try:
                self.remove()
                if self.directory != Path():
                    with contextlib.suppress(FileNotFoundError):
                        rmtree(self.directory)
            finally:
                if self._lock is not None:
                    self._lock.close()
                    self._lock = None

    @property
    def keeps_images(self) -> bool:
        """Whether they stay for the next run."""
        return self._given_images is not None

    def remove(self) -> None:
        """Kill what runs in the namespaces and remove them. Idempotent."""
        netns.remove((self.server, self.client))

    def _build(self) -> None:
        netns.batch(f"netns add {name}" for name in (self.server, self.client))
        for name in (self.server, self.client):
            netns.write_sysctls(name, {"net/ipv6/conf/default/accept_dad": "0"})
        netns.ip(
            *f"link add {INTERFACE} netns {self.server} type veth".split(),
            *f"peer name {INTERFACE} netns {self.client}".split(),
        )
        up = ("link set lo up", f"link set {INTERFACE} up")
        netns.batch(
            [
                *up,
                f"addr add {SERVER}/64 dev {INTERFACE} nodad",
                f"route add {ENDPOINTS} via {CLIENT} dev {INTERFACE}",
            ],
            namespace=self.server,
        )
        netns.batch(
            [
                *up,
                f"addr add {CLIENT}/64 dev {INTERFACE} nodad",
                # On lo: perfdhcp takes the first address of the interface that it is told.
                *(f"addr add {maar.endpoint}/128 dev lo nodad" for maar in MAARS),
            ],
            namespace=self.client,
        )
        for name in (self.server, self.client):
            netns.wait_for(partial(_is_up, name), timeout=5, what=f"the cable of {name}")


def _is_up(namespace: str) -> bool:
    """Whether the link-local address is there, too."""
    rows = netns.ip_json("addr", "show", "dev", INTERFACE, namespace=namespace)
    return any(entry["scope"] == "link" for row in rows for entry in row["addr_info"])
