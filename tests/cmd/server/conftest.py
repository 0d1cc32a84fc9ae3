"""Before any test imports dhcpkit, our mends: it would replace `typing` for this whole process."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import dhcp_cmd.plugin  # noqa: F401
from dhcp_cmd.plugin import counters
from tests.cmd.plugin.network import MAAR_NAMESPACE, SERVER_NAMESPACE, Relay, network
from tests.cmd.server.serving import ENDPOINTS


@pytest.fixture(autouse=True, scope="session")
def no_counters() -> Iterator[None]:
    """No files with counters of the tests' own process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "start", lambda directory, server: None)
        yield


@pytest.fixture(scope="module")
def link() -> Iterator[None]:
    """The network: MAARs on one side, and link-local addresses for clients that are on the server's own link."""
    with network(*ENDPOINTS.values()):
        for namespace, address in ((SERVER_NAMESPACE, "fe80::1"), (MAAR_NAMESPACE, "fe80::2")):
            subprocess.run(
                ["ip", "-n", namespace, "addr", "add", f"{address}/64", "dev", "core", "nodad"],
                check=True,
            )
        yield


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory that the server's user can reach, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="srvt"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def maar1(link: None) -> Iterator[Relay]:
    relay = Relay(ENDPOINTS["maar1"])
    yield relay
    relay.close()
