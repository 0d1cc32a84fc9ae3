from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.maar.daemon.actors import ENDPOINT, OTHER, PEER
from tests.maar.daemon.running import Running
from tests.maar.daemon.site import Site, site


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> Iterator[Site]:
    """The namespaces of one test file."""
    with site(str(request.module.__name__).rpartition("_")[2][:3]) as made:
        yield made


@pytest.fixture(scope="module")
def maar(place: Site, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """A daemon that knows its domain, for all tests of a file that leave it running."""
    return in_its_domain(place, place.daemon(tmp_path_factory.mktemp("maar") / "d"))


@pytest.fixture
def own(place: Site, tmp_path: Path) -> Iterator[Running]:
    """A daemon for one test, not started; what it leaves in the kernel is removed."""
    running = place.daemon(tmp_path / "d")
    place.cmd.clear()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.end()
    elif (running.directory / "run").exists():
        assert running.command("stop").returncode == 0
    running.close()


def in_its_domain(place: Site, running: Running) -> Running:
    """Start a daemon and tell it the domain."""
    running.start()
    place.cmd.answer(place.cmd.take_query().data, ENDPOINT, PEER, OTHER)
    running.counts_peers(2)
    return running
