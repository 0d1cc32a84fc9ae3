"""Before any test imports dhcpkit, our mends: it would replace `typing` for this whole process."""

from collections.abc import Iterator

import pytest

import dhcp_cmd.plugin  # noqa: F401
from dhcp_cmd.plugin import counters


@pytest.fixture(autouse=True, scope="session")
def no_counters() -> Iterator[None]:
    """No files with counters of the tests' own process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "start", lambda directory, server: None)
        yield
