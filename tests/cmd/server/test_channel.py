"""What a worker and its parent say to each other."""

from __future__ import annotations

import logging
import select
from collections.abc import Iterator

import pytest

from dhcp_cmd.server.worker import LOG, SERVES, Channel, ToParent, channel, record

Ends = tuple[Channel, Channel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = channel()
    yield made
    for end in made:
        end.close()


def test_what_is_said_is_heard_in_order_and_then_nothing(ends: Ends) -> None:
    ours, its = ends
    assert ours.hear() == []
    assert its.say(SERVES)
    assert its.say("fails", 1.5, "no route \N{EM DASH} to \udc80 host", 3)
    assert ours.hear() == [SERVES]
    assert ours.hear() == ["fails", 1.5, "no route \N{EM DASH} to \udc80 host", 3]
    assert ours.hear() == []


def test_the_end_is_heard_after_what_was_said_before(ends: Ends) -> None:
    ours, its = ends
    its.say(SERVES)
    its.close()
    assert ours.hear() == [SERVES]
    assert ours.hear() is None
    assert not ours.say(SERVES)


def test_one_that_is_let_go_notices_and_is_still_heard(ends: Ends) -> None:
    ours, its = ends
    ours.leave()
    assert select.select([its], [], [], 0)[0] == [its]
    assert its.hear() is None
    assert its.say(SERVES)
    assert ours.hear() == [SERVES]


def test_who_is_not_heard_does_not_wait(ends: Ends) -> None:
    ours, its = ends
    said = 0
    while its.say("fails", 1.5, "x" * 20_000, said):
        said += 1
    assert said > 1
    assert ours.hear() == ["fails", 1.5, "x" * 8_000, 0]
    assert its.say(SERVES)


class Keeper(logging.Handler):
    def __init__(self, kept: list[logging.LogRecord]) -> None:
        super().__init__()
        self.kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)


def test_a_line_for_the_log_comes_out_as_it_went_in(
    ends: Ends, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, its = ends
    logger = logging.getLogger("tests.cmd.server.channel")
    logger.addHandler(ToParent(its))
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03d %(processName)s[%(process)d] %(name)s %(levelname)s %(message)s"
    )
    kept: list[logging.LogRecord] = []
    logger.addHandler(Keeper(kept))
    logger.propagate = False
    try:
        raise ValueError("bad")
    except ValueError as error:
        logger.error("could not: %r", error, exc_info=error)
    said = ours.hear()
    assert said
    assert said[0] == LOG
    shown = formatter.format(record(*said[1:]))
    assert shown == formatter.format(kept[0])
    assert shown.endswith("ValueError: bad")
    ours.close()
    logger.warning("nobody hears it")
    assert "nobody hears it" in capsys.readouterr().err
    logger.handlers = []
