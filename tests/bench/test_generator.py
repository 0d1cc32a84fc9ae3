from __future__ import annotations

from array import array

import pytest

from bench.generator import Outcome
from bench.search import GRACE


def test_what_is_answered_long_after_the_end_is_not_completed() -> None:
    sent = array("d", [10.0, 10.5, 11.0, 11.0])
    took = array("d", [0.25, 0.5 + GRACE - 0.01, GRACE + 0.01, -1.0])
    trial = Outcome(1.0, took, sent).trial(1)
    assert (trial.begun, trial.completed) == (4, 2)
    assert trial.latencies == pytest.approx([0.25, 0.59])
    assert trial.mean_latency == pytest.approx(0.42)


def test_a_generator_that_was_late_offered_less() -> None:
    outcome = Outcome(2.0, array("d", [0.1] * 10), array("d", range(10)))
    assert outcome.trial(1).offered == 5
    assert outcome.trial(4).offered == 2.5
