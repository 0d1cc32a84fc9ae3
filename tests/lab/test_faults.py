"""A short fault run in each mode, on real kernels; the long one is `./dev faults`."""

from __future__ import annotations

import os

import pytest

from lab.faults.cli import rows
from lab.faults.run import MODES, FaultRun, Settings

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.needs("sqlite3", "setpriv"),
    pytest.mark.timeout(400),
]

PREFIX = f"labf{os.getpid()}"
SEED = 20261126
MOVES, NODES = 40, 8


@pytest.mark.parametrize("mode", MODES)
def test_every_kernel_is_right_in_the_end(mode: str) -> None:
    said: list[str] = []
    settings = Settings(mode, MOVES, NODES, SEED, patient=False, clears=True)
    result = FaultRun(settings, PREFIX, said.append).run()
    assert not result.problems, "\n".join([f"seed {SEED}", *result.problems])
    assert result.moves == MOVES
    # The weather was what it is to be: else nothing was shown.
    assert result.counts["lost"] > 0
    assert result.counts["doubled"] > 0
    assert result.counts["overtaken"] > 0
    assert result.counts["again"] > 0
    assert result.prefixes >= 2 * NODES
    assert len(said) == 3
    assert dict(rows([result]))["problems"] == ["0"]
